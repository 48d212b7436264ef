"""Writes crate/src/training/rl/objective/trl.json: what TRL makes of fixed log-probabilities and rewards.

The losses and their slopes are those of GRPOTrainer._compute_loss and of the old PPOTrainer.loss, called as they
are on a stand-in that holds the options; slopes are torch's derivatives by the log-probabilities. TRL dropped
PPO's trainer, so its methods are read out of the source of an old release.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 trl==1.16.0
    venv/bin/pip download --no-deps trl==0.11.4 && unzip trl-0.11.4*.whl -d trl-0.11.4
    venv/bin/python tests/reference/policy_losses.py trl-0.11.4/trl
"""

import ast
import itertools
import json
import sys
import textwrap
import types
from collections import defaultdict

import numpy as np
import torch
from trl.trainer.grpo_trainer import GRPOTrainer

torch.manual_seed(3)
ROWS, LONGEST = 9, 5
# One trajectory has no token that counts.
lengths = [5, 3, 1, 4, 0, 5, 2, 4, 3]
mask = torch.tensor([[float(t < n) for t in range(LONGEST)] for n in lengths])
old = -torch.rand(ROWS, LONGEST) * 2
new = old + torch.randn(ROWS, LONGEST) * 0.4
# Whole sequences on both sides of what is clipped, with an advantage of either sign.
new[[0, 3]] += 0.4
new[[1, 7]] -= 0.4
reference = old + torch.randn(ROWS, LONGEST) * 0.3
rewards = torch.tensor([1.0, 0.0, 0.25, 0.5, 0.5, 0.5, 0.75, 0.0, 1.0])
advantages = torch.tensor([1.2, -0.7, 0.4, -1.5, 0.8, 0.9, -0.1, 0.6, -0.3])


def short(value):
    """What a 32-bit float says, in no more digits."""
    return float(f"{float(value):.9g}")


def rows(values):
    return [[short(v) for v in row[:n]] for row, n in zip(values, lengths)]


def grpo(loss_type, level, beta, delta, micro_batches):
    logps = new.clone().requires_grad_(True)

    class Own:
        def __getattr__(self, name):
            raise AttributeError(name)

    own = Own()
    own.__dict__.update(
        _get_per_token_logps_and_entropies=lambda *a, **k: (logps, torch.zeros_like(logps), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=0.28,
        use_vllm=False,
        max_completion_length=7,
        current_gradient_accumulation_steps=micro_batches,
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        model=types.SimpleNamespace(training=True),
        args=types.SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=micro_batches),
        accelerator=types.SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, **k: x),
    )
    inputs = dict(
        prompt_ids=torch.zeros(ROWS, 1, dtype=torch.long),
        prompt_mask=torch.ones(ROWS, 1, dtype=torch.long),
        completion_ids=torch.zeros(ROWS, LONGEST, dtype=torch.long),
        completion_mask=mask,
        advantages=advantages,
        old_per_token_logps=old,
        ref_per_token_logps=reference,
        num_items_in_batch=torch.tensor(31.0),
    )
    loss = GRPOTrainer._compute_loss(own, None, inputs)
    loss.backward()
    return short(loss), rows(logps.grad)


def advantage(scale):
    source = textwrap.dedent(
        """
        import torch
        from trl.trainer.utils import nanstd
        """
    )
    space = {}
    exec(source, space)
    grouped = rewards.view(-1, 3)
    if scale == "group":
        std = space["nanstd"](grouped, dim=1).repeat_interleave(3)
    elif scale == "batch":
        std = space["nanstd"](rewards).expand_as(rewards)
    found = rewards - grouped.mean(dim=1).repeat_interleave(3)
    return (found / (std + 1e-4) if scale != "none" else found).tolist()


def old_trl(folder):
    """PPOTrainer's methods and the functions that they call, of the old release."""
    space = {"torch": torch, "np": np, "warnings": types.SimpleNamespace(warn=print), "Optional": None}
    exec("from typing import *", space)
    wanted = {
        f"{folder}/core.py": ["masked_mean", "masked_var", "masked_whiten", "clip_by_value", "flatten_dict", "entropy_from_logits"],
        f"{folder}/trainer/utils.py": ["AdaptiveKLController"],
        f"{folder}/trainer/ppo_trainer.py": ["loss", "compute_advantages"],
    }
    for path, names in wanted.items():
        text = open(path).read()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in names:
                node.decorator_list = []
                exec(compile(ast.Module([node], []), path, "exec"), space)
    space.setdefault("F", torch.nn.functional)
    space.setdefault("pd", None)
    return space


trl = old_trl(sys.argv[1])
config = types.SimpleNamespace(
    cliprange=0.2, cliprange_value=0.3, vf_coef=1.0, ratio_threshold=1e9, gamma=0.97, lam=0.9, whiten_rewards=False
)
own = types.SimpleNamespace(config=config)
values = torch.randn(ROWS, LONGEST) * 0.5
token_rewards = torch.randn(ROWS, LONGEST) * 0.2
token_advantages = torch.randn(ROWS, LONGEST)
returns = torch.randn(ROWS, LONGEST)
logps = new.clone().requires_grad_(True)
predicted = (values + torch.randn(ROWS, LONGEST) * 0.4).requires_grad_(True)
logits = torch.zeros(ROWS, LONGEST, 3)
policy_loss, value_loss, *_ = trl["loss"](
    own, old, values, logits, predicted, logps, mask, token_advantages, returns
)
(policy_loss + value_loss).backward()
# Right-padded rows get their whitening over what is not masked, as ours over what is there.
_, whitened, gae_returns = trl["compute_advantages"](own, values, token_rewards, mask)
controller = trl["AdaptiveKLController"](0.2, 6.0, 10000)
weights = []
for current in [3.0, 6.6, 60.0]:
    controller.update(current, 256)
    weights.append(float(controller.value))

cases = []
options = itertools.product(["grpo", "bnpo", "dr_grpo", "dapo"], ["token", "sequence"], [0.0, 0.04], [None, 1.1, 1.5], [1, 3])
for loss_type, level, beta, delta, micro_batches in options:
    loss, slopes = grpo(loss_type, level, beta, delta, micro_batches)
    cases.append(
        dict(
            loss_type=loss_type,
            importance_sampling_level=level,
            beta=beta,
            delta=delta,
            micro_batches=micro_batches,
            loss=loss,
            slopes=slopes,
        )
    )

json.dump(
    dict(
        old=rows(old),
        new=rows(new),
        reference=rows(reference),
        advantages=advantages.tolist(),
        tokens=31,
        cases=cases,
        rewards=rewards.tolist(),
        group=3,
        scaled={scale: advantage(scale) for scale in ["group", "batch", "none"]},
        ppo=dict(
            advantages=rows(token_advantages),
            values=rows(values),
            predicted=rows(predicted.detach()),
            returns=rows(returns),
            policy_loss=float(policy_loss),
            policy_slopes=rows(logps.grad),
            value_loss=float(value_loss),
            value_slopes=rows(predicted.grad),
            token_rewards=rows(token_rewards),
            whitened=rows(whitened),
            gae_returns=rows(gae_returns),
            weights=weights,
        ),
    ),
    open("crate/src/training/rl/objective/trl.json", "w"),
)
