"""A data set folder of any number of samples that has an index and empty tars.

It is what the writer would leave of 40 samples an episode, ten tasks a suite and 800 samples a
shard, with members and fields of the preset `pooled`. Only the index is there to be read.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jax_bridge.shards import DatasetInfo, FieldSpec
from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.dataset_info import FORMAT, VERSION
from jax_bridge.shards.index_rows import COLUMNS, member_column, tensor_column
from jax_bridge.shards.parquet_digest import GROUP_ROWS, writing_options

SUITES = ("libero_goal", "libero_object", "libero_spatial", "libero_10")
TASKS = 10
STEPS = 40
"""Samples an episode; the policy is asked every ten environment steps."""
EPISODES_PER_SHARD = 20
FIELD = "vlm.hidden_states.text.mean"
REGIONS = ("instruction", "text", "image_base", "image_left_wrist", "image_right_wrist")
FIELDS = {
    **{f"vlm.{s}.{r}.mean": 73_728 for s in ("hidden_states", "post_attn") for r in REGIONS},
    "vlm.hidden_states.text.last": 73_728,
    **{f"action.{s}.action.mean": 368_640 for s in ("hidden_states", "post_attn")},
    **{f"vlm.{s}_norm_scale.text.mean": 72 for s in ("pre_attn", "pre_mlp")},
    **{f"action.{s}_norm_scale.action.mean": 720 for s in ("pre_attn", "pre_mlp")},
    "action.velocity.action.tokens": 64_000,
}
"""Bytes of each field of a sample."""
MEMBERS = {
    "json": 1024,
    "latents.safetensors": 4096 + sum(FIELDS.values()),
    "robot.safetensors": 600,
    "base.jpg": 9000,
    "left_wrist.jpg": 7000,
}


def write_synthetic(path: Path, samples: int) -> int:
    """Writes the folder; returns the bytes of its index."""
    folder = DatasetFolder(path)
    folder.create()
    spec = FieldSpec(
        name=FIELD, dtype="bfloat16", shape=(18, 2048), axes=("layer", "width"),
        layers=tuple(range(18)),
    )  # fmt: skip
    folder.write_info(
        DatasetInfo(fields={FIELD: spec}, capture={}, model={}, environment={}, seed=0)
    )
    shards = -(-samples // (STEPS * EPISODES_PER_SHARD))
    names = [f"shard-{number:07d}" for number in range(shards)]
    for name in names:
        folder.tar(name).touch()
    note = canonical_json({"format": FORMAT, "version": VERSION, "shards": names}).encode()
    schema = rows_of(np.zeros(1, np.int64), samples, names).schema.with_metadata(
        {b"vla-lens": note}
    )
    with pq.ParquetWriter(folder.index_path, schema, **writing_options(schema)) as writer:
        for start in range(0, samples, GROUP_ROWS):
            rows = np.arange(start, min(start + GROUP_ROWS, samples))
            writer.write_table(rows_of(rows, samples, names).cast(schema), row_group_size=len(rows))
    return folder.index_path.stat().st_size


def rows_of(rows: np.ndarray, samples: int, shards: list[str]) -> pa.Table:
    """Some rows of the index; every value follows from the row's number."""
    per_task = -(-samples // (len(SUITES) * TASKS * STEPS)) * STEPS
    place, within = np.divmod(rows, per_task)
    suite, task_id = np.divmod(place, TASKS)
    episode, call = np.divmod(within, STEPS)
    shard = rows // (STEPS * EPISODES_PER_SHARD)
    success = mixed(episode * 40 + place, 9) % 100 < 70
    suites = pa.array(SUITES).take(pa.array(suite))
    texts = pa.array([f"pick up the thing {i} and put it there" for i in range(40)])
    instructions = texts.take(pa.array(place))
    keys = [suites, *map(_digits, (task_id, episode, call * 10), (3, 4, 4))]
    columns: dict[str, object] = {
        "key": _joined("", keys[0], "-t", keys[1], "-e", keys[2], "-s", keys[3]),
        "shard": pa.array(shards).take(pa.array(shard)),
        "suite": suites,
        "task_id": task_id,
        "task_name": _joined("task_", pa.array(task_id).cast(pa.string())),
        "instruction": instructions,
        "task_instruction": instructions,
        "episode": episode,
        "timestep": call * 10,
        "call": call,
        "seed": np.full(len(rows), 7),
        "success": success,
        "success_at_end": success,
        "outcome": np.where(success, "success", "failure"),
        "episode_length": np.full(len(rows), STEPS * 10),
        "truth": _truth(rows),
        "other": None,
    }
    arrays = {
        name: pa.nulls(len(rows), kind)
        if columns[name] is None
        else pa.array(columns[name]).cast(kind)
        for name, kind in COLUMNS.items()
    }
    return pa.table({**arrays, **_places(rows)})


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.call_function("binary_join_element_wise", [*parts, ""])


def _digits(numbers: np.ndarray, width: int) -> pa.Array:
    options = pc.PadOptions(width, "0")
    return pc.call_function("utf8_lpad", [pa.array(numbers).cast(pa.string())], options)


def _truth(rows: np.ndarray) -> pa.Array:
    """Two objects' places in metres, which no two samples share."""
    numbers = [pa.array(mixed(rows, i) % 100_000 / 1e5).cast(pa.string()) for i in range(6)]
    parts: list[pa.Array | str] = ['{"cube":[']
    for i, number in enumerate(numbers):
        parts += [number, '],"bowl":[' if i == 2 else "," if i < 5 else "]}"]
    return _joined(*parts)


def mixed(rows: np.ndarray, salt: int) -> np.ndarray:
    """Numbers below 2^31 without a pattern, one a row."""
    hashed = (rows.astype(np.uint64) + np.uint64(salt << 40)) * np.uint64(0x9E3779B97F4A7C15)
    hashed = (hashed ^ (hashed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (hashed >> np.uint64(33)).astype(np.int64)


def _places(rows: np.ndarray) -> dict[str, pa.Array]:
    """Where members and tensors lie; images differ in size, as real ones do."""
    per_shard = STEPS * EPISODES_PER_SHARD
    before = np.arange(rows[0] // per_shard * per_shard, rows[-1] + 1)
    sizes = {
        suffix: size + (mixed(before, i) % 2048 if suffix.endswith("jpg") else before * 0)
        for i, (suffix, size) in enumerate(MEMBERS.items())
    }
    lengths = sum(512 + -(-size // 512) * 512 for size in sizes.values())
    ends = np.cumsum(lengths)
    starts = ends - lengths
    starts -= starts[(before // per_shard - before[0] // per_shard) * per_shard]
    columns: dict[str, np.ndarray] = {}
    for suffix, size in sizes.items():
        starts = starts + 512
        columns[member_column(suffix, "offset")] = starts
        columns[member_column(suffix, "bytes")] = size
        if suffix == "latents.safetensors":
            inside = starts + 4096
            for name, length in FIELDS.items():
                columns[tensor_column(suffix, name, "offset")] = inside
                columns[tensor_column(suffix, name, "bytes")] = np.full(len(before), length)
                inside = inside + length
        starts = starts + -(-size // 512) * 512
    wanted = slice(rows[0] - before[0], None)
    return {name: pa.array(values[wanted]) for name, values in sorted(columns.items())}
