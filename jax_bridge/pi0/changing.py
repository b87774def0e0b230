"""Changing what blocks compute, the counterpart of capture: x + U(Vᵀx) + b at chosen places.

A change is made where the block has computed the value, before anything reads it, and so before
it is captured. Without interventions the plain program is compiled.

Letters: b batch; t tokens of an expert; w width; r rank.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.interventions import Intervention, Place
from jax_bridge.pi0.capture_plan import choose_layers, choose_steps, region_spans
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Change
from jax_bridge.pi0.recording import Region
from jax_bridge.vocabulary import EXPERTS, RESIDUAL_SITES

Flags = tuple[bool, ...]


class AffineMap(NamedTuple):
    """The numbers of one intervention."""

    u: Float32[Array, "w r"]
    v: Float32[Array, "w r"]
    b: Float32[Array, " w"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChangePlan:
    """Where changes are made, made definite for one model and sampler; hashable."""

    places: tuple[Place, ...]
    layers: tuple[Flags, ...]
    """Of each place: in which layers."""
    steps: tuple[Flags, ...]
    """Of each place: in which flow steps."""

    def of(self, expert: str) -> list[int]:
        """Numbers of the places in one expert."""
        return [i for i, place in enumerate(self.places) if place.expert == expert]


def plan_changes(
    interventions: Sequence[Intervention], config: Pi0Config, num_steps: int
) -> tuple[ChangePlan, tuple[AffineMap, ...]]:
    """Makes interventions definite.

    Raises:
        ValueError: if a place is one that the model or the sampler has not, or the numbers are
            not as wide as it.
    """
    for found in interventions:
        _check_place(found, config)
    places = tuple(found.place for found in interventions)
    layers = [choose_layers(_alone(p.layer), config.depth) for p in places]
    steps = [choose_steps(_alone(p.flow_time), num_steps) for p in places]
    plan = ChangePlan(
        places=places,
        layers=tuple(tuple(i in chosen for i in range(config.depth)) for chosen in layers),
        steps=tuple(tuple(i in chosen for i in range(num_steps)) for chosen in steps),
    )
    maps = tuple(
        AffineMap(*(jnp.asarray(tensor, jnp.float32) for tensor in (f.u, f.v, f.b)))
        for f in interventions
    )
    return plan, maps


def _alone(value: float | int | None) -> list | None:
    return None if value is None else [value]


def _check_place(found: Intervention, config: Pi0Config) -> None:
    """Raises if the model has no such place, or one of another width."""
    place, width = found.place, len(found.b)
    spans = region_spans(config)
    for word, known in (("expert", EXPERTS), ("site", RESIDUAL_SITES), ("region", tuple(spans))):
        if getattr(place, word) not in known:
            raise ValueError(
                f"`{word}` must be one of {', '.join(known)} to be changed in this model, but got "
                f"{getattr(place, word)!r} in {place.name}."
            )
    if (place.region in ("state", "action")) != (place.expert == "action"):
        raise ValueError(
            f"`region` must be one of expert {place.expert}, but got {place.region!r} in "
            f"{place.name}."
        )
    if place.expert == "vlm" and place.flow_time is not None:
        raise ValueError(
            f"`flow_time` must be None for expert vlm, which runs once, but got {place.flow_time} "
            f"in {place.name}."
        )
    expert = getattr(config, place.expert)
    due = expert.mlp_dim if place.site == "mlp_activation" else expert.width
    if width != due:
        raise ValueError(
            f"`b` must be {due} wide, as {place.name} is in this model, but got {width}. The file "
            "was made from another model's latents."
        )


def make_change(
    plan: ChangePlan,
    maps: Sequence[AffineMap],
    expert: str,
    regions: Mapping[str, Region],
    tokens: int,
    step: Int[Array, ""] | int = 0,
) -> Change | None:
    """What changes one expert's blocks in one flow step; None where nothing does.

    Args:
        plan: the places.
        maps: their numbers.
        expert: whose blocks.
        regions: where each region lies and which of its tokens are valid.
        tokens: of this expert.
        step: of the sampler; 0 for the prefix.
    """
    numbers = plan.of(expert)
    if not numbers:
        return None
    masks = {i: token_mask(plan.places[i], regions, tokens) for i in numbers}
    on_step = {i: jnp.asarray(plan.steps[i])[step] for i in numbers}

    def change(layer: Array, site: str, value: Array) -> Array:
        for i in numbers:
            if plan.places[i].site == site:
                here = on_step[i] & jnp.asarray(plan.layers[i])[layer]
                value = apply_map(maps[i], value, masks[i] & here)
        return value

    return change


def token_mask(place: Place, regions: Mapping[str, Region], tokens: int) -> Bool[Array, "b t"]:
    """The tokens that a place changes."""
    (start, stop), mask = regions[place.region].span, regions[place.region].mask
    if place.pool == "last":
        number = jnp.arange(mask.shape[1])
        last = jnp.where(mask, number, -1).max(axis=1, keepdims=True)
        mask = mask & (number == last)
    return jnp.pad(mask, ((0, 0), (start, tokens - stop)))


def apply_map(
    affine: AffineMap, value: Float[Array, "b t w"], mask: Bool[Array, "b t"]
) -> Float[Array, "b t w"]:
    """Adds U(Vᵀx) + b at the tokens of a mask, in float32; all others keep their bits."""
    wide = value.astype(jnp.float32)
    moved = wide + (wide @ affine.v) @ affine.u.T + affine.b
    return jnp.where(mask[:, :, None], moved.astype(value.dtype), value)
