import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel, T5EncoderModel

from datamodules.encoders import pretrained
from datamodules.encoders.pretrained import Pretrained
from datamodules.encoders.text_space import TextSpace, mean_pairwise_cosine
from datamodules.latents import LatentDataModule
from tests.datamodules.tiny_encoders import write_bert, write_t5

TEXTS = ["put the red cube in the bowl", "open the drawer", "close the box", "put the ball"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5"))


def alone(folder, kind, text: str) -> torch.Tensor:
    """Token vectors of one text without padding, by transformers itself."""
    said = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    model = kind.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(input_ids=said["input_ids"]).last_hidden_state[0]


def test_a_t5_encoder_gives_the_mean_over_valid_tokens(t5, tmp_path):
    ours = Pretrained(str(t5), tmp_path).embed(TEXTS)
    for text, vector in zip(TEXTS, ours, strict=True):
        expected = alone(t5, T5EncoderModel, text).mean(0).numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "take"),
    [
        ("mean_tokens", lambda x: x.mean(0)),
        ("cls_token", lambda x: x[0]),
        ("max_tokens", lambda x: x.amax(0)),
        ("lasttoken", lambda x: x[-1]),
    ],
)
def test_a_sentence_transformer_pools_as_its_folder_says(tmp_path, pooling, take):
    folder = write_bert(tmp_path / "model", pooling=pooling, behind="Normalize")
    ours = Pretrained(str(folder), tmp_path).embed(TEXTS)
    for text, vector in zip(TEXTS, ours, strict=True):
        np.testing.assert_allclose(vector, take(alone(folder, BertModel, text)), atol=1e-5)


def test_embeddings_are_computed_once_for_one_content(t5, tmp_path, monkeypatch):
    first = Pretrained(str(t5), tmp_path).embed(TEXTS)
    monkeypatch.setattr(pretrained, "_load", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(Pretrained(str(t5), tmp_path).embed(TEXTS), first)
    monkeypatch.undo()
    other = write_bert(tmp_path / "bert")
    assert not np.array_equal(Pretrained(str(other), tmp_path).embed(TEXTS), first)


def test_an_encoder_is_known_by_its_files_and_not_by_where_they_lie(planted, t5, tmp_path):
    def target(folder):
        data = LatentDataModule(str(planted), layer=0, target="instruction", encoder=str(folder))
        data.setup()
        return data.target_spec

    shutil.copytree(t5, tmp_path / "copy")
    one, copy = target(t5), target(tmp_path / "copy")
    assert one.encoder_digest == copy.encoder_digest != ""
    assert (one.basis, one.made_by) == (copy.basis, copy.made_by)
    other = target(write_bert(tmp_path / "bert"))
    assert other.basis != one.basis
    assert other.made_by != one.made_by


def test_a_damaged_cache_is_computed_anew(t5, tmp_path):
    first = Pretrained(str(t5), tmp_path).embed(TEXTS)
    file = next((tmp_path / "embeddings").iterdir())
    file.write_bytes(b"nothing")
    np.testing.assert_array_equal(Pretrained(str(t5), tmp_path).embed(TEXTS), first)


def test_an_encoder_that_is_nowhere_gives_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub

    def offline(*_, local_files_only: bool, **__):
        raise OSError(f"no network\nsecond line {local_files_only}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        FileNotFoundError,
        match=r"^`encoder` 't5-small' is not on this disk and cannot be downloaded \(no network\)",
    ):
        Pretrained("t5-small", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'/no/such', which is no folder"):
        Pretrained("/no/such", tmp_path)


def test_a_name_is_looked_for_on_the_disk_first(t5, tmp_path, monkeypatch):
    import huggingface_hub

    asked: list[bool] = []

    def cached(name: str, *, local_files_only: bool, **_) -> str:
        asked.append(local_files_only)
        return str(t5)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert Pretrained("t5-small", tmp_path).folder == t5
    assert asked == [True]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "config.json").unlink(), r"without config.json"),
        (lambda path: (path / "model.safetensors").rename(path / "model.bin"), "without weights"),
        (
            lambda path: (path / "config.json").write_text(
                '{"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}'
            ),
            r"without code of its own, but got '.*model'",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_refused(tmp_path, spoil, message):
    folder = write_bert(tmp_path / "model")
    spoil(folder)
    (folder / "evil.py").write_text("raise SystemExit('code of a repository was run')")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        Pretrained(str(folder), tmp_path).embed(TEXTS)


def test_what_stands_behind_the_pooling_or_pools_otherwise_is_refused(tmp_path):
    dense = write_bert(tmp_path / "dense", pooling="mean_tokens", behind="Dense")
    with pytest.raises(ValueError, match=r"got modules Transformer, Pooling, Dense"):
        Pretrained(str(dense), tmp_path)
    odd = write_bert(tmp_path / "odd", pooling="weightedmean_tokens")
    with pytest.raises(ValueError, match=r"but got \['pooling_mode_weightedmean_tokens'\]"):
        Pretrained(str(odd), tmp_path)


def test_pairwise_cosine_is_the_mean_over_pairs():
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(5, 1)]
    assert mean_pairwise_cosine(vectors) == pytest.approx(pairs.mean())


def test_a_whitened_space_is_white_and_knows_the_training_alone():
    random = np.random.default_rng(0)
    training = random.normal(size=(40, 5)) * [9, 5, 1, 0.1, 0] + 100
    space = TextSpace(training, whiten=True)
    inside = (training - space.mean) @ space.directions.T
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-8)
    np.testing.assert_allclose(np.cov(inside.T, bias=True), np.eye(4), atol=1e-8)
    lengths = np.linalg.norm(space.project(random.normal(size=(7, 5))), axis=1)
    np.testing.assert_allclose(lengths, 2)


@pytest.mark.parametrize("whiten", [False, True])
def test_targets_that_nearly_coincide_are_centred_and_it_is_said(
    planted, tmp_path, monkeypatch, whiten, caplog
):
    compute = Pretrained._compute

    def crowded(self, texts):
        return compute(self, texts) + 50.0

    monkeypatch.setattr(Pretrained, "_compute", crowded)
    folder = write_t5(tmp_path / "t5")
    data = LatentDataModule(
        str(planted), target="instruction", encoder=str(folder), whiten=whiten, split_by="task",
        fractions=(0.5, 0.25, 0.25),
    )  # fmt: skip
    data.setup()
    assert data.target_spec.pairwise_cosine > 0.999
    assert data.target_spec.collapsed
    assert "Targets collapsed" in caplog.text
    assert data.describe()["target_notes"][0].startswith("Targets collapsed")
    inside = np.array(data.target_spec.table)
    assert mean_pairwise_cosine(inside) < 0.5
