"""One model for every engine of the page: random weights of nano's shape, or of another, in 32 bits.

    python3 -m venv target/peers/venv
    target/peers/venv/bin/pip install torch==2.15.0 transformers==5.24.0 onnx==1.23.2 onnx-ir==1.1.0 \
        onnxruntime==1.32.0 onnxruntime-genai==0.18.0 gguf==0.19.0
    target/peers/venv/bin/python bench/peers/web/export.py runs/web-nano
    target/peers/venv/bin/python bench/peers/web/export.py runs/web-512 12 512    # 12 layers of width 512

Writes beside each other: `hf/`; out of it `bundle/` for memory-r1 (target/native/release/memory-r1 must be built),
`onnx/` for transformers.js and `model.gguf` for wllama; and in `expected.json` the prompt and what transformers
itself makes of it, greedily, to which the page holds every engine. The ONNX graph is ONNX Runtime's own for generation
(fused attention over a key-value cache, logits of the last token only); its logits, of a prompt and of a token behind
it, are checked against transformers'.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

ROOT = Path(__file__).resolve().parents[3]
NANO = ROOT / "pkg/models/nano"
PROMPT, NEW = 128, 129
# Logits nearer than this the rounding of an engine may take for each other.
TIE = 1e-3
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def random_model(folder, layers, width):
    config = json.loads((NANO / "config.json").read_text()) | {"max_position_embeddings": 4096}
    if layers:
        heads = width // config["head_dim"]
        config |= {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 3 * width}
        config |= {"num_attention_heads": heads, "num_key_value_heads": heads // 2}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**config)).eval()
    for name, values in model.named_parameters():
        # Large enough that what is written is not one token again and again.
        if name.endswith("bias"):
            torch.nn.init.normal_(values, std=0.1)
        elif "proj" in name:
            torch.nn.init.normal_(values, std=values.shape[1] ** -0.5)
    folder.mkdir(parents=True)
    weights = {name: values for name, values in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for name in TOKENIZER:
        shutil.copy(NANO / name, folder)
    return model


def expected(model, tokenizer):
    """A prompt of the wanted length, and its greedy continuation as far as no two tokens are all but as good."""
    words = "Where does the sister of the one who moved to Lyon work, and since when? " * (PROMPT // 8)
    content = tokenizer.decode(tokenizer.encode(words)[: PROMPT - 2])
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    assert ids.shape[1] == PROMPT, ids.shape
    said = model.generate(ids, max_new_tokens=NEW, do_sample=False, output_logits=True, return_dict_in_generate=True)
    wrote = said.sequences[0, PROMPT:].tolist()
    assert len(wrote) == NEW, "the model ends of itself; draw other weights"
    best = torch.cat(said.logits).topk(2).values
    close = (best[:, 0] - best[:, 1] < TIE).tolist()
    wrote = wrote[: close.index(True) if True in close else NEW]
    return {
        "content": content,
        "prompt": prompt,
        "prompt_ids": ids[0].tolist(),
        "ids": wrote,
        "text": tokenizer.decode(wrote),
    }


def to_onnx(source, folder):
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", made]
        command += ["-p", "fp32", "-e", "webgpu", "-c", made, "--extra_options", "prune_lm_head=true"]
        quiet = os.environ | {"TQDM_DISABLE": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet)
        graph = onnx.load(Path(made) / "model.onnx")
    width = json.loads((source / "config.json").read_text())["head_dim"]
    # transformers.js sizes the empty cache by the graph.
    for value in (*graph.graph.input, *graph.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == "kv_cache_dim":
                size.dim_value = width
    (folder / "onnx").mkdir(parents=True)
    onnx.save(graph, folder / "onnx/model.onnx")
    for name in ("config.json", *TOKENIZER):
        shutil.copy(source / name, folder)


def check_onnx(path, model, ids):
    """The logits behind a prompt, and behind one token more by the cache."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    past = {
        value.name: torch.zeros(1, value.shape[1], 0, value.shape[3]).numpy()
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    with torch.no_grad():
        right = model(torch.tensor([ids])).logits[0]
    worst = 0.0
    for start, end in ((0, PROMPT), (PROMPT, PROMPT + 1)):
        feeds = {"input_ids": torch.tensor([ids[start:end]]).numpy()}
        feeds |= {"attention_mask": torch.ones(1, end).long().numpy()}
        outputs = dict(zip(names, session.run(names, feeds | past)))
        past = {name.replace("present", "past_key_values"): outputs[name] for name in names if name != "logits"}
        worst = max(worst, (torch.tensor(outputs["logits"][0, -1]) - right[end - 1]).abs().max().item())
    assert worst < 1e-3, worst
    return worst


def to_gguf(model, source, path):
    config, tokenizer = model.config, json.loads((source / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(vocabulary))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, values in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    out = Path(sys.argv[1])
    layers, width = map(int, sys.argv[2:4]) if len(sys.argv) > 3 else (None, None)
    shutil.rmtree(out, ignore_errors=True)
    model = random_model(out / "hf", layers, width)
    text = expected(model, AutoTokenizer.from_pretrained(out / "hf"))
    (out / "expected.json").write_text(json.dumps(text))
    to_onnx(out / "hf", out / "onnx")
    difference = check_onnx(out / "onnx/onnx/model.onnx", model, text["prompt_ids"] + text["ids"])
    to_gguf(model, out / "hf", out / "model.gguf")
    pack = [ROOT / "target/native/release/memory-r1", "pack", "--model", out / "hf", "--quantize", "f32"]
    subprocess.run([*pack, "--licence", "none", "--out", out / "bundle"], check=True)
    parameters, sure = model.num_parameters(), len(text["ids"])
    print(f"{parameters:,} parameters; {sure} tokens to hold to; ONNX Runtime's logits differ by {difference:.0e}")


if __name__ == "__main__":
    main()
