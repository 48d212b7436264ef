"""The same evaluation with nano in this program and behind a server that others wrote: transformers' own.

    python3 -m venv /tmp/ref && /tmp/ref/bin/pip install torch 'transformers[serving]'
    /tmp/ref/bin/python tests/reference/server.py --data locomo10.json --split val --work runs/served

Unpacks nano's two networks into plain Qwen2 folders in 32 bits, serves them with `transformers serve`, and runs
`memory-r1 eval locomo` twice, greedy and without a grammar: on the local engine, and through the server. Then
every request that was sent is rendered by transformers and by this program (the prompts' tokens must be the same),
and the two runs' answers are compared question by question. At least 98 % must be identical.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

from transformers import AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--split", default="val")
parser.add_argument("--limit", type=int)
parser.add_argument("--turns", type=int)
parser.add_argument("--work", type=pathlib.Path, required=True)
parser.add_argument("--program", default=os.environ.get("MEMORY_R1_BIN", "target/native/release/memory-r1"))
parser.add_argument("--bundle", default="pkg/models/nano")
parser.add_argument("--port", type=int, default=8137)
parser.add_argument("--prompts", type=int, default=40, help="how many prompts to render by this program, too")
arguments = parser.parse_args()
work = arguments.work.resolve()
WEIGHTS = {"nano": ("config.json", "model.safetensors"),
           "extractor": ("extractor_config.json", "extractor.safetensors")}


def run(*command):
    return subprocess.run([arguments.program, *map(str, command)], check=True, capture_output=True, text=True).stdout


def unpack():
    packed = work / "packed"
    run("pack", "--model", arguments.bundle, "--quantize", "f32", "--out", packed)
    for name, (config, weights) in WEIGHTS.items():
        (work / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(packed / config, work / name / "config.json")
        shutil.copy(packed / weights, work / name / "model.safetensors")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(packed / file, work / name / file)


def evaluate(name, *models):
    out = work / name
    shutil.rmtree(out, ignore_errors=True)
    asked = ["--prompts", "compact", "--candidates-per-speaker", 12, "--manager-candidates", 5,
             "--extractor-candidates", 5, "--fact-threshold", 0]
    part = [flag for key in ("limit", "turns") if (value := getattr(arguments, key)) for flag in (f"--{key}", value)]
    data = ["--data", arguments.data, "--split", arguments.split, *part]
    started = time.time()
    run("eval", "locomo", *data, "--out", out, *models, *asked, "--json")
    lines = (out / "questions.jsonl").read_text().splitlines()
    report = json.loads((out / "report.json").read_text())
    print(f"{name}: {report['facts']} facts, {report['ops']}, {report['malformed']} malformed, F1 {report['f1']:.4f}, "
          f"{time.time() - started:.0f} s", flush=True)
    return [json.loads(line) for line in lines]


def wait_for_server(process):
    for _ in range(300):
        if process.poll() is not None:
            sys.exit("transformers serve ended")
        try:
            return urllib.request.urlopen(f"http://localhost:{arguments.port}/health", timeout=2).read()
        except OSError:
            time.sleep(1)
    sys.exit("transformers serve does not answer")


def compare_prompts(cache):
    tokenizer = AutoTokenizer.from_pretrained(work / "nano")
    entries = [json.loads(path.read_text()) for path in sorted(cache.glob("*/*.json"))]
    counts = same = 0
    for place, entry in enumerate(entries):
        messages = entry["request"]["messages"]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        usage = json.loads(entry["reply"])["usage"]
        if usage:
            assert usage["prompt_tokens"] == len(ids), messages
            counts += 1
        if place % max(1, len(entries) // arguments.prompts) == 0:
            said = {message["role"]: message["content"] for message in messages}
            own = run("generate", "--model", work / "nano", "--system", said["system"], "--prompt", said["user"],
                      "--max-tokens", 1, "--json")
            assert json.loads(own)["prompt_ids"] == ids, messages
            same += 1
    print(f"{len(entries)} requests; the prompts' tokens are the same in {same} of {same} that this program rendered, "
          f"and as many as the server counted in {counts}")


unpack()
local = evaluate("local", "--model", work / "nano", "--extractor", work / "extractor", "--unconstrained")
server = subprocess.Popen(
    [pathlib.Path(sys.executable).parent / "transformers", "serve", "--port", str(arguments.port), "--device", "cpu",
     "--dtype", "float32"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    env={**os.environ, "HF_HUB_OFFLINE": "1"})
try:
    wait_for_server(server)
    base = f"http://localhost:{arguments.port}/v1#{work}"
    cache = work / "replies"
    shutil.rmtree(cache, ignore_errors=True)
    remote = evaluate("remote", "--model", f"{base}/nano", "--extractor", f"{base}/extractor", "--context-length", 1024,
                      "--cache", cache)
finally:
    server.terminate()
compare_prompts(cache)
same = sum(a["prediction"] == b["prediction"] for a, b in zip(local, remote, strict=True))
for a, b in zip(local, remote):
    if a["prediction"] != b["prediction"]:
        print(f"{a['sample_id']} {a['index']} {a['question']!r}: {a['prediction']!r}, the server's {b['prediction']!r}")
print(f"{same} of {len(local)} answers are identical ({100 * same / len(local):.1f} %)")
assert same >= 0.98 * len(local)
