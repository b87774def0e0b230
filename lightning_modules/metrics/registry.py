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
from lightning_modules.metrics.similarity import SimilarityGap

METRICS: dict[str, type[GridMetric]] = {
    "accuracy": Accuracy,
    "balanced_accuracy": BalancedAccuracy,
    "auroc": Auroc,
    "calibration": Calibration,
    "cosine": CosineSimilarity,
    "retrieval": Retrieval,
    "similarity": SimilarityGap,
    "r2": Determination,
    "phases": PhaseScores,
}


OF_CONTROL_TASK = ("balanced_accuracy", "calibration", "similarity")
"""Those that figures show of the probes trained on exchanged targets, too."""


def metrics_for(context: MetricContext, *, control_task: bool = False) -> dict[str, GridMetric]:
    """The metrics that apply, ready to count; of the control task only what figures show."""
    return {
        name: kind(context)
        for name, kind in METRICS.items()
        if kind.applies(context) and (not control_task or name in OF_CONTROL_TASK)
    }
