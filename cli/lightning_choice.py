"""`vla-lens fit|validate|test|predict`: probes, or any LightningModule that a configuration names.

A configuration whose `model` has a `class_path` (or `--model package.Class`) chooses that class;
everything else is a probe. Nothing heavy is imported before that is known.
"""

import importlib

from cli.configs import FLAGS, read_config

PROBES, OTHERS = "cli.lightning", "cli.any_module"


def main(args: list[str]) -> int:
    """Runs the sub-command through the command line that suits the model.

    Raises:
        ValueError: if a configuration cannot be read, or options do not fit.
        FileNotFoundError: if a file is not there.
    """
    return importlib.import_module(OTHERS if names_a_class(args) else PROBES).main(args)


def names_a_class(args: list[str]) -> bool:
    """Whether the arguments, or a configuration among them, name the model's class."""
    for position, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if not equals:
            value = args[position + 1] if position + 1 < len(args) else ""
        if name in ("--model", "--model.class_path"):
            return True
        if name in FLAGS and value:
            model = read_config(value).get("model")
            if isinstance(model, dict) and "class_path" in model:
                return True
    return False
