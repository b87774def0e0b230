"""A remote policy rolls out what the policy itself would, over a server that may go away."""

import asyncio
import contextlib
import dataclasses
import threading
import traceback

import numpy as np
import pytest
import websockets.asyncio.server as ws

from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.remote_policy import RemotePolicy
from jax_bridge.rollouts.collect import Collector, CollectPlan
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.serving.observation_message import blank_observation
from jax_bridge.serving.wire import decode, encode
from jax_bridge.shards import open_dataset
from tests.jax_bridge.serving.echo import POOLED, EchoPolicy, serve


class Silent:
    def update(self, report):
        pass


def collect(policy, folder, episodes=range(2)):
    plan = CollectPlan(
        tasks=range(1), episodes=episodes, protocol=RolloutProtocol(max_steps=7),
        capture=POOLED, images="png",
    )  # fmt: skip
    return Collector(Tabletop(image_size=32), policy, plan).run(str(folder), Silent())


def tars(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shards/*.tar")}


@contextlib.contextmanager
def remote(address, **options):
    policy = RemotePolicy(remote=address, **{"patience": 5.0, **options})
    try:
        yield policy
    finally:
        policy.close()


def test_a_remote_policy_writes_the_bytes_that_the_policy_itself_writes(tmp_path):
    collect(EchoPolicy(), tmp_path / "near")
    with serve() as address, remote(address) as policy:
        collect(policy, tmp_path / "far")
        assert collect(policy, tmp_path / "near").skipped == 2  # one data set, by either way
    assert tars(tmp_path / "near") == tars(tmp_path / "far")
    near, far = (open_dataset(tmp_path / name) for name in ("near", "far"))
    assert near.fingerprint == far.fingerprint
    assert far.info.model["address"].startswith("ws://127.0.0.1")


def test_a_server_that_comes_back_changes_nothing(tmp_path):
    collect(EchoPolicy(), tmp_path / "whole")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        address = first.enter_context(serve())
        port = int(address.rpartition(":")[2])
        policy = stack.enter_context(remote(address, patience=20.0))
        collect(policy, tmp_path / "broken", range(1))
        first.close()
        later = threading.Timer(0.3, lambda: stack.enter_context(serve(port=port)))
        later.start()
        collect(policy, tmp_path / "broken", range(2))
        later.join()
    whole, broken = (open_dataset(tmp_path / name) for name in ("whole", "broken"))
    for name in ("state", "actions", "executed"):
        assert whole.read_robot(name).tobytes() == broken.read_robot(name).tobytes()


def test_another_model_at_the_same_address_is_refused():
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        address = first.enter_context(serve())
        policy = stack.enter_context(remote(address))
        assert policy.action_horizon == 6
        first.close()
        stack.enter_context(
            serve(EchoPolicy(digest="another"), port=int(address.rpartition(":")[2]))
        )
        with pytest.raises(ValueError, match="its model is another one now"):
            policy._server.ask({})


def test_a_server_that_is_not_there_is_named():
    reason = r"but ws://127.0.0.1:9 does not answer"
    with (
        remote("ws://127.0.0.1:9", patience=0.2) as policy,
        pytest.raises(ConnectionError, match=reason),
    ):
        policy.describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remote": "localhost:8000"}, "`remote` must be an address like ws://localhost:8000"),
        ({"remote": "ws://x", "patience": -1.0}, "`patience` must not be negative, but got -1"),
        ({"remote": "ws://x", "convention": "moon"}, "`convention` must be .*'moon'"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        RemotePolicy(**options)


def test_what_the_server_does_not_capture_is_refused(address):
    reason = "Give `collect` and `serve` the same --capture"
    with remote(address) as policy, pytest.raises(ValueError, match=reason):
        policy.fields(CaptureSpec.preset("tokens"))


def test_what_the_server_refuses_is_said_in_its_words(address):
    seen = dataclasses.replace(blank_observation(EchoPolicy.convention, 8), instruction="break")
    reason = r"refused: ZeroDivisionError: the policy is broken"
    with remote(address) as policy, pytest.raises(ValueError, match=reason):
        policy.infer(seen)


@contextlib.contextmanager
def plain_openpi(answer):
    """A server as openpi's: metadata, answers, and a traceback as text."""

    async def converse(connection):
        await connection.send(encode({"robot": "arm", "gain": np.ones(2)}))
        async for content in connection:
            try:
                reply = encode(answer(decode(content)))
            except Exception:
                await connection.send(traceback.format_exc())
                await connection.close(1011)
                return
            await connection.send(reply)

    loop, stop, port = asyncio.new_event_loop(), asyncio.Event(), []
    listening = threading.Event()

    async def run():
        async with ws.serve(converse, "127.0.0.1", 0, compression=None) as server:
            port.append(next(iter(server.sockets)).getsockname()[1])
            listening.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    listening.wait(20)
    try:
        yield f"ws://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def test_any_openpi_server_drives_and_gives_actions_alone(tmp_path):
    asked = []

    def answer(message):
        asked.append(message)
        return {"actions": np.full((9, 7), message["observation/state"][0], np.float64)}

    with plain_openpi(answer) as address, remote(address) as policy:
        assert policy.action_horizon == 9
        report = collect(policy, tmp_path / "data", range(1))
        assert (report.episodes, report.samples) == (1, 2)
    assert set(asked[1]) == {
        "observation/image", "observation/wrist_image", "observation/state", "prompt"
    }  # fmt: skip
    assert asked[1]["observation/image"].shape == (224, 224, 3)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.fields == {}
    assert np.array_equal(
        dataset.read_robot("actions")[:, 0, 0], dataset.read_robot("state")[:, 0]
    )  # fmt: skip
    assert dataset.info.model["server"]["robot"] == "arm"


def test_the_last_line_of_openpis_traceback_is_the_error():
    def answer(message):
        raise KeyError("observation/image")

    reason = r"refused: KeyError: 'observation/image'$"
    with plain_openpi(answer) as address, remote(address) as policy:
        seen = blank_observation(policy.convention, 8)
        with pytest.raises(ValueError, match=reason):
            policy.infer(seen)
