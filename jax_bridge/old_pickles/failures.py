"""What can be wrong with a pickle."""

import pathlib


class RefusedPickleError(ValueError):
    """A file that is damaged, or that asks for more than arrays and plain containers."""

    def __init__(self, path: pathlib.Path, what: str) -> None:
        super().__init__(f"{path} is not read: {what}")
        self.path = path
        self.what = what

    def __reduce__(self) -> tuple[type, tuple[pathlib.Path, str]]:
        return (RefusedPickleError, (self.path, self.what))
