"""Fused attention: the same numbers as the plain path, and the plain path where it is not right."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.pi0 import CaptureSpec, Pi0, fused_attention, gemma
from tests.jax_bridge.pi0.test_capture import observe


@pytest.fixture
def on_gpu(monkeypatch):
    """The choice believes that it is on a GPU; `KERNELS` names what XLA has on every backend."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setitem(fused_attention.KERNELS, "gpu", "xla")
    fused_attention.fused_is_right.cache_clear()
    yield
    fused_attention.fused_is_right.cache_clear()


@pytest.fixture
def small(micro):
    return dataclasses.replace(micro.model.config, dtype="bfloat16")


def test_both_paths_agree_on_what_every_token_sees():
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (2, 5, 4, 8))
    key, value = (jax.random.normal(k, (2, 7, 2, 8)) for k in keys[1:])
    mask = jnp.broadcast_to(jnp.arange(7)[None] < jnp.arange(3, 8)[:, None], (2, 5, 7))
    plain = gemma.attend(query, key, value, mask)
    fused = fused_attention.fused_attend(query, key, value, mask)
    np.testing.assert_allclose(fused.mixed, plain.mixed, atol=1e-6)
    assert fused.probabilities is None
    other = fused_attention.fused_attend(query, key, value + jnp.where(mask[0, -1, -1], 1.0, 0.0))
    assert np.abs(other.mixed - plain.mixed).max() > 0.1


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_actions_are_those_of_the_plain_path(micro):
    """In float32 the two differ by the order of sums alone."""
    given = {"noise": micro.inputs["sample_noise"], "num_steps": 2}
    plain = micro.model.sample_actions(micro.params, observe(micro), **given)
    fused = Pi0(micro.model.config, attention="fused").sample_actions(
        micro.params, observe(micro), **given
    )
    moved = np.abs(plain - given["noise"]).max()
    assert np.abs(plain - fused).max() <= 1e-5 * moved


@pytest.mark.parametrize("micro", ["pi0_micro"], indirect=True)
def test_probabilities_are_captured_by_the_plain_path(micro):
    fused = Pi0(micro.model.config, attention="fused")
    looks, pooled = (fused.plan(CaptureSpec.preset(name)) for name in ("attention", "pooled"))
    assert fused._attention_for(looks) is None
    assert fused._attention_for(pooled) is fused_attention.fused_attend
    assert fused._attention_for(None) is fused_attention.fused_attend


@pytest.mark.parametrize("micro", ["pi0_micro"], indirect=True)
class TestTheChoice:
    def test_plain_where_no_kernel_is_known(self, micro, small):
        assert fused_attention.choose_attention("auto", micro.model.config) is None
        assert fused_attention.choose_attention("auto", small) is None
        assert fused_attention.choose_attention("plain", small) is None

    def test_fused_where_the_kernel_computes_the_same(self, micro, small, on_gpu):
        assert fused_attention.choose_attention("auto", small) is fused_attention.fused_attend
        assert fused_attention.choose_attention("auto", micro.model.config) is None  # float32

    @pytest.mark.parametrize("harm", ["refuses", "off by", "off by nan"])
    def test_plain_where_the_kernel_refuses_or_is_wrong(
        self, micro, small, on_gpu, monkeypatch, caplog, harm
    ):
        right = fused_attention.fused_attend

        def broken(*given):
            if harm == "refuses":
                raise NotImplementedError("The head dim must be <= 128")
            mixed = right(*given).mixed
            return gemma.Attended(mixed * (jnp.nan if "nan" in harm else 1.1), None)

        monkeypatch.setattr(fused_attention, "fused_attend", broken)
        with caplog.at_level(logging.WARNING):
            assert fused_attention.choose_attention("auto", small) is None
        assert harm in caplog.text

    def test_an_unknown_word_is_named(self, small):
        with pytest.raises(ValueError, match=r"`attention` must be one of auto, plain, .*'flash'"):
            fused_attention.choose_attention("flash", small)
