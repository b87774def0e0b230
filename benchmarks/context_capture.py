"""What capturing context vectors costs: a RoboVLMs forward alone, and with hooks and shards.

python -m benchmarks.context_capture [--width 512] [--layers 6] [--batch 4] [--batches 25]
    [--points 1] [--rounds 5] [--out FILE]

Goal: at most 5 % over the model's own forward, the shard's commit at the end included. The
checkpoint is random, of the given size, and loaded as a user's would be; the frames are noise; all
sides see the same batches in turn.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from typing import Any

import torch

from benchmarks.interleaved import interleave, show
from datamodules.frames.frame_batch import FrameBatch, FrameSample
from jax_bridge.shards import DatasetInfo, FieldSpec
from lightning_modules.capture.activation_capture import ActivationCapture
from lightning_modules.capture.capture_point import CapturePoint
from lightning_modules.capture.episode_stream import EpisodeStream
from lightning_modules.capture.robovlms.robovlms import RoboVLMs

GOAL = 1.05
TOKENS = 16


def write_checkpoint(path: pathlib.Path, width: int, layers: int) -> None:
    """A random policy of this size."""
    from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

    config = Kosmos2Config(
        text_config={"vocab_size": 1000, "embed_dim": width, "layers": layers,
                     "ffn_dim": 4 * width, "attention_heads": 8},
        vision_config={"hidden_size": width // 2, "num_hidden_layers": layers,
                       "intermediate_size": 2 * width, "num_attention_heads": 8},
    )  # fmt: skip
    backbone = Kosmos2ForConditionalGeneration(config).state_dict()
    tensors = {f"model.backbone.{name}": value for name, value in backbone.items()}
    tensors["model.action_token"] = torch.randn(width)
    torch.save({"state_dict": tensors}, path)


def make_batches(count: int, rows: int) -> list[FrameBatch]:
    """Frames of noise; every batch is an episode."""
    torch.manual_seed(0)
    tokens = torch.randint(3, 1000, (rows, TOKENS))
    found = []
    for episode in range(count):
        samples = [
            FrameSample(
                suite="noise", task_id=0, episode=episode, timestep=row, instruction="noise",
                task_name=None, success=None, episode_length=rows, seed=None, last=row == rows - 1,
            )
            for row in range(rows)
        ]  # fmt: skip
        images = {"base": torch.randn(rows, 1, 3, 224, 224)}
        found.append(FrameBatch(images=images, tokens=tokens, prompts=[], samples=samples))
    return found


def points_of(model: RoboVLMs, count: int) -> list[CapturePoint]:
    """The context vector, and the outputs of some of the text model's layers."""
    layers = len(model.backbone.text_model.model.layers)
    path = "backbone.text_model.model.layers"
    more = [
        CapturePoint(module=f"{path}.{layer}", side="output", pool="mean")
        for layer in range(min(count - 1, layers))
    ]
    return [CapturePoint(module="act_head"), *more]


class Sides:
    """Both ways to run the same batches."""

    def __init__(
        self, model: RoboVLMs, points: list[CapturePoint], batches: list[FrameBatch]
    ) -> None:
        self.capture_module = ActivationCapture(model, points)
        self.model, self.batches = model, batches
        self.frames = sum(len(batch.samples) for batch in batches)
        self.closing: list[float] = []
        """Seconds from the last forward until all is on the disk, of each round."""

    def with_capture(self) -> float:
        """Frames a second, until the last one is committed to the disk."""
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            start = time.perf_counter()
            stream = EpisodeStream(f"{folder}/data", info_of)
            for batch in self.batches:
                stream.put(self.capture_module.capture(batch))
            last = time.perf_counter()
            stream.close()
            end = time.perf_counter()
            self.closing.append(end - last)
            return self.frames / (end - start)

    def hooks_alone(self) -> float:
        """Frames a second with hooks, and nothing that is written."""
        with torch.inference_mode():
            start = time.perf_counter()
            for batch in self.batches:
                self.capture_module.capture(batch).arrays()
            return self.frames / (time.perf_counter() - start)

    def alone(self) -> float:
        """Frames a second of the forward alone."""
        with torch.inference_mode():
            start = time.perf_counter()
            for batch in self.batches:
                self.model(batch)
            return self.frames / (time.perf_counter() - start)


def info_of(fields: dict[str, FieldSpec]) -> DatasetInfo:
    """A data set of noise."""
    return DatasetInfo(fields=fields, capture={}, model={}, environment={}, seed=0)


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--points", type=int, default=1, help="modules that are captured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "policy.pt"
        write_checkpoint(path, arguments.width, arguments.layers)
        model = RoboVLMs(str(path), text_heads=8, vision_heads=8)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.to(device)
        batches = [
            batch._replace(
                images={"base": batch.images["base"].to(device)},
                tokens=None if batch.tokens is None else batch.tokens.to(device),
            )
            for batch in make_batches(arguments.batches, arguments.batch)
        ]
        sides = Sides(model, points_of(model, arguments.points), batches)
        rates = interleave(
            {
                "with capture": sides.with_capture, "the forward alone": sides.alone,
                "with hooks, nothing written": sides.hooks_alone,
            },
            arguments.rounds, unit="frames/s",
        )  # fmt: skip
    report(rates, vars(arguments) | {"device": device}, statistics.median(sides.closing[1:]))


def report(rates: dict[str, Any], settings: dict[str, Any], closing: float) -> None:
    """Prints the rates and the cost, and writes JSON."""
    out = settings.pop("out")
    machine = {
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    cost = 1 / rates["ratios"]["the forward alone"]
    show(f"context capture {settings} {machine}", rates)
    print(
        f"  cost: {cost:.3f} times the forward alone (goal {GOAL}); "
        f"{closing:.3f} s of it until the shard is committed, once a run"
    )
    if out:
        found = {"machine": machine, "settings": settings, "rates": rates, "cost": cost,
                 "seconds_to_commit": closing}  # fmt: skip
        out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
