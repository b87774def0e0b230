"""Slicing and pooling of latents inside the compiled program.

Letters: b batch; t tokens of an expert; r pooled rows; w width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from jax_bridge.pi0.attention_pooling import SITE as ATTENTION
from jax_bridge.pi0.attention_pooling import AttentionPooling, pair_of
from jax_bridge.pi0.capture_plan import CapturePlan, Field, Span, region_spans
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Taps
from jax_bridge.pi0.observation import ArrayLike, Observation
from jax_bridge.vocabulary import CAMERAS, SAMPLER_SITES, SCALE_SITES

LINEAR_POOLS = ("mean", "last")
"""Pools that are one row of a matrix applied to the tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """Where a region lies in its expert's tokens, and which of its tokens are valid."""

    span: Span
    mask: Bool[Array, "b t"]


def find_regions(observation: Observation, config: Pi0Config) -> dict[str, Region]:
    """Every region of the model, with the validity of its tokens."""
    prompt = jnp.asarray(observation.tokenized_prompt_mask).astype(bool)
    batch, text_tokens = prompt.shape
    masks = {
        camera.region: jnp.repeat(
            jnp.asarray(observation.image_masks[camera.openpi_key])[:, None],
            config.vision.tokens,
            axis=1,
        )
        for camera in CAMERAS
    }
    masks["text"] = prompt
    masks["instruction"] = _known(observation.instruction_mask, prompt)
    masks["state_text"] = _known(observation.state_text_mask, prompt)
    masks["state"] = jnp.ones((batch, 1), bool)
    masks["action"] = jnp.ones((batch, config.action_horizon), bool)
    spans = region_spans(config, text_tokens)
    return {r: Region(span=span, mask=masks[r].astype(bool)) for r, span in spans.items()}


def _known(part: ArrayLike | None, prompt: Array) -> Bool[Array, "b t"]:
    """A part of the prompt's tokens; none of them if nothing is known."""
    return jnp.zeros_like(prompt) if part is None else jnp.asarray(part).astype(bool) & prompt


class Recorder:
    """Keeps one expert's fields of a plan: called with each block's taps, inside the scan."""

    def __init__(
        self,
        captured: tuple[Field, ...],
        regions: Mapping[str, Region],
        tokens: int,
        attention: AttentionPooling | None = None,
    ) -> None:
        """Prepares the pooling matrices of every site.

        Args:
            captured: Fields of one expert.
            regions: All regions.
            tokens: Tokens of this expert.
            attention: What pools its attention, where that is captured.
        """
        self.regions, self.tokens, self.attention = regions, tokens, attention
        self.captured = tuple(field for field in captured if field.site != ATTENTION)
        self.sites = tuple(dict.fromkeys(field.site for field in self.captured))
        self.rows = {site: self._rows(site) for site in self.sites}
        made: dict[tuple, Array] = {}
        for rows in self.rows.values():
            if rows and rows not in made:
                made[rows] = jnp.stack([self._weights(*row) for row in rows], axis=1)
        self.matrices = {site: made[rows] for site, rows in self.rows.items() if rows}

    def __call__(self, taps: Taps) -> dict[str, Any]:
        """Slices and pools what one block computed."""
        kept: dict[str, Any] = {site: self._record(site, taps[site]) for site in self.sites}
        return (
            kept if self.attention is None else {**kept, ATTENTION: self.attention(taps[ATTENTION])}
        )

    def _record(self, site: str, value: Array) -> dict[str, Array]:
        """Slices and pools one site."""
        wide = value[..., None] if site in SCALE_SITES else value
        kept: dict[str, Array] = {}
        if site in self.matrices:
            kept["linear"] = jnp.einsum(
                "brt,btw->brw", self.matrices[site], wide.astype(jnp.float32)
            )
        for field in self.captured:
            region = self.regions[field.region]
            if field.site == site and field.pool == "max":
                kept[f"max.{field.region}"] = _masked_max(wide, region)
        for start, stop in self._runs(site):
            kept[f"tokens.{start}"] = wide[:, start:stop]
        return kept

    def field(self, field: Field, recorded: Mapping[str, Any]) -> Array:
        """Takes one field out of what all scans stacked: [scans ..., b, (tokens,) width]."""
        kept = recorded[field.site]
        if field.site == ATTENTION:
            assert self.attention is not None
            return self.attention.pair(field.region, field.pool, kept)
        if field.pool in LINEAR_POOLS:
            row = self.rows[field.site].index((field.region, field.pool))
            value = kept["linear"][..., row, :]
        elif field.pool == "max":
            value = kept[f"max.{field.region}"]
        else:
            first, last = self.regions[field.region].span
            start = next(a for a, b in self._runs(field.site) if a <= first and last <= b)
            value = kept[f"tokens.{start}"][..., first - start : last - start, :]
        return value[..., 0] if field.site in SCALE_SITES else value

    def _rows(self, site: str) -> tuple[tuple[str, str], ...]:
        """Region and pool of every row of a site's pooling matrix."""
        return tuple(
            (field.region, field.pool)
            for field in self.captured
            if field.site == site and field.pool in LINEAR_POOLS
        )

    def _weights(self, region: str, pool: str) -> Float32[Array, "b t"]:
        """One row: what each token counts for; all zero if no token is valid."""
        (start, stop), mask = self.regions[region].span, self.regions[region].mask
        if pool == "mean":
            weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        else:
            place = jnp.arange(mask.shape[1])
            last = jnp.where(mask, place, -1).max(axis=1, keepdims=True)
            weights = place == last
        return jnp.pad(weights.astype(jnp.float32), ((0, 0), (start, self.tokens - stop)))

    def _runs(self, site: str) -> tuple[Span, ...]:
        """Token ranges to keep of a site: adjacent regions are kept in one piece."""
        spans = {
            self.regions[field.region].span
            for field in self.captured
            if field.site == site and field.pool == "tokens"
        }
        runs: list[Span] = []
        for start, stop in sorted(spans):
            if runs and start <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(stop, runs[-1][1]))
            else:
                runs.append((start, stop))
        return tuple(runs)


def _masked_max(value: Float[Array, "b t w"], region: Region) -> Float32[Array, "b w"]:
    """Maximum over valid tokens; zeros if there is none."""
    start, stop = region.span
    inside = value[:, start:stop].astype(jnp.float32)
    highest = jnp.where(region.mask[..., None], inside, -jnp.inf).max(axis=1)
    return jnp.where(region.mask.any(axis=1)[:, None], highest, 0.0)


def make_recorder(
    plan: CapturePlan | None, expert: str, regions: Mapping[str, Region], tokens: Mapping[str, int]
) -> Recorder | None:
    """A recorder of one expert's blocks; None if the plan asks nothing of it.

    Args:
        plan: What is captured.
        expert: Whose blocks.
        regions: All regions.
        tokens: Tokens of both experts.
    """
    captured = () if plan is None else plan.of(expert)
    if not captured:
        return None
    looks = [field for field in captured if field.site == ATTENTION]
    pooling = None
    if looks:
        pooling = AttentionPooling(
            regions,
            [pair_of(field.region) for field in looks if field.pool == "mean"],
            whole=[pair_of(field.region) for field in looks if field.pool == "tokens"],
            expert=expert,
            tokens=tokens[expert],
            prefix=0 if expert == "vlm" else tokens["vlm"],
        )
    return Recorder(captured, regions, tokens[expert], pooling)


def latents_of(
    plan: CapturePlan,
    regions: Mapping[str, Region],
    vlm: tuple[Recorder | None, Any],
    action: tuple[Recorder | None, Any],
    sampler: Mapping[str, Any],
) -> dict[str, Array]:
    """All fields of a plan, batch first, then in the order of a field's axes.

    Args:
        plan: What was captured.
        regions: All regions.
        vlm: Expert 0's recorder and what it kept: [layers, b, ...].
        action: The action expert's: [steps, layers, b, ...].
        sampler: `x_t` and `velocity` of the kept steps: [steps, b, ...].
    """
    latents: dict[str, Array] = {}
    for field in plan.captured:
        if field.site in SAMPLER_SITES:
            value = jnp.moveaxis(sampler[field.site], 1, 0)
        else:
            recorder, recorded = vlm if field.expert == "vlm" else action
            assert recorder is not None
            value = recorder.field(field, recorded)
            scans = (0,) if field.expert == "vlm" else (1, 0)
            rest = range(len(scans) + 1, value.ndim)
            value = value.transpose(len(scans), *scans, *rest)
        latents[field.name] = value.astype(plan.dtype(field))
    latents |= {f"mask.{region}": regions[region].mask for region in plan.masks}
    return latents | {f"valid.{r}": regions[r].mask.any(axis=1) for r in plan.valids}
