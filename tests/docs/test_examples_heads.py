"""The examples of CTC, of the CRF and of episodes, on shorter schedules."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from helpers.example_scripts import load, run
from helpers.peers import require


def test_digits_are_learned_without_their_places() -> None:
    example = load("spoken_digits")
    data = example.recordings(300, True, seed=0)
    assert all(k.min() >= 1 and k.max() <= 10 for k in data[1])
    sequences, targets = example.recordings(40, True, seed=1)
    x, lengths = example.lc.data.pad(sequences), [len(s) for s in sequences]
    errors = []
    for ctc in (False, True):
        model = example.train(data, ctc, epochs=15, seed=0)
        found = example.lc.ctc_decode(model(x, lengths=lengths), lengths)
        errors.append(example.error_rate(found, targets))
    without, with_ctc = errors
    assert with_ctc < 0.15
    assert with_ctc < 0.6 * without


def test_edits_and_spread_labels() -> None:
    example = load("spoken_digits")
    for said, meant, count in [("", "", 0), ("abc", "", 3), ("abcd", "axcd", 1), ("ab", "ba", 2)]:
        assert example.edits(np.array([*said]), np.array([*meant])) == count
    assert example.spread(np.array([5, 7]), 6).tolist() == [5, 5, 0, 7, 7, 0]


def test_speech_is_synthesised() -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed; the tones are tested")
    example = load("spoken_digits")
    (x,), (target,) = example.recordings(1, False, seed=0)
    assert x.shape[1] == example.BANDS
    assert len(x) > 10 * len(target)


def test_the_script_about_digits() -> None:
    lines = run("spoken_digits", "--tones", "--count", "20", "--epochs", "1")
    assert lines[0] == "tones: 20 recordings, 100 to test with"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "without CTC", "CTC", "CTC, beam search",
    ]  # fmt: skip


def test_a_crf_tags_what_the_words_behind_decide() -> None:
    example = load("entity_tagger")
    sentences = example.corpus(300, 0)
    words = sorted({word for said, _ in sentences for word in said})
    data = example.encoded(sentences, words)
    sequences, targets = example.encoded(example.corpus(100, 1), words)
    scores = []
    for crf in (False, True):
        model = example.train(data, len(words), crf, epochs=10, seed=0)
        scores.append(example.f1(example.tagged(model, sequences), targets))
    assert scores[1] > 0.9
    assert scores[0] < scores[1] - 0.2


def test_entities_of_tags() -> None:
    example = load("entity_tagger")
    tags = [
        example.TAGS.index(t)
        for t in ["O", "B-PER", "I-PER", "B-PER", "O", "I-ORG", "B-LOC", "I-ORG", "B-ORG"]
    ]
    assert example.entities(np.array(tags)) == {(1, 3, 0), (3, 4, 0), (6, 7, 2), (8, 9, 1)}
    assert example.f1([np.array(tags)], [np.array(tags)]) == 1


def test_the_script_about_entities() -> None:
    lines = run("entity_tagger", "--count", "100", "--epochs", "1")
    assert [line.partition(":")[0] for line in lines[:2]] == ["without CRF", "CRF"]
    assert lines[2].startswith("Jordan/")


@pytest.mark.filterwarnings("ignore")  # of the libraries for reinforcement learning
def test_recurrent_ppo_has_the_numbers_of_its_own_loop() -> None:
    require("torch")
    require("sb3_contrib")
    example = load("recurrent_ppo")
    assert example.difference() < 1e-12


@pytest.mark.filterwarnings("ignore")
def test_the_task_of_memory() -> None:
    require("sb3_contrib")
    example = load("recurrent_ppo")
    task = example.Recall(length=12, asked=0.5)
    x, _ = task.reset(seed=3)
    cue, rewards, asked = int(x[0] > 0), [], []
    assert abs(x[0]) == 1
    for t in range(12):
        asked.append(bool(x[1]))
        x, reward, ended, cut, _ = task.step(cue)
        rewards.append(reward)
        assert x[0] == 0
        assert (ended, cut) == (t == 11, False)
    assert rewards == [float(a) for a in asked]
    assert asked[-1]
    assert not asked[0]
