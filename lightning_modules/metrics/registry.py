"""The metrics by name, and which of them make sense for a target."""

from lightning_modules.metrics.auroc import Auroc
from lightning_modules.metrics.calibration import Calibration
from lightning_modules.metrics.class_recall import BalancedAccuracy
from lightning_modules.metrics.determination import Determination
from lightning_modules.metrics.grid_metric import GridMetric, MetricContext
from lightning_modules.metrics.sample_means import (
    Accuracy,
    CosineSimilarity,
    PhaseScores,
    Retrieval,
)

METRICS: dict[str, type[GridMetric]] = {
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "auroc": Auroc,
    "calibration": Calibration,
    "cosine": CosineSimilarity,
    "retrieval": Retrieval,
    "r2": Determination,
    "phases": PhaseScores,
}


def metrics_for(context: MetricContext) -> dict[str, GridMetric]:
    """The metrics that apply, ready to count."""
    return {name: kind(context) for name, kind in METRICS.items() if kind.applies(context)}
