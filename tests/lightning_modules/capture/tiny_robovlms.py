"""A RoboVLMs checkpoint of a few thousand numbers, and the documented path written out in a line.

The path uses no class of transformers: matrices and norms straight from the checkpoint's tensors.
Letters: b batch, l frames, n tokens, d width.
"""

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import conv2d, gelu, layer_norm, linear, normalize
from transformers import (
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    PreTrainedTokenizerFast,
)

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "<grounding>", "An", "image", "of", "a", "robot", "pick",
         "up", "the", "red", "cube", "blue", "bowl", "put", "in", "now"]  # fmt: skip
WIDTH, TEXT_HEADS, VISION_HEADS, DEPTH = 32, 4, 3, 2
SIZES = {"text_heads": TEXT_HEADS, "vision_heads": VISION_HEADS}
QUERIES = 3


def tiny_config():
    return Kosmos2Config(
        text_config={"vocab_size": len(WORDS), "embed_dim": WIDTH, "layers": DEPTH, "ffn_dim": 48,
                     "attention_heads": TEXT_HEADS},
        vision_config={"hidden_size": 24, "num_hidden_layers": DEPTH, "intermediate_size": 40,
                       "num_attention_heads": VISION_HEADS, "patch_size": 56, "image_size": 224},
        latent_query_num=QUERIES,
    )  # fmt: skip


def tiny_tensors(*, latent=1, seed=0):
    """All tensors of a policy, under the names that they have inside the policy."""
    torch.manual_seed(seed)
    backbone = Kosmos2ForConditionalGeneration(tiny_config()).state_dict()
    # Norms and biases start at one and zero, which would hide a mistake.
    tensors = {
        f"backbone.{n}": torch.randn_like(t) * 0.3 + (n.endswith("norm.weight"))
        for n, t in backbone.items()
    }
    tensors["backbone.text_model.lm_head.weight"] = tensors[
        "backbone.text_model.model.embed_tokens.weight"
    ]
    tensors["action_token"] = torch.randn(WIDTH)
    tensors["act_head.rnn.weight_ih_l0"] = torch.randn(16, WIDTH * latent)
    tensors["act_head.gripper.mlp.0.bias"] = torch.randn(4)
    return tensors


def save(path: Path, tensors, *, prefix="model.", container="state_dict"):
    """A checkpoint as Lightning writes it."""
    named = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    torch.save({container: named, "epoch": 3} if container else named, path)
    return str(path)


def save_tokenizer(folder: Path):
    """A tokenizer with the words of the tests."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>", additional_special_tokens=["<grounding>"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    return str(folder)


# ------------------------------------------------------------------ the path, written out


def norm(x, tensors, name):
    return layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-5)


def dense(x, tensors, name):
    return linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def attention(x, seen, tensors, name, heads, *, causal=False, inner=None):
    def split(values):
        return values.unflatten(-1, (heads, -1)).transpose(1, 2)

    q = split(dense(x, tensors, f"{name}.q_proj"))
    k, v = (split(dense(seen, tensors, f"{name}.{which}_proj")) for which in "kv")
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        later = torch.ones(scores.shape[-2:]).triu(1).bool()
        scores = scores.masked_fill(later, -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    if inner is not None:
        mixed = norm(mixed, tensors, inner)
    return dense(mixed, tensors, f"{name}.out_proj")


def image_tokens(images, tensors):
    """(m, 3, 224, 224) -> (m, 3 queries, d)."""
    at = "vision_model.model"
    patches = conv2d(images, tensors[f"{at}.embeddings.patch_embedding.weight"], stride=56)
    patches = patches.flatten(2).transpose(1, 2)
    first = tensors[f"{at}.embeddings.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([first, patches], 1) + tensors[f"{at}.embeddings.position_embedding.weight"]
    x = norm(x, tensors, f"{at}.pre_layrnorm")
    for i in range(DEPTH):
        block = f"{at}.encoder.layers.{i}"
        y = norm(x, tensors, f"{block}.layer_norm1")
        x = x + attention(y, y, tensors, f"{block}.self_attn", VISION_HEADS)
        y = dense(norm(x, tensors, f"{block}.layer_norm2"), tensors, f"{block}.mlp.fc1")
        x = x + dense(y * torch.sigmoid(1.702 * y), tensors, f"{block}.mlp.fc2")
    x = normalize(norm(x, tensors, f"{at}.post_layernorm"), dim=-1)
    x = dense(x, tensors, "image_to_text_projection.dense")
    queries = tensors["image_to_text_projection.latent_query"].expand(len(images), -1, -1)
    seen = torch.cat([x, queries], 1)
    return attention(queries, seen, tensors, "image_to_text_projection.x_attn", TEXT_HEADS)


def positions(count):
    half = WIDTH // 2
    rates = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
    angles = torch.arange(2, count + 2).float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def decode(x, tensors):
    """(m, n, d) through the text model, its final norm included."""
    x = x * math.sqrt(WIDTH) + positions(x.shape[1])
    for i in range(DEPTH):
        block = f"text_model.model.layers.{i}"
        y = norm(x, tensors, f"{block}.self_attn_layer_norm")
        inner = f"{block}.self_attn.inner_attn_ln"
        x = x + attention(y, y, tensors, f"{block}.self_attn", TEXT_HEADS, causal=True, inner=inner)
        y = gelu(dense(norm(x, tensors, f"{block}.final_layer_norm"), tensors, f"{block}.ffn.fc1"))
        x = x + dense(norm(y, tensors, f"{block}.ffn.ffn_layernorm"), tensors, f"{block}.ffn.fc2")
    return norm(x, tensors, "text_model.model.layer_norm")


def action_hs(tensors, tokens, base, *, gripper=None, latent=1, history="post"):
    """What the action head receives: (b, l, latent, d)."""
    backbone = {n.removeprefix("backbone."): t for n, t in tensors.items()}
    rows = []
    for row in range(len(tokens)):
        words = backbone["text_model.model.embed_tokens.weight"][tokens[row]]
        sequences = []
        for frame in range(base.shape[1]):
            parts = [words[:1]]
            if gripper is not None:
                parts.append(image_tokens(gripper[row, frame][None], backbone)[0])
            parts.append(image_tokens(base[row, frame][None], backbone)[0])
            parts += [words[1:-1], *[tensors["action_token"][None]] * latent, words[-1:]]
            sequences.append(torch.cat(parts))
        if history == "pre":
            whole = decode(torch.cat(sequences)[None], backbone)[0].split(len(sequences[0]))
        else:
            whole = [decode(sequence[None], backbone)[0] for sequence in sequences]
        rows.append(torch.stack([hidden[-1 - latent : -1] for hidden in whole]))
    return torch.stack(rows)
