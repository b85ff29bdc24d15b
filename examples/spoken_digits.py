"""Spoken digits: a recogniser that learns from what was said, not from when.

    python examples/spoken_digits.py

Recordings of three to seven digits, and what they are, but not at which moment: a GRU that reads
both ways learns it by CTC (`lc.losses.ctc`), which adds up all ways to place the digits. The same
net without it has to be told a class for every step, so it is told that all digits of a recording
are equally long, with a pause between. Both are read by `lc.ctc_decode`, CTC's by
`lc.ctc_beam_search` as well, and judged by the label error rate: how many digits have to be
changed, added or left out, of all.

The recordings are made by the speech synthesiser espeak-ng (Debian: ``apt install espeak-ng``), at
many speeds and pitches; where that is missing or with ``--tones``, of the pairs of tones that
telephones dial with, in noise.
"""

from __future__ import annotations

import argparse
import io
import itertools
import shutil
import subprocess
import time
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lstmcore as lc

RATE, HOP, WINDOW, BANDS = 8000, 320, 512, 24  # Hz; samples: a step is 40 ms
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477)  # Hz, of rows and columns of the keys
KEYS = {int(k): (LOW[i // 3], HIGH[i % 3]) for i, k in enumerate("123456789*0#") if k.isdigit()}

Sound = NDArray[np.float64]


def spoken(digits: NDArray[np.int64], rng: np.random.Generator) -> Sound:
    """Let espeak-ng say digits."""
    speed, pitch = rng.integers(110, 200), rng.integers(20, 80)
    text = " ".join(WORDS[k] for k in digits)
    command = ["espeak-ng", "-v", "en", "-s", str(speed), "-p", str(pitch), "--stdout", text]
    with wave.open(
        io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout)
    ) as w:
        sound = np.frombuffer(w.readframes(w.getnframes()), "<i2") / 2.0**15
        step = w.getframerate() / RATE
    sound = np.interp(np.arange(0, len(sound), step), np.arange(len(sound)), sound)
    return sound + rng.normal(0, 0.003, len(sound))


def dialled(digits: NDArray[np.int64], rng: np.random.Generator) -> Sound:
    """Dial digits: tones of 80 to 400 ms and pauses of 80 to 240, in noise."""
    pieces = [np.zeros(rng.integers(400, 2000))]
    for k in digits:
        t = np.arange(rng.integers(640, 3200)) / RATE
        tones = sum(np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in KEYS[int(k)])
        pieces += [tones * rng.uniform(0.05, 0.3), np.zeros(rng.integers(640, 1920))]
    sound = np.concatenate(pieces)
    return sound + rng.normal(0, 0.1, len(sound))


def features(sound: Sound) -> NDArray[np.float32]:
    """Return the logarithms of the energy in bands that grow wider, (T, BANDS)."""
    count = 1 + max(len(sound) - WINDOW, 0) // HOP
    padded = np.pad(sound, (0, WINDOW))
    frames = np.stack([padded[t * HOP : t * HOP + WINDOW] for t in range(count)])
    energy = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    mel = np.linspace(np.log1p(100 / 700), np.log1p(RATE / 2 / 700), BANDS + 1)
    edges = (700 * np.expm1(mel) * WINDOW / RATE).astype(int)
    bands = [energy[:, a : max(b, a + 1)].mean(axis=1) for a, b in itertools.pairwise(edges)]
    x = np.log(np.stack(bands, axis=1) + 1e-4)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def recordings(count: int, tones: bool, seed: int) -> tuple[list[Any], list[Any]]:
    """Make recordings: features of each, and its digits as labels 1 to 10."""
    rng = np.random.default_rng(seed)
    sequences, targets = [], []
    for _ in range(count):
        digits = rng.integers(0, 10, rng.integers(3, 8))
        sequences.append(features((dialled if tones else spoken)(digits, rng)))
        targets.append(digits + 1)
    return sequences, targets


def spread(labels: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """Place labels as if they were equally long, the last third of each being a pause."""
    place = np.arange(steps) * len(labels) / steps
    return np.where(place % 1 < 2 / 3, labels[place.astype(int)], 0)


def edits(said: NDArray[np.int64], meant: NDArray[np.int64]) -> int:
    """Return how many labels have to be changed, added or left out (Levenshtein, 1966)."""
    row = np.arange(len(meant) + 1)
    for i, label in enumerate(said):
        above, row = row, np.empty_like(row)
        row[0] = i + 1
        for j, other in enumerate(meant):
            row[j + 1] = min(above[j] + (label != other), above[j + 1] + 1, row[j] + 1)
    return int(row[-1])


def error_rate(found: list[Any], targets: list[Any]) -> float:
    """Return the label error rate."""
    wrong = sum(edits(said, meant) for said, meant in zip(found, targets, strict=True))
    return wrong / sum(map(len, targets))


def train(
    data: tuple[list[Any], list[Any]], ctc: bool, epochs: int, seed: int, hidden: int = 32
) -> lc.Sequential:
    """Train a net, by CTC or by a class for every step."""
    sequences, targets = data
    if not ctc:
        targets = [spread(k, len(x)) for x, k in zip(sequences, targets, strict=True)]
    model = lc.Sequential(
        lc.GRU(BANDS, hidden, bidirectional=True, seed=seed),
        lc.Linear(2 * hidden, 11, seed=seed + 1),
    )
    optimizer = lc.optim.Adam(model.parameters(), lr=0.01)
    batches = lc.data.Buckets(sequences, targets, batch_size=8, seed=seed, per_step=not ctc)
    lc.fit(
        model,
        batches,
        loss="ctc" if ctc else "cross_entropy",
        optimizer=optimizer,
        schedule=lc.optim.CosineLR(optimizer, epochs),
        epochs=epochs,
        clip_norm=1.0,
        progress=False,
    )
    return model


def main() -> None:
    """Train both ways, and print their label error rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tones", action="store_true", help="tones, also where espeak-ng is")
    parser.add_argument("--count", type=int, default=300, help="recordings to train with")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tones = arguments.tones or shutil.which("espeak-ng") is None
    data = recordings(arguments.count, tones, seed=arguments.seed)
    sequences, targets = recordings(100, tones, seed=arguments.seed + 1)
    x, lengths = lc.data.pad(sequences), np.array([len(s) for s in sequences])
    print(f"{'tones' if tones else 'speech'}: {arguments.count} recordings, 100 to test with")
    for name in ("without CTC", "CTC"):
        start = time.perf_counter()
        model = train(data, name == "CTC", arguments.epochs, arguments.seed)
        seconds = time.perf_counter() - start
        scores = model(x, lengths=lengths)
        errors = error_rate(lc.ctc_decode(scores, lengths), targets)
        print(f"{name}: label error rate {100 * errors:.1f} %, {seconds:.0f} s")
    beams = lc.ctc_beam_search(scores, lengths, beam_size=8)
    errors = error_rate([beam[0].ids for beam in beams], targets)
    print(f"CTC, beam search: label error rate {100 * errors:.1f} %")


if __name__ == "__main__":
    main()
