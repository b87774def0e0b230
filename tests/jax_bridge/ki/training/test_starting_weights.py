"""Where training starts."""

import ml_dtypes
import numpy as np
import pytest

from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS, group_of
from jax_bridge.ki.training.starting_weights import starting_weights
from jax_bridge.pi0 import Pi0, Pi0Config
from jax_bridge.pi0.checkpoint import save_params
from jax_bridge.pi0.parameters import leaves, param_shapes


@pytest.fixture(scope="module")
def model(settings_of) -> Pi0Config:
    return settings_of().model


def paligemma(model, path, *, seed=3, **changes):
    """A file as PaliGemma's authors publish it: `params/img/...`, `params/llm/...`."""
    random = np.random.default_rng(seed)
    names = [name for name in param_shapes(model) if group_of(name) in BACKBONE_GROUPS]
    arrays = {
        f"params/{name.removeprefix('PaliGemma/')}": random.normal(
            size=param_shapes(model)[name]
        ).astype(np.float32)
        for name in names
    }
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return arrays


def test_paligemmas_file_fills_the_backbone_and_the_expert_is_random(model, tmp_path):
    arrays = paligemma(model, tmp_path / "pt_224.npz")
    found = dict(leaves(starting_weights(str(tmp_path / "pt_224.npz"), model, seed=5)))
    random = dict(leaves(Pi0(model).init(5)))
    for path, leaf in found.items():
        assert leaf.dtype == np.float32
        name = f"params/{path.removeprefix('PaliGemma/')}"
        expected = arrays[name] if group_of(path) in BACKBONE_GROUPS else random[path]
        np.testing.assert_array_equal(leaf, expected, err_msg=path)


def test_bfloat16_in_a_numpy_file_is_read_as_what_it_is(model, tmp_path):
    name = "params/llm/embedder/input_embedding"
    shape = param_shapes(model)["PaliGemma/llm/embedder/input_embedding"]
    table = np.random.default_rng(0).normal(size=shape).astype(ml_dtypes.bfloat16)
    paligemma(model, tmp_path / "a.npz", **{name: table.view("V2")})
    found = starting_weights(str(tmp_path / "a.npz"), model, seed=0)
    np.testing.assert_array_equal(
        found["PaliGemma"]["llm"]["embedder"]["input_embedding"], table.astype(np.float32)
    )


def test_an_openpi_checkpoint_is_read_in_float32(model, tmp_path):
    half = Pi0(Pi0Config(**{**vars(model), "dtype": "bfloat16"})).init(2)
    save_params(tmp_path / "step/params", half)
    found = dict(leaves(starting_weights(str(tmp_path / "step"), model, seed=0)))
    for path, leaf in leaves(half):
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], np.asarray(leaf, np.float32))


def test_a_checkpoint_of_another_config_is_refused_by_the_leaf_that_differs(model, tmp_path):
    save_params(tmp_path / "step/params", Pi0(model).init(2))
    other = Pi0Config(**{**vars(model), "action_dim": model.action_dim + 1})
    with pytest.raises(ValueError, match=r"but got differences: .*action_(in|out)_proj"):
        starting_weights(str(tmp_path / "step"), other, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"params/img/head/kernel": None},
            r"has no PaliGemma/img/head/kernel \(1 of \d+ are missing\)",
        ),
        (
            {"params/img/head/bias": np.zeros(3, np.float32)},
            r"PaliGemma/img/head/bias has shape \[3\] instead of \[16\]",
        ),
        (
            {"params/img/head/bias": np.array([{}], dtype=object)},
            "must be a NumPy archive of plain arrays",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_never_unpickled(model, tmp_path, changes, message):
    paligemma(model, tmp_path / "a.npz", **changes)
    with pytest.raises(ValueError, match=message):
        starting_weights(str(tmp_path / "a.npz"), model, seed=0)


def test_weights_that_are_not_there_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"PaliGemma's .npz, but got .*none.npz"):
        starting_weights(str(tmp_path / "none.npz"), model, seed=0)
    with pytest.raises(FileNotFoundError, match=r"`checkpoint` must be a folder"):
        starting_weights(str(tmp_path / "none"), model, seed=0)
