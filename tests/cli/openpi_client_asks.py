"""Drives a policy server with openpi's published client: `python openpi_client_asks.py PORT FILE`.

Runs in an environment that has openpi-client and nothing of ours; writes what it got as npz.
"""

import sys

import numpy as np
from openpi_client import action_chunk_broker, image_tools, websocket_client_policy


def observation(number, size=224):
    """What openpi's LIBERO example sends."""
    generator = np.random.default_rng(number)
    images = [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(2)]
    return {
        "observation/image": image_tools.convert_to_uint8(images[0]),
        "observation/wrist_image": images[1],
        "observation/state": np.concatenate((np.linspace(-1, 1, 6), [0.04, -0.04])),
        "prompt": f"put the cup on shelf {number}",
    }


def main(port, path):
    policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", port)
    got = {"numpy": np.__version__, "horizon": policy.get_server_metadata()["action_horizon"]}
    for number in range(2):
        answer = policy.infer({**observation(number), "noise_key": ["openpi", number]})
        got[f"actions_{number}"] = answer["actions"]
        assert answer["server_timing"]["infer_ms"] > 0
    answer = policy.infer({**observation(0), "noise_key": ["openpi", 0], "collect_latents": True})
    got["actions_with_latents"] = answer["actions"]
    for name, value in answer["latents"].items():
        got[f"latents/{name}"] = value
    policy.infer({"end_episode": {"success": True}})
    broker = action_chunk_broker.ActionChunkBroker(policy, action_horizon=5)
    got["brokered"] = np.stack([broker.infer(observation(1))["actions"] for _ in range(6)])
    try:
        policy.infer({**observation(0), "observation/state": np.zeros(3)})
    except RuntimeError as error:
        got["error"] = str(error)
    np.savez(path, **got)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
