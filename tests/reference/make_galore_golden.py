#!/usr/bin/env python3
"""Known answers for GaLore: the tiny LLaMA of make_model_golden.py, 20 steps in float64.

    python3 tests/reference/make_galore_golden.py tests/data/model

Writes galore.json: one object a case with settings, losses, grad_norms (before each update: of the
projected gradients and of embedding, head and norms in full), energy (of each refresh: NAME ->
share of the squared gradient norm inside the subspace) and final (NAME -> norm, sum, sample as in
golden.json).

For every matrix W (m, n) of the blocks with gradient G, r = min(rank, min(m, n)):
    m >= n: Q (n, r) = the leading right singular vectors of G, R = G Q,   back(N) = N Q^T
    m <  n: P (m, r) = the leading left singular vectors of G,  R = G^T P, back(N) = P N^T
chosen at steps 1, 1 + interval ..., the largest component of each vector positive. With t counted
from 1 (from the refresh on where moments = reset):
    M = beta1 M + (1 - beta1) R;  V = beta2 V + (1 - beta2) R^2
    N = (M / (1 - beta1^t)) / (sqrt(V / (1 - beta2^t)) + eps)
    W -= lr * (scale * back(N) + weight_decay * W)
At a refresh, with C = Q_new^T Q_old: keep leaves M and V; rotate takes M C^T and V (C^2)^T; reset
takes zeros. All else is AdamW in full.
"""
import json
import os
import sys

import torch

import make_model_golden as model


def leading_vectors(g, rank, gaps):
    """The basis of the smaller side."""
    u, s, v = torch.linalg.svd(g, full_matrices=False)
    side = v.T if g.shape[0] >= g.shape[1] else u
    if rank < len(s):
        gaps.append(((s[rank - 1] - s[rank]) / s[0]).item())
    basis = side[:, :rank].clone()
    largest = basis.abs().argmax(0)
    return basis * torch.sign(basis[largest, torch.arange(rank)]), float((s[:rank] ** 2).sum()
                                                                         / (s ** 2).sum())


class Projected:
    def __init__(self, settings):
        self.s, self.basis, self.t = settings, None, 0

    def refresh(self, g, gaps):
        rank = min(self.s["rank"], min(g.shape))
        new, energy = leading_vectors(g, rank, gaps)
        if self.basis is None or self.s["moments"] == "reset":
            self.m = torch.zeros(max(g.shape), rank)
            self.v = torch.zeros(max(g.shape), rank)
            self.t = 0
        elif self.s["moments"] == "rotate":
            turn = new.T @ self.basis
            self.m, self.v = self.m @ turn.T, self.v @ (turn * turn).T
        self.basis = new
        return energy

    def project(self, g):
        return (g if g.shape[0] >= g.shape[1] else g.T) @ self.basis

    def back(self, n, shape):
        whole = n @ self.basis.T
        return whole if shape[0] >= shape[1] else whole.T

    def direction(self, r):
        s = self.s
        self.t += 1
        self.m = s["beta1"] * self.m + (1 - s["beta1"]) * r
        self.v = s["beta2"] * self.v + (1 - s["beta2"]) * r * r
        m = self.m / (1 - s["beta1"] ** self.t)
        v = self.v / (1 - s["beta2"] ** self.t)
        return m / (v.sqrt() + s["eps"])


def train(weights, batch, settings, gaps):
    w = {n: t.clone() for n, t in weights.items()}
    states, out = {}, {"settings": settings, "losses": [], "grad_norms": [], "energy": []}
    for step in range(1, settings["steps"] + 1):
        total, count, grads = model.gradients(w, batch)
        out["losses"].append(total / count)
        refresh = (step - 1) % settings["interval"] == 0
        if refresh:
            out["energy"].append({})
        kept = []
        for name, g in grads.items():
            decay = settings["weight_decay"] if model.is_matrix(name) else 0.0
            if not model.is_selected(name):
                state = states.setdefault(name, model.AdamW(tuple(g.shape), settings))
                kept.append(g)
                w[name] = w[name] - settings["lr"] * (state.direction(g) + decay * w[name])
                continue
            state = states.setdefault(name, Projected(settings))
            if refresh:
                out["energy"][-1][name] = state.refresh(g, gaps)
            r = state.project(g)
            kept.append(r)
            step_of = state.back(state.direction(r), g.shape)
            w[name] = w[name] - settings["lr"] * (settings["scale"] * step_of + decay * w[name])
        out["grad_norms"].append(model.norm_of(kept))
    total, count = model.loss_sum(w, batch)
    out["final"] = {n: model.digest(t) for n, t in w.items()}
    out["final_loss"] = total.item() / count
    return out


def main(folder):
    weights = model.initial_weights(False, 138)
    plain, _ = model.make_batches(13)
    base = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01,
            "steps": model.STEPS, "rank": 8, "interval": 5, "scale": 1.0}
    gaps, cases = [], {}
    cases["keep"] = train(weights, plain, dict(base, moments="keep"), gaps)
    cases["rotate"] = train(weights, plain, dict(base, moments="rotate"), gaps)
    cases["reset"] = train(weights, plain, dict(base, moments="reset", scale=0.25), gaps)
    # A subspace that a rounding error could change would make the tests a matter of luck.
    print("smallest gap between neighbouring singular values at the cut: %.2e of the largest"
          % min(gaps))
    with open(os.path.join(folder, "galore.json"), "w") as f:
        json.dump(cases, f)
        f.write("\n")
    for name, c in cases.items():
        print("%-8s %.6f -> %.6f" % (name, c["losses"][0], c["final_loss"]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/data/model")
