"""A policy that needs no compiler, a server of it in a thread, and messages to it."""

import asyncio
import contextlib
import dataclasses
import threading
import zlib

import ml_dtypes
import numpy as np

from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.conventions import get_convention
from jax_bridge.policies.images import resize_with_pad
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.serving.served_episodes import ServedEpisodes
from jax_bridge.serving.served_policy import ServedPolicy
from jax_bridge.serving.server import PolicyServer, ServerOptions
from jax_bridge.shards import FieldSpec

LAYERED = "vlm.hidden_states.text.mean"
MASK = "mask.text"
POOLED = CaptureSpec.preset("pooled")


@dataclasses.dataclass
class EchoPolicy:
    """Actions say which state and which noise they come from; latents say what was seen."""

    convention = get_convention("libero")
    action_horizon = 6
    gate: threading.Event | None = None
    """Calls wait until it is set."""
    digest: str = "echo"

    def describe(self):
        return {"policy": "echo", "params_digest": self.digest, "times": [0.1, 1.0]}

    def fields(self, capture):
        hidden = FieldSpec(
            name=LAYERED, dtype="bfloat16", shape=(2, 4), axes=("layer", "width"), layers=(0, 3)
        )
        return {LAYERED: hidden, MASK: FieldSpec(
            name=MASK, dtype="bool", shape=(3,), axes=("token",))}  # fmt: skip

    def seen_images(self, observation):
        return {name: resize_with_pad(i) for name, i in observation.images.items()}

    def infer(self, observation, *, capture=None, noise_key=()):
        if self.gate is not None:
            assert self.gate.wait(20)
        if observation.instruction == "break":
            raise ZeroDivisionError("the policy is broken")
        noise = zlib.crc32(repr(list(noise_key)).encode()) / 2**32
        chunk = np.full((6, 7), noise, np.float32)
        chunk[:, 0] = observation.state[0]
        if capture is None:
            return PolicyOutput(actions=chunk, latents={})
        seen = np.mean([image.mean() for image in self.seen_images(observation).values()])
        hidden = np.full((2, 4), seen / 3, ml_dtypes.bfloat16)
        words = len(observation.instruction.split())
        return PolicyOutput(
            actions=chunk, latents={LAYERED: hidden, MASK: np.arange(3) < words}
        )  # fmt: skip


@contextlib.contextmanager
def serve(policy=None, *, out=None, capture=POOLED, **options):
    """A server in a thread; gives its address and its store."""
    served = ServedPolicy(
        policy=policy or EchoPolicy(), convention=EchoPolicy.convention, capture=capture
    )
    store = None if out is None else ServedEpisodes(str(out), served.dataset_info())
    options = {"port": 0, "keep_images": False, **options}
    server = PolicyServer(served, ServerOptions(**options), store)
    loop, stop, port, failed = asyncio.new_event_loop(), asyncio.Event(), [], []
    listening = threading.Event()

    def ready(number):
        port.append(number)
        listening.set()

    def run():
        try:
            loop.run_until_complete(server.run(stop, ready))
        except BaseException as error:
            failed.append(error)
        finally:
            listening.set()

    thread = threading.Thread(target=run)
    thread.start()
    listening.wait(20)
    try:
        if failed:
            raise failed[0]
        yield f"ws://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()


def message(state=0.5, prompt="put it down", brightness=9, **words):
    """A message as openpi's LIBERO client sends it."""
    image = np.full((8, 8, 3), brightness, np.uint8)
    return {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": np.full(8, state),
        "prompt": prompt,
        **words,
    }
