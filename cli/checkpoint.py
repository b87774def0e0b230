"""`vla-lens checkpoint {inspect,download,convert}`: look at weights, bring them here, turn them."""

import json
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args
from cli.out_folder import out_folder

DAMAGED = 1
"""Exit code of `download --verify-only` where a file is not as it was."""
COMMANDS: dict[str, str] = {
    "inspect": "print what a checkpoint holds, or how another one differs; loads no weights",
    "download": "bring a file or a folder from the hub, https or a bucket, and check its sha256",
    "convert": "turn pi0 or pi0.5 of PyTorch (lerobot, openpi) into openpi's own folder",
}


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens checkpoint`."""
    parser = ArgumentParser(
        prog="vla-lens checkpoint",
        description="Looks at checkpoints: Orbax folders, safetensors, files of torch.save.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    options = {"inspect": _add_inspect, "download": _add_download, "convert": _add_convert}
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


def _add_download(command: ArgumentParser) -> None:
    command.add_argument(
        "address",
        type=str | None,
        default=None,
        nargs="?",
        help="hf://ORG/MODEL, https://host/file, gs:// or s3:// folder; not with --verify-only",
    )
    command.add_argument("--out", type=str, required=True, help="folder to fill")
    command.add_argument(
        "--include",
        type=list[str] | None,
        default=None,
        help="patterns of paths below the address, as a list: '[params/*, assets/*]'",
    )
    command.add_argument("--sha256", type=str | None, default=None, help="of a single file")
    command.add_argument(
        "--verify_only",
        "--verify-only",
        action="store_true",
        help="read the files in --out again and compare, without a network",
    )


def _add_convert(command: ArgumentParser) -> None:
    command.add_argument("path", type=str, help="safetensors (file or folder), or file of torch")
    command.add_argument("--out", type=str, required=True, help="folder to make")
    command.add_argument(
        "--dtype",
        type=Literal["float32", "bfloat16"] | None,
        default=None,
        help="of the parameters; by default each keeps its own",
    )
    command.add_argument(
        "--trust", action="store_true", help="take a pickle that names more than tensors"
    )


def main(args: list[str]) -> int:
    """Runs `vla-lens checkpoint ...`.

    Raises:
        ValueError: if a checkpoint is damaged, or an option does not fit.
        FileNotFoundError: if there is none.
    """
    args = resolve_config_args(args[1:] if args[:1] == ["checkpoint"] else args)
    config = build_parser().parse_args(args)
    runs = {"inspect": _inspect, "download": _download, "convert": _convert}
    return runs[config.command](config[config.command])


def _inspect(config: Namespace) -> int:
    from jax_bridge.checkpoints.account import account, describe
    from jax_bridge.checkpoints.formats import open_checkpoint

    if config.out is not None:
        out_folder(config.out)
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
    if config.out is not None:
        Path(config.out).mkdir(parents=True, exist_ok=True)
        draw_changes(found, Path(config.out) / "changes.png")
    _give(config, "changes", describe_difference(found), found.to_json())
    return 0


def _give(config: Namespace, name: str, page: str, entry: dict) -> None:
    """Writes first, so that `| head` costs no file."""
    text = json.dumps(entry, indent=1)
    if config.out is not None:
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(f"{page}\n")
        (folder / f"{name}.json").write_text(f"{text}\n")
    print(text if config.format == "json" else page)


def _download(config: Namespace) -> int:
    from jax_bridge.checkpoints.account import readable
    from jax_bridge.checkpoints.byte_progress import byte_progress
    from jax_bridge.checkpoints.download import download, plan_download

    if config.verify_only:
        return _verify(config)
    if config.address is None:
        raise ValueError("`ADDRESS` must be given, but got none; only --verify-only needs none.")
    plan = plan_download(
        config.address, config.out, include=config.include or ("*",), sha256=config.sha256
    )
    with byte_progress("download", plan.size) as on_bytes:
        done = download(plan, on_bytes)
    for name in plan.files:
        brought = done.record.files[name]
        how = f"compared with the {brought.compared}'s" if brought.compared else "none to compare"
        how = "as given" if brought.compared == "given" else how
        print(f"{name}  {readable(brought.size)}  sha256 {brought.sha256} ({how})")
    print(
        f"{len(done.fetched)} files fetched, {len(done.kept)} were here already, "
        f"{readable(plan.size)} -> {config.out}"
    )
    return 0


def _verify(config: Namespace) -> int:
    from jax_bridge.checkpoints.byte_progress import byte_progress
    from jax_bridge.checkpoints.download_record import load_record, verify

    folder = Path(config.out).expanduser()
    record = load_record(folder)
    with byte_progress("verify", sum(file.size for file in record.files.values())) as on_bytes:
        problems = verify(folder, on_bytes)
    for problem in problems:
        print(problem)
    print(f"{len(record.files)} files of {record.address}: {len(problems) or 'no'} problems")
    return DAMAGED if problems else 0


def _convert(config: Namespace) -> int:
    from jax_bridge.policies.converted_checkpoint import convert_checkpoint

    done = convert_checkpoint(config.path, config.out, dtype=config.dtype, trust=config.trust)
    made = done.converted
    print(f"{'pi0.5' if made.config.pi05 else 'pi0'}: {made.used} tensors -> {config.out}/params")
    if made.left_out:
        more = len(made.left_out) - 5
        print(
            f"left out, since the sampler never uses them: {', '.join(made.left_out[:5])}"
            + (f" and {more} more" if more > 0 else "")
        )
    for file in done.statistics:
        print(f"statistics -> {config.out}/{file}")
    if not done.statistics:
        print("no statistics were beside the weights: give them by --policy.norm_stats FILE")
    return 0
