"""`vla-lens ki {fit,eval,explain-mask}`: train a policy with knowledge insulation, and try it."""

import difflib
import importlib

SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("cli.ki_fit", "train a policy on demonstrations; the same command goes on"),
    "eval": ("cli.ki_eval", "roll a trained policy out: success a task, videos, both heads"),
    "explain-mask": ("cli.ki_explain_mask", "draw which token reads which, for a model"),
}
"""Module and a line of help of each; a new one is one file and one line here."""


def overview() -> str:
    """The text of `vla-lens ki --help`."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: vla-lens ki COMMAND [options]",
            "",
            "Trains pi0 and pi0.5 with knowledge insulation (docs/knowledge_insulation.md).",
            "",
            "commands:",
            *lines,
            "",
            "`vla-lens ki COMMAND --help` explains a command.",
        ]
    )


def main(args: list[str]) -> int:
    """Runs `vla-lens ki COMMAND ...`.

    Raises:
        ValueError: if there is no such command.
    """
    rest = args[1:] if args[:1] == ["ki"] else args
    if not rest or rest[0] in ("-h", "--help"):
        print(overview())
        return 0
    name = rest[0]
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`vla-lens ki --help` lists them."
        raise ValueError(
            f"`ki COMMAND` must be one of {', '.join(SUBCOMMANDS)}, but got {name!r}. {hint}"
        )
    return importlib.import_module(SUBCOMMANDS[name][0]).main(rest)
