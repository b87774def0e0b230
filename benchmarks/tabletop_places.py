"""How precisely the prompt knows where an instruction's object is, layer by layer, in centimetres.

Run as `python -m benchmarks.tabletop_places CHECKPOINT [--scenes 6000] [--out FILE]`. The action
expert reads the keys and values of the backbone's tokens, each of its layers those of one layer.
Here a linear probe reads the object's place on the table (x and y) from the keys and values of all
of the prompt's tokens, one layer at a time: the hand is anywhere, the instruction any of the 16.
It learns on the first three quarters of the scenes, which no training has seen, and is asked about
the others. A policy whose prompt is wrong by more than a few centimetres grasps beside the object.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32

from benchmarks.tabletop_learning import FIRST_HELD_OUT, surroundings
from jax_bridge.environments.tabletop.tabletop import Tabletop
from jax_bridge.environments.tabletop.tasks import GOALS
from jax_bridge.ki.backbone import run_backbone
from jax_bridge.pi0 import Observation
from jax_bridge.policies.pi0_policy import Pi0Policy

ROWS = 100
"""Scenes that the backbone looks at together."""
RIDGE = 30.0


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What does the prompt know of the object's place?")
    parser.add_argument("checkpoint", help="of `ki fit`, of any of the tabletop's stages")
    parser.add_argument("--scenes", type=int, default=6_000)
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    arguments = parser.parse_args()
    layers, places = look(arguments.checkpoint, arguments.scenes)
    result: dict[str, Any] = {**surroundings(), "scenes": arguments.scenes, "layers": []}
    for layer, known in enumerate(layers):
        found = probe(known, places)
        result["layers"].append(found)
        print(f"layer {layer}: median error {found['median_cm']:.1f} cm, R2 {found['r2']:.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def look(checkpoint: str, scenes: int) -> tuple[list[Float32[np.ndarray, "n f"]], np.ndarray]:
    """Keys and values of the prompt's tokens in each layer, and places of the objects in cm."""
    policy = Pi0Policy(checkpoint=checkpoint, norm_stats="none")
    config, tokens = policy.config, policy.config.max_token_len
    table = Tabletop(image_size=config.vision.image_size, view="base")

    @jax.jit
    def caches(params: Any, observation: Observation) -> Any:
        return run_backbone(params, observation, config).context.cache

    layers: list[list[np.ndarray]] = [[] for _ in range(config.depth)]
    places: list[list[float]] = []
    for first in range(0, scenes, ROWS):
        rows = []
        for i in range(first, min(first + ROWS, scenes)):
            table.scatter(episode=FIRST_HELD_OUT + i, seed=0)
            goal = GOALS[i % len(GOALS)]
            seen = dataclasses.replace(table.observe(), instruction=goal.instruction)
            rows.append(policy.processor.model_inputs(seen))
            target = table.truth()["objects"][goal.target.name]
            places.append([100 * value for value in target[:2]])
        cache = caches(policy.params, jax.tree.map(lambda *parts: np.concatenate(parts), *rows))
        both = np.concatenate([cache.keys, cache.values], axis=-1)[:, :, -tokens:]
        for layer, values in zip(layers, both, strict=True):
            layer.append(values.reshape(len(rows), -1))
    return [np.concatenate(layer) for layer in layers], np.asarray(places)


def probe(known: Float32[np.ndarray, "n f"], places: Float[np.ndarray, "n 2"]) -> dict[str, float]:
    """Ridge regression: error and share of the variance on what it did not learn from."""
    learnt = len(known) * 3 // 4
    mean, spread = known[:learnt].mean(0), known[:learnt].std(0) + 1e-3
    inputs, middle = (known - mean) / spread, places[:learnt].mean(0)
    own = inputs[:learnt]
    weights = np.linalg.solve(
        own.T @ own + RIDGE * np.eye(own.shape[1]), own.T @ (places[:learnt] - middle)
    )
    error = inputs[learnt:] @ weights + middle - places[learnt:]
    whole = np.square(places[learnt:] - middle).sum()
    return {
        "median_cm": float(np.median(np.hypot(*error.T))),
        "r2": float(1 - np.square(error).sum() / whole),
    }


if __name__ == "__main__":
    main()
