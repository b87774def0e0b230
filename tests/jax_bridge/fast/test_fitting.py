"""Learning a tokenizer from a data set, and judging it by episodes that it has not seen."""

import numpy as np
import pytest

from jax_bridge.demos.chunk_stream import ChunkStream
from jax_bridge.fast.fitting import FitPlan, fit_tokenizer, judge
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.shards import open_dataset
from tests.jax_bridge.demos.demo_data import statistics, write_demos

STATISTICS = statistics(low=-1.0, high=3.0)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    path = write_demos(tmp_path_factory.mktemp("fit") / "d", episodes=20, still=(1,))
    return ChunkStream.of(open_dataset(path))


def test_it_is_judged_by_episodes_that_it_did_not_learn_from(stream):
    fit = fit_tokenizer(stream, STATISTICS, FitPlan(vocab_size=400, held_out=0.2))
    assert (len(fit.learnt.lengths), len(fit.held_out.lengths)) == (320, 80)
    for judged in (fit.learnt, fit.held_out):
        assert judged.naive == 24
        assert judged.undecodable == 0
        assert (judged.largest_error <= judged.bound).all()
        assert 0 < judged.rms_error[0] < judged.largest_error[0]
        assert judged.compression == pytest.approx(24 / judged.lengths.mean())
    assert fit.learnt.clipped == 0
    assert fit.learnt.compression > 2


def test_errors_are_in_robot_units(stream):
    fine, coarse = (
        fit_tokenizer(stream, STATISTICS, FitPlan(vocab_size=800, scale=scale)).learnt
        for scale in (40.0, 10.0)
    )
    # A unit of FAST's is (3 - -1) / 2 robot units, and rounding is uniform in 1 / scale of it.
    expected = 2 / (10.0 * np.sqrt(12))
    assert coarse.rms_error[2] == pytest.approx(expected, rel=0.25)
    assert fine.rms_error[2] < coarse.rms_error[2] / 3


def test_chunks_out_of_range_are_counted():
    chunks = np.random.default_rng(0).uniform(-0.2, 0.2, (200, 8, 3))
    judged = judge(learn_tokenizer(chunks, vocab_size=300), chunks * 20, STATISTICS)
    assert judged.clipped > 150


def test_no_more_chunks_are_held_than_asked_for(stream):
    fit = fit_tokenizer(stream, STATISTICS, FitPlan(vocab_size=400, most_chunks=50, held_out=0.2))
    assert (len(fit.learnt.lengths), len(fit.held_out.lengths)) == (50, 50)


def test_without_enough_episodes_nothing_is_held_out(tmp_path):
    lone = ChunkStream.of(open_dataset(write_demos(tmp_path / "d", episodes=1)))
    fit = fit_tokenizer(lone, STATISTICS, FitPlan(vocab_size=400))
    assert len(fit.learnt.lengths) == 20
    assert fit.held_out is None


@pytest.mark.parametrize(
    ("name", "value"), [("scale", 0.0), ("vocab_size", 0), ("held_out", 1.0), ("margin", -0.1)]
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .*but got {value}"):
        FitPlan(**{name: value})
