import numpy as np
import pytest
import torch

from datamodules.latents import LatentDataModule
from tests.planted import WIDTH, write_planted


def test_a_latent_that_is_not_finite_is_named_by_shard_key_and_field(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, broken="planted-t001-e0003-s0010")
    data = LatentDataModule(str(path))
    data.setup()
    message = r"text.mean of sample planted-t001-e0003-s0010 in shard planted-t000.* is NaN"
    with pytest.raises(ValueError, match=message):
        _ = data.statistics


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_so_is_one_that_is_infinite_but_not_one_that_is_large(tmp_path, monkeypatch, value):
    from tests import planted

    sample = planted.PlantedLatents.sample

    def spoilt(self, task, timestep, episode=0):
        latents = sample(self, task, timestep, episode)
        latents[planted.TEXT][0, 0] = 3e38
        if (task, timestep, episode) == (1, 2, 13):
            latents[planted.TEXT][2, WIDTH - 1] = value
        return latents

    monkeypatch.setattr(planted.PlantedLatents, "sample", spoilt)
    data = LatentDataModule(str(write_planted(tmp_path / "data", tasks=2)))
    with pytest.raises(ValueError, match=r"text.mean of sample planted-t001-e0003-s0010 in shard"):
        _ = data.statistics


def test_constant_latents_read_as_zero_and_it_is_counted(tmp_path, monkeypatch):
    from tests import planted

    sample = planted.PlantedLatents.sample

    def still(self, *places):
        latents = sample(self, *places)
        latents[planted.TEXT][:, 3:] = 7.0
        return latents

    monkeypatch.setattr(planted.PlantedLatents, "sample", still)
    data = LatentDataModule(str(write_planted(tmp_path / "data")))
    assert data.describe()["constant_features"] == 3 * (WIDTH - 3)
    statistics = data.statistics[0]
    batch = next(iter(data.test_dataloader()))
    normal = (batch.features[0] - statistics.mean) / statistics.std
    assert torch.equal(normal[..., 3:], torch.zeros_like(normal[..., 3:]))


def test_one_episode_cannot_be_split(tmp_path):
    path = write_planted(tmp_path / "data", tasks=1, episodes=1)
    data = LatentDataModule(str(path), target="robot_state")
    with pytest.raises(ValueError, match=r"got none of 4 samples with .* by episode"):
        data.setup()
