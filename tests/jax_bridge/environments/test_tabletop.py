"""The built-in simulator: solvable, repeatable, and not to be solved without the words."""

import re

import numpy as np
import pytest

from jax_bridge.environments.environment import Demonstrator, Environment
from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.environments.tabletop.physics import MAX_OPENING, MAX_YAW, World
from jax_bridge.environments.tabletop.scene import CONTAINERS, DISTRACTORS, OBJECTS, draw_scene
from jax_bridge.environments.tabletop.tasks import GOALS, TASKS

UP_AND_OPEN = np.array([0, 0, 1, 0, 0, 0, -1], dtype=np.float32)
DOWN_AND_CLOSE = np.array([0, 0, -1, 0, 0, 0, 1], dtype=np.float32)


@pytest.fixture(scope="module")
def table() -> Tabletop:
    return Tabletop(image_size=64)


def run_demonstrator(table, *, task_id, episode, noise=0.0, seed=0, driver=None):
    """Whether and after how many steps the task was solved."""
    table.reset(task_id=task_id, episode=episode, seed=seed)
    demonstrator = table.demonstrator() if driver is None else driver(table)
    rng = np.random.default_rng([task_id, episode, seed])
    for step in range(1, table.max_steps + 1):
        action = demonstrator.act() + noise * rng.normal(size=7)
        if table.step(np.clip(action, -1, 1).astype(np.float32)).success:
            return True, step
    return False, table.max_steps


def success_rate(table, *, noise, episodes):
    runs = [
        run_demonstrator(table, task_id=task.task_id, episode=episode, noise=noise)[0]
        for task in table.tasks
        for episode in range(episodes)
    ]
    return sum(runs) / len(runs)


def test_it_is_an_environment_with_a_demonstrator(table):
    assert isinstance(table, Environment)
    table.reset(task_id=0, episode=0, seed=0)
    assert isinstance(table.demonstrator(), Demonstrator)
    assert [task.task_id for task in table.tasks] == list(range(len(table.tasks)))
    assert len({task.instruction for task in table.tasks}) == len(table.tasks) >= 10
    assert table.tasks[0].instruction == "put the red cube in the blue bowl"


def test_the_demonstrator_solves_nearly_all_starts_well_before_the_limit(table):
    runs = [
        run_demonstrator(table, task_id=task.task_id, episode=episode)
        for task in table.tasks
        for episode in range(4)
    ]
    assert np.mean([solved for solved, _ in runs]) >= 0.95
    assert np.max([steps for _, steps in runs]) <= 0.6 * table.max_steps


def test_some_noise_is_corrected_and_much_noise_leads_to_failures(table):
    assert success_rate(table, noise=0.3, episodes=2) >= 0.9
    assert success_rate(table, noise=1.0, episodes=1) <= 0.5


def test_the_demonstrator_picks_up_again_what_it_dropped(table):
    table.reset(task_id=0, episode=0, seed=0)
    demonstrator = table.demonstrator()
    while not table.truth()["predicates"]["grasped(red_cube)"]:
        table.step(demonstrator.act())
    for _ in range(4):
        table.step(UP_AND_OPEN)
    assert not table.truth()["predicates"]["grasped(red_cube)"]
    assert any(table.step(demonstrator.act()).success for _ in range(table.max_steps))


def test_the_same_start_and_actions_give_the_same_pictures_states_and_truth():
    def record(table):
        table.reset(task_id=3, episode=5, seed=7)
        demonstrator = table.demonstrator()
        for _ in range(25):
            observation = table.observe()
            yield observation.images, observation.state, table.truth()
            table.step(demonstrator.act())

    used = Tabletop(image_size=64)
    run_demonstrator(used, task_id=1, episode=2, noise=0.5)
    used.observe()
    for one, other in zip(record(used), record(Tabletop(image_size=64)), strict=True):
        for camera in ("base", "left_wrist"):
            np.testing.assert_array_equal(one[0][camera], other[0][camera])
        np.testing.assert_array_equal(one[1], other[1])
        assert one[2] == other[2]


def test_pictures_do_not_depend_on_how_often_somebody_looked():
    pictures = []
    for every in (1, 20):
        table = Tabletop(image_size=64)
        table.reset(task_id=0, episode=0, seed=0)
        demonstrator = table.demonstrator()
        for step in range(20):
            if step % every == 0:
                table.observe()
            table.step(demonstrator.act())
        pictures.append(table.observe().images)
    for camera, picture in pictures[0].items():
        np.testing.assert_array_equal(picture, pictures[1][camera])


def test_starts_are_seeded(table):
    def start(episode, seed):
        table.reset(task_id=0, episode=episode, seed=seed)
        return table.truth()

    assert start(0, 0) == start(0, 0)
    assert start(0, 0) != start(1, 0)
    assert start(0, 0) != start(0, 1)


def test_the_hand_begins_where_the_scene_says_and_data_sets_begun_before_go_on(table):
    table.reset(task_id=2, episode=7, seed=3)
    assert tuple(table.truth()["gripper"]) == draw_scene(episode=7, seed=3).gripper
    assert "hand" not in table.describe()
    assert Tabletop(image_size=64, hand="anywhere").describe() == {
        **table.describe(),
        "hand": "anywhere",
    }


def test_the_outer_camera_alone_shows_what_it_shows_beside_the_other():
    both, base = Tabletop(image_size=64), Tabletop(image_size=64, view="base")
    assert base.describe() == {**both.describe(), "cameras": ["base"]}
    for table in (both, base):
        table.reset(task_id=0, episode=3, seed=0)
    for _ in range(2):
        ((name, picture),) = base.observe().images.items()
        assert name == "base"
        np.testing.assert_array_equal(picture, both.observe().images["base"])
        for table in (both, base):
            table.step(np.full(7, 0.7, np.float32))


def test_a_hand_anywhere_is_all_over_the_table_and_moves_nothing_else(table):
    anywhere, hands, shut, near = Tabletop(image_size=64, hand="anywhere"), [], 0, 0
    for episode in range(50):
        for task_id in (0, 9):
            table.reset(task_id=task_id, episode=episode, seed=1)
            anywhere.reset(task_id=task_id, episode=episode, seed=1)
            usual, drawn = table.truth(), anywhere.truth()
            hands.append(drawn.pop("gripper"))
            del usual["gripper"], usual["gripper_opening"], drawn["gripper_opening"]
            assert drawn == usual
            world = anywhere._running()
            assert world.held is None
            assert world.opening in (0, MAX_OPENING)
        shut += world.opening == 0
        near += min(body.distance(world.x, world.y) for body in world.objects) < 0.08
        assert hands[-1] == hands[-2]
    low, high = np.min(hands, axis=0), np.max(hands, axis=0)
    assert (low >= (-0.26, -0.36, 0.03)).all()
    assert (high <= (0.26, 0.36, 0.24)).all()
    assert (high - low >= 0.8 * np.array([0.48, 0.68, 0.21])).all()
    assert 5 <= shut <= 25, "as after a grasp that missed"
    assert 15 <= near <= 40


def test_the_demonstrator_solves_nearly_all_starts_with_the_hand_anywhere():
    anywhere = Tabletop(image_size=64, hand="anywhere")
    runs = [
        run_demonstrator(anywhere, task_id=task.task_id, episode=episode)
        for task in anywhere.tasks
        for episode in range(2)
    ]
    assert np.mean([solved for solved, _ in runs]) >= 0.95
    assert np.max([steps for _, steps in runs]) <= 0.8 * anywhere.max_steps


def test_only_the_words_tell_tasks_apart(table):
    starts = []
    for task in table.tasks:
        table.reset(task_id=task.task_id, episode=4, seed=2)
        observation = table.observe()
        starts.append((observation.images, observation.state, table.truth()["objects"]))
        assert observation.instruction == task.instruction
    for images, state, objects in starts[1:]:
        np.testing.assert_array_equal(images["base"], starts[0][0]["base"])
        np.testing.assert_array_equal(images["left_wrist"], starts[0][0]["left_wrist"])
        np.testing.assert_array_equal(state, starts[0][1])
        assert objects == starts[0][2]


def test_every_object_goes_into_every_container_and_colours_and_shapes_repeat():
    pairs = {(goal.target.name, goal.container.name) for goal in GOALS}
    assert pairs == {(item.name, box.name) for item in OBJECTS for box in CONTAINERS}
    first = GOALS[:4]
    assert len({goal.target.name for goal in first}) == 4
    assert len({goal.container.name for goal in first}) == 4
    colours = [item.colour for item in OBJECTS]
    shapes = [item.shape for item in OBJECTS]
    assert len(set(colours)) < len(colours)
    assert len(set(shapes)) < len(shapes)


def test_distractors_change_and_nothing_overlaps_at_the_start():
    seen = set()
    for episode in range(30):
        placed = draw_scene(episode=episode, seed=0).placed
        seen |= {thing.item.name for thing in placed}
        for i, one in enumerate(placed):
            for other in placed[:i]:
                distance = np.hypot(one.x - other.x, one.y - other.y)
                assert distance > one.item.reach + other.item.reach
    assert seen >= {item.name for item in DISTRACTORS}


@pytest.mark.parametrize("task_id", range(len(TASKS)))
def test_only_the_right_object_in_the_right_container_is_a_success(table, task_id):
    goal = GOALS[task_id]
    for other_id, other in enumerate(GOALS):
        # Drives towards another task's goal while this one is being judged.
        if (goal.target == other.target) == (goal.container == other.container):
            continue
        table.reset(task_id=other_id, episode=1, seed=0)
        driver = table.demonstrator()
        table._goal = goal
        reached = f"in({other.target.name}, {other.container.name})"
        for _ in range(table.max_steps):
            assert not table.step(driver.act()).success
            if table.truth()["predicates"][reached]:
                break
        assert table.truth()["predicates"][reached]


def test_truth_agrees_with_success_at_every_step(table):
    outcomes = set()
    for task_id in (0, 5, 10):
        table.reset(task_id=task_id, episode=0, seed=0)
        demonstrator = table.demonstrator()
        for _ in range(60):
            success = table.step(demonstrator.act()).success
            truth = table.truth()
            assert truth["success"] == success == truth["predicates"][truth["goal"]]
            assert sum(v for k, v in truth["predicates"].items() if k.startswith("grasped")) <= 1
            outcomes.add(success)
    assert outcomes == {False, True}


def test_a_held_object_over_its_container_is_not_yet_a_success(table):
    table.reset(task_id=0, episode=0, seed=0)
    demonstrator = table.demonstrator()
    over_while_held = False
    for _ in range(60):
        success = table.step(demonstrator.act()).success
        world = table._running()
        if world.held is not None and world.held.over(world.find(CONTAINERS[0])):
            over_while_held = True
            assert not success
    assert over_while_held
    assert success


def test_a_carried_object_moves_with_the_hand_and_falls_when_let_go(table):
    table.reset(task_id=0, episode=0, seed=0)
    demonstrator = table.demonstrator()
    while not table.truth()["predicates"]["grasped(red_cube)"]:
        table.step(demonstrator.act())
    before = table.truth()
    for _ in range(3):
        table.step(np.array([0, 0.5, 1, 0, 0, 0, 1], dtype=np.float32))
    after = table.truth()
    moved = np.subtract(after["objects"]["red_cube"], before["objects"]["red_cube"])
    hand = np.subtract(after["gripper"], before["gripper"])
    np.testing.assert_allclose(moved, hand, atol=1e-9)
    assert moved[2] > 0.05
    for _ in range(5):
        table.step(UP_AND_OPEN)
    assert table.truth()["objects"]["red_cube"][2] == pytest.approx(OBJECTS[0].height / 2)


def test_an_object_let_go_on_a_rim_slides_off_it():
    for inside in (True, False):
        world = World(draw_scene(episode=0, seed=0))
        body, bowl = world.objects[0], world.containers[0]
        body.x = bowl.x + bowl.item.radius + (-0.005 if inside else 0.005)
        body.y, body.z = bowl.y, 0.2
        world.falling = [body]
        for _ in range(8):
            world.step(UP_AND_OPEN)
        assert world.contains(bowl, body) == inside
        distance = body.distance(bowl.x, bowl.y)
        rim = bowl.item.radius
        clear = rim - body.item.radius if inside else rim + body.item.radius
        assert distance <= clear if inside else distance >= clear - 1e-9


def test_an_object_can_be_stacked_and_falls_when_its_support_is_taken():
    world = World(draw_scene(episode=0, seed=0))
    lower, upper = world.objects[0], world.objects[1]
    upper.x, upper.y, upper.z = lower.x, lower.y, 0.1
    world.falling = [upper]
    for _ in range(3):
        world.step(np.zeros(7))
    assert upper.z == pytest.approx(lower.item.height)
    world.x, world.y, world.z, world.opening = *lower.centre, 0.025
    world.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert world.held is lower
    for _ in range(3):
        world.step(np.array([1, 0, 0, 0, 0, 0, 1.0]))
    assert upper.z == 0.0


def test_observations_have_liberos_layout(table):
    table.reset(task_id=0, episode=0, seed=0)
    observation = table.observe()
    assert set(observation.images) == {"base", "left_wrist"}
    for picture in observation.images.values():
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
    assert observation.state.shape == (8,)
    assert observation.state.dtype == np.float32
    np.testing.assert_allclose(observation.state[:3], table.truth()["gripper"], atol=1e-6)
    np.testing.assert_allclose(observation.state[3:6], [np.pi, 0, 0], atol=1e-6)
    np.testing.assert_allclose(observation.state[6:], [MAX_OPENING, -MAX_OPENING])


def test_the_state_holds_the_turn_as_axis_times_angle(table):
    table.reset(task_id=0, episode=0, seed=0)
    for _ in range(4):
        table.step(np.array([0, 0, 0, 0, 0, 1, -1], dtype=np.float32))
    yaw = table.truth()["gripper_yaw"]
    turn = table.observe().state[3:6].astype(np.float64)
    angle = np.linalg.norm(turn)
    k = turn / angle
    cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    assert 0.5 < yaw < MAX_YAW
    np.testing.assert_allclose(rotation, about_z @ np.diag([1, -1, -1]), atol=1e-6)


def test_actions_beyond_the_range_are_clipped(table):
    def hand_after(scale):
        table.reset(task_id=0, episode=0, seed=0)
        table.step(scale * np.array([1, -1, -1, 0, 0, 1, 1], dtype=np.float32))
        return table.truth()

    assert hand_after(1) == hand_after(50)


def outer_pixel(point, size):
    """Row and column at which the documented outer camera sees a point."""
    position, target = np.array([0.56, 0, 0.80]), np.array([-0.03, 0, 0.04])
    ahead = (target - position) / np.linalg.norm(target - position)
    right = np.array([0.0, 1.0, 0.0])
    away = np.asarray(point) - position
    scale = size / 2 / np.tan(np.radians(20)) / (away @ ahead)
    return (
        int(size / 2 + scale * (away @ np.cross(ahead, right))),
        int(size / 2 + scale * (away @ right)),
    )


@pytest.mark.parametrize(
    ("name", "channel"), [("red_cube", 0), ("red_ball", 0), ("green_cube", 1), ("blue_cylinder", 2)]
)
def test_objects_show_their_colour_where_the_truth_says_they_are(name, channel):
    table = Tabletop(image_size=128)
    for episode in range(6):
        table.reset(task_id=0, episode=episode, seed=0)
        # The hand stands at the far corner, where it covers nothing.
        world = table._running()
        world.x, world.y, world.z = -0.26, 0.36, 0.32
        place = outer_pixel(table.truth()["objects"][name], 128)
        pixel = table.observe().images["base"][place].astype(int)
        assert pixel.argmax() == channel
        assert np.delete(pixel, channel).max() < pixel[channel] - 40


def test_a_held_object_shows_between_the_fingers_in_the_wrist_camera(table):
    table.reset(task_id=0, episode=0, seed=0)
    demonstrator = table.demonstrator()
    while not table.truth()["predicates"]["grasped(red_cube)"]:
        before = table.observe().images["left_wrist"]
        table.step(demonstrator.act())
    for _ in range(6):
        table.step(demonstrator.act())
    after = table.observe().images["left_wrist"]
    for picture in (before, after):
        red, green, blue = picture[14, 32].astype(int)
        assert red > max(green, blue) + 60


def test_any_image_size_is_rendered_and_odd_ones_too():
    for size in (1, 33, 224):
        table = Tabletop(image_size=size)
        table.reset(task_id=0, episode=0, seed=0)
        demonstrator = table.demonstrator()
        for _ in range(12):
            table.step(demonstrator.act())
        for picture in table.observe().images.values():
            assert picture.shape == (size, size, 3)


def test_a_random_policy_never_leaves_the_workspace_or_fails(table):
    rng = np.random.default_rng(0)
    table.reset(task_id=0, episode=0, seed=0)
    for step in range(300):
        table.step(rng.uniform(-1, 1, 7).astype(np.float32))
        if step % 10 == 0:
            assert np.isfinite(table.observe().state).all()
    x, y, z = table.truth()["gripper"]
    assert abs(x) < 0.4
    assert abs(y) < 0.4
    assert 0 < z < 0.4


def test_bad_arguments_are_told_in_one_sentence(table):
    with pytest.raises(ValueError, match=re.escape("`task_id` must be in 0 to 15")):
        table.reset(task_id=16, episode=0, seed=0)
    with pytest.raises(ValueError, match=r"`task_id` .* but got -1"):
        table.reset(task_id=-1, episode=0, seed=0)
    with pytest.raises(ValueError, match="`episode` must not be negative, but got -2"):
        table.reset(task_id=0, episode=-2, seed=0)
    with pytest.raises(ValueError, match="`seed` must not be negative, but got -3"):
        table.reset(task_id=0, episode=0, seed=-3)
    with pytest.raises(ValueError, match="`image_size` must be positive, but got 0"):
        Tabletop(image_size=0)
    table.reset(task_id=0, episode=0, seed=0)
    with pytest.raises(ValueError, match=re.escape("must have shape (7,), but got (32,)")):
        table.step(np.zeros(32, dtype=np.float32))
    with pytest.raises(ValueError, match=r"`action` must be finite, but got .*nan"):
        table.step(np.full(7, np.nan, dtype=np.float32))


def test_nothing_runs_before_reset_or_after_close():
    table = Tabletop(image_size=16)
    with pytest.raises(ValueError, match="no episode is running"):
        table.observe()
    table.reset(task_id=0, episode=0, seed=0)
    table.close()
    with pytest.raises(ValueError, match="no episode is running"):
        table.step(DOWN_AND_CLOSE)
