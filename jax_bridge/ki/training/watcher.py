"""Who looks at the parameters while they train: probes of what is kept, errors of actions."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Watcher(Protocol):
    """Something that is asked now and then; the command line injects it."""

    @property
    def every(self) -> int:
        """Steps between two looks; it also looks before the first step."""
        ...

    def watch(self, step: int, params: Mapping[str, Any]) -> Mapping[str, float]:
        """What it finds, by name (`retention/instruction/layer03`); logged beside the losses.

        Args:
            step: steps done.
            params: the live parameters, in openpi's layout. They are given away with the next
                step: copy what must stay.
        """
        ...
