"""What reinforcement brings (docs/training.md): SFT on a tenth of the dialogues, then GRPO and PPO.

    python3 bench/gains/gains.py start                       # the data, and the facts of every conversation
    python3 bench/gains/gains.py run --only tenth --jobs 1   # the supervised model that all others begin as
    python3 bench/gains/gains.py run                         # every other cell of the table; finished ones are skipped
    python3 bench/gains/gains.py table    # that of docs/training.md, and docs/gains.svg, out of bench/gains/results.jsonl

`memory-r1` is taken from PATH or MEMORY_R1_BIN; LoCoMo's file, which is not part of this repository, from
MEMORY_R1_DATA (../shared/data) where it is there. `run --only TEXT` runs the cells whose name has the text.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RUNS = ROOT / "runs" / "gains"
RESULTS = HERE / "results.jsonl"
BINARY = os.environ.get("MEMORY_R1_BIN", "memory-r1")
LOCOMO = Path(os.environ.get("MEMORY_R1_DATA", ROOT.parent / "shared" / "data")) / "locomo" / "locomo10.json"
# Where the table stands.
BEGIN, END = "<!-- gains.py table -->", "<!-- end of the table -->"
BUNDLE = ROOT / "pkg" / "models" / "nano"

METHODS = ["grpo", "ppo"]
AGENTS = ["answer", "manager", "both"]
REWARDS = ["f1", "exact_match"]
SEEDS = [1, 2, 3]
# The steps of each phase; 64 trajectories a step.
PHASES = {
    "answer": [("answer", 40)],
    "manager": [("manager", 40)],
    "both": [("answer", 16), ("manager", 12), ("answer", 12)],
    "manager, then answer": [("manager", 12), ("answer", 60)],
}
# Further attempts, each of GRPO with F1 as reward: who learns, and options of [data] and [grpo].
ATTEMPTS = {
    "earlier-manager": ("manager", "earlier_questions = 8", ""),
    "earlier-both": ("both", "earlier_questions = 8", ""),
    "anchored-both": ("both", "", "beta = 0.1"),
    "in-turn": ("manager, then answer", "earlier_questions = 8", "beta = 0.1"),
}
DIALOGUES = {"seed": 21, "dialogues": 12, "eval_dialogues": 3}


def memory_r1(*arguments, **more):
    """Runs the program; what it prints as JSON."""
    done = subprocess.run(
        [BINARY, *map(str, arguments), "--json"], cwd=ROOT, capture_output=True, text=True, **more
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def config(name, method, agent, reward, seed, attempt=None):
    """The configuration of one cell."""
    _, of_data, of_grpo = ATTEMPTS[attempt] if attempt else (agent, "", "")
    phases = ", ".join(f'{{ agent = "{who}", max_steps = {steps} }}' for who, steps in PHASES[agent])
    return f"""output_dir = "runs/gains/{name}"
seed = {seed}
model_name_or_path = "runs/gains/tenth/model"
extractor_name_or_path = "pkg/models/nano"
learning_rate = 2e-4
lr_scheduler_type = "constant_with_warmup"
warmup_ratio = 0.05
num_generations = 8
generation_batch_size = 64
temperature = 1.0
threads = 1
micro_batch_tokens = 2048
logging_steps = 2
eval_steps = 20
save_steps = 40
save_total_limit = 1
phases = [{phases}]

[data]
facts = "runs/gains/training-facts.json"
seed = {DIALOGUES["seed"]}
dialogues = {DIALOGUES["dialogues"]}
eval_dialogues = {DIALOGUES["eval_dialogues"]}
eval_tasks = 80
manager_candidates = 5
candidates_per_speaker = 12
unanswerable = 0.5
{of_data}

[reward]
{reward} = 1.0

[grpo]
loss_type = "dapo"
scale_rewards = "group"
epsilon_high = 0.28
{of_grpo}

[ppo]
num_ppo_epochs = 1
num_mini_batches = 2
kl_coef = 0.02
lam = 0.95
critic_learning_rate = 3e-4
critic_warmup_steps = 4
"""


def supervised(name, seed):
    """The configuration of a supervised model."""
    kind = name.split("-")[0]
    text = (HERE / ("continued.toml" if kind == "continued" else "tenth.toml")).read_text()
    text = text.replace(f"runs/gains/{'tenth' if kind == 'all' else kind}\"", f"runs/gains/{name}\"")
    text = text.replace("seed = 91\n", f"seed = {seed}\n")
    return text.replace("dialogues = 120\n", "dialogues = 1200\n") if kind == "all" else text


def cells():
    """All cells of the table: their names, how they are made."""
    rows = [("tenth", ("sft", 83))]
    # A seed at a time, so that a study that is stopped has something of every row.
    for seed, method, agent, reward in itertools.product(SEEDS, METHODS, AGENTS, REWARDS):
        rows.append((f"{method}-{agent}-{reward}-{seed}", (method, agent, reward, seed)))
    for seed, attempt in itertools.product(SEEDS, ATTEMPTS):
        rows.append((f"attempt-{attempt}-{seed}", ("grpo", ATTEMPTS[attempt][0], "f1", seed, attempt)))
    rows += [(f"continued-{seed}", ("sft", 90 + seed)) for seed in SEEDS]
    return [*rows, ("all", ("sft", 83))]


def train(name, how):
    """Trains a cell's model, where it is not there; the seconds that it took."""
    folder = RUNS / name
    if (folder / "model" / "model.safetensors").exists():
        return None
    path = RUNS / f"{name}.toml"
    path.write_text(supervised(name, how[1]) if how[0] == "sft" else config(name, *how))
    start = time.monotonic()
    more = ["--resume"] if folder.exists() else []
    memory_r1("train", how[0], "--config", path, *more)
    return time.monotonic() - start


def evaluate(name, alone):
    """The scores of a cell's model on conversations whose facts are given. Where one agent learned alone, the other is as
    it was, as in the paper; else one network is both."""
    other = {"answer": ["--manager"], "manager": ["--answerer"]}.get(alone, [])
    row, other = {}, other and [*other, RUNS / "tenth" / "model"]
    data = {"test": (RUNS / "test.json", RUNS / "test-facts.json", [])}
    if LOCOMO.exists():
        data["locomo"] = (LOCOMO, RUNS / "locomo-facts.json", ["--split", "val"])
    for what, (path, facts, more) in data.items():
        out = RUNS / "evaluations" / f"{name}-{what}"
        resume = ["--resume"] if out.exists() else []
        report = memory_r1(
            "eval", "locomo", "--data", path, "--facts", facts, "--model", RUNS / name / "model", "--out", out,
            "--prompts", "compact", "--manager-candidates", 5, "--candidates-per-speaker", 12, "--concurrency", 8,
            *other, *more, *resume,
        )
        row[what] = {
            "f1": report["f1"],
            "exact_match": report["exact_match"],
            "declined": report["declined"],
            "by_category": {key: own["f1"] for key, own in report["by_category"].items()},
            "ops": report["ops"],
            "bank": report["bank"],
        }
    return row


def cell(row):
    name, how = row
    seconds = train(name, how)
    result = {"name": name, "seconds": seconds, **evaluate(name, how[1])}
    curve = RUNS / name / "metrics.jsonl"
    if how[0] != "sft":
        lines = [json.loads(line) for line in curve.read_text().splitlines()]
        result["reward"] = [[own["step"], own["reward"]] for own in lines if "reward" in own]
        flat = [own["frac_reward_zero_std"] for own in lines if "frac_reward_zero_std" in own]
        result["without_signal"] = sum(flat) / len(flat) if flat else None
    with RESULTS.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(f"{name}: F1 {result['test']['f1']:.3f}", flush=True)


def results():
    if not RESULTS.exists():
        return {}
    return {own["name"]: own for own in map(json.loads, RESULTS.read_text().splitlines())}


def start():
    RUNS.mkdir(parents=True, exist_ok=True)
    test = RUNS / "test.json"
    if not test.exists():
        memory_r1("synth", "--seed", 2, "--dialogues", 10, "--sessions", "10-12", "--turns", "15-18",
                  "--split", "test", "--out", test)
    training = RUNS / "training.json"
    if not training.exists():
        count = DIALOGUES["dialogues"] + DIALOGUES["eval_dialogues"]
        memory_r1("synth", "--seed", DIALOGUES["seed"], "--dialogues", count, "--out", training)
    for name, data, more in [("test", test, []), ("training", training, []), ("locomo", LOCOMO, ["--split", "val"])]:
        facts, out = RUNS / f"{name}-facts.json", RUNS / f"{name}-facts"
        if facts.exists() or not data.exists():
            continue
        memory_r1("eval", "locomo", "--data", data, "--model", BUNDLE, "--out", out, *more,
                  *(["--resume"] if out.exists() else []))
        facts.write_text((out / "facts.json").read_text())


def run(only, jobs):
    done = results()
    rows = [row for row in cells() if row[0] not in done and only in row[0]]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(cell, row) for row in rows]:
            future.result()


def spread(values):
    """Mean and range of several seeds."""
    values = [value for value in values if value is not None]
    if not values:
        return "…"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


def histogram(rows, what):
    counts = {}
    for own in rows:
        for name, count in own[what]["ops"].items():
            counts[name] = counts.get(name, 0) + count
    total = max(1, sum(counts.values()))
    return " / ".join(f"{100 * counts.get(name, 0) / total:.0f}" for name in ["ADD", "UPDATE", "DELETE", "NONE"])


def table():
    found = results()
    lines = [
        "| | seeds | test F1 | exact | ADD / UPDATE / DELETE / NONE, % | declined (category 5) | groups without signal "
        "| LoCoMo's second, F1 | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def line(title, rows):
        if not rows:
            return
        of = lambda what, name: spread([own[what][name] if what in own else None for own in rows])
        declined = spread([own["test"]["declined"] for own in rows])
        silent = spread([own.get("without_signal") for own in rows])
        minutes = [own["seconds"] / 60 for own in rows if own.get("seconds")]
        lines.append(
            f"| {title} | {len(rows)} | {of('test', 'f1')} | {of('test', 'exact_match')} | "
            f"{histogram(rows, 'test')} | {declined} | {silent} | {of('locomo', 'f1')} | "
            f"{f'{sum(minutes) / len(minutes):.1f}' if minutes else ''} |"
        )

    line("SFT on a tenth", [found[name] for name in ["tenth"] if name in found])
    line("… continued for the time of RL", [own for name, own in found.items() if name.startswith("continued-")])
    for method, agent, reward in itertools.product(METHODS, AGENTS, REWARDS):
        name = f"{method}-{agent}-{reward}-"
        rows = [own for key, own in found.items() if key.startswith(name)]
        line(f"{method.upper()}, {agent}, {reward.replace('_', ' ')}", rows)
    for attempt in ATTEMPTS:
        rows = [own for key, own in found.items() if key.startswith(f"attempt-{attempt}-")]
        agent, *options = ATTEMPTS[attempt]
        line(f"GRPO, {agent}, f1, {', '.join(filter(None, options)).replace('_', ' ')}", rows)
    line("SFT on all dialogues", [found[name] for name in ["all"] if name in found])
    page = ROOT / "docs" / "training.md"
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text("".join([before, BEGIN, "\n", "\n".join(lines), "\n", END, after]))
    plot(found)
    print("\n".join(lines))


def plot(found):
    """The reward in play, a panel for each agent: the mean of the seeds and of five reports, ten steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "gains"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(AGENTS), figsize=(12, 3.5), sharey=True)
    for axis, agent in zip(axes, AGENTS):
        for method, reward in itertools.product(METHODS, REWARDS):
            name = f"{method}-{agent}-{reward}-"
            curves = [dict(own["reward"]) for key, own in found.items() if key.startswith(name)]
            if curves:
                steps = sorted(set.intersection(*(set(curve) for curve in curves)))
                means = [sum(curve[step] for curve in curves) / len(curves) for step in steps]
                recent = [means[max(0, place - 4) : place + 1] for place in range(len(means))]
                means = [sum(own) / len(own) for own in recent]
                axis.plot(steps, means, label=f"{method.upper()}, {reward.replace('_', ' ')}")
        axis.set_title(agent)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("reward in play")
    axes[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "gains.svg", metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "run", "table"])
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    if given.what == "start":
        start()
    elif given.what == "run":
        run(given.only, given.jobs)
    else:
        table()


if __name__ == "__main__":
    main()
