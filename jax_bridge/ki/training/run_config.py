"""The settings of a run: how long, how often something is said or saved, which model."""

import dataclasses
from typing import Any

from jax_bridge.ki.objective import Objective
from jax_bridge.ki.optimiser import OptimiserConfig
from jax_bridge.ki.train_step import StepConfig
from jax_bridge.ki.training.lora import LoraConfig
from jax_bridge.pi0.config import Pi0Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run is, and what happens how often."""

    steps: int = 30_000
    """Updates of the parameters."""
    batch_size: int = 32
    """Samples a step, over all processes."""
    seed: int = 0
    """Of random weights, order, noise, times and augmentation."""
    log_every: int = 50
    """Steps between two lines of the log."""
    save_every: int = 1000
    """Steps between two checkpoints; the last step is always saved."""
    keep_last: int = 2
    """Checkpoints that are kept: the newest."""
    keep_best: int = 1
    """Checkpoints that are kept: those of the lowest loss, on held-out samples where there are."""
    validate_every: int = 0
    """Steps between two looks at the losses of held-out samples; 0 for none."""
    insulation_every: int = 500
    """Steps between two measurements of the flow loss's gradient on the backbone; 0 for none."""
    fsdp: int = 1
    """Devices that share each copy of the parameters."""
    read_ahead: int = 2
    """Batches that wait on the device."""
    deterministic: bool = False
    """On a GPU, take slower kernels that give the same bits every time."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every", "keep_last", "read_ahead"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        for name in ("seed", "keep_best", "validate_every", "insulation_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, but got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A preset, and what is changed of it; None leaves it as it is."""

    preset: str = "pi05"
    """pi0, pi05, or one of these with _micro, _tiny, ..."""
    action_horizon: int | None = None
    """Actions in a chunk."""
    action_dim: int | None = None
    """Dimensions of the model's actions; the robot's may be fewer."""
    max_token_len: int | None = None
    """Tokens of the prompt, padding included."""
    vocab_size: int | None = None
    """Rows of the embedding table."""
    dtype: str = "bfloat16"
    """Type of the activations; parameters are float32 whatever it is."""

    def config(self) -> Pi0Config:
        """All sizes.

        Raises:
            ValueError: if the preset is unknown, or a size makes no sense.
        """
        given = dataclasses.asdict(self)
        name = given.pop("preset")
        return Pi0Config.preset(name, **{k: v for k, v in given.items() if v is not None})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides what a run computes."""

    model: Pi0Config
    objective: Objective = dataclasses.field(default_factory=Objective)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    step: StepConfig = dataclasses.field(default_factory=StepConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    weights: str = "random"
    """Where training starts; see `starting_weights`."""

    def to_json(self) -> dict[str, Any]:
        """Nested dicts of plain values."""
        return dataclasses.asdict(self)

    def binding(self) -> dict[str, Any]:
        """The settings that may not change when a run goes on: all that decide a loss."""
        entry = self.to_json()
        for name in FREE:
            del entry["run"][name]
        return entry


FREE = (
    "steps", "log_every", "save_every", "keep_last", "keep_best", "validate_every",
    "insulation_every", "fsdp", "read_ahead",
)  # fmt: skip
"""Settings of a run that may change when it goes on."""
