"""One task of LIBERO in the simulator: built once, then started, stepped and looked at.

Letters: n numbers of a flattened mujoco state; a action; h, w image height and width.
"""

import atexit
import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from jax_bridge.environments.libero.installation import import_libero, import_simulator
from jax_bridge.environments.libero.snapshot import Snapshot

CONTROLLER = "OSC_POSE"
CONTROL_HZ = 20


class Simulator:
    """A task's simulator.

    Starts and frames are byte for byte those that LIBERO's `OffScreenRenderEnv` gives when it
    is seeded once and then reset for episode after episode, as openpi's evaluation does; but
    a start neither compiles the model anew (2 s) nor depends on what was run before, and a
    frame is rendered only when asked for.

    Raises:
        FileNotFoundError: if the assets lack something that the task needs.
    """

    def __init__(self, *, bddl: Path, assets: Path, image_size: int) -> None:
        module = import_simulator()
        # Every object's constructor reads it; without it, LIBERO would download.
        vars(import_libero())["_assets_path_cache"] = str(assets)
        with _numpy_random(_seeded(0)), _explained(bddl, assets):
            self._wrapper: Any = module.ControlEnv(
                bddl_file_name=str(bddl),
                controller=CONTROLLER,
                control_freq=CONTROL_HZ,
                has_offscreen_renderer=True,
                use_camera_obs=False,
                hard_reset=False,
                ignore_done=True,
            )
        self._env: Any = self._wrapper.env
        self._snapshot = Snapshot(self._env, image_size=image_size)
        _close_at_exit(self)
        self._initializers = list(self._env.object_property_initializers)
        self._fixture_poses = _fixture_poses(self._env)
        self._draws: tuple[int, list[Any]] = (0, [])
        self._readings: dict[str, np.ndarray] = {}

    @property
    def goal(self) -> list[list[str]]:
        """The goal's predicates, all of which must hold: name, then one or two things."""
        return self._env.parsed_problem["goal_state"]

    @property
    def readings(self) -> dict[str, np.ndarray]:
        """Robot and objects as robosuite observed them, taken just before the step's end."""
        return self._readings

    @property
    def failed(self) -> bool:
        """Whether mujoco found the state unusable since the start and began anew by itself."""
        mujoco = self._snapshot.mujoco
        bad = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL)
        bad = (*bad, mujoco.mjtWarning.mjWARN_BADQACC)
        return any(self._env.sim.data.warning[int(kind)].number > 0 for kind in bad)

    def start(self, state: Float64[np.ndarray, " n"], *, episode: int, seed: int) -> None:
        """Puts everything in the given state, fixtures where `seed` puts them at `episode`.

        LIBERO places fixtures (cabinet, stove) anew at every reset, by about a centimetre,
        from a stream of random numbers that it seeds once a task.
        """
        if self._draws[0] != seed or not self._draws[1]:
            self._draws = (seed, [_seeded(seed)])
        states = self._draws[1]
        first = min(episode, len(states) - 1)
        with _numpy_random(states[first]):
            for number in range(first, episode + 1):
                if number == len(states):
                    states.append(np.random.get_state())  # noqa: NPY002 robosuite's own stream
                self._draw(number)
        self._readings = self._wrapper.set_init_state(state)

    def step(self, action: np.ndarray) -> bool:
        """Advances by one control step; returns whether the goal holds."""
        self._readings, _, success, _ = self._wrapper.step(action)
        return bool(success)

    def image(self, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """What a camera saw when the readings were taken, as the simulator gives it."""
        return self._snapshot.render(camera)

    def predicate(self, statement: list[str]) -> bool:
        """Whether one statement of the goal holds."""
        return bool(self._env._eval_predicate(statement))

    def position(self, name: str) -> Float64[np.ndarray, "3"]:
        """Where an object or fixture is, in metres."""
        return self._env.sim.data.body_xpos[self._env.obj_body_id[name]].copy()

    def positions(self) -> dict[str, Float64[np.ndarray, "3"]]:
        """Where every object and fixture is, in metres."""
        return {name: self.position(name) for name in self._env.obj_body_id}

    def gripper_position(self) -> Float64[np.ndarray, "3"]:
        """Where the point between the fingertips is, in metres."""
        return self._env.sim.data.site_xpos[self._env.robots[0].eef_site_id].copy()

    def container(self, region: str) -> str:
        """Which object a region such as `basket_1_contain_region` belongs to."""
        return self._env.parsed_problem["regions"][region]["target"]

    def box(self, name: str) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
        """Lowest and highest corner of the upright box around an object's solid parts."""
        model, data = self._env.sim.model, self._env.sim.data
        body = self._env.obj_body_id[name]
        parts = np.flatnonzero((model.body_rootid[model.geom_bodyid] == body) & _solid(model))
        centre, half = model.geom_aabb[parts, :3], model.geom_aabb[parts, 3:]
        rotation = data.geom_xmat[parts].reshape(-1, 3, 3)
        middle = data.geom_xpos[parts] + np.einsum("gij,gj->gi", rotation, centre)
        reach = np.einsum("gij,gj->gi", np.abs(rotation), half)
        return (middle - reach).min(axis=0), (middle + reach).max(axis=0)

    def close(self) -> None:
        """Frees the simulator and its graphics; harmless if done already."""
        if self._wrapper is not None:
            self._snapshot.close()
            self._wrapper.close()
            self._wrapper = self._env = None

    def __del__(self) -> None:
        if hasattr(self, "_snapshot"):  # built to the end
            self.close()

    def _draw(self, number: int) -> None:
        """One reset as LIBERO's `number`-th of a task, from a freshly compiled model's state."""
        model = self._env.sim.model
        for body, (position, quaternion) in self._fixture_poses.items():
            model.body_pos[body], model.body_quat[body] = position, quaternion
        gripper = self._env.robots[0].gripper
        gripper.current_action = np.zeros_like(gripper.current_action)
        # LIBERO appends them again each time it loads its model: at creation and every reset.
        self._env.object_property_initializers = self._initializers * (number + 2)
        self._env.reset()


def _solid(model: Any) -> np.ndarray:
    return (model.geom_contype > 0) | (model.geom_conaffinity > 0)


def _fixture_poses(env: Any) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Where the model's text puts each fixture, by body number."""
    poses = {}
    for name, fixture in env.fixtures_dict.items():
        body = env.model.root.find(f".//body[@name='{fixture.root_body}']")
        position = np.array(body.get("pos", "0 0 0").split(), np.float64)
        quaternion = np.array(body.get("quat", "1 0 0 0").split(), np.float64)
        poses[env.obj_body_id[name]] = (position, quaternion)
    return poses


def _seeded(seed: int) -> Any:
    return np.random.RandomState(seed).get_state()


@contextlib.contextmanager
def _numpy_random(state: Any) -> Iterator[None]:
    """Runs robosuite's sampling, which uses numpy's global stream, and puts that back."""
    before = np.random.get_state()  # noqa: NPY002 robosuite's own stream
    np.random.set_state(state)  # noqa: NPY002 robosuite's own stream
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002 robosuite's own stream


@contextlib.contextmanager
def _explained(bddl: Path, assets: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"`assets` must hold all that task {bddl.stem} of {bddl.parent.name} needs, but "
            f"{assets} does not: {error} Fetch the whole set, or choose another suite."
        ) from error


_LIVE: "weakref.WeakSet[Simulator]" = weakref.WeakSet()


def _close_at_exit(simulator: Simulator) -> None:
    """Frees a forgotten simulator before the graphics library ends, which else complains."""
    if not _LIVE:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _LIVE.add(simulator)


def _close_all() -> None:
    for simulator in list(_LIVE):
        simulator.close()
