// A whole bundle of a model without any training: real files, real hashes, wild decisions.
import { createHash } from "node:crypto";

const SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];
const CONFIG = {
  architectures: ["Qwen2ForCausalLM"],
  model_type: "qwen2",
  vocab_size: 264,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
  max_position_embeddings: 1024,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: true,
  hidden_act: "silu",
  initializer_range: 0.02,
  eos_token_id: 1,
  pad_token_id: 0,
  bos_token_id: null,
};

/** The bundle's files by name. */
export function untrainedBundle(): Map<string, Uint8Array<ArrayBuffer>> {
  const text = (value: unknown) => new Uint8Array(Buffer.from(JSON.stringify(value)));
  const files = new Map([
    ["config.json", text(CONFIG)],
    ["tokenizer.json", text(tokenizer())],
    [
      "tokenizer_config.json",
      text({
        eos_token: "<|end|>",
        chat_template: "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>",
      }),
    ],
    ["model.safetensors", weights()],
  ]);
  const entries = [...files].map(([name, bytes]) => [
    name,
    { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") },
  ]);
  const manifest = {
    format_version: 1,
    name: "untrained",
    architecture: "Qwen2ForCausalLM",
    quantization: "f32",
    // A licence is listed, and nobody has to download it.
    files: { ...Object.fromEntries(entries), "LICENSE-MIT": { size: 1, sha256: "0".repeat(64) } },
    prompt_family: "compact",
    context_length: 1024,
    candidates_per_speaker: 12,
    manager_candidates: 5,
    licence: "MIT",
    training: { run: "", commands: [] },
    self_check: null,
  };
  return new Map([["manifest.json", text(manifest)], ...files]);
}

/** The same as chosen files. */
export function asFiles(bundle: Map<string, Uint8Array<ArrayBuffer>>): File[] {
  return [...bundle].map(([name, bytes]) => new File([bytes], name));
}

/** All bytes as GPT-2 writes them, and nano's special tokens. */
function tokenizer() {
  const isShown = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let moved = 0x100;
  const bytes = Array.from({ length: 256 }, (_, byte) =>
    String.fromCodePoint(isShown(byte) ? byte : moved++),
  );
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    added_tokens: SPECIAL.map((content, id) => ({
      id,
      content,
      special: true,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      vocab: Object.fromEntries([...SPECIAL, ...bytes].map((token, id) => [token, id])),
      merges: [],
    },
  };
}

/** Weights that are far from uniform, from a small generator of their own. */
function weights(): Uint8Array<ArrayBuffer> {
  const { vocab_size: vocab, hidden_size: hidden, intermediate_size: inner, head_dim: head } = CONFIG;
  const layer = "model.layers.0.";
  const shapes: [string, number[]][] = [
    ["model.embed_tokens.weight", [vocab, hidden]],
    [`${layer}input_layernorm.weight`, [hidden]],
    [`${layer}self_attn.q_proj.weight`, [2 * head, hidden]],
    [`${layer}self_attn.q_proj.bias`, [2 * head]],
    [`${layer}self_attn.k_proj.weight`, [head, hidden]],
    [`${layer}self_attn.k_proj.bias`, [head]],
    [`${layer}self_attn.v_proj.weight`, [head, hidden]],
    [`${layer}self_attn.v_proj.bias`, [head]],
    [`${layer}self_attn.o_proj.weight`, [hidden, 2 * head]],
    [`${layer}post_attention_layernorm.weight`, [hidden]],
    [`${layer}mlp.gate_proj.weight`, [inner, hidden]],
    [`${layer}mlp.up_proj.weight`, [inner, hidden]],
    [`${layer}mlp.down_proj.weight`, [hidden, inner]],
    ["model.norm.weight", [hidden]],
  ];
  let state = 1;
  const draw = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 2;
  };
  let end = 0;
  const header: Record<string, unknown> = {};
  const values: number[] = [];
  for (const [name, shape] of shapes) {
    const size = shape.reduce((product, side) => product * side, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + 4 * size] };
    end += 4 * size;
    for (let place = 0; place < size; place++) values.push(name.endsWith("norm.weight") ? 1 : draw());
  }
  let json = JSON.stringify(header);
  json = json.padEnd(Math.ceil(json.length / 8) * 8);
  const bytes = new Uint8Array(8 + json.length + end);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(json.length), true);
  bytes.set(Buffer.from(json), 8);
  for (const [place, value] of values.entries()) view.setFloat32(8 + json.length + 4 * place, value, true);
  return bytes;
}
