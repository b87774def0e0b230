"""`vla-lens ki fit`: train a policy with knowledge insulation."""

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from jax_bridge.ki.training.run_config import TrainSettings
    from jax_bridge.ki.training.trainer import TrainReport

DESCRIPTION = """Trains pi0 or pi0.5 on demonstrations: the backbone learns FAST tokens, the action
expert the flow, and (mode insulate) nothing of the flow reaches the backbone. A run that was
stopped or killed goes on from its last checkpoint with the same command. Every checkpoint is a
policy: collect --policy.checkpoint OUT/checkpoints/STEP."""
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def build_parser() -> "ArgumentParser":
    """The parser of `vla-lens ki fit`."""
    from jsonargparse import ArgumentParser

    from jax_bridge.ki.data.augmentation import AugmentConfig
    from jax_bridge.ki.data.data_config import DataConfig
    from jax_bridge.ki.objective import Objective
    from jax_bridge.ki.optimiser import OptimiserConfig
    from jax_bridge.ki.train_step import StepConfig
    from jax_bridge.ki.training.lora import LoraConfig
    from jax_bridge.ki.training.run_config import ModelChoice, RunConfig

    parser = ArgumentParser(prog="vla-lens ki fit", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument("--out", type=str | None, default=None, help="folder of the run")
    parser.add_argument(
        "--weights",
        type=str,
        default="random",
        help="where to start: random, a checkpoint's folder as openpi writes it, or PaliGemma's "
        ".npz",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes (jax.distributed finds the others: Slurm, Open MPI, TPU, or "
        "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)",
    )
    parser.add_argument(
        "--retention_every",
        type=int,
        default=0,
        help="steps between two looks at what the backbone's layers still say of held-out samples "
        "(instruction, object, container; CKA to the start); 0 for none",
    )
    parser.add_argument(
        "--heads_every",
        type=int | None,
        default=None,
        help="steps between two comparisons of what both heads give with held-out chunks, in robot "
        "units; 0 for none, by default as often as run.validate_every",
    )
    groups: dict[str, Any] = {
        "data": DataConfig, "augment": AugmentConfig, "model": ModelChoice, "objective": Objective,
        "optimiser": OptimiserConfig, "step": StepConfig, "lora": LoraConfig, "run": RunConfig,
    }  # fmt: skip
    for name, kind in groups.items():
        parser.add_class_arguments(kind, name)
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens ki fit ...`; returns the exit code: 0, or 128 + the signal that ended it.

    Raises:
        FileNotFoundError: if data, statistics or weights are not there.
        ValueError: if settings and data do not fit, or a loss is not finite.
        OSError: if a checkpoint cannot be written.
    """
    parser = build_parser()
    config = parser.parse_args(resolve_config_args(args[1:] if args[:1] == ["fit"] else args))
    if config.out is None:
        raise ValueError("`--out` must name the folder of the run. Add --out DIR.")
    built: Any = parser.instantiate_classes(config)
    _start_processes(config)
    settings = _settings(built)
    report = _train(Path(config.out), built, settings, parser.dump(config))
    if report.stopped_by:
        print(
            f"stopped by {report.stopped_by} at step {report.last_step}, which is saved; the same "
            "command goes on from there"
        )
        return 128 + signal.Signals[report.stopped_by]
    return 0


def _start_processes(config: "Namespace") -> None:
    """Settings that JAX reads when it starts."""
    if config.run.deterministic and DETERMINISTIC not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
    # Where a disk is full, each array that waits to be written would say so once more.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if config.distributed:
        from jax_bridge.ki.training.processes import join_processes

        join_processes()


def _settings(built: Any) -> "TrainSettings":
    from jax_bridge.ki.training.run_config import TrainSettings

    return TrainSettings(
        model=built.model.config(), objective=built.objective, optimiser=built.optimiser,
        step=built.step, lora=built.lora, run=built.run, weights=built.weights,
    )  # fmt: skip


def _train(out: Path, built: Any, settings: "TrainSettings", text: str) -> "TrainReport":
    import jax

    from cli.ki_fit_progress import FitProgress, print_groups, print_report
    from cli.ki_heads import head_watchers
    from cli.ki_retention import retention_watchers
    from jax_bridge.ki.data.opening import open_training_data
    from jax_bridge.ki.training.trainer import Silence, Trainer

    first = jax.process_index() == 0
    data = open_training_data(
        built.data, settings.model, batch_size=settings.run.batch_size, seed=settings.run.seed,
        mode=settings.objective.mode, augment=built.augment, rank=jax.process_index(),
        world_size=jax.process_count(),
    )  # fmt: skip
    watchers = [
        *head_watchers(built.heads_every, settings, data),
        *retention_watchers(built.retention_every, built.data, data, settings.model),
    ]
    progress = FitProgress(settings.run.steps)
    try:
        trainer = Trainer(
            settings, data.stream, out, prepare=data.prepare, held_out=data.held_out,
            progress=progress if first else Silence(), watchers=watchers,
        )  # fmt: skip
        if first:
            print_groups(settings)
        report = trainer.run()
    finally:
        progress.close()
        data.stream.close()
    if first:
        (out / "config.yaml").write_text(text, encoding="utf-8")
        print_report(report, out)
    return report
