"""Planted answers: labels that are there are found, and those that are not are at chance."""

import numpy as np
import pytest

from lightning_modules.retention_scores import RetentionScores

CLASSES, EPISODES, STEPS, WIDTH = 4, 6, 5, 24
KEYS = tuple(
    f"table-t{c:03d}-e{e:04d}-s{s:04d}"
    for c in range(CLASSES) for e in range(EPISODES) for s in range(STEPS)
)  # fmt: skip
OWN = {key: key.split("-")[1] for key in KEYS}


def planted(seed=0):
    """Layer 0 is noise with the episode's own mark; layer 1 holds the class as well."""
    random = np.random.default_rng(seed)
    episodes = [key.rpartition("-s")[0] for key in KEYS]
    marks = {name: random.normal(size=WIDTH) for name in dict.fromkeys(episodes)}
    noise = np.stack([marks[name] + 0.1 * random.normal(size=WIDTH) for name in episodes])
    signal = np.eye(CLASSES)[[int(OWN[key][1:]) for key in KEYS]] @ random.normal(
        size=(CLASSES, WIDTH)
    )
    return {"prompt": np.stack([noise, noise + 4 * signal]).astype(np.float32)}


def test_a_class_is_found_where_it_is_and_episodes_do_not_pass_for_classes():
    found = RetentionScores({"instruction": OWN})(planted(), KEYS)
    for name in ("accuracy", "retrieval"):
        assert found[f"instruction_{name}/prompt/layer01"] == 1.0
        assert found[f"instruction_{name}/prompt/layer00"] < 0.6


def test_cka_is_to_the_first_look():
    scores = RetentionScores({"instruction": OWN})
    first = planted()
    assert scores(first, KEYS)["cka_to_start/prompt/layer00"] == pytest.approx(1)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))
    turned = {"prompt": (3 * first["prompt"] @ turn).astype(np.float32)}
    assert scores(turned, KEYS)["cka_to_start/prompt/layer01"] == pytest.approx(1, abs=1e-4)
    other = scores(planted(seed=9), KEYS)
    assert other["cka_to_start/prompt/layer00"] < 0.7, "episodes alone still agree"


def test_classes_of_one_episode_are_left_out_and_nothing_left_is_no_number():
    alone = {key: key.rpartition("-s")[0] for key in KEYS}
    found = RetentionScores({"episode": alone})(planted(), KEYS)
    assert np.isnan(found["episode_accuracy/prompt/layer01"])


def test_what_cannot_be_judged_is_said():
    with pytest.raises(ValueError, match="`labels` must have at least one kind of label, but got"):
        RetentionScores({})
    scores = RetentionScores({"instruction": OWN})
    with pytest.raises(ValueError, match="`keys` must name at least 5 samples, but got 2"):
        scores(planted(), KEYS[:2])
    with pytest.raises(ValueError, match="`labels` must have instruction of x-t000-e0000-s0000"):
        scores(planted(), ("x-t000-e0000-s0000", *KEYS[1:]))
