import json
from pathlib import Path

import numpy as np
import pytest

from jax_bridge.policies.conventions import CONVENTIONS, Convention, Recipe, get_convention
from jax_bridge.policies.conventions.aloha import ALOHA
from jax_bridge.policies.conventions.droid import DROID
from jax_bridge.policies.conventions.libero import LIBERO
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.vocabulary import CAMERAS

DATA = Path(__file__).parents[2] / "data"
FACTS = json.loads((DATA / "openpi_processing_facts.json").read_text())

MY_ROBOT = Convention(
    name="my_robot",
    image_keys={"image": "base"},
    state_keys={"state": 3},
    action_dim=2,
    asset_id="my/robot",
    pi0=Recipe(normalisation="z_score"),
    pi05=Recipe(normalisation="quantile", state_in_prompt=True),
)


def test_libero_gives_the_model_the_cameras_that_openpi_gives_it():
    masks = FACTS["libero_inputs"]["pi05"]["image_mask"]
    given = {c.openpi_key: c.name in LIBERO.image_keys.values() for c in CAMERAS}
    assert given == masks


def test_libero_follows_the_released_recipes():
    pi0, pi05 = LIBERO.recipe(pi05=False, trained=True), LIBERO.recipe(pi05=True, trained=True)
    assert pi0.normalisation == "z_score"
    assert pi0.delta_mask == (True,) * 6 + (False,)
    assert pi0.action_horizon == 50
    assert pi05.normalisation == "quantile"
    assert pi05.delta_mask is None
    assert pi05.action_horizon == 10
    assert not pi05.state_in_prompt
    assert (LIBERO.state_dim, LIBERO.action_dim) == (8, 7)


def test_random_weights_take_no_deltas_and_pi05_reads_the_state():
    assert LIBERO.recipe(pi05=True, trained=False).state_in_prompt
    assert not LIBERO.recipe(pi05=False, trained=False).state_in_prompt
    assert LIBERO.recipe(pi05=False, trained=False).delta_mask is None


def test_every_convention_is_registered_under_its_name():
    assert {name: convention.name for name, convention in CONVENTIONS.items()} == {
        name: name for name in CONVENTIONS
    }


def test_a_convention_of_the_users_own_is_found_by_its_path(tmp_path, monkeypatch):
    source = (
        "import dataclasses\n"
        "from jax_bridge.policies.conventions.libero import LIBERO\n"
        "MINE = dataclasses.replace(LIBERO, name='mine', action_dim=6)\n"
    )
    (tmp_path / "conventions_of_a_user.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert get_convention("conventions_of_a_user.MINE").action_dim == 6
    assert get_convention("libero") is LIBERO


@pytest.mark.parametrize("name", ["libreo", "json.dumps", "no_such_module.X", ""])
def test_an_unknown_convention_is_refused(name):
    with pytest.raises(ValueError, match=rf"must be one of libero, .*but got '{name}'"):
        get_convention(name)


def test_a_convention_with_an_unknown_camera_is_refused():
    with pytest.raises(ValueError, match=r"cameras out of base, .*got 'head' for 'image'"):
        Convention(**{**vars(MY_ROBOT), "image_keys": {"image": "head"}})


def test_a_convention_with_the_state_in_pi0s_prompt_is_refused():
    with pytest.raises(ValueError, match=r"`pi0` must not put the state in its prompt"):
        Convention(
            **{**vars(MY_ROBOT), "pi0": Recipe(normalisation="z_score", state_in_prompt=True)}
        )


def test_a_recipe_with_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match=r"one of z_score, quantile, but got 'minmax'"):
        Recipe(normalisation="minmax")


def test_droid_follows_the_released_recipes():
    pi0, pi05 = DROID.recipe(pi05=False, trained=True), DROID.recipe(pi05=True, trained=True)
    assert (pi0.normalisation, pi0.delta_mask, pi0.action_horizon) == ("z_score", None, 10)
    assert (pi05.normalisation, pi05.delta_mask, pi05.action_horizon) == ("quantile", None, 15)
    assert pi05.state_in_prompt
    assert DROID.cameras == ("base", "left_wrist")
    assert (DROID.state_dim, DROID.action_dim, DROID.asset_id) == (8, 8, "droid")


def test_aloha_follows_the_released_recipes():
    pi0, pi05 = ALOHA.recipe(pi05=False, trained=True), ALOHA.recipe(pi05=True, trained=True)
    assert (pi0.normalisation, pi05.normalisation) == ("z_score", "quantile")
    grippers = [i for i, relative in enumerate(pi0.delta_mask) if not relative]
    assert (grippers, len(pi0.delta_mask)) == ([6, 13], 14)
    assert pi05.delta_mask == pi0.delta_mask
    assert pi05.state_in_prompt
    assert ALOHA.cameras == ("base", "left_wrist", "right_wrist")
    assert (ALOHA.state_dim, ALOHA.action_dim, ALOHA.asset_id) == (14, 14, "trossen")


def test_alohas_gripper_is_the_angle_that_its_linkage_gives():
    """The other way round: from the motor's angle, by the linkage, to the opening."""
    angles = np.linspace(0.6, 1.55, 5)
    height = 0.022 * np.sin(angles)
    reach = height + np.sqrt(0.036**2 - (0.022 * np.cos(angles)) ** 2)
    for angle, opening in zip(angles, (reach - 0.01844) / (0.05800 - 0.01844), strict=True):
        state = np.zeros(14, np.float32)
        state[[6, 13]] = opening
        seen = ALOHA.units.state_to_model(state)
        assert seen[[6, 13]] == pytest.approx([(angle - 0.5476) / (1.6296 - 0.5476)] * 2, abs=1e-5)


def test_alohas_joints_turn_as_the_weights_have_learnt():
    state = np.arange(1, 15, dtype=np.float32)
    seen = ALOHA.units.state_to_model(state)
    turned = [1, 2, 8, 9]
    assert np.flatnonzero(seen < 0).tolist() == turned
    joints = [i for i in range(14) if i not in (6, 13)]
    assert np.abs(seen[joints]).tolist() == state[joints].tolist()
    actions = np.stack([state, -state])
    sent = ALOHA.units.actions_to_robot(actions)
    assert (sent[:, joints] / actions[:, joints] == np.where(np.isin(joints, turned), -1, 1)).all()
    # 0 is the closed gripper of the training data, 0.5476 rad; the robot counts from -0.6213 rad.
    sent = ALOHA.units.actions_to_robot(np.zeros((1, 14)))
    assert sent[0, [6, 13]] == pytest.approx([(0.5476 + 0.6213) / (1.4910 + 0.6213)] * 2)


def test_units_hold_for_the_dimensions_that_they_are_made_for():
    with pytest.raises(ValueError, match=r"`robot_action_dim` must be 14, .*aloha .*but got 7"):
        Pi0Policy(preset="pi05_micro", convention="aloha", robot_action_dim=7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optional_images": ("wrist",)}, "`optional_images` must name `image_keys`, but got 'wri"),
        ({"state_keys": {}}, "`state_keys` must give each part its dimensions"),
        ({"state_keys": {"state": 0}}, r"its dimensions, but got \{'state': 0\}"),
    ],
)
def test_a_convention_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Convention(**{**vars(MY_ROBOT), **changes})
