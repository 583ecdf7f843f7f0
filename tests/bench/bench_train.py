"""The model of bench_train.c trained with PyTorch, eagerly: the peer it is measured against.

    bench_train.py [--json] [--steps N] [--dtype fp32|bf16] [--attention sdpa|explicit] [--profile]

A LLaMA of 4 blocks, hidden size 256, 8 heads, feed forward 688, vocabulary 2048; micro-batches of
8 x 256 random tokens; AdamW on everything, gradients clipped to norm 1. The faster choices of this
PyTorch are taken where it leaves one: q, k, v and gate, up are one product each, the optimizer and
the clipping use the multi-tensor functions. Threads: OMP_NUM_THREADS.
"""
import argparse
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

BATCH, SEQUENCE, LAYERS, HIDDEN, HEADS, FEED, VOCABULARY = 8, 256, 4, 256, 8, 688, 2048
SIZE = HIDDEN // HEADS


class Norm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        f = x.float()
        y = f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-5)
        return y.to(x.dtype) * self.weight


def rotate(x, cosines, sines):
    low, high = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-high, low), dim=-1) * sines


class Attention(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.qkv = torch.nn.Linear(HIDDEN, 3 * HIDDEN, bias=False)
        self.out = torch.nn.Linear(HIDDEN, HIDDEN, bias=False)

    def attend(self, q, k, v, mask):
        if self.kind == "sdpa":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = torch.matmul(q * SIZE**-0.5, k.transpose(2, 3)) + mask
        return torch.matmul(torch.softmax(scores, dim=-1), v)

    def forward(self, x, table):
        cosines, sines, mask = table
        qkv = self.qkv(x).view(BATCH, SEQUENCE, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        q = rotate(qkv[0], cosines, sines)
        k = rotate(qkv[1], cosines, sines)
        y = self.attend(q, k, qkv[2], mask)
        return self.out(y.transpose(1, 2).reshape(BATCH, SEQUENCE, HIDDEN))


class FeedForward(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up = torch.nn.Linear(HIDDEN, 2 * FEED, bias=False)
        self.down = torch.nn.Linear(FEED, HIDDEN, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.norm1, self.attention = Norm(), Attention(kind)
        self.norm2, self.feed_forward = Norm(), FeedForward()

    def forward(self, x, table):
        x = x + self.attention(self.norm1(x), table)
        return x + self.feed_forward(self.norm2(x))


class Llama(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.blocks = torch.nn.ModuleList(Block(kind) for _ in range(LAYERS))
        self.norm = Norm()
        self.head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)
        for p in self.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.02)

    def forward(self, ids, table):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, table)
        return self.head(self.norm(x))


def make_table(dtype):
    rates = 10000.0 ** (-torch.arange(0, SIZE, 2).float() / SIZE)
    angles = torch.outer(torch.arange(SEQUENCE).float(), rates)
    angles = torch.cat((angles, angles), dim=-1)
    mask = torch.full((SEQUENCE, SEQUENCE), float("-inf")).triu(1)
    return angles.cos().to(dtype), angles.sin().to(dtype), mask.to(dtype)


def require_fast_products():
    """The reference BLAS takes a minute a step and would be no peer."""
    x = torch.randn(384, 384)
    torch.set_num_threads(1)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        torch.mm(x, x)
        seconds.append(time.process_time() - start)
    if 2 * 384**3 / min(seconds) < 4e9:
        sys.exit("bench_train.py: this PyTorch multiplies with the reference BLAS, which is no "
                 "peer. A fast one: apt-get install libopenblas0")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    has_sdpa = hasattr(F, "scaled_dot_product_attention")
    arguments.add_argument("--attention", choices=("sdpa", "explicit"),
                           default="sdpa" if has_sdpa else "explicit")
    arguments.add_argument("--profile", action="store_true")
    options = arguments.parse_args()
    torch.manual_seed(1)
    require_fast_products()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
    model = Llama(options.attention).to(dtype)
    table = make_table(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, foreach=True)
    ids = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE))
    targets = torch.randint(0, VOCABULARY, (BATCH * SEQUENCE,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(ids, table).view(-1, VOCABULARY)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    for _ in range(3):
        step()
    if options.profile:
        with torch.profiler.profile() as profile:
            step()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
    times = []
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    median = statistics.median(times)
    tokens = 1e3 * BATCH * SEQUENCE / median
    if options.json:
        print(json.dumps({"case": "full-" + options.dtype, "torch": torch.__version__,
                          "attention": options.attention, "threads": torch.get_num_threads(),
                          "step_ms": round(median, 3), "least_ms": round(min(times), 3),
                          "tokens_per_second": round(tokens, 1)}))
    else:
        print(f"torch {torch.__version__}, {options.dtype}, {options.attention} attention, "
              f"{torch.get_num_threads()} threads: step {median:.1f} ms "
              f"(least {min(times):.1f}), {tokens:.0f} tokens/s")


if __name__ == "__main__":
    main()
