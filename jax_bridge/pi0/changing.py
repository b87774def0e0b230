"""Changing what blocks compute, the counterpart of capture: x + U(Vᵀx) + b, or a given value.

A change is made where the block has computed the value, before anything reads it, and so before
it is captured. Without interventions the plain program is compiled.

Letters: b batch; t tokens of an expert; w width; r rank.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.interventions import Place, PlacedChange, Replacement
from jax_bridge.pi0.capture_plan import choose_layers, choose_steps, region_spans
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Change
from jax_bridge.pi0.recording import Region
from jax_bridge.vocabulary import EXPERTS, RESIDUAL_SITES, SPOKEN_REGIONS

Flags = tuple[bool, ...]


class AffineMap(NamedTuple):
    """The numbers of one intervention: x + U(Vᵀx) + b."""

    u: Float32[Array, "w r"]
    v: Float32[Array, "w r"]
    b: Float32[Array, " w"]

    def __call__(self, wide: Float32[Array, "b t w"], start: int) -> Float32[Array, "b t w"]:
        """Changes all tokens."""
        return wide + (wide @ self.v) @ self.u.T + self.b


class GivenValue(NamedTuple):
    """The numbers of one replacement."""

    value: Float32[Array, "*r w"]

    def __call__(self, wide: Float32[Array, "b t w"], start: int) -> Float32[Array, "b t w"]:
        """Puts the value in the place of all tokens, or token by token from `start` on."""
        value = self.value
        if value.ndim == 2:
            after = wide.shape[1] - start - value.shape[0]
            value = jnp.pad(value, ((start, after), (0, 0)))
        return jnp.broadcast_to(value, wide.shape)


Map = AffineMap | GivenValue


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
    interventions: Sequence[PlacedChange],
    config: Pi0Config,
    num_steps: int,
    *,
    speaks: bool = False,
) -> tuple[ChangePlan, tuple[Map, ...]]:
    """Makes interventions definite.

    Args:
        interventions: what is done where.
        config: the model's sizes.
        num_steps: flow steps.
        speaks: whether the backbone acts by itself: it has said tokens, and no action expert.

    Raises:
        ValueError: if a place is one that the model or the sampler has not, or the numbers are
            not as wide as it.
    """
    for found in interventions:
        _check_place(found, config, speaks=speaks)
    places = tuple(found.place for found in interventions)
    layers = [choose_layers(_alone(p.layer), config.depth) for p in places]
    steps = [choose_steps(_alone(p.flow_time), num_steps) for p in places]
    plan = ChangePlan(
        places=places,
        layers=tuple(tuple(i in chosen for i in range(config.depth)) for chosen in layers),
        steps=tuple(tuple(i in chosen for i in range(num_steps)) for chosen in steps),
    )
    return plan, tuple(_numbers(found) for found in interventions)


def _numbers(found: PlacedChange) -> Map:
    if isinstance(found, Replacement):
        return GivenValue(jnp.asarray(found.value, jnp.float32))
    return AffineMap(*(jnp.asarray(tensor, jnp.float32) for tensor in (found.u, found.v, found.b)))


def _alone(value: float | int | None) -> list | None:
    return None if value is None else [value]


def _check_place(found: PlacedChange, config: Pi0Config, *, speaks: bool) -> None:
    """Raises if the model has no such place, or one of another size."""
    place, width = found.place, found.width
    spans = region_spans(config)
    experts = EXPERTS[:1] if speaks else EXPERTS
    regions = (*spans, *SPOKEN_REGIONS) if speaks else tuple(spans)
    for word, known in (("expert", experts), ("site", RESIDUAL_SITES), ("region", regions)):
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
            f"The numbers must be {due} wide, as {place.name} is in this model, but got {width}. "
            "The file was made from another model's latents."
        )
    if place.region in SPOKEN_REGIONS:
        _check_spoken(found)
    elif isinstance(found, Replacement) and found.value.ndim == 2:
        start, stop = spans[place.region]
        if len(found.value) != stop - start:
            raise ValueError(
                f"`value` must have {stop - start} tokens, as {place.region} has in this model, "
                f"but got {len(found.value)} in {place.name}."
            )


def _check_spoken(found: PlacedChange) -> None:
    """Raises if a change of said tokens asks which of them they are."""
    if found.place.pool == "last":
        raise ValueError(
            f"`pool` must not be last in {found.place.name}: nobody knows which token is the last "
            "while it is said. Take mean, which changes all."
        )
    if isinstance(found, Replacement) and found.value.ndim == 2:
        raise ValueError(
            f"`value` must be one vector for all tokens that are said, but got "
            f"{len(found.value)} in {found.place.name}."
        )


def make_change(
    plan: ChangePlan,
    maps: Sequence[Map],
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
        regions: where each region lies and which of its tokens are valid; places in others are
            passed over.
        tokens: of this expert.
        step: of the sampler; 0 for the prefix.
    """
    numbers = [i for i in plan.of(expert) if plan.places[i].region in regions]
    if not numbers:
        return None
    masks = {i: token_mask(plan.places[i], regions, tokens) for i in numbers}
    on_step = {i: jnp.asarray(plan.steps[i])[step] for i in numbers}

    def change(layer: Array, site: str, value: Array) -> Array:
        for i in numbers:
            if plan.places[i].site == site:
                here = on_step[i] & jnp.asarray(plan.layers[i])[layer]
                start = regions[plan.places[i].region].span[0]
                value = apply_map(maps[i], value, masks[i] & here, start)
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
    found: Map, value: Float[Array, "b t w"], mask: Bool[Array, "b t"], start: int = 0
) -> Float[Array, "b t w"]:
    """Changes the tokens of a mask, in float32; all others keep their bits.

    Args:
        found: the numbers.
        value: what a block computed.
        mask: which tokens are changed.
        start: first token of the region.
    """
    moved = found(value.astype(jnp.float32), start)
    return jnp.where(mask[:, :, None], moved.astype(value.dtype), value)
