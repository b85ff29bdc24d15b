"""Find where somebody speaks: a trained voice-activity LSTM over a stream of audio.

    python examples/voice_activity.py [speech.wav] [--picture vad.png]

Every 32 milliseconds a small convolutional front end makes 128 features of the last 576
samples, and the stream of an LSTM with a linear head makes of them, and of all it has heard before,
the probability of speech. Without a file it listens to the recording that comes with the weights,
and compares with what PyTorch made of it. A WAV file must hold 16-bit integers; other rates than
16000 samples per second are converted.

The weights are those of silero-vad 6.2.3 by the Silero Team (MIT, see voice_activity.txt).
"""

from __future__ import annotations

import argparse
import time
import wave
from pathlib import Path

import numpy as np

import lstmcore as lc

RATE = 16000
HOP, CONTEXT = 512, 64  # samples: new ones for each frame, and those of the frame before
WINDOW, SHIFT, WINDOWS = 256, 128, 4  # of the Fourier transforms in a frame
STRIDES = (1, 2, 2, 1)  # of the convolutions

with np.load(Path(__file__).with_suffix(".npz")) as _file:
    WEIGHTS = dict(_file)


class FrontEnd:
    """576 samples in, 128 features out: spectrum, then four convolutions with ReLU.

    Products are made by `lc.Linear`, so that a frame has the same bits alone and among others.
    There are four windows only, so that a convolution over them is best made as one matrix.
    """

    def __init__(self) -> None:
        n = np.arange(WINDOW)
        self.hann = (0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)).astype("float32")
        self.layers = []
        steps = WINDOWS
        for i, stride in enumerate(STRIDES):
            weight, bias = (WEIGHTS[f"encoder.{i}.{name}"] for name in ("weight", "bias"))
            matrix = convolution(weight, steps, stride)
            steps = len(matrix) // len(weight)
            product = lc.Linear(matrix.shape[1], matrix.shape[0], bias=False)
            product.load_state_dict({"weight": matrix})
            self.layers.append((product, np.tile(bias, steps)))

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Return the features, (n, 128), of frames, (n, 576)."""
        samples = np.concatenate([frames, frames[:, -2 : -2 - CONTEXT : -1]], axis=1)  # reflected
        halves = samples.reshape(len(frames), WINDOWS + 1, SHIFT)
        windows = np.concatenate([halves[:, :-1], halves[:, 1:]], axis=2)
        windows *= self.hann
        spectrum = np.fft.rfft(windows)
        power = spectrum.real**2 + spectrum.imag**2
        x = np.sqrt(power, dtype="float32").reshape(len(frames), -1)
        for product, bias in self.layers:
            x = product(x)
            x += bias
            np.maximum(x, 0, out=x)
        return x


def convolution(weight: np.ndarray, steps: int, stride: int) -> np.ndarray:
    """Return the matrix of a convolution, (out, in, 3), with a zero on either side of its steps."""
    outputs, inputs, taps = weight.shape
    matrix = np.zeros(((steps - 1) // stride + 1, outputs, steps, inputs), "float32")
    for to in range(len(matrix)):
        for tap in range(taps):
            step = to * stride + tap - 1
            if 0 <= step < steps:
                matrix[to, :, step] = weight[:, :, tap]
    return matrix.reshape(-1, steps * inputs)


def make_model() -> lc.Sequential:
    """Return the LSTM and its head."""
    model = lc.Sequential(lc.LSTM(128, 128), lc.ReLU(), lc.Linear(128, 1), lc.Sigmoid())
    model.load_state_dict({name: WEIGHTS[name] for name, _ in model.named_parameters()})
    return model


def listen(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of speech in every frame of 512 samples, and the seconds it took."""
    front_end, stream = FrontEnd(), make_model().stream()
    frame = np.zeros(CONTEXT + HOP, "float32")
    probabilities, seconds = [], []
    for start in range(0, len(audio) - HOP + 1, HOP):
        began = time.perf_counter()
        frame[:CONTEXT] = frame[-CONTEXT:]
        frame[CONTEXT:] = audio[start : start + HOP]
        probabilities.append(stream.step(front_end(frame[None]))[0, 0])
        seconds.append(time.perf_counter() - began)
    return np.array(probabilities), np.array(seconds)


def read_wav(path: str) -> np.ndarray:
    """Return a WAV file as one channel at 16000 samples per second."""
    with wave.open(path) as file:
        if file.getsampwidth() != 2:
            raise SystemExit(f"{path} has {8 * file.getsampwidth()}-bit samples, expected 16")
        integers = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        audio = integers.reshape(-1, file.getnchannels()).mean(axis=1) / 32768
        rate = file.getframerate()
    if rate != RATE:
        count = int(len(audio) * RATE / rate)
        audio = np.interp(np.arange(count) * rate / RATE, np.arange(len(audio)), audio)
    return audio.astype("float32")


def segments(probabilities: np.ndarray, threshold: float = 0.5) -> list[tuple[float, float]]:
    """Return where speech begins and ends, in seconds."""
    speech = np.concatenate([[False], probabilities > threshold, [False]])
    edges = np.flatnonzero(speech[1:] != speech[:-1]) * HOP / RATE
    return [(float(a), float(b)) for a, b in edges.reshape(-1, 2)]


def draw(path: str, audio: np.ndarray, probabilities: np.ndarray) -> None:
    """Draw the audio and the probability of speech over it."""
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, figsize=(9, 3.6), sharex=True)
    above.step(np.arange(1, len(probabilities) + 1) * HOP / RATE, probabilities)
    above.set(ylabel="probability", ylim=(-0.03, 1.03), title="Where somebody speaks")
    below.plot(np.arange(len(audio)) / RATE, audio, color="0.5", linewidth=0.5)
    below.set(xlabel="time (s)", ylabel="audio\n(full scale = 1)")
    below.set_xlim(0, len(audio) / RATE)
    figure.savefig(path)


def main() -> None:
    """Listen to a file, print where somebody speaks and how long it took."""
    parser = argparse.ArgumentParser(description="Find where somebody speaks.")
    parser.add_argument("wav", nargs="?", help="a WAV file; without, the recording beside this")
    parser.add_argument("--picture", metavar="PATH", help="draw audio and probability of speech")
    arguments = parser.parse_args()
    if arguments.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing

    audio = read_wav(arguments.wav) if arguments.wav else WEIGHTS["recording"]
    probabilities, seconds = listen(audio)
    shades = " .:-=+*#%@"
    print("".join(shades[int(p * 9.99)] for p in probabilities))
    for begin, end in segments(probabilities):
        print(f"speech from {begin:.2f} s to {end:.2f} s")
    if len(seconds):
        duration, total = len(audio) / RATE, seconds.sum()
        usual, slow = 1e6 * np.quantile(seconds, [0.5, 0.999])
        print(f"{total:.3f} s for {duration:.2f} s: real-time factor {total / duration:.4f}")
        print(f"a frame takes {usual:.0f} us, 99.9 % of them at most {slow:.0f} us")
    if not arguments.wav:
        difference = np.abs(probabilities - WEIGHTS["probabilities"]).max()
        print(f"largest difference from PyTorch's outputs: {difference:.1e}")
    if arguments.picture:
        draw(arguments.picture, audio, probabilities)


if __name__ == "__main__":
    main()
