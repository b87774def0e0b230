"""π0 and π0.5 as policies: a released checkpoint, or random weights of a named size.

Letters: b batch; h action horizon; d dimensions of the model's actions; a of a robot's.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.interventions import InterventionFile, load_interventions
from jax_bridge.pi0 import (
    CaptureSpec,
    Observation,
    Pi0,
    Pi0Config,
    load_params,
    params_digest,
)
from jax_bridge.pi0.changing import plan_changes
from jax_bridge.pi0.parameters import leaves, unflatten
from jax_bridge.policies.batches import batches_in_one_program, by_row
from jax_bridge.policies.checkpoint_folder import checkpoint_folder, find_norm_stats, find_preset
from jax_bridge.policies.conventions import Convention, Recipe, get_convention
from jax_bridge.policies.noise import call_noise
from jax_bridge.policies.normalisation import NormStats, load_norm_stats
from jax_bridge.policies.policy import PolicyCall, PolicyOutput
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.shared_weights import share_leaves
from jax_bridge.policies.tokenizers import make_tokenizer
from jax_bridge.policies.trained_model import TrainedModel, read_trained_model
from jax_bridge.shards.field import FieldSpec

RELEASED_PRESETS: tuple[str, ...] = ("pi0", "pi05")
"""Sizes of released checkpoints, whose horizon the convention knows."""
PALIGEMMA_ROWS = 257152
"""Rows of an embedding table that PaliGemma's tokens fit."""


class Pi0Policy:
    """π0 or π0.5, from a checkpoint or with random weights.

    Args:
        preset: architecture by name (pi0, pi05, pi05_tiny, ...); with a checkpoint it may be left
            out where the parameters tell it.
        checkpoint: openpi's folder with params/ and assets/, or its address (gs://, hf://, s3://),
            which is fetched into the cache once; without it the weights are random.
        tokenizer: `bytes` (built in), `paligemma`, or path or address of a sentencepiece model.
            By default bytes for random weights and for small embedding tables, else paligemma.
        norm_stats: path or address of a norm_stats.json, or `none`. By default the checkpoint's;
            random weights have none.
        convention: layout of the robot's observations and actions, by name or dotted path. By
            default the one that `ki fit` noted in the checkpoint, else libero.
        dtype: type of weights and activations, float32 or bfloat16.
        num_steps: flow steps of the sampler.
        seed: of random weights and of the noise that the sampler starts from.
        untrained: random weights in place of the checkpoint's, whose sizes, tokenizer and
            statistics stay: what a probe of the checkpoint is compared with.
        robot_action_dim: dimensions of the robot's action. By default the convention's.
        action_horizon: actions in a chunk. By default what the weights were trained for.
        state_in_prompt: whether π0.5 reads the state as digits in its prompt. By default as the
            checkpoint was trained; with random weights it does.
        intervene: a file of interventions (docs/interventions.md): activations that are changed
            at every call.
        attention: auto (by the backend's fused kernel, where it has one for this model), plain, or
            fused. Plain is always used where attention is captured.
        devices: how many devices of this host share the weights, for models that one cannot hold.

    Raises:
        ValueError: if neither preset nor checkpoint is given, or a word is unknown.
    """

    def __init__(
        self,
        *,
        preset: str | None = None,
        checkpoint: str | None = None,
        tokenizer: str | None = None,
        norm_stats: str | None = None,
        convention: str | None = None,
        dtype: str = "float32",
        num_steps: int = 10,
        seed: int = 0,
        untrained: bool = False,
        robot_action_dim: int | None = None,
        action_horizon: int | None = None,
        state_in_prompt: bool | None = None,
        intervene: str | None = None,
        attention: Literal["auto", "plain", "fused"] = "auto",
        devices: int = 1,
    ) -> None:
        if preset is None and checkpoint is None:
            raise ValueError(
                "`preset` or `checkpoint` must be given, but got neither. Give --policy.preset "
                "pi05_tiny for random weights, or --policy.checkpoint FOLDER."
            )
        if untrained and checkpoint is None:
            raise ValueError(
                "`untrained` must be left out without a checkpoint, whose weights it replaces, but "
                "got True. Weights of a preset are random anyway."
            )
        if num_steps < 1:
            raise ValueError(f"`num_steps` must be at least 1, but got {num_steps}.")
        if seed < 0:
            raise ValueError(f"`seed` must be at least 0, but got {seed}.")
        if devices < 1:
            raise ValueError(f"`devices` must be at least 1, but got {devices}.")
        self._preset = preset
        self._checkpoint = checkpoint
        self._random = untrained or checkpoint is None
        self._tokenizer = tokenizer
        self._norm_stats = norm_stats
        self._convention_name, self._robot_action_dim = convention, robot_action_dim
        self._dtype = dtype
        self._num_steps = num_steps
        self._seed = seed
        self._action_horizon = action_horizon
        self._state_in_prompt = state_in_prompt
        self._intervene = intervene
        # No fused kernel was tried on weights that are cut.
        self._attention = "plain" if devices > 1 and attention == "auto" else attention
        self._devices = devices
        if preset is not None:
            Pi0Config.preset(preset, dtype=dtype)  # an unknown word is an error now, not later
        if convention is not None or checkpoint is None:
            assert self._convention

    @property
    def convention(self) -> Convention:
        """The layout of the robot's observations and actions."""
        return self._convention

    @property
    def action_horizon(self) -> int:
        """How many actions one call gives."""
        return self.config.action_horizon

    @functools.cached_property
    def config(self) -> Pi0Config:
        """Every size of the model; reads at most the checkpoint's table of contents."""
        changes: dict[str, Any] = {"dtype": self._dtype}
        horizon = self._action_horizon
        if self._trained is not None and self._preset is None:
            changes["action_horizon"] = horizon or self._trained.config.action_horizon
            return dataclasses.replace(self._trained.config, **changes)
        if horizon is None and self._checkpoint and self.preset in RELEASED_PRESETS:
            horizon = self._recipe_for(Pi0Config.preset(self.preset)).action_horizon
        if horizon is not None:
            changes["action_horizon"] = horizon
        return Pi0Config.preset(self.preset, **changes)

    @functools.cached_property
    def preset(self) -> str:
        """Name of the architecture."""
        if self._preset is None and self._trained is not None:
            return self._trained.preset
        return self._preset or find_preset(self.folder)

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """The weights, loaded or drawn when they are first needed."""
        place = None if self._devices == 1 else share_leaves(self._devices)
        if not self._random:
            return load_params(
                self.folder / "params", dtype=self._dtype, config=self.config, sharding=place
            )
        drawn = Pi0(self.config).init(self._seed)
        if place is None:
            return drawn
        return unflatten(
            {path: jax.device_put(leaf, place(path, leaf.shape)) for path, leaf in leaves(drawn)}
        )

    @functools.cached_property
    def processor(self) -> Processor:
        """What stands between the robot's units and the model's."""
        name = self._tokenizer or (self._trained and self._trained.tokenizer)
        if name is None:
            small = self._checkpoint is None or self.config.vocab_size < PALIGEMMA_ROWS
            name = "bytes" if small else "paligemma"
        return Processor(
            config=self.config,
            convention=self._convention,
            recipe=self._recipe_for(self.config),
            tokenizer=make_tokenizer(name),
            norm_stats=self._load_norm_stats(),
            prompt_layout=self._trained.prompt_layout if self._trained else "ki",
            cameras=self._trained.cameras if self._trained else None,
        )

    @functools.cached_property
    def interventions(self) -> InterventionFile | None:
        """What is changed at every call, read when it is first needed.

        Raises:
            FileNotFoundError: if the file is not there.
            ValueError: if it is another file, or names what the model has not.
        """
        if self._intervene is None:
            return None
        file = load_interventions(pathlib.Path(self._intervene))
        plan_changes(file.interventions, self.config, self._num_steps)
        return file

    def describe(self) -> dict[str, Any]:
        """Weights (address and digest), sizes and pre-processing."""
        processor = self.processor
        statistics = processor.norm_stats
        entry = {
            "policy": "pi0",
            "preset": self.preset,
            "weights": "random" if self._random else "checkpoint",
            "params_digest": self._params_digest,
            "config": self.config.to_json(),
            "dtype": self._dtype,
            "num_steps": self._num_steps,
            "seed": self._seed,
            "tokenizer": processor.tokenizer.describe(),
            "norm_stats": None if statistics is None else statistics.digest,
            "convention": self._convention.name,
            "cameras": processor.seen_cameras,
            "state_dim": self._convention.state_dim,
            "action_dim": self._convention.action_dim,
            "recipe": dataclasses.asdict(processor.recipe),
        }
        if self._checkpoint is not None:
            entry["checkpoint"] = self._checkpoint
        if self.interventions is not None:
            entry["interventions"] = self.interventions.digest
        return json.loads(json.dumps(entry))

    def fields(self, capture: CaptureSpec) -> dict[str, FieldSpec]:
        """Every latent that `infer` gives with this capture, by name; loads no weights.

        Raises:
            ValueError: if the capture names what the model has not.
        """
        return capture.fields(self.config, num_steps=self._num_steps)

    def seen_images(self, observation: RobotObservation) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The camera images as the policy sees them, resized with padding, by camera name."""
        return self.processor.seen_images(observation)

    def infer(
        self,
        observation: RobotObservation,
        *,
        capture: CaptureSpec | None = None,
        noise_key: Sequence[int | str] = (),
    ) -> PolicyOutput:
        """The next actions in robot units, and the latents that `capture` names.

        Raises:
            ValueError: if the observation is not what the convention says.
        """
        call = PolicyCall(observation=observation, noise_key=noise_key)
        output = self.infer_batch([call], capture=capture)[0]
        assert output is not None
        return output

    def infer_batch(
        self, calls: Sequence[PolicyCall | None], *, capture: CaptureSpec | None = None
    ) -> list[PolicyOutput | None]:
        """The outputs of several calls at once, row by row; an empty row stays empty.

        Raises:
            ValueError: if an observation is not what the convention says.
        """
        if len(calls) > 1 and not batches_in_one_program():
            return by_row(lambda call: self.infer_batch([call], capture=capture)[0], calls)
        actions, latents = self._sample(*self._model_inputs(calls), capture)
        return [
            None
            if call is None
            else PolicyOutput(
                actions=self.processor.robot_actions(actions[row], call.observation),
                latents={name: np.asarray(value[row]) for name, value in latents.items()},
            )
            for row, call in enumerate(calls)
        ]

    def _model_inputs(
        self, calls: Sequence[PolicyCall | None]
    ) -> tuple[Observation, Float32[np.ndarray, "b h d"]]:
        """Inputs and noise of a batch; empty rows repeat another row's inputs, from zeros."""
        given = {
            row: self.processor.model_inputs(call.observation)
            for row, call in enumerate(calls)
            if call is not None
        }
        rows = [given.get(row, next(iter(given.values()))) for row in range(len(calls))]
        inputs = rows[0] if len(rows) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *rows)
        size = {"horizon": self.config.action_horizon, "dims": self.config.action_dim}
        noise = np.zeros((len(calls), *size.values()), np.float32)
        for row, call in enumerate(calls):
            if call is not None:
                noise[row] = call_noise(self._seed, call.noise_key, **size)
        return inputs, noise

    def _sample(
        self, inputs: Observation, noise: Float32[np.ndarray, "b h d"], capture: CaptureSpec | None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Actions and latents of a batch, on the host."""
        changed = () if self.interventions is None else self.interventions.interventions
        given: Any = {
            "noise": noise, "num_steps": self._num_steps, "interventions": changed,
        }  # fmt: skip
        model = Pi0(self.config, attention=self._attention)
        if capture is None:
            return jax.device_get(model.sample_actions(self.params, inputs, **given)), {}
        return jax.device_get(model.sample_actions(self.params, inputs, capture=capture, **given))

    @functools.cached_property
    def folder(self) -> pathlib.Path:
        """Of the checkpoint, fetched where it is an address."""
        assert self._checkpoint is not None
        return checkpoint_folder(self._checkpoint)

    @functools.cached_property
    def _trained(self) -> TrainedModel | None:
        """What `ki fit` noted in the checkpoint; None for one of openpi."""
        return None if self._checkpoint is None else read_trained_model(self.folder)

    @functools.cached_property
    def _convention(self) -> Convention:
        noted = None
        if self._convention_name is None and self._trained is not None:
            noted = self._trained.convention
        found = get_convention(self._convention_name or noted or "libero")
        return _with_action_dim(found, self._robot_action_dim)

    @functools.cached_property
    def _params_digest(self) -> str:
        return params_digest(self.params)

    def _recipe_for(self, config: Pi0Config) -> Recipe:
        """How values are prepared for these weights."""
        recipe = self._convention.recipe(pi05=config.pi05, trained=self._checkpoint is not None)
        if self._trained is not None and self._trained.recipe is not None:
            recipe = self._trained.recipe
        if self._state_in_prompt is None:
            return recipe
        if self._state_in_prompt and not config.pi05:
            raise ValueError(
                f"`state_in_prompt` must be false for π0, but got True with {self.preset}. π0 "
                "reads the state as a token of its own."
            )
        return dataclasses.replace(recipe, state_in_prompt=self._state_in_prompt)

    def _load_norm_stats(self) -> NormStats | None:
        if self._norm_stats == "none" or (self._norm_stats is None and self._checkpoint is None):
            return None
        address = self._norm_stats or find_norm_stats(self.folder, self._convention.asset_id)
        return load_norm_stats(address)


def _with_action_dim(convention: Convention, action_dim: int | None) -> Convention:
    """The convention, for a robot with another number of action dimensions."""
    if action_dim is None:
        return convention
    if convention.units is not None and action_dim != convention.action_dim:
        raise ValueError(
            f"`robot_action_dim` must be {convention.action_dim}, which the units of "
            f"{convention.name} are made for, but got {action_dim}."
        )
    return dataclasses.replace(convention, action_dim=action_dim)
