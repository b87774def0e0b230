"""A small data set of questions with answers, as anybody may write one."""

import numpy as np

from jax_bridge.shards import DatasetInfo, EpisodeWriter, ImageFormat

ANSWERS = ("yes", "no", "red cube", "x07 y12")


def write_questions(
    path, *, episodes=4, each=5, answers=ANSWERS, cameras=("base",), seed=9, suite="vqa"
):
    info = DatasetInfo(fields={}, capture={}, model={}, environment={"name": "vqa"}, seed=seed)
    random = np.random.default_rng(seed)
    with EpisodeWriter(path, info, images=ImageFormat(kind="png")) as writer:
        for number in range(episodes):
            with writer.episode(suite=suite, task_id=0, episode=number) as episode:
                for place in range(each):
                    which = (number * each + place) % len(answers)
                    told = {} if answers[which] is None else {"answer": answers[which]}
                    episode.append(
                        timestep=place, instruction=f"ask {which}", extra=told,
                        images={c: random.integers(0, 256, (24, 40, 3), np.uint8) for c in cameras},
                    )  # fmt: skip
                episode.finish(success=None)
    return path
