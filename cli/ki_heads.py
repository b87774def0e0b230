"""Brings both heads' errors in robot units to a run of `ki fit`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax_bridge.ki.data.opening import TrainingData
    from jax_bridge.ki.training.run_config import TrainSettings
    from jax_bridge.ki.training.watcher import Watcher


def head_watchers(
    every: int | None, settings: "TrainSettings", data: "TrainingData"
) -> "list[Watcher]":
    """The watcher that asks both heads every so many steps; none where `every` is 0.

    Args:
        every: steps between two looks; None: as often as held-out losses are looked at.
        settings: of the run.
        data: what is trained on, and what is held out.

    Raises:
        ValueError: if nothing is held out to compare with, though that was asked for.
    """
    chosen = settings.run.validate_every if every is None else every
    if not chosen or (every is None and (data.held_out is None or not data.has_actions)):
        return []
    if data.held_out is None or not data.has_actions:
        lacking = "nothing is held out" if data.held_out is None else "no robot acts"
        raise ValueError(
            f"`heads_every` must be 0 where {lacking}, but got {every}. Raise --data.held_out, or "
            "add demonstrations."
        )
    from jax_bridge.ki.sharding import make_mesh
    from jax_bridge.ki.training.head_watcher import HeadWatcher, Spoken

    maker = data.maker
    spoken = None
    if maker.fast and maker.fast_tokenizer:
        spoken = Spoken(ids=maker.fast, tokenizer=maker.fast_tokenizer)
    return [
        HeadWatcher(
            data.held_out, data.prepare, maker.processor, settings.objective, spoken,
            every=chosen, mesh=make_mesh(settings.run.fsdp),
        )
    ]  # fmt: skip
