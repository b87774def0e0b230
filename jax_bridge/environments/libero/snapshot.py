"""Keeps the moment at which robosuite takes its readings, to be rendered later if at all.

Letters: h, w image height and width.
"""

import importlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

OBSERVABLE = "vla_lens_snapshot"


class Snapshot:
    """A copy of the simulator's data, renewed whenever robosuite takes its readings.

    robosuite reads robot and cameras shortly before a control step ends, while the physics
    goes on to its end. Rendering what the simulator holds afterwards would show a later
    moment than its own cameras do, and than the robot state tells. The copy costs 0.3 ms.
    """

    def __init__(self, env: Any, *, image_size: int) -> None:
        self.mujoco = importlib.import_module("mujoco")
        self._sim = env.sim
        self._image_size = image_size
        self._data = self.mujoco.MjData(env.sim.model._model)
        self._site_colours = env.sim.model.site_rgba.copy()
        self._context: Any = env.sim._render_context_offscreen
        self._context.data = types.SimpleNamespace(_data=self._data)
        env.add_observable(_observable(self._take, env.control_freq))

    def render(self, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """The kept moment through a camera, as robosuite gives it."""
        # Another simulator of this process may have drawn last.
        self._context.gl_ctx.make_current()
        colours = self._sim.model.site_rgba
        now = colours.copy()
        colours[:] = self._site_colours
        try:
            return self._sim.render(
                camera_name=camera, width=self._image_size, height=self._image_size
            )
        finally:
            colours[:] = now

    def close(self) -> None:
        """Lets go of the graphics, made current first: freeing acts on what is current."""
        self._context.gl_ctx.make_current()
        self._context = None

    def _take(self) -> None:
        model = self._sim.model
        self.mujoco.mj_copyData(self._data, model._model, self._sim.data._data)
        # LIBERO shows and hides sites (a hot burner) in the model, not in the data.
        self._site_colours = model.site_rgba.copy()


def _observable(take: Callable[[], None], hertz: int) -> Any:
    """An observable that reads nothing, but is asked whenever the others are."""
    observables = importlib.import_module("robosuite.utils.observables")

    @observables.sensor(modality="snapshot")
    def read(_cache: Any) -> np.ndarray:
        take()
        return np.zeros(2)

    return observables.Observable(name=OBSERVABLE, sensor=read, sampling_rate=hertz)
