import json
from pathlib import Path

import pytest

from jax_bridge.policies.conventions import CONVENTIONS, Convention, Recipe, get_convention
from jax_bridge.policies.conventions.libero import LIBERO
from jax_bridge.vocabulary import CAMERAS

DATA = Path(__file__).parents[2] / "data"
FACTS = json.loads((DATA / "openpi_processing_facts.json").read_text())

MY_ROBOT = Convention(
    name="my_robot",
    image_keys={"image": "base"},
    state_key="state",
    state_dim=3,
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
