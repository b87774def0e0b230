"""Golden numbers of the real openpi code: the small ones in tests/data, all in ../shared/golden."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest

from jax_bridge.pi0 import Observation, Pi0, Pi0Config, cast_params
from jax_bridge.pi0.parameters import unflatten
from jax_bridge.vocabulary import CAMERAS

ROOT = pathlib.Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "golden"
DATA = ROOT / "tests" / "data" / "pi0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
    """One variant: the model, the inputs and openpi's results."""

    name: str
    model: Pi0
    params: dict
    observation: Observation
    inputs: dict
    results: dict
    prefix_tokens: np.ndarray
    """Which prefix tokens `results` hold."""


def recipe(manifest: dict) -> dict:
    """Parameters as the goldens' README says."""
    flat = {}
    for path, entry in manifest.items():
        seed = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "little")
        generator = np.random.Generator(np.random.PCG64(seed))
        value = generator.standard_normal(entry["shape"], dtype=np.float32)
        value = value * np.float32(entry["scale"])
        flat[path] = value + np.float32(entry["offset"]) if entry["offset"] else value
    return unflatten(flat)


def images() -> dict:
    """The goldens' images; they are a pure function of the camera's number."""
    made = {}
    for i, camera in enumerate(CAMERAS):
        pixels = np.random.Generator(np.random.PCG64(1000 + i)).integers(
            0, 256, (2, 224, 224, 3), dtype=np.uint8
        )
        made[camera.openpi_key] = pixels.astype(np.float32) / 255 * 2 - 1
    return made


def load_golden(folder: pathlib.Path, name: str) -> Golden:
    base, dtype = name.removesuffix("_bf16"), "bfloat16" if name.endswith("_bf16") else "float32"
    files = {
        "manifest": folder / f"params_manifest_{base}.json",
        "inputs": folder / f"inputs_{base}.npz",
        "results": folder / f"golden_{name}.npz",
    }
    for file in files.values():
        if not file.is_file():
            pytest.skip(f"{file.name} is not in {folder}")
    config = Pi0Config.preset(base, dtype=dtype)
    inputs = dict(np.load(files["inputs"]))
    results = dict(np.load(files["results"]))
    observation = Observation(
        images=images(),
        image_masks={c.openpi_key: inputs[f"image_mask_{c.openpi_key}"] for c in CAMERAS},
        state=inputs["state"],
        tokenized_prompt=inputs["tokenized_prompt"],
        tokenized_prompt_mask=inputs["tokenized_prompt_mask"],
    )
    return Golden(
        name=name,
        model=Pi0(config),
        params=cast_params(recipe(json.loads(files["manifest"].read_text())), dtype),
        observation=observation,
        inputs=inputs,
        results=results,
        prefix_tokens=results.get("prefix_tokens", np.arange(config.prefix_len)),
    )


@pytest.fixture(scope="module", params=["pi0_micro", "pi05_micro"])
def micro(request) -> Golden:
    """A micro variant from tests/data: always there."""
    return load_golden(DATA, request.param)


@pytest.fixture(scope="session", name="load_golden")
def load_golden_fixture():
    return load_golden


@pytest.fixture(scope="session")
def golden_folders() -> dict[str, pathlib.Path]:
    return {"data": DATA, "shared": SHARED}


@pytest.fixture(scope="session")
def read_json():
    def read(path: pathlib.Path) -> dict:
        if not path.is_file():
            pytest.skip(f"{path.name} is not in {path.parent}")
        return json.loads(path.read_text())

    return read
