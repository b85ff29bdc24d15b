"""The demo: who is speaking? A small bidirectional LSTM learns to tell nine speakers by one vowel.

``python -m lstmcore demo`` trains it on the Japanese Vowels data that come with the package, tests
it, and puts one training step beside the same step of the NumPy reference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import losses, optim, reference
from .._base import machine
from .._nn.layers import LSTM
from .._nn.linear import Linear
from ..datasets import Sequences, japanese_vowels
from . import busy

__all__ = ["Result", "SpeakerClassifier", "main"]

NUM_FEATURES, NUM_SPEAKERS = 12, 9
HIDDEN_SIZE = 64
BATCH_SIZE = 30
LEARNING_RATE = 0.01  # falls to 0 in a straight line


class Result(NamedTuple):
    """What the demo found.

    Attributes
    ----------
    accuracy : float
        Right answers on the test sequences, 0 to 1.
    seconds : float
        Time of the training, with a test after each epoch.
    step_seconds : dict
        Time of one training step by "reference", "float64" and "float32".
    gradient_differences : dict
        Largest difference of the gradients from the reference's, by "float64" and "float32",
        relative to the largest gradient of the same parameter.
    """

    accuracy: float
    seconds: float
    step_seconds: dict[str, float]
    gradient_differences: dict[str, float]


class SpeakerClassifier:
    """A bidirectional LSTM, and a linear layer on the final output of both directions.

    Examples
    --------
    >>> train, _ = japanese_vowels()
    >>> model = SpeakerClassifier(dtype="float32", seed=0)
    >>> model(train).shape
    (270, 9)
    """

    def __init__(self, *, dtype: str, seed: int) -> None:
        self.lstm = LSTM(NUM_FEATURES, HIDDEN_SIZE, bidirectional=True, dtype=dtype, seed=seed)
        self.head = Linear(2 * HIDDEN_SIZE, NUM_SPEAKERS, dtype=dtype, seed=seed + 1)

    def __call__(self, batch: Sequences) -> NDArray[Any]:
        """Give the scores (B, 9) of the speakers."""
        _, (h, _) = self.lstm(batch.x, lengths=batch.lengths)
        return self.head(_join(h))

    def backpropagate(self, batch: Sequences) -> float:
        """Give the loss and add its gradients to those of the parameters."""
        _, (h, _), tape = self.lstm.forward(batch.x, lengths=batch.lengths)
        loss, dh = self.backpropagate_head(h, batch.labels)
        self.lstm.backward(tape, None, (dh, None))
        return loss

    def backpropagate_head(
        self, h: NDArray[Any], labels: NDArray[Any]
    ) -> tuple[float, NDArray[Any]]:
        """Give the loss and its gradient for the final state h (2, B, H) of the LSTM."""
        scores, tape = self.head.forward(_join(h))
        loss, dscores = losses.cross_entropy(scores, labels)
        dh = self.head.backward(tape, dscores)
        return loss, dh.reshape(len(labels), 2, -1).swapaxes(0, 1)

    def copy_from(self, other: SpeakerClassifier) -> None:
        """Take over the parameters of another."""
        self.lstm.load_state_dict(other.lstm.state_dict())
        self.head.load_state_dict(other.head.state_dict())

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        self.lstm.zero_grad()
        self.head.zero_grad()


def main(seed: int = 0, epochs: int = 20, *, show: Callable[[str], object] = print) -> Result:
    """Train, test, compare with the reference, and show a table.

    Parameters
    ----------
    seed : int, default 0
        For the first weights and the order of the sequences; the same seed gives the same result.
    epochs : int, default 20
        How often to go through the training sequences.
    show : callable, default print
        Takes each line of text.

    Returns
    -------
    Result
    """
    train, test = _standardized(*japanese_vowels())
    model = SpeakerClassifier(dtype="float32", seed=seed)
    shortest, longest = train.lengths.min(), test.lengths.max()
    for line in busy.hint():
        show(line)
    show(
        f"Nine speakers say /ae/: {len(train.labels)} sequences for training, {len(test.labels)} "
        f"for testing,\n{shortest} to {longest} steps of {NUM_FEATURES} features\n"
        f"Model: {model.lstm!r}, {model.head!r}\n"
    )
    start = time.perf_counter()
    accuracy = _train(model, train, test, seed, epochs, show)
    seconds = time.perf_counter() - start

    step_seconds, differences = _compare(_rows(train, np.arange(0, len(train.labels), 9)), seed)
    result = Result(accuracy, seconds, step_seconds, differences)
    show(_table(result, len(test.labels), epochs))
    return result


def _train(
    model: SpeakerClassifier,
    train: Sequences,
    test: Sequences,
    seed: int,
    epochs: int,
    show: Callable[[str], object],
) -> float:
    """Train, show the progress and give the accuracy on the test sequences."""
    rng = np.random.default_rng(seed)
    optimizer = optim.Adam([*model.lstm.parameters(), *model.head.parameters()])
    starts = range(0, len(train.labels), BATCH_SIZE)
    accuracy = _accuracy(model, test)
    for epoch in range(epochs):
        order = rng.permutation(len(train.labels))
        loss = 0.0
        for i, start in enumerate(starts):
            optimizer.lr = LEARNING_RATE * (1 - (epoch + i / len(starts)) / epochs)
            model.zero_grad()
            loss += model.backpropagate(_rows(train, order[start : start + BATCH_SIZE]))
            optimizer.step()
        accuracy = _accuracy(model, test)
        show(
            f"epoch {epoch + 1:3d}/{epochs}   training loss {loss / len(starts):7.4f}   "
            f"test accuracy {accuracy:6.1%}"
        )
    return accuracy


def _accuracy(model: SpeakerClassifier, data: Sequences) -> float:
    return float(np.mean(model(data).argmax(axis=1) == data.labels))


def _compare(batch: Sequences, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Time one training step, and compare its gradients with the reference's.

    A step is: LSTM forward, linear layer, loss, and all of it backward. The weights are those of an
    untrained model, where no gradient is nearly 0.
    """
    models = {d: SpeakerClassifier(dtype=d, seed=seed) for d in ("float32", "float64")}
    models["float64"].copy_from(models["float32"])  # the same weights, to the last bit

    def reference_step() -> dict[str, NDArray[Any]]:
        model = models["float64"]
        _, (h, _), tape = reference.lstm_forward(
            batch.x, None, model.lstm.state_dict(), bidirectional=True, lengths=batch.lengths
        )
        _, dh = model.backpropagate_head(h, batch.labels)
        return reference.lstm_backward(tape, None, (dh, None))[2]

    seconds = {"reference": _time(reference_step)}
    expected = reference_step()
    differences = {}
    for dtype, model in models.items():
        own = batch._replace(x=batch.x.astype(dtype))
        seconds[dtype] = _time(lambda: model.backpropagate(own))  # noqa: B023 - called at once
        model.zero_grad()
        model.backpropagate(own)
        gradients = {p.name: p.grad for p in model.lstm.parameters()}
        differences[dtype] = _difference(gradients, expected)
    return seconds, differences


def _time(function: Callable[[], object]) -> float:
    """Time a call: the shortest of all that fit into half a second, after one to warm up."""
    function()
    shortest = math.inf
    end = time.perf_counter() + 0.5
    while (start := time.perf_counter()) < end:
        function()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def _difference(
    gradients: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> float:
    return max(
        float(np.abs(gradients[name] - e).max() / np.abs(e).max()) for name, e in expected.items()
    )


def _table(result: Result, num_test: int, epochs: int) -> str:
    seconds, differences = result.step_seconds, result.gradient_differences
    lines = [
        "",
        f"Test accuracy   {result.accuracy:.1%} of {num_test} sequences",
        f"Training time   {result.seconds:.1f} s for {epochs} epochs "
        f"({machine.isa()}, threads: {machine.get_num_threads()})",
        "",
        f"One training step, {BATCH_SIZE} sequences     Time       Speed   Difference of gradients",
        f"  NumPy reference, float64     {seconds['reference'] * 1e3:8.2f} ms     1.0 x",
    ]
    for dtype in ("float64", "float32"):
        lines.append(
            f"  lstmcore, {dtype}            {seconds[dtype] * 1e3:8.2f} ms  "
            f"{seconds['reference'] / seconds[dtype]:6.1f} x   {differences[dtype]:.1e}"
        )
    return "\n".join(lines)


def _join(h: NDArray[Any]) -> NDArray[Any]:
    """Put the states (2, B, H) of both directions side by side: (B, 2*H)."""
    return np.concatenate([h[0], h[1]], axis=1)


def _rows(data: Sequences, rows: NDArray[Any]) -> Sequences:
    return Sequences(data.x[:, rows], data.lengths[rows], data.labels[rows])


def _standardized(train: Sequences, test: Sequences) -> tuple[Sequences, Sequences]:
    """Give both with mean 0 and deviation 1 of each feature over the training steps."""
    steps = train.x[np.arange(len(train.x))[:, None] < train.lengths]
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    # The padding is moved too, and does no harm: with lengths, nobody reads it.
    return (
        train._replace(x=(train.x - mean) / deviation),
        test._replace(x=(test.x - mean) / deviation),
    )
