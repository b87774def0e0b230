"""A straight-line reference: equations 5 and 6 in one pass over all tokens, layer by layer.

Written from the papers with `jax.numpy` alone; it shares nothing with the code under test but the
parameters' names, SigLIP's tokens and the time's embedding (both have parity tests of their own).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_bridge.pi0 import embedding


def norm(x, scale=None, modulation=None):
    normed = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
    if modulation is None:
        return normed * (1 + scale), 1.0
    factor, shift, gate = jnp.split(modulation[:, None], 3, -1)
    return normed * (1 + factor) + shift, gate


def turn(x, positions):
    half = x.shape[-1] // 2
    angle = positions[..., None, None] / 10_000 ** (jnp.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle),
                            b * jnp.cos(angle) + a * jnp.sin(angle)], -1)  # fmt: skip


def table_of_the_specification(groups):
    """Query x key: what the specification's table says, token by token."""
    size = len(groups)
    sees = np.zeros((size, size), bool)
    for i, query in enumerate(groups):
        for j, key in enumerate(groups):
            sees[i, j] = {
                "I": key in "IP", "P": key in "IP",
                "T": key in "IP" or (key == "T" and j <= i),
                "F": key in "IPT" or (key == "F" and j <= i),
                "S": key in "IPTS", "A": key in "IPTSA",
            }[query]  # fmt: skip
    return sees


def sequence_of(config, batch):
    """Group of every token, which are valid, and their positions."""
    observation = batch.observation
    images = 3 * config.vision.tokens
    width = {
        "I": images,
        "P": observation.tokenized_prompt.shape[1],
        "T": observation.text_target_tokens.shape[1],
        "F": observation.fast_action_tokens.shape[1],
        "S": 0 if config.pi05 else 1,
        "A": config.action_horizon,
    }
    groups = "".join(name * size for name, size in width.items())
    size = len(observation.state)
    valid = np.concatenate(
        [
            *(
                np.repeat(m[:, None], config.vision.tokens, 1)
                for m in observation.image_masks.values()
            ),
            observation.tokenized_prompt_mask,
            observation.text_target_mask,
            observation.fast_action_mask,
            np.ones((size, width["S"] + width["A"]), bool),
        ],
        axis=1,
    )
    positions = np.zeros(valid.shape, int)
    for item in range(size):
        count = {"context": 0, "F": 0, "expert": 0}
        context = sum(valid[item, i] for i, g in enumerate(groups) if g in "IPT")
        for i, group in enumerate(groups):
            kind = "context" if group in "IPT" else ("F" if group == "F" else "expert")
            start = 0 if kind == "context" else context
            positions[item, i] = start + count[kind]
            count[kind] += bool(valid[item, i])
    return groups, valid, positions


def forward(params, batch, noise, time, config, *, insulate):
    """Velocities [b, h, a], and the backbone's outputs after the final norm with their groups."""
    groups, valid, positions = sequence_of(config, batch)
    sees = jnp.asarray(
        table_of_the_specification(groups)[None] & valid[:, None] & valid[:, :, None]
    )
    observation, llm = batch.observation, params["PaliGemma"]["llm"]
    table = llm["embedder"]["input_embedding"]
    prefix = embedding.embed_prefix(params, observation, config).tokens
    learnt = jnp.concatenate([observation.text_target_tokens, observation.fast_action_tokens], 1)
    vlm = jnp.concatenate([prefix, jnp.asarray(table)[learnt] * config.vlm.width**0.5], 1)
    timed = embedding.embed_time(params, time, config)
    noisy = time[:, None, None] * noise + (1 - time[:, None, None]) * batch.actions
    act = embedding.embed_suffix(params, jnp.asarray(observation.state), noisy, timed, config)
    n = vlm.shape[1]
    # Only what an expert's query reads of the backbone is cut off.
    cut = insulate & (jnp.arange(len(groups)) >= n)[:, None] & (jnp.arange(len(groups)) < n)[None]
    for depth in range(config.depth):
        layer = jax.tree.map(lambda leaf: leaf[depth], llm["layers"])  # noqa: B023
        vlm, act = block(layer, vlm, act, timed, sees, cut, positions, config)
    vlm = norm(vlm, llm["final_norm"]["scale"])[0]
    act = adaptive(act, llm["final_norm_1"], timed)[0][:, -config.action_horizon :]
    out = params["action_out_proj"]
    return act @ out["kernel"] + out["bias"], vlm, groups


def adaptive(x, layer, timed):
    if timed.condition is None:
        return norm(x, layer["scale"])
    dense = layer["Dense_0"]
    return norm(x, modulation=timed.condition @ dense["kernel"] + dense["bias"])


def block(layer, vlm, act, timed, sees, cut, positions, config):
    attn, n = layer["attn"], vlm.shape[1]
    a, _ = norm(vlm, layer["pre_attention_norm"]["scale"])
    b, gate = adaptive(act, layer["pre_attention_norm_1"], timed)

    def both(name, pattern, pick=lambda w: w):
        return jnp.concatenate(
            [
                jnp.einsum(pattern, x, pick(attn[f"{name}{s}"]["w"]))
                for x, s in ((a, ""), (b, "_1"))
            ],
            1,
        )

    q = turn(both("q_einsum", "btw,hwd->bthd"), positions) * config.vlm.head_dim**-0.5
    k = turn(both("kv_einsum", "btw,nwd->btnd", lambda w: w[0]), positions)
    v = both("kv_einsum", "btw,nwd->btnd", lambda w: w[1])
    heads = config.vlm.heads // config.vlm.kv_heads
    k, v = jnp.repeat(k, heads, 2), jnp.repeat(v, heads, 2)
    stop = jax.lax.stop_gradient
    scores = jnp.where(
        cut, jnp.einsum("bqhd,bkhd->bhqk", q, stop(k)), jnp.einsum("bqhd,bkhd->bhqk", q, k)
    )
    weights = jax.nn.softmax(jnp.where(sees[:, None], scores, -2.3819763e38), axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jnp.where(cut, weights, 0), stop(v)) + jnp.einsum(
        "bhqk,bkhd->bqhd", jnp.where(cut, 0, weights), v
    )
    vlm = vlm + jnp.einsum("bthd,hdw->btw", mixed[:, :n], attn["attn_vec_einsum"]["w"])
    act = act + gate * jnp.einsum("bthd,hdw->btw", mixed[:, n:], attn["attn_vec_einsum_1"]["w"])
    vlm = vlm + feed(norm(vlm, layer["pre_ffw_norm"]["scale"])[0], layer["mlp"])
    normed, gate = adaptive(act, layer["pre_ffw_norm_1"], timed)
    return vlm, act + gate * feed(normed, layer["mlp_1"])


def feed(x, mlp):
    gating = mlp["gating_einsum"]
    return (jax.nn.gelu(x @ gating[0], approximate=True) * (x @ gating[1])) @ mlp["linear"]


def losses(params, batch, noise, time, config, *, insulate, weight=1.0, flow_weight=1.0):
    """Total, token and flow loss, each with the plainest possible loops."""
    velocity, outputs, groups = forward(params, batch, noise, time, config, insulate=insulate)
    observation = batch.observation
    _, valid, _ = sequence_of(config, batch)
    table = params["PaliGemma"]["llm"]["embedder"]["input_embedding"]
    ids = np.concatenate([np.zeros((len(valid), groups.index("T")), int),
                          observation.text_target_tokens, observation.fast_action_tokens], 1)  # fmt: skip
    samples = []
    for item in range(len(valid)):
        terms, before = [], None
        for place, group in enumerate(groups[: ids.shape[1]]):
            if not valid[item, place]:
                continue
            if group in "TF":
                logp = jax.nn.log_softmax(outputs[item, before] @ table.T)
                terms.append(-logp[ids[item, place]])
            before = place
        if terms:
            samples.append(sum(terms) / len(terms))
    tokens = sum(samples) / len(samples)
    flow = jnp.mean((velocity - (noise - batch.actions)) ** 2)
    return weight * tokens + flow_weight * flow, tokens, flow
