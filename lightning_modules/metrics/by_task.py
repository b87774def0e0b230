"""The score on each task, with an interval by drawing that task's units.

Letters: c cells, n clusters (episodes), t tasks.
"""

import numpy as np
from jaxtyping import Float64, Int64

from lightning_modules.metrics.bootstrap import cluster_bootstrap


def task_intervals(
    total: Float64[np.ndarray, "c n"],
    count: Int64[np.ndarray, " n"],
    task_of_cluster: Int64[np.ndarray, " n"],
    tasks: int,
) -> Float64[np.ndarray, "c t 2"]:
    """The 95 % interval of each task's mean; NaN where a task has fewer than two episodes.

    Episodes of one task are drawn whichever the split's unit is: the interval is about new episodes
    of this task.
    """
    found = np.full((len(total), tasks, 2), np.nan)
    for task in range(tasks):
        here = np.flatnonzero((task_of_cluster == task) & (count > 0))
        found[:, task] = cluster_bootstrap(total[:, here], count[here])
    return found
