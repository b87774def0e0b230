"""What torch models gave lies in a member of its own, and is read like any other field."""

import io
import tarfile

import ml_dtypes
import numpy as np

from datamodules.field_choice import choose_fields
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, open_dataset

HEAD = "context.act_head.input.tokens"
POOLED = "context.backbone_layer_norm.output.mean"
TEXT = "vlm.hidden_states.text.mean"


def specs():
    return {
        s.name: s
        for s in (
            FieldSpec(
                name=HEAD, dtype="bfloat16", shape=(2, 1, 4), axes=("frame", "token", "width")
            ),
            FieldSpec(name=POOLED, dtype="float32", shape=(3,), axes=("width",)),
            FieldSpec(
                name=TEXT, dtype="float32", shape=(2, 3), axes=("layer", "width"), layers=(0, 1)
            ),
        )
    }


def values(episode, timestep):
    rng = np.random.default_rng([episode, timestep])
    return {
        HEAD: rng.standard_normal((2, 1, 4)).astype(ml_dtypes.bfloat16),
        POOLED: rng.standard_normal(3).astype(np.float32),
        TEXT: rng.standard_normal((2, 3)).astype(np.float32),
    }


def write(path):
    info = DatasetInfo(fields=specs(), capture={}, model={}, environment={}, seed=0)
    with EpisodeWriter(path, info) as writer:
        for episode in range(2):
            with writer.episode(suite="toy", task_id=0, episode=episode) as recorder:
                for timestep in (0, 5):
                    recorder.append(timestep=timestep, latents=values(episode, timestep))
                recorder.finish(success=None)
    return open_dataset(path)


def test_context_fields_lie_in_their_own_member_and_read_back_bit_for_bit(tmp_path):
    data = write(tmp_path / "data")
    expected = [values(e, t) for e in range(2) for t in (0, 5)]
    for name in specs():
        np.testing.assert_array_equal(data.read(name), [v[name] for v in expected])
    batch = next(data.iter_batches([HEAD, TEXT], batch_size=3))
    assert {name: batch[name].shape for name in (HEAD, TEXT)} == {
        HEAD: (3, 2, 1, 4),
        TEXT: (3, 2, 3),
    }
    content = data.read_members("context.safetensors", [0])[0]
    assert HEAD.encode() in content
    assert TEXT.encode() not in content


def test_members_stand_in_the_order_of_the_format(tmp_path):
    data = write(tmp_path / "data")
    tar = next((tmp_path / "data" / "shards").glob("*.tar"))
    with tarfile.open(fileobj=io.BytesIO(tar.read_bytes())) as opened:
        suffixes = [name.partition(".")[2] for name in opened.getnames()[:3]]
    assert suffixes == ["json", "latents.safetensors", "context.safetensors"]
    assert len(data) == 4


def test_a_probe_can_choose_a_context_field_like_any_other(tmp_path):
    data = write(tmp_path / "data")
    head, pooled = choose_fields(data.fields, [HEAD, POOLED], layer="all", flow_time="all")
    assert (head.width, pooled.width) == (8, 3)
    assert head.cells[0].field == HEAD
    features = head.read(data, np.arange(4))
    np.testing.assert_array_equal(
        features[:, 0].float(), data.read(HEAD).reshape(4, 8).astype(np.float32)
    )
    (mean,) = choose_fields(
        data.fields, ["context.act_head.input.mean"], layer="all", flow_time="all"
    )
    assert mean.read(data, np.arange(4)).shape == (4, 1, 8)
