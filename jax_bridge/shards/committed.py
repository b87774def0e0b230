"""Which episodes a data set holds already, for whoever decides what is left to do."""

import os

from jax_bridge.shards.commit import CommittedEpisodes
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.recovery import recover
from jax_bridge.shards.sample_key import EpisodeId


def committed_episodes(path: str | os.PathLike[str]) -> set[EpisodeId]:
    """Episodes in shards, those included that dead writers finished but did not commit.

    Parts that a living writer holds are not touched. A folder that is not there holds none.
    """
    folder = DatasetFolder(path)
    if not folder.info_path.exists():
        return set()
    shards = CommittedEpisodes(folder)
    with folder.lock():
        recover(folder, shards)
        return shards.refresh()
