"""How an episode is rolled out: who drives, when the policy is asked, when it ends."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutProtocol:
    """Everything about a rollout that changes what its samples are (enters the fingerprint)."""

    drive: Literal["policy", "demonstrator"] = "policy"
    """Whose actions are sent; with `demonstrator`, the policy only watches."""

    stride: int | None = None
    """Steps between two captures; by default latents are captured at every driving call, or
    every `replan` steps where the demonstrator drives."""

    replan: int = 5
    """Steps of a chunk that are sent before the policy is asked again."""

    max_steps: int = 100
    """Limit of an episode, in environment steps after settling."""

    after_success: int = 10
    """Steps that follow the first success, to see whether it lasts; 0 ends at once."""

    noise: float = 0.0
    """Standard deviation of the noise on the demonstrator's translation, in action units."""

    seed: int = 0
    """Seed of starts, sampler noise and demonstrator noise."""

    batch: int = 1
    """Rows of every policy call; an episode always has the same row. Another number changes
    results in the last bits."""

    def __post_init__(self) -> None:
        for name in ("stride", "replan", "max_steps", "batch"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive, but got {value}.")
        for name in ("after_success", "noise", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, but got {getattr(self, name)}.")
        if self.noise and self.drive != "demonstrator":
            raise ValueError(
                f"`noise` must be 0 where the policy drives, but got {self.noise}. "
                "Add --drive demonstrator."
            )

    @property
    def interval(self) -> int:
        """Steps between two captures."""
        return self.stride or self.replan

    @property
    def calls(self) -> int:
        """Policy calls of an episode that lasts until `max_steps`."""
        steps = set(range(0, self.max_steps, self.interval))
        if self.drive == "policy":
            steps |= set(range(0, self.max_steps, self.replan))
        return len(steps)

    def describe(self) -> dict[str, Any]:
        """JSON-able, for the fingerprint; the seed stands there by itself."""
        entry = dataclasses.asdict(self)
        del entry["seed"]
        if self.batch == 1:  # data sets that are older than batches stay what they are
            del entry["batch"]
        return entry
