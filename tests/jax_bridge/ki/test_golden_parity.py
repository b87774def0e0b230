"""`flow_only` is openpi's objective: its loss is the one that the real openpi computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.flow import FlowDraws
from jax_bridge.ki.objective import Objective, losses_of
from tests.jax_bridge.pi0.conftest import DATA, load_golden


@pytest.mark.parametrize("name", ["pi0_micro", "pi05_micro"])
def test_flow_only_reproduces_openpis_losses(name):
    golden = load_golden(DATA, name)
    config, expected = golden.model.config, golden.results["loss"]
    rows, steps = expected.shape
    batch = TrainingBatch(
        observation=golden.observation,
        actions=golden.inputs["actions"],
        action_mask=np.ones(rows, bool),
        action_is_pad=np.zeros((rows, steps), bool),
        action_dims=np.ones(config.action_dim, bool),
    )
    draws = FlowDraws(
        jnp.asarray(golden.inputs["noise"])[None], jnp.asarray(golden.inputs["time"])[None]
    )
    find = jax.jit(
        functools.partial(losses_of, config=config, objective=Objective(mode="flow_only"))
    )
    for chosen in (np.array([True, True]), np.array([True, False]), np.array([False, True])):
        alone = find(golden.params, _with(batch, chosen), draws)
        np.testing.assert_allclose(alone.flow, expected[chosen].mean(), rtol=1e-4)
        assert float(alone.total) == float(alone.flow)


def _with(batch: TrainingBatch, chosen: np.ndarray) -> TrainingBatch:
    rows = {name: getattr(batch, name) for name in ("observation", "actions", "action_is_pad")}
    return TrainingBatch(**rows, action_mask=chosen, action_dims=batch.action_dims)
