"""A small data set with everything that targets can ask for; values that tests can compute."""

import json
from pathlib import Path

import numpy as np

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec

NAME = "vlm.hidden_states.text.mean"
OBJECTS, CONTAINERS = ("red_cube", "blue_ball"), ("white_bowl", "green_box")
WIDTH = 6


def info() -> DatasetInfo:
    field = FieldSpec(
        name=NAME, dtype="float32", shape=(1, WIDTH), axes=("layer", "width"), layers=(0,)
    )
    return DatasetInfo(
        fields={NAME: field},
        capture={"preset": "truth"},
        model={"preset": "truth", "params_digest": "0" * 64},
        environment={"name": "truth"},
        seed=0,
    )


def truth_at(task: int, step: int, *, libero: bool) -> dict:
    thing, container = OBJECTS[task % 2], CONTAINERS[task // 2]
    goal = f"in({thing}_1, {container}_1_contain_region)" if libero else f"in({thing}, {container})"
    pairs = [f"in({a}, {b})" for a in OBJECTS for b in CONTAINERS]
    predicates = {pair: pair == goal and step == 2 for pair in ([goal] if libero else pairs)}
    if not libero:
        predicates |= {f"grasped({name})": name == thing and step == 1 for name in OBJECTS}
    return {
        "objects": {name: [task, step, 0.5] for name in OBJECTS},
        "predicates": predicates,
        **({} if libero else {"goal": goal}),
    }


def write_truth(
    path: Path, *, episodes: int = 10, libero: bool = False, suites: tuple[str, ...] = ("one",)
) -> Path:
    """Four tasks, three steps an episode; every third episode fails, some values are missing."""
    random = np.random.default_rng(0)
    with EpisodeWriter(path, info()) as writer:
        for place in range(4 * episodes * len(suites)):
            suite, (task, number) = suites[place // (4 * episodes)], divmod(
                place % (4 * episodes), episodes
            )  # fmt: skip
            words = f"put the {OBJECTS[task % 2]} in the {CONTAINERS[task // 2]}"
            given = "do something else" if number % 2 else words
            with writer.episode(
                suite=suite, task_id=task, episode=number, task_name=str(task),
                instruction=given, task_instruction=words, seed=0,
            ) as episode:  # fmt: skip
                for step in range(3):
                    state = np.r_[random.normal(size=6), 0.01 * step, -0.01 * step]
                    pad = np.arange(4) + step > 4
                    episode.append(
                        timestep=5 * step, call=step,
                        latents={NAME: random.normal(size=(1, WIDTH)).astype(np.float32)},
                        state=state.astype(np.float32),
                        actions=random.normal(size=(4, 2)).astype(np.float32),
                        executed=np.full(2, step + 10 * task, np.float32),
                        action_is_pad=pad, truth=truth_at(task, step, libero=libero),
                        extra={
                            "light": "dark" if number % 2 else "bright",
                            "weight": None if step == 0 else 0.5 * task,
                        },
                    )  # fmt: skip
                episode.finish(
                    success=number % 3 > 0, success_at_end=number % 3 > 1, episode_length=15
                )
    assert json.loads((path / "dataset.json").read_text())
    return path
