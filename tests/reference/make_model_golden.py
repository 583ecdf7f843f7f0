#!/usr/bin/env python3
"""Known answers for the model, the full method and Grass: a tiny LLaMA computed in float64.

    python3 tests/reference/make_model_golden.py tests/data/model

Needs PyTorch (written with 1.13); nothing of it is needed to run the tests. The model, the
optimizer and Grass are written out below from their formulas, autograd gives the gradients. Every
number in a file was computed in float64; what stands in a safetensors file was rounded to F32
afterwards, initial weights are exact (they were rounded to bfloat16 before anything else).

Layout of the output folder:

    untied/config.json, untied/model.safetensors
        A Hugging Face directory: hidden 32, 2 layers, 4 heads, 2 key/value heads, ffn 88,
        vocabulary 96. Every tensor BF16.
    tied/config.json, tied/model.safetensors
        The same sizes with tie_word_embeddings, no lm_head. Matrices BF16, norms F32.
    llama3/config.json
        The configuration of `untied` with rope_scaling of rope_type "llama3". Its weights are
        those of untied/model.safetensors.
    untied_golden.safetensors (all F32)
        gradient.NAME   gradient of the mean loss of `batch` at the initial weights, every tensor
        adamw.NAME      some weights after the 20 steps of `adamw` (see ADAMW_KEPT below)
        grass.NAME      some weights after the 20 steps of `grass` (see GRASS_KEPT below)
        logits          (B, T, V) of `batch` at the initial weights
    golden.json
        batch           rows B, sequence T, ids, targets (-1: no loss), positions, starts; each
                        array (B, T) row-major. Plain rows: positions 0 .. T-1, starts all 0.
        packed          the same for rows that hold two records each: positions restart, and a
                        position attends only to columns starts .. itself
        cases           one object a variant ("untied", "tied", "llama3", "packed"; the last is
                        untied with the batch `packed`):
            loss            sum of token losses / trained tokens; loss_sum, trained_tokens too
            grad_norm       over all tensors
            gradient        NAME -> {norm, sum, sample}: L2 norm, sum, and the elements
                            0, n/8, 2n/8 ... 7n/8 (integer division) of the flattened gradient
        greedy          untied: prompt ids, and the ids that follow greedily
        training        one object each for "adamw" (untied), "adamw_tied", "grass",
                        "grass_no_carry", "grass_in", "grass_scaled" (all untied):
            settings        lr, beta1, beta2, eps, weight_decay, steps, and for Grass rank,
                            interval, carry, side, scale
            losses, grad_norms   one number a step, before that step's update; for Grass the norm
                            of what it keeps: selected rows, and the full embedding, norms, head
            selected        Grass only: one object a refresh: step, and NAME -> sorted indices
            final           NAME -> {norm, sum, sample} of the weights after the last step
            final_loss      loss after the last step
All steps of a training use `batch`. Names are those of Hugging Face's LLaMA.

AdamW on every tensor p with gradient g at step t = 1, 2 ...:
    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    p -= lr * ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p)
weight_decay only on matrices (embeddings and head included), not on norms. No clipping, constant
lr. Grass does this on the selected rows (side "in": columns) of q, k, v, o, gate, up, down with t
counted per row since it was last chosen anew (its age), adam multiplied by scale; all else as
above. Rows are chosen at steps 1, 1 + interval, ... as the largest by L2 norm of that step's
gradient; their number is rank * dimension / hidden, rounded half up. carry: a row that stays keeps
m, v and its age, a new one starts at 0; without carry all restart at 0.
"""
import json
import math
import os
import struct
import sys

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB = 32, 88, 2, 4, 2, 96
HEAD_DIM = HIDDEN // HEADS
BATCH, TIME = 3, 16
STEPS = 20
EPS_NORM = 1e-5
THETA = 10000.0
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 128}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

ADAMW_KEPT = ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
              "model.layers.1.input_layernorm.weight", "model.layers.1.mlp.down_proj.weight",
              "model.norm.weight")
GRASS_KEPT = ("model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight",
              "model.layers.1.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight",
              "model.norm.weight")


def config(tied, scaling):
    out = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
           "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
           "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
           "rms_norm_eps": EPS_NORM, "rope_theta": THETA, "max_position_embeddings": 128,
           "tie_word_embeddings": tied, "initializer_range": 0.02, "attention_bias": False,
           "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
    if scaling:
        out["rope_scaling"] = scaling
        out["max_position_embeddings"] = 1024
    return out


def is_selected(name):
    return any(p in name for p in PROJECTIONS)


def is_matrix(name):
    return "norm" not in name


def shapes(tied):
    out = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        p = "model.layers.%d." % i
        out[p + "input_layernorm.weight"] = (HIDDEN,)
        out[p + "self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        out[p + "self_attn.k_proj.weight"] = (KV_HEADS * HEAD_DIM, HIDDEN)
        out[p + "self_attn.v_proj.weight"] = (KV_HEADS * HEAD_DIM, HIDDEN)
        out[p + "self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        out[p + "post_attention_layernorm.weight"] = (HIDDEN,)
        out[p + "mlp.gate_proj.weight"] = (FFN, HIDDEN)
        out[p + "mlp.up_proj.weight"] = (FFN, HIDDEN)
        out[p + "mlp.down_proj.weight"] = (HIDDEN, FFN)
    out["model.norm.weight"] = (HIDDEN,)
    if not tied:
        out["lm_head.weight"] = (VOCAB, HIDDEN)
    return out


def initial_weights(tied, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(tied).items():
        x = torch.randn(shape, generator=generator)
        x = x * 0.25 if is_matrix(name) else 1 + 0.2 * x
        weights[name] = x.to(torch.bfloat16).to(torch.float64)
    return weights


def inverse_frequencies(scaling):
    """RoPE; the llama3 rule stretches long waves by `factor`, keeps short ones, blends between."""
    out = []
    for i in range(HEAD_DIM // 2):
        f = THETA ** (-2.0 * i / HEAD_DIM)
        if scaling:
            wave = 2 * math.pi / f
            low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
            high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
            if wave > low:
                f = f / scaling["factor"]
            elif wave > high:
                blend = ((scaling["original_max_position_embeddings"] / wave
                          - scaling["low_freq_factor"])
                         / (scaling["high_freq_factor"] - scaling["low_freq_factor"]))
                f = (1 - blend) * f / scaling["factor"] + blend * f
        out.append(f)
    return torch.tensor(out)


def rms_norm(x, weight):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS_NORM) * weight


def rotate(x, positions, frequencies):
    """x (B, T, heads, D): the pairs are (i, i + D/2), as in the Hugging Face layout."""
    angle = positions.to(torch.float64)[:, :, None, None] * frequencies
    a, b = x[..., :HEAD_DIM // 2], x[..., HEAD_DIM // 2:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def forward(w, batch, scaling=None):
    """Logits (B, T, V)."""
    ids, positions, starts = batch["ids"], batch["positions"], batch["starts"]
    rows, time = ids.shape
    frequencies = inverse_frequencies(scaling)
    column = torch.arange(time)
    seen = (column[None, None, :] <= column[None, :, None]) & (column[None, None, :]
                                                              >= starts[:, :, None])
    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        p = "model.layers.%d." % i
        h = rms_norm(x, w[p + "input_layernorm.weight"])
        q = (h @ w[p + "self_attn.q_proj.weight"].T).view(rows, time, HEADS, HEAD_DIM)
        k = (h @ w[p + "self_attn.k_proj.weight"].T).view(rows, time, KV_HEADS, HEAD_DIM)
        v = (h @ w[p + "self_attn.v_proj.weight"].T).view(rows, time, KV_HEADS, HEAD_DIM)
        q, k = rotate(q, positions, frequencies), rotate(k, positions, frequencies)
        k = k.repeat_interleave(HEADS // KV_HEADS, 2)
        v = v.repeat_interleave(HEADS // KV_HEADS, 2)
        score = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(HEAD_DIM)
        score = score.masked_fill(~seen[:, None], -math.inf)
        mixed = torch.einsum("bhij,bjhd->bihd", torch.softmax(score, -1), v)
        x = x + mixed.reshape(rows, time, HIDDEN) @ w[p + "self_attn.o_proj.weight"].T
        h = rms_norm(x, w[p + "post_attention_layernorm.weight"])
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        up = h @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ w[p + "mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return rms_norm(x, w["model.norm.weight"]) @ head.T


def loss_sum(w, batch, scaling=None):
    logits = forward(w, batch, scaling)
    targets = batch["targets"]
    chosen = logits.gather(-1, targets.clamp(min=0)[:, :, None])[:, :, 0]
    losses = torch.logsumexp(logits, -1) - chosen
    return losses[targets >= 0].sum(), int((targets >= 0).sum())


def gradients(weights, batch, scaling=None):
    leaves = {n: t.detach().clone().requires_grad_(True) for n, t in weights.items()}
    total, count = loss_sum(leaves, batch, scaling)
    (total / count).backward()
    return total.item(), count, {n: t.grad for n, t in leaves.items()}


def make_batches(seed):
    g = torch.Generator().manual_seed(seed)
    stream = torch.randint(3, VOCAB, (BATCH, TIME + 1), generator=g)
    stream[:, 0] = 1
    # Some structure to learn: the second half of a row repeats the first.
    half = TIME // 2
    stream[:, 1 + half:1 + 2 * half] = stream[:, 1:1 + half]
    plain = {"ids": stream[:, :-1].clone(), "targets": stream[:, 1:].clone(),
             "positions": torch.arange(TIME).repeat(BATCH, 1),
             "starts": torch.zeros(BATCH, TIME, dtype=torch.int64)}
    plain["targets"][0, :4] = -1
    plain["targets"][1, 7] = -1
    plain["targets"][2, TIME - 3:] = -1
    packed = {k: t.clone() for k, t in plain.items()}
    for row, cut in enumerate((5, 9, 12)):
        packed["ids"][row, cut] = 1
        packed["targets"][row, cut - 1] = -1
        packed["positions"][row, cut:] -= cut
        packed["starts"][row, cut:] = cut
    return plain, packed


def norm_of(tensors):
    return math.sqrt(sum(float((t * t).sum()) for t in tensors))


class AdamW:
    """State of one tensor; rows have their own age so that Grass can use it too."""

    def __init__(self, shape, s):
        self.s = s
        self.m, self.v = torch.zeros(shape), torch.zeros(shape)
        self.age = torch.zeros(shape[:1] + (1,) * (len(shape) - 1))

    def direction(self, g):
        s = self.s
        self.age += 1
        self.m = s["beta1"] * self.m + (1 - s["beta1"]) * g
        self.v = s["beta2"] * self.v + (1 - s["beta2"]) * g * g
        m = self.m / (1 - s["beta1"] ** self.age)
        v = self.v / (1 - s["beta2"] ** self.age)
        return m / (v.sqrt() + s["eps"])


def choose(g, count, margins):
    norms = (g * g).sum(1).sqrt()
    order = torch.argsort(norms, descending=True, stable=True)
    if count < len(norms):
        inside, outside = norms[order[count - 1]].item(), norms[order[count]].item()
        margins.append((inside - outside) / inside)
    return torch.sort(order[:count])[0]


def reselect(old, chosen, shape, settings):
    """State for the chosen rows: (AdamW, ids), carried over from `old` where asked."""
    state = AdamW((len(chosen),) + tuple(shape[1:]), settings)
    if old is not None and settings["carry"]:
        before = {int(r): i for i, r in enumerate(old[1])}
        for j, r in enumerate(chosen):
            i = before.get(int(r))
            if i is not None:
                state.m[j], state.v[j], state.age[j] = old[0].m[i], old[0].v[i], old[0].age[i]
    return state, chosen


def train(weights, batch, settings, margins):
    grass = "rank" in settings
    w = {n: t.clone() for n, t in weights.items()}
    states, out = {}, {"settings": settings, "losses": [], "grad_norms": []}
    if grass:
        out["selected"] = []
    for step in range(1, settings["steps"] + 1):
        total, count, grads = gradients(w, batch)
        out["losses"].append(total / count)
        refresh = grass and (step - 1) % settings["interval"] == 0
        if refresh:
            out["selected"].append({"step": step, "rows": {}})
        kept = []
        for name, g in grads.items():
            decay = settings["weight_decay"] if is_matrix(name) else 0.0
            if not (grass and is_selected(name)):
                if name not in states:
                    states[name] = AdamW(tuple(g.shape), settings)
                kept.append(g)
                w[name] = w[name] - settings["lr"] * (states[name].direction(g) + decay * w[name])
                continue
            turned = settings["side"] == "in"
            matrix, g = (w[name].T, g.T) if turned else (w[name], g)
            if refresh:
                rows = max(1, min(g.shape[0], (2 * settings["rank"] * g.shape[0] + HIDDEN)
                                  // (2 * HIDDEN)))
                chosen = choose(g, rows, margins)
                states[name] = reselect(states.get(name), chosen, g.shape, settings)
                out["selected"][-1]["rows"][name] = chosen.tolist()
            state, chosen = states[name]
            kept.append(g[chosen])
            change = settings["scale"] * state.direction(g[chosen]) + decay * matrix[chosen]
            matrix = matrix.clone()
            matrix[chosen] -= settings["lr"] * change
            w[name] = matrix.T.contiguous() if turned else matrix
        out["grad_norms"].append(norm_of(kept))
    total, count = loss_sum(w, batch)
    out["final"] = {n: digest(t) for n, t in w.items()}
    out["final_loss"] = total.item() / count
    return out, w


def digest(t):
    flat = t.reshape(-1)
    sample = [flat[i * flat.numel() // 8].item() for i in range(8)]
    return {"norm": norm_of([t]), "sum": flat.sum().item(), "sample": sample}


def case(weights, batch, scaling=None):
    total, count, grads = gradients(weights, batch, scaling)
    return {"loss": total / count, "loss_sum": total, "trained_tokens": count,
            "grad_norm": norm_of(grads.values()),
            "gradient": {n: digest(g) for n, g in grads.items()}}, grads


def greedy(weights, prompt, length):
    ids, out, margin = list(prompt), [], math.inf
    for _ in range(length):
        row = torch.tensor([ids])
        logits = forward(weights, {"ids": row, "positions": torch.arange(len(ids))[None],
                                   "starts": torch.zeros_like(row)})[0, -1]
        best = torch.topk(logits, 2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        out.append(int(best.indices[0]))
        ids.append(out[-1])
    assert margin > 1e-3, margin
    return {"prompt": list(prompt), "ids": out}


def tensor_bytes(t, dtype):
    if dtype == "F32":
        return struct.pack("<%df" % t.numel(), *t.reshape(-1).tolist())
    words = t.to(torch.bfloat16).reshape(-1).view(torch.int16).tolist()
    return struct.pack("<%dh" % len(words), *words)


def write_safetensors(path, tensors):
    """tensors: name -> (tensor, "F32" or "BF16")."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        t, dtype = tensors[name]
        blob = tensor_bytes(t, dtype)
        header[name] = {"dtype": dtype, "shape": list(t.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_json(path, value, indent=None):
    with open(path, "w") as f:
        json.dump(value, f, indent=indent)
        f.write("\n")


def main(folder):
    for name in ("untied", "tied", "llama3"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    write_json(os.path.join(folder, "untied/config.json"), config(False, None), 2)
    write_json(os.path.join(folder, "tied/config.json"), config(True, None), 2)
    write_json(os.path.join(folder, "llama3/config.json"), config(False, LLAMA3), 2)
    untied, tied = initial_weights(False, 138), initial_weights(True, 139)
    write_safetensors(os.path.join(folder, "untied/model.safetensors"),
                      {n: (t, "BF16") for n, t in untied.items()})
    write_safetensors(os.path.join(folder, "tied/model.safetensors"),
                      {n: (t, "BF16" if is_matrix(n) else "F32") for n, t in tied.items()})

    plain, packed = make_batches(13)
    cases = {}
    cases["untied"], grads = case(untied, plain)
    cases["tied"], _ = case(tied, plain)
    cases["llama3"], _ = case(untied, plain, LLAMA3)
    cases["packed"], _ = case(untied, packed)

    base = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01,
            "steps": STEPS}
    grass = dict(base, rank=8, interval=5, carry=True, side="out", scale=1.0)
    margins, training = [], {}
    training["adamw"], after_adamw = train(untied, plain, base, margins)
    training["adamw_tied"], _ = train(tied, plain, base, margins)
    training["grass"], after_grass = train(untied, plain, grass, margins)
    training["grass_no_carry"], _ = train(untied, plain, dict(grass, carry=False), margins)
    training["grass_in"], _ = train(untied, plain, dict(grass, side="in"), margins)
    training["grass_scaled"], _ = train(untied, plain, dict(grass, scale=0.5), margins)
    # A selection that a rounding error could change would make the tests a matter of luck.
    print("smallest relative gap between the last row chosen and the first left out: %.2e"
          % min(margins))
    assert min(margins) > 5e-4

    golden = {"gradient." + n: g for n, g in grads.items()}
    for short in ADAMW_KEPT:
        golden["adamw." + short] = after_adamw[short]
    for short in GRASS_KEPT:
        golden["grass." + short] = after_grass[short]
    golden["logits"] = forward(untied, plain)
    write_safetensors(os.path.join(folder, "untied_golden.safetensors"),
                      {n: (t, "F32") for n, t in golden.items()})

    def listed(batch):
        out = {"rows": BATCH, "sequence": TIME}
        out.update({k: t.reshape(-1).tolist() for k, t in batch.items()})
        return out

    write_json(os.path.join(folder, "golden.json"),
               {"batch": listed(plain), "packed": listed(packed), "cases": cases,
                "greedy": greedy(untied, [1, 17, 42, 5], 12), "training": training})
    for name, t in training.items():
        print("%-15s %.6f -> %.6f" % (name, t["losses"][0], t["final_loss"]))
    for name, c in cases.items():
        print("%-15s loss %.6f norm %.6f" % (name, c["loss"], c["grad_norm"]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/data/model")
