"""Demonstrations, statistics and FAST targets may lie at an address: batches are the same."""

import json

import fsspec
import jax
import numpy as np
import pytest

from jax_bridge.ki.data.augmentation import AugmentConfig
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.opening import open_training_data
from tests.jax_bridge.ki.data.demo_frames import (
    attach,
    learn,
    statistics,
    tiny_model,
    write_frames,
)

MODEL = tiny_model()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same data set in a folder and in memory."""
    path = write_frames(tmp_path_factory.mktemp("address") / "demos")
    attach(path, learn(path))
    address = f"memory://{path.parent.name}/demos"
    memory = fsspec.filesystem("memory")
    for file in sorted(path.rglob("*")):
        if file.is_file():
            memory.pipe_file(f"{address}/{file.relative_to(path)}", file.read_bytes())
    return str(path), address


def batches(path, mode, **settings):
    data = open_training_data(
        DataConfig(paths=path, threads=1, held_out=0.3, **settings), MODEL, batch_size=4, seed=3,
        mode=mode, augment=AugmentConfig(),
    )  # fmt: skip
    try:
        return [next(data.stream) for _ in range(3)], data.stream.facts
    finally:
        data.stream.close()


def test_batches_and_facts_are_those_of_the_folder(places):
    (here, facts), (there, other) = (batches(path, "insulate") for path in places)
    for expected, found in zip(here, there, strict=True):
        assert found.keys == expected.keys
        for a, b in zip(jax.tree.leaves(found.batch), jax.tree.leaves(expected.batch), strict=True):
            np.testing.assert_array_equal(a, b)
    assert other.assets == facts.assets
    assert "physical-intelligence/libero/fast/tokenizer.json" in other.assets
    assert other.description["fast"] == facts.description["fast"]


def test_statistics_lie_beside_the_data_or_are_named(places):
    address = places[1]
    with pytest.raises(FileNotFoundError, match=rf"None and {address}/norm_stats.json does not"):
        batches(address, "flow_only")
    content = json.dumps(statistics().to_json()).encode()
    fsspec.filesystem("memory").pipe_file(f"{address}/norm_stats.json", content)
    hosts, _ = batches(address, "flow_only")
    assert len(hosts) == 3
