"""`repair` keeps all that is whole, moves the rest away and says what to collect again."""

import shutil

import pytest

from cli.main import main
from jax_bridge.shards import DamagedShardError, EpisodeWriter, ShardWriteError, open_dataset
from jax_bridge.shards.collect_again import ranges_again
from jax_bridge.shards.file_layer import FileLayer
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.repair import repair_dataset
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.verify import verify_dataset

SHARD = "toy-t000-e0002-t001-e0000"
"""The middle one of three: two episodes."""
ALL = [(t, e) for t in range(2) for e in range(3)]


def flip(path, offset, bit=0):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(bytes(content))


def member(folder, episode, suffix="latents.safetensors", timestep=3):
    key = f"toy-{episode}-s{timestep:04d}"
    members = read_manifest(folder / "shards" / f"{SHARD}.json").members
    return next(m for m, _ in members if (m.key, m.suffix) == (key, suffix))


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def assert_recollected(sandbox, folder, report):
    """The data set is whole without the missing episodes, and again with them."""
    missing = {(e.task_id, e.episode) for e in report.missing}
    sandbox.assert_whole(open_dataset(folder), [e for e in ALL if e not in missing])
    assert verify_dataset(folder).problems == ()
    sandbox.write(folder)
    sandbox.assert_whole(open_dataset(folder), ALL)
    again = repair_dataset(folder)
    assert (again.problems, again.missing, again.quarantined) == ([], set(), [])


def test_a_whole_data_set_is_left_as_it_is(copy_of_toy):
    before = {path: path.stat().st_mtime_ns for path in copy_of_toy.glob("shards/*.*")}
    report = repair_dataset(copy_of_toy)
    assert (report.problems, report.rebuilt, report.quarantined) == ([], [], [])
    assert (report.shards, report.samples) == (3, 18)
    assert {path: path.stat().st_mtime_ns for path in copy_of_toy.glob("shards/*.*")} == before


def test_one_bad_episode_goes_and_the_other_stays(copy_of_toy, sandbox):
    bad = member(copy_of_toy, "t000-e0002")
    flip(copy_of_toy / "shards" / f"{SHARD}.tar", bad.offset + bad.size - 1)
    kept = (copy_of_toy / "shards" / f"{SHARD}.tar").read_bytes()
    report = repair_dataset(copy_of_toy)
    assert report.missing == {EpisodeId("toy", 0, 2)}
    assert report.recovered == {EpisodeId("toy", 1, 0)}
    assert f"{SHARD}, key {bad.key}, member {bad.suffix}" in str(report.problems[0])
    expected = [f"{SHARD}.{suffix}" for suffix in ("json", "parquet", "tar")]
    assert files(copy_of_toy / "quarantine") == expected
    assert (copy_of_toy / "quarantine" / f"{SHARD}.tar").read_bytes() == kept
    assert_recollected(sandbox, copy_of_toy, report)


@pytest.mark.parametrize("left", ["manifest", "rows", "index", "tar"])
@pytest.mark.parametrize("cut", [6000, 700])
def test_a_cut_tar_keeps_the_episodes_before_the_cut(copy_of_toy, sandbox, left, cut):
    """Whatever still tells what the shard held."""
    shards = copy_of_toy / "shards"
    path = shards / f"{SHARD}.tar"
    path.write_bytes(path.read_bytes()[:-cut])
    order = ["manifest", "rows", "index"]
    gone = order[: order.index(left)] if left in order else order
    for what, name in zip(
        order, (f"{SHARD}.json", f"{SHARD}.parquet", "../index.parquet"), strict=True
    ):
        if what in gone:
            (shards / name).unlink()
    report = repair_dataset(copy_of_toy)
    # 700 bytes are less than the end blocks and a member: only the last episode can be hurt.
    assert EpisodeId("toy", 0, 2) in report.recovered
    assert report.missing == {EpisodeId("toy", 1, 0)} - report.recovered
    assert report.unknown == ([SHARD] if left == "tar" else [])
    if left != "tar":
        assert bool(report.missing) == (cut == 6000)
    assert_recollected(sandbox, copy_of_toy, report)


@pytest.mark.parametrize("offset", [5, 60, 130, 400, 2000])
def test_a_damaged_manifest_is_made_again_or_its_doubt_is_heeded(copy_of_toy, sandbox, toy, offset):
    flip(copy_of_toy / "shards" / f"{SHARD}.json", offset, 3)
    report = repair_dataset(copy_of_toy)
    assert report.problems
    if report.rebuilt:
        name = f"shards/{SHARD}.json"
        assert (copy_of_toy / name).read_bytes() == (toy / name).read_bytes()
    assert len(report.missing) <= 1
    assert_recollected(sandbox, copy_of_toy, report)


@pytest.mark.parametrize("offset", [3, 100, -20, -300])
@pytest.mark.parametrize("file", [f"shards/{SHARD}.parquet", "index.parquet"])
def test_a_damaged_index_is_made_again(copy_of_toy, toy, file, offset):
    path = copy_of_toy / file
    flip(path, offset % path.stat().st_size, 5)
    report = repair_dataset(copy_of_toy)
    assert (report.missing, report.quarantined) == (set(), [])
    assert path.read_bytes() == (toy / file).read_bytes()
    assert verify_dataset(copy_of_toy).problems == ()


def test_manifests_and_rows_of_other_shards_are_made_again(copy_of_toy, toy):
    shards = copy_of_toy / "shards"
    for suffix in ("json", "parquet"):
        shutil.copy(shards / f"toy-t000-e0000-0001.{suffix}", shards / f"{SHARD}.{suffix}")
    report = repair_dataset(copy_of_toy)
    assert report.rebuilt == [SHARD]
    assert "its manifest is that of toy-t000-e0000-0001" in str(report.problems[0])
    for path in shards.glob("*.*"):
        assert path.read_bytes() == (toy / "shards" / path.name).read_bytes()


def test_a_readable_line_of_a_damaged_manifest_still_convicts_a_tar(copy_of_toy, sandbox):
    bad = member(copy_of_toy, "t000-e0002")
    flip(copy_of_toy / "shards" / f"{SHARD}.tar", bad.offset + bad.size - 1)
    path = copy_of_toy / "shards" / f"{SHARD}.json"
    path.write_bytes(path.read_bytes()[:-20])
    report = repair_dataset(copy_of_toy)
    assert report.missing == {EpisodeId("toy", 0, 2)}
    assert_recollected(sandbox, copy_of_toy, report)


def test_what_is_left_of_a_missing_tar_says_what_to_collect(copy_of_toy, sandbox):
    (copy_of_toy / "shards" / f"{SHARD}.tar").unlink()
    report = repair_dataset(copy_of_toy)
    assert report.missing == {EpisodeId("toy", 0, 2), EpisodeId("toy", 1, 0)}
    assert files(copy_of_toy / "quarantine") == [f"{SHARD}.json", f"{SHARD}.parquet"]
    assert_recollected(sandbox, copy_of_toy, report)


def test_an_episode_in_two_shards_is_kept_once(copy_of_toy, sandbox, tmp_path):
    other = sandbox.write(tmp_path / "other", tasks=1, episodes=1)
    for path in other.glob("shards/*.*"):
        shutil.copy(path, copy_of_toy / "shards")
    assert any("stands in 2 shards" in str(p) for p in verify_dataset(copy_of_toy).problems)
    report = repair_dataset(copy_of_toy)
    assert (report.missing, len(report.quarantined)) == (set(), 1)
    sandbox.assert_whole(open_dataset(copy_of_toy), ALL)


def test_somebody_elses_file_goes_and_nothing_else(copy_of_toy, sandbox):
    (copy_of_toy / "shards" / "notes.tar").write_bytes(b"not a tar")
    (copy_of_toy / "shards" / "empty.tar").write_bytes(b"")
    with pytest.raises(DamagedShardError, match="Shard empty"):
        open_dataset(copy_of_toy)
    report = repair_dataset(copy_of_toy)
    assert report.unknown == ["empty", "notes"]
    assert report.missing == set()
    sandbox.assert_whole(open_dataset(copy_of_toy), ALL)


def test_a_dead_writers_episodes_are_kept_and_a_living_ones_are_not_touched(sandbox, tmp_path):
    folder = sandbox.write(tmp_path / "data", tasks=1, episodes=2)
    living = EpisodeWriter(folder, sandbox.info)
    sandbox.write_episode(living, 0, 2)
    dead = EpisodeWriter(folder, sandbox.info)
    sandbox.write_episode(dead, 1, 0)
    dead._part.close()
    repair_dataset(folder)
    sandbox.assert_whole(open_dataset(folder), [(0, 0), (0, 1), (1, 0)])
    living.close()
    sandbox.assert_whole(open_dataset(folder), [(0, 0), (0, 1), (0, 2), (1, 0)])


class Stop(BaseException):
    """Ends a repair."""


class StoppingFiles(FileLayer):
    """Stops before the n-th change of the disk."""

    def __init__(self, left):
        self.left = left

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise Stop

    def create(self, path):
        self._count()
        return super().create(path)

    def write_at(self, descriptor, pieces, offset):
        self._count()
        return super().write_at(descriptor, pieces, offset)

    def rename(self, source, target):
        self._count()
        super().rename(source, target)

    def unlink(self, path):
        self._count()
        super().unlink(path)


def test_a_repair_that_is_stopped_anywhere_can_be_run_again(toy, sandbox, tmp_path, monkeypatch):
    from jax_bridge.shards import repair
    from jax_bridge.shards.dataset_folder import DatasetFolder

    bad = member(toy, "t000-e0002")
    for point in range(100):
        folder = shutil.copytree(toy, tmp_path / str(point))
        flip(folder / "shards" / f"{SHARD}.tar", bad.offset)
        stopping = StoppingFiles(point)
        monkeypatch.setattr(
            repair, "DatasetFolder", lambda path, f=stopping: DatasetFolder(path, f)
        )
        try:
            repair_dataset(folder)
        except Stop:
            monkeypatch.undo()
            again = repair_dataset(folder)
            assert again.missing == {EpisodeId("toy", 0, 2)}, point
            sandbox.assert_whole(open_dataset(folder), [e for e in ALL if e != (0, 2)])
            assert verify_dataset(folder).problems == ()
        else:
            break
    assert point > 10


def test_a_folder_that_cannot_be_written_is_one_sentence(copy_of_toy, monkeypatch):
    from jax_bridge.shards import repair
    from jax_bridge.shards.dataset_folder import DatasetFolder

    class Refusing(FileLayer):
        def rename(self, source, target):
            raise OSError(30, "Read-only file system")

    bad = member(copy_of_toy, "t000-e0002")
    flip(copy_of_toy / "shards" / f"{SHARD}.tar", bad.offset)
    monkeypatch.setattr(repair, "DatasetFolder", lambda path: DatasetFolder(path, Refusing()))
    with pytest.raises(ShardWriteError, match="the file system is read-only"):
        repair_dataset(copy_of_toy)


def test_ranges_hold_exactly_what_is_missing():
    missing = {EpisodeId("toy", t, e) for t in (1, 2, 4) for e in (3, 4, 7)}
    missing.add(EpisodeId("other", 0, 0))
    ranges = ranges_again(missing)
    assert [again.options for again in ranges] == [
        "--tasks 0:1 --episodes 0:1",
        "--tasks 1:3 --episodes 3:5",
        "--tasks 1:3 --episodes 7:8",
        "--tasks 4:5 --episodes 3:5",
        "--tasks 4:5 --episodes 7:8",
    ]
    found = [
        EpisodeId(again.suite, task, episode)
        for again in ranges
        for task in range(*again.tasks)
        for episode in range(*again.episodes)
    ]
    assert sorted(found) == sorted(missing)


def test_the_command_says_what_to_collect_again(copy_of_toy, capsys):
    bad = member(copy_of_toy, "t000-e0002")
    flip(copy_of_toy / "shards" / f"{SHARD}.tar", bad.offset)
    assert main(["shards", "verify", str(copy_of_toy)]) == 1
    assert "1 problems. `vla-lens shards repair` deals with them" in capsys.readouterr().out
    assert main(["shards", "repair", str(copy_of_toy)]) == 1
    out = capsys.readouterr().out
    assert f"Shard {SHARD}, key toy-t000-e0002-s0003, member latents.safetensors, offset" in out
    assert f"{SHARD}: moved to {copy_of_toy / 'quarantine'}" in out
    assert f"toy task 0 episode 2:  --tasks 0:1 --episodes 2:3 --out {copy_of_toy}" in out
    assert "3 shards, 15 samples: 1 episodes are missing" in out
    assert main(["shards", "verify", str(copy_of_toy)]) == 0
    assert main(["shards", "repair", str(copy_of_toy)]) == 1
    assert "--tasks 0:1 --episodes 2:3" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["unreadable", "another layer"])
def test_a_damaged_dataset_json_is_named_and_written_again(
    copy_of_toy, toy, sandbox, capsys, damage
):
    path = copy_of_toy / "dataset.json"
    text = path.read_text()
    path.write_text(text[:-3] if damage == "unreadable" else text.replace("4,", "5,", 1))
    assert main(["shards", "repair", str(copy_of_toy)]) == (2 if damage == "unreadable" else 1)
    said = capsys.readouterr()
    assert "move it away and run `vla-lens collect` with the options" in said.out + said.err
    path.unlink()
    sandbox.write(copy_of_toy)
    assert path.read_bytes() == (toy / "dataset.json").read_bytes()
    assert verify_dataset(copy_of_toy).problems == ()
