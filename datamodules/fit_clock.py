"""What a loader must know of who trains with its batches."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class FitClock(Protocol):
    """What a loader must know of who trains with its batches."""

    def epoch(self) -> int | None:
        """The current epoch; None where nobody counts epochs."""
        ...

    def unfinished(self) -> int:
        """Batches that were handed over but not trained with to the end."""
        ...

    def align(self, epoch: int, steps: int) -> None:
        """Tells how many of this run's steps of the epoch are done already.

        Args:
            epoch: the epoch that is gone on with.
            steps: in batches of this run, which may have other ranks or batch sizes.
        """
        ...
