"""π0 and π0.5 as PyTorch keeps them (lerobot, openpi's own port), in the tree of openpi's JAX code.

The numbers are the same; names, axes and the stacking of blocks differ. Names are compared without
the wrappers that each version of transformers puts between the parts of PaliGemma.

Source: openpi, `examples/convert_jax_model_to_pytorch.py`; lerobot, `policies/pi0/modeling_pi0.py`
and `policies/pi05/modeling_pi05.py` (names alone).
Letters: w width; h heads; d head width; k key heads; m MLP width; p pixels of a patch; t tokens.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

import numpy as np

from jax_bridge.checkpoints.stored_checkpoint import StoredCheckpoint, dtype_of
from jax_bridge.pi0.config import PRESETS, ExpertConfig, Pi0Config, VisionConfig
from jax_bridge.pi0.parameters import param_shapes, unflatten

ROOT = "paligemma_with_expert"
VLM, EXPERT = f"{ROOT}.paligemma", f"{ROOT}.gemma_expert"
TOWER, TEXT = f"{VLM}.vision_tower", f"{VLM}.language_model"
_WRAPPERS = ("model", "vision_model")
_IGNORED = (
    rf"{re.escape(ROOT)}\..*lm_head\.weight",
    r"(un)?normalize_(inputs|targets|outputs)\.",
)
"""Tensors that the policy's sampler never uses: the heads over words, statistics of the data."""
Shape = tuple[int, ...]
Allocate = Callable[[Shape, np.dtype], np.ndarray]
"""(shape, type) to an array of any content."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Where a leaf comes from: names with `{}` for the block's number, and what turns the axes."""

    names: tuple[str, ...]
    turn: Callable[[np.ndarray, Shape], np.ndarray]
    """From one tensor to (a part of) one block's leaf of the given shape."""


def _as_is(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor.reshape(shape)


def _turned(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """A linear map's weight: torch has outputs first."""
    return tensor.T.reshape(shape)


def _patches(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """A convolution's weight [w, 3, p, p] to [p, p, 3, w]."""
    return tensor.transpose(2, 3, 1, 0)


def _heads_first(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    """Rows of all heads [h d, w] to [h, w, d]."""
    heads, width, dim = shape
    return tensor.reshape(heads, dim, width).transpose(0, 2, 1)


def _dense(ours: str, theirs: str) -> dict[str, Rule]:
    return {
        f"{ours}/kernel": Rule((f"{theirs}.weight",), _turned),
        f"{ours}/bias": Rule((f"{theirs}.bias",), _as_is),
    }


def _norm(ours: str, theirs: str) -> dict[str, Rule]:
    return {
        f"{ours}/scale": Rule((f"{theirs}.weight",), _as_is),
        f"{ours}/bias": Rule((f"{theirs}.bias",), _as_is),
    }


def _vision_rules() -> dict[str, Rule]:
    block, layer = "PaliGemma/img/Transformer/encoderblock", f"{TOWER}.encoder.layers.{{}}"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    rules = {
        "PaliGemma/img/embedding/kernel": Rule(
            (f"{TOWER}.embeddings.patch_embedding.weight",), _patches
        ),
        "PaliGemma/img/embedding/bias": Rule((f"{TOWER}.embeddings.patch_embedding.bias",), _as_is),
        "PaliGemma/img/pos_embedding": Rule(
            (f"{TOWER}.embeddings.position_embedding.weight",), _as_is
        ),
    }
    rules |= _norm("PaliGemma/img/Transformer/encoder_norm", f"{TOWER}.post_layernorm")
    rules |= _dense("PaliGemma/img/head", f"{VLM}.multi_modal_projector.linear")
    for number in (0, 1):
        rules |= _norm(f"{block}/LayerNorm_{number}", f"{layer}.layer_norm{number + 1}")
        rules |= _dense(f"{block}/MlpBlock_0/Dense_{number}", f"{layer}.mlp.fc{number + 1}")
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
        rules |= _dense(f"{attention}/{ours}", f"{layer}.self_attn.{theirs}_proj")
    return rules


def _expert_rules(theirs: str, suffix: str, *, adaptive: bool) -> dict[str, Rule]:
    llm, layers = "PaliGemma/llm", "PaliGemma/llm/layers"
    layer = f"{theirs}.layers.{{}}"
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    rules = {
        f"{layers}/attn/q_einsum{suffix}/w": Rule((f"{attention}.q_proj.weight",), _heads_first),
        f"{layers}/attn/kv_einsum{suffix}/w": Rule(
            (f"{attention}.k_proj.weight", f"{attention}.v_proj.weight"), _heads_first
        ),
        f"{layers}/attn/attn_vec_einsum{suffix}/w": Rule((f"{attention}.o_proj.weight",), _turned),
        f"{layers}/mlp{suffix}/gating_einsum": Rule(
            (f"{mlp}.gate_proj.weight", f"{mlp}.up_proj.weight"), _turned
        ),
        f"{layers}/mlp{suffix}/linear": Rule((f"{mlp}.down_proj.weight",), _turned),
    }
    for ours, name in (
        (f"{layers}/pre_attention_norm{suffix}", f"{layer}.input_layernorm"),
        (f"{layers}/pre_ffw_norm{suffix}", f"{layer}.post_attention_layernorm"),
        (f"{llm}/final_norm{suffix}", f"{theirs}.norm"),
    ):
        if adaptive:
            rules |= _dense(f"{ours}/Dense_0", f"{name}.dense")
        else:
            rules[f"{ours}/scale"] = Rule((f"{name}.weight",), _as_is)
    return rules


@functools.cache
def _rules(pi05: bool) -> dict[str, Rule]:
    """A rule for every leaf of the tree."""
    rules = _vision_rules()
    rules["PaliGemma/llm/embedder/input_embedding"] = Rule((f"{TEXT}.embed_tokens.weight",), _as_is)
    rules |= _expert_rules(TEXT, "", adaptive=False)
    rules |= _expert_rules(EXPERT, "_1", adaptive=pi05)
    time = ("time_mlp_in", "time_mlp_out")
    state = ("state_proj", "action_time_mlp_in", "action_time_mlp_out")
    for name in ("action_in_proj", "action_out_proj", *(time if pi05 else state)):
        rules |= _dense(name, name)
    return rules


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """A tree, and an account of where it came from."""

    params: dict
    config: Pi0Config
    used: int
    """Tensors that went into the tree."""
    left_out: list[str]
    """Tensors that the sampler never uses."""


def is_torch_pi0(checkpoint: StoredCheckpoint) -> bool:
    """Whether names are those of π0 in PyTorch."""
    return any(ROOT in name for name in checkpoint.tensors)


def convert(
    checkpoint: StoredCheckpoint, *, dtype: str | None = None, allocate: Allocate = np.empty
) -> Converted:
    """Reads π0 or π0.5 as PyTorch keeps it into the tree that openpi's JAX code has.

    Args:
        checkpoint: a file or folder of safetensors, or a file of torch.save.
        dtype: `float32` or `bfloat16`; None keeps each leaf's own.
        allocate: gives the memory of a leaf.

    Raises:
        ValueError: if it is another model, lacks a tensor, or has one too many.
    """
    names = _canonical(checkpoint)
    config = _config(checkpoint, names)
    rules, flat, used = _rules(config.pi05), {}, set()
    shapes = param_shapes(config)
    wanted = {path: _sources(rules[path], shape, path, config) for path, shape in shapes.items()}
    missing = sorted({n for sources in wanted.values() for n in sources if n not in names})
    if missing:
        raise ValueError(
            f"`path` must hold every tensor of {'π0.5' if config.pi05 else 'π0'}, but "
            f"{checkpoint.path} lacks {len(missing)}: {', '.join(missing[:5])}. Download it again."
        )
    for path, shape in shapes.items():
        kind = dtype_of(dtype or checkpoint.tensors[names[wanted[path][0]]].dtype)
        flat[path] = allocate(shape, kind)
        _fill(flat[path], checkpoint, names, wanted[path], rules[path])
        used |= {names[name] for name in wanted[path]}
    left = sorted(set(checkpoint.tensors) - used)
    bare = {real: name for name, real in names.items()}
    extra = [n for n in left if not any(re.match(p, bare.get(n, n)) for p in _IGNORED)]
    if extra:
        raise ValueError(
            f"`path` must hold nothing but the model, but {checkpoint.path} also has {len(extra)} "
            f"tensors such as {', '.join(extra[:5])}. LoRA weights must be merged first."
        )
    return Converted(params=unflatten(flat), config=config, used=len(used), left_out=left)


def _canonical(checkpoint: StoredCheckpoint) -> dict[str, str]:
    """The stored name of each tensor, by its name without wrappers."""
    if not is_torch_pi0(checkpoint):
        raise ValueError(
            f"`path` must be π0 or π0.5 of lerobot or of openpi's PyTorch port, but "
            f"{checkpoint.path} has no tensor below {ROOT} (it has "
            f"{', '.join(list(checkpoint.tensors)[:3])}). `vla-lens checkpoint inspect` shows all."
        )
    if not any("gemma_expert" in name for name in checkpoint.tensors):
        raise ValueError(
            f"`path` must be π0 or π0.5, but {checkpoint.path} is π0-FAST, which has no action "
            "expert. Choose another checkpoint."
        )
    names: dict[str, str] = {}
    for stored in checkpoint.tensors:
        name = ".".join(word for word in stored.split(".") if word not in _WRAPPERS)
        names[name] = stored
    head = next((n for n in (f"{VLM}.lm_head.weight", f"{TEXT}.lm_head.weight") if n in names), "")
    if f"{TEXT}.embed_tokens.weight" not in names and head:
        # One tensor under two names is stored once, and either name may be the one that stayed.
        names[f"{TEXT}.embed_tokens.weight"] = names.pop(head)
    return names


def _config(checkpoint: StoredCheckpoint, names: Mapping[str, str]) -> Pi0Config:
    """The sizes, as the shapes tell them."""

    def shape(name: str) -> Shape:
        if name not in names:
            raise ValueError(
                f"`path` must hold every tensor of π0 or π0.5, but {checkpoint.path} lacks {name}. "
                "Download it again."
            )
        return checkpoint.tensors[names[name]].shape

    width, _, patch, _ = shape(f"{TOWER}.embeddings.patch_embedding.weight")
    tokens = shape(f"{TOWER}.embeddings.position_embedding.weight")[0]
    pi05 = "time_mlp_in.weight" in names
    return Pi0Config(
        vision=VisionConfig(
            width=width,
            depth=_depth(names, f"{TOWER}.encoder"),
            mlp_dim=shape(f"{TOWER}.encoder.layers.0.mlp.fc1.weight")[0],
            heads=_vision_heads(width),
            patch_size=patch,
            image_size=patch * round(tokens**0.5),
        ),
        vlm=_expert(shape, names, TEXT),
        action=_expert(shape, names, EXPERT),
        vocab_size=shape(f"{TEXT}.embed_tokens.weight")[0],
        action_dim=shape("action_in_proj.weight")[1],
        max_token_len=200 if pi05 else 48,
        pi05=pi05,
    )


def _expert(shape: Callable[[str], Shape], names: Mapping[str, str], theirs: str) -> ExpertConfig:
    """Sizes of one expert; π0's have one key head, so that it tells the heads' width."""
    query, width = shape(f"{theirs}.layers.0.self_attn.q_proj.weight")
    dim = shape(f"{theirs}.layers.0.self_attn.k_proj.weight")[0]
    return ExpertConfig(
        width=width,
        depth=_depth(names, theirs),
        mlp_dim=shape(f"{theirs}.layers.0.mlp.up_proj.weight")[0],
        heads=query // dim,
        kv_heads=1,
        head_dim=dim,
    )


def _depth(names: Mapping[str, str], prefix: str) -> int:
    found = (re.match(rf"{re.escape(prefix)}\.layers\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _vision_heads(width: int) -> int:
    """Heads of the vision tower, which no shape tells, by its width."""
    known = {p["vision"].width: p["vision"].heads for p in PRESETS.values()}
    if width not in known:
        raise ValueError(
            f"`path` must have a vision tower of a known width ({', '.join(map(str, known))}), "
            f"but got {width}: nothing tells its number of heads."
        )
    return known[width]


def _sources(rule: Rule, shape: Shape, path: str, config: Pi0Config) -> list[str]:
    """The tensors of a leaf, block after block."""
    if "{}" not in rule.names[0]:
        return list(rule.names)
    assert shape[0] in (config.vision.depth, config.depth), path
    return [name.format(number) for number in range(shape[0]) for name in rule.names]


def _fill(
    leaf: np.ndarray,
    checkpoint: StoredCheckpoint,
    names: Mapping[str, str],
    sources: list[str],
    rule: Rule,
) -> None:
    """Fills one leaf block by block, so that no second copy of it is in memory."""
    stacked, parts = "{}" in rule.names[0], len(rule.names)
    for number, source in enumerate(sources):
        place = leaf[number // parts] if stacked else leaf
        place = place[number % parts] if parts > 1 else place
        tensor = checkpoint.read(names[source])
        if tensor.size != place.size:
            raise ValueError(
                f"`path` must hold {source} of {place.size} numbers, as the other tensors say, "
                f"but {checkpoint.path} has shape {list(tensor.shape)}."
            )
        place[...] = rule.turn(tensor, place.shape)
