"""One writer after another, two at once, and what a writer refuses."""

import dataclasses
import json
import threading

import numpy as np
import pytest

from jax_bridge.shards import (
    EpisodeWriter,
    FingerprintError,
    ShardLimits,
    open_dataset,
    sample_key,
)
from jax_bridge.shards.verify import verify_dataset


def test_a_second_run_writes_only_what_is_missing(sandbox, tmp_path):
    sandbox.write(tmp_path, tasks=1, episodes=2)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("*.tar")}
    sandbox.write(tmp_path, tasks=1, episodes=4)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("*.tar")}
    assert before.items() <= after.items()
    sandbox.assert_whole(open_dataset(tmp_path), [(0, e) for e in range(4)])


def break_off(sandbox, writer):
    with writer.episode(suite="toy", task_id=0, episode=2) as recorder:
        recorder.append(timestep=0, latents=sandbox.values(0, 2, 0))
        raise RuntimeError("the simulator fell over")


def test_an_episode_without_finish_leaves_no_trace(sandbox, tmp_path):
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        sandbox.write_episode(writer, 0, 0)
        sandbox.write_episode(writer, 0, 1, finish=False)
        with pytest.raises(RuntimeError, match="the simulator fell over"):
            break_off(sandbox, writer)
        sandbox.write_episode(writer, 0, 3)
    sandbox.assert_whole(open_dataset(tmp_path), [(0, 0), (0, 3)])
    assert verify_dataset(tmp_path).problems == ()


def test_ctrl_c_commits_what_was_finished(sandbox, tmp_path):
    def interrupted():
        with EpisodeWriter(tmp_path, sandbox.info) as writer:
            sandbox.write_episode(writer, 0, 0)
            writer.episode(suite="toy", task_id=0, episode=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    sandbox.assert_whole(open_dataset(tmp_path), [(0, 0)])


def test_a_writer_without_episodes_leaves_an_empty_data_set(sandbox, tmp_path):
    EpisodeWriter(tmp_path, sandbox.info).close()
    assert len(open_dataset(tmp_path)) == 0
    assert list((tmp_path / "shards").glob("*.tar")) == []


def test_two_writers_in_one_folder_write_one_data_set(sandbox, tmp_path):
    def work(task_ids):
        limits = ShardLimits(shard_bytes=25_000)
        with EpisodeWriter(tmp_path, sandbox.info, limits) as writer:
            for task_id in task_ids:
                for episode in range(6):
                    sandbox.write_episode(writer, task_id, episode)

    threads = [threading.Thread(target=work, args=(ids,)) for ids in ([0, 2], [1, 3])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sandbox.assert_whole(open_dataset(tmp_path), [(t, e) for t in range(4) for e in range(6)])
    assert verify_dataset(tmp_path).problems == ()


def test_writers_that_take_turns_never_share_a_name(sandbox, tmp_path):
    writers = [EpisodeWriter(tmp_path, sandbox.info) for _ in range(2)]
    for episode in (0, 1, 2, 5):
        sandbox.write_episode(writers[0], 0, episode)
    sandbox.write_episode(writers[1], 0, 3)
    sandbox.write_episode(writers[0], 1, 5)
    for writer in writers:
        writer.close()
    third = EpisodeWriter(tmp_path, sandbox.info)
    sandbox.write_episode(third, 0, 4)
    third.close()
    sandbox.assert_whole(open_dataset(tmp_path), [*((0, e) for e in range(6)), (1, 5)])


def test_a_taken_name_is_never_overwritten(sandbox, tmp_path, caplog):
    taken = tmp_path / "shards" / "toy-t000-e0000-0000.tar"
    EpisodeWriter(tmp_path, sandbox.info).close()
    taken.write_bytes(b"somebody's broken tar")
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        sandbox.write_episode(writer, 0, 0)
    assert "Left as it is: Shard toy-t000-e0000-0000" in caplog.text
    assert taken.read_bytes() == b"somebody's broken tar"
    assert len(list(tmp_path.glob("shards/toy-t000-e0000-0000-????????.tar"))) == 1
    (problem, *_) = verify_dataset(tmp_path).problems
    assert "toy-t000-e0000-0000: it has no manifest" in str(problem)


def test_what_two_writers_both_wrote_is_kept_once(sandbox, tmp_path):
    first, second = (EpisodeWriter(tmp_path, sandbox.info) for _ in range(2))
    for writer in (first, second):
        for episode in range(3):
            sandbox.write_episode(writer, 0, episode)
    sandbox.write_episode(second, 0, 3)
    first.close()
    second.close()
    sandbox.assert_whole(open_dataset(tmp_path), [(0, e) for e in range(4)])
    assert verify_dataset(tmp_path).problems == ()


def test_a_part_in_use_is_not_touched(sandbox, tmp_path):
    first = EpisodeWriter(tmp_path, sandbox.info)
    sandbox.write_episode(first, 0, 0)
    second = EpisodeWriter(tmp_path, sandbox.info)
    assert second.committed == set()
    second.close()
    assert len(list((tmp_path / "shards").glob(".part-*.tar"))) == 1
    sandbox.write_episode(first, 0, 1)
    first.close()
    sandbox.assert_whole(open_dataset(tmp_path), [(0, 0), (0, 1)])


def test_another_fingerprint_is_refused_with_the_difference(sandbox, toy):
    other = dataclasses.replace(
        sandbox.info, environment={"name": "toy", "settle": 5}, capture={"preset": "tokens"}
    )
    message = r"capture\.preset is pooled there, tokens now; environment\.settle is 10 there, 5 now"
    with pytest.raises(FingerprintError, match=message):
        EpisodeWriter(toy, other)


def test_the_place_of_a_checkpoint_is_not_part_of_the_fingerprint(sandbox):
    moved = dataclasses.replace(
        sandbox.info, model={"preset": "toy", "checkpoint": "/elsewhere", "params_digest": "abc"}
    )
    assert moved.fingerprint == sandbox.info.fingerprint
    changed = dataclasses.replace(
        sandbox.info, model={"preset": "toy", "checkpoint": "/somewhere", "params_digest": "abd"}
    )
    assert changed.fingerprint != sandbox.info.fingerprint


def test_a_future_version_is_refused(copy_of_toy):
    path = copy_of_toy / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(ValueError, match=r"`version` of dataset.json must be 1, but got 2"):
        open_dataset(copy_of_toy)


def test_errors_are_listed_until_the_episode_succeeds(sandbox, tmp_path):
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        writer.record_error(suite="toy", task_id=0, episode=0, message="Traceback\n é")
        writer.record_error(suite="toy", task_id=0, episode=1, message="boom")
    with (tmp_path / "errors.jsonl").open("ab") as file:
        file.write(b'{"suite": "to')
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        assert writer.errors == {("toy", 0, 0), ("toy", 0, 1)}
        sandbox.write_episode(writer, 0, 0)
        writer.record_error(suite="toy", task_id=0, episode=2, message="again")
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        assert writer.errors == {("toy", 0, 1), ("toy", 0, 2)}
    assert open_dataset(tmp_path).errors == {("toy", 0, 1), ("toy", 0, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {**v, "vlm.x.y.z": v["valid.text"]}, r"s0000 vlm\.x\.y\.z is unknown"),
        (lambda v: {k: v[k] for k in v if k != "valid.text"}, r"s0000 valid\.text is missing"),
        (lambda v: {**v, "valid.text": np.zeros(2, bool)}, r"bool \(2,\) instead of bool \(\)"),
        (lambda v: {**v, "valid.text": np.float32(0)}, r"float32 \(\) instead of bool \(\)"),
    ],
)
def test_latents_that_do_not_fit_are_named(sandbox, tmp_path, change, message):
    with (
        EpisodeWriter(tmp_path, sandbox.info) as writer,
        writer.episode(suite="toy", task_id=0, episode=0) as recorder,
        pytest.raises(ValueError, match=message),
    ):
        recorder.append(timestep=0, latents=change(sandbox.values(0, 0, 0)))


def test_misuse_of_a_writer_is_refused(sandbox, tmp_path):
    writer = EpisodeWriter(tmp_path, sandbox.info)
    sandbox.write_episode(writer, 0, 0)
    with pytest.raises(ValueError, match="`episode` must be new, but toy-t000-e0000 is already"):
        writer.episode(suite="toy", task_id=0, episode=0)
    with pytest.raises(ValueError, match=r"`suite` must be .* but got 'a\.b'"):
        writer.episode(suite="a.b", task_id=0, episode=0)
    with writer.episode(suite="toy", task_id=0, episode=1) as recorder:
        with pytest.raises(ValueError, match="must follow the end of toy-t000-e0001"):
            writer.episode(suite="toy", task_id=0, episode=2)
        with pytest.raises(ValueError, match="`finish` must follow at least one sample"):
            recorder.finish(success=True)
        recorder.append(timestep=3, latents=sandbox.values(0, 1, 3))
        with pytest.raises(ValueError, match="`timestep` must rise, but got 3 after 3"):
            recorder.append(timestep=3, latents=sandbox.values(0, 1, 3))
        with pytest.raises(ValueError, match=r"names .* that are not taken, but got 'outcome'"):
            recorder.append(timestep=4, extra={"outcome": 1})
        with pytest.raises(ValueError, match="must hold scalars, but got list for 'a'"):
            recorder.append(timestep=4, extra={"a": [1]})
        with pytest.raises(ValueError, match="no JSON form"):
            recorder.append(timestep=4, truth={"x": float("nan")})
    with pytest.raises(ValueError, match="toy-t000-e0001 has ended"):
        recorder.append(timestep=5)
    writer.close()
    with pytest.raises(ValueError, match="The writer is closed"):
        writer.episode(suite="toy", task_id=0, episode=1)
    with pytest.raises(ValueError, match="`shard_bytes` must be positive, but got 0"):
        ShardLimits(shard_bytes=0)


def test_keys_have_the_numbers_in_fixed_width():
    assert sample_key("libero_object", 3, 12, 40) == "libero_object-t003-e0012-s0040"
    with pytest.raises(ValueError, match=r"`timestep` must lie in \[0, 10\^9\), but got -1"):
        sample_key("toy", 0, 0, -1)


def test_metadata_may_be_missing_and_extras_become_columns(sandbox, tmp_path):
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        with writer.episode(suite="toy", task_id=0, episode=0) as recorder:
            latents = sandbox.values(0, 0, 0)
            recorder.append(timestep=0, latents=latents, extra={"score": 0.5, "tag": None})
            recorder.finish(success=None)
        with writer.episode(suite="toy", task_id=0, episode=1) as recorder:
            extra = {"score": 1, "tag": np.int64(3), "answer": "a cube"}
            recorder.append(timestep=0, latents=sandbox.values(0, 1, 0), extra=extra)
            recorder.finish(success=True)
    rows = open_dataset(tmp_path).metadata.to_pylist()
    assert [row["score"] for row in rows] == [0.5, 1.0]
    assert [row["tag"] for row in rows] == [None, 3]
    assert [row["answer"] for row in rows] == [None, "a cube"]
    assert rows[0]["instruction"] is rows[0]["success"] is rows[0]["truth"] is None
    assert rows[0]["outcome"] == "unknown"
