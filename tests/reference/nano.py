"""Shows that nano is a plain Qwen2 checkpoint: transformers loads it unchanged and agrees.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/reference/nano.py pkg/models/nano

Compares the logits that the bundle's manifest names with those of transformers, and prints a prompt
as its chat template renders it.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = pathlib.Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
print(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters")

check = json.loads((folder / "manifest.json").read_text())["self_check"]
with torch.no_grad():
    logits = model(torch.tensor([check["prompt_ids"]])).logits[0, -1]
difference = max(abs(logits[i].item() - own) for i, own in zip(check["token_ids"], check["logits"]))
print(f"largest difference from the manifest's logits: {difference:.2e}")
assert difference < 1e-3

messages = [{"role": "system", "content": "extract"}, {"role": "user", "content": "> user: Hi!"}]
print(tokenizer.apply_chat_template(messages, tokenize=False))
