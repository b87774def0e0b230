"""What a grid of probes needs of its data module."""

from typing import Any, Protocol, runtime_checkable

from datamodules.clusters import Clusters
from datamodules.feature_source import SourceSpec
from datamodules.statistics import FeatureStatistics
from datamodules.target_spec import TargetSpec


@runtime_checkable
class ProbeData(Protocol):
    """A data module that is set up."""

    sources: tuple[SourceSpec, ...]
    target_spec: TargetSpec
    clusters: Clusters
    rows: dict[str, Any]
    """Row numbers of each split."""

    @property
    def statistics(self) -> tuple[FeatureStatistics, ...]:
        """Of each source's features over the training rows."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of how the data set was made."""
        ...

    @property
    def split(self) -> dict[str, Any]:
        """How the rows are split, in plain types."""
        ...

    @property
    def training_clusters(self) -> Any:
        """Numbers of the episodes that have training samples."""
        ...
