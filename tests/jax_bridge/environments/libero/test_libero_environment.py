import gc
import importlib
import json

import numpy as np
import pytest

from jax_bridge.environments.environment import Demonstrator, Environment
from jax_bridge.environments.libero import Libero
from jax_bridge.environments.libero.installation import bddl_file, import_simulator, init_file
from jax_bridge.environments.libero.state import robot_state
from jax_bridge.environments.libero.suites import MAX_STEPS, suite_tasks

pytestmark = pytest.mark.libero

WAIT = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
SIZE = 64


@pytest.fixture
def libero():
    """Makes environments and closes them."""
    made = []

    def make(**arguments):
        made.append(Libero(**{"image_size": SIZE, **arguments}))
        return made[-1]

    yield make
    for env in made:
        env.close()


@pytest.fixture(scope="module")
def shared_environment(libero_assets):
    env = Libero(assets=str(libero_assets), image_size=SIZE)
    yield env
    env.close()


def moves(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, 0.5, (count, 7)), -1, 1).astype(np.float32)


def seen(env):
    """All that can be told apart of a moment: images, state, truth."""
    observation = env.observe()
    images = [observation.images[name].tobytes() for name in ("base", "left_wrist")]
    return [*images, observation.state.tobytes(), json.dumps(env.truth())]


def test_every_suite_lists_the_benchmarks_own_tasks_and_words():
    """The benchmark's module imports torch, so the environment reads its table alone."""
    import_simulator()
    benchmark = importlib.import_module("libero.libero.benchmark")
    for suite in MAX_STEPS:
        theirs = benchmark.get_benchmark(suite)().tasks
        ours = suite_tasks(suite)
        assert [(t.name, t.instruction) for t in ours] == [(t.name, t.language) for t in theirs]
        assert [t.task_id for t in ours] == list(range(len(theirs)))
        assert all(bddl_file(suite, t.name).is_file() for t in ours)
        assert all(init_file(suite, t.name).is_file() for t in ours)


def test_the_environment_keeps_its_protocol(shared_environment):
    assert isinstance(shared_environment, Environment)
    assert shared_environment.suite == "libero_object"
    assert shared_environment.max_steps == 280
    assert shared_environment.episodes == 50
    assert len(shared_environment.tasks) == 10
    described = json.loads(json.dumps(shared_environment.describe()))
    assert described["versions"]["mujoco"]
    assert described["settle_steps"] == 10
    assert described["image_size"] == SIZE
    shared_environment.reset(task_id=0, episode=0, seed=7)
    observation = shared_environment.observe()
    assert set(observation.images) == {"base", "left_wrist"}
    for image in observation.images.values():
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.uint8
        assert image.flags["C_CONTIGUOUS"]
        assert image.std() > 10
    assert observation.state.shape == (8,)
    assert observation.instruction == shared_environment.tasks[0].instruction


def stock_episodes(suite, task, episodes, seed, actions):
    """openpi's evaluation loop on the stock environment: what every step shows."""
    wrapper = import_simulator().OffScreenRenderEnv
    env = wrapper(
        bddl_file_name=str(bddl_file(suite, task)), camera_heights=SIZE, camera_widths=SIZE
    )
    torch = importlib.import_module("torch")
    states = torch.load(init_file(suite, task), weights_only=False)
    env.seed(seed)
    episodes_seen = []
    for episode in range(episodes):
        env.reset()
        readings = env.set_init_state(states[episode])
        for _ in range(10):
            readings, *_ = env.step([0] * 6 + [-1])
        frames = [readings]
        for action in actions:
            readings, *_ = env.step(action)
            frames.append(readings)
        episodes_seen.append(frames)
    env.close()
    return episodes_seen


def test_every_frame_is_that_of_openpis_loop_on_the_stock_environment(libero):
    """Cabinet and stove stand elsewhere at each reset, which the seed must reproduce."""
    task, actions = suite_tasks("libero_spatial")[2].name, moves(4)
    with_stock = stock_episodes("libero_spatial", task, 2, 7, actions)
    env = libero(suite="libero_spatial")
    for episode in (1, 0):
        env.reset(task_id=2, episode=episode, seed=7)
        for number, readings in enumerate(with_stock[episode]):
            if number > 0:
                env.step(actions[number - 1])
            ours = env.observe()
            for name, camera in (("base", "agentview"), ("left_wrist", "robot0_eye_in_hand")):
                turned = readings[f"{camera}_image"][::-1, ::-1]
                np.testing.assert_array_equal(ours.images[name], turned)
            np.testing.assert_array_equal(ours.state, robot_state(readings))


def test_the_same_arguments_give_the_same_start_whatever_was_run_before(libero):
    first, second = libero(), libero()
    first.reset(task_id=1, episode=3, seed=5)
    start = seen(first)
    for action in moves(3):
        first.step(action)
    moved = seen(first)
    assert moved != start
    first.reset(task_id=1, episode=4, seed=5)
    assert seen(first) != start
    second.reset(task_id=1, episode=3, seed=5)
    assert seen(second) == start
    first.reset(task_id=1, episode=3, seed=5)
    assert seen(first) == start
    for action in moves(3):
        second.step(action)
    assert seen(second) == moved


def test_looking_and_asking_change_nothing(libero):
    watched, unwatched = libero(), libero()
    for env in (watched, unwatched):
        env.reset(task_id=0, episode=0, seed=0)
    for action in moves(5):
        watched.step(action)
        seen(watched)
        unwatched.step(action)
    assert seen(watched) == seen(unwatched)
    unwatched.close()
    assert seen(watched) == seen(watched)


def test_a_forgotten_environment_does_not_take_anothers_pictures_along(libero):
    kept, forgotten = libero(), Libero(image_size=SIZE)
    for env in (forgotten, kept):
        env.reset(task_id=0, episode=0, seed=0)
    before = seen(kept)
    del env, forgotten
    gc.collect()
    assert seen(kept) == before


def test_a_state_that_the_simulator_gives_up_ends_the_episode(libero, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mujoco writes a log where it runs
    env = libero()
    env.reset(task_id=0, episode=0, seed=0)
    assert not env.step(WAIT).done
    env._simulator._env.sim.data.qvel[0] = np.nan
    assert env.step(WAIT).done
    env.reset(task_id=0, episode=0, seed=0)
    assert not env.step(WAIT).done


def test_a_reset_leaves_numpys_own_random_numbers_alone(shared_environment):
    np.random.seed(3)  # noqa: NPY002 the stream that robosuite uses
    expected = np.random.RandomState(3).random(4)
    shared_environment.reset(task_id=0, episode=1, seed=9)
    np.testing.assert_array_equal(np.random.random(4), expected)  # noqa: NPY002


def test_truth_tells_places_and_the_goal(shared_environment):
    shared_environment.reset(task_id=0, episode=0, seed=7)
    truth = json.loads(json.dumps(shared_environment.truth()))
    assert truth["predicates"] == {"in(alphabet_soup_1, basket_1_contain_region)": False}
    assert {"alphabet_soup_1", "basket_1"} <= set(truth["objects"])
    assert all(len(place) == 3 for place in [truth["gripper"], *truth["objects"].values()])
    state = shared_environment.observe().state
    np.testing.assert_allclose(truth["gripper"], state[:3], atol=2e-3)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_demonstrator_fulfils_the_goal(shared_environment, noise):
    env, rng = shared_environment, np.random.default_rng(1)
    env.reset(task_id=0, episode=2, seed=7)
    demonstrator = env.demonstrator()
    assert isinstance(demonstrator, Demonstrator)
    for _ in range(env.max_steps):
        action = demonstrator.act()
        assert action.dtype == np.float32
        assert np.abs(action).max() <= 1
        action[:3] = np.clip(action[:3] + rng.normal(0, noise, 3), -1, 1)
        if env.step(action).success:
            break
    assert env.truth()["predicates"] == {"in(alphabet_soup_1, basket_1_contain_region)": True}


def test_the_demonstrator_fetches_again_what_it_lost(shared_environment):
    env = shared_environment
    env.reset(task_id=0, episode=0, seed=7)
    demonstrator = env.demonstrator()
    legs = []
    success = False
    for _ in range(env.max_steps):
        action = demonstrator.act()
        if demonstrator.leg.name == "lift" and legs.count("lift") > 10 and "lost" not in legs:
            for _ in range(20):
                env.step(WAIT)
            legs.append("lost")
            continue
        legs.append(demonstrator.leg.name)
        success = success or env.step(action).success
    assert "hover" in legs[legs.index("lost") :]
    assert success


def test_only_libero_object_has_a_demonstrator(libero):
    with pytest.raises(ValueError, match=r"libero_object, the only one.*'libero_spatial'"):
        libero(suite="libero_spatial").demonstrator()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"task_id": 10}, "`task_id` must be in 0 to 9, but got 10"),
        ({"task_id": -1}, "`task_id` must be in 0 to 9, but got -1"),
        ({"episode": 50}, "`episode` must be in 0 to 49, but got 50"),
        ({"seed": 2**32}, "`seed` must be in 0 to 4294967295, but got 4294967296"),
    ],
)
def test_a_start_that_does_not_exist_is_refused(shared_environment, arguments, shown):
    with pytest.raises(ValueError, match=shown):
        shared_environment.reset(**{"task_id": 0, "episode": 0, "seed": 0, **arguments})


@pytest.mark.parametrize("action", [np.zeros(6, np.float32), np.full(7, np.nan, np.float32)])
def test_an_action_that_is_none_is_refused(shared_environment, action):
    shared_environment.reset(task_id=0, episode=0, seed=0)
    with pytest.raises(ValueError, match="`action` must be 7 finite numbers, but got"):
        shared_environment.step(action)


def test_nothing_can_be_asked_before_a_start_or_after_closing(libero):
    env = libero()
    with pytest.raises(ValueError, match="`observe` must follow `reset`"):
        env.observe()
    env.close()
    env.close()
    with pytest.raises(ValueError, match="`step` must follow `reset`"):
        env.step(WAIT)


def test_assets_that_lack_an_object_are_an_error_that_names_the_task(
    libero, libero_assets, tmp_path
):
    scenes = next(libero_assets.rglob("scenes"))
    (tmp_path / "scenes").symlink_to(scenes)
    env = libero(assets=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="task pick_up_the_alphabet_soup_and_place_it"):
        env.reset(task_id=0, episode=0, seed=0)
