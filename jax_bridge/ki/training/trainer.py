"""The training run: one readable loop, and what happens beside its steps."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from jax_bridge.ki.optimiser import schedule
from jax_bridge.ki.sharding import make_mesh
from jax_bridge.ki.train_step import Prepare, StepReport, TrainState, as_given
from jax_bridge.ki.training.checkpoints import RunCheckpoints
from jax_bridge.ki.training.finite import check_finite
from jax_bridge.ki.training.prefetch import Fetched, Prefetcher, place_batch
from jax_bridge.ki.training.programs import Programs, build_programs
from jax_bridge.ki.training.run_config import TrainSettings
from jax_bridge.ki.training.run_folder import CHECKPOINTS, asset_files, open_run
from jax_bridge.ki.training.run_log import NoLog, RunLog
from jax_bridge.ki.training.starting_weights import starting_weights
from jax_bridge.ki.training.step_record import StepRecord
from jax_bridge.ki.training.stopping import Stopping
from jax_bridge.ki.training.stream import BatchStream, HeldOut
from jax_bridge.ki.training.watcher import Watcher
from jax_bridge.ki.training.window import Line, LogWindow, mean_losses

HELD_OUT_KEY = 0x68656C64
"""Noise and times of held-out losses: the same at every look."""


@runtime_checkable
class Progress(Protocol):
    """Who shows where the run stands."""

    def update(self, step: int, line: Mapping[str, float]) -> None:
        """Takes a step, and the newest line of the log (empty before the first)."""
        ...


class Silence:
    """Shows nothing."""

    def update(self, step: int, line: Mapping[str, float]) -> None:
        """Shows nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a run came to."""

    first_step: int
    """Where it began: 0, or the checkpoint that it went on from."""
    last_step: int
    seconds: float
    last_line: Line
    kept: Mapping[int, float]
    """Checkpoints that are kept, with their loss."""
    stopped_by: str | None
    """Name of the signal that ended it early."""


@dataclasses.dataclass
class _Run:
    """What changes while a run goes on."""

    state: TrainState
    step: int
    window: LogWindow
    counts: Mapping[str, int]
    position: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Where the reading stands behind the newest step."""
    pending: tuple[int, StepReport, Fetched] | None = None
    """The newest step, which the device may still compute."""
    line: Line = dataclasses.field(default_factory=dict)
    held_out: float | None = None


class Trainer:
    """Trains a policy and leaves checkpoints and a log in a folder.

    Args:
        settings: what is computed.
        stream: the batches.
        out: folder of the run; if it holds this run already, the run goes on.
        prepare: what becomes of a batch on the device.
        held_out: batches that are only looked at.
        watchers: who looks at the parameters now and then.
        progress: who shows where the run stands.
    """

    def __init__(
        self,
        settings: TrainSettings,
        stream: BatchStream,
        out: pathlib.Path,
        *,
        prepare: Prepare = as_given,
        held_out: HeldOut | None = None,
        watchers: Sequence[Watcher] = (),
        progress: Progress | None = None,
    ) -> None:
        self._settings, self._run_config = settings, settings.run
        self._stream, self._out, self._held_out = stream, out, held_out
        self._watchers, self._progress = watchers, progress or Silence()
        self._prepare = prepare
        self._mesh = make_mesh(settings.run.fsdp)
        self._programs: Programs = build_programs(settings, self._mesh, prepare)
        self._rate = schedule(settings.optimiser)
        self._key = jax.random.key(settings.run.seed)
        self._files = asset_files(settings, stream.facts)

    def run(self) -> TrainReport:
        """Trains until the last step, or until a signal asks to stop.

        Raises:
            ValueError: if the folder holds another run, or a loss is not finite.
            OSError: if a checkpoint cannot be written.
        """
        begin = time.perf_counter()
        open_run(self._out, self._settings, self._stream.facts)
        with contextlib.ExitStack() as stack:
            saved = stack.enter_context(self._checkpoints())
            run = self._begin(saved)
            first = run.step
            log = stack.enter_context(self._log(first))
            stopping = stack.enter_context(Stopping())
            if first < self._run_config.steps:
                ahead = Prefetcher(self._stream, self._mesh, self._run_config.read_ahead)
                self._train(run, stack.enter_context(ahead), saved, log, stopping)
            saved.wait()
            return TrainReport(
                first_step=first,
                last_step=run.step,
                seconds=time.perf_counter() - begin,
                last_line=run.line,
                kept={step: saved.loss(step) for step in saved.steps},
                stopped_by=stopping.name if run.step < self._run_config.steps else None,
            )

    def _checkpoints(self) -> RunCheckpoints:
        config = self._run_config
        return RunCheckpoints(
            self._out / CHECKPOINTS, self._settings.lora,
            keep_last=config.keep_last, keep_best=config.keep_best,
        )  # fmt: skip

    def _log(self, step: int) -> RunLog | NoLog:
        return NoLog() if jax.process_index() else RunLog(self._out, step)

    def _begin(self, saved: RunCheckpoints) -> _Run:
        """The state before the first step, or that of the newest checkpoint."""
        sizes = self._run_config.batch_size, self._settings.optimiser.clip_norm
        if saved.latest is None:
            params = starting_weights(
                self._settings.weights, self._settings.model, self._run_config.seed
            )
            state = self._programs.start(params)
            return _Run(state=state, step=0, window=LogWindow(*sizes), counts={})
        state, entry = saved.restore(self._programs.shapes, saved.latest)
        self._stream.restore(entry["stream"])
        window = LogWindow(*sizes, entry["window"])
        return _Run(state=state, step=entry["step"], window=window, counts=entry["counts"])

    def _train(
        self, run: _Run, batches: Prefetcher, saved: RunCheckpoints, log: RunLog | NoLog,
        stopping: Stopping,
    ) -> None:  # fmt: skip
        if run.step == 0 and (line := {**self._watched(run), **self._validated(run)}):
            log.write(0, line)
        ending, checked = stopping.asked(agree=True), False
        while run.step < self._run_config.steps and not ending:
            fetched = self._next(batches, stopping)
            if fetched is None:
                break
            if not checked:
                self._check(fetched)
                checked = True
            run.state, report = self._programs.step(run.state, fetched.batch, self._key)
            self._settle(run, saved)
            run.step += 1
            run.pending = (run.step, report, fetched)
            run.counts, run.position = fetched.host.counts, fetched.host.position
            line = self._line(run, fetched, saved)
            if line:
                log.write(run.step, line)
            self._progress.update(run.step, run.line)
            ending = stopping.asked(agree=run.step % self._run_config.log_every == 0)
            if self._due(run, self._run_config.save_every):
                self._save(run, saved)
        if run.position and saved.latest != run.step:
            self._save(run, saved)

    def _next(self, batches: Prefetcher, stopping: Stopping) -> Fetched | None:
        """The next batch; None if somebody asked to stop, and the readers have stopped already.

        Ctrl-C reaches worker processes as well.
        """
        try:
            return next(batches)
        except Exception:
            if stopping.signal is None:
                raise
            return None

    def _check(self, fetched: Fetched) -> None:
        """Raises if the first batch does not fit the model, before anything is compiled.

        Raises:
            ValueError: naming the array, what it must be and what it is.
        """
        rows = self._run_config.batch_size // jax.process_count()
        if fetched.host.batch.size != rows:
            raise ValueError(
                f"`batch_size` must be {rows} rows a process, but got {fetched.host.batch.size}."
            )
        ready = jax.eval_shape(functools.partial(self._prepare, None), fetched.host.batch)
        ready.check(self._settings.model)

    def _settle(self, run: _Run, saved: RunCheckpoints) -> None:
        """Looks at the step before: the device computes the next one meanwhile."""
        if run.pending is None:
            return
        (step, report, fetched), run.pending = run.pending, None
        record = StepRecord.of(report)
        check_finite(record, step=step, keys=fetched.host.keys, saved=saved.latest)
        run.window.add(record, fetched.waited)

    def _due(self, run: _Run, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is due."""
        return bool(every) and (run.step % every == 0 or run.step == self._run_config.steps)

    def _line(self, run: _Run, fetched: Fetched, saved: RunCheckpoints) -> Line:
        """What is logged of this step: nothing, mostly."""
        line: Line = {}
        if self._due(run, self._run_config.log_every):
            self._settle(run, saved)
            line |= run.window.line()
            line["learning_rate"] = float(np.asarray(self._rate(run.step - 1)))
            line |= {f"left_out/{name}": float(count) for name, count in run.counts.items()}
        with _unclocked(run.window):
            every = self._run_config.insulation_every
            if self._settings.objective.has_flow and (self._due(run, every) or run.step == 1):
                key = jax.random.fold_in(self._key, run.step)
                norm = self._programs.flow_gradient(run.state.params, fetched.batch, key)
                line["insulation/flow_gradient_on_backbone"] = float(norm)
            if self._due(run, self._run_config.validate_every):
                line |= self._validated(run)
            line |= self._watched(run)
        run.line |= line
        return line

    def _validated(self, run: _Run) -> Line:
        """Losses of held-out samples, with the parameters that would be saved."""
        if self._held_out is None or not self._run_config.validate_every:
            return {}
        params = run.state.params if run.state.average is None else run.state.average
        key = jax.random.key(HELD_OUT_KEY)
        losses: list[dict[str, float]] = []
        counts: list[dict[str, int]] = []
        for number, host in enumerate(self._held_out):
            batch = place_batch(host.batch, self._mesh)
            found, held = self._programs.losses(params, batch, jax.random.fold_in(key, number))
            losses.append({n: float(v) for n, v in found._asdict().items() if v.ndim == 0})
            counts.append({n: int(v) for n, v in held._asdict().items()})
        if not losses:
            return {}
        line = {f"held_out/{n}": value for n, value in mean_losses(losses, counts).items()}
        run.held_out = line["held_out/total"]
        return line

    def _watched(self, run: _Run) -> Line:
        due = [one for one in self._watchers if run.step == 0 or self._due(run, one.every)]
        if not due:
            return {}
        params = self._programs.plain(run.state.params)
        found: Line = {}
        for one in due:
            found |= one.watch(run.step, params)
        return found

    def _save(self, run: _Run, saved: RunCheckpoints) -> None:
        """Starts to write a checkpoint, of a state that is known to be finite."""
        self._settle(run, saved)
        with _unclocked(run.window):
            loss = run.held_out
            if loss is None:
                loss = run.window.loss
            entry = {
                "step": run.step,
                "stream": dict(run.position),
                "window": run.window.to_json(),
                "counts": dict(run.counts),
            }
            saved.save(
                run.state, step=run.step, position=entry, files=self._files,
                loss=run.line["loss/total"] if loss is None else loss,
            )  # fmt: skip


@contextlib.contextmanager
def _unclocked(window: LogWindow) -> Iterator[None]:
    """Time that does not count as training."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        window.pause(time.perf_counter() - begin)
