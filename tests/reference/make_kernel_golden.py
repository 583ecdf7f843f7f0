#!/usr/bin/env python3
"""Writes tests/data/kernels/golden.{txt,bin}: inputs and expected outputs of every operation.

Everything is computed by PyTorch in float64, with its autograd for the gradients and its own
functions where it has them, and stored as fp32. Inputs are rounded to fp32 before anything is
computed from them, so that a test reads exactly the inputs the answers belong to.

Format. golden.txt has one line a tensor:
    NAME TYPE OFFSET DIM [DIM ...]
NAME is `case.tensor`; TYPE is fp32 or int32; OFFSET counts bytes from the beginning of golden.bin,
where the elements lie in row-major order, little-endian, without padding.

Run from anywhere:  python3 tests/reference/make_kernel_golden.py
The output is committed; the tests need neither Python nor PyTorch.
"""
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "kernels"
torch.set_default_dtype(torch.float64)
torch.manual_seed(20240601)

index = []
blob = bytearray()


def save(name, value):
    value = torch.as_tensor(value).detach()
    if value.dtype in (torch.int32, torch.int64):
        kind, raw = "int32", value.numpy().astype("<i4")
    else:
        kind, raw = "fp32", value.numpy().astype("<f4")
    dims = list(raw.shape) or [1]
    index.append(f"{name} {kind} {len(blob)} " + " ".join(str(d) for d in dims))
    blob.extend(np.ascontiguousarray(raw).tobytes())


def given(name, *shape, scale=1.0, low=None, high=None):
    """A random input, rounded to fp32, saved, and returned as a float64 leaf."""
    x = torch.randn(*shape) * scale if low is None else torch.rand(*shape) * (high - low) + low
    x = x.float().double()
    save(name, x)
    return x.requires_grad_(True)


def matmul():
    m, n, k = 17, 23, 19
    a, b, c = given("matmul.a", m, k), given("matmul.b", k, n), given("matmul.c", m, n)
    save("matmul.at", a.t().contiguous())
    save("matmul.bt", b.t().contiguous())
    save("matmul.product", a @ b)
    save("matmul.added", c + a @ b)
    packed = given("matmul.packed", m, k + 12)
    save("matmul.part", packed[:, 5:5 + k] @ b)
    wide = given("matmul.wide", m, 13)
    save("matmul.part_transposed", packed[:, 4:4 + 8].t() @ wide)
    # A linear layer and its gradients.
    x, w, dy = given("linear.x", 21, 32), given("linear.w", 24, 32), given("linear.dy", 21, 24)
    y = F.linear(x, w)
    y.backward(dy)
    save("linear.y", y)
    save("linear.dx", x.grad)
    save("linear.dw", w.grad)


def rmsnorm():
    eps = 1e-5
    x, w, dy = given("rmsnorm.x", 9, 40), given("rmsnorm.w", 40), given("rmsnorm.dy", 9, 40)
    dx0, dw0 = given("rmsnorm.dx_before", 9, 40), given("rmsnorm.dw_before", 40)
    rstd = (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    y = x * rstd * w
    y.backward(dy)
    save("rmsnorm.y", y)
    save("rmsnorm.rstd", rstd.reshape(-1))
    save("rmsnorm.dx", dx0 + x.grad)
    save("rmsnorm.dw", dw0 + w.grad)


def rope_table(positions, size, base=10000.0):
    angle = torch.arange(positions)[:, None] * base ** (-torch.arange(0, size, 2) / size)
    return torch.cat([angle.cos(), angle.sin()], -1).float().double()


def rotate(x, table, positions):
    """x (T, heads, D), half-split order, by complex multiplication."""
    half = x.shape[-1] // 2
    turn = torch.complex(table[positions, :half], table[positions, half:])[:, None]
    z = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([z.real, z.imag], -1)


def rope():
    tokens, heads, size, width = 12, 3, 8, 40
    table = rope_table(16, size)
    positions = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 15, 7, 7, 9])
    x = given("rope.x", tokens, width)
    save("rope.table", table)
    save("rope.positions", positions)
    turned = rotate(x[:, :heads * size].reshape(tokens, heads, size), table, positions)
    y = torch.cat([turned.reshape(tokens, heads * size), x[:, heads * size:]], -1)
    dy = given("rope.dy", tokens, width)
    y.backward(dy)
    save("rope.y", y)
    save("rope.dx", x.grad)


def attend(qkv, starts, batch, sequence, heads, kv_heads, size, scale):
    """Dense softmax with an explicit mask; returns out (T, H D) and lse (B, H, S)."""
    parts = qkv.reshape(batch, sequence, heads + 2 * kv_heads, size).transpose(1, 2)
    q, k, v = parts.split([heads, kv_heads, kv_heads], 1)
    k = k.repeat_interleave(heads // kv_heads, 1)
    v = v.repeat_interleave(heads // kv_heads, 1)
    at = torch.arange(sequence)
    first = starts.reshape(batch, 1, sequence, 1)
    mask = (at[None, None, None, :] <= at[None, None, :, None]) & (at >= first)
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~mask, -math.inf)
    out = scores.softmax(-1) @ v
    return out.transpose(1, 2).reshape(batch * sequence, heads * size), scores.logsumexp(-1)


def attention(name, batch, sequence, heads, kv_heads, size, starts):
    scale = 1 / math.sqrt(size)
    tokens = batch * sequence
    save(f"{name}.shape", torch.tensor([batch, sequence, heads, kv_heads, size]))
    qkv = given(f"{name}.qkv", tokens, (heads + 2 * kv_heads) * size, scale=1.5)
    dout = given(f"{name}.dout", tokens, heads * size)
    save(f"{name}.starts", starts)
    out, lse = attend(qkv, starts, batch, sequence, heads, kv_heads, size, scale)
    out.backward(dout)
    save(f"{name}.out", out)
    save(f"{name}.lse", lse)
    save(f"{name}.dqkv", qkv.grad)


def decode():
    batch, length, heads, kv_heads, size = 2, 6, 4, 2, 8
    save("decode.shape", torch.tensor([batch, length, heads, kv_heads, size]))
    qkv = given("decode.qkv", batch, length, (heads + 2 * kv_heads) * size)
    out, _ = attend(qkv.reshape(batch * length, -1), torch.zeros(batch * length, dtype=torch.int64),
                    batch, length, heads, kv_heads, size, 1 / math.sqrt(size))
    # Token s of the whole sequence is what decoding must give after s tokens.
    save("decode.out", out.reshape(batch, length, heads * size))


def swiglu():
    x, dy = given("swiglu.x", 11, 2 * 26, scale=3.0), given("swiglu.dy", 11, 26)
    gate, up = x.chunk(2, -1)
    y = F.silu(gate) * up
    y.backward(dy)
    save("swiglu.y", y)
    save("swiglu.dx", x.grad)


def embedding():
    ids = torch.tensor([3, 0, 3, 9, 1, 3, 9, 0])
    save("embedding.ids", ids)
    table, dy = given("embedding.table", 10, 12), given("embedding.dy", 8, 12)
    before = given("embedding.dtable_before", 10, 12)
    y = F.embedding(ids, table)
    y.backward(dy)
    save("embedding.y", y)
    save("embedding.dtable", before + table.grad)


def cross_entropy():
    targets = torch.tensor([5, -1, 0, 46, -1, 13, 5])
    save("loss.targets", targets)
    logits = given("loss.logits", 7, 47, scale=4.0)
    losses = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    scale = 0.2
    (losses.sum() * scale).backward()
    save("loss.scale", torch.tensor([scale]).float().double())
    save("loss.losses", losses)
    save("loss.gradient", logits.grad)


def adamw():
    """Five steps of torch.optim.AdamW with clipping by torch's own function."""
    for name, beta1, beta2, eps, decay, clip in (("adamw", 0.9, 0.999, 1e-8, 0.1, 0.0),
                                                 ("adamw_clip", 0.9, 0.95, 1e-6, 0.0, 1.0)):
        lr, clip, beta1, beta2, eps, decay = (float(np.float32(x))
                                              for x in (0.01, clip, beta1, beta2, eps, decay))
        w = torch.nn.Parameter(given(f"{name}.w0", 6, 35).detach().clone())
        save(f"{name}.settings", torch.tensor([lr, beta1, beta2, eps, decay, clip]))
        rule = torch.optim.AdamW([w], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
        for step in range(1, 6):
            w.grad = given(f"{name}.g{step}", 6, 35, scale=0.02 if step == 3 else 1.0).detach()
            w.grad = w.grad.clone()
            norm = w.grad.norm()
            if clip > 0:
                norm = torch.nn.utils.clip_grad_norm_([w], clip)
            rule.step()
            save(f"{name}.norm{step}", norm.reshape(1))
            save(f"{name}.w{step}", w)
        save(f"{name}.m", rule.state[w]["exp_avg"])
        save(f"{name}.v", rule.state[w]["exp_avg_sq"])


def selection():
    x = given("select.x", 20, 33)
    rows, columns = x.pow(2).sum(1), x.pow(2).sum(0)
    save("select.rows", rows)
    save("select.columns", columns)
    top_rows = rows.topk(7).indices.sort().values
    top_columns = columns.topk(9).indices.sort().values
    save("select.top_rows", top_rows)
    save("select.top_columns", top_columns)
    save("select.gathered_rows", x[top_rows])
    save("select.gathered_columns", x[:, top_columns])
    put = given("select.put", 7, 33)
    save("select.scattered", x.detach().clone().index_copy(0, top_rows, put))
    factor = given("select.factor", 20)
    save("select.scaled_rows", x * factor[:, None])
    save("select.sum", x.sum().reshape(1))
    save("select.sum_squares", x.pow(2).sum().reshape(1))


matmul()
rmsnorm()
rope()
attention("attention", 2, 13, 4, 2, 8, torch.zeros(26, dtype=torch.int64))
attention("records", 2, 11, 6, 2, 16,
          torch.tensor([0, 0, 0, 3, 3, 3, 3, 7, 8, 8, 8] + [0] * 5 + [5] * 6))
attention("single_kv", 1, 37, 3, 1, 4, torch.zeros(37, dtype=torch.int64))
attention("long", 1, 150, 2, 1, 8, torch.tensor([0] * 70 + [70] * 3 + [73] * 77))
decode()
swiglu()
embedding()
cross_entropy()
adamw()
selection()

OUT.mkdir(parents=True, exist_ok=True)
(OUT / "golden.txt").write_text("\n".join(index) + "\n")
(OUT / "golden.bin").write_bytes(blob)
print(f"{len(index)} tensors, {len(blob)} bytes")
