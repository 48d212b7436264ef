"""Makes the tiny Qwen2 checkpoints of crate/tests/fixtures/qwen2 and their reference logits.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install torch transformers
    /tmp/ref/bin/python tests/reference/qwen2.py crate/tests/fixtures/qwen2

Random weights, a few hundred tokens, grouped queries (4 heads on 2), biases that are not zero;
one with a tied head in f32, one with a head of its own in bf16 on disk (computed in f32).
Written with torch 2.15.0 and transformers 5.23.0; the constants are committed, so the tests
need neither.
"""

import json
import pathlib
import sys

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

out = pathlib.Path(sys.argv[1])

for name, tie, dtype in [("tied", True, torch.float32), ("untied", False, torch.bfloat16)]:
    torch.manual_seed(11 if tie else 12)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_theta=10000.0 if tie else 1000000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=tie,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("norm.weight"):
                parameter.copy_(1.0 + 0.2 * torch.randn_like(parameter))
            elif key.endswith(".bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_((0.05 if "embed" in key else 0.3) * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(out / name)
    model = Qwen2ForCausalLM.from_pretrained(out / name, dtype=torch.float32).eval()

    prompt = [(i * 37 + 5) % 300 for i in range(20)]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
        ids = list(prompt)
        greedy = []
        for _ in range(24):
            greedy.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            ids.append(greedy[-1])
        long = [(i * 53 + 7) % 300 for i in range(200)]
        long_logits = model(torch.tensor([long])).logits[0, -1]
    reference = {
        "prompt": prompt,
        "first_logits": [round(x, 6) for x in logits[0].tolist()],
        "last_logits": [round(x, 6) for x in logits[-1].tolist()],
        "greedy": greedy,
        "long_prompt": long,
        "long_last_logits": [round(x, 6) for x in long_logits.tolist()],
    }
    (out / name / "reference.json").write_text(json.dumps(reference) + "\n")
    print(name, "greedy", greedy)
    generation_config = out / name / "generation_config.json"
    generation_config.unlink(missing_ok=True)
