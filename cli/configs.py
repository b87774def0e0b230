"""Configuration files by name: `-c probe` finds `configs/probe.yaml` as well as a path."""

from pathlib import Path
from typing import Any

import yaml

import cli

CONFIGS = Path(cli.__file__).parent.parent / "configs"
"""The shipped files: beside the packages, in a checkout and in a wheel."""

FLAGS = ("-c", "--config")


def shipped_configs() -> dict[str, Path]:
    """The shipped configuration files by name, sorted."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """Finds a configuration file by path or by shipped name.

    Raises:
        FileNotFoundError: if it is neither; the message lists the shipped names.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    raise FileNotFoundError(
        f"`--config` must be a YAML file or one of {', '.join(shipped) or 'no names'}, "
        f"but got {name!r}. Check the spelling or give a path."
    )


def read_config(name: str) -> dict[str, Any]:
    """The content of a configuration file, given by path or by shipped name.

    Raises:
        FileNotFoundError: as `find_config`.
        ValueError: if it is no YAML mapping.
    """
    path = find_config(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`--config` must be a YAML file, but {path} cannot be read as one: {error}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"`--config` must be a file of `option: value` lines, but {path} holds "
            f"{type(content).__name__}."
        )
    return content


def resolve_config_args(args: list[str]) -> list[str]:
    """Replaces the value of every `-c`/`--config` by the path of the file.

    Raises:
        FileNotFoundError: as `find_config`.
    """
    resolved = list(args)
    for position, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag not in FLAGS:
            continue
        if equals:
            resolved[position] = f"{flag}={find_config(value)}"
        elif position + 1 < len(args):
            resolved[position + 1] = str(find_config(args[position + 1]))
    return resolved
