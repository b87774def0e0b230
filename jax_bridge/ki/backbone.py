"""Pass 1: the backbone over images, prompt and targets; its context is what the expert reads.

Letters: b batch; p image and prompt tokens; q all tokens; n learnt tokens; w width; v vocabulary.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.ki import sequence
from jax_bridge.ki.sequence import Targets
from jax_bridge.pi0 import embedding, gemma
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.embedding import Prefix
from jax_bridge.pi0.gemma import Cache
from jax_bridge.pi0.observation import Observation
from jax_bridge.pi0.sampler import PrefixPass


class BackbonePass(NamedTuple):
    """What the backbone leaves."""

    context: PrefixPass
    """Keys and values of images, prompt and text, for the action expert."""
    predicting: Float[Array, "b n w"]
    """Outputs, after the final norm, that predict the learnt tokens."""


def run_backbone(
    params: Mapping, observation: Observation, config: Pi0Config, *, remat: bool = False
) -> BackbonePass:
    """Runs the backbone once over everything that it reads and learns."""
    prefix, targets = (
        embedding.embed_prefix(params, observation, config),
        sequence.targets_of(observation),
    )
    done = gemma.run_layers(
        gemma.stack_layers(params["PaliGemma"]["llm"], "", config.jax_dtype),
        _tokens(params, prefix, targets, config),
        sequence.backbone_attention(prefix.mask, targets),
        gemma.rope(sequence.backbone_positions(prefix.mask, targets), config.vlm.head_dim),
        config.vlm,
        remat=remat,
    )
    mask = sequence.context_mask(prefix.mask, targets)
    size = mask.shape[1]
    cache = Cache(done.cache.keys[:, :, :size], done.cache.values[:, :, :size])
    places = sequence.predictors(prefix.mask, targets)
    gathered = jnp.take_along_axis(done.hidden, places[:, :, None], axis=1)
    scale = params["PaliGemma"]["llm"]["final_norm"]["scale"]
    return BackbonePass(
        context=PrefixPass(done.hidden[:, :size], cache, mask, None),
        predicting=gemma.rms_norm(gathered, scale=scale).value,
    )


def _tokens(
    params: Mapping, prefix: Prefix, targets: Targets, config: Pi0Config
) -> Float[Array, "b q w"]:
    learnt = embedding.embed_tokens(params, targets.tokens, config)
    return jnp.concatenate([prefix.tokens, learnt], axis=1)


def insulated(context: PrefixPass) -> PrefixPass:
    """The same context, through which no gradient goes."""
    return context._replace(cache=jax.lax.stop_gradient(context.cache))


class TokenScores(NamedTuple):
    """How well each learnt token is predicted."""

    cross_entropy: Float32[Array, "b n"]
    """In nats."""
    best: Int[Array, "b n"]
    """The most probable id."""


def score_tokens(
    params: Mapping,
    predicting: Float[Array, "b n w"],
    tokens: Int[Array, "b n"],
    *,
    chunk: int | None = None,
) -> TokenScores:
    """Cross-entropy against the embedding table, in float32.

    Args:
        params: the model's parameters.
        predicting: outputs after the final norm.
        tokens: what they should predict.
        chunk: samples whose logits exist at the same time; None for all. With it the logits are
            computed again for the gradient, and never held together.
    """
    table = params["PaliGemma"]["llm"]["embedder"]["input_embedding"].astype(predicting.dtype)

    def scores(one: tuple[Array, Array]) -> TokenScores:
        outputs, wanted = one
        logits = jnp.einsum("nw,vw->nv", outputs, table, preferred_element_type=jnp.float32)
        own = jnp.take_along_axis(logits, wanted[:, None], axis=1)[:, 0]
        return TokenScores(jax.nn.logsumexp(logits, axis=1) - own, jnp.argmax(logits, axis=1))

    if chunk is None:
        return jax.vmap(scores)((predicting, tokens))
    return jax.lax.map(jax.checkpoint(scores), (predicting, tokens), batch_size=chunk)


def mean_by_sample(values: Float32[Array, "b n"], mask: Bool[Array, "b n"]) -> Float32[Array, " b"]:
    """Each sample's mean over its valid tokens; 0 where it has none."""
    return jnp.where(mask, values, 0.0).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)


def mean_over(values: Float32[Array, " b"], mask: Bool[Array, " b"]) -> Float32[Array, ""]:
    """The mean over some samples; 0, not NaN, where there is none."""
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
