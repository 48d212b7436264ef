"""The table of docs/scaling.md: what training the paper's models needs of a GPU's memory, by arithmetic.

    python3 bench/scaling.py
"""

GIB = 2**30
# hidden, layers, heads, key-value heads, head width, feed-forward width, vocabulary, tied head, biases of q, k and v
SHAPES = {
    "Qwen2.5-3B": (2048, 36, 16, 2, 128, 11008, 151936, True, True),
    "Qwen2.5-7B": (3584, 28, 28, 4, 128, 18944, 152064, False, True),
    "Llama-3.1-8B": (4096, 32, 32, 8, 128, 14336, 128256, False, False),
    "Qwen2.5-14B": (5120, 48, 40, 8, 128, 13824, 152064, False, True),
}
RANK = 16
# A rollout: 60 memories in the prompt, an answer behind it; rows that are played at once; tokens of a microbatch.
TOKENS, ROWS, MICRO = 4096, 64, 8192


def main():
    print("| | parameters | weights, bf16 | full: master, AdamW, gradients | LoRA, rank 16 | "
          f"key-value cache, {ROWS} × {TOKENS:,} | activations, {MICRO:,} tokens |")
    print("|---|---|---|---|---|---|---|")
    for name, (hidden, layers, heads, kv, head, inner, vocabulary, tied, biases) in SHAPES.items():
        q, k = heads * head, kv * head
        layer = 2 * hidden * q + 2 * hidden * k + 3 * hidden * inner + 2 * hidden + (q + 2 * k if biases else 0)
        count = vocabulary * hidden * (1 if tied else 2) + layers * layer + hidden
        adapter = RANK * layers * (2 * (hidden + q) + 2 * (hidden + k) + 3 * (hidden + inner))
        cache = 2 * 2 * layers * k * TOKENS * ROWS
        # What each layer reads, all of one layer, and f32 logits of a chunk of 1,024 rows.
        one = 2 * (3 * hidden + 2 * q + 2 * k + 3 * inner)
        activations = MICRO * (2 * layers * hidden + one) + 4 * 1024 * vocabulary
        gib = lambda size: f"{size / GIB:.1f}"
        print(f"| {name} | {count / 1e9:.2f} billion | {gib(2 * count)} | {gib(14 * count)} | "
              f"{adapter / 1e6:.0f} million, {gib(16 * adapter)} | {gib(cache)} | {gib(activations)} |")


if __name__ == "__main__":
    main()
