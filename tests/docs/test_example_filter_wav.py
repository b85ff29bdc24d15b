"""The C++ example that filters a WAV file, against Python's stream, to the bit.

It is run where the environment names the folder it was built in (LSTMCORE_EXAMPLES).
"""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

import lstmcore as lc
from helpers.paths import EXAMPLES

FOLDER = os.environ.get("LSTMCORE_EXAMPLES", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="LSTMCORE_EXAMPLES is not set")


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write (frames, channels) numbers from -1 to 1 as 16-bit integers."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def read_floats(path: Path, channels: int) -> np.ndarray:
    data = path.read_bytes()
    assert (data[:4], data[8:16], data[20:22]) == (b"RIFF", b"WAVEfmt ", b"\3\0")
    return np.frombuffer(data[44:], "<f4").reshape(-1, channels)


def filtered(model: Path, source: Path, target: Path, *block: str) -> str:
    program = Path(FOLDER) / "filter_wav"
    command = [str(program), str(model), str(source), str(target), *block]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the example trains."""
    path = tmp_path_factory.mktemp("model") / "filter.safetensors"
    script = EXAMPLES / "cpp" / "make_filter.py"
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-3  # it has learnt: the target's variance is 0.06
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("block", [[], ["1"], ["37"], ["100000"]], ids=str)
def test_the_file_has_the_bits_of_pythons_stream(
    model: Path, tmp_path: Path, channels: int, block: list[str]
) -> None:
    time = np.arange(5000)[:, None] / 16000
    tone = np.sin(2 * np.pi * 220 * time * [1, 1.5][:channels])
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, tone.shape)
    write_wav(tmp_path / "in.wav", 0.6 * tone + noise)
    said = filtered(model, tmp_path / "in.wav", tmp_path / "out.wav", *block)
    assert "0.312 s of audio" in said

    with wave.open(str(tmp_path / "in.wav")) as file:
        integers = np.frombuffer(file.readframes(5000), "<i2").reshape(-1, channels)
    x = integers.astype("float32")[..., None] / np.float32(32768)
    expected = lc.load(model).stream(channels).process(x)[..., 0]
    assert read_floats(tmp_path / "out.wav", channels).tobytes() == expected.tobytes()


def test_every_cell_goes_from_python_to_cpp(tmp_path: Path) -> None:
    """Variants, stacks, and modules between them."""
    x = np.random.default_rng(0).uniform(-1, 1, (500, 1))
    write_wav(tmp_path / "in.wav", x)
    with wave.open(str(tmp_path / "in.wav")) as file:
        samples = np.frombuffer(file.readframes(500), "<i2").astype("float32") / np.float32(32768)
    for number, layers in enumerate(
        [
            [lc.RNN(1, 7, num_layers=2, nonlinearity="relu", bias=False)],
            [lc.LSTM(1, 9, proj_size=4, peephole=True, cell_clip=0.5), lc.GRU(4, 6)],
            [lc.LSTM(1, 9, coupled=True), lc.LayerNorm(9), lc.Dropout(0.5), lc.Tanh()],
            [lc.Linear(1, 3), lc.ReLU(), lc.GRU(3, 5, reset_after=False), lc.Softmax()],
            [lc.Sequential(lc.LSTM(1, 5, forget_gate=False), lc.Sigmoid())],
        ]
    ):
        model = lc.Sequential(*layers, lc.Linear(lc.Sequential(*layers)._output_size(1), 1))
        path = tmp_path / f"{number}.safetensors"
        lc.save(model, path)
        filtered(path, tmp_path / "in.wav", tmp_path / "out.wav")
        expected = model.stream().process(samples[:, None])
        assert read_floats(tmp_path / "out.wav", 1).tobytes() == expected.tobytes()


def test_bad_files_are_named(model: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "in.wav", np.zeros((10, 1)))
    lc.save(lc.LSTM(1, 4), tmp_path / "wide.safetensors")
    lc.save(lc.LSTM(1, 1, bidirectional=True), tmp_path / "both.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(model.read_bytes()[:-1])
    (tmp_path / "in.txt").write_text("no audio")
    for name, source, message in [
        ("none.safetensors", "in.wav", "cannot be opened"),
        ("cut.safetensors", "in.wav", "data_offsets"),
        ("wide.safetensors", "in.wav", "expected one number per sample"),
        ("both.safetensors", "in.wav", "bidirectional layers read from the end"),
        ("in.txt", "in.wav", "no safetensors file"),
        (str(model), "in.txt", "not a WAV file"),
    ]:
        arguments = [tmp_path / name, tmp_path / source, tmp_path / "out.wav"]
        command = [str(Path(FOLDER) / "filter_wav"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr
