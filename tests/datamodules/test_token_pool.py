import dataclasses

import ml_dtypes
import numpy as np
import pytest

from datamodules.field_choice import choose_field
from datamodules.latents import LatentDataModule
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec

TOKENS, WIDTH, LAYERS = 5, 3, (1, 4)
FIELD = "vlm.hidden_states.text.tokens"
SAID = "vlm.hidden_states.fast.tokens"
MASKS = {
    "mask.text": [1, 1, 1, 1, 0],
    "mask.instruction": [0, 1, 1, 0, 0],
    "mask.state_text": [0, 0, 0, 0, 0],
    "mask.fast": [1, 1, 1, 0, 0],
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A data set with the tokens of the prompt and of what is said, with masks; returns its path and values."""
    path = tmp_path_factory.mktemp("tokens") / "data"
    field = FieldSpec(
        name=FIELD, dtype="bfloat16", shape=(2, TOKENS, WIDTH), layers=LAYERS,
        axes=("layer", "token", "width"),
    )  # fmt: skip
    said = dataclasses.replace(field, name=SAID, axes=("layer", "ar_step", "width"))
    axes = {name: ("ar_step",) if name == "mask.fast" else ("token",) for name in MASKS}
    masks = [FieldSpec(name=m, dtype="bool", shape=(TOKENS,), axes=axes[m]) for m in MASKS]
    fields = {spec.name: spec for spec in (field, said, *masks)}
    info = DatasetInfo(fields=fields, capture={}, model={}, environment={}, seed=0)
    random, values = np.random.default_rng(0), []
    with EpisodeWriter(path, info) as writer:
        for task in range(2):
            for number in range(10):
                sample = random.normal(size=(2, TOKENS, WIDTH)).astype(ml_dtypes.bfloat16)
                values.append(sample.astype(np.float32))
                with writer.episode(suite="x", task_id=task, episode=number) as episode:
                    latents = {name: np.array(mask, bool) for name, mask in MASKS.items()}
                    episode.append(timestep=0, latents={FIELD: sample, SAID: sample, **latents})
                    episode.finish(success=None)
    return path, np.stack(values)


@pytest.mark.parametrize(
    ("region", "pool", "pooled"),
    [
        ("text", "mean", lambda x: x[:, :, :4].mean(2)),
        ("text", "last", lambda x: x[:, :, 3]),
        ("text", "max", lambda x: x[:, :, :4].max(2)),
        ("instruction", "mean", lambda x: x[:, :, 1:3].mean(2)),
        ("instruction", "last", lambda x: x[:, :, 2]),
        ("fast", "mean", lambda x: x[:, :, :3].mean(2)),
        ("fast", "last", lambda x: x[:, :, 2]),
    ],
)
def test_tokens_are_pooled_over_the_valid_ones_while_reading(tokens, region, pool, pooled):
    path, values = tokens
    data = LatentDataModule(str(path), region=region, pool=pool, batch_size=7)
    features = np.concatenate([b.features[0].numpy() for b in data.predict_dataloader()])
    np.testing.assert_allclose(features, pooled(values), rtol=1e-6)
    assert data.cells[1].name == f"vlm.hidden_states.{region}.{pool}/layer04"
    assert data.describe()["fields"][0]["read_from"] == (SAID if region == "fast" else FIELD)


def test_tokens_side_by_side_are_not_pooled(tokens):
    path, values = tokens
    data = LatentDataModule(str(path), pool="tokens", layer=4)
    batch = next(iter(data.predict_dataloader()))
    assert data.fields[0].width == TOKENS * WIDTH
    expected = values[:, 1].reshape(20, 1, -1)
    np.testing.assert_array_equal(batch.features[0].float().numpy(), expected)


def test_a_region_that_was_not_captured_is_not_made_up(tokens):
    with pytest.raises(ValueError, match=r"got vlm.hidden_states.image_base.mean"):
        LatentDataModule(str(tokens[0]), region="image_base").setup()


def test_a_misspelt_pool_of_context_vectors_is_no_pool():
    name = "context.act_head.input.tokens"
    spec = FieldSpec(name=name, dtype="float32", shape=(TOKENS, WIDTH), axes=("token", "width"))
    words = {"expert": "context", "site": "act_head", "region": "input"}
    assert choose_field({name: spec}, **words, pool="mean").name == name
    with pytest.raises(ValueError, match=r"but got context.act_head.input.men\. .* holds context"):
        choose_field({name: spec}, **words, pool="men")


def test_a_region_whose_mask_is_empty_is_refused(tokens):
    with pytest.raises(ValueError, match=r"state_text has none in any of the 20"):
        LatentDataModule(str(tokens[0]), region="state_text").setup()
