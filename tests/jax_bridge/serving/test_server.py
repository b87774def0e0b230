"""The policy server as openpi's clients see it, and what bad clients cannot do to good ones."""

import concurrent.futures
import random
import re
import socket
import threading
import urllib.request

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from jax_bridge.serving.observation_message import read_observation
from jax_bridge.serving.server import ServerOptions
from jax_bridge.serving.wire import decode, encode
from tests.jax_bridge.serving.echo import LAYERED, MASK, POOLED, EchoPolicy, message, serve


def opened(address, **options):
    return connect(address, compression=None, max_size=None, **options)


def ask(connection, message):
    connection.send(encode(message))
    return decode(connection.recv(timeout=20))


def refusal(address, content):
    """The error text that a message earns, and the code with which the server closes."""
    with opened(address) as connection:
        connection.recv()
        connection.send(content)
        text = connection.recv(timeout=20)
        with pytest.raises(ConnectionClosed, match="error is in the frame before") as closed:
            connection.recv(timeout=20)
    assert isinstance(text, str), text
    return text, closed.value.rcvd.code


def healthy(address):
    with urllib.request.urlopen(f"{address.replace('ws', 'http', 1)}/healthz", timeout=5) as got:
        return got.status, got.read()


def test_a_client_is_told_the_metadata_first(address):
    with opened(address) as connection:
        told = decode(connection.recv())
    assert told["server"] == "vla-lens"
    assert (told["action_horizon"], told["convention"]) == (6, "libero")
    assert told["model"] == EchoPolicy().describe()
    assert told["capture"] == POOLED.to_json()
    assert told["fields"][LAYERED]["dtype"] == "bfloat16"


def test_the_answer_is_the_policys_own_in_openpis_form(address):
    key = [3, "libero", "call", 0]
    sent = message(state=0.25, noise_key=key)
    own = EchoPolicy().infer(
        read_observation(sent, EchoPolicy.convention), capture=POOLED, noise_key=key
    )  # fmt: skip
    with opened(address) as connection:
        connection.recv()
        plain = ask(connection, sent)
        full = ask(connection, {**sent, "collect_latents": True})
    assert set(plain) == {"actions", "policy_timing", "server_timing"}
    assert set(plain["server_timing"]) == {"infer_ms"}
    assert set(full["server_timing"]) == {"infer_ms", "prev_total_ms"}
    assert plain["actions"].tobytes() == own.actions.tobytes()
    assert full["actions"].tobytes() == own.actions.tobytes()
    assert np.array_equal(full["latents"][LAYERED], own.latents[LAYERED].astype(np.float32))
    assert np.array_equal(full["latents"][MASK], own.latents[MASK])


def test_calls_without_a_named_noise_differ_from_call_to_call(address):
    with opened(address) as connection:
        connection.recv()
        noise = [ask(connection, message())["actions"][0, 1] for _ in range(3)]
    assert len(set(noise)) == 3


BAD = {
    "text": ("hello", "must be binary"),
    "no msgpack": (b"\xc1\x00", "must be msgpack"),
    "no state": ({"prompt": "go"}, "`observation/image` must be in every observation"),
    "misspelt": ({"observation/imagee": 1}, "got only observation/imagee"),
    "prompt": ({"prompt": 3}, "`prompt` must be text, but got int"),
    "flat image": ({"observation/image": np.zeros((8, 8))}, None),
    "short state": ({"observation/state": np.zeros(3)}, r"must be 8 finite numbers.*\(3,\)"),
    "nan": ({"observation/state": np.full(8, np.nan)}, "must be 8 finite numbers"),
    "word for state": ({"observation/state": "zero"}, "array of numbers, but got str"),
    "flag": ({"collect_latents": 1}, "`collect_latents` must be true or false, but got 1"),
    "noise": ({"noise_key": [[1]]}, "`noise_key` must be at most 16 words"),
    "timestep": ({"timestep": -1}, "`timestep` must be a whole number"),
    "episode": ({"episode": {"task": 1}}, "`episode` must be a map with entries among"),
    "suite": ({"episode": {"task_id": 0, "episode": 0, "suite": "a/b"}}, "`suite` must be"),
    "end": ({"end_episode": {"success": 3}}, "`success` must be true or false, but got 3"),
}


@pytest.mark.parametrize("name", [n for n in BAD if BAD[n][1]])
def test_a_bad_message_is_answered_by_text_and_an_end(address, name):
    content, reason = BAD[name]
    if isinstance(content, dict):
        content = encode(
            content if name in ("no state", "misspelt") else {**message(), **content}
        )  # fmt: skip
    text, code = refusal(address, content)
    assert code == 1011
    assert re.search(reason, text)
    assert "\n" not in text


def test_an_unexpected_error_names_itself_and_hides_the_traceback(address):
    text, code = refusal(address, encode(message(prompt="break")))
    assert text.startswith("ZeroDivisionError: the policy is broken.")
    assert code == 1011


def test_latents_of_a_server_without_capture_are_refused():
    with serve(capture=None) as address:
        text, _ = refusal(address, encode(message(collect_latents=True)))
    assert "this server captures nothing. Start it with --capture pooled" in text


def test_a_bad_client_does_not_disturb_a_good_one(address):
    with opened(address) as good:
        good.recv()
        before = ask(good, message(noise_key=[1]))["actions"]
        refusal(address, b"\xc1")
        refusal(address, encode(message(prompt="break")))
        after = ask(good, message(noise_key=[1]))["actions"]
    assert np.array_equal(before, after)


def malformed(rng, valid):
    """A message that was cut, changed, or is noise."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return valid[: rng.randrange(len(valid))]
    if kind == 2:
        changed = bytearray(valid)
        for _ in range(rng.randrange(1, 20)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    words = [
        "collect_latents",
        "noise_key",
        "reset",
        "timestep",
        "episode",
        "end_episode",
        "prompt",
    ]
    values = [None, -1, "x", [1], {"success": "y"}, 2**40, 0.5, b"bytes", True]
    return msgpack.packb({rng.choice(words): rng.choice(values) for _ in range(3)})


def test_a_thousand_malformed_messages_leave_the_server_well(address):
    rng = random.Random(0)
    valid = encode(message())
    refused = 0

    def throw(content):
        with opened(address) as connection:
            connection.recv()
            connection.send(content)
            return isinstance(connection.recv(timeout=20), str)

    contents = [malformed(rng, valid) for _ in range(1000)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        refused = sum(pool.map(throw, contents))
    assert refused > 700  # a changed pixel, or `end_episode` alone, is a message like others
    with opened(address) as connection:
        connection.recv()
        assert ask(connection, message())["actions"].shape == (6, 7)
    assert healthy(address) == (200, b"OK\n")


def test_a_message_over_the_limit_ends_its_connection_alone(address):
    with opened(address) as connection:
        connection.recv()
        with pytest.raises(ConnectionClosed, match="1009"):
            ask(connection, message(padding=bytes(2**20)))
    assert healthy(address)[0] == 200


def test_a_web_page_cannot_drive_the_robot(address):
    with pytest.raises(InvalidStatus, match="403"), opened(address, origin="http://evil.example"):
        pass


def test_clients_at_once_get_their_own_answers(address):
    def talk(number):
        with opened(address) as connection:
            connection.recv()
            return [
                ask(connection, message(state=number + i / 10))["actions"][0, 0] for i in range(10)
            ]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(talk, range(6)))
    expected = [[np.float32(n + i / 10) for i in range(10)] for n in range(6)]
    assert found == expected


def test_health_is_answered_while_the_policy_works():
    policy = EchoPolicy(gate=threading.Event())
    with serve(policy) as address, opened(address) as connection:
        connection.recv()
        connection.send(encode(message()))
        assert healthy(address) == (200, b"OK\n")
        policy.gate.set()
        assert "actions" in decode(connection.recv(timeout=20))


def test_clients_that_vanish_during_their_calls_are_forgotten():
    policy = EchoPolicy(gate=threading.Event())
    with serve(policy) as address:
        for _ in range(3):
            with opened(address) as gone:
                gone.recv()
                gone.send(encode(message()))
                gone.socket.shutdown(socket.SHUT_RDWR)
        policy.gate.set()
        with opened(address) as connection:
            connection.recv()
            assert ask(connection, message())["actions"].shape == (6, 7)


def test_a_port_that_is_taken_is_named(address):
    port = int(address.rpartition(":")[2])
    reason = f"must be free .* but got 127.0.0.1:{port}"
    with pytest.raises(OSError, match=reason), serve(port=port):
        pass


def test_only_this_machine_can_come_unless_told_otherwise():
    assert ServerOptions().host == "127.0.0.1"
    with pytest.raises(ValueError, match="`port` must lie in 0 to 65535, but got 70000"):
        ServerOptions(port=70000)
