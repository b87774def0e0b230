"""The LIBERO benchmark as an environment, with openpi's evaluation protocol.

Letters: s robot state (8); a action (7).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.environment import RobotObservation, StepResult, Task
from jax_bridge.environments.libero.assets import assets_digest, find_assets
from jax_bridge.environments.libero.demonstrator import PickAndPlace
from jax_bridge.environments.libero.init_states import read_init_states
from jax_bridge.environments.libero.installation import (
    bddl_file,
    check_installed,
    init_file,
    versions,
)
from jax_bridge.environments.libero.simulator import CONTROL_HZ, CONTROLLER, Simulator
from jax_bridge.environments.libero.state import robot_state
from jax_bridge.environments.libero.suites import MAX_STEPS, check_suite, suite_tasks

CAMERAS: dict[str, str] = {"base": "agentview", "left_wrist": "robot0_eye_in_hand"}
"""Our camera names to the simulator's."""

EPISODES = 50
"""Different starts that every task of the benchmark brings."""

ACTION_DIM = 7
"""Movement 3, rotation 3, gripper 1 (-1 open, 1 closed)."""

PROTOCOL = 1
"""Goes up when the same arguments no longer give the same episodes."""

_WAIT = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
"""What is done while the objects settle: nothing, with the gripper open."""


class Libero:
    """LIBERO's simulated table tasks.

    Images are turned by 180 degrees, as openpi does: the simulator gives them upside down and
    policies were trained on turned ones. They and the state show the moment at which the
    simulator's own cameras would have looked, byte for byte.

    Args:
        suite: `libero_spatial`, `libero_object`, `libero_goal`, `libero_10` or `libero_90`.
        assets: Folder of LIBERO's assets (meshes, textures, scenes); without it,
            `$VLA_LENS_LIBERO_ASSETS`, then where the package keeps its own.
        image_size: Height and width of the images, in pixels.
        settle_steps: Steps without movement after a start, in which objects fall into place.

    Raises:
        ValueError: if there is no such suite, or a number is out of range.
        FileNotFoundError: if the packages or the assets are missing.

    Source: openpi, examples/libero/main.py.
    """

    def __init__(
        self,
        *,
        suite: str = "libero_object",
        assets: str | None = None,
        image_size: int = 256,
        settle_steps: int = 10,
    ) -> None:
        check_suite(suite)
        if image_size < 1:
            raise ValueError(f"`image_size` must be at least 1, but got {image_size}.")
        if settle_steps < 0:
            raise ValueError(f"`settle_steps` must not be negative, but got {settle_steps}.")
        check_installed()
        self._suite = suite
        self._assets = find_assets(assets)
        self._image_size = image_size
        self._settle_steps = settle_steps
        self._tasks = suite_tasks(suite)
        self._task: Task | None = None
        self._simulator: Simulator | None = None

    @property
    def suite(self) -> str:
        """Name of the suite."""
        return self._suite

    @property
    def tasks(self) -> Sequence[Task]:
        """All tasks of the suite, in the benchmark's order."""
        return self._tasks

    @property
    def episodes(self) -> int:
        """How many different starts a task has."""
        return EPISODES

    @property
    def max_steps(self) -> int:
        """Limit of an episode of this suite in openpi's evaluation, in steps after settling."""
        return MAX_STEPS[self._suite]

    def describe(self) -> dict[str, Any]:
        """What must be the same for two data sets to have seen the same simulator."""
        return {
            "name": "libero",
            "protocol": PROTOCOL,
            "suite": self._suite,
            "versions": versions(),
            "assets": assets_digest(self._assets),
            "cameras": dict(CAMERAS),
            "image_size": self._image_size,
            "settle_steps": self._settle_steps,
            "controller": CONTROLLER,
            "control_hz": CONTROL_HZ,
        }

    def reset(self, *, task_id: int, episode: int, seed: int) -> None:
        """Starts an episode and lets the objects settle.

        Episode e starts exactly as the one that stock LIBERO, seeded with `seed`, starts at
        its reset number e; nothing that was run before matters.

        Raises:
            ValueError: if there is no such task or episode, or the seed is out of range.
            FileNotFoundError: if the assets lack something that the task needs.
        """
        _check_range("task_id", task_id, len(self._tasks))
        _check_range("episode", episode, EPISODES)
        _check_range("seed", seed, 2**32)
        task = self._tasks[task_id]
        states = read_init_states(init_file(task.suite, task.name))
        simulator = self._simulator_of(task)
        simulator.start(states[episode], episode=episode, seed=seed)
        for _ in range(self._settle_steps):
            simulator.step(_WAIT)

    def observe(self) -> RobotObservation:
        """Renders both cameras and reads the robot."""
        simulator, task = self._running("observe")
        images = {
            name: np.ascontiguousarray(simulator.image(camera)[::-1, ::-1])
            for name, camera in CAMERAS.items()
        }
        state = robot_state(simulator.readings)
        return RobotObservation(images=images, state=state, instruction=task.instruction)

    def step(self, action: Float32[np.ndarray, " a"]) -> StepResult:
        """Advances by one control step (50 ms).

        Raises:
            ValueError: if the action is not 7 finite numbers.
        """
        simulator, _ = self._running("step")
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"`action` must be {ACTION_DIM} finite numbers, but got {action}.")
        success = simulator.step(action)
        return StepResult(success=success, done=simulator.failed)

    def truth(self) -> dict[str, Any]:
        """Positions of all objects and fixtures and of the gripper (metres), and the goal."""
        simulator, _ = self._running("truth")
        places = simulator.positions()
        return {
            "objects": {name: place.tolist() for name, place in places.items()},
            "gripper": simulator.gripper_position().tolist(),
            "predicates": {
                f"{word}({', '.join(things)})": simulator.predicate([word, *things])
                for word, *things in simulator.goal
            },
        }

    def demonstrator(self) -> PickAndPlace:
        """A demonstrator for the running episode of libero_object.

        Raises:
            ValueError: if the suite is another.
        """
        if self._suite != "libero_object":
            raise ValueError(
                "`suite` must be libero_object, the only one with a demonstrator, but got "
                f"{self._suite!r}."
            )
        return PickAndPlace(self._running("demonstrator")[0])

    def close(self) -> None:
        """Frees the simulator; a later reset builds a new one."""
        if self._simulator is not None:
            self._simulator.close()
        self._simulator = self._task = None

    def _simulator_of(self, task: Task) -> Simulator:
        """The task's simulator; only one is kept, as building one takes seconds."""
        if self._task != task or self._simulator is None:
            self.close()
            self._simulator = Simulator(
                bddl=bddl_file(task.suite, task.name),
                assets=self._assets,
                image_size=self._image_size,
            )
            self._task = task
        return self._simulator

    def _running(self, method: str) -> tuple[Simulator, Task]:
        if self._simulator is None or self._task is None:
            raise ValueError(f"`{method}` must follow `reset`, but no episode was started.")
        return self._simulator, self._task


def _check_range(name: str, value: int, end: int) -> None:
    if not 0 <= value < end:
        raise ValueError(f"`{name}` must be in 0 to {end - 1}, but got {value}.")
