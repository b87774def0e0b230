"""`vla-lens predict|test ...` for any LightningModule that a configuration names by its class."""

import argparse
import os
import warnings

from cli.configs import resolve_config_args


def main(args: list[str]) -> int:
    """Runs a sub-command of Lightning on the module that the arguments name.

    Args:
        args: the sub-command and its options.

    Raises:
        ValueError: if an option, the data or the model does not fit.
        FileNotFoundError: if a file is not there.
    """
    import torch
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from cli.lightning import quieten
    from lightning_modules.module_cli import ModuleCLI

    quieten()
    # A capture that is finished already has nothing to read, and says so itself.
    warnings.filterwarnings("ignore", message=r"Total length of `FrameLoader`", append=False)
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        ModuleCLI(resolve_config_args(args))
    except argparse.ArgumentError as error:
        message = str(error).rstrip(".")
        raise ValueError(f"{message}. `vla-lens {args[0]} --help` lists the options.") from error
    except (MisconfigurationException, ImportError) as error:
        raise ValueError(str(error)) from error
    return 0
