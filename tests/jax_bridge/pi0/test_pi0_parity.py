"""Parity with openpi: every golden variant that is there, at fixed tolerances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.pi0 import CaptureSpec, Pi0Config, embedding, param_shapes, sampler, siglip
from jax_bridge.pi0.capture_plan import flow_times
from jax_bridge.vocabulary import IMAGE_REGIONS

VARIANTS = [
    f"{family}_{size}" for family in ("pi0", "pi05") for size in ("micro", "tiny", "so400m")
]
SHAPES_AT_REAL_SIZE = "real_size_param_shapes.json"


SOURCES = [("data", "pi0_micro"), ("data", "pi05_micro")] + [
    ("shared", name + dtype) for name in VARIANTS for dtype in ("", "_bf16")
]


@pytest.fixture(scope="module", params=SOURCES, ids="-".join)
def run(request, load_golden, golden_folders):
    """One variant, with all that we compute for it, lazily."""
    where, name = request.param
    if where == "data" and (golden_folders["shared"] / f"golden_{name}.npz").is_file():
        pytest.skip("this reduced copy is for places without ../shared/golden")
    return Run(load_golden(golden_folders[where], name))


class Run:
    def __init__(self, golden):
        self.golden = golden
        self.bf16 = golden.name.endswith("_bf16")

    def expect(self, key, computed, *, tolerance, rms=0.02, valid=None):
        """Compares with openpi's numbers, absolutely in float32, relatively in bfloat16."""
        expected = self.golden.results[key]
        computed = np.asarray(computed, np.float32)
        assert computed.shape == expected.shape, key
        assert np.isfinite(computed).all(), key
        difference = np.abs(computed - expected)
        if valid is not None:
            difference, expected = difference[valid], expected[valid]
        if self.bf16:
            relative = np.sqrt(np.square(difference).mean() / np.square(expected).mean())
            assert relative <= rms, key
        else:
            assert difference.max() <= tolerance, key

    @functools.cached_property
    def evaluated(self):
        """Embedded prefix, prefix pass and velocity of the golden's training-style pass."""
        golden, config = self.golden, self.golden.model.config

        @jax.jit
        def run(params, observation, noisy, time):
            embedded = embedding.embed_prefix(params, observation, config)
            prefix = sampler.run_prefix(params, embedded, config)
            suffix = sampler.prepare_suffix(params, prefix, config)
            conditions = sampler.prepare_conditions(params, time, config)
            velocity = sampler.velocity(
                params, suffix, observation.state, noisy, conditions, config
            )
            return embedded, prefix, velocity

        return run(golden.params, golden.observation, golden.results["x_t"], golden.inputs["time"])

    @functools.cached_property
    def captured(self):
        golden = self.golden
        spec = CaptureSpec(sites=("hidden_states", "x_t", "velocity"))
        return golden.model.sample_actions(
            golden.params, golden.observation, noise=golden.inputs["sample_noise"], capture=spec
        )

    def tokens(self, regions, expert):
        parts = [f"{expert}.hidden_states.{region}.tokens" for region in regions]
        return np.concatenate([self.captured[1][p] for p in parts if p in self.captured[1]], -2)

    @property
    def valid(self):
        """Valid prefix rows, for arrays that begin with layer, batch, token."""
        mask = self.golden.results["prefix_mask"]
        return np.broadcast_to(mask, (self.golden.model.config.depth, *mask.shape))


def test_prefix_embeddings_are_openpis(run):
    embedded = run.evaluated[0]
    if "prefix_embs" not in run.golden.results:
        pytest.skip("this golden holds no prefix embeddings")
    ix = run.golden.prefix_tokens
    np.testing.assert_array_equal(embedded.mask[:, ix], run.golden.results["prefix_mask"])
    run.expect("prefix_embs", embedded.tokens[:, ix], tolerance=3e-5)


def test_prefix_layers_are_openpis(run):
    regions = (*IMAGE_REGIONS, "text")
    layers = np.moveaxis(run.tokens(regions, "vlm"), 1, 0)[:, :, run.golden.prefix_tokens]
    run.expect("joint_prefix_hidden", layers, tolerance=3e-5, valid=run.valid)
    if "prefix_only_hidden" in run.golden.results:
        # Masked rows too: they attend uniformly, as openpi's do.
        run.expect("prefix_only_hidden", layers, tolerance=3e-5)


def test_kv_cache_is_openpis(run):
    cache, ix = run.evaluated[1].cache, run.golden.prefix_tokens
    run.expect("kv_cache_k", cache.keys[:, :, ix], tolerance=1e-4)
    run.expect("kv_cache_v", cache.values[:, :, ix], tolerance=1e-4)


def test_every_step_of_the_sampler_is_openpis(run):
    actions, latents = run.captured
    np.testing.assert_array_equal(flow_times(10), run.golden.results["time_steps"])
    states = np.moveaxis(np.asarray(latents["action.x_t.action.tokens"]), 1, 0)
    states = np.concatenate([states, np.asarray(actions)[None]])
    run.expect("x_t_steps", states, tolerance=3e-4, rms=0.01)
    velocity = np.moveaxis(np.asarray(latents["action.velocity.action.tokens"]), 1, 0)
    run.expect("v_t_steps", velocity, tolerance=3e-4)


def test_suffix_layers_of_every_step_are_openpis(run):
    if "suffix_hidden_steps" not in run.golden.results:
        pytest.skip("this golden holds no suffix layers of the sampler's steps")
    layers = run.tokens(("state", "action"), "action").transpose(2, 1, 0, 3, 4)
    steps = run.golden.results.get("suffix_steps", slice(None))
    run.expect("suffix_hidden_steps", layers[steps], tolerance=3e-4)


def test_one_evaluation_of_the_velocity_is_openpis(run):
    run.expect("v_t", run.evaluated[2].value, tolerance=3e-4)


@pytest.mark.parametrize(("key", "steps"), [("", 10), ("_1steps", 1)])
def test_sampled_actions_are_openpis(run, key, steps):
    golden = run.golden
    actions = golden.model.sample_actions(
        golden.params, golden.observation, noise=golden.inputs["sample_noise"], num_steps=steps
    )
    run.expect(f"sample_actions{key}", actions, tolerance=3e-4, rms=0.01)


def test_flow_loss_is_openpis(run):
    golden, results = run.golden, run.golden.results
    drawn = [("loss", golden.inputs["noise"], golden.inputs["time"])]
    if "loss_key0" in results:
        drawn.append(("loss_key0", results["noise_key0"], results["time_key0"]))
    for key, noise, time in drawn:
        loss = golden.model.flow_loss(
            golden.params, golden.observation, golden.inputs["actions"], noise=noise, time=time
        )
        run.expect(key, loss, tolerance=3e-4)


def test_siglip_blocks_are_openpis(micro):
    """Every stage of the vision tower, of the base camera."""
    params, vision = micro.params["PaliGemma"]["img"], micro.model.config.vision
    ix, results = micro.results["siglip_token_ix"], micro.results
    x = siglip.embed_patches(params, jnp.asarray(micro.observation.images["base_0_rgb"]), vision)
    np.testing.assert_allclose(x[:, ix], results["siglip_with_posemb"], atol=3e-5)
    blocks = params["Transformer"]["encoderblock"]
    for layer in range(vision.depth):
        x = siglip.encoder_block(jax.tree.map(lambda leaf, i=layer: leaf[i], blocks), x)
        np.testing.assert_allclose(x[:, ix], results["siglip_block_out"][layer], atol=3e-5)
    x = siglip.layer_norm(params["Transformer"]["encoder_norm"], x)
    np.testing.assert_allclose(x[:, ix], results["siglip_encoded"], atol=3e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_names_and_shapes_are_the_goldens(name, golden_folders, read_json):
    manifest = read_json(golden_folders["shared"] / f"params_manifest_{name}.json")
    shapes = {path: tuple(entry["shape"]) for path, entry in manifest.items()}
    assert param_shapes(Pi0Config.preset(name)) == shapes


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_parameter_names_and_shapes_are_the_released_ones(name, golden_folders, read_json):
    released = read_json(golden_folders["shared"] / SHAPES_AT_REAL_SIZE)[name]
    shapes = param_shapes(Pi0Config.preset(name))
    assert shapes == {path: tuple(shape) for path, (shape, _) in released["leaves"].items()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == released["n_params"]
