"""LoRA adapters between PEFT and this crate, both ways.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0 peft
    venv/bin/python tests/reference/lora.py write     # makes crate/tests/fixtures/lora
    venv/bin/python tests/reference/lora.py check MODEL ADAPTER MERGED

`write` gives the tiny Qwen2 of crate/tests/fixtures/decoders/qwen2_tied a random adapter, and notes the
log-probabilities behind a few tokens. `check` loads an adapter that this crate wrote (`adapter/` of a run with
`[lora]`) onto MODEL with PEFT, and compares its logits with those of the merged weights, `model/` of the run.
"""

import json
import pathlib
import sys

import peft
import torch
from transformers import AutoModelForCausalLM


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


if sys.argv[1] == "write":
    torch.manual_seed(5)
    base = AutoModelForCausalLM.from_pretrained("crate/tests/fixtures/decoders/qwen2_tied", dtype=torch.float32)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    out = pathlib.Path("crate/tests/fixtures/lora")
    model.save_pretrained(out)
    for extra in ["README.md"]:
        (out / extra).unlink(missing_ok=True)
    ids = [7, 31, 150, 3, 99, 200]
    found = torch.log_softmax(logits(model, ids)[-1], -1)
    (out / "reference.json").write_text(json.dumps({"ids": ids, "logprobs": [round(float(v), 6) for v in found]}) + "\n")
else:
    _, _, base, adapter, merged = sys.argv
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = list(range(5, 60))
    plain = logits(model.eval(), ids)
    own = logits(peft.PeftModel.from_pretrained(model, adapter).eval(), ids)
    other = logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval(), ids)
    difference = (own - other).abs().max().item()
    print(f"the adapter moves logits by {(own - plain).abs().max().item():.3f}; PEFT and the merged weights differ by {difference:.2e}")
    assert difference < 1e-3
