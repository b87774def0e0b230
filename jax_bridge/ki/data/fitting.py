"""Whether data sets, FAST targets and statistics fit the model, the robot and each other."""

from collections.abc import Sequence

import numpy as np

from jax_bridge.demos.description import Demonstrations
from jax_bridge.fast.targets import FastTargets
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.policies.conventions import Convention
from jax_bridge.policies.normalisation import NormStats, load_norm_stats
from jax_bridge.shards import ShardDataset

STATISTICS = "norm_stats.json"
STILL = 1e-9
"""Percentiles that are nearer than this are one."""


def check_demonstrations(
    dataset: ShardDataset, sizes: Demonstrations, model: Pi0Config, convention: Convention
) -> None:
    """Compares a data set with the model and the robot.

    Raises:
        ValueError: naming the size that differs.
    """
    where = f"{dataset.path} holds"
    if sizes.horizon != model.action_horizon:
        raise ValueError(
            f"`model.action_horizon` must be that of the demonstrations, but got "
            f"{model.action_horizon} and {where} chunks of {sizes.horizon}. Say "
            f"--model.action_horizon {sizes.horizon}, or make the data set with --horizon "
            f"{model.action_horizon}."
        )
    given = {"action": sizes.action_dim, "state": sizes.state_dim or 0}
    wanted = {"action": convention.action_dim, "state": convention.state_dim}
    for name, size in given.items():
        if size != wanted[name]:
            raise ValueError(
                f"`data.convention` must have the {name} dimensions of the demonstrations, but got "
                f"{convention.name} with {wanted[name]} and {where} {size}. Choose the convention "
                "of this robot."
            )
    if max(given.values()) > model.action_dim:
        raise ValueError(
            f"`model.action_dim` must hold {max(given.values())} dimensions, those of the robot, "
            f"but got {model.action_dim}."
        )
    unknown = set(sizes.cameras) - set(convention.cameras)
    if unknown:
        raise ValueError(
            f"`data.convention` must know the cameras of the demonstrations, but got "
            f"{convention.name} with {', '.join(convention.cameras)} and {where} "
            f"{', '.join(sorted(unknown))} as well. Choose the convention of this robot, or leave "
            "them out with `vla-lens demos --cameras`."
        )
    if convention.units is not None:
        raise ValueError(
            f"`data.convention` must leave the robot's units as they are, but {convention.name} "
            "changes them, which training cannot yet."
        )


def check_targets(
    datasets: Sequence[ShardDataset], sizes: Sequence[Demonstrations],
    targets: Sequence[FastTargets],
) -> None:  # fmt: skip
    """Compares FAST targets with their data sets and with each other.

    Raises:
        ValueError: naming what differs.
    """
    for dataset, own, target in zip(datasets, sizes, targets, strict=False):
        if (target.horizon, target.action_dim) != (own.horizon, own.action_dim):
            raise ValueError(
                f"`data.paths` must have FAST targets of their own chunks, {own.horizon} x "
                f"{own.action_dim}, but those of {dataset.path} are of {target.horizon} x "
                f"{target.action_dim}. Remove them and run `vla-lens fast attach` again."
            )
        first = targets[0].info
        for name in ("tokenizer", "norm_stats", "delta_mask"):
            if getattr(target.info, name) != getattr(first, name):
                raise ValueError(
                    f"`data.paths` must share one tokenizer and one norm_stats.json, but the "
                    f"{name} of {dataset.path} differs from that of {datasets[0].path}. Attach the "
                    "same to both with `vla-lens fast attach`."
                )


def check_lengths(
    datasets: Sequence[ShardDataset], targets: Sequence[FastTargets], fast: FastIds, overflow: str
) -> None:
    """Compares the lengths of all FAST targets with the room for them, before anything is trained.

    Raises:
        ValueError: if one does not fit and that is not to be left out; or if none fits.
    """
    for dataset, target in zip(datasets, targets, strict=True):
        lengths = np.asarray(target.lengths)
        there = lengths[lengths > 0]
        too_long = there[there + fast.marks > fast.size]
        needed = int(there.max(initial=0)) + fast.marks
        if not len(there) or len(too_long) == len(there):
            what = f"the shortest needs {int(there.min()) + fast.marks}" if len(there) else "none"
            raise ValueError(
                f"`data.max_fast_len` must hold some FAST targets of {dataset.path}, but got "
                f"{fast.size}; {what}."
            )
        if len(too_long) and overflow == "raise":
            raise ValueError(
                f"`data.max_fast_len` must be at least {needed} for all FAST targets of "
                f"{dataset.path}, but got {fast.size}: {len(too_long):,} of {len(there):,} samples "
                f"are longer. Say --data.max_fast_len {needed}, or --data.overflow leave_out."
            )


def chosen_statistics(
    address: str | None, datasets: Sequence[ShardDataset], targets: Sequence[FastTargets]
) -> NormStats:
    """The statistics that were asked for, or of the FAST targets, or of the first data set.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they are others than those of the targets, or degenerate.
    """
    beside = f"{str(datasets[0].path).rstrip('/')}/{STATISTICS}"
    if address is not None:
        found = load_norm_stats(address)
    elif targets:
        found = targets[0].norm_stats
    else:
        try:
            found = load_norm_stats(beside)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"`data.norm_stats` must be given, but got None and {beside} does not exist. Write "
                f"it with `vla-lens norm-stats {datasets[0].path}`."
            ) from error
    if targets and found.digest != targets[0].norm_stats.digest:
        raise ValueError(
            f"`data.norm_stats` must be those of the FAST targets, but got others in {address!r}. "
            "Leave it out, or attach the targets anew with these."
        )
    _check_moving(found)
    return found


def _check_moving(statistics: NormStats) -> None:
    """Raises where a dimension moves, but not between its percentiles."""
    for field in (statistics.state, statistics.actions):
        if field.q01 is None or field.q99 is None:
            continue
        bad = np.flatnonzero((field.q99 - field.q01 < STILL) & (field.std > 1e-6))
        if len(bad):
            raise ValueError(
                f"`data.norm_stats` must have q01 < q99 in every dimension that moves, but got "
                f"q01 = q99 = {field.q01[bad[0]]:g} in dimension {bad[0]} of {field.name}, whose "
                f"std is {field.std[bad[0]]:g}. Make them with `vla-lens norm-stats`, which takes "
                "the full range of a dimension that seldom moves."
            )
