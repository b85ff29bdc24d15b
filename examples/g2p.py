"""Spell words as they are pronounced: a trained GRU encoder-decoder, from letters to phonemes.

    python examples/g2p.py hello world

One GRU reads the letters of a word; its final state is what it knows of the word. Another GRU
starts from there and says one phoneme after the other, each time hearing the last one, until it
says that the word has ended. The weights beside this file are those of g2p-en 2.1.0 by Kyubyong
Park and Jongseok Kim (Apache-2.0), trained on the CMU pronouncing dictionary.
"""

import argparse
from pathlib import Path

import numpy as np

import lstmcore as lc

LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
PHONEMES = [
    "<pad>", "<unk>", "<s>", "</s>", "AA0", "AA1", "AA2", "AE0", "AE1", "AE2", "AH0", "AH1",
    "AH2", "AO0", "AO1", "AO2", "AW0", "AW1", "AW2", "AY0", "AY1", "AY2", "B", "CH", "D", "DH",
    "EH0", "EH1", "EH2", "ER0", "ER1", "ER2", "EY0", "EY1", "EY2", "F", "G", "HH", "IH0", "IH1",
    "IH2", "IY0", "IY1", "IY2", "JH", "K", "L", "M", "N", "NG", "OW0", "OW1", "OW2", "OY0", "OY1",
    "OY2", "P", "R", "S", "SH", "T", "TH", "UH0", "UH1", "UH2", "UW", "UW0", "UW1", "UW2", "V",
    "W", "Y", "Z", "ZH",
]  # fmt: skip

encoder = lc.Sequential(lc.Embedding(len(LETTERS), 256), lc.GRU(256, 256))
decoder = lc.Sequential(
    lc.Embedding(len(PHONEMES), 256), lc.GRU(256, 256), lc.Linear(256, len(PHONEMES))
)
with np.load(Path(__file__).with_name("g2p.npz")) as weights:
    encoder.load_state_dict(weights, prefix="encoder.")
    decoder.load_state_dict(weights, prefix="decoder.")


def pronounce(word: str, longest: int = 20) -> list[str]:
    """Return the phonemes of a word, in the notation of the CMU dictionary."""
    letters = [LETTERS.index(x) if x in LETTERS[3:] else 1 for x in word.lower()]
    _, state = encoder.run([[i] for i in [*letters, LETTERS.index("</s>")]])
    said = PHONEMES.index("<s>")
    phonemes: list[str] = []
    while len(phonemes) < longest:
        scores, state = decoder.run([[said]], state)
        said = int(scores.argmax())
        if PHONEMES[said] == "</s>":
            break
        phonemes.append(PHONEMES[said])
    return phonemes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Spell words as they are pronounced.")
    parser.add_argument("words", nargs="*", default=["hello", "world"])
    for word in parser.parse_args().words:
        print(word, *pronounce(word))
