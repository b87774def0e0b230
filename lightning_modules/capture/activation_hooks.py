"""Hooks that are on during one forward, and off after it whatever happened.

Letters: b batch, f frames, t tokens, d width.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_modules.capture.capture_point import CapturePoint, find_module
from lightning_modules.capture.captured_batch import Awaited


class ActivationHooks:
    """Catches what passes some modules while the `with` block runs.

    Args:
        model: the model.
        points: what is read.
    """

    def __init__(self, model: nn.Module, points: Sequence[CapturePoint]) -> None:
        self._model = model
        self._points = tuple(points)
        self._handles: list[RemovableHandle] = []
        self._caught: dict[str, list[Tensor]] = {point.field: [] for point in self._points}

    def __enter__(self) -> "ActivationHooks":
        try:
            for point in self._points:
                self._handles.append(self._register(point))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _register(self, point: CapturePoint) -> RemovableHandle:
        module = find_module(self._model, point.module)
        if point.side == "input":
            return module.register_forward_pre_hook(self._input_hook(point), with_kwargs=True)
        return module.register_forward_hook(self._output_hook(point))

    def _input_hook(self, point: CapturePoint) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = args[0] if len(args) == 1 and not kwargs and point.argument == 0 else None
            found = given if isinstance(given, Tensor) else _entry(point, args, kwargs)
            self._catch(point, found)

        return hook

    def _output_hook(self, point: CapturePoint) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                self._catch(point, output)
            elif isinstance(output, Mapping):
                self._catch(point, _entry(point, tuple(output.values()), output))
            else:
                self._catch(point, _entry(point, output, {}))

        return hook

    def _catch(self, point: CapturePoint, value: Tensor) -> None:
        # The model may change the tensor in place once the hook is over.
        self._caught[point.field].append(pool(value.detach(), point))

    def values(self, rows: int) -> dict[str, Shaped[Tensor, "b ..."]]:
        """What was caught, by field, with the batch on the first axis.

        Args:
            rows: of the batch.

        Raises:
            ValueError: if a module was not called, or too often, or its first axis is no batch.
        """
        return {p.field: _by_row(p, self._chosen(p), rows) for p in self._points}

    def _chosen(self, point: CapturePoint) -> Tensor:
        caught = self._caught[point.field]
        if not caught:
            raise ValueError(
                f"`module` must be called when the model runs, but {point.module!r} was not. "
                "Choose one that the forward pass goes through."
            )
        if point.call is None and len(caught) > 1:
            raise ValueError(
                f"`call` must say which one, but {point.module!r} was called {len(caught)} times "
                "in one forward. Give 0 for the first, -1 for the last."
            )
        number = point.call or 0
        if not -len(caught) <= number < len(caught):
            raise ValueError(
                f"`call` must be one of {len(caught)} calls of {point.module!r}, but got {number}."
            )
        return caught[number]


def _entry(point: CapturePoint, values: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """The tensor that a point means among arguments or outputs.

    Raises:
        ValueError: if there is none.
    """
    found = None
    if isinstance(point.argument, str):
        found = named.get(point.argument)
    else:
        every = [*values, *(v for v in named.values() if not any(v is w for w in values))]
        found = every[point.argument] if point.argument < len(every) else None
    if not isinstance(found, Tensor):
        words = [*map(str, range(len(values))), *named]
        raise ValueError(
            f"`argument` must be a tensor of the {point.side} of {point.module!r}, but got "
            f"{point.argument!r}, which is {type(found).__name__}. There are "
            f"{', '.join(words) or 'none'}."
        )
    return found


def pool(value: Shaped[Tensor, "..."], point: CapturePoint) -> Shaped[Tensor, "..."]:
    """Pools the tokens where the point asks for it, in float32; a copy in any case.

    Raises:
        ValueError: if there is no axis of tokens.
    """
    if point.pool == "tokens":
        return value.clone()
    if value.ndim < 3:
        raise ValueError(
            f"`pool` must be tokens where there is no axis of tokens, but got {point.pool} for "
            f"{point.module!r} of shape {tuple(value.shape)}."
        )
    if point.pool == "last":
        return value[..., -1, :].clone()
    if point.pool == "max":
        return value.amax(-2)
    return value.float().mean(-2).to(value.dtype)


def _by_row(point: CapturePoint, value: Tensor, rows: int) -> Tensor:
    """[b, ...], where a model may have put the frames of its history into the batch."""
    if value.ndim < 2 or value.shape[0] % rows:
        raise ValueError(
            f"`module` must have the batch on its first axis, but {point.module!r} gave shape "
            f"{tuple(value.shape)} for a batch of {rows}."
        )
    if value.shape[0] == rows:
        return value
    return value.reshape(rows, value.shape[0] // rows, *value.shape[1:])


def on_cpu(values: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Awaited, ...]]:
    """Starts the copies to the CPU; they are done when the events have passed.

    Each GPU copies on a stream of its own, beside the next forward.
    """
    found = dict(values)
    streams: dict[torch.device, torch.cuda.Stream] = {}
    for name, value in values.items():
        if not value.is_cuda:
            continue
        if value.device not in streams:
            streams[value.device] = torch.cuda.Stream(value.device)
            # Not before what they copy is there.
            streams[value.device].wait_stream(torch.cuda.current_stream(value.device))
        with torch.cuda.stream(streams[value.device]):
            copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            found[name] = copy.copy_(value, non_blocking=True)
        # Its memory must not be given to another tensor before it is copied.
        value.record_stream(streams[value.device])
    return found, tuple(stream.record_event() for stream in streams.values())
