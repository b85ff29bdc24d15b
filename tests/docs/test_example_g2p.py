"""The example that spells words, against what the package it comes from says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import example_scripts
from helpers.paths import DATA, EXAMPLES

SCRIPT = EXAMPLES / "g2p.py"
with np.load(DATA / "g2p.npz") as _file:
    RECORDED = dict(_file)
WORDS = json.loads((DATA / "g2p.json").read_text())["words"]


@pytest.fixture(scope="module")
def g2p() -> Any:
    return example_scripts.load("g2p")


def test_every_word_is_spelled_as_recorded(g2p: Any) -> None:
    assert len(WORDS) == 49
    assert {word: " ".join(g2p.pronounce(word)) for word in WORDS} == WORDS


def scores_of(encoder: Any, decoder: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of every phoneme, of those recorded before it, and the last state."""
    _, (h,) = encoder.run(RECORDED["ids"].T, lengths=RECORDED["lens"])
    said = RECORDED["dec_ids"]  # -1 after the end of a word
    heard = np.concatenate([np.full((len(said), 1), 2), np.maximum(said[:, :-1], 0)], axis=1)
    return decoder(heard.T, [h]).swapaxes(0, 1), h


def perplexity(encoder: Any, decoder: Any) -> float:
    scores, _ = scores_of(encoder, decoder)
    said = RECORDED["dec_ids"]
    spoken = said >= 0
    loss, _ = lc.losses.cross_entropy(scores[spoken], said[spoken])
    return float(np.exp(loss))


def test_states_and_scores(g2p: Any) -> None:
    scores, h = scores_of(g2p.encoder, g2p.decoder)
    np.testing.assert_allclose(h[0], RECORDED["enc_h"], atol=2e-5, rtol=0)
    said = RECORDED["dec_ids"]
    spoken = said >= 0
    np.testing.assert_allclose(
        scores[spoken], RECORDED["dec_logits"][spoken], atol=2e-4, rtol=0
    )  # scores of up to 20, where the recorded float32 itself is off by 2e-5
    np.testing.assert_array_equal(scores.argmax(axis=-1)[spoken], said[spoken])


def test_a_padded_batch_ends_in_the_bits_of_its_words_alone(g2p: Any) -> None:
    ids, lengths = RECORDED["ids"].T, RECORDED["lens"]
    _, (h,) = g2p.encoder.run(ids, lengths=lengths)
    for row, length in enumerate(lengths):
        _, (alone,) = g2p.encoder.run(ids[:length, row : row + 1])
        np.testing.assert_array_equal(alone[:, 0], h[:, row])


def test_the_script_prints_the_words() -> None:
    run = [sys.executable, str(SCRIPT), "rhythm", "Queue"]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert out == "rhythm R IH1 DH AH0 M\nQueue K Y UW1\n"


def test_in_int8_only_words_are_lost_that_are_wrong_anyway(
    g2p: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = perplexity(g2p.encoder, g2p.decoder)
    lost = perplexity(lc.quantize(g2p.encoder), lc.quantize(g2p.decoder)) / exact - 1
    assert 0 < abs(lost) < 0.002
    for name in ("encoder", "decoder"):
        monkeypatch.setattr(g2p, name, lc.quantize(getattr(g2p, name)))
    said = {word: " ".join(g2p.pronounce(word)) for word in WORDS}
    # None of them is spelled right in float32 either.
    wrong = {
        "backpropagation",
        "antidisestablishmentarianism",
        "supercalifragilisticexpialidocious",
    }
    assert {word for word in WORDS if said[word] != WORDS[word]} <= wrong
