"""openpi's wire format: equal bytes both ways, and nothing that could run code."""

import pickle

import ml_dtypes
import msgpack
import numpy as np
import pytest

from jax_bridge.serving.wire import WireError, decode, encode

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.arange(6).reshape(3, 2)[:, ::-1],
    np.zeros((0, 4), np.uint8),
    np.array(2.5),
    np.array([True, False]),
    np.array(["put", "it down"]),
    np.linspace(0, 1, 3, dtype=np.float16),
]


def packed(array, **changes):
    """An array as openpi-client packs it."""
    entry = {
        b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str,
        b"shape": array.shape,
    }  # fmt: skip
    return {**entry, **{name.encode(): value for name, value in changes.items()}}


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_are_packed_as_openpi_packs_them_and_come_back(array):
    content = encode({"deep": {"x": [array]}})
    assert content == msgpack.packb({"deep": {"x": [packed(array)]}})
    back = decode(content)["deep"]["x"][0]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)


def test_numbers_of_numpy_come_back():
    values = {"a": np.float32(0.1), "b": np.int64(-3), "c": np.bool_(True)}
    back = decode(encode(values))
    assert back == values
    assert [type(v) for v in back.values()] == [type(v) for v in values.values()]


def test_big_endian_arrays_are_read():
    array = np.arange(3, dtype=">f4")
    back = decode(msgpack.packb({"x": packed(array)}))["x"]
    assert back.dtype == np.float32
    assert back.tolist() == [0, 1, 2]


def test_bfloat16_travels_as_float32_without_a_changed_bit():
    values = np.arange(0, 2**16, 7, dtype=np.uint16).view(ml_dtypes.bfloat16)
    values = values[np.isfinite(values.astype(np.float32))]
    back = decode(encode({"x": values}))["x"]
    assert back.dtype == np.float32
    assert back.astype(ml_dtypes.bfloat16).tobytes() == values.tobytes()


def test_what_no_message_can_hold_is_not_packed():
    for value in (np.array([object()]), np.zeros(2, complex), np.zeros(2, "f4,f4"), object()):
        with pytest.raises(ValueError, match=r"must hold (arrays of numbers|plain values)"):
            encode({"x": value})


class Hostile:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


FLOATS = np.zeros(4, np.float32)
BAD = {
    "pickle": pickle.dumps(Hostile()),
    "objects": msgpack.packb({"x": packed(FLOATS, dtype="|O", data=pickle.dumps(Hostile()))}),
    "complex": msgpack.packb({"x": packed(FLOATS, dtype="<c8")}),
    "records": msgpack.packb({"x": packed(FLOATS, dtype="f4,f4")}),
    "huge type": msgpack.packb({"x": packed(FLOATS, dtype="<f16")}),
    "no type": msgpack.packb({"x": packed(FLOATS, dtype=None)}),
    "too few bytes": msgpack.packb({"x": packed(FLOATS, shape=[5])}),
    "overflowing shape": msgpack.packb({"x": packed(FLOATS, shape=[2**39, 2**39])}),
    "negative shape": msgpack.packb({"x": packed(FLOATS, shape=[-1])}),
    "shape of truths": msgpack.packb({"x": packed(FLOATS, shape=[True, 4])}),
    "bytes as text": msgpack.packb({"x": packed(FLOATS, data="0000")}),
    "wrong number": msgpack.packb({"x": {b"__npgeneric__": 1, b"data": "1", b"dtype": "<f4"}}),
    "extension": msgpack.packb({"x": msgpack.ExtType(7, b"code")}),
    "deep": msgpack.packb({"x": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}),
    "very deep": b"\x81\xa1x" + b"\x91" * 100_000,
    "long list": b"\x81\xa1x\xdd\xff\xff\xff\xff",
    "cut": encode({"x": FLOATS})[:-3],
    "trailing": encode({"x": FLOATS}) + b"\x00",
    "no map": msgpack.packb([1, 2]),
    "bytes as keys": msgpack.packb({b"x": 1}),
    "numbers as keys": msgpack.packb({3: 1}),
    "bad text": b"\x81\xa1x\xa2\xff\xfe",
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_openpis_is_refused(name):
    with pytest.raises(WireError, match=r"^(A message|An array|A number)('s keys| of .*)? must "):
        decode(BAD[name])
