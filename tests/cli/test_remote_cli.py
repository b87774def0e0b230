"""The commands on addresses: a real S3 server, and all the ways in which an address refuses."""

import functools
import importlib
import itertools
import json
import pathlib
import socket
import subprocess
import sys

import pytest

from cli.main import main
from jax_bridge.shards.remote.retry import Retries
from jax_bridge.shards.remote.staging import staging_folder
from jax_bridge.shards.remote.store import RemoteStore
from tests.jax_bridge.shards.remote.servers import is_listing

OPTIONS = [
    *("--policy.preset", "pi05_micro", "--policy.num_steps", "1", "--max-steps", "7"),
    *("--images", "none", "--tasks", "0", "--env.image_size", "32"),
]
SCRIPT = pathlib.Path(__file__).with_name("kill_remote_collects.py")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Errors that may pass are not waited for."""
    start = RemoteStore.__init__
    once = functools.partialmethod(start, retries=Retries(attempts=1))
    monkeypatch.setattr(RemoteStore, "__init__", once)
    monkeypatch.setattr("jax_bridge.shards.remote.remote_writer.PATIENT", Retries(attempts=1))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same command's data set in a folder."""
    out = tmp_path_factory.mktemp("local") / "data"
    assert main(["collect", *OPTIONS, "--episodes", "0:3", "--out", str(out)]) == 0
    return out


def collect(s3, episodes="0:3", *more):
    return main(["collect", *OPTIONS, "--episodes", episodes, "--out", s3.address, *more])


def files_of(folder):
    return {
        f"data/{p.relative_to(folder).as_posix()}": p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }


def test_collect_writes_to_an_address_what_it_writes_to_a_folder(s3, local, capsys, tmp_path):
    assert collect(s3) == 0
    out = capsys.readouterr().out
    assert (
        f"3 episodes (0 were there already), 6 samples, success 0/3, 0 errors -> {s3.address}"
        in out
    )
    assert s3.objects() == files_of(local)
    assert collect(s3) == 0
    assert "0 episodes (3 were there already)" in capsys.readouterr().out
    assert s3.objects() == files_of(local)


def test_another_machine_goes_on_where_the_first_one_stopped(s3, capsys, tmp_path, monkeypatch):
    assert collect(s3, "0:2", "--staging", str(tmp_path / "here")) == 0
    assert list((tmp_path / "here" / "shards").glob("*.tar")) == []
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "another"))
    capsys.readouterr()
    assert collect(s3, "0:3") == 0
    assert "1 episodes (2 were there already)" in capsys.readouterr().out
    assert main(["shards", "verify", s3.address]) == 0
    assert "2 shards, 6 samples" in capsys.readouterr().out


def test_an_upload_that_fails_is_one_line_and_the_same_command_goes_on(s3, local, capsys):
    s3.fail(lambda e: e["REQUEST_METHOD"] == "PUT" and e["PATH_INFO"].endswith(".tar"), 503)
    assert collect(s3) == 2
    err = capsys.readouterr().err
    assert f"kept in {staging_folder(s3.address)}; the same command uploads them" in err
    assert "Traceback" not in err
    s3.server.reset()
    assert collect(s3) == 0
    assert "0 episodes (3 were there already)" in capsys.readouterr().out
    assert s3.objects() == files_of(local)


def test_ctrl_c_uploads_what_is_finished_and_says_where_it_is(s3, capsys, monkeypatch):
    from jax_bridge.environments.tabletop import Tabletop

    steps, step = itertools.count(), Tabletop.step

    def interrupted(self, action):
        if next(steps) == 16:  # in the third episode of 7 steps
            raise KeyboardInterrupt
        return step(self, action)

    monkeypatch.setattr(Tabletop, "step", interrupted)
    assert collect(s3) == 130
    assert f"finished episodes are kept at {s3.address} or in" in capsys.readouterr().err
    assert main(["shards", "inspect", s3.address]) == 0
    assert "episodes     2," in capsys.readouterr().out


def test_failed_episodes_are_named_with_the_address(s3, capsys, monkeypatch):
    from jax_bridge.environments.tabletop import Tabletop

    def broken(self, action):
        raise RuntimeError("the arm fell off")

    monkeypatch.setattr(Tabletop, "step", broken)
    assert collect(s3, "0:1") == 1
    assert f"all are in {s3.address}/errors.jsonl" in capsys.readouterr().out
    assert json.loads(s3.get("data/errors.jsonl"))["episode"] == 0


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_collects_lose_and_double_nothing_at_an_address(
    s3, kills, root, tmp_path, capsys, compiled
):
    done = subprocess.run(
        [sys.executable, SCRIPT, s3.address, tmp_path / "staging", str(kills)],
        cwd=root, capture_output=True, text=True, env=compiled(), timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    known = {tuple(episode) for episode in json.loads(done.stdout)}
    objects = s3.objects()
    stood = [
        tuple(entry[:3])
        for name, content in objects.items()
        if name.startswith("data/shards/") and name.endswith(".json")
        for entry in json.loads(content)["episodes"]
    ]
    assert len(stood) == len(set(stood))
    assert known - set(stood) == set()
    assert len(known) >= kills // 2
    assert main(["shards", "verify", s3.address]) == 0
    assert "all bytes are as written" in capsys.readouterr().out


@pytest.fixture(scope="module")
def compiled(root, tmp_path_factory):
    """The environment of processes: compiled programs are kept, so that a start is short."""
    import os

    return lambda: {
        **os.environ,
        "PYTHONPATH": str(root),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture
def toy_at(s3, local):
    s3.put_folder(local)
    return s3


def test_index_makes_the_same_index_again(toy_at, capsys):
    due = toy_at.get("data/index.parquet")
    toy_at.put("data/index.parquet", b"not an index")
    rows = next(key for key in toy_at.objects() if key.endswith("parquet") and "shards" in key)
    toy_at.client.delete_object(Bucket=toy_at.bucket, Key=rows)
    toy_at.put("data/shards/half.tar", b"of an upload that was stopped")
    assert main(["shards", "index", toy_at.address]) == 0
    out = capsys.readouterr().out
    assert f"6 samples in 1 shards -> {toy_at.address}/index.parquet" in out
    assert "left out, since their upload runs or was stopped: half" in out
    assert toy_at.get("data/index.parquet") == due
    assert rows in toy_at.objects()


def test_verify_names_the_damaged_place_and_what_was_never_finished(toy_at, capsys):
    assert main(["shards", "verify", toy_at.address]) == 0
    assert "1 shards, 6 samples" in capsys.readouterr().out
    tar = next(key for key in toy_at.objects() if key.endswith(".tar"))
    content = bytearray(toy_at.get(tar))
    content[700] ^= 1
    toy_at.put(tar, bytes(content))
    toy_at.put("data/shards/half.tar", b"of an upload that was stopped")
    assert main(["shards", "verify", toy_at.address]) == 1
    out = capsys.readouterr().out
    assert f"Shard {pathlib.Path(tar).stem}, key tabletop-t000-e0000-s0000, member json" in out
    assert "half.tar: a writer is at work here, or has died" in out


def test_verify_finds_missing_parts_of_a_shard(toy_at, capsys):
    for key in toy_at.objects():
        if key.endswith(".tar") or key == "data/index.parquet":
            toy_at.client.delete_object(Bucket=toy_at.bucket, Key=key)
    assert main(["shards", "verify", toy_at.address]) == 1
    out = capsys.readouterr().out
    assert "the file is missing" in out
    assert "there is no index.parquet" in out


def test_verify_works_over_http_and_where_nothing_can_be_listed(toy_at, local, file_server, capsys):
    server = file_server(local.parent)
    assert main(["shards", "verify", f"{server.url}/data"]) == 0
    toy_at.fail(is_listing, 403)
    assert main(["shards", "verify", toy_at.address]) == 0
    assert capsys.readouterr().out.count("1 shards, 6 samples") == 2


def one_line(capsys, command, address, *options):
    """What a command that must fail says."""
    more = [*OPTIONS, "--out"] if command == "collect" else [command]
    words = ["collect" if command == "collect" else "shards", *more, address, *options]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


COMMANDS = ["collect", "inspect", "verify", "index"]


def test_repair_says_to_copy_first(s3, capsys):
    err = one_line(capsys, "repair", s3.address)
    assert f"`dataset` must be a local folder to be repaired, but got {s3.address}. Copy it" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bucket_that_does_not_exist_is_one_sentence(s3, capsys, command):
    err = one_line(capsys, command, "s3://no-such-bucket/data")
    assert "s3://no-such-bucket/data" in err
    assert "Check its spelling" in err or "or is not there" in err


@pytest.mark.parametrize("command", ["inspect", "verify", "index"])
def test_an_object_that_does_not_exist_is_one_sentence(s3, capsys, command):
    err = one_line(capsys, command, s3.address)
    assert s3.address in err
    assert "dataset.json" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_credentials_are_one_sentence_that_names_the_variables(
    s3, capsys, command, monkeypatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    err = one_line(capsys, command, s3.address)
    assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_credentials_are_one_sentence(toy_at, capsys, command):
    toy_at.fail(lambda _: True, 403)
    assert "needs credentials or other ones" in one_line(capsys, command, toy_at.address)


@pytest.mark.parametrize("command", ["collect", "index"])
def test_writing_needs_the_permission_to_list(toy_at, capsys, command):
    toy_at.fail(is_listing, 403)
    assert "must be an address that may be listed" in one_line(capsys, command, toy_at.address)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_driver_is_one_sentence_that_says_what_to_install(
    s3, capsys, command, monkeypatch
):
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    assert "pip install 'vla-lens[remote]'" in one_line(capsys, command, s3.address)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_protocol_is_one_sentence(capsys, command):
    assert "gopher" in one_line(capsys, command, "gopher://host/data")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refused_connection_is_one_sentence(s3, capsys, command, monkeypatch):
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "Check the address and the connection" in one_line(capsys, command, s3.address)


def test_staging_belongs_to_addresses_only(tmp_path, capsys):
    out = str(tmp_path / "data")
    err = one_line(capsys, "collect", out, "--staging", str(tmp_path / "staging"))
    assert "`staging` must be left out where the data set is a folder" in err


def test_estimate_does_not_look_at_the_address(capsys):
    assert main(["collect", *OPTIONS, "--out", "s3://nowhere/data", "--estimate"]) == 0
    assert "samples   at most" in capsys.readouterr().out
