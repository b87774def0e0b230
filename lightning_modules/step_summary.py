"""Scores by rollout step beside the strongest yardstick of each step.

Letters: c cells, g groups of units, s stretches of steps, r draws.
"""

import numpy as np
from jaxtyping import Float64, Int64

from lightning_modules.grid_evaluation import GridEvaluation
from lightning_modules.metrics.estimate import GridEstimates
from lightning_modules.metrics.step_sums import StepSums, drawn_means
from lightning_modules.metrics.unit_groups import draw_weights
from lightning_modules.probe_spec import ProbeSpec
from lightning_modules.results import StepScore
from lightning_modules.verdict import REFUTING

DRAWS = 500
TRIVIAL = "trivial"
"""The predictor that never looks at the latents."""


def step_scores(spec: ProbeSpec, evaluation: GridEvaluation) -> list[tuple[StepScore, ...]]:
    """The scores of every cell that is asked about; empty where there is one stretch only."""
    steps = evaluation.trivial_steps
    if steps.stretches < 2:
        return [()] * len(spec.cells)
    count = steps.compute()[1]
    drawn = draw_weights(count.sum(1), draws=DRAWS)
    weights = np.concatenate([np.ones((1, len(count))), drawn])
    means = [_means(evaluation.of(i).steps, weights) for i in range(len(spec.groups))]
    blind = _means(steps, weights)
    assert blind is not None
    found = []
    for number, group in enumerate(spec.groups):
        own = means[number]
        if not group.is_main or own is None:
            continue
        for place, cell in enumerate(group.cells):
            beside = {TRIVIAL: blind[0]}
            for other, their in zip(spec.groups, means, strict=True):
                names = [c.name for c in other.cells]
                if other.kind in REFUTING and their is not None:
                    if cell.name in names:
                        beside[other.kind] = their[names.index(cell.name)]
                    elif len(names) == 1:
                        beside[other.kind] = their[0]
            found.append(_cell(own[place], beside, steps.starts, count))
    return found


def _means(
    steps: StepSums | None, weights: Float64[np.ndarray, "r g"]
) -> Float64[np.ndarray, "c s r"] | None:
    return None if steps is None else drawn_means(*steps.compute(), weights)


def _cell(
    own: Float64[np.ndarray, "s r"],
    beside: dict[str, Float64[np.ndarray, "s r"]],
    starts: list[int],
    count: Int64[np.ndarray, "g s"],
) -> tuple[StepScore, ...]:
    found = []
    for place, start in enumerate(starts):
        here = count[:, place]
        if not here.any():
            continue
        name = max(beside, key=lambda word: beside[word][place, 0])
        mine, theirs = own[place], beside[name][place]
        score, margin = (
            GridEstimates(
                value=x[:1], draws=x[None, 1:], chance=None, units=int((here > 0).sum())
            ).cell(0)
            for x in (mine, mine - theirs)
        )
        found.append(
            StepScore(step=start, samples=int(here.sum()), score=score, margin=margin, beside=name)
        )
    return tuple(found)
