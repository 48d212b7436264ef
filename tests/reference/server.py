"""The same evaluation with nano in this program and behind a server that others wrote: transformers' own.

    python3 -m venv venv && venv/bin/pip install torch 'transformers[serving]==5.24.0' safetensors
    venv/bin/python tests/reference/server.py --data locomo10.json --split val --work runs/served

Unpacks nano into a plain Qwen2 folder in 32 bits, serves it with `transformers serve`, and runs `memory-r1 eval locomo`
twice, greedy and without a grammar: on the local engine, and through the server. Every request that was sent is rendered
by transformers and by this program (the prompts' tokens must be the same), and the two runs' answers are compared
question by question. At least 98 % must be identical.

Transformers 5 gives whatever calls itself qwen2 the tokenizer of Qwen2, whatever tokenizer.json says, and that one parts
numbers otherwise than nano's. So the server is given the same weights as a Llama with biases (the one that Qwen2 lacks
is 0), which computes the same, and whose tokenizer.json is read.

nano never learned to write what its grammar forces, so without it every completion is text of no form, which is taken
whole as the answer: of no use, but a long greedy text that both engines must agree on, token by token. The system is one
that asks the answer agent every question.
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

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--split", default="val")
parser.add_argument("--system", default="oracle", help="oracle or rag")
parser.add_argument("--limit", type=int)
parser.add_argument("--work", type=pathlib.Path, required=True)
parser.add_argument("--program", default=os.environ.get("MEMORY_R1_BIN", "target/native/release/memory-r1"))
parser.add_argument("--bundle", default="pkg/models/nano")
parser.add_argument("--port", type=int, default=8137)
arguments = parser.parse_args()
work = arguments.work.resolve()
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def run(*command):
    return subprocess.run([arguments.program, *map(str, command)], check=True, capture_output=True, text=True).stdout


def unpack():
    run("pack", "--model", arguments.bundle, "--quantize", "f32", "--out", work / "packed")
    (work / "nano").mkdir(exist_ok=True)
    for file in FILES:
        shutil.copy(work / "packed" / file, work / "nano" / file)


def as_llama():
    folder = work / "llama"
    folder.mkdir(exist_ok=True)
    config = json.loads((work / "nano" / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": True}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(work / "nano" / "model.safetensors")
    for layer in range(config["num_hidden_layers"]):
        weights[f"model.layers.{layer}.self_attn.o_proj.bias"] = torch.zeros(config["hidden_size"])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for file in FILES[2:]:
        shutil.copy(work / "nano" / file, folder / file)


def evaluate(name, *model):
    out = work / name
    shutil.rmtree(out, ignore_errors=True)
    limit = ["--limit", arguments.limit] if arguments.limit else []
    started = time.time()
    run("eval", "locomo", "--data", arguments.data, "--split", arguments.split, "--system", arguments.system, *limit,
        "--out", out, "--prompts", "compact", "--candidates-per-speaker", 12, *model, "--json")
    report = json.loads((out / "report.json").read_text())
    print(f"{name}: {report['malformed']} completions of no form, {time.time() - started:.0f} s", flush=True)
    return [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]


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
    tokenizer = AutoTokenizer.from_pretrained(work / "llama")
    entries = [json.loads(path.read_text()) for path in sorted(cache.glob("*/*.json"))]
    for entry in entries:
        messages = entry["request"]["messages"]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        said = {message["role"]: message["content"] for message in messages}
        own = run("generate", "--model", work / "nano", "--system", said["system"], "--prompt", said["user"],
                  "--max-new-tokens", 1, "--json")
        assert json.loads(own)["prompt_ids"] == ids, messages
        if usage := json.loads(entry["reply"]).get("usage"):
            assert usage["prompt_tokens"] == len(ids), messages
    print(f"the prompts' tokens are the same in all {len(entries)} requests")


unpack()
as_llama()
local = evaluate("local", "--model", work / "nano", "--unconstrained")
server = subprocess.Popen(
    [pathlib.Path(sys.executable).parent / "transformers", "serve", "--port", str(arguments.port), "--device", "cpu",
     "--dtype", "float32"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
try:
    wait_for_server(server)
    address = f"http://localhost:{arguments.port}/v1#{work}/llama"
    cache = work / "replies"
    shutil.rmtree(cache, ignore_errors=True)
    remote = evaluate("remote", "--model", address, "--context-length", 1024, "--cache", cache)
finally:
    server.terminate()
compare_prompts(cache)
same = sum(a["prediction"] == b["prediction"] for a, b in zip(local, remote, strict=True))
for a, b in zip(local, remote):
    if a["prediction"] != b["prediction"]:
        print(f"{a['sample_id']} {a['index']} {a['question']!r}: {a['prediction']!r}, the server's {b['prediction']!r}")
length = sum(len(a["prediction"]) for a in local) / len(local)
print(f"{same} of {len(local)} answers are identical ({100 * same / len(local):.1f} %), {length:.0f} characters each")
assert same >= 0.98 * len(local)
