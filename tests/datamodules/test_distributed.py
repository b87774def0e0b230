"""Two and three real processes against one: the same samples, the same metrics, no hang."""

import contextlib
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules.latents import LatentDataModule
from tests.datamodules.rank_jobs import everything, fit, go_on, in_worlds
from tests.planted import damage_sample, write_planted
from tests.ranks import free_port, run_ranks

WORLDS = (2, 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The data in five uneven shards and one empty one, and a copy with damaged samples."""
    root = tmp_path_factory.mktemp("distributed")
    for name in ("data", "damaged"):
        write_planted(root / name, shard_bytes=150_000)
        (root / name / "shards/planted-empty.tar").write_bytes(bytes(10240))
    return root


@pytest.fixture(scope="module")
def damaged(folders):
    """Keys of three samples of each split that cannot be read."""
    data = LatentDataModule(str(folders / "damaged"))
    data.setup()
    return {
        split: {damage_sample(folders / "damaged", row) for row in data.rows[split][[0, 5, 9]]}
        for split in ("train", "val", "test")
    }


@pytest.fixture(scope="module")
def options(folders):
    return {"path": str(folders / "data"), "batch_size": 12, "layer": 2}


@pytest.fixture(scope="module")
def few(options):
    """A selection with a single test sample: all ranks but one have none."""
    given = {**options, "task_range": "0:2", "rollout_step": 0, "fractions": (0.8, 0.1, 0.1)}
    for stop in range(10, 2, -1):
        data = LatentDataModule(**given, episode_range=f"0:{stop}")
        with contextlib.suppress(ValueError):  # a split may be empty
            data.setup()
            if len(data.rows["test"]) == 1:
                return {**given, "episode_range": f"0:{stop}"}
    raise AssertionError("no range of episodes leaves one test sample")


@pytest.fixture(scope="module")
def jobs(folders, options, few, damaged):
    """Checkpoints of one process, and what each is evaluated on."""
    one = folders / "one"
    fit(0, 1, one, options)
    fit(0, 1, folders / "few", {**few, "batch_size": 4}, epochs=1, save_at=1)
    fit(0, 1, folders / "ridge", options, objective="ridge")
    damage = {"path": str(folders / "damaged"), "on_error": "skip"}
    tested = {"stages": ("test",)}
    return {
        "whole": (one / "end.ckpt", {}, {}),
        "workers": (one / "end.ckpt", {"num_workers": 1}, tested),
        "few": (folders / "few/end.ckpt", few, {}),
        "skip": (one / "end.ckpt", damage, {}),
        "ridge": (folders / "ridge/end.ckpt", {}, {"objective": "ridge", **tested}),
    }


@pytest.fixture(scope="module")
def alone(folders, options, jobs):
    """One process."""
    return everything(0, 1, folders / "alone", folders / "one", options, jobs)


@pytest.fixture(scope="module")
def worlds(folders, options, jobs):
    """What each rank found in worlds of 2 and of 3, by their size."""
    ports = {size: free_port() for size in WORLDS}
    args = (ports, folders, folders / "one", options, jobs)
    found = run_ranks(in_worlds, max(WORLDS), folders / "answers", *args)
    return {size: [rank[size] for rank in found if size in rank] for size in WORLDS}


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request, worlds):
    """What each rank of 2 and of 3 found."""
    assert len(worlds[request.param]) == request.param
    return worlds[request.param]


def flat(batches):
    return list(itertools.chain(*batches))


def per_step(ranks, job, stage):
    """The rows that all ranks read in each step."""
    lists = [rank[job]["rows"].get(stage, []) for rank in ranks]
    return [flat(step) for step in itertools.zip_longest(*lists, fillvalue=[])]


def test_training_ranks_make_equal_steps_and_read_in_the_order_of_one(ranks, alone):
    for epoch in ("train0", "train1"):
        counts = {len(rank["fit"]["rows"][epoch]) for rank in ranks}
        assert counts == {len(alone["fit"]["rows"][epoch])} == {8}
        assert per_step(ranks, "fit", epoch) == alone["fit"]["rows"][epoch]
    assert alone["fit"]["rows"]["train0"] != alone["fit"]["rows"]["train1"]


def test_ranks_learn_what_one_process_learns(ranks, alone):
    for rank in ranks:
        for mine, first, theirs in zip(
            *(found["fit"]["weight"] for found in (rank, ranks[0], alone)), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
            np.testing.assert_array_equal(mine, first)


def test_lightning_puts_no_sampler_of_its_own_in_between(ranks):
    assert {rank["fit"]["loader"] for rank in ranks} == {"PlanLoader"}


@pytest.mark.parametrize(
    ("job", "stage"),
    [*itertools.product(("whole", "few"), ("val", "test", "predict")), ("workers", "test")],
)
def test_evaluation_reads_each_sample_once_over_all_ranks(ranks, alone, job, stage):
    read = flat(per_step(ranks, job, stage))
    assert read == sorted(set(read)) == flat(alone[job]["rows"][stage])


def test_some_ranks_really_have_nothing_to_evaluate(ranks):
    read = [flat(rank["few"]["rows"]["test"]) for rank in ranks]
    assert [len(rows) for rows in read] == [1, 0, 0][: len(ranks)]
    if len(ranks) == 3:  # 32 samples are two steps of 15 and a rest of 2
        assert [len(rank["whole"]["rows"]["test"]) for rank in ranks] == [3, 3, 2]


@pytest.mark.parametrize("job", ["whole", "workers", "few", "skip", "ridge"])
def test_metrics_of_ranks_are_those_of_one_process(ranks, alone, job):
    expected = alone[job]
    for rank in ranks:
        found = rank[job]
        assert found["confusions"]
        for exact in ("confusions", "counts"):
            for ours, theirs in zip(found[exact], expected[exact], strict=True):
                np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(found["sums"], expected["sums"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=0)
        same(found["results"], expected["results"])
        assert "test" in found["results"]


@pytest.mark.parametrize(("job", "kind"), [("whole", "held_out"), ("ridge", "refit")])
def test_p_values_of_ranks_are_those_of_one_process(ranks, alone, job, kind):
    for rank in ranks:
        test, expected = (found[job]["results"]["test"] for found in (rank, alone))
        assert (test["permutation"], test["permutations"]) == (kind, 1000)
        for name in ("p_value", "p_corrected", "null_score"):
            assert test["cells"][0][name] == pytest.approx(expected["cells"][0][name], rel=1e-9)
        assert 0 < test["cells"][0]["p_value"] < 0.05


def same(ours, theirs, place=""):
    """Equal, and floats to 1e-9: intervals are drawn from the sums."""
    assert type(ours) is type(theirs), place
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), place
        for name in ours:
            same(ours[name], theirs[name], f"{place}.{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), place
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            same(mine, other, f"{place}[{number}]")
    else:
        exact = not isinstance(theirs, float)
        assert ours == (theirs if exact else pytest.approx(theirs, rel=1e-9, abs=1e-12)), place


def test_rank_0_alone_writes_one_run_folder(ranks, folders):
    # On the other ranks, writing was replaced by an error.
    out = folders / f"ranks{len(ranks)}/whole"
    writers = {path.suffixes[-2] for path in out.glob("events.*")}  # events.….HOST.PID.NUMBER
    assert len(writers) == 1
    assert (out / "metrics/test.json").is_file()
    assert not list(out.glob("*.part"))
    mine, theirs = (
        pq.read_table(folder / "predictions.parquet") for folder in (out, folders / "alone/whole")
    )
    for name in ("key", "split", "cell", "target", "prediction"):
        assert mine[name].to_pylist() == theirs[name].to_pylist()


def test_statistics_are_read_once_for_all_ranks(ranks, folders):
    first, *others = (rank["fit"]["computed"] for rank in ranks)
    assert first > 0 == sum(others)
    cache = folders / f"ranks{len(ranks)}/fit/cache"
    assert len([path for path in cache.rglob("*") if path.is_file()]) == first


def test_an_epoch_begun_by_one_process_is_ended_by_several(ranks, alone):
    begun = flat(alone["fit"]["rows"]["train0"][:3])
    rest = flat(per_step(ranks, "go_on", "train0"))
    assert sorted(begun + rest) == sorted(flat(alone["fit"]["rows"]["train0"]))
    assert begun + rest == flat(alone["fit"]["rows"]["train0"])
    assert per_step(ranks, "go_on", "train1") == alone["fit"]["rows"]["train1"]


@pytest.mark.parametrize("changes", [{"num_workers": 1}, {"batch_size": 5}])
def test_an_epoch_begun_by_several_is_ended_by_one(
    ranks, alone, folders, options, tmp_path, changes
):
    checkpoint = folders / f"ranks{len(ranks)}/fit/middle.ckpt"
    found = go_on(0, 1, tmp_path, checkpoint, {**options, **changes})
    begun = flat(per_step(ranks, "fit", "train0")[:3])
    assert begun + flat(found["rows"]["train0"]) == flat(alone["fit"]["rows"]["train0"])
    assert flat(found["rows"]["train1"]) == flat(alone["fit"]["rows"]["train1"])


def test_all_ranks_report_the_same_missing_samples(ranks, alone, damaged):
    for found in (alone, *ranks):
        unreadable = found["skip"]["unreadable"]
        assert {split: set(keys) for split, keys in unreadable.items()} == {
            "val": damaged["val"], "test": damaged["test"], "all": set().union(*damaged.values()),
        }  # fmt: skip
        assert all("shard" in why.lower() for why in unreadable["test"].values())
        assert found["skip"]["results"]["test"]["samples"] == 32 - 3


def test_the_data_would_tell_ranks_that_read_by_chance_apart(alone):
    # What the tests above compare is not the same for another order or share.
    rows = alone["fit"]["rows"]["train0"]
    assert rows != [sorted(batch) for batch in rows]
    assert alone["whole"]["rows"]["test"][0] != alone["whole"]["rows"]["test"][1]
