#!/usr/bin/env python3
"""A LoRA adapter written by peft, and the logits of the model with it.

    python3 tests/reference/make_adapter_golden.py tests/data/model

Needs PyTorch, transformers and peft (written with 4.36 and 0.7.1); nothing of it is needed to run
the tests. The base is tests/data/model/untied (see make_model_golden.py), computed in float64.

Writes to tests/data/model/adapter:
    adapter_config.json, adapter_model.safetensors
        as peft saves them: rank 4, alpha 6, on q, k, v and down; rank_pattern and alpha_pattern for
        some modules; A and B random (fp32)
    golden.json
        ids      16 tokens
        logits   (16, 96) of them, with the adapter
        base     the same without it

With a second argument, a directory, that adapter is read by peft instead (nothing is written) and
compared with the one above: the proof that ours can be read.
    python3 tests/reference/make_adapter_golden.py tests/data/model DIRECTORY
"""
import json
import os
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM


def load_base(folder):
    model = LlamaForCausalLM.from_pretrained(os.path.join(folder, "untied"),
                                             torch_dtype=torch.float32)
    return model


def logits(model, ids):
    model.eval()
    with torch.no_grad():
        return model.double()(torch.tensor([ids])).logits[0]


def make(folder):
    target = os.path.join(folder, "adapter")
    with open(os.path.join(folder, "golden.json")) as file:
        ids = json.load(file)["batch"]["ids"][:16]
    ids = [i for row in ids for i in row][:16] if isinstance(ids[0], list) else ids
    base = logits(load_base(folder), ids)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, lora_dropout=0.0, bias="none",
                        target_modules=["q_proj", "k_proj", "v_proj", "down_proj"],
                        rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3},
                        alpha_pattern={"k_proj": 5})
    model = get_peft_model(load_base(folder), config)
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = (torch.rand(p.shape, dtype=torch.float32) - 0.5) * 0.5
    model.save_pretrained(target)
    os.remove(os.path.join(target, "README.md"))
    adapted = logits(model, ids)
    assert (adapted - base).abs().max() > 0.1
    with open(os.path.join(target, "golden.json"), "w") as file:
        json.dump({"ids": ids, "logits": [round(x, 9) for x in adapted.flatten().tolist()],
                   "base": [round(x, 9) for x in base.flatten().tolist()]}, file)
        file.write("\n")


def compare(folder, directory):
    with open(os.path.join(folder, "adapter", "golden.json")) as file:
        golden = json.load(file)
    model = PeftModel.from_pretrained(load_base(folder), directory)
    found = logits(model, golden["ids"]).flatten()
    off = (found - torch.tensor(golden["logits"], dtype=torch.float64)).abs().max().item()
    print("largest difference of logits: %.3g" % off)
    assert off < 1e-6


if len(sys.argv) == 3:
    compare(sys.argv[1], sys.argv[2])
else:
    make(sys.argv[1])
