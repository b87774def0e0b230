"""Orbax folders: both of openpi's flavours, our own, and folders that are neither."""

import jax
import numpy as np
import pytest

from jax_bridge.checkpoints.orbax_folder import OrbaxFolder
from jax_bridge.pi0 import (
    Pi0,
    Pi0Config,
    infer_config,
    load_params,
    param_shapes,
    params_digest,
    save_params,
)
from jax_bridge.pi0.parameters import leaves, unflatten

CONFIG = Pi0Config.preset("pi0_micro")


@pytest.fixture(scope="module")
def params():
    return Pi0(CONFIG).init(0)


@pytest.mark.parametrize("flavour", ["plain", "value"])
def test_openpis_checkpoints_load_unchanged(shared, load_golden, golden_folders, flavour):
    folder = shared / "golden" / "checkpoints" / f"pi0_micro_{flavour}"
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not in {folder.parent}")
    golden = load_golden(golden_folders["data"], "pi0_micro")
    loaded = load_params(folder / "params")
    assert params_digest(loaded) == params_digest(golden.params)
    assert params_digest(load_params(str(folder), config=CONFIG)) == params_digest(golden.params)
    actions = golden.model.sample_actions(
        loaded, golden.observation, noise=golden.inputs["sample_noise"]
    )
    assert np.abs(actions - golden.results["sample_actions"]).max() <= 3e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saving_and_loading_is_bitwise(tmp_path, params, dtype):
    save_params(tmp_path / "first" / "params", params)
    cast = load_params(tmp_path / "first", dtype=dtype)
    assert {leaf.dtype.name for _, leaf in leaves(cast)} == {dtype}
    save_params(tmp_path / "second" / "params", cast)
    again = load_params(tmp_path / "second")
    assert params_digest(again) == params_digest(cast)
    assert (params_digest(again) == params_digest(params)) == (dtype == "float32")
    with pytest.raises(ValueError, match=r"`path` must not exist, but got .*second"):
        save_params(tmp_path / "second" / "params", cast)


def test_saved_folder_has_openpis_layout(tmp_path, params):
    save_params(tmp_path / "params", params)
    names = {path.name for path in (tmp_path / "params").iterdir()}
    assert {"_METADATA", "_sharding", "manifest.ocdbt", "d"} <= names
    metadata = (tmp_path / "params" / "_METADATA").read_text()
    assert '"use_zarr3": false' in metadata
    assert "('params', 'PaliGemma', 'img', 'embedding', 'bias')" in metadata


def test_parameters_go_where_their_sharding_says(tmp_path, params):
    save_params(tmp_path / "params", params)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("model",))
    asked = {}

    def sharding(path, shape):
        asked[path] = shape
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    loaded = load_params(tmp_path, sharding=sharding)
    assert asked == param_shapes(CONFIG)
    assert params_digest(loaded) == params_digest(params)
    assert all(leaf.sharding.mesh == mesh for _, leaf in leaves(loaded))


def test_the_largest_parameters_are_read_first_and_never_whole_in_another_type(
    tmp_path, params, monkeypatch
):
    """That is what bounds the memory; benchmarks/checkpoint.py measures it."""
    save_params(tmp_path / "params", params)
    sizes, held = [], []
    fill = OrbaxFolder.fill

    def watched(self, name, out):
        sizes.append(self.tensors[name].nbytes)
        held.append(out.dtype.name)
        fill(self, name, out)

    monkeypatch.setattr(OrbaxFolder, "fill", watched)
    load_params(tmp_path, dtype="bfloat16")
    assert sizes == sorted(sizes, reverse=True)
    assert set(held) == {"bfloat16"}


def change_leaf(params, path, value):
    flat = {**dict(leaves(params)), path: value}
    return unflatten({key: leaf for key, leaf in flat.items() if leaf is not None})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("state_proj/bias", None, "state_proj/bias is missing"),
        ("extra/kernel", np.zeros(2, np.float32), "extra/kernel is extra"),
        ("state_proj/bias", np.zeros(3, np.float32), r"state_proj/bias has shape \[3\] instead"),
        (
            "PaliGemma/llm/layers/attn/q_einsum/w",
            np.zeros((4, 8, 64, 15), np.float32),
            r"q_einsum/w has shape \[4, 8, 64, 15\] instead of \[4, 8, 64, 16\]",
        ),
    ],
)
def test_a_damaged_tree_is_an_error_that_names_the_parameter(
    tmp_path, params, path, value, message
):
    save_params(tmp_path / "params", change_leaf(params, path, value))
    with pytest.raises(ValueError, match=message):
        load_params(tmp_path / "params")
    with pytest.raises(ValueError, match=message):
        load_params(tmp_path / "params", config=CONFIG)


def test_a_checkpoint_of_another_model_is_an_error(tmp_path, params):
    save_params(tmp_path / "params", params)
    with pytest.raises(ValueError, match="final_norm_1/Dense_0/bias is missing"):
        load_params(tmp_path / "params", config=Pi0Config.preset("pi05_micro"))


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got '.*nowhere', which does not exist"):
        load_params(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"`path` must be an Orbax folder .*, but got"):
        load_params(tmp_path)
    with pytest.raises(
        ValueError, match="`dtype` must be one of float32, bfloat16, but got 'int8'"
    ):
        load_params(tmp_path, dtype="int8")


@pytest.mark.parametrize("form", ["relative", "trailing slash", "home"])
def test_a_folder_may_be_written_in_any_way(tmp_path, params, monkeypatch, form):
    save_params(tmp_path / "params", params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = {"relative": "params", "trailing slash": f"{tmp_path}/params/", "home": "~/params"}
    assert params_digest(load_params(path[form])) == params_digest(params)


def test_an_address_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"local folder, but got 'gs://b/pi0/params'\. Bring it"):
        load_params("gs://b/pi0/params")


@pytest.mark.parametrize("contents", ["", "{}", '{"tree_metadata": {"(\'params'])
def test_a_damaged_folder_is_named_in_one_sentence(tmp_path, contents):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "_METADATA").write_text(contents)
    with pytest.raises(ValueError, match=r"whole Orbax folder, but '.*params' could not be read"):
        load_params(tmp_path / "params")


@pytest.mark.parametrize("name", ["pi0", "pi05_tiny", "pi05_so400m", "pi05"])
def test_config_is_read_off_the_parameters(name):
    config = Pi0Config.preset(name, action_dim=7, vocab_size=1000)
    tree = unflatten(
        {p: np.broadcast_to(np.float32(0), shape) for p, shape in param_shapes(config).items()}
    )
    horizon = config.action_horizon
    assert infer_config(tree, action_horizon=horizon) == config
