"""What the backbone keeps while it trains: its layers on fixed held-out samples, for a judge.

A `Watcher` reads, from the live parameters, what each block leaves of images and prompt, averaged
over the valid tokens of each. What that is worth is said by a judge: probes, CKA to the starting
weights, retrieval. Judges live outside this package, which knows no torch; the command line
brings the two together.

Letters: l layers; n samples; b batch; t tokens; w width.
"""

import functools
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int64

from jax_bridge.ki.train_step import Prepare
from jax_bridge.ki.training.stream import HeldOut
from jax_bridge.pi0 import embedding, sampler
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.observation import Observation

LayerMeans = Mapping[str, Float32[np.ndarray, "l n w"]]
"""By what was averaged over: `image` or `prompt`."""


@runtime_checkable
class RetentionJudge(Protocol):
    """Says what the layers are worth."""

    def __call__(self, means: LayerMeans, keys: tuple[str, ...]) -> Mapping[str, float]:
        """Scores by name, `instruction/layer03`.

        Args:
            means: of the samples, the same ones and in the same order each time.
            keys: of the samples.
        """
        ...


class RetentionWatcher:
    """Asks a judge before the first step and every so many steps.

    Args:
        held_out: the samples; their targets are not read, and where no robot acts (a question
            about pictures) nothing is looked at.
        prepare: turns pictures into numbers.
        config: the model's sizes.
        judge: what the scores are.
        every: steps between two looks.

    Raises:
        ValueError: if `every` is not positive, or there are no samples.
    """

    def __init__(
        self,
        held_out: HeldOut,
        prepare: Prepare,
        config: Pi0Config,
        judge: RetentionJudge,
        *,
        every: int,
    ) -> None:
        if every < 1:
            raise ValueError(f"`every` must be at least 1, but got {every}.")
        self.every = every
        self._batches: list[tuple[Observation, Int64[np.ndarray, " n"]]] = []
        self._keys: tuple[str, ...] = ()
        for one in held_out:
            rows = np.flatnonzero(np.asarray(one.batch.action_mask))
            self._batches.append((prepare(None, one.batch).observation.without_targets(), rows))
            self._keys += tuple(one.keys[row] for row in rows)
        if not self._keys:
            raise ValueError(
                "`held_out` must hold samples to judge by, but got none in which a robot acts. "
                "Raise --data.held_out."
            )
        self._judge = judge
        self._means = jax.jit(functools.partial(layer_means, config=config))

    def watch(self, step: int, params: Mapping[str, Any]) -> Mapping[str, float]:
        """The judge's scores, under `retention/`."""
        found: list[dict[str, np.ndarray]] = []
        for given, rows in self._batches:
            means = jax.device_get(self._means(params, given))
            found.append({name: mean[:, rows] for name, mean in means.items()})
        whole = {name: np.concatenate([one[name] for one in found], axis=1) for name in found[0]}
        scores = self._judge(whole, self._keys)
        return {f"retention/{name}": value for name, value in scores.items()}


def layer_means(
    params: Mapping[str, Any], observation: Observation, config: Pi0Config
) -> dict[str, Float32[Array, "l b w"]]:
    """The mean of what every block leaves of the images and of the prompt.

    Args:
        params: the model's parameters.
        observation: images and prompt.
        config: the model's sizes.
    """
    prefix = embedding.embed_prefix(params, observation, config)
    tokens = jnp.arange(prefix.mask.shape[1])
    images = len(observation.images) * config.vision.tokens
    parts = {"image": prefix.mask & (tokens < images), "prompt": prefix.mask & (tokens >= images)}

    def record(taps: Mapping[str, Any]) -> dict[str, Float32[Array, "b w"]]:
        hidden = taps["hidden_states"].astype(jnp.float32)
        return {name: _mean(hidden, mask) for name, mask in parts.items()}

    return sampler.run_prefix(params, prefix, config, record=record).recorded


def _mean(hidden: Float[Array, "b t w"], mask: Bool[Array, "b t"]) -> Float32[Array, "b w"]:
    total = jnp.where(mask[:, :, None], hidden, 0.0).sum(axis=1)
    return total / jnp.maximum(mask.sum(axis=1), 1)[:, None]
