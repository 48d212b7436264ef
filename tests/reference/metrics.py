"""Prints the constants of crate/tests/fixtures/metrics.json.

    pip install nltk==3.10.4
    python tests/reference/metrics.py > crate/tests/fixtures/metrics.json

F1, BLEU-1: the harness of Mem0 and Memory-R1 (set-based F1; NLTK's sentence_bleu with
SmoothingFunction.method1). Exact match: the official SQuAD script's normalisation.
NLTK's own `word_tokenize(text, preserve_line=True)` is `NLTKWordTokenizer().tokenize(text)`;
without `preserve_line` it would first part sentences with a model that NLTK does not bundle.
"""

import json
import random
import re
import string
import sys

from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

TOKENIZER = NLTKWordTokenizer()


def tokens(text):
    return TOKENIZER.tokenize(text)


def f1(prediction, answer):
    def words(text):
        text = text.lower()
        for sign in ".,!?":
            text = text.replace(sign, " ")
        return set(text.split())

    predicted, gold = words(prediction), words(answer)
    common = predicted & gold
    if not predicted or not gold or not common:
        return 0.0
    precision, recall = len(common) / len(predicted), len(common) / len(gold)
    return 2 * precision * recall / (precision + recall)


def bleu1(prediction, answer):
    return float(
        sentence_bleu(
            [tokens(answer.lower())],
            tokens(prediction.lower()),
            weights=(1, 0, 0, 0),
            smoothing_function=SmoothingFunction().method1,
        )
    )


def normalise(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


PAIRS = [
    ("", ""), ("", "x"), ("x", ""), ("   ", "x"), (".", "."), ("?!", "!?"), ("...", "…"),
    ("7 May 2023", "7 May 2023"), ("7 May, 2023", "7 May 2023."), ("May 7, 2023", "7 May 2023"),
    ("the dog", "a dog"), ("Dog dog DOG", "dog"), ("dog", "dog dog dog"),
    ("Scout and Oscar", "Oscar and Scout"), ("She adopted a dog named Scout.", "a dog named Scout"),
    ("can't go", "cannot go"), ("I can't", "I ca n't"), ("won't", "will not"), ("don't, won't, shan't", "do n't"),
    ("I'm sure they'll say he's gone", "they will say"), ("it's Ann's dog's ball", "Ann's ball"),
    ("gonna wanna gotta", "gon na wan na got ta"), ("I wanna go", "I want to go"),
    ("lemme gimme", "let me give me"), ("'tis the season; 'twas cold", "it is the season"),
    ("more'n enough", "more than enough"), ("d'ye know", "do you know"), ("cannot", "can not"),
    ("$3.88", "3.88"), ("It cost $1,200.50, no more", "$1,200.50"), ("€50 or £40", "50€"), ("100%", "100 percent"),
    ("5:30 p.m.", "5:30 pm"), ("3,36 euros", "3.36 euros"), ("ratio 3:4, not 4:3:", "3:4"),
    ('He said "yes".', "yes"), ('"Charlotte\'s Web"', "Charlotte's Web"), ("''quoted''", "``quoted''"),
    ("“Becoming Nicole”", '"Becoming Nicole"'), ("‘Sapiens’ by Harari", "Sapiens"), ("«Le Monde»", "Le Monde"),
    ("rock 'n' roll", "rock and roll"), ("the '90s", "the 1990s"), ("O'Neil's", "oneils"),
    ("self-care -- and yoga", "self-care—and yoga"), ("1990–1995", "1990-1995"), ("well ― yes", "yes"),
    ("counseling or mental health", "Psychology, counseling certification"),
    ("(maybe) [yes] {no} <tag>", "maybe yes"), ("a@b.com #tag", "@b #tag"), ("Q&A; R&D", "q & a"),
    ("Wait... what?", "wait what"), ("Mr. Smith went to the U.S.", "Mr Smith went to the US"),
    ("end.)", "end."), ("end.\" ", "end"), ("end. \n", "end ."), ("end.’ ", "end"), ("a.b.c.", "a b c"),
    ("Café Zoë", "cafe zoe"), ("CAFE\u0301", "café"), ("naïve façade", "Naïve Façade"),
    ("ÉCOLE STRASSE", "école straße"), ("ΟΔΟΣ", "οδος"), ("東京 に 住んで", "東京 に"), ("東京に住んでいる。", "東京に住んでいる"),
    ("Москва, Россия", "москва россия"), ("İstanbul", "istanbul"), ("٣,٤ دينار", "٣,٤"), ("½,5 x²", "½ 5"),
    ("🎉 party 🎉", "party 🎉"), ("non\u00a0breaking\u2003space", "non breaking space"), ("tab\there\nline\r\nend", "tab here line end"),
    ("sep\x1cunit\x1fend", "sep unit end"), ("under_score the_end", "underscore theend"),
    ("the€5 a-b an", "5 ab"), ("theatre another atlas", "atre nother tlas"), ("A", "an"), ("The The", "a"),
    ("`code` ``quoted``", "code quoted"), ("5*4=20 **bold**", "5 * 4 = 20"), ("yes'", "yes '"), ("dogs' bowls' ", "dogs bowls"),
    ("he'd've said y'all'd", "he would have"), ("isn't it? it isn't.", "it is not"), ("N'T IS'NT DON'T", "do n't"),
    ("'s 't 'hello 're", "hello"), ("x''y", 'x"y'), ('("start") <"mid"> ["end"]', "start mid end"),
    ("Running, hiking; and (sometimes) swimming!", "running hiking swimming"),
    ("likely no", "Likely no; though she likes reading, she wants to be a counselor"),
    ("The sunday before 25 May 2023", "The Sunday before 25 May 2023"), ("2022", "2022.0"), ("I don't know", "I don't know."),
]


def random_pairs(count):
    """Strings of the signs that the rules look at, so that their order is tested too."""
    rng = random.Random(7)
    pieces = list(".,:;!?'\"`()[]{}<>@#$%&*- ") + [
        "''", "``", "--", "...", "'s", "n't", "'ll", " '", "' ", "can", "not", "cannot", "gonna", "wanna ", "'tis ", "more'n",
        "a", "b", "the", "7", "3.5", "1,0", "é", "ß", "»", "«", "“", "”", "’", "‘", "–", "—", "\n", "\t", "\u00a0", "_", "\u0301", "²",
    ]
    for _ in range(count):
        yield tuple("".join(rng.choice(pieces) for _ in range(rng.randint(1, 14))) for _ in range(2))


def main():
    rows = []
    for prediction, answer in PAIRS + list(random_pairs(160)):
        rows.append({
            "prediction": prediction,
            "answer": answer,
            "tokens": tokens(prediction),
            "f1": f1(prediction, answer),
            "bleu1": bleu1(prediction, answer),
            "normalised": normalise(prediction),
            "exact_match": normalise(prediction) == normalise(answer),
        })
    text = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    sys.stdout.write("[\n" + text + "\n]\n")


main()
