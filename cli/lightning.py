"""`vla-lens fit|validate|test|predict`: probes through LightningCLI."""

import argparse
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cli.configs import FLAGS, resolve_config_args
from datamodules.latents import LatentDataModule
from lightning_modules.learning_curves import LearningCurves
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.prediction_table import PredictionTable
from lightning_modules.results import ProbeResults
from lightning_modules.rounds import describe_rounds
from lightning_modules.run_folder import RunFolder
from lightning_modules.saved_probe import ProbeFile
from lightning_modules.step_checkpoint import StepCheckpoint
from lightning_modules.tensorboard_extras import TensorBoardExtras
from lightning_modules.verdict import verdict

DEFAULT_RUNS = ("runs", "probe")
"""Folder and name of runs without `--out`: runs/probe/version_0, _1, ..."""

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 100,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
    "devices": 1,
}

ONE_THREAD = 4_000_000
"""Below this many numbers a batch, more than one thread costs more than it brings."""

CHECKPOINT = "checkpoints/last.ckpt"
"""Where a run keeps its checkpoint."""
HINT = f"`vla-lens fit` writes RUN/{CHECKPOINT}."
TERMINATED = 143
"""Exit code of a fit that SIGTERM ended: 128 + 15, as a shell says it."""
NO_CHECKPOINT = f"`--ckpt_path` must be given, but got nothing. {HINT}"


class SayPasses(Callback):
    """Says beforehand how many passes a closed form takes, or rounds where memory is short."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the plan."""
        assert isinstance(pl_module, LinearProbe)
        if pl_module.solver is not None and trainer.is_global_zero:
            print(pl_module.solver.describe())
        elif pl_module.spec is not None and trainer.is_global_zero:
            print(describe_rounds(pl_module.spec.groups, pl_module.memory_budget), end="")


class ProbeCLI(LightningCLI):
    """LightningCLI with a run folder: `--out`, or the folder of the checkpoint."""

    def __init__(self, typed: list[str], callbacks: Sequence[Callback] = ()) -> None:
        """Parses and runs.

        Args:
            typed: the sub-command and its options, as the user typed them.
            callbacks: more of them, before all others.
        """
        self.args = typed
        self.more_callbacks = callbacks
        args = with_config_of_run(resolve_config_args(typed))
        super().__init__(
            model_class=LinearProbe,
            datamodule_class=LatentDataModule,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={"prog": "vla-lens", "exit_on_error": False},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # for complex nesting; ours is plain
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `--out` and `--save_every`."""
        parser.add_argument(
            "--out",
            type=str | None,
            default=None,
            help="run folder; by default runs/probe/version_N, or the checkpoint's own run",
        )
        parser.add_argument(
            "--save_every",
            type=int | None,
            default=None,
            help="training steps after which fit saves its checkpoint inside an epoch, too",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses `args`; Lightning's own would warn that they are not `sys.argv`."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Takes the probe's settings from the checkpoint, once it is known to be one."""
        given = self.config[self.config.subcommand].ckpt_path
        if given is not None:
            check_checkpoint(Path(given))
            typed = sorted(flag for flag in flags_of(self.args) if flag.startswith("--model"))
            if typed:
                raise ValueError(
                    f"`{typed[0]}` must be left out with --ckpt_path, but was given: the "
                    "checkpoint holds the probe's settings. Fit a new probe to change them."
                )
            super()._parse_ckpt_path()
        elif self.config.subcommand != "fit":
            raise ValueError(NO_CHECKPOINT)

    def before_instantiate_classes(self) -> None:
        """Finds the run folder."""
        config = self.config[str(self.subcommand)]
        own = run_of_checkpoint(config.ckpt_path) if config.ckpt_path else None
        # The run's own config.yaml says where it once was; it may have been moved.
        given = own
        if config.out and (own is None or "--out" in flags_of(self.args)):
            given = Path(config.out)
        self.run_folder = given
        if given and given.exists() and not given.is_dir():
            raise ValueError(f"`--out` must be a folder, but {given} is a file. Choose another.")
        fitting = self.subcommand == "fit"
        if fitting and given and given != own and holds_run(given):
            raise ValueError(
                f"`--out` must be a folder without a run, but got {given}. Choose another one, "
                f"or go on with --ckpt_path {given}/{CHECKPOINT}."
            )
        name = "config.yaml" if fitting else f"config.{self.subcommand}.yaml"
        self.save_config_kwargs = {"config_filename": name, "overwrite": True}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer with the logger and callbacks that fill the run folder.

        The data are set up first, so that an error in the selection leaves no run folder behind.
        """
        self.datamodule.setup()
        _ = self.datamodule.statistics
        limit_threads(self.datamodule)
        save_every = self.config_init[str(self.subcommand)].save_every
        config = self.config_init[str(self.subcommand)].trainer
        self.run_callback = RunFolder(command=shlex.join(["vla-lens", *self.args]))
        callbacks: list[Callback] = [
            *self.more_callbacks, self.run_callback, SayPasses(), LearningCurves(), ProbeFile(),
            TensorBoardExtras(),
        ]  # fmt: skip
        if config.enable_progress_bar is not False:
            callbacks.append(RichProgressBar())
        if config.enable_checkpointing is not False:
            callbacks.append(
                ModelCheckpoint(filename="last", enable_version_counter=False, save_top_k=1)
            )
            callbacks.append(StepCheckpoint(save_every))
        if self.subcommand == "predict":
            callbacks.append(PredictionTable())
        config.callbacks = [*(config.callbacks or []), *callbacks]
        if config.logger is None or config.logger is True:
            config.logger = self._logger()
        return super().instantiate_trainer(**kwargs)

    def _logger(self) -> TensorBoardLogger:
        if self.run_folder is None:
            save_dir, name = DEFAULT_RUNS
            return TensorBoardLogger(save_dir, name=name, default_hp_metric=False)
        return TensorBoardLogger(self.run_folder, name="", version="", default_hp_metric=False)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Tables of means over cells say little, checkpoints hold plain types only."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if kwargs.get("weights_only") is None:
            kwargs["weights_only"] = True
        if "verbose" in kwargs:
            kwargs["verbose"] = False
        if "return_predictions" in kwargs:
            kwargs["return_predictions"] = False
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs it; what is interrupted says how to go on, where Lightning exits in silence.

        Raises:
            KeyboardInterrupt: on Ctrl-C.
            SystemExit: on SIGTERM.
        """
        try:
            super()._run_subcommand(subcommand)
        except SIGTERMException:
            self._say_how_to_go_on(subcommand)
            raise SystemExit(TERMINATED) from None
        except SystemExit as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            self._say_how_to_go_on(subcommand)
            raise KeyboardInterrupt from None

    def _say_how_to_go_on(self, subcommand: str) -> None:
        if not self.trainer.is_global_zero:
            return
        checkpoint = self._folder / CHECKPOINT
        if subcommand == "fit" and checkpoint.is_file():
            print(
                f"go on: vla-lens fit --ckpt_path {checkpoint}\n"
                f"or stop here: vla-lens test --ckpt_path {checkpoint}",
                file=sys.stderr,
            )

    # ------------------------------------------------------------------ what follows

    def after_fit(self) -> None:
        """Evaluates the best weights on the validation split, and says how to go on."""
        self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        lines = [summary(self.run_callback.results["val"])]
        if (self._folder / CHECKPOINT).is_file():  # not after a fast_dev_run
            lines += [
                f"run folder: {self._folder}",
                f"next: vla-lens test --ckpt_path {self._folder}/{CHECKPOINT}",
            ]
        self._say(*lines)

    def after_validate(self) -> None:
        """Says what was found."""
        self._say(summary(self.run_callback.results["val"]))

    def after_test(self) -> None:
        """Says what was found, and how to go on."""
        self._say(
            summary(self.run_callback.results["test"]), f"next: vla-lens report {self._folder}"
        )

    def after_predict(self) -> None:
        """Says where the predictions are."""
        self._say(f"predictions: {self._folder}/predictions.parquet")

    def _say(self, *lines: str) -> None:
        """Prints lines, and how many samples could not be read; rank 0 speaks for all."""
        if not self.trainer.is_global_zero:
            return
        print(*lines, sep="\n")
        for split, unreadable in self.run_callback.unreadable.items():
            print(
                f"{split}: {len(unreadable)} samples could not be read; {self._folder}/"
                "unreadable.json says which and why"
            )

    @property
    def _folder(self) -> Path:
        """The run folder, without asking other ranks, of which some may have ended."""
        logger = self.trainer.logger
        return Path((logger.log_dir if isinstance(logger, TensorBoardLogger) else None) or ".")


def flags_of(args: list[str]) -> set[str]:
    """The options that were typed, without their values."""
    return {arg.partition("=")[0] for arg in args if arg.startswith("-")}


def value_of(args: list[str], flag: str) -> str | None:
    """The value typed behind an option, the last one counting."""
    found = None
    for position, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == flag:
            following = args[position + 1] if position + 1 < len(args) else None
            found = value if equals else following
    return found


def run_of_checkpoint(path: str) -> Path:
    """The run folder that a checkpoint lies in: RUN/checkpoints/last.ckpt."""
    folder = Path(path).parent
    return folder.parent if folder.name == "checkpoints" else folder


def holds_run(folder: Path) -> bool:
    """Whether there is a run that could be gone on with, or has results."""
    return any((folder / name).exists() for name in (CHECKPOINT, "metrics"))


def check_checkpoint(path: Path) -> None:
    """Refuses what is not a checkpoint of a probe.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, or no checkpoint of a probe.
    """
    hint = HINT
    if path.is_dir():
        found = sorted(path.rglob("*.ckpt"))
        hint = f"Did you mean {found[0]}?" if found else hint
        raise ValueError(f"`--ckpt_path` must be a file, but got the folder {path}. {hint}")
    if not path.is_file():
        raise FileNotFoundError(f"`--ckpt_path` must be a file, but {path} is not there. {hint}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can set off anything while it is unpickled
        raise ValueError(
            f"`--ckpt_path` must be a checkpoint of plain tensors, but {path} cannot be read as "
            f"one. {hint}"
        ) from error
    if not isinstance(content, dict) or "probe_spec" not in content:
        raise ValueError(
            f"`--ckpt_path` must be a checkpoint of a probe, but {path} is another one. {hint}"
        )


def with_config_of_run(args: list[str]) -> list[str]:
    """Puts the run's own config.yaml first where only a checkpoint was given.

    Raises:
        ValueError: if there is neither a checkpoint nor a configuration.
        FileNotFoundError: if the checkpoint's run has no config.yaml.
    """
    checkpoint = value_of(args, "--ckpt_path")
    if flags_of(args) & {*FLAGS, "-h", "--help", "--print_config"}:
        return args
    if checkpoint is None:
        if args[0] == "fit":
            return args
        raise ValueError(NO_CHECKPOINT)
    check_checkpoint(Path(checkpoint))
    config = run_of_checkpoint(checkpoint) / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(
            f"`--ckpt_path` must lie in a run folder with a config.yaml, but {config} is not "
            "there. Give the configuration with -c."
        )
    return [args[0], "--config", str(config), *args[1:]]


def summary(results: ProbeResults) -> str:
    """The chosen cell's score beside what it must be compared with."""
    cell = results.cells[results.chosen]
    low, high = cell.interval
    interval = f"[{low:.3f}, {high:.3f}]" if low == low else f"(one {results.unit}: no interval)"
    lines = [
        f"{results.split}: {results.score_name} {cell.score:.3f} {interval} at "
        f"{cell.cell.name} (lowest validation loss of {len(results.cells)} cells); "
        f"trivial predictor {results.trivial:.3f}, chance {results.chance:.3f}; "
        f"{results.samples} samples of {results.episodes} episodes",
        f"controls: {controls_in_words(results)}",
        f"verdict: {verdict(results)}. {verdict(results).reason}",
    ]
    return "\n".join(lines)


def controls_in_words(results: ProbeResults) -> str:
    """The best control of the chosen cell, the selectivity, and what could not be trained."""
    cell = results.cells[results.chosen]
    parts = []
    if cell.best_control is not None:
        name, best = cell.best_control
        parts.append(f"best is {name} with {best.score}")
    if cell.selectivity is not None:
        parts.append(f"selectivity {cell.selectivity}")
    parts += [f"no {name}, since {why}" for name, why in results.left_out.items()]
    return "; ".join(parts) or "none were trained"


def main(args: list[str]) -> int:
    """Runs a sub-command of Lightning.

    Args:
        args: the sub-command and its options.

    Raises:
        ValueError: if an option, the data or the checkpoint does not fit.
        FileNotFoundError: if a file is not there.
    """
    quieten()
    try:
        ProbeCLI(args)
    except argparse.ArgumentError as error:
        message = str(error).rstrip(".")
        raise ValueError(f"{message}. `vla-lens {args[0]} --help` lists the options.") from error
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    return 0


def limit_threads(data: LatentDataModule) -> None:
    """Lets one thread do small work: many would spend their time waiting for each other.

    `OMP_NUM_THREADS`, where it is set, decides alone.
    """
    numbers = data.batch_size * sum(len(s.cells) * s.width for s in data.sources)
    if "OMP_NUM_THREADS" not in os.environ and numbers < ONE_THREAD:
        torch.set_num_threads(1)


def quieten() -> None:
    """Leaves Lightning's advertisement and internal notices out; its warnings stay."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Going on with a run, wherever it lies by now, is meant; another folder with a run is refused.
    for message in (r"Checkpoint directory .* is not empty", r"The dirpath has changed from"):
        warnings.filterwarnings("ignore", message=message, append=False)
    # Lightning 2.6.6 asks torch 2.13 for a class that torch renames.
    warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", append=False)
