"""A large index is read column by column, and says the same as one that is read at once."""

import pickle

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jax_bridge.shards import DamagedShardError, index, open_dataset, parquet_digest
from jax_bridge.shards.index_file import FileColumns
from jax_bridge.shards.index_rows import MEMBER, TENSOR
from jax_bridge.shards.inspection import describe, inspect_dataset
from jax_bridge.shards.verify import verify_dataset

TEXT = "vlm.hidden_states.text.mean"
CONDITIONS = [
    {"task_id": 1, "timestep": [0, 3], "success": True},
    {"suite": "toy", "outcome": {"failure"}},
    {"suite": "tox"},
    {"instruction": "do 1", "episode": range(1, 3)},
    {"key": "toy-t001-e0002-s0003"},
    {"call": None},
    {"answer": None},
    {"answer": "what 3"},
    (pc.field("suite") == "toy") & (pc.field("timestep") < 6) & pc.field("success"),
    pc.field("answer") == "what 3",
    pc.field("answer").is_null(),
]


@pytest.fixture(scope="module")
def grouped(sandbox, tmp_path_factory):
    """A data set whose index has groups of four rows, and the same dataset read at once."""
    path = tmp_path_factory.mktemp("grouped") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_digest, "GROUP_ROWS", 4)
        sandbox.write(path, extra={"answer": "what 3"})
        sandbox.write(path, tasks=3)
    return path, open_dataset(path)


@pytest.fixture
def lazy(grouped, monkeypatch):
    monkeypatch.setattr(index, "AT_ONCE_VALUES", 0)
    return open_dataset(grouped[0])


@pytest.fixture
def reads(monkeypatch):
    """The columns, and groups of rows, that are read of index files."""
    seen = []
    read = FileColumns._read

    def watched(self, name, group):
        seen.append((name, group))
        return read(self, name, group)

    monkeypatch.setattr(FileColumns, "_read", watched)
    return seen


def test_a_large_index_says_the_same_as_one_read_at_once(grouped, lazy, sandbox):
    whole = grouped[1]
    assert lazy.index.equals(whole.index)
    assert lazy.index.schema.equals(whole.index.schema)
    assert pq.ParquetFile(grouped[0] / "index.parquet").num_row_groups == 7
    rows = np.array([26, 0, 3, 3, 9])
    for one, other in ((lazy, whole), (whole, lazy)):
        assert one.index.take(rows).to_pylist() == [other.index.to_pylist()[row] for row in rows]
        again = one.index.take(rows).take([1, 0]).select(["key", "suite", "call"])
        assert again.equals(other.index.select(["key", "suite", "call"]).take(rows[[1, 0]]))
    sandbox.assert_whole(lazy, [(t, e) for t in range(3) for e in range(3)])


@pytest.mark.parametrize("where", CONDITIONS, ids=str)
def test_conditions_select_the_same_of_a_large_index(grouped, lazy, where):
    np.testing.assert_array_equal(lazy.select(where), grouped[1].select(where))


def test_places_are_read_of_one_field_and_of_the_groups_that_are_needed(grouped, lazy, reads):
    lazy.read(TEXT, rows=[0])
    latents = {name for name, _ in reads if name.startswith(TENSOR)}
    assert latents == {f"{TENSOR}latents.{TEXT}.offset"}
    # The comparison with the manifest needs the members of one shard, which has 6 of 27 rows.
    assert {group for name, group in reads if name.startswith(MEMBER)} == {0, 1}


def test_sizes_are_counted_alike_with_and_without_the_footers_help(grouped, monkeypatch):
    whole = describe(inspect_dataset(grouped[0]))
    monkeypatch.setattr(index, "AT_ONCE_VALUES", 0)
    assert describe(inspect_dataset(grouped[0])) == whole
    dataset, known = open_dataset(grouped[0]), grouped[1].index
    for name in dataset.index.column_names:
        if name.endswith(".bytes"):
            assert dataset.index.count_and_sum(name) == known.count_and_sum(name)


def test_a_large_index_travels_and_refuses_to_be_another_one(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "AT_ONCE_VALUES", 0)
    sandbox.write(tmp_path, tasks=1)
    dataset = open_dataset(tmp_path)
    parcel = pickle.dumps(dataset)
    assert pickle.loads(parcel).index.equals(dataset.index)
    sandbox.write(tmp_path, tasks=2)
    sandbox.assert_whole(dataset, [(0, e) for e in range(3)])
    with pytest.raises(ValueError, match=r"index\.parquet was written anew\. Open the data set"):
        pickle.loads(parcel)


def test_a_flipped_bit_of_a_large_index_is_found_by_whoever_reads_it(copy_of_toy, monkeypatch):
    monkeypatch.setattr(index, "AT_ONCE_VALUES", 0)
    path = copy_of_toy / "index.parquet"
    whole = path.read_bytes()
    column = next(
        c
        for c in (pq.read_metadata(path).row_group(0).column(i) for i in range(17))
        if c.path_in_schema == "timestep"
    )
    end = column.dictionary_page_offset + column.total_compressed_size
    path.write_bytes(whole[: end - 1] + bytes([whole[end - 1] ^ 1]) + whole[end:])
    for where in ({"timestep": 3}, pc.field("timestep") == 3):
        dataset = open_dataset(copy_of_toy)
        assert len(dataset.select({"task_id": 1})) == 9
        with pytest.raises(DamagedShardError, match=r"index\.parquet cannot be read .*to rebuild"):
            dataset.select(where)
    assert verify_dataset(copy_of_toy).problems


def test_a_damaged_footer_leads_to_a_new_index(copy_of_toy, monkeypatch):
    monkeypatch.setattr(index, "AT_ONCE_VALUES", 0)
    path = copy_of_toy / "index.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"x" * 12 + whole[-8:])
    assert len(open_dataset(copy_of_toy)) == 18
    assert path.read_bytes() == whole


def test_an_index_of_an_earlier_version_opens(copy_of_toy, monkeypatch):
    path = copy_of_toy / "index.parquet"
    table = pq.read_table(path)
    note = {b"vla-lens": table.schema.metadata[b"vla-lens"]}
    pq.write_table(
        table.replace_schema_metadata(note), path, compression="zstd", write_page_checksum=True
    )
    before = path.read_bytes()
    whole = open_dataset(copy_of_toy).index.to_pylist()
    monkeypatch.setattr(index, "AT_ONCE_VALUES", 0)
    assert open_dataset(copy_of_toy).index.to_pylist() == whole == table.to_pylist()
    assert path.read_bytes() == before
