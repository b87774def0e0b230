"""grain reads what Lightning reads, in the same order, and takes up the same positions."""

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from datamodules import plan_loader
from datamodules.latents import LatentDataModule
from jax_bridge.shards import DamagedShardError, EpisodeWriter, ReadPlan, open_dataset
from jax_bridge.shards.grain_source import GrainSource
from jax_bridge.shards.sample_choice import SampleChoice
from tests.planted import ACTION, TEXT, PlantedLatents, damage_sample, planted_info

grain = pytest.importorskip("grain", reason="grain comes with the extras ki and dev")

EVERYTHING = SampleChoice(
    fields=(TEXT, ACTION), layers=[2, 5], flow_times=[1.0], robot=("state", "actions"),
    images=("base",), metadata=("instruction", "timestep"),
)  # fmt: skip


def write(path):
    """Two tasks of 10 episodes of 2 samples with images and actions."""
    latents, random = PlantedLatents(2, "float32", 0.1, 0), np.random.default_rng(0)
    with EpisodeWriter(path, planted_info()) as writer:
        for task, number in itertools.product(range(2), range(10)):
            with writer.episode(
                suite="planted", task_id=task, episode=number, task_name=f"task {task}",
                instruction=f"do {task}", task_instruction=f"do {task}", seed=number,
            ) as episode:  # fmt: skip
                for step in range(2):
                    image = random.integers(0, 255, size=(8, 8, 3)).astype(np.uint8)
                    episode.append(
                        timestep=step, call=step, latents=latents.sample(task, step),
                        state=random.normal(size=5).astype(np.float32),
                        actions=np.full((3, 2), task, np.float32), images={"base": image},
                    )  # fmt: skip
                episode.finish(success=True, success_at_end=True, episode_length=2)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("grain") / "data")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))


def lightning(data, **options) -> LatentDataModule:
    return LatentDataModule(str(data), batch_size=4, seed=3, **options)


def plan_of(data) -> ReadPlan:
    module = lightning(data)
    module.setup()
    return ReadPlan(module.rows["train"], seed=3)


def source(data, **options) -> GrainSource:
    choice = SampleChoice(metadata=("timestep",))
    return GrainSource(data, plan_of(data), choice, batch_size=4, **options)


def batches(grain_source) -> list[list[int]]:
    dataset = grain.MapDataset.source(grain_source).batch(4).to_iter_dataset()
    return [batch["row"].tolist() for batch in dataset]


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2), (2, 3)])
def test_grain_reads_the_batches_that_lightning_reads(data, monkeypatch, rank, world_size):
    monkeypatch.setattr(plan_loader, "rank_and_world_size", lambda: (rank, world_size))
    module = lightning(data)
    loader = module.train_dataloader()
    expected = []
    for epoch in range(2):
        module._clock.epoch = lambda epoch=epoch: epoch
        expected += [batch.rows.tolist() for batch in loader]
    # Two epochs in one stream: a batch of grain never holds samples of two.
    assert batches(source(data, rank=rank, world_size=world_size, epochs=2)) == expected
    assert len(expected) == 2 * (24 // (4 * world_size))


def test_an_iterator_is_restored_in_the_middle_of_an_epoch(data):
    whole = batches(source(data, epochs=2))
    dataset = grain.MapDataset.source(source(data, epochs=2)).batch(4).to_iter_dataset()
    first = iter(dataset)
    begun = [next(first)["row"].tolist() for _ in range(4)]
    again = iter(dataset)
    again.set_state(first.get_state())
    assert begun + [batch["row"].tolist() for batch in again] == whole


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("consumed", [0, 4, 8, 12])
def test_another_number_of_processes_goes_on_at_the_same_position(data, world_size, consumed):
    order = plan_of(data).order(0)
    position = source(data, epochs=3).position(consumed)
    assert (position["epoch"], position["done"]) == (0, consumed)
    ranks = [
        batches(source(data, rank=rank, world_size=world_size, position=position))
        for rank in range(world_size)
    ]
    read = list(itertools.chain(*(rows for step in zip(*ranks, strict=True) for rows in step)))
    assert read == order[consumed : consumed + len(read)].tolist()
    assert len(order) - consumed - len(read) < 4 * world_size


def test_lightning_goes_on_where_grain_stood_and_back(data):
    whole = batches(source(data, epochs=2))
    module = lightning(data)
    module.load_state_dict(source(data, epochs=2).position(24 + 8))
    rest = [batch.rows.tolist() for batch in module.train_dataloader()]
    assert rest == whole[8:]
    begun = lightning(data)
    next(iter(begun.train_dataloader()))
    assert batches(source(data, position=begun.state_dict())) == whole[1:6]


def test_a_position_at_an_epochs_end_is_the_whole_epoch(data):
    assert source(data, epochs=2).position(24)["done"] == 24
    # Two ranks of four: 24 samples are three steps; the position is that of all ranks.
    two = source(data, rank=1, world_size=2, epochs=2)
    assert [two.position(n)["done"] for n in (4, 8, 12, 16)] == [8, 16, 24, 8]
    assert two.position(16)["epoch"] == 1
    assert (
        batches(source(data, position=two.position(12), epochs=2))
        == batches(source(data, epochs=2))[6:]
    )


def test_a_sample_holds_what_was_chosen_as_it_was_stored(data):
    dataset = open_dataset(data)
    reader = GrainSource(data, ReadPlan(np.arange(40), shuffle=False), EVERYTHING)
    sample = reader[7]
    assert sample["key"] == dataset.index["key"][7].as_py()
    rows = [7]
    np.testing.assert_array_equal(
        sample["latents"][TEXT], dataset.read(TEXT, layers=[2, 5], rows=rows)[0]
    )
    np.testing.assert_array_equal(
        sample["latents"][ACTION],
        dataset.read(ACTION, layers=[2, 5], flow_times=[1.0], rows=rows)[0],
    )
    np.testing.assert_array_equal(
        sample["robot"]["state"], dataset.read_robot("state", rows=rows)[0]
    )
    assert sample["robot"]["actions"].shape == (3, 2)
    image = sample["images"]["base"]
    assert (image.dtype, image.shape) == (np.uint8, (8, 8, 3))
    assert sample["metadata"] == {"instruction": "do 0", "timestep": 1}
    # Read together or alone.
    together = reader._getitems([3, 7])[1]
    np.testing.assert_array_equal(together["images"]["base"], image)
    assert set(GrainSource(data, plan_of(data), SampleChoice())[0]) == {"key", "row"}


def test_grain_stacks_the_samples_to_batches(data):
    dataset = grain.MapDataset.source(GrainSource(data, plan_of(data), EVERYTHING)).batch(4)
    batch = dataset[0]
    assert batch["images"]["base"].shape == (4, 8, 8, 3)
    assert batch["latents"][ACTION].shape == (4, 2, 1, 12)


def test_a_source_travels_to_worker_processes(data):
    first = source(data)
    expected = first[5]
    assert pickle.loads(pickle.dumps(first))[5] == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"fields": ("vlm.x",)}, r"`fields` must name what .* holds, but got vlm.x"),
        ({"images": ("top",)}, r"`images` must name what .* holds, but got top"),
        ({"metadata": ("weather",)}, r"`metadata` must name what .* holds, but got weather"),
        ({"robot": ("torque",)}, r"`robot` must name state.*but got \['torque'\]"),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused_at_once(data, choice, message):
    with pytest.raises(ValueError, match=message):
        GrainSource(data, plan_of(data), SampleChoice(**choice))


def test_places_and_positions_out_of_range_are_refused(data):
    reader = source(data)
    with pytest.raises(IndexError, match=r"`place` must lie in \[0, 24\), but got 24"):
        reader[24]
    with pytest.raises(ValueError, match=r"`consumed` must lie in \[0, 24\], but got 25"):
        reader.position(25)
    with pytest.raises(ValueError, match="but got 4, 1 and 2 of 2"):
        source(data, rank=2, world_size=2)
    with pytest.raises(ValueError, match=r"samples of seed 9, but got 24 of seed 3"):
        source(data, position={"epoch": 0, "done": 4, "samples": 24, "seed": 9})


def test_a_damaged_sample_is_named(tmp_path):
    path = write(tmp_path / "data")
    key = damage_sample(path, 3)
    reader = GrainSource(path, ReadPlan(np.arange(40), shuffle=False), EVERYTHING)
    with pytest.raises(DamagedShardError, match=key):
        reader[3]
    damaged = damage_sample(path, 5, member="base.jpg")
    with pytest.raises(DamagedShardError, match=f"{damaged}.*base.jpg.*cannot be decoded"):
        GrainSource(path, reader.plan, SampleChoice(images=("base",)))[5]


def test_the_source_needs_neither_jax_nor_torch_nor_grain():
    code = (
        "import sys, jax_bridge.shards.grain_source; "
        "print([m for m in ('jax', 'torch', 'grain') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
