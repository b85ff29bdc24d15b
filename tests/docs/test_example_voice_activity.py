"""The example that finds speech: the outputs recorded from PyTorch, and audio of other kinds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import example_scripts
from helpers.paths import EXAMPLES

SCRIPT = EXAMPLES / "voice_activity.py"


@pytest.fixture(scope="module")
def example() -> Any:
    return example_scripts.load("voice_activity")


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def tone_and_noise(rate: int, seconds: float) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    signal: np.ndarray = 0.3 * np.sin(2 * np.pi * 440 * time) * (time % 1 < 0.5) + 0.01 * noise
    return signal


def run(*arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recorded_outputs(example: Any) -> None:
    weights = example.WEIGHTS
    probabilities, _ = example.listen(weights["recording"])
    assert len(probabilities) == 200
    np.testing.assert_allclose(probabilities, weights["probabilities"], atol=2e-5, rtol=0)
    assert (probabilities > 0.5).sum() > 100
    assert (probabilities < 0.5).sum() > 50


def features(example: Any, samples: np.ndarray) -> np.ndarray:
    padded = np.concatenate([np.zeros(64, "f4"), samples])
    frames = np.stack([padded[i : i + 576] for i in range(0, len(padded) - 575, 512)])
    x: np.ndarray = example.FrontEnd()(frames)[:, None]
    return x


def test_probabilities_in_int8(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, exact = example.WEIGHTS["recording"], example.WEIGHTS["probabilities"]
    small = lc.quantize(example.make_model())
    monkeypatch.setattr(example, "make_model", lambda: small)
    probabilities, _ = example.listen(recording)
    difference = np.abs(probabilities - exact)
    assert difference.max() < 0.025
    assert difference.mean() < 0.001


def test_probabilities_in_int8_of_other_frames(example: Any) -> None:
    """The features have no negative number: with 127 steps for them, speech begins elsewhere."""
    model = example.make_model()
    small = lc.quantize(model)
    for start in range(0, 512, 64):
        for level in (1, 0.5):
            samples = np.float32(level) * example.WEIGHTS["recording"][start:]
            x = features(example, samples)
            assert np.abs(small(x) - model(x)).max() < 0.03


@pytest.mark.parametrize("count", [60, 200])
def test_probabilities_in_int8_after_calibration(example: Any, count: int) -> None:
    """Of 200 frames, after calibration by the first of them or by all."""
    exact, x = example.WEIGHTS["probabilities"], features(example, example.WEIGHTS["recording"])
    small = lc.quantize(example.make_model(), calibration=x[:count])
    difference = np.abs(small(x)[:, 0, 0] - exact)
    assert difference.max() < 0.02
    assert difference.mean() < 0.0005


def test_it_says_where_somebody_speaks() -> None:
    said = run()
    assert "speech from 0.77 s to" in said
    assert "real-time factor" in said
    assert float(said.split()[-1]) < 2e-5


def test_a_tone_and_noise_are_no_speech(example: Any, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    for rate, channels in ((16000, 1), (44100, 2)):
        samples = tone_and_noise(rate, 4)
        write_wav(path, np.repeat(samples[:, None], channels, axis=1), rate)
        audio = example.read_wav(str(path))
        assert abs(len(audio) - 4 * 16000) <= 1
        np.testing.assert_allclose(
            audio, tone_and_noise(16000, 4), atol=0.06 if rate > 16000 else 1e-4
        )
        probabilities, _ = example.listen(audio)
        assert len(probabilities) == 125
        assert probabilities.max() < 0.5
    assert "speech from" not in run(str(path))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_synthetic_speech(example: Any, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    text = "The quick brown fox jumps over the lazy dog, and then it goes home again."
    subprocess.run(["espeak-ng", "-w", str(path), text], check=True)
    silence = np.zeros(16000, "float32")
    audio = np.concatenate([silence, example.read_wav(str(path)), silence])
    probabilities, _ = example.listen(audio)
    spoken = slice(16000 // 512, -16000 // 512)
    assert (probabilities[spoken] > 0.5).mean() > 0.6
    assert probabilities[:25].max() < 0.5
    assert probabilities[-15:].max() < 0.5
    assert "speech from" in run(str(path))


def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("--picture", str(tmp_path / "vad.png"))
    assert (tmp_path / "vad.png").read_bytes()[:4] == b"\x89PNG"
