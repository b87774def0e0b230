"""Episode shards: WebDataset tars with manifests, one index and projected reads.

The format is described in `docs/shard_format.md`.
"""

from jax_bridge.shards.dataset import ShardDataset, open_dataset
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.episode_recorder import EpisodeRecorder
from jax_bridge.shards.failures import DamagedShardError, FingerprintError, ShardWriteError
from jax_bridge.shards.field import FieldSpec, field_name
from jax_bridge.shards.foreign_dataset import ForeignDataset, open_foreign
from jax_bridge.shards.open_writer import open_writer
from jax_bridge.shards.read_plan import ReadPlan
from jax_bridge.shards.read_position import ReadPosition
from jax_bridge.shards.sample_key import EpisodeId, sample_key
from jax_bridge.shards.sample_members import ImageFormat
from jax_bridge.shards.selection import Where
from jax_bridge.shards.splits import split_rows
from jax_bridge.shards.writer import EpisodeWriter, ShardLimits

__all__ = [
    "DamagedShardError",
    "DatasetInfo",
    "EpisodeId",
    "EpisodeRecorder",
    "EpisodeWriter",
    "FieldSpec",
    "FingerprintError",
    "ForeignDataset",
    "ImageFormat",
    "ReadPlan",
    "ReadPosition",
    "ShardDataset",
    "ShardLimits",
    "ShardWriteError",
    "Where",
    "field_name",
    "open_dataset",
    "open_foreign",
    "open_writer",
    "sample_key",
    "split_rows",
]
