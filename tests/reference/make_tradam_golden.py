#!/usr/bin/env python3
"""Known answers for TRAdam: the tiny LLaMA of make_model_golden.py, 24 steps in float64.

    python3 tests/reference/make_tradam_golden.py tests/data/model

Writes tradam.json: one object a case with settings, losses, grad_norms (before each update) and
final (NAME -> norm, sum, sample as in golden.json).

Written after the program that the authors of TRAdam (IJCAI 2019) released, step by step and with a
torch.optim.Optimizer of its own: a counter i goes round 0 .. interval - 1; at i = 0 the anchor
becomes the weight; lambda = lambda_w / lr;
    g = gradient + 2 lambda (w - anchor)
    m, v as in Adam, t counted over all steps
    w -= (lr / (i + 1)) * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)
Case `released` is this without decay; `decayed` takes lr whole in every step (no division by i + 1)
and adds what is ours: w -= lr * weight_decay * w, of the old weight, on matrices.
"""
import json
import math
import os
import sys

import torch

import make_model_golden as model

STEPS = 24


class TRAdam(torch.optim.Optimizer):
    def __init__(self, params, lr, lambda_w, interval, harmonic, decay):
        super().__init__(params, {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8})
        self.lambda_w, self.interval, self.harmonic = lambda_w, interval, harmonic
        self.decay, self.inner, self.t = decay, 0, 0

    @torch.no_grad()
    def step(self):
        self.t += 1
        for group in self.param_groups:
            rate = group["lr"] / (self.inner + 1) if self.harmonic else group["lr"]
            pull = self.lambda_w / group["lr"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                if self.inner == 0:
                    state["anchor"] = p.clone()
                g = p.grad + 2 * pull * (p - state["anchor"])
                state["m"].mul_(group["beta1"]).add_(g, alpha=1 - group["beta1"])
                state["v"].mul_(group["beta2"]).addcmul_(g, g, value=1 - group["beta2"])
                step = math.sqrt(1 - group["beta2"] ** self.t) / (1 - group["beta1"] ** self.t)
                old = p.clone()
                p.addcdiv_(state["m"], state["v"].sqrt() + group["eps"], value=-rate * step)
                if self.decay and p.dim() > 1:
                    p.sub_(old, alpha=rate * self.decay)
        self.inner = (self.inner + 1) % self.interval


def train(weights, batch, settings):
    w = {n: t.clone().requires_grad_(True) for n, t in weights.items()}
    rule = TRAdam(list(w.values()), settings["lr"], settings["anchor_weight"] * settings["lr"],
                  settings["anchor_interval"], settings["anchor_step"] == "harmonic",
                  settings["weight_decay"])
    out = {"settings": settings, "losses": [], "grad_norms": []}
    for _ in range(settings["steps"]):
        rule.zero_grad()
        total, count = model.loss_sum(w, batch)
        loss = total / count
        loss.backward()
        out["losses"].append(loss.item())
        out["grad_norms"].append(model.norm_of([t.grad for t in w.values()]))
        rule.step()
    total, count = model.loss_sum(w, batch)
    out["final"] = {n: model.digest(t.detach()) for n, t in w.items()}
    out["final_loss"] = total.item() / count
    return out


def main(folder):
    weights = model.initial_weights(False, 138)
    plain, _ = model.make_batches(13)
    base = {"lr": 1e-3, "steps": STEPS, "anchor_interval": 10, "anchor_weight": 0.1,
            "anchor_step": "harmonic", "weight_decay": 0.0}
    cases = {
        "released": train(weights, plain, base),
        "decayed": train(weights, plain, dict(base, anchor_interval=4, anchor_weight=2.0,
                                              anchor_step="full", weight_decay=0.01)),
        "unpulled": train(weights, plain, dict(base, anchor_weight=0.0)),
    }
    with open(os.path.join(folder, "tradam.json"), "w") as f:
        json.dump(cases, f)
        f.write("\n")
    for name, c in cases.items():
        print("%-8s %.6f -> %.6f" % (name, c["losses"][0], c["final_loss"]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tests/data/model")
