"""Recorded episodes in other people's files (HDF5, CALVIN's npz), read without converting them.

Metadata first: `survey` says what there is and decodes no frame; `open_episode` reads one.
Free of jax and torch.
"""

from jax_bridge.episodes.episode_info import Camera, Column, EpisodeInfo
from jax_bridge.episodes.failures import EpisodeReadError
from jax_bridge.episodes.reader import EpisodeReader, open_episode
from jax_bridge.episodes.survey import Skipped, Survey, survey

__all__ = [
    "Camera",
    "Column",
    "EpisodeInfo",
    "EpisodeReadError",
    "EpisodeReader",
    "Skipped",
    "Survey",
    "open_episode",
    "survey",
]
