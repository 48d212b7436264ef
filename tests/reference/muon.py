"""Prints what torch.optim.Muon makes of two small matrices in three steps.

The test in crate/src/training/muon.rs holds these numbers. torch iterates in bfloat16, so they
agree to its precision.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 && venv/bin/python tests/reference/muon.py
"""

import torch


def entry(shape, number):
    """Numbers that a test can make again."""
    rows, cols = shape
    place = torch.arange(rows * cols, dtype=torch.float64)
    return torch.sin(place * 1.7 + number * 0.9).reshape(rows, cols).float()


for shape in [(2, 3), (3, 2)]:
    matrix = torch.nn.Parameter(entry(shape, 0))
    muon = torch.optim.Muon(
        [matrix], lr=0.1, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    for number in range(1, 4):
        matrix.grad = entry(shape, number)
        muon.step()
    print(shape, [round(value, 4) for value in matrix.detach().flatten().tolist()])
