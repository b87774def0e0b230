"""What to keep of decoding: latents of images and prompt, and of every token that is said.

The latents of `ar_step` k are those of the pass in which the k-th said token runs through the
backbone; they predict token k + 1. The first token is predicted by the last valid one of the
prompt, which is `vlm.hidden_states.text.last`.

What a said token looks at is summed over each region: `vlm.attention.fast_to_text.tokens` has one
number a step and head.

Letters: b batch; f decoding steps; l layers; w width; c regions that are looked at; h heads.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.pi0.attention_pooling import SITE as ATTENTION
from jax_bridge.pi0.attention_pooling import is_spoken, pair_of, seen_mask
from jax_bridge.pi0.capture import CaptureSpec, why_missing
from jax_bridge.pi0.capture_plan import CapturePlan, Field, site_width
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Record, Taps
from jax_bridge.pi0.recording import Region
from jax_bridge.shards.field import FieldSpec
from jax_bridge.vocabulary import SCALE_SITES, SPOKEN_REGIONS

Kept = Mapping[str, Array]
"""By site, [l, b, f, (w)], attention [l, b, f, c, h]: zeros for steps that were not needed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpokenPlan:
    """A capture made definite for a model that decodes: static, hashable, shapes known."""

    prefix: CapturePlan
    """Of images and prompt."""
    captured: tuple[Field, ...]
    """Of what is said."""
    steps: int
    """Most decoding steps."""

    def record(self, regions: Mapping[str, Region], context: int) -> Record | None:
        """What to keep of a block's taps in one decoding step; None keeps nothing.

        Args:
            regions: Of images and prompt.
            context: Their tokens; those that were said follow.
        """
        sites = tuple(dict.fromkeys(field.site for field in self.captured))
        keys = context + self.steps + 1

        def seen(region: str) -> Array:
            if region in regions:
                return seen_mask(regions[region], keys, 0)
            said = jnp.arange(keys) >= context  # no token sees what was not yet said
            batch = next(iter(regions.values())).mask.shape[0]
            return jnp.broadcast_to(said.astype(jnp.float32), (batch, keys))

        masks = [seen(region) for region in self.seen]

        def one_token(taps: Taps) -> dict[str, Array]:
            kept = {site: taps[site][:, 0] for site in sites if site != ATTENTION}
            if ATTENTION in sites:
                spent = jnp.einsum(
                    "bngs,bcs->bcng", taps[ATTENTION][:, :, 0], jnp.stack(masks, axis=1)
                )
                kept[ATTENTION] = spent.reshape(*spent.shape[:2], -1)
            return kept

        return one_token if sites else None

    @property
    def seen(self) -> tuple[str, ...]:
        """Regions that said tokens look at, each once."""
        pairs = (pair_of(field.region)[1] for field in self.captured if field.site == ATTENTION)
        return tuple(dict.fromkeys(pairs))

    def fields(self) -> dict[str, FieldSpec]:
        """Type, shape and axes of every latent of one sample, masks included."""
        specs = {field.name: self._spec(field) for field in self.captured}
        for field in self.captured:
            shape = {"ar_step": self.steps} if field.pool == "tokens" else {}
            name = f"{'mask' if shape else 'valid'}.{pair_of(field.region)[0]}"
            specs[name] = FieldSpec(
                name=name, dtype="bool", shape=tuple(shape.values()), axes=tuple(shape)
            )
        return self.prefix.fields() | specs

    def _spec(self, field: Field) -> FieldSpec:
        axes = {"layer": len(self.prefix.layers)}
        if field.pool == "tokens":
            axes["ar_step"] = self.steps
        if field.site == ATTENTION:
            axes["head"] = self.prefix.config.vlm.heads
        elif field.site not in SCALE_SITES:
            axes["width"] = site_width(field, self.prefix.config)
        return FieldSpec(
            name=field.name, dtype=self.prefix.dtype(field), shape=tuple(axes.values()),
            axes=tuple(axes), layers=self.prefix.layers,
        )  # fmt: skip

    def room(self, batch: int) -> dict[str, Array]:
        """Zeros for all steps."""
        made: dict[str, Array] = {}
        for field in self.captured:
            config = self.prefix.config
            width, dtype = (site_width(field, config),), config.jax_dtype
            if field.site in SCALE_SITES:
                width, dtype = (), jnp.dtype("float32")
            elif field.site == ATTENTION:
                width, dtype = (len(self.seen), config.vlm.heads), jnp.dtype("float32")
            shape = (len(self.prefix.layers), batch, self.steps, *width)
            made[field.site] = jnp.zeros(shape, dtype)
        return made

    def latents(self, kept: Kept, mask: Bool[Array, "b f"]) -> dict[str, Array]:
        """The fields of what was said, batch first, then in the order of a field's axes."""
        found: dict[str, Array] = {}
        for field in self.captured:
            value = jnp.moveaxis(kept[field.site], 1, 0)
            looking, seen = pair_of(field.region)
            if field.site == ATTENTION:
                value = value[..., self.seen.index(seen), :]
            if field.pool == "tokens":
                found[f"mask.{looking}"] = mask
            else:
                found[f"valid.{looking}"] = mask.any(axis=1)
                wide = value[..., None] if field.site in SCALE_SITES else value
                pooled = _pooled(wide, mask, field.pool)
                value = pooled[..., 0] if field.site in SCALE_SITES else pooled
            found[field.name] = value.astype(self.prefix.dtype(field))
        return found


def write_step(
    kept: Kept, recorded: Kept | None, place: Int[Array, ""], said: Bool[Array, " b"]
) -> dict[str, Array]:
    """Puts the latents of one step in their place; zeros in rows that say no more."""
    written = dict(kept)
    for site, value in (recorded or {}).items():
        own = jnp.where(said.reshape(1, -1, *[1] * (value.ndim - 2)), value, 0)
        written[site] = jax.lax.dynamic_update_index_in_dim(
            kept[site], own.astype(kept[site].dtype), place, axis=2
        )
    return written


def plan_spoken(capture: CaptureSpec, config: Pi0Config, steps: int) -> SpokenPlan:
    """Makes a capture definite for a backbone that acts by itself.

    Args:
        capture: what is asked for; fields of the action expert do not exist here.
        config: the model's sizes.
        steps: most decoding steps.

    Raises:
        ValueError: if it names what the model has not, or nothing that it has.
    """
    reasons = {name: why_not_spoken(name, config) for name in capture.all_names()}
    names = capture.without({name: reason for name, reason in reasons.items() if reason})
    said = tuple(name for name in names if is_spoken(name.split(".")[2]))
    common = {"config": config, "num_steps": 1, "layers": capture.layers, "flow_times": None}
    common["pooled_float32"] = capture.pooled_float32
    read = tuple(name for name in names if name not in said)
    return SpokenPlan(
        prefix=CapturePlan.make(read, **common),
        captured=CapturePlan.make(said, **common).captured,
        steps=steps,
    )


def why_not_spoken(name: str, config: Pi0Config) -> str | None:
    """Why a backbone that acts by itself has no such field; None if it has."""
    expert, _, region, _ = name.split(".")
    if expert == "action":
        return "the backbone acts by itself, without the action expert"
    read = pair_of(region)[1] if is_spoken(region) else region
    return None if read in SPOKEN_REGIONS else why_missing(read, config)


def _pooled(
    value: Float[Array, "b l f w"], mask: Bool[Array, "b f"], pool: str
) -> Float32[Array, "b l w"]:
    """Over the steps that were needed; zeros if there was none."""
    wide, valid = value.astype(jnp.float32), mask[:, None, :, None]
    if pool == "max":
        highest = jnp.where(valid, wide, -jnp.inf).max(axis=2)
        return jnp.where(valid.any(axis=2), highest, 0.0)
    if pool == "mean":
        return (wide * valid).sum(axis=2) / jnp.maximum(valid.sum(axis=2), 1)
    last = jnp.maximum(mask.sum(axis=1) - 1, 0)[:, None, None, None]
    return jnp.take_along_axis(wide, last, axis=2)[:, :, 0]
