"""`vla-lens`: finds the sub-command, runs it, and turns user errors into one line.

Nothing heavy is imported here: `vla-lens --help` answers without torch, jax or jsonargparse.
"""

import argparse
import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

USER_ERROR = 2
INTERRUPTED = 130


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One sub-command: the module whose `main(args) -> int` runs it, and a line of help."""

    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "collect": Command(
        module="cli.collect", help="roll a policy out, capture latents, write episode shards"
    ),
    "serve": Command(
        module="cli.serve", help="let others ask a policy over openpi's websocket protocol"
    ),
    "checkpoint": Command(
        module="cli.checkpoint", help="inspect, compare, download or convert policy weights"
    ),
    "demos": Command(
        module="cli.demos", help="recorded demonstrations (HDF5, CALVIN) into shards, to train from"
    ),
    "questions": Command(
        module="cli.questions", help="questions about recorded pictures, with answers, to train on"
    ),
    "norm-stats": Command(
        module="cli.norm_stats", help="openpi's norm_stats.json of a data set of demonstrations"
    ),
    "fast": Command(module="cli.fast", help="learn a FAST tokenizer; write FAST targets"),
    "encode": Command(
        module="cli.encode", help="show a policy recorded frames, write its latents as shards"
    ),
    "import-pickles": Command(
        module="cli.import_pickles", help="turn old pickles of latents into a data set"
    ),
    "export": Command(
        module="cli.export", help="write fields as npy, safetensors, Parquet or LeRobot's columns"
    ),
    "dataset-stats": Command(
        module="cli.dataset_stats", help="lengths, actions, instructions of recorded episodes"
    ),
    "sampling-plan": Command(
        module="cli.sampling_plan", help="choose episodes and frames by strata, with reasons"
    ),
    "shards": Command(module="cli.shards", help="index, verify, repair or inspect a data set"),
    "fit": Command(module="cli.lightning_choice", help="train probes on a data set (LightningCLI)"),
    "validate": Command(
        module="cli.lightning_choice", help="run a trained probe on the validation split"
    ),
    "test": Command(module="cli.lightning_choice", help="run a trained probe on the test split"),
    "predict": Command(
        module="cli.lightning_choice",
        help="write a probe's predictions as Parquet, or what a torch model has inside as shards",
    ),
    "compare": Command(
        module="cli.compare", help="whether two sets of vectors differ, each number beside its null"
    ),
    "sweep": Command(module="cli.sweep", help="fit and test over a grid of settings, side by side"),
    "erase": Command(
        module="cli.erase", help="take a concept out of latents, as a file of interventions"
    ),
    "action-change": Command(
        module="cli.action_change", help="what an erased concept does to a policy's actions"
    ),
    "ki": Command(
        module="cli.ki", help="train a policy with knowledge insulation, and try it (fit, eval)"
    ),
    "report": Command(module="cli.report", help="make one self-contained HTML page of a run"),
    "language-report": Command(
        module="cli.language_report", help="how the instruction stands in the latents over time"
    ),
}
"""A new sub-command is one new file and one line here."""


def overview() -> str:
    """The text of `vla-lens --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vla-lens COMMAND [options]",
            "",
            "Look inside vision-language-action robot policies.",
            "",
            "commands:",
            *lines,
            "",
            "`vla-lens COMMAND --help` explains a command; every command takes --config FILE and",
            "--print_config. VLA_LENS_TRACEBACK=1 shows the traceback behind an error.",
        ]
    )


def _version() -> str:
    from importlib.metadata import version

    return f"vla-lens {version('vla-lens')}"


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "`vla-lens --help` lists the commands."
    return f"`COMMAND` must be one of {', '.join(COMMANDS)}, but got {name!r}. {hint}"


def _run(name: str, args: list[str]) -> int:
    try:
        return importlib.import_module(COMMANDS[name].module).main(args)
    except KeyboardInterrupt as interrupt:
        print(": ".join([f"vla-lens {name}: interrupted", *interrupt.args]), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `vla-lens ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, argparse.ArgumentError) as error:
        if os.environ.get("VLA_LENS_TRACEBACK"):
            raise
        print(f"vla-lens {name}: error: {_one_line(error, name)}", file=sys.stderr)
        return USER_ERROR


def _one_line(error: Exception, name: str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, argparse.ArgumentError):
        text = f"{text.rstrip('.')}. `vla-lens {name} --help` lists the options."
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `vla-lens` and returns the exit code.

    Args:
        argv: arguments without the program's name; the process's own by default.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0
    if args[0] == "--version":
        print(_version())
        return 0
    if args[0] not in COMMANDS:
        print(f"vla-lens: error: {_unknown(args[0])}", file=sys.stderr)
        return USER_ERROR
    return _run(args[0], args)


if __name__ == "__main__":
    sys.exit(main())
