"""Writes crate/src/training/adamw.json: four steps of torch.optim.AdamW behind torch.nn.utils.clip_grad_norm_.

Two tensors with gradients of very different size are clipped by their common norm, which the first two steps exceed
and the last two do not; every number is moved twice, with weight decay and without.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0
    venv/bin/python tests/reference/adamw.py COUNT     # as many numbers as the test's network has
"""

import json
import sys

import torch

COUNT = int(sys.argv[1])
MAX_NORM = 2.0


def values(step, divisor):
    return [((i * 7 + step * 13) % 11 - 5) / divisor for i in range(COUNT)]


def moved(weight_decay):
    start = torch.tensor(values(0, 8.0))
    parts = [torch.nn.Parameter(start[: COUNT // 3].clone()), torch.nn.Parameter(start[COUNT // 3 :].clone())]
    optimizer = torch.optim.AdamW(parts, lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay)
    norms = []
    for step, size in enumerate([4.0, 1.0, 0.0625, 0.03125], start=1):
        gradient = torch.tensor(values(step, 4.0)) * size
        parts[0].grad, parts[1].grad = gradient[: COUNT // 3].clone() * 8, gradient[COUNT // 3 :].clone()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parts, MAX_NORM)))
        optimizer.step()
    flat = lambda tensors: [float(f"{float(v):.9g}") for tensor in tensors for v in tensor]
    state = [optimizer.state[part] for part in parts]
    return dict(
        norms=norms,
        parameters=flat(part.detach() for part in parts),
        mean=flat(own["exp_avg"] for own in state),
        square=flat(own["exp_avg_sq"] for own in state),
    )


json.dump(dict(count=COUNT, decayed=moved(0.1), plain=moved(0.0)), open("crate/src/training/adamw.json", "w"))
