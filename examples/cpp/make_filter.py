"""Train a small LSTM to sound like an overdriven amplifier, and save it for `filter_wav`.

    python examples/cpp/make_filter.py filter.safetensors

The amplifier is a formula here: a one-pole low-pass behind a soft clip. The model hears white noise
of changing loudness and learns from what the formula makes of it.
"""

import argparse

import numpy as np

import lstmcore as lc


def amplifier(x: np.ndarray) -> np.ndarray:
    """Return what the model is to learn: y[t] = 0.6 y[t-1] + 0.4 tanh(4 x[t])."""
    y = np.tanh(4 * x)
    for t in range(len(y)):
        y[t] = 0.4 * y[t] + (0.6 * y[t - 1] if t else 0)
    return y


def train(steps: int = 400, seed: int = 0) -> lc.Sequential:
    """Return a model of one number in, one out, trained on `steps` batches of noise."""
    model = lc.Sequential(lc.LSTM(1, 16, seed=seed), lc.Linear(16, 1, seed=seed))
    adam = lc.optim.Adam(model.parameters(), lr=0.01)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        loudness = rng.uniform(0.1, 1, (1, 16, 1))
        x = (loudness * rng.uniform(-1, 1, (128, 16, 1))).astype("float32")
        y, tape = model.forward(x)
        loss, dy = lc.losses.mse(y, amplifier(x))
        adam.zero_grad()
        model.backward(tape, dy)
        adam.step()
        if step % 100 == 99:
            print(f"step {step + 1}: mean squared error {loss:.6f}")
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", default="filter.safetensors", help="default %(default)s")
    path = parser.parse_args().path
    lc.save(train(), path)
