"""Makes the tiny checkpoints of crate/tests/fixtures/decoders and their reference logits.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tests/reference/decoders.py crate/tests/fixtures/decoders

Beside the weights each has a vocabulary of bytes and a few merges, split into words as the real
family's, with its special tokens and a chat template with the constructs of the real one; the
reference has the ids of conversations in English, Chinese, emoji and code, and what follows.

Random weights, a few hundred tokens, grouped queries (4 heads on 2), biases that are not zero; of
every family one or two, with a tied head and with one of its own, in f32 and in bf16 on disk
(computed in f32), in one file and in several, with both spellings of the rotary settings. BERT is a
prefix language model: its prompts are read in two blocks, the first up to the last block token.
Written with torch 2.15.0 and transformers 5.23.0; the constants are committed, so the tests
need neither.
"""

import json
import pathlib
import sys

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

out = pathlib.Path(sys.argv[1])

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
# The 200 tokens of the long prompt reach beyond the first context, 64: frequencies of a head of 8
# stay, are stretched in part and in full.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def old_spelling(folder):
    """Rotary settings as transformers 4 wrote them."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    path.write_text(json.dumps(config, indent=2) + "\n")


# The id that `make_tokenizer` gives to <|im_start|>.
BLOCK = 298


def logits_of(model, ids, prompt):
    """Of every token of `ids`, the first `prompt` of which are the prompt."""
    tokens = torch.tensor([ids])
    if not isinstance(model, BertLMHeadModel):
        return model(tokens).logits[0]
    first = max((place + 1 for place, own in enumerate(ids[:prompt]) if own == BLOCK), default=0)
    # The end of what a token sees: its block's, or its own.
    end = lambda place: first if place < first else prompt if place < prompt else place + 1
    hidden = torch.finfo(torch.float32).min
    mask = torch.tensor(
        [[0.0 if key < end(query) else hidden for key in range(len(ids))] for query in range(len(ids))]
    )
    return model(tokens, attention_mask=mask[None, None], use_cache=False).logits[0]


WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = [
    "the assistant and the user said that they are in Lyon; there is a dog named Scout",
    "for (let i = 0; i < memories.length; i += 1) { return memories[i]; }",
    "def answer(question):\n    return None\n",
    "\u6211\u4f4f\u5728\u91cc\u6602\uff0c\u6709\u4e00\u53ea\u72d7",
]
QWEN2_CHAT = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
QWEN3_CHAT = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
LLAMA_CHAT = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
CHATS = [
    (None, "I moved to Lyon last year, with 2 dogs."),
    ("You remember.", "\u6211\u4f4f\u5728\u91cc\u6602\uff0c\u4e0d\u662f\u5df4\u9ece\u3002"),
    ("You remember.", "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f 12345 na\u00efve"),
    (None, "if (a[0] < 10) {\n\treturn `x`;\n}\n\n# done <|im_end|> <|eot_id|>?"),
]


def make_tokenizer(name, folder):
    """A vocabulary of 300 and a chat template, as the family has them."""
    llama = name.startswith("llama")
    special = (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
        if llama
        else ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )
    tokenizer = Tokenizer(models.BPE())
    words = WORDS.replace("DIGITS", r"\p{N}{1,3}" if llama else r"\p{N}")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300 - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(special)
    if llama:
        begin = tokenizer.token_to_id(special[0])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{special[0]} $A", special_tokens=[(special[0], begin)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0] if llama else None,
        eos_token=special[2],
        chat_template=LLAMA_CHAT if llama else QWEN3_CHAT if name == "qwen3" else QWEN2_CHAT,
    )
    fast.save_pretrained(folder)
    assert len(fast) == 300, len(fast)
    return fast


def chats(tokenizer, model, end):
    """Conversations, their ids, and up to 24 greedy ids behind them: an end token ends."""
    made = []
    for system, prompt in CHATS:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        # As the crate asks: no thinking aloud before an answer, and no date.
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
            date_string="26 Jul 2024",
        )
        head, tail = text.split(prompt)
        encode = lambda part, special: tokenizer(
            part, add_special_tokens=False, split_special_tokens=not special
        ).input_ids
        whole = encode(text, True)
        # Names of special tokens within a message are text here, and tokens in transformers.
        if "<|" not in prompt:
            ids = whole
        else:
            ids = encode(head, True) + encode(prompt, False) + encode(tail, True)
        follow = list(ids)
        with torch.no_grad():
            for _ in range(24):
                follow.append(int(logits_of(model, follow, len(ids))[-1].argmax()))
                if follow[-1] in end:
                    break
        follow = follow[len(ids) :]
        made.append({"system": system, "prompt": prompt, "prompt_ids": ids, "ids": follow})
    return made


# name, seed, model, configuration, type on disk, size of a file, change afterwards
VARIANTS = [
    (
        "qwen2_tied",
        11,
        Qwen2ForCausalLM,
        Qwen2Config(**SIZES, rope_theta=10000.0, tie_word_embeddings=True),
        torch.float32,
        "1GB",
        None,
    ),
    (
        "qwen2_untied",
        12,
        Qwen2ForCausalLM,
        Qwen2Config(**SIZES, rope_theta=1000000.0, tie_word_embeddings=False),
        torch.bfloat16,
        "1GB",
        None,
    ),
    (
        "qwen3",
        13,
        Qwen3ForCausalLM,
        Qwen3Config(**SIZES, head_dim=16, rope_theta=1000000.0, tie_word_embeddings=False),
        torch.bfloat16,
        "30KB",
        None,
    ),
    (
        "llama31",
        14,
        LlamaForCausalLM,
        LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=False),
        torch.bfloat16,
        "30KB",
        old_spelling,
    ),
    (
        "llama32",
        15,
        LlamaForCausalLM,
        LlamaConfig(
            **{**SIZES, "eos_token_id": [1, 2]}, rope_parameters=LLAMA3, tie_word_embeddings=True
        ),
        torch.float32,
        "1GB",
        None,
    ),
    (
        "bert",
        16,
        BertLMHeadModel,
        BertConfig(
            **{key: SIZES[key] for key in SIZES if key not in ("num_key_value_heads", "rms_norm_eps")},
            type_vocab_size=1,
            layer_norm_eps=1e-12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            block_token_id=BLOCK,
            attn_implementation="eager",
        ),
        torch.float32,
        "1GB",
        None,
    ),
]

for name, seed, family, config, dtype, shard, change in VARIANTS:
    if len(sys.argv) > 2 and name not in sys.argv[2:]:
        continue
    torch.manual_seed(seed)
    model = family(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.lower().endswith("norm.weight"):
                parameter.copy_(1.0 + 0.2 * torch.randn_like(parameter))
            elif key.endswith(".bias"):
                parameter.copy_((0.1 if name == "bert" else 0.3) * torch.randn_like(parameter))
            elif name == "bert":
                # Behind its many norms and biases, louder, lest it say the same everywhere.
                parameter.copy_(0.7 * torch.randn_like(parameter))
            else:
                parameter.copy_((0.05 if "embed" in key else 0.3) * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(out / name, max_shard_size=shard)
    if change:
        change(out / name)
    model = family.from_pretrained(
        out / name, dtype=torch.float32, attn_implementation="eager" if name == "bert" else None
    ).eval()

    prompt = [(i * 37 + 5) % 300 for i in range(20)]
    long = [(i * 53 + 7) % 300 for i in range(200)]
    # BERT's first logits are those of the last token of the first block, which sees no second.
    first = 0
    if name == "bert":
        first = 11
        prompt[4] = prompt[first] = long[70] = BLOCK
        assert BLOCK not in prompt[first + 1 :] and BLOCK not in long[71:128]
    with torch.no_grad():
        logits = logits_of(model, prompt, len(prompt))
        ids = list(prompt)
        greedy = []
        for _ in range(24):
            greedy.append(int(logits_of(model, ids, len(prompt))[-1].argmax()))
            ids.append(greedy[-1])
        # The test reads the long prompt in pieces; the first of them, 128, is BERT's prompt.
        long_logits = logits_of(model, long, 128)[-1]
    tokenizer = make_tokenizer(name, out / name)
    assert name != "bert" or tokenizer.convert_tokens_to_ids("<|im_start|>") == BLOCK
    named = config.eos_token_id
    end = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    reference = {
        "prompt": prompt,
        "first_logits": [round(x, 6) for x in logits[first].tolist()],
        "last_logits": [round(x, 6) for x in logits[-1].tolist()],
        "greedy": greedy,
        "long_prompt": long,
        "long_last_logits": [round(x, 6) for x in long_logits.tolist()],
        "chats": chats(tokenizer, model, end),
    }
    (out / name / "reference.json").write_text(json.dumps(reference) + "\n")
    print(name, "greedy", greedy)
    generation_config = out / name / "generation_config.json"
    generation_config.unlink(missing_ok=True)
