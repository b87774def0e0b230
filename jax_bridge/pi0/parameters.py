"""The parameter tree: openpi's names and shapes, random initialisation, checks, digest.

A tree is a plain nested dict of arrays; a path is its keys joined by "/".
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_bridge.pi0.config import ExpertConfig, Pi0Config, VisionConfig

Params = Mapping[str, Any]
"""A nested dict of arrays, numpy or jax."""
Shapes = dict[str, tuple[int, ...]]
"""Shape of every leaf, by path."""


def param_shapes(config: Pi0Config) -> Shapes:
    """Shape of every leaf of a model's parameters, by path, sorted.

    Source: openpi's π0 and π0.5 checkpoints.
    """
    width = config.action.width
    shapes = {f"PaliGemma/img/{k}": v for k, v in _vision(config.vision, config.vlm.width).items()}
    shapes["PaliGemma/llm/embedder/input_embedding"] = (config.vocab_size, config.vlm.width)
    shapes |= _expert(config.vlm, "", adaptive=False)
    shapes |= _expert(config.action, "_1", adaptive=config.pi05)
    shapes |= _dense("action_in_proj", config.action_dim, width)
    shapes |= _dense("action_out_proj", width, config.action_dim)
    if config.pi05:
        shapes |= _dense("time_mlp_in", width, width) | _dense("time_mlp_out", width, width)
    else:
        shapes |= _dense("state_proj", config.action_dim, width)
        shapes |= _dense("action_time_mlp_in", 2 * width, width)
        shapes |= _dense("action_time_mlp_out", width, width)
    return dict(sorted(shapes.items()))


def _dense(path: str, rows: int, columns: int, stack: tuple[int, ...] = ()) -> Shapes:
    """A linear map with bias."""
    return {f"{path}/kernel": (*stack, rows, columns), f"{path}/bias": (*stack, columns)}


def _vision(vision: VisionConfig, out_width: int) -> Shapes:
    """SigLIP; blocks are stacked on the first axis."""
    depth, width, heads, dim = vision.depth, vision.width, vision.heads, vision.head_dim
    block, attention = "Transformer/encoderblock", "MultiHeadDotProductAttention_0"
    shapes: Shapes = {
        "embedding/kernel": (vision.patch_size, vision.patch_size, 3, width),
        "embedding/bias": (width,),
        "pos_embedding": (1, vision.tokens, width),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
        f"{block}/{attention}/out/kernel": (depth, heads, dim, width),
        f"{block}/{attention}/out/bias": (depth, width),
    }
    for name in ("query", "key", "value"):
        shapes[f"{block}/{attention}/{name}/kernel"] = (depth, width, heads, dim)
        shapes[f"{block}/{attention}/{name}/bias"] = (depth, heads, dim)
    for name in ("LayerNorm_0", "LayerNorm_1"):
        shapes[f"{block}/{name}/scale"] = (depth, width)
        shapes[f"{block}/{name}/bias"] = (depth, width)
    shapes |= _dense(f"{block}/MlpBlock_0/Dense_0", width, vision.mlp_dim, (depth,))
    shapes |= _dense(f"{block}/MlpBlock_0/Dense_1", vision.mlp_dim, width, (depth,))
    return shapes | _dense("head", width, out_width)


def _expert(expert: ExpertConfig, suffix: str, *, adaptive: bool) -> Shapes:
    """A Gemma expert; blocks are stacked on the first axis."""
    llm, layers = "PaliGemma/llm", "PaliGemma/llm/layers"
    depth, width, dim = expert.depth, expert.width, expert.head_dim
    shapes: Shapes = {
        f"{layers}/attn/q_einsum{suffix}/w": (depth, expert.heads, width, dim),
        f"{layers}/attn/kv_einsum{suffix}/w": (depth, 2, expert.kv_heads, width, dim),
        f"{layers}/attn/attn_vec_einsum{suffix}/w": (depth, expert.heads, dim, width),
        f"{layers}/mlp{suffix}/gating_einsum": (depth, 2, width, expert.mlp_dim),
        f"{layers}/mlp{suffix}/linear": (depth, expert.mlp_dim, width),
    }
    norms: list[tuple[str, tuple[int, ...]]] = [
        (f"{layers}/pre_attention_norm{suffix}", (depth,)),
        (f"{layers}/pre_ffw_norm{suffix}", (depth,)),
        (f"{llm}/final_norm{suffix}", ()),
    ]
    for path, stack in norms:
        if adaptive:
            shapes |= _dense(f"{path}/Dense_0", width, 3 * width, stack)
        else:
            shapes[f"{path}/scale"] = (*stack, width)
    return shapes


def leaves(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path, in sorted order."""
    for key in sorted(params):
        value = params[key]
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from paths."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return tree


def differences(params: Params, config: Pi0Config) -> list[str]:
    """What a tree lacks, has too much, or has in another shape than the model, in words."""
    given = {path: tuple(np.shape(value)) for path, value in leaves(params)}
    expected = param_shapes(config)
    found = [f"{path} is missing" for path in expected if path not in given]
    found += [f"{path} is extra" for path in given if path not in expected]
    return found + [
        f"{path} has shape {list(given[path])} instead of {list(shape)}"
        for path, shape in expected.items()
        if path in given and given[path] != shape
    ]


def refuse_pi0_fast(paths: Iterable[str], name: str) -> None:
    """Raises if parameters are those of π0-FAST: π0's backbone without an action expert.

    Args:
        paths: of all leaves.
        name: of the argument that gave them, for the error.

    Raises:
        ValueError: saying so.
    """
    known = set(paths)
    experts = any("_1/" in path for path in known if path.startswith("PaliGemma/llm"))
    if "PaliGemma/llm/final_norm/scale" in known and not experts:
        raise ValueError(
            f"`{name}` must be π0 or π0.5, but got π0-FAST, which has no action expert. Choose a "
            "checkpoint such as pi0_base or pi05_libero; --policy fast is for checkpoints of "
            "`vla-lens ki fit`."
        )


def check_params(params: Params, config: Pi0Config) -> None:
    """Raises unless the tree has exactly the leaves that the model has.

    Raises:
        ValueError: naming the parameters that are missing, extra or of another shape.
    """
    found = differences(params, config)
    if found:
        refuse_pi0_fast((path for path, _ in leaves(params)), "params")
        more = f" (and {len(found) - 8} more)" if len(found) > 8 else ""
        raise ValueError(
            "`params` must be exactly the model's parameters, but got differences: "
            f"{'; '.join(found[:8])}{more}. Choose the config that the checkpoint was made for."
        )


def init_params(config: Pi0Config, key: Any) -> dict[str, Any]:
    """Random parameters of the config's dtype, each leaf drawn from the key and its own path.

    Every branch has an influence (adaRMS too, which training starts at zero), so that
    untrained latents and actions depend on all inputs.

    Args:
        config: The model's sizes.
        key: A jax random key, or a whole number.
    """
    words = [key] if isinstance(key, int) else np.asarray(_key_words(key)).ravel().tolist()
    flat = {
        path: jnp.asarray(_draw(path, shape, words), config.jax_dtype)
        for path, shape in param_shapes(config).items()
    }
    return unflatten(flat)


def _key_words(key: Any) -> Any:
    """The numbers inside a jax key, new-style or old-style."""
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key


def _draw(path: str, shape: tuple[int, ...], words: list[int]) -> np.ndarray:
    """Normal values scaled so that activations stay of order one."""
    digest = hashlib.sha256(path.encode()).digest()
    seed = np.random.SeedSequence([*words, int.from_bytes(digest[:8], "little")])
    values = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    offset = path.startswith("PaliGemma/img") and path.endswith("/scale")
    return values * np.float32(_scale(path, shape)) + np.float32(offset)


def _scale(path: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a leaf's initial values."""
    parent, name = path.split("/")[-2:]
    if name in ("scale", "bias"):
        return 0.1
    if name == "pos_embedding":
        return 0.3
    if name == "input_embedding":
        return shape[-1] ** -0.5
    if parent == "embedding":
        return int(np.prod(shape[:3])) ** -0.5
    if parent in ("out", "attn_vec_einsum", "attn_vec_einsum_1"):
        return (shape[-3] * shape[-2]) ** -0.5
    return shape[-3 if parent in ("query", "key", "value") else -2] ** -0.5


def cast_params(params: Params, dtype: str) -> dict[str, Any]:
    """The same tree with every leaf as a jax array of another type."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), dict(params))


def params_digest(params: Params) -> str:
    """sha256 over every leaf's path, type, shape and bytes: equal trees, equal digests."""
    digest = hashlib.sha256()
    for path, value in leaves(params):
        array = np.ascontiguousarray(value)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
