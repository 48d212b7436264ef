"""Prints the constants of crate/tests/fixtures/metrics.json.

    pip install nltk==3.10.4
    python tests/reference/metrics.py > crate/tests/fixtures/metrics.json

F1, BLEU-1: the harness of Mem0 and Memory-R1 (set-based F1; NLTK's sentence_bleu with
SmoothingFunction.method1). Exact match: the official SQuAD script's normalisation. LoCoMo's own score: its formulas
with NLTK's PorterStemmer.
NLTK's own `word_tokenize(text, preserve_line=True)` is `NLTKWordTokenizer().tokenize(text)`;
without `preserve_line` it would first part sentences with a model that NLTK does not bundle.
"""

import json
import random
import re
import string
import sys
from collections import Counter

from nltk.stem import PorterStemmer
from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

TOKENIZER = NLTKWordTokenizer()
STEMMER = PorterStemmer()


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


def locomo_f1(prediction, answer):
    """The formula of LoCoMo's task_eval/evaluation.py: multisets of stems."""

    def stems(text):
        text = "".join(c for c in text.replace(",", "").lower() if c not in set(string.punctuation))
        return Counter(STEMMER.stem(word) for word in re.sub(r"\b(a|an|the|and)\b", " ", text).split())

    predicted, gold = stems(prediction), stems(answer)
    common = sum((predicted & gold).values())
    if common == 0:
        return 0.0
    precision, recall = common / sum(predicted.values()), common / sum(gold.values())
    return 2 * precision * recall / (precision + recall)


def locomo(prediction, answer, category):
    if category == 1:
        parts = [max(locomo_f1(own.strip(), gold.strip()) for own in prediction.split(",")) for gold in answer.split(",")]
        return sum(parts) / len(parts)
    if category == 3:
        return locomo_f1(prediction, answer.split(";")[0].strip())
    if category == 5:
        return float(any(form in prediction.lower() for form in ("no information available", "not mentioned")))
    return locomo_f1(prediction, answer)


def words(count):
    """Roots and suffixes that the stemmer's rules are about, each with each at random."""
    rng = random.Random(3)
    roots = (
        "relat condit valen digit conform radic differ vile analog predic oper feud decis hope call form sens triplic electr "
        "good reviv allow infer air gyro adjust defens irrit replac depend adopt homolog commun act angular effect bowd rat "
        "fall hiss fizz fail fil hop tan cr sa plast motor agre fe bl s be play y ay toy bay logi bi geo psycho enjoy "
        "controll roll skill troubl siz activ hopeful callous sensib gener organ care cari tri t d"
    ).split()
    ends = (
        "s es ies sses ss ed eed ied ing y ational tional enci anci izer bli alli entli eli ousli ization ation ator alism "
        "iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able "
        "ible ant ement ment ent ion ou ism ate iti ous ive ize e l ll lled lling ying zes"
    ).split()
    special = (
        "sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed die died "
        "dies ties spied cries is as us i a by my été straße naïve running swimming Hiking CHURCHES happy happily oed owed"
    ).split()
    return special + sorted({rng.choice(roots) + rng.choice(ends) for _ in range(count)})


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
    ("camping, hiked and pottery", "hiking, camping trips, swimming"), ("It is not mentioned.", "Not mentioned"),
    ("No information available", ""), ("painting the dogs and cats", "paintings, dog"),
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
            "locomo": [locomo(prediction, answer, category) for category in range(1, 6)],
        })
    stems = {word: STEMMER.stem(word) for word in words(900)}
    text = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    sys.stdout.write('{"pairs": [\n' + text + '\n], "stems": ' + json.dumps(stems, ensure_ascii=True) + "}\n")


main()
