"""Projected reads equal full reads, and conditions select what they say."""

import pickle

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jax_bridge.shards import open_dataset
from jax_bridge.shards.index_rows import tensor_column

TEXT = "vlm.hidden_states.text.mean"
ACTION = "action.hidden_states.action.mean"
VALID = "valid.text"


@pytest.fixture(scope="module")
def dataset(toy):
    return open_dataset(toy)


def test_a_full_read_gives_what_was_written_in_index_order(dataset, sandbox):
    for field, spec in dataset.fields.items():
        values = dataset.read(field)
        assert values.dtype == spec.numpy_dtype
        np.testing.assert_array_equal(values, sandbox.expected(dataset, field))


@pytest.mark.parametrize("layers", [None, [0], [2, 4], [6, 0], [4, 4], 2, [], np.array([6])])
@pytest.mark.parametrize("flow_times", [None, 1.0, [0.8], [0.9, 1.0], [1.0, 0.9, 0.8], []])
def test_projected_reads_equal_full_reads(dataset, layers, flow_times):
    full = dataset.read(ACTION)
    spec = dataset.fields[ACTION]
    wanted = spec.layers if layers is None else np.atleast_1d(layers).astype(int)
    places = [spec.layers.index(layer) for layer in wanted]
    times = np.round(spec.flow_times, 3).tolist()
    wanted = times if flow_times is None else np.atleast_1d(flow_times).tolist()
    times = [times.index(time) for time in wanted]
    read = dataset.read(ACTION, layers=layers, flow_times=flow_times)
    np.testing.assert_array_equal(read, full[:, places][:, :, times])


def test_rows_are_read_in_the_order_asked_for(dataset):
    rows = np.array([17, 0, 3, 3, 9])
    full = dataset.read(TEXT)
    np.testing.assert_array_equal(dataset.read(TEXT, rows=rows, layers=[2]), full[rows][:, [1]])
    assert dataset.read(TEXT, rows=[]).shape == (0, 4, 8)


@pytest.mark.parametrize(
    ("mapping", "expression"),
    [
        ({"task_id": 1}, pc.field("task_id") == 1),
        ({"task_id": [0, 1], "timestep": 3}, pc.field("timestep") == 3),
        ({"episode": range(1, 3)}, pc.field("episode") > 0),
        ({"episode": range(0, 3, 2)}, pc.field("episode") != 1),
        ({"episode": np.array([2])}, pc.field("episode") == 2),
        ({"call": None}, pc.field("call").is_null()),
        ({"success": True}, pc.field("success")),
        ({"suite": "toy", "outcome": {"failure"}}, pc.field("outcome") == "failure"),
        ({}, pc.scalar(True)),
    ],
)
def test_both_forms_of_a_condition_select_the_same(dataset, mapping, expression):
    rows = dataset.select(mapping)
    np.testing.assert_array_equal(rows, dataset.select(expression))
    assert 0 < len(rows) <= len(dataset)
    np.testing.assert_array_equal(dataset.read(TEXT, where=mapping), dataset.read(TEXT)[rows])


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"colour": 1}, r"`where` must name columns .* but got 'colour'"),
        ({"task_id": "x"}, r"compare task_id with values of type int64, but got 'x'"),
        (pc.field("colour") == 1, r"`where` must be an expression .* No match for FieldRef"),
        ({"task_id": 9}, r"select at least one sample, but got \{'task_id': 9\}"),
        (pc.field("task_id") > 8, r"select at least one sample, but got \(task_id > 8\)"),
    ],
)
def test_conditions_that_make_no_sense_or_select_nothing_are_refused(dataset, where, message):
    with pytest.raises(ValueError, match=message):
        dataset.read(TEXT, where=where)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"field": "vlm.hidden_states.text.last"},
            "but got .*text.last'; near ones are vlm.hidden",
        ),
        ({"field": TEXT, "layers": [1]}, "captured layers 0, 2, 4, 6 of .* but got 1"),
        ({"field": ACTION, "flow_times": 0.5}, r"captured times 1.0, 0.9, 0.8 of .* but got 0\.5"),
        ({"field": TEXT, "flow_times": 1.0}, "`flow_times` must be None for vlm"),
        ({"field": VALID, "layers": 0}, "`layers` must be None for valid.text"),
        ({"field": TEXT, "rows": [18]}, r"`rows` must lie in \[0, 18\), but got 18"),
        ({"field": TEXT, "rows": [True]}, r"vector of row numbers, but got bool \(1,\)"),
        ({"field": TEXT, "rows": [1], "where": {}}, "`rows` must be None where `where`"),
    ],
)
def test_what_was_not_captured_is_named(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        dataset.read(**arguments)


def test_batches_hold_the_same_as_one_read(dataset):
    batches = list(dataset.iter_batches([ACTION, VALID], batch_size=5, layers=[2], flow_times=0.9))
    assert [len(batch["rows"]) for batch in batches] == [5, 5, 5, 3]
    rows = np.concatenate([batch["rows"] for batch in batches])
    np.testing.assert_array_equal(rows, np.arange(18))
    read = np.concatenate([batch[ACTION] for batch in batches])
    np.testing.assert_array_equal(read, dataset.read(ACTION, layers=[2], flow_times=0.9))
    with pytest.raises(ValueError, match=r"`layers` must be None for valid.text"):
        dataset.iter_batches(VALID, batch_size=5, layers=[2])
    with pytest.raises(ValueError, match="`batch_size` must be positive, but got 0"):
        dataset.iter_batches(VALID, batch_size=0)


def test_robot_state_and_actions_are_read_like_latents(dataset):
    state = dataset.read_robot("state", where={"timestep": [3, 6]})
    assert state.shape == (12, 8)
    assert state.dtype == np.float32
    np.testing.assert_array_equal(state[:, 0], [3, 6] * 6)
    assert dataset.read_robot("actions", rows=[0]).shape == (1, 2, 7)
    with pytest.raises(ValueError, match=r"toy-t000-e0000-s0000.*no tensor action_is_pad"):
        dataset.read_robot("action_is_pad")


def test_a_data_set_travels_to_a_worker_with_its_row_numbers(dataset):
    other = pickle.loads(pickle.dumps(dataset))
    assert other.index.equals(dataset.index)
    np.testing.assert_array_equal(other.read(TEXT), dataset.read(TEXT))


def test_a_missing_index_is_built_at_opening(copy_of_toy, dataset):
    for path in (copy_of_toy / "index.parquet", *copy_of_toy.glob("shards/*.parquet")):
        path.unlink()
    for path in copy_of_toy.glob("shards/*.json"):
        path.unlink()
    assert open_dataset(copy_of_toy).index.equals(dataset.index)
    assert pq.read_table(copy_of_toy / "index.parquet").num_rows == 18
    for path in (copy_of_toy / "shards").glob("*.json"):
        assert path.read_bytes() == (dataset.path / "shards" / path.name).read_bytes()


def test_an_index_that_lacks_shards_is_brought_up_to_date(sandbox, tmp_path):
    sandbox.write(tmp_path, tasks=1)
    old = (tmp_path / "index.parquet").read_bytes()
    sandbox.write(tmp_path, tasks=2)
    (tmp_path / "index.parquet").write_bytes(old)
    sandbox.assert_whole(open_dataset(tmp_path), [(t, e) for t in range(2) for e in range(3)])


def test_reading_needs_no_right_to_write(copy_of_toy, dataset, monkeypatch):
    from jax_bridge.shards import dataset_folder

    (copy_of_toy / "index.parquet").unlink()

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(dataset_folder.DatasetFolder, "lock", refuse)
    assert open_dataset(copy_of_toy).index.equals(dataset.index)


def test_a_folder_that_is_no_data_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no dataset.json. Give the folder"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset.json cannot be read"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text(
        '{"format": "vla-lens-shards", "version": 1, "fields": 3, "capture": {}, "model": {},'
        ' "environment": {}, "seed": 0}'
    )
    with pytest.raises(ValueError, match=r"dataset.json cannot be read: `fields` must be dict"):
        open_dataset(tmp_path)


def test_memory_of_batches_is_bounded_by_the_batch(dataset, monkeypatch):
    sizes = []
    real = np.empty

    def watched(shape, *args, **kwargs):
        made = real(shape, *args, **kwargs)
        sizes.append(made.nbytes)
        return made

    from jax_bridge.shards import dataset as module

    monkeypatch.setattr(module.np, "empty", watched)
    for _ in dataset.iter_batches(TEXT, batch_size=2):
        pass
    assert max(sizes) <= 2 * dataset.fields[TEXT].nbytes


def test_runs_that_are_not_in_memory_are_asked_for_at_once(toy, sandbox, monkeypatch):
    from jax_bridge.shards.shard_map import ShardMap

    class Watched:
        def __init__(self, real):
            self.real, self.asked = real, []

        def madvise(self, option, start, length):
            self.asked.append((start, start + length))
            self.real.madvise(option, start, length)

    shard = ShardMap(next(toy.glob("shards/*.tar")))
    shard._map = watched = Watched(shard._map)
    offsets, size = np.array([9000, 512, 4500]), 700
    for in_memory in (True, False):
        monkeypatch.setattr(ShardMap, "_is_in_memory", lambda self, offset, m=in_memory: m)
        target = np.empty(3, f"V{size}")
        shard.gather(offsets, target, np.arange(3))
        for offset, run in zip(offsets, target, strict=True):
            assert run.tobytes() == shard.bytes[offset : offset + size].tobytes()
        assert bool(watched.asked) is not in_memory
    assert watched.asked == [(0, 1212), (4096, 5200), (8192, 9700)]
    monkeypatch.undo()
    assert shard._is_in_memory(int(offsets[0]))
    assert not shard._is_in_memory(len(shard))


def read_ahead_of(toy, monkeypatch, *, in_memory, batch_size=2, **kinds):
    """Reads in batches; what the disk was asked for ahead: (fields' bytes, in order)."""
    import os

    from jax_bridge.shards.shard_map import ShardMap

    asked = []
    monkeypatch.setattr(ShardMap, "_is_in_memory", lambda self, offset: in_memory)
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *run: asked.append(run[:2]))
    dataset = open_dataset(toy)
    # A pool that works at once, so that the order is that of the calls.
    dataset._ahead._pool = type("Pool", (), {"submit": lambda self, call, *a: call(*a)})()
    rows = []
    for batch in dataset.iter_batches(TEXT, batch_size=batch_size, **kinds):
        rows.extend(batch["rows"].tolist())
    return dataset, rows, asked


def test_the_next_rows_are_asked_of_the_disk_once_and_before_they_are_read(toy, monkeypatch):
    dataset, rows, asked = read_ahead_of(toy, monkeypatch, in_memory=False, layers=[2])
    column = dataset.index[tensor_column("latents.safetensors", TEXT, "offset")].to_numpy()
    run = dataset.fields[TEXT].nbytes // len(dataset.fields[TEXT].layers)
    # The first batch teaches what is read, the second comes before anything could be asked for.
    assert asked == [(int(column[row]) + run, run) for row in rows[4:]]


def test_what_is_in_memory_is_not_asked_for(toy, monkeypatch):
    assert read_ahead_of(toy, monkeypatch, in_memory=True)[2] == []


def test_only_what_was_read_last_is_asked_for_ahead(toy, monkeypatch):
    from jax_bridge.shards.last_asked import Asked, LastAsked
    from jax_bridge.shards.projection import project

    spec = open_dataset(toy).fields[TEXT]
    one, two = (Asked("s", TEXT, project(spec, layer, None)) for layer in (2, 4))
    asked = LastAsked()
    assert asked.all() == []
    asked.note(one)
    asked.note(two)
    asked.note(one)
    assert [a.projection.offsets.tolist() for a in asked.all()] == [
        a.projection.offsets.tolist() for a in (one, two)
    ]
    asked.note(two)
    assert asked.all() == [two]
    assert asked.all() == [two]
