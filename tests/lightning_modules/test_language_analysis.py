import dataclasses
from pathlib import Path

import numpy as np
import pytest

from datamodules.row_choice import RowChoice
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, open_dataset
from lightning_modules.language import analysis
from lightning_modules.language.analysis import CONTROL, LanguageAnalysis
from lightning_modules.language.latent_source import chunks_of_cells
from lightning_modules.language.layer_measures import blocks_of
from lightning_modules.language.options import LanguageOptions

IMAGE, TEXT, ACTION = (
    "vlm.hidden_states.image_base.mean",
    "vlm.hidden_states.text.mean",
    "action.hidden_states.action.mean",
)
LAYERS, FLOW_TIMES, STEPS, WIDTH = (0, 1), (1.0, 0.5), 6, 6
FADES_FROM, FADING_LAYER = 3, 1
WORDS = ("take the red cup", "open a drawer", "push that green button", "stack two blocks")
OPTIONS = LanguageOptions(draws=50, permutations=200, folds=4)


def planted_info() -> DatasetInfo:
    vlm = {"dtype": "float32", "shape": (2, WIDTH), "axes": ("layer", "width"), "layers": LAYERS}
    fields = [
        FieldSpec(name=IMAGE, **vlm),
        FieldSpec(name=TEXT, **vlm),
        FieldSpec(
            name=ACTION, dtype="float32", shape=(2, 2, WIDTH),
            axes=("layer", "flow_time", "width"), layers=LAYERS, flow_times=FLOW_TIMES,
        ),
    ]  # fmt: skip
    return DatasetInfo(
        fields={field.name: field for field in fields}, capture={"preset": "planted"},
        model={"preset": "planted", "params_digest": "0" * 64}, environment={"name": "planted"},
        seed=0,
    )  # fmt: skip


def write_language(
    path: Path, *, seed: int = 0, fades: bool = True, success: str = "unrelated", episodes: int = 12
) -> Path:
    """Tasks stand in every layer; in one layer of the image tokens they are gone from a step on.

    `success` is unrelated, all, or related: then failures show no task in layer 0 of the text from
    the third step on. Failures run for two steps more than successes.
    """
    random = np.random.default_rng(seed)
    directions = 2 * np.linalg.qr(np.random.default_rng(9).normal(size=(WIDTH, WIDTH)))[0]

    def latents(task: int, step: int, good: bool) -> dict[str, np.ndarray]:
        image, text = random.normal(size=(2, 2, WIDTH))
        action = random.normal(size=(2, 2, WIDTH))
        image += directions[task]
        if fades and step >= FADES_FROM:
            image[FADING_LAYER] -= directions[task]
        text += directions[task]
        if success == "related" and not good and step >= 2:
            text[0] -= directions[task]
        action[:, 1] += text  # at the later flow time the action tokens show what the text shows
        parts = {IMAGE: image, TEXT: text, ACTION: action}
        return {name: x.astype(np.float32) for name, x in parts.items()}

    with EpisodeWriter(path, planted_info()) as writer:
        for task, words in enumerate(WORDS):
            for number in range(episodes):
                good = success == "all" or bool(random.random() < 0.6)
                length = STEPS if good else STEPS + 2
                with writer.episode(
                    suite="planted", task_id=task, episode=number, task_name=words,
                    instruction=words, task_instruction=words, seed=number,
                ) as episode:  # fmt: skip
                    for step in range(length):
                        episode.append(
                            timestep=10 * step, call=step, latents=latents(task, step, good),
                            state=random.normal(size=3).astype(np.float32),
                        )  # fmt: skip
                    episode.finish(success=good, success_at_end=good, episode_length=10 * length)
    return path


def analysed(path: Path, **options):
    given = dataclasses.replace(OPTIONS, **options)
    return LanguageAnalysis(open_dataset(path), given).run()


@pytest.fixture(scope="module")
def fading(tmp_path_factory):
    return write_language(tmp_path_factory.mktemp("language") / "data", success="related")


@pytest.fixture(scope="module")
def results(fading):
    return analysed(fading)


def place_of(row):
    words = ("expert", "layer", "flow_time", "step", "quantity", "group")
    return tuple(row.get(word) for word in words)


def chosen(rows, **words):
    return [row for row in rows if all(row[name] == value for name, value in words.items())]


def test_planted_fading_is_found_at_its_layer_and_from_its_step_on(results):
    found = [row for row in results.tables["fading"] if row["p_adjusted"] < 0.05]
    worse = {(r["expert"], r["layer"], r["step"]) for r in found if r["change"] > 0}
    planted = {("vlm", FADING_LAYER, 10 * step) for step in range(FADES_FROM, STEPS)}
    assert planted <= worse
    # Steps that only failures reach have too few episodes to tell, and text fades for failures.
    assert all(place[0] != "vlm" or place in planted or place[2] >= 60 for place in worse)


def test_language_loss_is_low_where_the_task_stands_and_near_one_where_it_is_gone(results):
    rows = chosen(
        results.tables["trajectories"], expert="vlm", layer=FADING_LAYER, group="all",
        quantity="language_loss",
    )  # fmt: skip
    by_step = {row["step"]: row for row in rows}
    assert by_step[0]["value"] < 0.45
    assert by_step[10 * FADES_FROM]["value"] > 0.75
    assert by_step[0]["high"] < by_step[10 * FADES_FROM]["low"]
    control = chosen(
        results.tables["trajectories"], expert=CONTROL, group="all", quantity="language_loss"
    )
    assert all(row["value"] > 0.7 for row in control)


def test_separability_and_alignment_fall_where_language_fades(results):
    rows = chosen(results.tables["separability"], expert="vlm", layer=FADING_LAYER)
    for quantity, gone in (("variance_ratio", 0.0), ("cka_with_embeddings", 0.0)):
        by_step = {r["step"]: r for r in rows if r["quantity"] == quantity}
        assert by_step[0]["low"] > by_step[10 * FADES_FROM]["high"]
        assert by_step[10 * FADES_FROM]["low"] < gone < by_step[10 * FADES_FROM]["high"]


def test_what_goes_with_success_is_found_in_its_layer_alone(results):
    found = [row for row in results.tables["success"] if row["p_adjusted"] < 0.05]
    planted = {("text_only", 0), ("action", 0)}  # which shows what the text shows
    assert ("text_only", 0, "language_loss") in {
        (r["expert"], r["layer"], r["quantity"]) for r in found
    }
    assert {(r["expert"], r["layer"]) for r in found} <= planted
    assert all(row["step"] >= 20 for row in found)
    loss = [r for r in found if r["quantity"] == "language_loss" and r["expert"] == "text_only"]
    assert all(row["r"] < 0 and row["auroc"] < 0.5 for row in loss)


def test_language_foretells_success_where_time_and_state_do_not(results):
    at_step = chosen(results.tables["predictors"], step=30)
    area = {row["predictor"]: row for row in at_step}
    assert area["time + proprioception + language"]["low"] > 0.6
    assert area["proprioception"]["low"] < 0.5 < area["proprioception"]["high"]
    # Over all samples the clock alone foretells: who fails runs longer.
    everywhere = {r["predictor"]: r for r in results.tables["predictors"] if r["step"] is None}
    assert everywhere["time"]["low"] > 0.5


def test_experts_that_share_their_latents_are_near_and_others_are_not(results):
    rows = chosen(results.tables["separation"], pair="text_only / action", layer=1)
    apart, near = sorted(rows, key=lambda row: -row["flow_time"])
    assert near["cka_low"] > 0.2
    assert apart["cka_low"] < 0 < apart["cka_high"]
    assert near["angle"] < near["angle_chance_low"]
    assert apart["angle_chance_low"] < apart["angle"] < apart["angle_chance_high"]
    assert near["disagreement_high"] < apart["disagreement_low"]


def test_nothing_is_found_where_nothing_is_planted(tmp_path):
    # 6 sets: at a level of 5 % for each of two questions, 4 findings or more of 12 have a chance of
    # 1 in 460.
    findings = 0
    for seed in range(6):
        path = write_language(tmp_path / str(seed), seed=seed, fades=False, episodes=8)
        tables = analysed(path, seed=seed, draws=10).tables
        for name in ("fading", "success"):
            findings += min(row["p_adjusted"] for row in tables[name]) < 0.05
    assert findings < 4


def test_without_failures_nothing_is_said_about_success(tmp_path):
    path = write_language(tmp_path / "data", success="all", episodes=6)
    results = analysed(path)
    assert results.facts["asked_about_success"] is False
    assert results.tables["success"] == []
    assert results.tables["predictors"] == []
    assert {row["group"] for row in results.tables["trajectories"]} == {"all", "success"}


def test_numbers_do_not_depend_on_how_much_is_held_at_once(fading, results, monkeypatch):
    seen = []

    def small(episodes, bytes_an_episode, memory, seed):
        seen.append(blocks_of(episodes, bytes_an_episode, 1, seed))
        return seen[-1]

    monkeypatch.setattr(analysis, "blocks_of", small)
    monkeypatch.setattr(
        analysis, "chunks_of_cells", lambda source, per_cell, memory: chunks_of_cells(source, 1, 1)
    )
    cut = analysed(fading)
    assert min(len(blocks) for blocks in seen) == 3
    for name, word in (("fading", "change"), ("trajectories", "value")):
        # Rows of one flow time after another stand in another order.
        whole, parts = (
            {place_of(row): row[word] for row in r.tables[name]} for r in (results, cut)
        )
        assert len(whole) == len(results.tables[name])
        assert parts == pytest.approx(whole, rel=1e-5, abs=1e-6)
    # HSIC of blocks estimates the same with other samples paired: close, and not equal.
    for name in ("cka_with_embeddings", "variance_ratio"):
        one, two = (
            chosen(r.tables["separability"], quantity=name, expert="vlm", layer=0, step=0)[0]
            for r in (results, cut)
        )
        assert one["low"] < two["value"] < one["high"]


def test_unseen_instructions_are_not_read_where_each_is_its_own_direction(fading):
    # The planted directions are orthogonal, so that nothing carries over to an unseen instruction.
    rows = chosen(
        analysed(fading, fold_by="task").tables["trajectories"], expert="text_only", layer=1,
        group="all", quantity="language_loss",
    )  # fmt: skip
    assert all(row["value"] > 0.8 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": RowChoice(task_range="0:1")}, "at least 2 different instructions, but got only"),
        ({"rows": RowChoice(episode_range="0:1")}, "at least 6 episodes.*but got 4"),
        ({"site": "mlp_activation"}, "must name a captured field"),
    ],
)
def test_a_data_set_that_cannot_answer_is_refused(fading, options, message):
    with pytest.raises(ValueError, match=message):
        analysed(fading, **options)


def test_an_expert_that_was_not_captured_is_left_out_and_said(fading):
    results = analysed(fading, vlm_region="image_left_wrist", layer=0)
    assert set(results.facts["experts"]) == {"text_only", "action"}
    assert "expert vlm is left out" in results.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "`folds` must be at least 2, but got 1"),
        ({"memory": 1}, "`memory` must be at least 1048576, but got 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LanguageOptions(**options)
