"""Checkpoints of a run: `STEP/params` and `STEP/assets` as openpi has them, and what goes on.

```
STEP/params/       what a policy needs: the moving average where there is one, LoRA merged
STEP/assets/       model.json (sizes and preparation), {asset_id}/norm_stats.json, ...
STEP/train_state/  optimiser, and the parameters that `params` does not hold
STEP/position/     where the reading stands, and the step
STEP/metrics/      the loss by which the best are kept
```

A checkpoint is written beside the training, into a folder of another name that is renamed when it
is whole; so a killed run never leaves half of one under its name.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint.future import CommitFutureAwaitingContractedSignals

from jax_bridge.ki.train_step import TrainState
from jax_bridge.ki.training.lora import LORA, LoraConfig, merge_lora
from jax_bridge.pi0.parameters import Params, leaves, unflatten

LOSS = "loss"


class _FilesHandler(ocp.AsyncCheckpointHandler):
    """Writes small files as they are."""

    def save(self, directory: Any, args: "_Files") -> None:
        """Writes them into an item's folder."""
        if jax.process_index():
            return
        for name, content in args.files.items():
            path = pathlib.Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    async def async_save(self, directory: Any, args: "_Files") -> list[Any]:
        """The same in the background, once the folder is there."""
        return [
            CommitFutureAwaitingContractedSignals(asyncio.to_thread(self.save, directory, args))
        ]

    def restore(self, directory: Any, args: Any = None) -> dict[str, bytes]:
        """Reads them."""
        folder = pathlib.Path(directory)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@ocp.args.register_with_handler(_FilesHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Files(ocp.args.CheckpointArgs):
    """Files by relative path."""

    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


class RunCheckpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie, a folder a step.
        lora: how low-rank changes are merged into what is saved as `params`.
        keep_last: newest ones that are kept.
        keep_best: ones of the lowest loss that are kept.
    """

    def __init__(
        self, folder: pathlib.Path, lora: LoraConfig, *, keep_last: int = 2, keep_best: int = 1
    ) -> None:
        policies: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            policies.append(
                checkpoint_managers.BestN(get_metric_fn=_loss_of, reverse=True, n=keep_best)
            )
        self._folder, self._lora = folder.absolute(), lora
        self._merge = jax.jit(lambda params: merge_lora(params, lora))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                best_fn=_loss_of,  # without it Orbax writes no metrics; the policies decide
                best_mode="min",
            ),
        )

    def __enter__(self) -> "RunCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The newest step that is saved whole."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """All steps that are saved."""
        return sorted(self._manager.all_steps())

    def loss(self, step: int) -> float:
        """The loss that a checkpoint was saved with."""
        metrics = self._manager.metrics(step)
        assert metrics is not None, step
        return metrics[LOSS]

    def save(
        self, state: TrainState, *, step: int, position: Mapping[str, Any], loss: float,
        files: Mapping[str, bytes],
    ) -> None:  # fmt: skip
        """Starts to write a checkpoint; the arrays may be given away when this returns.

        Raises:
            OSError: if this or the last one cannot be written; the one before stays whole.
        """
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.PyTreeSave({"params": self._exported(state)}),
                    train_state=ocp.args.PyTreeSave(_named(self._rest(state))),
                    position=ocp.args.JsonSave(dict(position)),
                    assets=_Files(files),
                ),
                metrics={LOSS: loss},
            )

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
            OSError: as `save`.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, shapes: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """A saved state, laid out as `shapes` says, and the position of the reading.

        Raises:
            ValueError: if the checkpoint is damaged, or of another model.
        """
        rest = self._rest(shapes)
        items = {"train_state": _named(rest)}
        if "params" not in rest or (shapes.average is not None and "average" not in rest):
            held = shapes.params if shapes.average is None else shapes.average
            items["params"] = {"params": held}
        asked = {
            name: ocp.args.PyTreeRestore(
                item=tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
            )
            for name, tree in items.items()
        }
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(**asked, position=ocp.args.JsonRestore())
            )
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise ValueError(
                f"`out` must hold whole checkpoints of this model, but step {step} of "
                f"{self._folder} cannot be read ({type(error).__name__}: {str(error)[:200]}). "
                "Remove that step's folder to go on from the one before, or choose another folder."
            ) from error
        whole = _unnamed(rest, found["train_state"])
        if "params" in items:
            exported = found["params"]["params"]
            whole["params" if shapes.average is None else "average"] = exported
        state = TrainState(whole["step"], whole["params"], whole["optimiser"], whole.get("average"))
        return state, dict(found["position"])

    def _exported(self, state: TrainState) -> Params:
        """What a policy needs."""
        best = state.params if state.average is None else state.average
        return self._merge(best) if LORA in best else best

    def _rest(self, state: TrainState) -> dict[str, Any]:
        """What `params` does not hold."""
        rest = {"step": state.step, "optimiser": state.optimiser}
        if state.average is not None or LORA in state.params:
            rest["params"] = state.params
        if state.average is not None and LORA in state.params:
            rest["average"] = state.average
        return rest

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what Orbax and its storage raise into one sentence."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            whole = [step for step in self.steps if (self._folder / str(step)).is_dir()]
            last = f"step {whole[-1]} is the last whole one" if whole else "there is none yet"
            raise OSError(
                f"`out` must have room for a checkpoint, but one could not be written in "
                f"{self._folder} ({type(error).__name__}: {' '.join(str(error).split())[:300]}); "
                f"{last}. Make room, and the same command goes on from there."
            ) from error


def _loss_of(metrics: Mapping[str, float]) -> float:
    return metrics[LOSS]


def _named(tree: Any) -> dict[str, Any]:
    """The leaves in nested dicts, by name: no type of optax stands in a file."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return unflatten({_path(path): leaf for path, leaf in found})


def _unnamed(like: Any, named: Mapping[str, Any]) -> Any:
    """Puts leaves back where `_named` took them."""
    flat = dict(leaves(named))
    return jax.tree_util.tree_map_with_path(lambda path, _: flat[_path(path)], like)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
