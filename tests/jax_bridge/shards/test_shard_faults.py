"""Damage is found and its place is named; a refusing disk loses nothing that was committed."""

import errno
import json
import pickle

import numpy as np
import pytest

from jax_bridge.shards import DamagedShardError, EpisodeWriter, ShardWriteError, open_dataset
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.file_layer import FileLayer
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.verify import check_shard, verify_dataset

TEXT = "vlm.hidden_states.text.mean"
SHARD = "toy-t001-e0001-0002"


def flip(path, offset, bit=0):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(bytes(content))


def place(folder, key, suffix):
    members = read_manifest(folder / "shards" / f"{SHARD}.json").members
    return next(m for m, _ in members if (m.key, m.suffix) == (key, suffix))


def test_an_undamaged_data_set_has_no_problems(toy):
    report = verify_dataset(toy)
    assert report.problems == ()
    assert (report.shards, report.samples) == (3, 18)


@pytest.mark.parametrize("suffix", ["json", "latents.safetensors", "robot.safetensors"])
def test_a_flipped_bit_is_named_with_shard_key_member_and_offset(copy_of_toy, suffix):
    member = place(copy_of_toy, "toy-t001-e0002-s0003", suffix)
    flip(copy_of_toy / "shards" / f"{SHARD}.tar", member.offset + member.size - 1)
    (problem,) = verify_dataset(copy_of_toy).problems
    assert (problem.shard, problem.key, problem.member) == (SHARD, "toy-t001-e0002-s0003", suffix)
    assert problem.offset == member.offset
    for word in (SHARD, "toy-t001-e0002-s0003", suffix, str(member.offset)):
        assert word in str(problem)


def test_a_flipped_bit_anywhere_in_a_shard_is_found(copy_of_toy):
    folder = DatasetFolder(copy_of_toy)
    path = folder.tar(SHARD)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for offset in [*range(0, 1024, 37), *rng.integers(0, len(content), 60).tolist()]:
        flip(path, offset, int(rng.integers(8)))
        assert check_shard(folder, SHARD), offset
        path.write_bytes(content)
    assert check_shard(folder, SHARD) == []


def test_a_flipped_bit_anywhere_in_a_manifest_is_found(copy_of_toy):
    folder = DatasetFolder(copy_of_toy)
    path = folder.manifest(SHARD)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for offset in rng.integers(0, len(content), 60).tolist():
        flip(path, offset, int(rng.integers(8)))
        assert check_shard(folder, SHARD), offset
        path.write_bytes(content)


@pytest.mark.parametrize("left", [0, 1, 511, 512, 700, 5000, -1, -1024, -1025])
def test_a_truncated_tar_is_found_and_never_read_past_its_end(copy_of_toy, left):
    path = copy_of_toy / "shards" / f"{SHARD}.tar"
    content = path.read_bytes()
    path.write_bytes(content[:left] if left >= 0 else content[: len(content) + left])
    problems = verify_dataset(copy_of_toy).problems
    assert problems
    assert all(problem.shard == SHARD for problem in problems)
    dataset = open_dataset(copy_of_toy)
    with pytest.raises(DamagedShardError, match=rf"Shard {SHARD}, offset \d+: "):
        dataset.read(TEXT)
    whole = dataset.read(TEXT, on_error="skip")
    np.testing.assert_array_equal(whole, dataset.read(TEXT, rows=np.arange(12)))
    assert len(dataset.damaged) == 6


def test_a_missing_tar_is_named(copy_of_toy):
    (copy_of_toy / "shards" / f"{SHARD}.tar").unlink()
    assert f"Shard {SHARD}" in str(verify_dataset(copy_of_toy).problems[0])


def test_episodes_of_a_removed_tar_are_collected_again(copy_of_toy, sandbox):
    (copy_of_toy / "shards" / f"{SHARD}.tar").unlink()
    assert len(open_dataset(copy_of_toy)) == 12
    sandbox.write(copy_of_toy)
    everything = [(t, e) for t in range(2) for e in range(3)]
    sandbox.assert_whole(open_dataset(copy_of_toy), everything)
    assert verify_dataset(copy_of_toy).problems == ()


def test_swapped_manifests_are_found(copy_of_toy):
    shards = copy_of_toy / "shards"
    content = (shards / "toy-t000-e0000-0001.json").read_bytes()
    (shards / f"{SHARD}.json").write_bytes(content)
    assert "manifest is that of toy-t000-e0000-0001" in str(verify_dataset(copy_of_toy).problems[0])


def test_an_index_of_other_shards_is_found(copy_of_toy):
    shards = copy_of_toy / "shards"
    other = (shards / "toy-t000-e0000-0001.parquet").read_bytes()
    (shards / f"{SHARD}.parquet").write_bytes(other)
    messages = " ".join(map(str, verify_dataset(copy_of_toy).problems))
    assert f"Shard {SHARD}: its index rows are not those of the tar" in messages


def test_an_index_that_contradicts_the_manifest_stops_a_read(copy_of_toy, sandbox, tmp_path):
    dataset = open_dataset(copy_of_toy)
    path = copy_of_toy / "shards" / f"{SHARD}.json"
    path.write_text(path.read_text().replace('"json",512,512', '"json",1024,512'))
    with pytest.raises(DamagedShardError, match="index and manifest disagree"):
        dataset.read(TEXT, where={"task_id": 1, "episode": 1})


def test_a_damaged_header_stops_a_read_and_can_be_skipped(copy_of_toy, toy):
    member = place(copy_of_toy, "toy-t001-e0002-s0003", "latents.safetensors")
    flip(copy_of_toy / "shards" / f"{SHARD}.tar", member.offset + 8)
    dataset = open_dataset(copy_of_toy)
    with pytest.raises(
        DamagedShardError,
        match=rf"{SHARD}, key toy-t001-e0002-s0003, member latents\.safetensors, offset \d+: ",
    ):
        dataset.read(TEXT)
    full = open_dataset(toy).read(TEXT)
    np.testing.assert_array_equal(dataset.read(TEXT, on_error="skip"), np.delete(full, 16, axis=0))
    assert list(dataset.damaged) == [16]
    batches = list(dataset.iter_batches([TEXT, "valid.text"], batch_size=6, on_error="skip"))
    assert [len(batch["rows"]) for batch in batches] == [6, 6, 5]
    assert [len(batch["valid.text"]) for batch in batches] == [6, 6, 5]


def test_skipping_leaves_out_a_whole_bad_shard_after_one_look(copy_of_toy, monkeypatch):
    from jax_bridge.shards import source as module

    looks = []
    monkeypatch.setattr(
        module, "read_manifest", lambda path: looks.append(path) or read_manifest(path)
    )
    path = copy_of_toy / "shards" / "toy-t000-e0000-0001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    dataset = open_dataset(copy_of_toy)
    assert dataset.read_robot("state", on_error="skip").shape == (12, 8)
    batches = list(dataset.iter_batches(TEXT, batch_size=4, on_error="skip"))
    assert [len(batch["rows"]) for batch in batches] == [0, 2, 4, 4, 2]
    assert sorted(dataset.damaged) == list(range(6))
    assert len(looks) == 3
    with pytest.raises(DamagedShardError, match=r"Shard toy-t000-e0000-0001, offset 5000: "):
        pickle.loads(pickle.dumps(dataset)).read_robot("state")


def test_damage_travels_between_processes():
    error = DamagedShardError("gone.", shard="a", key="b", member="c", offset=4)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "Shard a, key b, member c, offset 4: gone."
    assert (copy.shard, copy.key, copy.member, copy.offset) == ("a", "b", "c", 4)


def test_a_changed_fingerprint_is_found(copy_of_toy):
    path = copy_of_toy / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "seed": 1}))
    assert "does not have its fingerprint" in str(verify_dataset(copy_of_toy).problems[0])


def test_a_key_in_two_shards_is_found(copy_of_toy, sandbox, tmp_path):
    other = sandbox.write(tmp_path / "other", tasks=1, episodes=1)
    for path in other.glob("shards/*.tar"):
        (copy_of_toy / "shards" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DamagedShardError, match=r"key toy-t000-e0000-s0000.* stands in 2 shards"):
        open_dataset(copy_of_toy)


class RefusingFiles(FileLayer):
    """Refuses to write once so many bytes are written."""

    def __init__(self, room, code=errno.ENOSPC):
        self.room = room
        self.code = code

    def write_at(self, descriptor, pieces, offset):
        self.room -= sum(map(len, pieces))
        if self.room < 0:
            super().write_at(descriptor, [pieces[0][:100]], offset)
            raise OSError(self.code, "refused")
        return super().write_at(descriptor, pieces, offset)


@pytest.mark.parametrize("room", range(3_000, 60_000, 4_801))
def test_a_full_disk_is_one_sentence_and_loses_nothing_finished(sandbox, tmp_path, room):
    finished = []

    def write():
        with EpisodeWriter(tmp_path, sandbox.info, files=RefusingFiles(room)) as writer:
            for episode in range(20):
                sandbox.write_episode(writer, 0, episode)
                finished.append((0, episode))

    with pytest.raises(ShardWriteError, match=r"Cannot write to .*: the disk is full\. Free some"):
        write()
    sandbox.write(tmp_path, tasks=1, episodes=20)
    sandbox.assert_whole(open_dataset(tmp_path), [(0, e) for e in range(20)])
    assert verify_dataset(tmp_path).problems == ()


def test_a_full_disk_keeps_finished_episodes_without_writing_them_again(sandbox, tmp_path):
    files = RefusingFiles(40_000)
    writer = EpisodeWriter(tmp_path, sandbox.info, files=files)

    def fill():
        for episode in range(20):
            sandbox.write_episode(writer, 0, episode)

    with pytest.raises(ShardWriteError, match="the disk is full"):
        fill()
    kept = set(writer.committed)
    with pytest.raises(ShardWriteError, match=rf"\({len(kept)} committed episodes are kept\)"):
        writer.close()
    assert kept
    again = EpisodeWriter(tmp_path, sandbox.info)
    assert again.committed == kept
    again.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EROFS, "the file system is read-only"), (errno.EIO, "the disk reports an error")],
)
def test_other_refusals_say_what_to_do(sandbox, tmp_path, code, reason):
    with pytest.raises(ShardWriteError, match=rf"Cannot write to {tmp_path}: {reason}\. \w+"):
        EpisodeWriter(tmp_path, sandbox.info, files=RefusingFiles(0, code))


def test_a_file_in_the_place_of_the_folder_is_named(sandbox, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardWriteError, match=r"file.*: a file stands where a folder must be"):
        EpisodeWriter(tmp_path / "file", sandbox.info)
