"""Prints the constants of crate/tests/fixtures/warpers.json.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/reference/warpers.py > crate/tests/fixtures/warpers.json

What transformers' own list of logits processors makes of a few rows of logits: tokens that are not
allowed are -inf before it, as its prefix constraint makes them. Each case has the settings and the
natural logarithms of the probabilities, null of a token that is left out.
Written with torch 2.15.0 and transformers 5.24.0.
"""

import json
import random

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

# The model has no part in it but to put the processors in their order.
MODEL = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
)

RANDOM = random.Random(7)
ROWS = [
    [round(RANDOM.gauss(0, 2), 3) for _ in range(16)],
    # Equal ones at the edges: top-k keeps all of the last place, top-p drops the lower ids first.
    [1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 3.0, -1.0, 2.0, 0.5, 1.0, 1.0, -1.0, 0.5, 2.0, 3.0],
    [12.0] + [0.0] * 15,
]
ALLOWED = [None, [1, 2, 4, 5, 8, 9, 10, 13]]
# (temperature, top_k, top_p, min_p)
SETTINGS = [
    (1.0, 3, 1.0, 0.0),
    (0.7, 5, 1.0, 0.0),
    (1.0, 40, 1.0, 0.0),
    (1.0, 0, 0.63, 0.0),
    (2.5, 0, 0.87, 0.0),
    (1.0, 0, 0.0, 0.0),
    (1.0, 0, 1.0, 0.11),
    (1.7, 0, 1.0, 0.23),
    (1.0, 0, 1.0, 1.0),
    (0.8, 6, 0.77, 0.0),
    (1.5, 9, 0.93, 0.17),
    (3.0, 12, 0.91, 0.31),
]


def warped(row, allowed, temperature, top_k, top_p, min_p):
    config = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, eos_token_id=15
    )
    processors = MODEL._get_logits_processor(config, device="cpu")
    scores = torch.tensor([row])
    if allowed is not None:
        hidden = torch.ones(len(row), dtype=torch.bool)
        hidden[allowed] = False
        scores[0, hidden] = -torch.inf
    scores = processors(torch.zeros((1, 1), dtype=torch.long), scores)
    logs = torch.log_softmax(scores.double(), dim=-1)[0].tolist()
    return [None if log == -float("inf") else round(log, 7) for log in logs]


cases = [
    {
        "logits": row,
        "allowed": allowed,
        "temperature": settings[0],
        "top_k": settings[1],
        "top_p": settings[2],
        "min_p": settings[3],
        "logprobs": warped(row, allowed, *settings),
    }
    for row in ROWS
    for allowed in ALLOWED
    for settings in SETTINGS
]
print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
