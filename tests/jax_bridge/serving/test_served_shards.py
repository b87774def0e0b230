"""What clients ask as episode shards: where episodes begin and end, and what is kept of them."""

import contextlib
import io
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from jax_bridge.serving.client_episodes import EpisodeCount, default_noise_key
from jax_bridge.serving.client_words import EpisodeEnd, EpisodeName, read_words
from jax_bridge.serving.observation_message import read_observation
from jax_bridge.serving.wire import decode, encode
from jax_bridge.shards import open_dataset
from jax_bridge.shards.verify import verify_dataset
from tests.jax_bridge.serving.echo import LAYERED, POOLED, EchoPolicy, message, serve

NAMED = {"episode": {"suite": "kitchen", "task_id": 2, "episode": 5, "task_name": "pick"}}


@contextlib.contextmanager
def client(address):
    with connect(address, compression=None) as connection:
        connection.recv()

        def ask(words):
            connection.send(encode(words))
            answer = connection.recv(timeout=20)
            if isinstance(answer, str):
                raise ValueError(answer)
            return decode(answer)

        ask.connection = connection
        yield ask


def twice(ask, words):
    """A call is answered before it is written, so that the next one hears what went wrong."""
    return [ask(words), ask(words)]


def rows(folder, *names):
    assert verify_dataset(folder).problems == ()
    index = open_dataset(folder).index
    return list(zip(*(index[name].to_pylist() for name in names), strict=True))


def test_a_named_episode_is_kept_with_its_outcome_and_latents(tmp_path):
    with serve(out=tmp_path) as address, client(address) as ask:
        sent = [message(state=s, brightness=b, **NAMED) for s, b in ((0.1, 10), (0.2, 20))]
        answers = [ask({**m, "timestep": 5 * i}) for i, m in enumerate(sent)]
        ended = ask({"end_episode": {"success": True, "episode_length": 9}})
    assert ended == {"episode_ended": True}
    columns = ("suite", "task_id", "episode", "timestep", "call", "success", "episode_length")
    assert rows(tmp_path, *columns) == [
        ("kitchen", 2, 5, 0, 0, True, 9), ("kitchen", 2, 5, 5, 1, True, 9)
    ]  # fmt: skip
    dataset = open_dataset(tmp_path)
    own = [
        EchoPolicy().infer(read_observation(m, EchoPolicy.convention), capture=POOLED)
        for m in sent
    ]  # fmt: skip
    kept = dataset.read(LAYERED)
    assert kept.tobytes() == np.stack([o.latents[LAYERED] for o in own]).tobytes()
    assert np.array_equal(
        dataset.read_robot("actions"), np.stack([a["actions"] for a in answers])
    )  # fmt: skip
    assert np.allclose(dataset.read_robot("state")[:, 0], [0.1, 0.2])
    assert dataset.info.model["params_digest"] == "echo"


def test_a_client_that_says_nothing_has_episodes_by_instruction_and_connection(tmp_path):
    with serve(out=tmp_path) as address:
        for prompts in (("a", "a", "b"), ("a",)):
            with client(address) as ask:
                for prompt in prompts:
                    ask(message(prompt=prompt))
    found = rows(tmp_path, "suite", "task_id", "episode", "timestep", "instruction", "outcome")
    assert found == [
        ("served", 0, 0, 0, "a", "unknown"), ("served", 0, 0, 1, "a", "unknown"),
        ("served", 0, 1, 0, "b", "unknown"), ("served", 1, 0, 0, "a", "unknown"),
    ]  # fmt: skip


def test_reset_and_silence_begin_episodes_and_silence_commits(tmp_path):
    with serve(out=tmp_path, idle_seconds=0.2) as address, client(address) as ask:
        ask(message())
        ask(message(reset=True))
        deadline = time.monotonic() + 20
        while not (tmp_path / "index.parquet").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert rows(tmp_path, "episode", "timestep") == [(0, 0), (1, 0)]
        ask(message())
    assert rows(tmp_path, "episode", "timestep") == [(0, 0), (1, 0), (2, 0)]


def test_silence_ends_no_episode_that_has_a_name(tmp_path):
    with serve(out=tmp_path, idle_seconds=0.05) as address, client(address) as ask:
        ask(message(**NAMED))
        time.sleep(0.3)
        ask(message())  # still the same episode
        ask({"end_episode": {"success": True}})
        deadline = time.monotonic() + 20
        while not (tmp_path / "index.parquet").exists():  # silence commits what has ended
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert rows(tmp_path, "episode", "call", "success") == [(5, 0, True), (5, 1, True)]


def test_a_named_episode_that_was_cut_off_is_dropped_and_can_be_sent_again(tmp_path):
    with serve(out=tmp_path) as address:
        with client(address) as ask:
            ask(message(**NAMED))
            ask.connection.socket.shutdown(socket.SHUT_RDWR)
        with client(address) as ask:
            ask(message(**NAMED))
            ask({"end_episode": {"success": False}})
            with pytest.raises(ValueError, match=r"`episode` must be new, but kitchen-t002-e0005"):
                ask(message(**NAMED))
    assert rows(tmp_path, "suite", "call", "outcome") == [("kitchen", 0, "failure")]


def test_a_new_server_counts_on_and_refuses_another_policy(tmp_path):
    for _ in range(2):
        with serve(out=tmp_path) as address, client(address) as ask:
            ask(message())
    assert rows(tmp_path, "task_id", "episode") == [(0, 0), (1, 0)]
    reason = "params_digest is echo there, other now"
    with pytest.raises(ValueError, match=reason), serve(EchoPolicy(digest="other"), out=tmp_path):
        pass


def test_clients_at_once_write_whole_episodes_each(tmp_path):
    together = threading.Barrier(3)

    def talk(number):
        with client(address) as ask:
            for episode in range(4):
                name = {"suite": "many", "task_id": number, "episode": episode}
                for step in range(3):
                    together.wait(20)
                    ask(message(state=10 * number + step, episode=name))
                ask({"end_episode": {"success": bool(number)}})

    with serve(out=tmp_path) as address:
        threads = [threading.Thread(target=talk, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    found = rows(tmp_path, "task_id", "episode", "timestep", "success")
    assert found == [
        (t, e, s, bool(t)) for t in range(3) for e in range(4) for s in range(3)
    ]  # fmt: skip
    states = open_dataset(tmp_path).read_robot("state")[:, 0]
    assert states.tolist() == [10 * t + s for t in range(3) for _ in range(4) for s in range(3)]


def test_images_are_kept_as_the_policy_saw_them(tmp_path):
    with serve(out=tmp_path, keep_images=True) as address, client(address) as ask:
        ask(message(brightness=70))
    content = open_dataset(tmp_path).read_members("base.jpg", [0])[0]
    image = np.asarray(Image.open(io.BytesIO(content)))
    assert image.shape == (224, 224, 3)
    assert np.abs(image.astype(int) - 70).max() <= 2


def test_a_disk_that_is_full_is_told_to_the_client_and_the_server_goes_on(tmp_path, monkeypatch):
    from jax_bridge.shards import file_layer

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with serve(out=tmp_path) as address:
        with client(address) as ask:
            ask(message(**NAMED))
            ask({"end_episode": {}})
            with monkeypatch.context() as patch:
                patch.setattr(file_layer.LOCAL_FILES.__class__, "write_at", full)
                with pytest.raises(ValueError, match=r"disk is full"):
                    twice(ask, message(prompt="lost"))
                with client(address) as other, pytest.raises(ValueError, match=r"disk is full"):
                    twice(other, message(prompt="lost too"))
        with client(address) as ask:
            ask(message(prompt="later"))
    assert ("later",) in rows(tmp_path, "instruction")


def test_episodes_are_counted_by_what_the_client_says():
    count = EpisodeCount(7)
    name = EpisodeName(task_id=1, episode=4)
    said = [
        ({}, "a"), ({}, "a"), ({"reset": True}, "a"), ({}, "b"),
        ({"episode": name}, "b"), ({}, "b"), ({"episode": name}, "b"), ({"reset": True}, "b"),
    ]  # fmt: skip
    found = []
    for words, instruction in said:
        entry = {k: v if k == "reset" else {"task_id": 1, "episode": 4} for k, v in words.items()}
        begins = count.advance(read_words(entry), instruction)
        found.append((begins, count.is_named, *default_noise_key(count)[1:3], count.call))
    assert found == [
        (True, False, 7, 0, 0), (False, False, 7, 0, 1), (True, False, 7, 1, 0),
        (True, False, 7, 2, 0), (True, True, 1, 4, 0), (False, True, 1, 4, 1),
        (False, True, 1, 4, 2), (True, False, 7, 3, 0),
    ]  # fmt: skip
    assert read_words({"end_episode": True}).end_episode == EpisodeEnd()
