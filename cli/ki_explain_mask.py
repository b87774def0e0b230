"""`vla-lens ki explain-mask`: draw which token reads which, for a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.configs import read_config

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from jax_bridge.ki.mask_table import MaskTable

DESCRIPTION = """Prints and draws which token reads which in training: the mask is taken from the
functions that train. Takes the configuration of `ki fit`, of which it reads the model and the
mode."""
GROUPS = ("model", "objective")
"""Parts of a configuration that decide the mask."""


def build_parser() -> "ArgumentParser":
    """The parser of `vla-lens ki explain-mask`."""
    from jsonargparse import ArgumentParser

    from jax_bridge.ki.objective import Objective
    from jax_bridge.ki.training.run_config import ModelChoice

    parser = ArgumentParser(
        prog="vla-lens ki explain-mask", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("-c", "--config", type=str | None, default=None, help="of `ki fit`")
    parser.add_class_arguments(ModelChoice, "model")
    parser.add_class_arguments(Objective, "objective")
    parser.add_argument("--text", type=int, default=0, help="tokens of a learnt text")
    parser.add_argument(
        "--fast", type=int, default=32, help="FAST tokens, `|` and the end mark included"
    )
    parser.add_argument(
        "--prompt",
        type=int | None,
        default=None,
        help="tokens of the prompt; others are padding",
    )
    parser.add_argument(
        "--cameras", type=list[str] | None, default=None, help="that the robot has; all by default"
    )
    parser.add_argument("--out", type=str | None, default=None, help="picture to write, .png")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens ki explain-mask ...`.

    Raises:
        ValueError: if a size does not fit.
    """
    parser = build_parser()
    rest = args[1:] if args[:1] == ["explain-mask"] else args
    if (name := parser.parse_args(rest).config) is not None:
        parser.set_defaults(_defaults(name))
    built: Any = parser.instantiate_classes(parser.parse_args(rest))
    from jax_bridge.ki.mask_table import mask_table

    chosen = {} if built.cameras is None else {"cameras": tuple(built.cameras)}
    model = built.model.config()
    table = mask_table(
        model, mode=built.objective.mode, text=built.text, fast=built.fast, prompt=built.prompt,
        **chosen,
    )  # fmt: skip
    _print(table)
    if built.out is not None:
        _draw(Path(built.out), table, f"{built.model.preset}, {built.objective.mode}")
    return 0


def _defaults(name: str) -> dict[str, Any]:
    """What a configuration of `ki fit` says of the model and the mode."""
    shared = {key: value for key, value in read_config(name).items() if key in GROUPS}
    return {
        f"{group}.{key}": value for group, part in shared.items() for key, value in part.items()
    }


def _print(table: "MaskTable") -> None:
    """The table of groups; rows read columns."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("query \\ key", *(_spaced(name) for name in table.names))
    for name, size, words in zip(table.names, table.sizes, table.blocks(), strict=True):
        shown.add_row(f"{_spaced(name)} ({size})", *words)
    Console().print(shown)


def _spaced(name: str) -> str:
    """A name that a narrow column can break."""
    return name.replace("_", " ")


def _draw(path: Path, table: "MaskTable", title: str) -> None:
    from lightning_modules.figures.mask_picture import draw_mask
    from lightning_modules.figures.style import save_figure

    if path.suffix != ".png":
        raise ValueError(f"`--out` must end in .png, but got {path}. An .svg is written beside it.")
    save_figure(draw_mask(table.names, table.sizes, table.values, title), path)
    print(f"{path} and {path.with_suffix('.svg')}")
