import collections
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from jax_bridge.environments.libero.init_states import read_init_states


def write(path, pickled: bytes, member: str = "archive/data.pkl"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, pickled)
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_pickled_matrix_is_read_bitwise(tmp_path, protocol, order):
    matrix = np.asarray(np.random.default_rng(0).normal(size=(5, 7)), order=order)
    path = write(tmp_path / "task.pruned_init", pickle.dumps(matrix, protocol=protocol))
    if protocol == 5:
        with pytest.raises(ValueError, match=r"numpy\._core\.numeric\._frombuffer"):
            read_init_states(path)
        return
    read = read_init_states(path)
    assert read.dtype == np.float64
    assert read.tobytes() == matrix.tobytes()


class Hostile:
    ran = False

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch hostile", "posix.system"),
        (eval, "__import__('os').system('touch hostile')", "builtins.eval"),
        (np.load, "hostile", "numpy.load"),
        (collections.OrderedDict, (), "collections.OrderedDict"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_by_name_before_it_runs(
    tmp_path, monkeypatch, function, argument, name, protocol
):
    monkeypatch.chdir(tmp_path)
    hostile = pickle.dumps([np.zeros((2, 2)), Hostile(function, argument)], protocol=protocol)
    path = write(tmp_path / "task.pruned_init", hostile)
    # Protocol 2 writes Python 2's name of builtins.
    name = name.replace("builtins", "__builtin__") if protocol == 2 else name
    with pytest.raises(ValueError, match=re.escape(name)):
        read_init_states(path)
    assert not (tmp_path / "hostile").exists()


def test_a_reference_out_of_the_pickle_is_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return "storage 0" if isinstance(obj, dict) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump([{}])
    with pytest.raises(ValueError, match="'storage 0'"):
        read_init_states(write(tmp_path / "task.pruned_init", buffer.getvalue()))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.zeros(3), r"shape is \(3,\)"),
        (np.zeros((2, 2), np.float32), "type 'f4'"),
        (np.array([["a", None]], dtype=object), "type 'O8'"),
        ([1, 2], "it holds list"),
    ],
)
def test_anything_but_a_float64_matrix_is_refused(tmp_path, value, shown):
    path = write(tmp_path / "task.pruned_init", pickle.dumps(value, protocol=2))
    with pytest.raises(ValueError, match=shown):
        read_init_states(path)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_cut_pickle_is_a_clear_error(tmp_path, cut):
    pickled = pickle.dumps(np.zeros((4, 4)), protocol=2)[:-cut]
    with pytest.raises(ValueError, match=r"task\.pruned_init is not"):
        read_init_states(write(tmp_path / "task.pruned_init", pickled))


def test_what_is_no_archive_and_what_is_absent_are_clear_errors(tmp_path):
    path = tmp_path / "task.pruned_init"
    with pytest.raises(FileNotFoundError, match=r"task\.pruned_init, but there is no such file"):
        read_init_states(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"task\.pruned_init is not"):
        read_init_states(path)
    with pytest.raises(ValueError, match=r"one data\.pkl"):
        read_init_states(write(path, b"", member="archive/other.pkl"))
