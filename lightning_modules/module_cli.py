"""`ModuleCLI`: runs any LightningModule that a configuration names by its class."""

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

TRAINER_DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "devices": 1,
}
"""A module that wants a logger or checkpoints brings them, or the configuration does."""


class ModuleCLI(LightningCLI):
    """LightningCLI whose model and data are named by class."""

    def __init__(self, args: list[str]) -> None:
        """Parses and runs.

        Args:
            args: the sub-command and its options; configurations are paths.
        """
        super().__init__(
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={"prog": "vla-lens", "exit_on_error": False},
            auto_configure_optimizers=False,
            save_config_callback=None,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `--out`, which is the module's own `out`."""
        parser.add_argument(
            "--out", type=str | None, default=None, help="what the module writes; its own `out`"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses `args`; Lightning's own would warn that they are not `sys.argv`."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Hands `--out` to the module.

        Raises:
            ValueError: if the module takes none, or would run for nothing without it.
        """
        config = self.config[str(self.subcommand)]
        model: Namespace = config.model
        given = model.get("init_args") or {}
        if config.out is None:
            if self.subcommand == "predict" and "out" in given and given["out"] is None:
                raise ValueError(
                    "`--out` must be a folder to write into, but got none. Give one: predictions "
                    "are kept nowhere else."
                )
            return
        if "out" not in given:
            raise ValueError(f"`--out` must be left out for {model.class_path}, which takes none.")
        model.init_args.out = config.out

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer, with a progress bar that shows rate and time left."""
        config = self.config_init[str(self.subcommand)].trainer
        if config.enable_progress_bar is not False:
            config.callbacks = [*(config.callbacks or []), RichProgressBar()]
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Predictions go to the disk, not into memory."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if "return_predictions" in kwargs:
            kwargs["return_predictions"] = False
        if "verbose" in kwargs:
            kwargs["verbose"] = False
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs it; Lightning turns Ctrl-C into an exit in silence.

        Raises:
            KeyboardInterrupt: on Ctrl-C, saying how to go on.
        """
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt("what is whole was kept; the same command goes on") from None
