"""`--out` as a folder, looked at before the work and not after it."""

from pathlib import Path


def out_folder(path: str | Path) -> Path:
    """The folder that a command is to write into; it need not be there.

    Raises:
        ValueError: if a file stands there.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise ValueError(f"`--out` must be a folder, but {path} is a file. Choose another.")
    return Path(path)
