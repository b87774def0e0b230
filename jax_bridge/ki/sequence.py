"""The backbone's sequence in training: images and prompt, learnt text, FAST codes.

| query | sees |
|---|---|
| image, prompt | images and prompt |
| text i | these, and text up to i |
| FAST i | these, all of the text, and FAST up to i |

Letters: b batch; p image and prompt tokens; u text tokens; f FAST tokens; c context tokens (p + u);
q all tokens (c + f); n learnt tokens (u + f).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jax_bridge.pi0.observation import ArrayLike, Observation

CONTEXT_GROUP, TEXT_GROUP, FAST_GROUP = 0, 1, 2


class Targets(NamedTuple):
    """What the backbone learns to say; of no length where there is nothing."""

    text: Int[Array, "b u"]
    text_mask: Bool[Array, "b u"]
    fast: Int[Array, "b f"]
    fast_mask: Bool[Array, "b f"]

    @property
    def tokens(self) -> Int[Array, "b n"]:
        """Text, then FAST."""
        return jnp.concatenate([self.text, self.fast], axis=1)

    @property
    def mask(self) -> Bool[Array, "b n"]:
        """Which of them are no padding."""
        return jnp.concatenate([self.text_mask, self.fast_mask], axis=1)


def targets_of(observation: Observation) -> Targets:
    """The observation's targets."""
    batch = observation.state.shape[0]

    def given(tokens: ArrayLike | None, mask: ArrayLike | None) -> tuple[Array, Array]:
        if tokens is None or mask is None:
            return jnp.zeros((batch, 0), jnp.int32), jnp.zeros((batch, 0), jnp.bool_)
        return jnp.asarray(tokens, jnp.int32), jnp.asarray(mask, jnp.bool_)

    return Targets(
        *given(observation.text_target_tokens, observation.text_target_mask),
        *given(observation.fast_action_tokens, observation.fast_action_mask),
    )


def visible_groups(context: int, text: int, fast: int) -> Bool[np.ndarray, "q q"]:
    """Which places see which, before padding: the table above."""
    sizes = {CONTEXT_GROUP: context, TEXT_GROUP: text, FAST_GROUP: fast}
    group = np.repeat(list(sizes), list(sizes.values()))
    place = np.arange(len(group))
    same = group[None, :] == group[:, None]
    earlier = (place[None, :] <= place[:, None]) | (group[None, :] == CONTEXT_GROUP)
    return (group[None, :] < group[:, None]) | (same & earlier)


def backbone_attention(prefix: Bool[Array, "b p"], targets: Targets) -> Bool[Array, "b q q"]:
    """Which token sees which; padding and masked cameras neither see nor are seen."""
    sizes = (prefix.shape[1], targets.text.shape[1], targets.fast.shape[1])
    valid = jnp.concatenate([prefix, targets.mask], axis=1)
    return jnp.asarray(visible_groups(*sizes)) & valid[:, None, :] & valid[:, :, None]


def context_mask(prefix: Bool[Array, "b p"], targets: Targets) -> Bool[Array, "b c"]:
    """The tokens that the action expert may read: all but FAST."""
    return jnp.concatenate([prefix, targets.text_mask], axis=1)


def backbone_positions(prefix: Bool[Array, "b p"], targets: Targets) -> Int[Array, "b q"]:
    """Padding does not advance the position; FAST goes on behind the context."""
    context = context_mask(prefix, targets)
    behind = context.sum(axis=1, keepdims=True) + jnp.arange(targets.fast.shape[1])
    return jnp.concatenate([jnp.cumsum(context, axis=1) - 1, behind], axis=1)


def predictors(prefix: Bool[Array, "b p"], targets: Targets) -> Int[Array, "b n"]:
    """The place in the sequence whose output predicts each learnt token.

    A token is predicted by the one before it; the first of a run by the last valid token before
    the run, which is not the last place: prompts and texts are padded.
    """
    size, context = prefix.shape[1], context_mask(prefix, targets)
    runs = [
        (prefix, jnp.arange(targets.text.shape[1]) + size - 1),
        (context, jnp.arange(targets.fast.shape[1]) + context.shape[1] - 1),
    ]
    places = []
    for before, previous in runs:
        repeated = jnp.broadcast_to(previous, (prefix.shape[0], previous.shape[0]))
        places.append(repeated.at[:, :1].set(last_valid(before)[:, None]))
    return jnp.concatenate(places, axis=1)


def last_valid(mask: Bool[Array, "b t"]) -> Int[Array, " b"]:
    """The last true place of each row."""
    return mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
