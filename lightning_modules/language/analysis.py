"""Language over time: reads a data set layer by layer, and keeps tables only.

Letters: e episodes, s steps, c cells, d width, p features.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from datamodules.cell import Cell
from jax_bridge.shards import DamagedShardError, ShardDataset
from lightning_modules.language.episode_steps import EpisodeSteps, deal_folds, episode_steps
from lightning_modules.language.findings_family import FadingFamily, SuccessFamily
from lightning_modules.language.instruction_table import embed_instructions
from lightning_modules.language.jackknife import JackknifeSums
from lightning_modules.language.latent_source import LatentSource, chunks_of_cells, sources_of
from lightning_modules.language.layer_measures import (
    Instructions,
    LatentBlocks,
    LayerMeasures,
    blocks_of,
    measure_layer,
)
from lightning_modules.language.options import LanguageOptions
from lightning_modules.language.separation import (
    Angles,
    Disagreement,
    add_separation,
    cell_angles,
    probe_disagreement,
    separation_cka,
)
from lightning_modules.language.step_tables import (
    Place,
    Row,
    separability_rows,
    separation_rows,
    trajectory_rows,
)
from lightning_modules.language.success_predictors import predictor_rows

Progress = Callable[[int, int, str], None]
"""Told how many parts of how many are done, and what comes next."""
CONTROL = "state and time"
"""The control: readings from the robot's state and the clock alone."""
SHARE_OF_BLOCK = 8
"""What a block takes while it is worked on, in units of its own size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageResults:
    """Everything that a report shows."""

    tables: dict[str, list[Row]]
    facts: dict[str, Any]
    notes: list[str]
    """What was left out, and why."""


class LanguageAnalysis:
    """One pass through the experts, their layers and flow times."""

    def __init__(self, dataset: ShardDataset, options: LanguageOptions) -> None:
        """Reads the index and chooses samples.

        Raises:
            ValueError: if the data set cannot answer.
        """
        self.dataset, self.options = dataset, options
        self.steps: EpisodeSteps = episode_steps(dataset, options.rows, options.most_steps)
        self.sources, self.notes = sources_of(dataset, options)
        fold = deal_folds(
            self.steps.task, options.folds, whole=options.fold_by == "task", seed=options.seed
        )
        self.instructions = Instructions(
            table=embed_instructions(self.steps.texts, options.encoder),
            text=self.steps.text,
            fold=fold,
        )
        self.fading = FadingFamily(self.steps, options)
        self.success = SuccessFamily(self.steps, options)
        self.tables: dict[str, list[Row]] = {"trajectories": [], "separability": []}
        self._nearest: dict[Cell, np.ndarray] = {}
        self._language: list[np.ndarray] = []

    def run(self, on_progress: Progress = lambda done, total, what: None) -> LanguageResults:
        """Reads and measures.

        Raises:
            ValueError: if a latent is NaN or infinite; names the sample.
        """
        chunks = [c for source in self.sources for c in self._chunks(source)]
        pairs = self._separated()
        total = len(chunks) + len(pairs) + 1
        for done, source in enumerate(chunks):
            on_progress(done, total, f"{source.expert}, {_layer_word(source)}")
            self._measure(source)
        self._measure_control()
        self.tables["separation"] = []
        for done, (action, others) in enumerate(pairs):
            what = f"{action.expert} against the others, {_layer_word(action)}"
            on_progress(len(chunks) + done, total, what)
            self.tables["separation"] += self._separation(action, others)
        on_progress(total - 1, total, "success")
        self.tables["fading"] = self.fading.finish()
        self.tables["success"] = self.success.finish()
        self.tables["predictors"] = self._predictors()
        on_progress(total, total, "")
        return LanguageResults(tables=self.tables, facts=self._facts(), notes=self.notes)

    # ------------------------------------------------------------------ one expert at one layer

    def _chunks(self, source: LatentSource) -> Iterator[LatentSource]:
        width = source.field.width
        per_cell = (
            2 * self.instructions.folds * width**2 * 8 + 64 * self.steps.rows.shape[1] * width
        )
        yield from chunks_of_cells(source, per_cell, self.options.memory)

    def _blocks(self, width: int) -> list[Int64[np.ndarray, "_"]]:
        an_episode = SHARE_OF_BLOCK * self.steps.rows.shape[1] * width * 4
        memory = self.options.memory // 2
        return blocks_of(len(self.steps.rows), an_episode, memory, self.options.seed)

    def _measure(self, source: LatentSource) -> None:
        blocks = self._blocks(len(source.cells) * source.field.width)
        latents = LatentBlocks(self.dataset, source, self.steps, blocks)
        found = measure_layer(latents, self.steps, self.instructions, blocks)
        places = self._places(source)
        self._record(found, places)
        self.fading.add(found, places)
        self.success.add(found, places)
        self._nearest |= {cell: found.nearest[..., i] for i, cell in enumerate(source.cells)}
        for quantity in ("language_loss", "cosine_to_first"):
            self._language.append(found.values[quantity].mean(-1))

    def _places(self, source: LatentSource) -> list[Place]:
        return [
            {"expert": source.expert, "layer": cell.layer, "flow_time": cell.flow_time}
            for cell in source.cells
        ]

    def _record(self, found: LayerMeasures, places: list[Place]) -> None:
        draws, seed = self.options.draws, self.options.seed
        self.tables["trajectories"] += trajectory_rows(
            found, self.steps, places, draws=draws, seed=seed
        )
        self.tables["separability"] += separability_rows(found, self.steps, places)

    def _measure_control(self) -> None:
        """What the same probe reads from the robot's state and the clock."""
        values = np.concatenate([self._time(), self._state()], axis=-1)
        found = measure_layer(
            _InMemory(values[:, :, None].astype(np.float32)), self.steps, self.instructions,
            [np.arange(len(values))],
        )  # fmt: skip
        self._record(found, [{"expert": CONTROL, "layer": None, "flow_time": None}])

    def _time(self) -> Float64[np.ndarray, "e s 2"]:
        clock = self.steps.steps / max(1, int(self.steps.steps[-1]))
        both = np.stack([clock, clock**2], axis=-1)
        return np.where(self.steps.there[..., None], both, np.nan)

    def _state(self) -> Float64[np.ndarray, "e s p"]:
        there = self.steps.there
        try:
            states = self.dataset.read_robot("state", rows=self.steps.rows[there])
        except DamagedShardError:
            note = "the robot's state is left out of controls: the data set has none"
            self.notes += [] if note in self.notes else [note]
            return np.zeros((*there.shape, 0))
        found = np.full((*there.shape, states.shape[1]), np.nan)
        found[there] = states
        return found

    # ------------------------------------------------------------------ between experts

    def _separated(self) -> list[tuple[LatentSource, list[LatentSource]]]:
        """Expert action at each layer, and the others at the same layer."""
        others = [source for source in self.sources if source.expert != "action"]
        return [
            (chunk, [s.at_layer(layer) for s in others if layer in s.layers])
            for action in self.sources
            if action.expert == "action"
            for chunk in self._chunks(action)
            for layer in chunk.layers
        ]

    def _separation(self, action: LatentSource, others: list[LatentSource]) -> Iterator[Row]:
        width = len(action.cells) * action.field.width + sum(s.field.width for s in others)
        sums = [JackknifeSums() for _ in others]
        angles: list[list[Angles]] = []
        for place, episodes in enumerate(self._blocks(width)):
            rows = self.steps.rows[episodes]
            latents = action.read(self.dataset, rows)
            read = [source.read(self.dataset, rows) for source in others]
            for total, values in zip(sums, read, strict=True):
                add_separation(total, values, latents, rows >= 0)
            if place == 0:
                angles = cell_angles(read, latents, rows >= 0, seed=self.options.seed)
        for source, total, found in zip(others, sums, angles, strict=True):
            yield from separation_rows(
                self._places(action), f"{source.expert} / {action.expert}",
                separation_cka(total), found, self._disagreement(source, action),
            )  # fmt: skip

    def _disagreement(self, one: LatentSource, two: LatentSource) -> Disagreement:
        return probe_disagreement(
            self._nearest[one.cells[0]],
            np.stack([self._nearest[cell] for cell in two.cells], axis=-1),
            self.steps.text, draws=self.options.draws, seed=self.options.seed,
        )  # fmt: skip

    # ------------------------------------------------------------------ success

    def _predictors(self) -> list[Row]:
        if not self.success.asked:
            return []
        time, state, language = self._time(), self._state(), np.stack(self._language, axis=-1)
        features = {"time": time}
        if state.shape[-1]:
            features["proprioception"] = state
            features["time + proprioception"] = np.concatenate([time, state], -1)
        both = [*([state] if state.shape[-1] else []), language]
        features["time + proprioception + language"] = np.concatenate([time, *both], -1)
        judged = np.nan_to_num(self.steps.success, nan=2).astype(np.int64)
        fold = deal_folds(judged, self.options.folds, whole=False, seed=self.options.seed)
        return predictor_rows(
            features, self.steps.there, self.steps.success, fold, self.steps.steps,
            draws=self.options.draws, seed=self.options.seed,
        )  # fmt: skip

    def _facts(self) -> dict[str, Any]:
        steps = self.steps
        unknown = int(np.isnan(steps.success).sum())
        return {
            "path": str(self.dataset.path), "fingerprint": self.dataset.fingerprint,
            "model": self.dataset.info.model, "episodes": len(steps.rows),
            "samples": steps.samples, "steps": steps.steps.tolist(),
            "steps_left_out": steps.left_out, "thinned": steps.thinned,
            "successes": steps.successes, "failures": steps.failures, "unjudged": unknown,
            "asked_about_success": self.success.asked, "tasks": list(steps.tasks),
            "instructions": list(steps.texts),
            "experts": {s.expert: s.cells[0].field for s in self.sources},
            "folds": self.instructions.folds, "options": self.options.to_json(),
        }  # fmt: skip


class _InMemory(LatentBlocks):
    """Values that are there already, as a single block."""

    def __init__(self, values: Float32[np.ndarray, "e s c d"]) -> None:
        self._kept = values
        self._blocks = [np.arange(len(values))]


def _layer_word(source: LatentSource) -> str:
    layer = source.layers[0]
    return "all" if layer is None else f"layer {layer}"
