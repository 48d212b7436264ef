"""memory-r1 beside candle on this machine's CPU: the same model, sizes and formats, runs taken in turn.

    target/native/release/memory-r1 bench random --shape qwen2.5-0.5b --out runs/qwen
    cargo build --release --manifest-path bench/peers/candle/Cargo.toml --target-dir target/peers
    python3 bench/peers/native.py runs/qwen [rounds]

Prints a line for each format and measure: the medians of both, and the ratios' median, least and greatest.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "target/native/release/memory-r1"
CANDLE = ROOT / "target/peers/release/candle-peer"
PROMPT, NEW = 128, 24
# Ours, for all matrices, and candle's nearest: ggml's blocks are of 32 values, ours of 64.
FORMATS = {"f32": "f32", "f16": "f16", "q8": "q8_0", "q4": "q4_0"}
MEASURES = ("prefill_tokens_per_second", "decode_tokens_per_second")


def result(*command):
    run = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout)


def own(folder):
    read = result(OWN, "bench", "prefill", "--model", folder, "--prompt-tokens", PROMPT, "--runs", 3, "--json")
    wrote = result(OWN, "bench", "decode", "--model", folder, "--prompt-tokens", PROMPT, "--new-tokens", NEW, "--json")
    return {MEASURES[0]: read["tokens_per_second"], MEASURES[1]: wrote["tokens_per_second"]}


def main():
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as packed:
        for ours, theirs in FORMATS.items():
            model = Path(packed) / ours
            result(OWN, "pack", "--model", folder, "--quantize", ours, "--embedding", ours, "--licence", "none", "--out", model, "--json")
            pairs = []
            for _ in range(rounds):
                pairs.append((own(model), result(CANDLE, folder, theirs, PROMPT, NEW, 3)))
            for measure in MEASURES:
                a, b = ([pair[side][measure] for pair in pairs] for side in (0, 1))
                ratios = [x / y for x, y in zip(a, b)]
                print(
                    f"{ours:4} {measure:26} memory-r1 {statistics.median(a):8.1f}  candle {statistics.median(b):8.1f}"
                    f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
