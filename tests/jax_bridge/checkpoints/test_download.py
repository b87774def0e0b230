"""Downloads from servers that drop, lie, corrupt and change: never a wrong file under its name."""

import hashlib
import json
import subprocess
import sys
import types

import numpy as np
import pytest

from jax_bridge.checkpoints import fetching
from jax_bridge.checkpoints.digests import told_digest
from jax_bridge.checkpoints.download import _direct, download, plan_download
from jax_bridge.checkpoints.download_record import RECORD, load_record, verify
from jax_bridge.checkpoints.fetching import DigestError
from jax_bridge.shards.remote.retry import Retries

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Retries(attempts=3, first_wait=0.001, longest_wait=0.002)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(fetching, "WINDOW", 64_000)
    monkeypatch.setattr(fetching, "PIECE", 16_000)


@pytest.fixture
def served(tmp_path, file_server):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "model.safetensors").write_bytes(CONTENT)
    server = file_server(tmp_path / "far")
    return types.SimpleNamespace(
        server=server,
        address=f"{server.url}/model.safetensors",
        file=tmp_path / "far" / "model.safetensors",
        out=tmp_path / "out",
        here=tmp_path / "out" / "model.safetensors",
    )


def _plan(served, **words):
    plan = plan_download(served.address, served.out, **words)
    plan.store.retries = QUICK
    return plan


def test_a_file_comes_whole_and_is_noted(served):
    seen = []
    done = download(_plan(served, sha256=SHA256), seen.append)
    assert served.here.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)
    assert done.record.files["model.safetensors"].sha256 == SHA256
    assert sorted(p.name for p in served.out.iterdir()) == [RECORD, "model.safetensors"]
    assert verify(served.out) == []


def test_a_second_download_fetches_nothing(served):
    download(_plan(served))
    served.server.reset()
    done = download(_plan(served))
    assert (done.fetched, done.kept) == ([], ["model.safetensors"])
    assert served.server.bytes_sent == 0


def test_dropped_connections_are_tried_again(served):
    served.server.manners.drop_rate = 0.4
    plan = _plan(served)
    plan.store.retries = Retries(attempts=12, first_wait=0.001, longest_wait=0.002)
    download(plan)
    assert served.here.read_bytes() == CONTENT
    assert served.server.drops > 0


def test_what_was_stopped_goes_on_where_it_was(served):
    plan, seen = _plan(served), []

    def stop_in_the_middle(size):
        seen.append(size)
        if sum(seen) >= 128_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(plan, stop_in_the_middle)
    assert not served.here.exists()
    assert "the download was stopped before all was here." in verify(served.out)
    served.server.reset()
    download(_plan(served))
    assert served.here.read_bytes() == CONTENT
    assert served.server.bytes_sent == len(CONTENT) - 128_000


def test_a_killed_download_goes_on_where_it_was(served):
    served.server.manners.status = None
    code = (
        "import os, sys; from jax_bridge.checkpoints import fetching;"
        "from jax_bridge.checkpoints.download import download, plan_download;"
        "fetching.WINDOW = 64000; seen = [];"
        "plan = plan_download(*sys.argv[1:]);"
        "download(plan, lambda n: (seen.append(n), sum(seen) >= 64000 and os._exit(9)))"
    )
    args = [sys.executable, "-c", code, served.address, str(served.out)]
    assert subprocess.run(args, check=False).returncode == 9
    assert not served.here.exists()
    served.server.reset()
    download(_plan(served, sha256=SHA256))
    assert served.here.read_bytes() == CONTENT
    assert served.server.bytes_sent <= len(CONTENT) - 64_000


def test_an_object_that_changed_meanwhile_begins_anew(served):
    with pytest.raises(KeyboardInterrupt):
        download(_plan(served), lambda n: (_ for _ in ()).throw(KeyboardInterrupt) if n else None)
    served.file.write_bytes(CONTENT[::-1])
    download(_plan(served))
    assert served.here.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("lie", [-7, 7])
def test_a_server_that_lies_about_the_length_leaves_no_file(served, lie):
    served.server.manners.length_lie = lie
    with pytest.raises(OSError, match=r"cannot be read|is not the one"):
        download(_plan(served, sha256=SHA256))
    assert not served.here.exists()


def test_wrong_bytes_leave_no_file_and_nothing_to_go_on_with(served):
    served.file.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DigestError, match=rf"whose sha256 is {SHA256} \(given\), but .* came as"):
        download(_plan(served, sha256=SHA256))
    assert [p.name for p in served.out.iterdir()] == [RECORD]
    served.file.write_bytes(CONTENT)
    download(_plan(served, sha256=SHA256))
    assert served.here.read_bytes() == CONTENT


def test_bytes_that_are_spoilt_between_two_runs_are_noticed(served):
    with pytest.raises(KeyboardInterrupt):
        download(_plan(served, sha256=SHA256), _interrupt_at(64_000))
    part = served.out / ".model.safetensors.part"
    part.write_bytes(b"?" + part.read_bytes()[1:])
    with pytest.raises(DigestError, match="Nothing of it was kept"):
        download(_plan(served, sha256=SHA256))
    assert not served.here.exists()


def _interrupt_at(size):
    seen = []

    def count(more):
        seen.append(more)
        if sum(seen) >= size:
            raise KeyboardInterrupt

    return count


def test_a_server_without_ranges_is_not_asked_once_a_stretch(served, monkeypatch):
    monkeypatch.setattr(fetching, "WINDOW", 16_000)  # 19 stretches
    served.server.manners.ranges = False
    download(_plan(served, sha256=SHA256))
    assert served.here.read_bytes() == CONTENT
    gets = [line for line in served.server.requests if line.startswith("GET")]
    assert len(gets) == 3  # a range, that stretch, all the rest


def test_two_downloads_do_not_write_one_file(served):
    served.out.mkdir()
    part = served.out / ".model.safetensors.part"
    # The lock is the open file's, so a second opening stands for a second process.
    with (
        fetching._held(part),
        pytest.raises(OSError, match=r"one download at a time, but another one writes .*\.part"),
    ):
        download(_plan(served))
    download(_plan(served))
    assert served.here.read_bytes() == CONTENT


def test_verify_finds_what_is_missing_cut_or_spoilt(served):
    download(_plan(served))
    served.here.write_bytes(CONTENT[:-1] + b"?")
    (problem,) = verify(served.out)
    assert problem.endswith(f"instead of {SHA256}.")
    served.here.write_bytes(CONTENT[:-1])
    assert verify(served.out) == ["model.safetensors has 299999 bytes instead of 300000."]
    served.here.unlink()
    assert verify(served.out) == ["model.safetensors is missing."]
    with pytest.raises(FileNotFoundError, match=r"has filled, but .*far' has no \.vla-lens"):
        verify(served.file.parent)
    (served.out / RECORD).write_text("{")
    with pytest.raises(ValueError, match=r"readable \.vla-lens-download.json"):
        load_record(served.out)


def test_a_folder_comes_with_its_tree_and_only_what_is_asked_for(s3, tmp_path):
    for name in ("params/_METADATA", "params/d/0", "assets/a/norm_stats.json", "train_state/x"):
        s3.put(f"data/{name}", name.encode())
    plan = plan_download(s3.address, tmp_path, include=("params/*", "assets/*"))
    done = download(plan)
    assert sorted(done.fetched) == ["assets/a/norm_stats.json", "params/_METADATA", "params/d/0"]
    assert (tmp_path / "params" / "d" / "0").read_bytes() == b"params/d/0"
    again = download(plan_download(s3.address, tmp_path))
    assert again.fetched == ["train_state/x"]
    with pytest.raises(
        FileNotFoundError, match=r"files that \*\.pt fits, but s3://.* has assets/a"
    ):
        plan_download(s3.address, tmp_path, include=("*.pt",))
    with pytest.raises(ValueError, match=r"`sha256` must be of a single file, but .* has 4"):
        plan_download(s3.address, tmp_path, sha256=SHA256)


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ({"lfs": {"sha256": hashlib.sha256(b"x").hexdigest()}}, b"x"),
        ({"blob_id": "587be6b4c3f93f93c489c0111bba5596147a26cb"}, b"x\n"),  # git hash-object
        ({"md5Hash": "ndTkYSaMgDT1yFZOFVxnpg=="}, b"x"),
    ],
)
def test_digests_that_servers_tell_are_compared(tmp_path, entry, content):
    (tmp_path / "x").write_bytes(content)
    digest = told_digest(entry)
    assert digest is not None
    assert fetching.Hashes(len(content), digest).fits is False
    hashes = fetching.Hashes(len(content), digest)
    hashes.add(content)
    assert hashes.fits


def test_a_path_that_leads_outside_is_refused(tmp_path, monkeypatch):
    from jax_bridge.shards.remote.store import RemoteStore

    (tmp_path / "far").mkdir()
    tree = {"../escaped": {"size": 1, "stamp": "a"}}
    monkeypatch.setattr(RemoteStore, "tree", lambda self: tree)
    with pytest.raises(ValueError, match=r"names '\.\./escaped', which would be written elsewhere"):
        plan_download((tmp_path / "far").as_uri(), tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"address": "/tmp/model"}, "`address` must be one such as hf://"),
        ({"sha256": "abc"}, "`sha256` must be 64 hexadecimal digits, but got 'abc'"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, words, message):
    given = {"address": tmp_path.as_uri(), **words}
    with pytest.raises(ValueError, match=message):
        plan_download(given.pop("address"), tmp_path / "out", **given)


def test_a_folder_of_another_address_is_left_alone(served, tmp_path):
    download(_plan(served))
    (tmp_path / "far" / "b").write_bytes(b"b")
    with pytest.raises(ValueError, match=r"`out` must be empty or hold a download of .*/b, but"):
        download(plan_download(f"{served.server.url}/b", served.out))


def test_the_record_is_plain_json(served):
    download(_plan(served))
    entry = json.loads((served.out / RECORD).read_text())
    assert entry["complete"]
    assert entry["files"]["model.safetensors"]["compared"] is None


@pytest.mark.parametrize(
    ("address", "direct"),
    [
        (
            "https://huggingface.co/org/m/resolve/main/a/b.bin?download=true",
            "hf://org/m@main/a/b.bin",
        ),
        ("https://huggingface.co/org/m/blob/v1/b.bin", "hf://org/m@v1/b.bin"),
        ("https://example.org/org/m/resolve/main/b.bin", None),
        ("hf://org/m", None),
    ],
)
def test_a_files_page_on_the_hub_is_taken_for_the_file(address, direct):
    assert _direct(address) == (direct or address)
