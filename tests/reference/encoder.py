"""Makes the tiny sentence encoders of crate/tests/fixtures/encoders and the reference embeddings,
those of all-MiniLM-L6-v2 among them.

    ./build.sh encoder
    python3 -m venv venv && venv/bin/pip install sentence-transformers==6.2.0
    venv/bin/python tests/reference/encoder.py crate/tests/fixtures/encoders runs/all-MiniLM-L6-v2

Random weights, one encoder that takes the mean of its tokens and one that takes the first. The
embeddings are f32, little-endian, one sentence behind the other.
"""

import json
import pathlib
import sys

import numpy
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

out, minilm = pathlib.Path(sys.argv[1]), sys.argv[2]

SENTENCES = [
    "Lives in Lyon",
    "Has a dog named Scout",
    "Moved from Paris to Rome last year",
    "I adopted a second dog, Scout!",
    "Works as a nurse",
    "She is a software engineer at a bank",
    "Is allergic to peanuts",
    "can't eat nuts, they make me ill",
    "Plays the violin in an orchestra",
    "What is my dog's name?",
    "Where do I live these days?",
    "",
    "?",
    "OK",
    "The quick brown fox jumps over the lazy dog",
    "na\u00efve caf\u00e9 \u00e9l\u00e8ve Z\u00fcrich",
    "\u6211\u4f4f\u5728\u91cc\u6602",
    "\u79c1\u306e\u72ac\u306e\u540d\u524d\u306f\u30b9\u30ab\u30a6\u30c8\u3067\u3059",
    "\u0431\u0430\u0431\u0443\u0448\u043a\u0430 \u0436\u0438\u0432\u0451\u0442 \u0432 \u041a\u0438\u0435\u0432\u0435",
    "\U0001f415 walks at 7:30 a.m. \u2764\ufe0f",
    "let x = memories[0].text; // first",
    "SELECT * FROM memories WHERE user_id = 'caroline';",
    "1234567890 and 3.14159",
    "A price of $19.99, or 50 % off",
    "Tabs\tand\nlines\r\nand   spaces",
    "supercalifragilisticexpialidocious",
    "it's, don't, they've, I'd",
    "Mr. Smith went to Washington, D.C., in 1939.",
    "Her birthday is on 14 March 1990",
    "Favourite colour is green",
    "Favorite color is green",
    "No longer drinks coffee",
    "Drinks coffee every morning",
    "Training for the Berlin marathon",
    "Ran ten kilometres on Sunday",
    "His sister Maria lives in Madrid",
    "Maria's brother moved to Madrid",
    "The bank of the river was muddy",
    "The bank raised its interest rates",
    "To be, or not to be, that is the question",
    "All happy families are alike; each unhappy family is unhappy in its own way.",
    "Speaks French, German and a little Dutch",
    "Volunteers at an animal shelter on Saturdays",
    "Wants to learn how to sail",
    "Bought a red bicycle in May",
    "Sold the old car to a neighbour",
    "Reads science fiction, mostly Le Guin",
    "Is vegetarian since 2019",
    "Goes to bed at half past ten",
    " ".join(["A very long text about a dog that walks and walks."] * 40),
]
assert len(SENTENCES) == 50


def write(folder, encoder):
    vectors = encoder.encode(SENTENCES, batch_size=8, normalize_embeddings=True)
    (folder / "embeddings.f32").write_bytes(numpy.asarray(vectors, dtype="<f4").tobytes())
    print(folder.name, vectors.shape)


def tiny(name, seed, pooling):
    torch.manual_seed(seed)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ids
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    model = BertModel(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("LayerNorm.weight"):
                parameter.copy_(1.0 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=48)
    modules = [transformer, Pooling(32, pooling_mode=pooling), Normalize()]
    encoder = SentenceTransformer(modules=modules, device="cpu")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    config = {own: mode == pooling for mode, own in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "sentence_bert_config.json").write_text('{\n  "max_seq_length": 48\n}\n')
    write(folder, encoder)
    for unused in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / unused).unlink(missing_ok=True)


tiny("mean", 21, "mean")
tiny("first", 22, "cls")
(out / "minilm").mkdir(parents=True, exist_ok=True)
write(out / "minilm", SentenceTransformer(minilm, device="cpu"))
(out / "sentences.json").write_text(json.dumps(SENTENCES, indent=1) + "\n")
