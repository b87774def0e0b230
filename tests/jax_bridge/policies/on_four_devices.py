"""Run by a test in a process with 4 CPU devices: one policy on one of them, and on all."""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.ki import sharding
from jax_bridge.pi0.parameters import leaves
from jax_bridge.policies import shared_weights
from jax_bridge.policies.pi0_policy import Pi0Policy


def main() -> None:
    shared_weights.leaf_sharding = lambda shape, mesh: sharding.leaf_sharding(shape, mesh, 1000)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    seen = RobotObservation(
        images={"base": image}, state=np.ones(8, np.float32), instruction="put it in the bowl"
    )
    found = {}
    for devices in (1, 4):
        policy = Pi0Policy(checkpoint=sys.argv[1], num_steps=1, norm_stats="none", devices=devices)
        found[devices] = policy.infer(seen, noise_key=("a", 0)).actions
        table = policy.params["PaliGemma"]["llm"]["embedder"]["input_embedding"]
        assert len({str(part.index) for part in table.addressable_shards}) == devices
        held = sum(leaf.addressable_shards[0].data.nbytes for _, leaf in leaves(policy.params))
        whole = sum(leaf.nbytes for _, leaf in leaves(policy.params))
        assert held <= (1.1 / devices) * whole, (devices, held, whole)
    assert len(jax.devices()) == 4
    assert np.abs(found[1]).max() > 0.1
    np.testing.assert_allclose(found[4], found[1], atol=1e-5)
    sys.stdout.write("equal\n")


main()
