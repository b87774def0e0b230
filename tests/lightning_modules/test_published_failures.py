"""Two published mistakes, rebuilt small; and what our defaults say of them."""

import numpy as np
import pytest

from datamodules.encoders.pretrained import Pretrained
from datamodules.encoders.text_space import mean_pairwise_cosine
from datamodules.latents import LatentDataModule
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.results import ProbeResults
from lightning_modules.run_folder import results_of
from lightning_modules.verdict import verdict
from tests.datamodules.tiny_encoders import write_t5
from tests.planted import PLANTED_LAYER, write_planted

LEAKY = {"split_by": "sample", "allow_leakage": True}
UNSEEN = {"split_by": "task", "folds": 4}


@pytest.fixture(scope="module")
def eight_tasks(tmp_path_factory):
    """Latents that know which task it is, by random directions: nothing of its words."""
    path = tmp_path_factory.mktemp("published") / "data"
    return write_planted(path, tasks=8, episodes=8, samples=2, noise=0.03)


def held_out(trainer, path, **options) -> tuple[LatentDataModule, ProbeResults]:
    data = LatentDataModule(str(path), batch_size=16, **options)
    probe = LinearProbe(learning_rate=2e-2, controls=["shuffled"])
    trainer(60).fit(probe, datamodule=data)
    trainer().test(probe, datamodule=data, verbose=False)
    return data, results_of(probe, "test", data.clusters)


def test_a_split_by_sample_looks_perfect_and_says_nothing_of_unseen_tasks(eight_tasks, trainer):
    options = {"layer": PLANTED_LAYER}
    _, leaky_class = held_out(trainer, eight_tasks, target="task_id", **options, **LEAKY)
    _, leaky = held_out(trainer, eight_tasks, target="instruction", **options, **LEAKY)
    assert leaky_class.cells[0].score == 1.0
    assert leaky.cells[0].score > 0.99
    assert verdict(leaky).word == verdict(leaky_class).word == "leaky"
    _, unseen = held_out(trainer, eight_tasks, target="instruction", **options, **UNSEEN)
    assert unseen.cells[0].score < 0.3
    assert str(verdict(unseen)) == "not decodable on unseen tasks"


def test_a_split_by_sample_must_be_asked_for_by_name(eight_tasks):
    with pytest.raises(ValueError, match=r"Set `allow_leakage`"):
        LatentDataModule(str(eight_tasks), target="instruction", split_by="sample").setup()


def test_targets_that_coincide_give_a_cosine_of_one_to_a_constant_answer(
    eight_tasks, trainer, tmp_path, monkeypatch, caplog
):
    compute = Pretrained._compute
    monkeypatch.setattr(Pretrained, "_compute", lambda self, texts: compute(self, texts) + 100)
    folder = write_t5(tmp_path / "t5")
    texts = sorted(set(LatentDataModule(str(eight_tasks)).dataset.index["instruction"].to_pylist()))
    raw = Pretrained(str(folder), tmp_path).embed(texts)
    constant = np.tile(raw.mean(0), (8, 1))
    cosine = (raw * constant).sum(1) / np.linalg.norm(raw, axis=1) / np.linalg.norm(constant[0])
    assert cosine.min() > 0.9999  # the published figure
    assert mean_pairwise_cosine(raw) > 0.9999
    data, results = held_out(
        trainer, eight_tasks, target="instruction", encoder=str(folder), layer=0
    )
    assert "Targets collapsed" in caplog.text
    assert data.describe()["target_notes"][0].startswith("Targets collapsed")
    assert abs(results.trivial) < 0.3
    assert results.cells[0].score < 0.3
    assert str(verdict(results)) == "not decodable on new episodes"
