"""The backbone as a policy of its own: it says its actions in FAST tokens, one after the other.

Letters: b batch; f tokens; h action horizon; d dimensions of the model's actions.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.fast.files import load_tokenizer
from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.interventions import InterventionFile, load_interventions
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.ki.decoding import Decoded, decode_fast
from jax_bridge.ki.spoken_actions import chunks_of
from jax_bridge.ki.spoken_capture import SpokenPlan, plan_spoken
from jax_bridge.pi0 import CaptureSpec, Observation, Pi0Config
from jax_bridge.pi0.changing import ChangePlan, Map, plan_changes
from jax_bridge.pi0.parameters import Params
from jax_bridge.policies.conventions import Convention
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.policies.policy import PolicyCall, PolicyOutput
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers import SAID_FIRST, check_layout
from jax_bridge.policies.trained_model import read_trained_model
from jax_bridge.shards.field import FieldSpec

FAST_FOLDER = "fast"
"""Of the tokenizer, in a checkpoint's `assets/ASSET_ID/`."""


@functools.partial(jax.jit, static_argnames=("config", "length", "end", "plan", "places"))
def _decode(
    params: Params, inputs: Observation, *, config: Pi0Config, length: int, end: tuple[int, ...],
    plan: SpokenPlan | None, places: ChangePlan | None, maps: tuple[Map, ...],
) -> Decoded:  # fmt: skip
    """The compiled decoding. Float32 products are true float32 on every backend."""
    changes = None if places is None else (places, maps)
    with jax.default_matmul_precision("highest"):
        return decode_fast(
            params, inputs, config, length=length, end=end, plan=plan, changes=changes
        )


class FastPolicy:
    """A checkpoint of `ki fit` whose action expert is not asked.

    Args:
        checkpoint: folder of a checkpoint that `ki fit` wrote.
        dtype: type of weights and activations, float32 or bfloat16.
        prompt_layout: `ki` (codes follow the prompt of π0 or π0.5 at once) or `openpi_fast`
            (that of π0-FAST: lower-case words, and the model says `Action: ` before the codes).
            By default the one that the checkpoint was trained with.
        intervene: a file of interventions (docs/interventions.md): activations of the backbone
            that are changed at every call.

    Raises:
        ValueError: if the checkpoint was trained without FAST targets.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        dtype: str = "float32",
        prompt_layout: str | None = None,
        intervene: str | None = None,
    ) -> None:
        self._layout = None if prompt_layout is None else check_layout(prompt_layout)
        self._pi0 = Pi0Policy(checkpoint=checkpoint, dtype=dtype)
        self._checkpoint, self._intervene = checkpoint, intervene
        self.failures = 0
        """Calls whose tokens were no chunk; they gave the middle of the actions' range."""

    @property
    def action_horizon(self) -> int:
        """How many actions one call gives."""
        return self._pi0.action_horizon

    @property
    def convention(self) -> Convention:
        """The layout of the robot's observations and actions."""
        return self._pi0.convention

    @functools.cached_property
    def tokenizer(self) -> FastTokenizer:
        """Of the codes.

        Raises:
            ValueError: if the checkpoint holds none.
        """
        place = self._pi0.folder / "assets" / self._pi0.convention.asset_id / FAST_FOLDER
        if not place.is_dir():
            raise ValueError(
                f"`checkpoint` must have been trained with FAST targets, but {self._checkpoint!r} "
                f"has no {place.relative_to(self._pi0.folder)}. Its flow head acts with --policy "
                "pi0."
            )
        return load_tokenizer(str(place))

    @property
    def prompt_layout(self) -> str:
        """How the prompt is laid out, and what is said before the codes."""
        return self._layout or self._pi0.processor.prompt_layout

    @functools.cached_property
    def processor(self) -> Processor:
        """What stands between the robot's units and the model's."""
        return dataclasses.replace(self._pi0.processor, prompt_layout=self.prompt_layout)

    @functools.cached_property
    def ids(self) -> FastIds:
        """How codes became ids of the embedding table."""
        trained = read_trained_model(self._pi0.folder)
        if trained is None or trained.fast_skip is None or trained.fast_length is None:
            raise ValueError(
                f"`checkpoint` must be one that `vla-lens ki fit` wrote, but {self._checkpoint!r} "
                "does not say where FAST codes stand in its embedding table."
            )
        return FastIds.of(
            self._pi0.processor.tokenizer, self.tokenizer.settings.vocab_size,
            rows=self._pi0.config.vocab_size, skip=trained.fast_skip, size=trained.fast_length,
            start=SAID_FIRST[self.prompt_layout],
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Weights, sizes and pre-processing; the sampler's settings have no part in it."""
        entry = self._pi0.describe()
        del entry["num_steps"], entry["seed"]
        spoken = {
            "tokenizer": self.tokenizer.describe(), "ids": dataclasses.asdict(self.ids),
            "prompt_layout": self.prompt_layout,
        }  # fmt: skip
        if self.interventions is not None:
            entry["interventions"] = self.interventions.digest
        return json.loads(json.dumps({**entry, "policy": "fast", "fast": spoken}))

    @functools.cached_property
    def interventions(self) -> InterventionFile | None:
        """What is changed at every call, read when it is first needed.

        Raises:
            FileNotFoundError: if the file is not there.
            ValueError: if it is another file, or names what a backbone by itself has not.
        """
        return None if self._intervene is None else load_interventions(Path(self._intervene))

    @functools.cached_property
    def _changes(self) -> tuple[ChangePlan | None, tuple[Map, ...]]:
        """Places and numbers; none compiles the plain program."""
        found = self.interventions and self.interventions.interventions
        return plan_changes(found, self._pi0.config, 1, speaks=True) if found else (None, ())

    def fields(self, capture: CaptureSpec) -> dict[str, FieldSpec]:
        """Every latent that `infer` gives with this capture, by name; loads no weights.

        Raises:
            ValueError: if the capture names what a backbone by itself has not.
        """
        return self._plan(capture).fields()

    def _plan(self, capture: CaptureSpec) -> SpokenPlan:
        return plan_spoken(capture, self._pi0.config, self.ids.size)

    def seen_images(self, observation: RobotObservation) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The camera images as the policy sees them, resized with padding, by camera name."""
        return self._pi0.seen_images(observation)

    def infer(
        self,
        observation: RobotObservation,
        *,
        capture: CaptureSpec | None = None,
        noise_key: Sequence[int | str] = (),
    ) -> PolicyOutput:
        """The next actions in robot units; nothing is drawn, the most probable token is taken."""
        output = self.infer_batch([PolicyCall(observation, noise_key)], capture=capture)[0]
        assert output is not None
        return output

    def infer_batch(
        self, calls: Sequence[PolicyCall | None], *, capture: CaptureSpec | None = None
    ) -> list[PolicyOutput | None]:
        """The outputs of several calls at once, row by row; an empty row stays empty."""
        given = {
            row: self.processor.model_inputs(call.observation)
            for row, call in enumerate(calls)
            if call is not None
        }
        spare = next(iter(given.values()))
        rows = [given.get(row, spare) for row in range(len(calls))]
        said = self._decode(jax.tree.map(lambda *x: np.concatenate(x), *rows), capture)
        spoken = chunks_of(
            np.asarray(said.tokens), np.asarray(said.mask), self.ids, self.tokenizer,
            steps=self.action_horizon, dims=self._pi0.convention.action_dim,
        )  # fmt: skip
        latents = said.latents or {}
        self.failures += int(spoken.failed[list(given)].sum())
        return [
            None
            if call is None
            else PolicyOutput(
                actions=self.processor.robot_actions(spoken.actions[row], call.observation),
                latents={name: np.asarray(value[row]) for name, value in latents.items()},
            )
            for row, call in enumerate(calls)
        ]

    def _decode(self, inputs: Observation, capture: CaptureSpec | None) -> Decoded:
        """What the backbone says of a batch, and its latents, on the host."""
        places, maps = self._changes
        return jax.device_get(
            _decode(
                self._pi0.params, inputs, config=self._pi0.config, length=self.ids.size,
                end=self.ids.stops, plan=None if capture is None else self._plan(capture),
                places=places, maps=maps,
            )
        )  # fmt: skip
