"""Both heads against recorded chunks that were not trained on, in robot units.

Letters: b batch; h action horizon; a action dimensions of the robot.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.policies.policy import BatchedPolicy, PolicyCall
from jax_bridge.shards import ShardDataset
from jax_bridge.shards.sample_choice import SampleChoice


class HeadError(NamedTuple):
    """How far a head's chunks are from the recorded ones."""

    samples: int
    mean_squared: float
    """Over all real steps and dimensions, in squared robot units."""
    by_dim: Float64[np.ndarray, " a"]
    first_step: float
    """Mean squared error of each chunk's first action alone."""


def head_errors(
    policies: Mapping[str, BatchedPolicy],
    dataset: ShardDataset,
    rows: Int64[np.ndarray, " n"],
    cameras: Sequence[str],
    *,
    batch: int = 16,
) -> dict[str, HeadError]:
    """Asks every policy for a chunk at each row; steps behind an episode's end do not count.

    Args:
        policies: by name of the head.
        dataset: demonstrations.
        rows: which samples.
        cameras: of the data set.
        batch: samples a call; the last call is filled up with empty rows.

    Raises:
        ValueError: if there are no rows, or the policy's chunks have another length.
    """
    if not len(rows):
        raise ValueError("`rows` must name samples to compare, but got none.")
    choice = SampleChoice(
        robot=("state", "actions", "action_is_pad"), images=tuple(cameras),
        metadata=("instruction",),
    )  # fmt: skip
    choice.check(dataset)
    sums: dict[str, Float64[np.ndarray, "h a"]] = {}
    counts: Int64[np.ndarray, " h"] | None = None
    for start in range(0, len(rows), batch):
        samples = choice.read(dataset, rows[start : start + batch])
        calls: list[PolicyCall | None] = [_call(sample) for sample in samples]
        calls += [None] * (batch - len(samples))
        wanted = np.stack([sample["robot"]["actions"] for sample in samples]).astype(np.float64)
        real = ~np.stack([sample["robot"]["action_is_pad"] for sample in samples]).astype(bool)
        counts = real.sum(0) + (0 if counts is None else counts)
        for name, policy in policies.items():
            outputs = policy.infer_batch(calls)[: len(samples)]
            found = np.stack([output.actions for output in outputs if output is not None])
            if found.shape != wanted.shape:
                raise ValueError(
                    f"`dataset` must hold chunks of {found.shape[1]} steps and {found.shape[2]} "
                    f"dimensions, as the policy gives them, but got {wanted.shape[1]} and "
                    f"{wanted.shape[2]} in {dataset.path}."
                )
            squares = (np.square(found - wanted) * real[:, :, None]).sum(0)
            sums[name] = squares + sums.get(name, 0.0)
    assert counts is not None
    return {name: _error(total, counts, len(rows)) for name, total in sums.items()}


def _call(sample: dict) -> PolicyCall:
    observation = RobotObservation(
        images=sample["images"],
        state=sample["robot"]["state"],
        instruction=sample["metadata"]["instruction"],
    )
    return PolicyCall(observation, ("held out", sample["key"]))


def _error(
    total: Float64[np.ndarray, "h a"], counts: Int64[np.ndarray, " h"], samples: int
) -> HeadError:
    by_dim = total.sum(0) / counts.sum()
    return HeadError(samples, float(by_dim.mean()), by_dim, float((total[0] / counts[0]).mean()))
