"""`vla-lens checkpoint {inspect,download,convert}`: look at weights, bring them here, turn them."""

import json
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args

COMMANDS: dict[str, str] = {
    "inspect": "print what a checkpoint holds, or how another one differs; loads no weights",
}


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens checkpoint`."""
    parser = ArgumentParser(
        prog="vla-lens checkpoint",
        description="Looks at checkpoints: Orbax folders, safetensors, files of torch.save.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    options = {"inspect": _add_inspect}
    for name, text in COMMANDS.items():
        command = ArgumentParser(
            prog=f"vla-lens checkpoint {name}", description=f"{text}.", exit_on_error=False
        )
        command.add_argument("-c", "--config", action="config", help="a YAML file, or a name")
        options[name](command)
        commands.add_subcommand(name, command, help=text)
    return parser


def _add_inspect(command: ArgumentParser) -> None:
    command.add_argument("path", type=str, help="Orbax folder, *.safetensors, or file of torch")
    command.add_argument(
        "--against",
        type=str | None,
        default=None,
        help="what PATH is compared with: missing, extra, reshaped and moved tensors; reads both",
    )
    command.add_argument(
        "--trust",
        action="store_true",
        help="show a pickle that names more than tensors; nothing of it is run in any case",
    )
    command.add_argument("--format", type=Literal["markdown", "json"], default="markdown")
    command.add_argument(
        "--out", type=str | None, default=None, help="folder for Markdown, JSON and the picture"
    )


def main(args: list[str]) -> int:
    """Runs `vla-lens checkpoint ...`.

    Raises:
        ValueError: if a checkpoint is damaged, or an option does not fit.
        FileNotFoundError: if there is none.
    """
    args = resolve_config_args(args[1:] if args[:1] == ["checkpoint"] else args)
    config = build_parser().parse_args(args)
    runs = {"inspect": _inspect}
    return runs[config.command](config[config.command])


def _inspect(config: Namespace) -> int:
    from jax_bridge.checkpoints.account import account, describe
    from jax_bridge.checkpoints.formats import open_checkpoint

    if config.against is not None:
        return _compare(config)
    found = open_checkpoint(config.path, trust=config.trust)
    page, entry = describe(found), account(found)
    _give(config, "inspect", page, entry)
    return 0


def _compare(config: Namespace) -> int:
    from jax_bridge.checkpoints.byte_progress import byte_progress
    from jax_bridge.checkpoints.change_figure import draw_changes
    from jax_bridge.checkpoints.comparison import compare, describe_difference
    from jax_bridge.checkpoints.formats import open_checkpoint

    first, second = (
        open_checkpoint(path, trust=config.trust) for path in (config.against, config.path)
    )
    with byte_progress("compare", first.nbytes + second.nbytes) as on_bytes:
        found = compare(first, second, on_bytes=on_bytes)
    _give(config, "changes", describe_difference(found), found.to_json())
    if config.out is not None:
        draw_changes(found, Path(config.out) / "changes.png")
    return 0


def _give(config: Namespace, name: str, page: str, entry: dict) -> None:
    text = json.dumps(entry, indent=1)
    print(text if config.format == "json" else page)
    if config.out is not None:
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(f"{page}\n")
        (folder / f"{name}.json").write_text(f"{text}\n")
