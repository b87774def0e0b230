"""How far both heads are from chunks that are not trained on, in robot units, while they train.

Letters: b batch; h action horizon; d dimensions of the model's actions; r of the robot; f FAST
tokens.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Int64

from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.ki.decoding import decode_fast
from jax_bridge.ki.objective import Objective
from jax_bridge.ki.spoken_actions import SpokenChunks, chunks_of
from jax_bridge.ki.train_step import Prepare
from jax_bridge.ki.training.prefetch import place_batch
from jax_bridge.ki.training.stream import HeldOut
from jax_bridge.pi0 import Observation, sampler
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.policies.normalisation import unnormalise
from jax_bridge.policies.processor import Processor
from jax_bridge.vocabulary import CAMERAS

MOST_BATCHES = 2
"""Of held-out samples; saying tokens one by one takes a while."""
FLOW_STEPS = 10
NOISE_KEY = 0x68656164


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Spoken:
    """How what the backbone says becomes a chunk."""

    ids: FastIds
    tokenizer: FastTokenizer


class _Asked(NamedTuple):
    """What the heads gave for a batch, and what they should have given; normalised."""

    flow: Float32[Array, "b h d"] | None
    tokens: Int[Array, "b f"] | None
    said: Bool[Array, "b f"] | None
    wanted: Float32[Array, "b h d"]
    real: Bool[Array, "b h"]
    """Steps that were recorded."""


class HeadWatcher:
    """Samples the flow and decodes FAST tokens for some held-out samples, the same at every look.

    Args:
        held_out: the samples; the first batches of them are taken.
        prepare: turns pictures into numbers.
        processor: knows the robot's units.
        objective: says which heads are trained.
        spoken: how tokens become chunks; None where no FAST tokens are learnt.
        every: steps between two looks.
        mesh: the devices.

    Raises:
        ValueError: if `every` is not positive, there are no samples, or no head can be asked.
    """

    def __init__(
        self,
        held_out: HeldOut,
        prepare: Prepare,
        processor: Processor,
        objective: Objective,
        spoken: Spoken | None,
        *,
        every: int,
        mesh: Mesh,
    ) -> None:
        if every < 1:
            raise ValueError(f"`every` must be at least 1, but got {every}.")
        self.every = every
        self._batches = [
            place_batch(one.batch, mesh) for one in itertools.islice(held_out, MOST_BATCHES)
        ]
        if not self._batches:
            raise ValueError(
                "`held_out` must hold samples to compare with, but got none. Raise --data.held_out."
            )
        self._processor = processor
        self._spoken = spoken if objective.has_tokens else None
        if not objective.has_flow and self._spoken is None:
            raise ValueError(f"`spoken` must be given in mode {objective.mode}, but got None.")
        asking = functools.partial(
            _ask, prepare=prepare, config=processor.config, flow=objective.has_flow,
            ids=None if self._spoken is None else self._spoken.ids,
        )  # fmt: skip
        self._ask = jax.jit(asking, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def watch(self, step: int, params: Mapping[str, Any]) -> Mapping[str, float]:
        """Mean squared errors in robot units, over real steps and all dimensions of the robot.

        Returns:
            `heads/flow_mse` and `heads/fast_mse`, the same of each chunk's first action alone
            (`..._first_mse`), and `heads/fast_undecodable`, the share of samples whose tokens were
            no chunk: the middle of the range stands for those.
        """
        sums: dict[str, Float64[np.ndarray, " h"]] = {}
        counts: Int64[np.ndarray, " h"] = np.zeros(self._processor.config.action_horizon, np.int64)
        undecodable: list[np.ndarray] = []
        for number, batch in enumerate(self._batches):
            asked = jax.device_get(self._ask(params, batch, self.key(number)))
            wanted, real = self._robot(asked.wanted), np.asarray(asked.real)
            counts += real.sum(axis=0)
            for head, found in self._chunks(asked):
                if isinstance(found, SpokenChunks):
                    undecodable.append(found.failed[real.any(axis=1)])
                    found = found.actions
                squares = np.square(self._robot(found) - wanted).mean(axis=2)
                sums[head] = (squares * real).sum(axis=0) + sums.get(head, 0.0)
        line: dict[str, float] = {}
        if not counts.any():  # questions about pictures alone
            return line
        for head, total in sums.items():
            line[f"heads/{head}_mse"] = float(total.sum() / counts.sum())
            line[f"heads/{head}_first_mse"] = float(total[0] / max(counts[0], 1))
        if undecodable:
            line["heads/fast_undecodable"] = float(np.concatenate(undecodable).mean())
        return line

    def key(self, number: int) -> Array:
        """Draws the noise from which the flow of a batch starts, the same at every look."""
        return jax.random.fold_in(jax.random.key(NOISE_KEY), number)

    def _robot(self, chunks: Float[np.ndarray, "b h d"]) -> Float64[np.ndarray, "b h r"]:
        """In robot units. Relative actions stay relative: the same state is taken from both."""
        statistics = self._processor.norm_stats and self._processor.norm_stats.actions
        kind, size = self._processor.recipe.normalisation, self._processor.convention.action_dim
        return unnormalise(chunks.astype(np.float64), statistics, kind)[..., :size]

    def _chunks(
        self, asked: _Asked
    ) -> Iterator[tuple[str, Float[np.ndarray, "b h d"] | SpokenChunks]]:
        if asked.flow is not None:
            yield "flow", np.asarray(asked.flow)
        if self._spoken is not None:
            yield "fast", chunks_of(
                np.asarray(asked.tokens), np.asarray(asked.said), self._spoken.ids,
                self._spoken.tokenizer, steps=asked.wanted.shape[1],
                dims=self._processor.convention.action_dim,
            )  # fmt: skip


def _ask(
    params: Mapping[str, Any], batch: TrainingBatch, key: Any, *, prepare: Prepare,
    config: Pi0Config, flow: bool, ids: FastIds | None,
) -> _Asked:  # fmt: skip
    ready = prepare(None, batch)
    given = _with_every_camera(ready.observation.without_targets())
    wanted = jnp.asarray(ready.actions, jnp.float32)
    sampled, said = None, None
    with jax.default_matmul_precision("highest"):  # as policies are asked
        if flow:
            noise = jax.random.normal(key, wanted.shape)
            sampled, _ = sampler.sample_actions(params, given, noise, config, FLOW_STEPS, None)
        if ids is not None:
            said = decode_fast(params, given, config, length=ids.size, end=ids.stops)
    return _Asked(
        flow=sampled,
        tokens=None if said is None else said.tokens,
        said=None if said is None else said.mask,
        wanted=wanted,
        real=jnp.asarray(ready.action_mask)[:, None] & ~jnp.asarray(ready.action_is_pad),
    )


def _with_every_camera(observation: Observation) -> Observation:
    """Cameras that no sample has are there, and masked."""
    some = jnp.asarray(next(iter(observation.images.values())))
    keys = [camera.openpi_key for camera in CAMERAS]
    none = jnp.zeros(some.shape[0], bool)
    return dataclasses.replace(
        observation,
        images={key: observation.images.get(key, jnp.zeros_like(some)) for key in keys},
        image_masks={key: observation.image_masks.get(key, none) for key in keys},
    )
