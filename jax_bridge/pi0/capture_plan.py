"""A capture spec made definite for one model and sampler: static, hashable, shapes known."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jax_bridge.pi0.attention_pooling import SITE as ATTENTION
from jax_bridge.pi0.attention_pooling import is_spoken, pair_of
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.shards.field import FieldSpec
from jax_bridge.vocabulary import (
    EXPERTS,
    IMAGE_REGIONS,
    SAMPLER_SITES,
    SCALE_SITES,
    TEXT_REGIONS,
)

FLOW_TIME_TOLERANCE = 1e-3
MATRIX_BYTES = 256 * 10**6
"""Most that whole matrices of attention may take, a sample."""
Span = tuple[int, int]
"""First token of a region and the one after its last, counted in its expert's tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """The four words of a field's name."""

    expert: str
    site: str
    region: str
    pool: str

    @property
    def name(self) -> str:
        """As in shards."""
        return f"{self.expert}.{self.site}.{self.region}.{self.pool}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CapturePlan:
    """What to record, by field, layer number and step number."""

    config: Pi0Config
    num_steps: int
    captured: tuple[Field, ...]
    layers: tuple[int, ...]
    """Ascending layer numbers."""
    steps: tuple[int, ...]
    """Ascending numbers of flow steps."""
    pooled_float32: bool

    @classmethod
    def make(
        cls,
        names: tuple[str, ...],
        *,
        config: Pi0Config,
        num_steps: int,
        layers: Sequence[int] | None,
        flow_times: Sequence[float] | None,
        pooled_float32: bool,
    ) -> "CapturePlan":
        """Resolves layers and flow times; None means all.

        Raises:
            ValueError: if the model has no such layer, the sampler no such time, or matrices of
                attention are too large.
        """
        words = ("expert", "site", "region", "pool")
        captured = (Field(**dict(zip(words, name.split("."), strict=True))) for name in names)
        plan = cls(
            config=config,
            num_steps=num_steps,
            captured=tuple(captured),
            layers=choose_layers(layers, config.depth),
            steps=choose_steps(flow_times, num_steps),
            pooled_float32=pooled_float32,
        )
        plan._check_matrices()
        return plan

    def _check_matrices(self) -> None:
        """Raises where whole matrices of attention would fill the memory."""
        whole = [f for f in self.captured if f.site == ATTENTION and f.pool == "tokens"]
        size = sum(self._spec(f).nbytes for f in whole if not is_spoken(f.region))
        if size > MATRIX_BYTES:
            raise ValueError(
                f"`names` must ask for at most {MATRIX_BYTES / 1e6:.0f} MB of whole attention a "
                f"sample, but got {size / 1e6:,.0f} MB. Choose layers, flow_times or regions; "
                "pool mean needs a few numbers a pair."
            )

    def of(self, expert: str, *, sampler: bool = False) -> tuple[Field, ...]:
        """One expert's fields: those of its blocks, or those of the sampler."""
        return tuple(
            field
            for field in self.captured
            if field.expert == expert and (field.site in SAMPLER_SITES) == sampler
        )

    @property
    def reads_attention(self) -> bool:
        """Whether attention's probabilities are asked for."""
        return any(field.site == ATTENTION for field in self.captured)

    @property
    def masks(self) -> tuple[str, ...]:
        """Regions whose token mask is stored: those captured by token, and parts of `text`."""
        regions = {
            region
            for field in self.captured
            if field.pool == "tokens" and field.site not in SAMPLER_SITES
            for region in pair_of(field.region)
        }
        if regions & set(TEXT_REGIONS):
            regions |= set(TEXT_REGIONS)
        return tuple(region for region in region_spans(self.config) if region in regions)

    @property
    def valids(self) -> tuple[str, ...]:
        """Regions with a pooled field: whether they had a valid token is stored."""
        pooled = {pair_of(field.region)[0] for field in self.captured if field.pool != "tokens"}
        return tuple(region for region in region_spans(self.config) if region in pooled)

    def dtype(self, field: Field) -> str:
        """Type in which a field is stored."""
        if field.site in SCALE_SITES or field.site in ("x_t", ATTENTION):
            return "float32"
        if field.pool != "tokens" and self.pooled_float32:
            return "float32"
        return self.config.dtype

    def fields(self) -> dict[str, FieldSpec]:
        """Type, shape and axes of every latent of one sample, masks included."""
        specs = [self._spec(field) for field in self.captured]
        for region in self.masks:
            shape = (self._tokens(region),)
            specs.append(
                FieldSpec(name=f"mask.{region}", dtype="bool", shape=shape, axes=("token",))
            )
        specs += [
            FieldSpec(name=f"valid.{region}", dtype="bool", shape=(), axes=())
            for region in self.valids
        ]
        return {spec.name: spec for spec in specs}

    def _tokens(self, region: str) -> int:
        start, stop = region_spans(self.config)[region]
        return stop - start

    def _spec(self, field: Field) -> FieldSpec:
        """Type, shape and axes of one field."""
        axes: dict[str, int] = {}
        if field.site not in SAMPLER_SITES:
            axes["layer"] = len(self.layers)
        if field.expert == "action":
            axes["flow_time"] = len(self.steps)
        if field.site in SAMPLER_SITES:
            axes |= {"horizon": self.config.action_horizon, "dim": self.config.action_dim}
        elif field.site == ATTENTION:
            axes["head"] = getattr(self.config, field.expert).heads
            if field.pool == "tokens":
                sizes = (self._tokens(region) for region in pair_of(field.region))
                axes |= dict(zip(("looking", "seen"), sizes, strict=True))
        else:
            if field.pool == "tokens":
                axes["token"] = self._tokens(field.region)
            if field.site not in SCALE_SITES:
                axes["width"] = site_width(field, self.config)
        times = flow_times(self.num_steps)[list(self.steps)]
        return FieldSpec(
            name=field.name,
            dtype=self.dtype(field),
            shape=tuple(axes.values()),
            axes=tuple(axes),
            layers=self.layers if "layer" in axes else None,
            flow_times=tuple(float(t) for t in times) if "flow_time" in axes else None,
        )


def flow_times(num_steps: int) -> np.ndarray:
    """Times at which the sampler evaluates the velocity: float32, accumulated from 1.0.

    Raises:
        ValueError: if there is no step.
    """
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, but got {num_steps}.")
    times = [np.float32(1.0)]
    for _ in range(num_steps - 1):
        times.append(np.float32(times[-1] + np.float32(-1.0 / num_steps)))
    return np.array(times, np.float32)


def site_width(field: Field, config: Pi0Config) -> int:
    """Width of a site of an expert."""
    expert = config.vlm if field.expert == EXPERTS[0] else config.action
    return expert.mlp_dim if field.site == "mlp_activation" else expert.width


def region_spans(config: Pi0Config, text_tokens: int | None = None) -> dict[str, Span]:
    """Where every region of the model lies in its expert's tokens.

    Args:
        config: The model's sizes.
        text_tokens: Length of the prompt; None: the config's.
    """
    size, images = config.vision.tokens, config.image_tokens
    spans = {region: (i * size, (i + 1) * size) for i, region in enumerate(IMAGE_REGIONS)}
    text = (images, images + (text_tokens or config.max_token_len))
    spans |= {region: text for region in TEXT_REGIONS if region != "state_text" or config.pi05}
    if not config.pi05:
        spans["state"] = (0, 1)
    spans["action"] = (config.suffix_len - config.action_horizon, config.suffix_len)
    return spans


def choose_layers(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Ascending layer numbers, each once."""
    if layers is None:
        return tuple(range(depth))
    for layer in layers:
        if not 0 <= layer < depth:
            raise ValueError(
                f"`layers` must lie in 0 ... {depth - 1} (the model has {depth} blocks), but got "
                f"{layer}."
            )
    if not layers:
        raise ValueError("`layers` must name at least one layer, but got none. None means all.")
    return tuple(sorted({int(layer) for layer in layers}))


def choose_steps(wanted: Sequence[float] | None, num_steps: int) -> tuple[int, ...]:
    """Ascending numbers of the steps nearest to the wanted times."""
    times = flow_times(num_steps).astype(np.float64)
    if wanted is None:
        return tuple(range(num_steps))
    if not wanted:
        raise ValueError("`flow_times` must name at least one time, but got none. None means all.")
    steps = set()
    for time in wanted:
        step = int(np.abs(times - time).argmin())
        if abs(times[step] - time) > FLOW_TIME_TOLERANCE:
            known = ", ".join(f"{t:.4g}" for t in times)
            raise ValueError(
                f"`flow_times` must be evaluated by the sampler of {num_steps} steps ({known}), "
                f"but got {time}."
            )
        steps.add(step)
    return tuple(sorted(steps))
