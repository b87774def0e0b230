"""Which recorded frames a policy is shown, and what an encoding did."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from jax_bridge.demos.placing import PlacedEpisode, episodes_digest
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import Policy
from jax_bridge.shards import DatasetInfo, ImageFormat, sample_key

Images = Literal["jpg", "png", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodePlan:
    """How recorded episodes are encoded."""

    capture: CaptureSpec
    suite: str = "demos"
    """First word of every key."""
    instruction: str | None = None
    """What the robot was told, for episodes that do not say."""
    stride: int = 1
    """Every how many steps the policy is asked; not together with `frames`."""
    frames: Mapping[str, Sequence[int]] | None = None
    """Steps by an episode's source; episodes that are not named are left out."""
    images: Images = "jpg"
    """How camera images are kept, as the policy saw them."""
    batch: int = 1
    """Rows of a policy call; results depend on it in their last bits."""
    seed: int = 0
    """Of the sampler's noise."""
    retry_errors: bool = False
    """Whether episodes that could not be read before are tried again."""

    def __post_init__(self) -> None:
        sample_key(self.suite, 0, 0, 0)
        for name in ("stride", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        if self.frames is not None and self.stride != 1:
            raise ValueError(
                f"`stride` must be left out where `frames` says which, but got {self.stride}."
            )

    def steps(self, placed: PlacedEpisode) -> Sequence[int]:
        """The steps of an episode at which the policy is asked, rising.

        Raises:
            ValueError: if the plan names a step that the episode has not.
        """
        if self.frames is None:
            return range(0, placed.info.length, self.stride)
        steps = sorted(set(self.frames.get(placed.info.source, ())))
        if steps and not 0 <= steps[0] <= steps[-1] < placed.info.length:
            raise ValueError(
                f"`frames` of {placed.info.source} must lie in [0, {placed.info.length}), but got "
                f"{steps[0]} to {steps[-1]}. Make the plan anew from these files."
            )
        return steps

    @property
    def image_format(self) -> ImageFormat | None:
        """How images are stored; None where none are kept."""
        return None if self.images == "none" else ImageFormat(kind=self.images)


@dataclasses.dataclass(kw_only=True)
class EncodeReport:
    """What an encoding did; grows while it runs."""

    skipped: int = 0
    """Episodes that were there already."""
    episodes: int = 0
    samples: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    """One line an episode that could not be read."""


@runtime_checkable
class Watcher(Protocol):
    """Is told how the encoding goes (a progress bar)."""

    def update(self, report: EncodeReport) -> None:
        """Called at the start and after every episode."""
        ...


def dataset_info(placed: Sequence[PlacedEpisode], policy: Policy, plan: EncodePlan) -> DatasetInfo:
    """What `dataset.json` says; other files, frames or settings make another fingerprint."""
    environment: dict[str, Any] = {
        "name": plan.suite,
        "protocol": "recorded frames, teacher-forced",
        "layouts": sorted({one.info.layout for one in placed}),
        "episodes_digest": episodes_digest(placed),
        "stride": plan.stride,
        "batch": plan.batch,
        "frames": None
        if plan.frames is None
        else {one.source: list(plan.steps(one)) for one in placed},
    }
    return DatasetInfo(
        fields=policy.fields(plan.capture),
        capture=plan.capture.to_json(),
        model=policy.describe(),
        environment=environment,
        seed=plan.seed,
    )
