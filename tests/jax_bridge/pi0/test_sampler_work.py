"""What the sampler computes: the prefix once, then one scan of steps; counted on the program."""

import math

import jax
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks.capture import make_inputs
from benchmarks.sampler import work
from jax_bridge.pi0 import Pi0, Pi0Config
from jax_bridge.pi0.parameters import param_shapes, unflatten

STEPS = 7


def scans(jaxpr):
    """The scans of a program that are in no other scan."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
            continue
        for inner in jaxprs_in_params(equation.params):
            yield from scans(inner)


def product_flops(jaxpr):
    """Operations of all matrix products, those of scans times their length."""
    total = 0
    for equation in jaxpr.eqns:
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            result = math.prod(equation.outvars[0].aval.shape)
            total += 2 * result * math.prod(left[axis] for axis in contracted)
        for inner in jaxprs_in_params(equation.params):
            total += times * product_flops(inner)
    return total


@pytest.fixture(scope="module", params=["pi0", "pi05"])
def program(request):
    """The sampler at the released size, traced alone: nothing of that size is made."""
    config = Pi0Config.preset(request.param, dtype="bfloat16")
    leaves = {p: jax.ShapeDtypeStruct(s, config.jax_dtype) for p, s in param_shapes(config).items()}
    observation, noise = make_inputs(config)

    def sample(params, observation, noise):
        return Pi0(config).sample_actions(params, observation, noise=noise, num_steps=STEPS)

    return config, jax.make_jaxpr(sample)(unflatten(leaves), observation, noise).jaxpr


def test_images_and_prompt_run_once_and_the_steps_are_one_scan(program):
    config, jaxpr = program
    lengths = [scan.params["length"] for scan in scans(jaxpr)]
    assert lengths == [config.vision.depth, config.depth, STEPS]
    steps = list(scans(jaxpr))[-1].params["jaxpr"].jaxpr
    assert [scan.params["length"] for scan in scans(steps)] == [config.depth]


def test_products_are_those_that_the_floors_of_the_benchmark_count(program):
    config, jaxpr = program
    counted = work(config, batch=1, steps=STEPS)
    *prefix, steps = scans(jaxpr)
    inside = [s.params["length"] * product_flops(s.params["jaxpr"].jaxpr) for s in (*prefix, steps)]
    assert sum(inside[:-1]) == pytest.approx(counted["prefix"].flops, rel=0.01)
    assert inside[-1] == pytest.approx(counted["steps"].flops, rel=0.01)
