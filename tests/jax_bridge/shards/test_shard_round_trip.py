"""What is written is read back, bit for bit, whole or in part."""

import pathlib
import tempfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, open_dataset
from jax_bridge.shards.safetensors_header import (
    encode_header,
    encode_tensors,
    parse_header,
)

DTYPES = (
    "float32",
    "float16",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "bool",
    "float64",
)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz_0123456789äé", min_size=1, max_size=12)
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)


# The specs are built in the test, not here: beartype, which draws at random which item of a tuple
# it checks, may not run inside a strategy.
DRAWN_FIELDS = st.dictionaries(
    NAMES,
    st.tuples(
        st.sampled_from(DTYPES),
        st.lists(st.integers(0, 4), max_size=4),
        st.permutations(range(10)),
    ),
    max_size=4,
)


def build_info(drawn):
    fields = {}
    for name, (dtype, shape, order) in drawn.items():
        fields[name] = FieldSpec(
            name=name,
            dtype=dtype,
            shape=tuple(shape),
            axes=("layer", "flow_time", "token", "width")[: len(shape)],
            layers=tuple(order[: shape[0]]) if shape else None,
            flow_times=tuple(1 - 0.1 * i for i in range(shape[1])) if len(shape) > 1 else None,
        )
    return DatasetInfo(fields=fields, capture={}, model={}, environment={}, seed=0)


def bits(rng, spec):
    """An array of any bits at all, NaNs with payload included."""
    count = int(np.prod(spec.shape, dtype=np.int64))
    if spec.dtype == "bool":
        return (rng.random(spec.shape) < 0.5).reshape(spec.shape)
    raw = rng.integers(0, 256, count * spec.numpy_dtype.itemsize, dtype=np.uint8)
    return raw.view(spec.numpy_dtype).reshape(spec.shape)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn=DRAWN_FIELDS,
    suite=st.from_regex(r"[A-Za-z0-9_-]{1,48}", fullmatch=True),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_any_fields_survive_the_round_trip(drawn, suite, seed, data):
    info = build_info(drawn)
    rng = np.random.default_rng(seed)
    samples = [{name: bits(rng, spec) for name, spec in info.fields.items()} for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        with (
            EpisodeWriter(path, info) as writer,
            writer.episode(suite=suite, task_id=1, episode=2) as recorder,
        ):
            for timestep, latents in enumerate(samples):
                recorder.append(timestep=timestep, latents=latents)
            recorder.finish(success=None)
        dataset = open_dataset(path)
        for name, spec in info.fields.items():
            whole = np.stack([sample[name] for sample in samples])
            assert same_bits(dataset.read(name), whole)
            if spec.layers:
                layers = data.draw(st.lists(st.sampled_from(spec.layers), max_size=5))
                places = [spec.layers.index(layer) for layer in layers]
                assert same_bits(dataset.read(name, layers=layers), whole[:, places])
            if spec.flow_times:
                times = data.draw(st.lists(st.sampled_from(spec.flow_times), max_size=4))
                places = [spec.flow_times.index(time) for time in times]
                assert same_bits(dataset.read(name, flow_times=times), whole[:, :, places])


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.dictionaries(NAMES, st.lists(st.integers(0, 3), max_size=3), max_size=5),
    dtype=st.sampled_from(DTYPES),
)
def test_safetensors_files_survive_the_round_trip(shapes, dtype):
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    arrays = {name: np.ones(shape, kind) for name, shape in shapes.items()}
    content = encode_tensors(arrays)
    entries = parse_header(content, len(content))
    assert set(entries) == set(arrays)
    for name, entry in entries.items():
        stored = np.frombuffer(content[entry.start : entry.start + entry.size], entry.dtype)
        assert same_bits(stored.reshape(entry.shape), arrays[name])
    assert content == encode_tensors(dict(reversed(arrays.items())))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_header_are_refused_or_describe_the_file(content):
    try:
        entries = parse_header(content, len(content))
    except ValueError:
        return
    assert all(e.start + e.size <= len(content) for e in entries.values())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}', "claims the bytes"),
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}', "starts at"),
        (b'{"a":{"dtype":"F9","shape":[2],"data_offsets":[0,8]}}', "unreadable entry"),
        (
            b'{"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]}}',
            "claims the bytes",
        ),
        (b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "unreadable entry"),
        (b'{"a":1,"a":2}', "stands twice"),
        (b"[" * 5000, "not JSON"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "end at"),
        (
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            "tensor b starts at",
        ),
    ],
)
def test_a_lying_header_is_refused(text, complaint):
    content = len(text).to_bytes(8, "little") + text + bytes(8)
    with pytest.raises(ValueError, match=complaint):
        parse_header(content, len(content))


def test_a_header_longer_than_the_file_is_refused():
    with pytest.raises(ValueError, match="claims 9223372036854775808 bytes"):
        parse_header((2**63).to_bytes(8, "little") + b"{}", 10)


def test_a_dtype_without_a_code_is_refused():
    with pytest.raises(ValueError, match=r"tensor a must have one of the dtypes .* complex64"):
        encode_header({"a": (np.dtype(np.complex64), (1,))})


@pytest.mark.parametrize("axes", [("width", "layer"), ("layer", "layer"), ("layer", "colour")])
def test_axes_are_known_words_in_the_order_of_the_format(axes):
    with pytest.raises(ValueError, match=r"`axes` of x must be words of layer, .* in this order"):
        FieldSpec(name="x", dtype="float32", shape=(2, 2), axes=axes, layers=(0, 1))
