"""Actions with a concept erased against random directions: joined by key, judged by episode."""

import dataclasses
import json

import numpy as np
import pytest

from jax_bridge.shards import DatasetInfo, EpisodeWriter, open_dataset
from lightning_modules.erasure.action_change import measure_change
from lightning_modules.erasure.joined_actions import JoinedActions, join_actions
from lightning_modules.report.action_change_page import (
    Sources,
    summary_words,
    verdict_of,
    warnings_of,
    write_change_report,
)


def joined(*, erased=1.0, random=(0.5,), episodes=20, steps=4, seed=0, constant=False):
    """Chunks whose change has these standard deviations; dimension 1 has ten times the unit."""
    draw = np.random.default_rng(seed)
    shape = (episodes * steps, 5, 2)
    unit = np.array([1.0, 10.0])
    plain = draw.normal(size=shape) * unit
    if constant:
        plain[..., 0] = 0.3
    episode = np.repeat(np.arange(episodes), steps)
    size = np.exp(0.3 * draw.normal(size=episodes))[episode][:, None, None]
    changed = [plain + s * size * unit * draw.normal(size=shape) for s in (erased, *random)]
    f = [chunk.astype(np.float32) for chunk in (plain, *changed)]
    return JoinedActions(plain=f[0], erased=f[1], random=f[2:], episode=episode, left_out=0)


def test_the_numbers_are_root_mean_squares_in_units_of_the_plain_actions():
    data = joined(random=(0.5, 0.25))
    change = measure_change(data, draws=50)
    d = (data.erased.astype(float) - data.plain) ** 2
    spread = data.plain.astype(float).std(axis=(0, 1))
    every, first, second = change.rows
    assert first.erased.value == pytest.approx(np.sqrt(d[..., 0].mean()))
    assert second.spread == pytest.approx(spread[1])
    assert every.erased.value == pytest.approx(np.sqrt((d / spread**2).mean()))
    both = [np.sqrt((((r - data.plain) / spread) ** 2).mean()) for r in data.random]
    assert every.random_files == pytest.approx(both, rel=1e-5)
    assert every.random.value == pytest.approx(np.sqrt(np.mean(np.square(both))), rel=1e-5)
    assert every.difference.value == pytest.approx(every.erased.value - every.random.value)


@pytest.mark.parametrize(("erased", "verdict"), [(1.0, 1), (0.2, -1)])
def test_a_planted_difference_is_found_in_its_direction(erased, verdict):
    change = measure_change(joined(erased=erased))
    assert [verdict_of(row) for row in change.rows] == [verdict] * 3
    words = summary_words(change)
    assert ("more" if verdict > 0 else "less") + " than random directions" in words[1]


def test_equal_sizes_are_told_apart_in_about_one_of_twenty_sets():
    told = [
        verdict_of(measure_change(joined(erased=0.5, seed=seed), draws=300).rows[0])
        for seed in range(200)
    ]
    assert 2 <= np.count_nonzero(told) <= 20


def test_the_interval_covers_the_true_size_at_the_nominal_rate():
    # Sizes of episodes are exp(0.3 z), so their root mean square is exp(0.09).
    truth = 0.5 * np.exp(0.09)
    rows = [measure_change(joined(erased=0.5, seed=seed), draws=300).rows[1] for seed in range(200)]
    covered = sum(row.erased.low <= truth <= row.erased.high for row in rows)
    assert covered >= 178  # 190 of 200 expected


def test_a_dimension_that_never_varies_is_left_out_of_the_sum_and_said():
    change = measure_change(joined(constant=True), draws=50)
    assert change.constant == (0,)
    assert change.rows[0].erased.value == pytest.approx(
        change.rows[2].erased.value / change.rows[2].spread
    )
    assert "so not part of the sum: 0" in " ".join(warnings_of(change))


def test_one_episode_gives_no_interval_and_a_warning():
    change = measure_change(joined(episodes=1), draws=50)
    assert not change.rows[0].difference.known
    assert "no difference can be told" in summary_words(change)[1]
    assert warnings_of(change)[0].startswith("Only 1 episodes")


def test_the_report_holds_table_figure_and_page(tmp_path):
    sources = Sources(plain="p", erased="e", random=("r",), command="vla-lens action-change p")
    page = write_change_report(tmp_path, measure_change(joined(), draws=50), sources).read_text()
    assert "action 1" in page and "data:image/svg+xml" in page  # noqa: PT018
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"][0]["difference"]["low"] > 0
    assert len((tmp_path / "changes.csv").read_text().splitlines()) == 4
    assert (tmp_path / "change.png").stat().st_size > 10_000


INFO = DatasetInfo(fields={}, capture={}, model={"preset": "toy"}, environment={}, seed=0)


def write(folder, *, file=None, tasks=2, state=0.0, shift=0.0, seed=0):
    """Two episodes of three steps a task."""
    model = INFO.model if file is None else {**INFO.model, "interventions": file}
    info = dataclasses.replace(INFO, model=model, seed=seed)
    with EpisodeWriter(folder, info) as writer:
        for task, episode in np.ndindex(tasks, 2):
            with writer.episode(
                suite="toy", task_id=task, task_name="t", episode=episode, instruction="go"
            ) as one:
                for step in range(3):
                    number = 100 * task + 10 * episode + step
                    one.append(
                        timestep=step, state=np.full(2, number + state, np.float32),
                        actions=np.full((2, 3), number + shift, np.float32), latents={},
                    )  # fmt: skip
                one.finish(success=True)
    return open_dataset(folder)


def test_samples_are_joined_by_key_and_missing_ones_counted(tmp_path):
    plain = write(tmp_path / "plain")
    erased = write(tmp_path / "erased", file="a", shift=0.5)
    random = write(tmp_path / "random", file="b", tasks=1, shift=0.25)
    data = join_actions(plain, erased, [random])
    assert (len(data.plain), data.left_out) == (6, 6)
    assert data.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.all(data.erased - data.plain == 0.5)
    assert np.all(data.random[0] - data.plain == 0.25)


@pytest.mark.parametrize(
    ("role", "change", "match"),
    [
        ("plain", {"file": "c"}, "`plain` must be collected without --intervene"),
        ("erased", {}, "`erased` must be collected with --intervene, but .* was not"),
        ("random", {"file": "a"}, "a file of its own, but .*random has the one of .*erased"),
        ("random", {"file": "b", "seed": 3}, "random differs in seed"),
        ("erased", {"file": "a", "state": 1.0}, "12 of 12 samples of .*--drive demonstrator"),
    ],
)
def test_data_sets_that_cannot_be_compared_are_refused(tmp_path, role, change, match):
    wanted = {"plain": {}, "erased": {"file": "a"}, "random": {"file": "b"}, role: change}
    plain, erased, random = (write(tmp_path / name, **wanted[name]) for name in wanted)
    with pytest.raises(ValueError, match=match):
        join_actions(plain, erased, [random])
