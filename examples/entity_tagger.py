"""Named entities, tagged from left to right: with and without a CRF.

    python examples/entity_tagger.py

A grammar makes sentences with people, organisations and places in them. All of them begin with
words of one list, and only the last word tells which of them it is: in "Jordan Bank", Jordan is of
an organisation, in "Jordan Bay" of a place. The net, a GRU, reads from left to right, so at the
word Jordan it cannot know. Without a CRF each word gets its likeliest tag by itself; with one
(`lc.CRF`) the tags of a sentence are chosen together, and what is learned late decides about what
came before. Tags are O, and B and I of each kind, for the first and the other words of an entity.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import lstmcore as lc

KINDS = ("PER", "ORG", "LOC")
TAGS = ["O", *(f"{place}-{kind}" for kind in KINDS for place in "BI")]
NAMES = [
    "Jordan",
    "Florence",
    "Austin",
    "Chelsea",
    "Madison",
    "Sydney",
    "Carson",
    "Logan",
    "Paris",
    "Dallas",
    "Lincoln",
    "Orion",
]
LAST = {
    "PER": ["Smith", "Miller", "Garcia", "Chen", "Novak", "Okafor"],
    "ORG": ["Bank", "Group", "Motors", "Airlines", "Press", "Union"],
    "LOC": ["Bay", "City", "Valley", "Falls", "Heights", "Harbour"],
}
SENTENCES = [
    s.split()
    for s in (
        "<> said on Monday that <> would not sell its shares",
        "a spokesman of <> met the press near <>",
        "the union asked <> to leave the city before winter",
        "yesterday <> was seen in the valley with <> and <>",
        "nobody at the bank had heard of <>",
        "<> is older than <>",
        "prices rose again",
    )
]
Sentence = tuple[list[str], list[str]]


def entity(rng: np.random.Generator) -> Sentence:
    """Make an entity of one to three words, and its tags."""
    kind = KINDS[rng.integers(3)]
    words = [*rng.choice(NAMES, rng.integers(1, 3)), rng.choice(LAST[kind])]
    return [str(w) for w in words], [f"B-{kind}"] + [f"I-{kind}"] * (len(words) - 1)


def sentence(rng: np.random.Generator) -> Sentence:
    """Make a sentence, and its tags."""
    words: list[str] = []
    tags: list[str] = []
    for word in SENTENCES[rng.integers(len(SENTENCES))]:
        new = entity(rng) if word == "<>" else ([word], ["O"])
        words += new[0]
        tags += new[1]
    return words, tags


def corpus(count: int, seed: int) -> list[Sentence]:
    """Make so many sentences."""
    rng = np.random.default_rng(seed)
    return [sentence(rng) for _ in range(count)]


def encoded(sentences: list[Sentence], words: list[str]) -> tuple[list[Any], list[Any]]:
    """Return ids of words, 0 for those that are not listed, and of tags."""
    ids = {word: i for i, word in enumerate(words, 1)}
    return (
        [np.array([ids.get(word, 0) for word in said]) for said, _ in sentences],
        [np.array([TAGS.index(tag) for tag in tags]) for _, tags in sentences],
    )


def train(data: tuple[list[Any], list[Any]], words: int, crf: bool, epochs: int, seed: int) -> Any:
    """Train a net whose last module is a CRF, or the same without."""
    modules = [lc.Embedding(words + 1, 16, seed=seed), lc.GRU(16, 24, seed=seed + 1)]
    modules += [lc.Linear(24, len(TAGS), seed=seed + 2)]
    modules += [lc.CRF(len(TAGS), seed=seed + 3)] if crf else []
    model = lc.Sequential(*modules)
    lc.fit(
        model,
        lc.data.Buckets(*data, batch_size=16, seed=seed),
        loss=model[-1].loss if crf else "cross_entropy",
        optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
        epochs=epochs,
        progress=False,
    )
    return model


def tagged(model: Any, sequences: list[Any]) -> list[Any]:
    """Return the tags of sentences."""
    x, lengths = lc.data.pad(sequences), np.array([len(s) for s in sequences])
    scores = model(x, lengths=lengths)
    if isinstance(model[-1], lc.CRF):
        found: list[Any] = model[-1].decode(scores, lengths)
        return found
    best = scores.argmax(axis=-1)
    return [best[:end, row] for row, end in enumerate(lengths)]


def entities(tags: Any) -> set[tuple[int, int, int]]:
    """Return begin, end and kind of the entities that tags say."""
    found, begin = set(), None
    for t, tag in enumerate([*tags, 0]):
        inside = tag > 0 and tag % 2 == 0
        if begin is not None and not (inside and tag == tags[begin] + 1):
            found.add((begin, t, int(tags[begin]) // 2))
            begin = None
        if tag % 2 == 1:
            begin = t
    return found


def f1(found: list[Any], targets: list[Any]) -> float:
    """Return the F1 score of entities that are found from the first to the last word."""
    pairs = [(entities(a), entities(b)) for a, b in zip(found, targets, strict=True)]
    both = sum(len(a & b) for a, b in pairs)
    return 2 * both / sum(len(a) + len(b) for a, b in pairs)


def main() -> None:
    """Train both, and print how well they tag."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=600, help="sentences to train with")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sentences = corpus(arguments.count, arguments.seed)
    words = sorted({word for said, _ in sentences for word in said})
    data = encoded(sentences, words)
    held_out = corpus(300, arguments.seed + 1)
    sequences, targets = encoded(held_out, words)
    for name in ("without CRF", "CRF"):
        start = time.perf_counter()
        model = train(data, len(words), name == "CRF", arguments.epochs, arguments.seed)
        seconds = time.perf_counter() - start
        found = tagged(model, sequences)
        right = np.concatenate(found) == np.concatenate(targets)
        score = f1(found, targets)
        print(f"{name}: {100 * right.mean():.1f} % of tags, F1 {score:.3f}, {seconds:.0f} s")
    said = ["Jordan", "Bank", "asked", "Jordan", "Smith", "to", "leave", "Jordan", "Bay"]
    tags = tagged(model, encoded([(said, ["O"] * len(said))], words)[0])[0]
    print(" ".join(f"{word}/{TAGS[tag]}" for word, tag in zip(said, tags, strict=True)))


if __name__ == "__main__":
    main()
