#!/usr/bin/env python3
"""Makes presets/cards: for every size of card and every model that fits, what the search finds.

    cards.py WINDROW            writes presets/cards/*.json anew and prints the table of RESULTS.md
    cards.py WINDROW --check    writes nothing; exit 1 if the search finds anything else by now

Each file is what `windrow plan RECIPE --limit BYTES` names as the fastest that fits, for steps of 16
rows of 1024 tokens, where BYTES is what programs can take of such a card (94 %: context, libraries and
a screen hold the rest). Nothing in them is chosen by hand.
"""

import json
import os
import subprocess
import sys
import tempfile

CARDS = [8, 12, 16, 24, 40, 48, 80]
MODELS = ["1b", "7b", "13b", "33b"]
ROWS = 16
INTERVAL = 200
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "presets", "cards")
NAMES = {"full": "every weight with AdamW", "grass": "Grass", "galore": "GaLore"}


def plan(windrow, recipe, words):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(recipe, file)
        file.flush()
        done = subprocess.run([windrow, "plan", file.name, "--json"] + words,
                              stdout=subprocess.PIPE, universal_newlines=True)
    if done.returncode not in (0, 4):
        sys.exit("windrow plan failed")
    return json.loads(done.stdout)


def base(model, limit):
    return {
        "model": {"preset": "llama-" + model},
        "data": {"sequence_length": 1024},
        "method": {"interval": INTERVAL},
        "batch": {"micro": 1, "accumulate": ROWS},
        "memory": {"limit": limit},
    }


def lay(recipe, assignments):
    for word in assignments.split():
        key, value = word.split("=")
        section, name = key.split(".")
        if value in ("true", "false"):
            value = value == "true"
        else:
            try:
                value = int(value) if value.isdigit() else float(value)
            except ValueError:
                pass
        recipe.setdefault(section, {})[name] = value
    return recipe


def intent(card, model, recipe):
    method = recipe["method"]
    how = NAMES[method["name"]]
    if method["name"] != "full":
        how += " of rank %d" % method["rank"]
    activation = recipe["activation"]
    kept = {"none": "nothing recomputed", "norms": "norms and SwiGLU recomputed",
            "ffn": "the feed-forward recomputed", "block": "whole blocks recomputed"}
    exact = method.get("exact_rows", False)
    parts = ["bf16 weights, selected rows exact" if exact else "bf16 weights", "moments in " + recipe["optimizer"]["state"],
             kept[activation["recompute"]]]
    if activation["offload"] == "host":
        parts.append("activations in host memory")
    return "%s on a card of %d GB: %s, %s; add data.train and a tokenizer, or model.path." % (
        model.upper(), card, how, ", ".join(parts))


def write(path, recipe, check):
    text = json.dumps(recipe, indent=2) + "\n"
    if not check:
        with open(path, "w") as file:
            file.write(text)
        return True
    same = os.path.exists(path) and open(path).read() == text
    if not same:
        print("%s is not what the search finds" % path, file=sys.stderr)
    return same


def main():
    windrow, check = sys.argv[1], "--check" in sys.argv[2:]
    good = True
    print("| card | model | method | rank | states | recomputed | offloaded | rows at once | plan, GiB "
          "| of GiB | tokens/s, predicted |")
    print("|---|---|---|---:|---|---|---|---:|---:|---:|---:|")
    for card in CARDS:
        for model in MODELS:
            limit = "%.2fGiB" % (card * 0.94)
            recipe = base(model, limit)
            report = plan(windrow, recipe, ["--limit", limit])
            if 2 * report["parameters"] > report["limit_bytes"]:
                continue
            found = report["fastest"]
            if not found["found"]:
                print("| %d GB | %s | nothing fits |" % (card, model.upper()))
                continue
            lay(recipe, found["assignments"])
            r = {"intent": intent(card, model, recipe)}
            r.update(recipe)
            name = "card-%dgb-%s.json" % (card, model)
            good = write(os.path.join(FOLDER, name), r, check) and good
            print("| %d GB | %s | %s | %s | %s%s | %s | %s | %d | %.2f | %.2f | %.0f |" % (
                card, model.upper(), r["method"]["name"], r["method"].get("rank", ""),
                r["optimizer"]["state"], ", exact" if r["method"].get("exact_rows") else "",
                r["activation"]["recompute"], r["activation"]["offload"],
                r["batch"]["micro"], found["total_bytes"] / 2**30, card * 0.94,
                found["predicted_tokens_per_second"]), flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
