"""Run by a test in a process with 8 CPU devices: one step on three meshes, compared."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # three programs that run once
sys.path.insert(0, os.path.dirname(__file__))

import dataclasses

import jax
import numpy as np
from conftest import make_batch

from jax_bridge.ki import sharding
from jax_bridge.ki.objective import Objective
from jax_bridge.ki.optimiser import OptimiserConfig, make_optimiser
from jax_bridge.ki.train_step import StepConfig, initial_state, make_train_step
from jax_bridge.pi0 import Pi0, Pi0Config


def main() -> None:
    config = Pi0Config.preset("pi05_micro", max_token_len=12, action_horizon=5, action_dim=6)
    expert = dataclasses.replace(config.vlm, depth=2)
    vision = dataclasses.replace(config.vision, image_size=64)
    config = dataclasses.replace(config, vlm=expert, action=expert, vision=vision)
    small = make_batch(config)
    rows = {f.name: getattr(small, f.name) for f in dataclasses.fields(small)}
    dims = rows.pop("action_dims")
    eight = jax.tree.map(lambda x: np.tile(x, (3, *[1] * (x.ndim - 1)))[:8], rows)
    batch = type(small)(**eight, action_dims=dims)
    params = Pi0(config).init(0)
    # With a large `eps` updates are nearly linear in the gradient: rounding stays rounding.
    settings = OptimiserConfig(peak_learning_rate=1e-2, warmup_steps=0, decay_steps=10, eps=1e-2)
    optimiser = make_optimiser(settings, params)
    step = make_train_step(config, Objective(), optimiser, StepConfig())
    state = initial_state(params, optimiser, StepConfig())
    assert len(jax.devices()) == 8
    results = {}
    for name, devices, fsdp in (("one", 1, 1), ("1x8", 8, 8), ("2x4", 8, 4)):
        mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
        places = sharding.state_shardings(state, mesh, smallest=1000)
        rows_of = sharding.batch_shardings(batch, mesh)
        laid = jax.device_put(state, places), jax.device_put(batch, rows_of)
        compiled = jax.jit(step, out_shardings=(places, None))
        after, report = compiled(*laid, jax.random.key(0))
        table = after.params["PaliGemma"]["llm"]["embedder"]["input_embedding"]
        parts = len({str(s.index) for s in table.addressable_shards})
        results[name] = jax.tree.map(np.asarray, (after.params, report)), parts
    (expected, said), _ = results["one"]
    for name, pieces in (("1x8", 8), ("2x4", 4)):
        (found, told), parts = results[name]
        assert parts == pieces, (name, parts)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(told.losses.total, said.losses.total, rtol=1e-5)
        for group, norm in said.gradient_norm.items():
            np.testing.assert_allclose(told.gradient_norm[group], norm, rtol=1e-4)
    sys.stdout.write("equal\n")


if __name__ == "__main__":
    main()
