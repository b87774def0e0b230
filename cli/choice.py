"""`--NAME KIND --NAME.option VALUE`: choose a class from a registry, then set its arguments.

The chosen class's constructor arguments become options of their own, with their own help and
errors; the choice itself is stored as `NAME.name`, so that `--print_config` writes a file that
`--config` reads back.
"""

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from cli.configs import read_config


class Choice:
    """One `--NAME` of a parser."""

    def __init__(self, name: str, *, registry: Mapping[str, str], default: str, what: str) -> None:
        """Describes the choice.

        Args:
            name: the option, without dashes.
            registry: class paths by short name; a dotted path stands for itself.
            default: the short name that is chosen where nobody chooses.
            what: what is chosen, for the help.
        """
        self._name = name
        self._registry = registry
        self._default = default
        self._what = what
        self._class: type | None = None

    def expand(self, args: Sequence[str]) -> list[str]:
        """Rewrites `--NAME KIND` as `--NAME.name KIND`."""
        flag = f"--{self._name}"
        swapped = {flag: f"{flag}.name"}
        return [
            f"{flag}.name={arg.removeprefix(flag + '=')}"
            if arg.startswith(f"{flag}=")
            else swapped.get(arg, arg)
            for arg in args
        ]

    def add_to(self, parser: ArgumentParser, args: Sequence[str]) -> None:
        """Adds the options of the class that the (expanded) arguments choose."""
        chosen = self._chosen(args)
        self._class = self._load(self._class_path(chosen))
        parser.add_argument(
            f"--{self._name}.name",
            type=str,
            default=chosen,
            help=f"{self._what}; short for it: --{self._name} NAME",
        )
        parser.add_class_arguments(self._class, self._name)

    def _class_path(self, chosen: str) -> str:
        if chosen in self._registry or "." in chosen:
            return self._registry.get(chosen, chosen)
        raise ValueError(
            f"`--{self._name}` must be one of {', '.join(self._registry)} or a class path, but got "
            f"{chosen!r}. Write a class as package.module.Class."
        )

    def _load(self, path: str) -> type:
        module, _, name = path.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"`--{self._name}` must name a class that can be imported, but got {path!r} "
                f"({error}). Check the spelling, and that its folder is on PYTHONPATH."
            ) from error

    def build(self, config: Namespace) -> Any:
        """Builds the chosen class from the parsed options."""
        return self.factory(config)()

    def factory(self, config: Namespace) -> Callable[[], Any]:
        """Builds the chosen class when it is called; another process can call it as well."""
        assert self._class is not None, "add_to comes first"
        options = config[self._name].as_dict()
        del options["name"]
        return functools.partial(self._class, **options)

    def _chosen(self, args: Sequence[str]) -> str:
        chosen = self._default
        for flag, value in _pairs(args):
            if flag == f"--{self._name}.name":
                chosen = value
            elif flag in ("-c", "--config"):
                group = read_config(value).get(self._name)
                chosen = group.get("name", chosen) if isinstance(group, dict) else chosen
        return chosen


def _pairs(args: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for position, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if equals:
            pairs.append((flag, value))
        elif position + 1 < len(args):
            pairs.append((arg, args[position + 1]))
    return pairs
