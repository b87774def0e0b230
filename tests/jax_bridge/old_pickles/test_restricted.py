"""Pickles are read without being run: arrays bit for bit, everything else refused by name."""

import collections
import contextlib
import os
import pathlib
import pickle
import pickletools
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jax_bridge.old_pickles import RefusedPickleError, read_pickle
from jax_bridge.old_pickles.numpy_parts import StoredArray

MEMORY = 2**30


def read(path, max_memory=MEMORY):
    return read_pickle(path, max_memory=max_memory)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("max_memory", [0, MEMORY])
def test_arrays_come_back_bit_for_bit(tmp_path, save, random, protocol, max_memory):
    values = {
        "float32": random.normal(size=(3, 1, 500, 4)).astype(np.float32),
        "float16": random.normal(size=7).astype(np.float16),
        "bfloat16": random.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
        "fortran": np.asfortranarray(random.normal(size=(70, 90))),
        "big endian": random.normal(size=5).astype(">f8"),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 4), np.int32),
        "no axes": np.array(3.5),
        "text": np.array(["ab", "c"]),
    }
    found = read(save(tmp_path / "a.pkl", values, protocol), max_memory)
    for name, value in values.items():
        array = found[name].array
        assert (array.dtype, array.shape) == (value.dtype, value.shape), name
        assert array.tobytes() == value.tobytes(), name


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_scalars_come_back(tmp_path, save, protocol):
    content = {
        "a": [1, 2.5, None, True, "text", b"bytes", (1, (2,)), 10**30],
        "b": {3: {"c": set("xy"), "d": frozenset({1})}},
        "c": collections.OrderedDict([("z", 1), ("y", [2])]),
        "d": (np.float32(1.5), np.int64(-3), np.bool_(True)),
    }
    found = read(save(tmp_path / "a.pkl", content, protocol))
    assert found == content
    assert isinstance(found["c"], collections.OrderedDict)


def test_one_array_under_two_names_is_one_array(tmp_path, save):
    array = np.arange(5000.0)
    found = read(save(tmp_path / "a.pkl", [array, array]))
    assert found[0] is found[1]


class Hostile:
    """Pickles to a call of anything."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return (self.call, self.arguments)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (os.system, ("touch {0}",), "posix.system"),
        (eval, ("open({0!r}, 'w')",), "builtins.eval|__builtin__.eval"),
        (exec, ("open({0!r}, 'w')",), "builtins.exec|__builtin__.exec"),
        (getattr, ("", "format"), "builtins.getattr|__builtin__.getattr"),
        (pathlib.PosixPath, ("{0}",), "pathlib.PosixPath"),
        (np.load, ("{0}",), "numpy.load|numpy.lib"),
        (np.memmap, ("{0}", "u1", "w+", 0, 1), "numpy.memmap"),
        (bytearray, (10**15,), "builtins.bytearray|__builtin__.bytearray"),
    ],
)
def test_a_pickle_that_calls_something_is_refused_by_name_and_nothing_runs(
    tmp_path, save, call, arguments, name, protocol
):
    victim = tmp_path / "victim"
    filled = [a.format(str(victim)) if isinstance(a, str) else a for a in arguments]
    path = save(tmp_path / "a.pkl", {"x": np.zeros(3), "y": Hostile(call, *filled)}, protocol)
    with pytest.raises(RefusedPickleError, match=rf"a\.pkl is not read: it names ({name})"):
        read(path)
    assert not victim.exists()


class Stateful:
    """An object of a class."""

    def __init__(self):
        self.x = 1


def test_an_object_of_any_class_is_refused_by_name(tmp_path, save):
    with pytest.raises(RefusedPickleError, match=r"it names .*test_restricted\.Stateful"):
        read(save(tmp_path / "a.pkl", Stateful()))


def test_an_array_of_objects_is_refused(tmp_path, save):
    with pytest.raises(RefusedPickleError, match=r"arrays of (objects|dtype O8)"):
        read(save(tmp_path / "a.pkl", np.array([{}, []], dtype=object)))


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (b"\x80\x02U\x03abcP1\n.", "names the outside object '1'"),
        (b"\x80\x02K\x07Q.", "names the outside object '7'"),
        (b"\x80\x02\x82\x01.", "registered extension 1"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "makes an object of a class"),
        (b"(icollections\nOrderedDict\n.", "makes an object of a class"),
        (b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ft\x85R.", "makes an array by its shape"),
        (b"\x80\x02cnumpy\nndarray\n}X\x04\x00\x00\x00nameK\x01sb.", "sets the state of a func"),
        (b"\x80\x02U\x03abc)R.", "calls a str"),
        (b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", "positional arguments"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "_codecs.enco"),
        (
            b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
            "bytes are announced in a file of 15",
        ),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "bytes are announced where 2 are"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "bytes are announced in a file of 12"),
        (b"B\xff\xff\xff\x7fab.", "bytes are announced in a file of 8"),
        (b"\x80\x63.", "unsupported pickle protocol"),
        (b"", "damaged"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_a_crafted_stream_is_refused_without_asking_for_memory(tmp_path, code, match):
    path = tmp_path / "a.pkl"
    path.write_bytes(code)
    with pytest.raises(RefusedPickleError, match=match):
        read(path)


def test_every_truncation_is_refused(tmp_path, save):
    path = save(tmp_path / "a.pkl", {"a": np.arange(6.0), "b": [np.float32(1)]})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(RefusedPickleError, match="damaged"):
            read(path)


ALPHABET = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
SEED = pickle.dumps({"a": np.arange(6.0), "b": collections.OrderedDict(c=np.float32(1))})


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.tuples(st.integers(0, len(SEED)), st.binary(max_size=6)), max_size=4),
    codes=st.lists(st.one_of(st.sampled_from(ALPHABET), st.binary(max_size=5)), max_size=12),
)
def test_whatever_the_bytes_are_they_are_read_or_refused(tmp_path, cuts, codes):
    content = bytearray(SEED)
    for place, patch in cuts:
        content[place : place + len(patch)] = patch
    for attempt in (bytes(content), b"".join(codes)):
        path = tmp_path / "fuzz.pkl"
        path.write_bytes(attempt)
        with contextlib.suppress(RefusedPickleError):
            read(path)


def test_what_does_not_fit_into_memory_waits_in_a_file(tmp_path, save, random, monkeypatch):
    from jax_bridge.old_pickles import spool

    spools = []
    real = spool.Spool.__init__

    def watched(self, *arguments):
        real(self, *arguments)
        spools.append(self)

    monkeypatch.setattr(spool.Spool, "__init__", watched)
    arrays = [random.normal(size=2000) for _ in range(5)]
    found = read_pickle(save(tmp_path / "a.pkl", arrays), max_memory=40_000, spool_folder=tmp_path)
    assert (spools[0].in_memory, spools[0].on_disk) == (32_000, 48_000)
    for stored, array in zip(found, arrays, strict=True):
        assert isinstance(stored, StoredArray)
        np.testing.assert_array_equal(stored.array, array)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pkl"]  # the file has no name
