"""What is exported is what is in the data set, for readers that know nothing of ours."""

import json

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors

from jax_bridge.export import FORMATS, ExportPlan, export
from jax_bridge.export import exporting as module
from jax_bridge.old_pickles import ImportPlan, import_pickles
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, open_dataset
from tests.jax_bridge.old_pickles.conftest import random, save, task  # noqa: F401 -- fixtures

TEXT = "vlm.hidden_states.text.mean"
ACTION = "action.hidden_states.action.mean"
HALF = "vlm.hidden_states.image_base.mean"


def spec(name, dtype, shape, axes, times=None):
    layers = tuple(range(shape[0]))
    return FieldSpec(
        name=name, dtype=dtype, shape=shape, axes=axes, layers=layers, flow_times=times
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two tasks, two episodes each, three samples each."""
    path = tmp_path_factory.mktemp("export") / "data"
    fields = [
        spec(TEXT, "bfloat16", (3, 4), ("layer", "width")),
        spec(ACTION, "float32", (3, 2, 4), ("layer", "flow_time", "width"), (1.0, 0.5)),
        spec(HALF, "float16", (3, 4), ("layer", "width")),
    ]
    generator = np.random.default_rng(0)
    info = DatasetInfo(
        fields={f.name: f for f in fields}, capture={}, model={}, environment={}, seed=0
    )
    with EpisodeWriter(path, info) as writer:
        for place in range(4):
            about = {"suite": "toy", "task_id": place // 2, "episode": place % 2}
            words = f"do {place // 2}"
            with writer.episode(**about, instruction=words) as recorder:
                for step in range(3):
                    latents = {
                        f.name: generator.normal(size=f.shape).astype(f.numpy_dtype) for f in fields
                    }
                    recorder.append(
                        timestep=5 * step,
                        latents=latents,
                        state=generator.normal(size=8).astype(np.float32),
                        executed=generator.normal(size=7).astype(np.float32),
                    )
                recorder.finish(success=place % 2 == 1)
    return path


def plan(data, tmp_path, kind, **more):
    more = {"fields": (TEXT, ACTION, HALF), **more}
    return ExportPlan(dataset=str(data), out=tmp_path / "out", format=kind, **more)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", 500)


def test_npy_holds_the_arrays_and_rows_says_what_they_are(data, tmp_path):
    seen = []
    report = export(plan(data, tmp_path, "npy"), on_rows=lambda *now: seen.append(now))
    dataset = open_dataset(data)
    assert report.rows == len(dataset) == 12
    assert len(seen) > 2
    assert seen[-1] == (12, 12)
    for field, dtype in ((TEXT, np.float32), (ACTION, np.float32), (HALF, np.float16)):
        array = np.load(tmp_path / "out" / f"{field}.npy", allow_pickle=False)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, dataset.read(field).astype(dtype))
    rows = pq.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    assert rows == dataset.metadata.to_pylist()


def test_safetensors_keeps_bfloat16(data, tmp_path):
    export(plan(data, tmp_path, "safetensors"))
    with safetensors.safe_open(tmp_path / "out" / f"{TEXT}.safetensors", "np") as file:
        assert file.get_slice(TEXT).get_dtype() == "BF16"
        assert file.get_slice(TEXT).get_shape() == [12, 3, 4]
    stored = (tmp_path / "out" / f"{TEXT}.safetensors").read_bytes()
    values = np.frombuffer(stored[-12 * 3 * 4 * 2 :], ml_dtypes.bfloat16).reshape(12, 3, 4)
    np.testing.assert_array_equal(values, open_dataset(data).read(TEXT))


def test_layers_times_and_samples_are_chosen_and_only_they_are_read(data, tmp_path, monkeypatch):
    from jax_bridge.shards.shard_map import ShardMap

    read = []
    real = ShardMap.gather

    def gather(self, offsets, target, places):
        read.append(len(offsets) * target.dtype.itemsize)
        real(self, offsets, target, places)

    monkeypatch.setattr(ShardMap, "gather", gather)
    export(
        plan(
            data, tmp_path, "npy", fields=(ACTION,), layers=(2,), flow_times=(0.5,),
            where={"task_id": 1, "success": True},
        )
    )  # fmt: skip
    array = np.load(tmp_path / "out" / f"{ACTION}.npy")
    rows = open_dataset(data).select({"task_id": 1, "success": True})
    assert array.shape == (3, 1, 1, 4)
    assert read[-1] == array.nbytes  # before it come the headers
    monkeypatch.undo()
    np.testing.assert_array_equal(array, open_dataset(data).read(ACTION, rows=rows)[:, 2:, 1:])


def test_parquet_has_metadata_and_arrays_in_one_row(data, tmp_path):
    export(plan(data, tmp_path, "parquet"))
    table = pq.read_table(tmp_path / "out" / "samples.parquet")
    dataset = open_dataset(data)
    assert table["instruction"].to_pylist() == ["do 0"] * 6 + ["do 1"] * 6
    field = table.schema.field(TEXT)
    assert json.loads(field.metadata[b"shape"]) == [3, 4]
    assert field.metadata[b"stored_dtype"] == b"bfloat16"
    values = np.array(table[TEXT].to_pylist(), np.float32).reshape(12, 3, 4)
    np.testing.assert_array_equal(values, dataset.read(TEXT).astype(np.float32))
    state = np.array(table["state"].to_pylist(), np.float32)
    np.testing.assert_array_equal(state, dataset.read_robot("state"))
    assert "actions" not in table.column_names


def test_lerobot_columns_have_its_names_and_count_as_it_does(data, tmp_path):
    export(plan(data, tmp_path, "lerobot", fps=20.0))
    table = pq.read_table(tmp_path / "out" / "data/chunk-000/file-000.parquet")
    assert table["index"].to_pylist() == list(range(12))
    assert table["episode_index"].to_pylist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert table["frame_index"].to_pylist() == [0, 5, 10] * 4
    assert table["timestamp"].to_pylist() == [0.0, 0.25, 0.5] * 4
    assert table["task_index"].to_pylist() == [0] * 6 + [1] * 6
    action = np.array(table["action"].to_pylist(), np.float32)
    np.testing.assert_array_equal(action, open_dataset(data).read_robot("executed"))
    assert f"latents.{ACTION}" in table.column_names
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (4, 12, 20.0)
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [8]}
    tasks = (tmp_path / "out/meta/tasks.jsonl").read_text().splitlines()
    assert [json.loads(line)["task"] for line in tasks] == ["do 0", "do 1"]


@pytest.mark.parametrize("kind", ["parquet", "lerobot"])
def test_tables_need_no_field(data, tmp_path, kind):
    assert export(plan(data, tmp_path, kind, fields=())).rows == 12


def test_pickles_come_out_as_npy_bit_for_bit(tmp_path, random, save):  # noqa: F811
    folder = tmp_path / "old"
    folder.mkdir()
    content = task(random)
    save(folder / "task_0_a.pkl", content)
    import_pickles(ImportPlan(folder=folder), str(tmp_path / "data"))
    name = "action.post_attn_embedding.action.tokens"
    export(plan(tmp_path / "data", tmp_path, "npy", fields=(name,)))
    array = np.load(tmp_path / "out" / f"{name}.npy")
    steps = [
        step
        for episode in content["episodes"].values()
        for step in episode["rollout_steps"].values()
    ]
    for row, step in zip(array, steps, strict=True):
        due = [
            step[f"action_expert_hidden_state_t{t / 10}"]["post_attn_embedding"][:, 0, 1:]
            for t in range(9, 0, -1)
        ]
        assert row.tobytes() == np.stack(due, axis=1).tobytes()


@pytest.mark.parametrize("kind", list(FORMATS))
def test_an_export_that_fails_leaves_nothing(data, tmp_path, kind, monkeypatch):
    def broken(done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        export(plan(data, tmp_path, kind), on_rows=broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"fields": ("vlm.hidden_states.txt.mean",)}, "near ones are vlm.hidden_states.text.mean"),
        ({"where": {"task_id": 7}}, r"`where` must select at least one sample"),
        ({"where": {"task": 7}}, "task"),
        ({"layers": (9,)}, "9"),
    ],
)
def test_what_is_not_there_is_named(data, tmp_path, more, match):
    with pytest.raises(ValueError, match=match):
        export(plan(data, tmp_path, "npy", **more))
    assert list(tmp_path.iterdir()) == []


def test_bad_plans_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match=r"`format` must be one of npy, .*'csv'"):
        plan(data, tmp_path, "csv")
    with pytest.raises(ValueError, match="`field` must name at least one"):
        plan(data, tmp_path, "npy", fields=())
    with pytest.raises(ValueError, match="`fps` must be positive, but got 0"):
        plan(data, tmp_path, "lerobot", fps=0.0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(ValueError, match="`out` must be a new or empty folder"):
        plan(data, tmp_path, "npy")
