"""`vla-lens compare` as its users call it."""

import csv
import json
import re

import numpy as np
import pytest

from cli.main import main
from lightning_modules.comparison.comparable import check_comparable
from lightning_modules.comparison.comparison import compare as run_comparison
from lightning_modules.comparison.exchange import plan_exchange
from lightning_modules.comparison.joint import Mmd
from lightning_modules.comparison.moments import Moments
from lightning_modules.comparison.side import SideChoice, open_sides
from tests.context_data import CONTEXT, PROFILE, correlated, write_vectors
from tests.planted import TEXT, write_planted

WIDTH = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_vectors(tmp_path_factory.mktemp("a") / "original", episodes())


def episodes(seed=0, **options):
    return correlated(16, 3, WIDTH, seed=seed, **options)


def compare(*args):
    return main(["compare", *map(str, args)])


def refused(capsys, *args):
    assert compare(*args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_planted_shift_is_reported_with_tables_and_pictures(original, tmp_path, capsys):
    vectors = episodes(seed=1, shift=3, moved=2)
    vectors[3][1, 4] = np.nan
    tuned = write_vectors(tmp_path / "tuned", vectors, digest="1", dtype="bfloat16")
    args = (original, tuned, "--field", CONTEXT, "--permutations", "60", "--embeddings", "pca,tsne")
    out = tmp_path / "out"
    assert compare(*args, "--allow", "dtype", "--out", out) == 0
    said = capsys.readouterr().out
    assert "A and B differ (p = 0.016" in said
    assert re.search(r"mean of 2 dimensions moved: (0 .*, 1|1 .*, 0) \(", said)
    found = json.loads((out / "comparison.json").read_text())
    assert sorted(found["dimensions_moved"]) == [0, 1]
    assert found["a"]["model"]["params_digest"] != found["b"]["model"]["params_digest"]
    lines = list(csv.DictReader((out / "dimensions.csv").read_text().splitlines()))
    assert {lines[0]["dimension"], lines[1]["dimension"]} == {"0", "1"}
    assert float(lines[0]["shift"]) < -2
    page, text = (out / "report.html").read_text(), (out / "comparison.md").read_text()
    for word in (
        "Fréchet",
        "MMD²",
        "which model?",
        "1 vectors of B hold NaN",
        "--paired sees more",
    ):
        assert word in page
        assert word in text
    assert "differ in their dtype (float32; bfloat16), which was allowed" in re.sub('"', "", text)
    for name in ("measures", "dimensions", "moved", "sorted", "correlation", "pca", "tsne"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 5000
        assert f"figures/{name}.png" in text
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert "mmd/null_mean" in events.Tags()["scalars"]
    assert "measures" in events.Tags()["images"]


def test_what_differs_in_more_than_the_model_is_refused_or_said(original, tmp_path, capsys):
    cases = {
        "profile": {"profile": {**PROFILE, "name": "mobile_vla"}},
        "prompts": {"prompts": ("open the drawer", "push the button")},
        "dtype": {"dtype": "bfloat16"},
    }
    for word, options in cases.items():
        other = write_vectors(tmp_path / word, episodes(seed=1), digest="1", **options)
        args = (original, other, "--field", CONTEXT)
        assert f"must have the same {word}, but got" in refused(capsys, *args)


def test_what_cannot_be_compared_is_refused_with_the_reason(original, tmp_path, capsys):
    wide = write_vectors(tmp_path / "wide", correlated(16, 3, 13, seed=0))
    field = ("--field", CONTEXT)
    assert "vectors of one width, but got 12" in refused(capsys, original, wide, *field)
    assert "of the same samples twice" in refused(capsys, original, original, *field)
    assert "`--field` must name a field" in refused(capsys, original, wide)
    assert "must be a folder, but" in refused(capsys, original, wide, *field, "--out", __file__)
    assert f"holds {CONTEXT}" in refused(
        capsys, original, wide, "--field", "context.x.input.tokens"
    )
    assert "`--allow` must be words of profile" in refused(
        capsys, original, wide, *field, "--allow", "width"
    )
    assert "but got width" in refused(capsys, original, wide, *field, "--allow=width")
    assert "words of pca, tsne, umap, but got som" in refused(
        capsys, original, wide, *field, "--embeddings", "som"
    )
    assert "at least 40, but got 5" in refused(
        capsys, original, wide, *field, "--permutations", "5"
    )
    far = write_vectors(tmp_path / "far", episodes(seed=2), first=100)
    assert "samples that both hold, but none" in refused(capsys, original, far, *field, "--paired")
    few = write_vectors(tmp_path / "few", episodes()[:3], first=50, prompts=["go"])
    assert "which allow" in refused(capsys, few, few, *field, "--episode_range", "50",
                                    "--episode_range_b", "51")  # fmt: skip


def found_by(a, b, *, paired=False):
    """What the command finds, without its pictures."""
    read = []
    sides = open_sides(
        a, b, paired=paired, most_rows=500, seed=0, on_rows=lambda *done: read.append(done)
    )
    assert len(read) >= 2
    assert read == sorted(read)
    assert read[-1][0] == read[-1][1]  # whoever shows it ends with all
    check_comparable(*sides)
    exchange = plan_exchange(*sides, paired=paired, permutations=40)
    vectors = np.concatenate([side.vectors for side in sides])
    return run_comparison(vectors, exchange, measures=[Moments, Mmd])


def test_two_models_on_the_same_frames_are_compared_in_pairs(original, tmp_path):
    noise = correlated(16, 3, WIDTH, seed=9)
    change = np.array([0.2] + [0] * (WIDTH - 1), np.float32)
    tuned = [x + change + np.float32(0.1) * y for x, y in zip(episodes(), noise, strict=True)]
    tuned[2][0, 0] = np.inf  # leaves its partner out, too
    path = write_vectors(tmp_path / "tuned", tuned, digest="1")
    choices = [SideChoice(path=str(folder), field=CONTEXT) for folder in (original, path)]
    assert found_by(*choices).moved() == []
    paired = found_by(*choices, paired=True)
    assert paired.moved() == [0]
    assert (paired.detectable.rows_a, paired.detectable.rows_b) == (47, 47)
    cka = {entry.name: entry for entry in paired.alike}["cka"]
    assert cka.value > 0.9 > cka.null_high


def test_two_layers_of_a_policy_are_compared(tmp_path):
    path = str(write_planted(tmp_path / "data", tasks=2, episodes=8))
    with pytest.raises(ValueError, match=r"`layer` must choose one place of .*, but got 3 of them"):
        SideChoice(path=path, field=TEXT).data()
    layers = [SideChoice(path=path, field=TEXT, layer=layer) for layer in (0, 2)]
    assert found_by(*layers, paired=True).differs  # layer 2 knows the task
    halves = [
        SideChoice(path=path, field=TEXT, layer=0, episode_range=part) for part in ("0:4", "4:8")
    ]
    assert not found_by(*halves).differs


@pytest.mark.slow
def test_umap_draws_both_sides(original, tmp_path):
    other, out = write_vectors(tmp_path / "b", episodes(seed=1), digest="1"), tmp_path / "out"
    args = (original, other, "--field", CONTEXT, "--permutations", "40", "--out", out)
    assert compare(*args, "--embeddings", "umap") == 0
    assert (out / "figures" / "umap.png").stat().st_size > 5000
