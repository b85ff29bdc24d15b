"""Models with recurrent layers that are no chain of modules, as people export them from PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

INPUTS, HIDDEN, WORDS = 40, 64, 200


class Pooled(nn.Module):
    """A bidirectional LSTM, and attention over its steps that leaves one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(INPUTS, HIDDEN, batch_first=True, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
        self.head = nn.Linear(2 * HIDDEN, 10)

    def forward(self, x: Any) -> Any:
        """Return the scores of classes."""
        y, _ = self.rnn(x)
        return self.head((torch.softmax(self.score(y), 1) * y).sum(1))


class LastWord(nn.Module):
    """An embedding and an LSTM, of which the last step of each row counts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, INPUTS)
        self.rnn = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 10)

    def forward(self, ids: Any, lengths: Any) -> Any:
        """Return the scores of classes."""
        y, _ = self.rnn(self.table(ids))
        return self.head(y[torch.arange(y.shape[0]), lengths - 1])


class TwoInputs(nn.Module):
    """A GRU of a sequence, and features that do not change with time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(INPUTS, HIDDEN, batch_first=True)
        self.static = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(HIDDEN + 16, 32), nn.ELU(), nn.Linear(32, 1))

    def forward(self, x: Any, features: Any) -> Any:
        """Return one number for each row."""
        _, h = self.rnn(x)
        return self.head(torch.cat([h[-1], self.static(features)], -1))


class Translator(nn.Module):
    """An encoder, and a decoder that looks at its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
        self.table = nn.Embedding(WORDS, INPUTS)
        self.decoder = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
        self.query = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.head = nn.Linear(2 * HIDDEN, WORDS)

    def forward(self, x: Any, ids: Any) -> Any:
        """Return the scores of words after each one."""
        memory, state = self.encoder(x)
        y, _ = self.decoder(self.table(ids), state)
        weights = torch.softmax(self.query(y) @ memory.transpose(1, 2) / HIDDEN**0.5, -1)
        return self.head(torch.cat([y, weights @ memory], -1))


class Residual(nn.Module):
    """GRUs one upon the other, each added to what it reads, and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, HIDDEN)
        self.rnns = nn.ModuleList(nn.GRU(HIDDEN, HIDDEN, batch_first=True) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(3))
        self.head = nn.Linear(HIDDEN, 10)

    def forward(self, x: Any, h0: Any) -> Any:
        """Return scores of each step, and the new states."""
        x, states = self.first(x), []
        for i, (rnn, norm) in enumerate(zip(self.rnns, self.norms, strict=True)):
            y, h = rnn(x, h0[i : i + 1])
            x = norm(x + y)
            states.append(h)
        return torch.log_softmax(self.head(x), -1), torch.cat(states)


class Convolved(nn.Module):
    """Convolutions over time, a bidirectional LSTM, scores of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv1d(INPUTS, HIDDEN, 3, padding=1), nn.BatchNorm1d(HIDDEN), nn.ReLU(),
            nn.Conv1d(HIDDEN, HIDDEN, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.rnn = nn.LSTM(HIDDEN, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 30)

    def forward(self, x: Any) -> Any:
        """Return the scores of each step."""
        y, _ = self.rnn(self.convs(x.transpose(1, 2)).transpose(1, 2))
        return torch.log_softmax(self.head(y), -1)


class Gated(nn.Module):
    """Features that are weighted by a gate of their own, then a cell, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.Sigmoid())
        self.cell = nn.LSTMCell(INPUTS, HIDDEN)
        self.head = nn.Linear(HIDDEN, 10)

    def forward(self, x: Any, h0: Any, c0: Any) -> Any:
        """Return the scores of a step, and the states."""
        h, c = self.cell(x * self.gate(x), (h0, c0))
        return torch.softmax(self.head(h), -1), h, c


class Case(NamedTuple):
    """A model and what it takes, of so many steps."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, np.random.Generator], tuple[Any, ...]]
    names: tuple[str, ...]
    steps: tuple[int, ...] = (1, 100)


def _real(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype("float32")


CASES = [
    Case("bidirectional LSTM, attention pooling", Pooled,
         lambda T, rng: (_real(rng, 1, T, INPUTS),), ("x",)),
    Case("embedding, LSTM, last step of each row", LastWord,
         lambda T, rng: (rng.integers(0, WORDS, (1, T)), np.array([T])), ("ids", "lengths")),
    Case("GRU and features that do not change", TwoInputs,
         lambda T, rng: (_real(rng, 1, T, INPUTS), _real(rng, 1, 8)), ("x", "features")),
    Case("encoder, decoder, attention", Translator,
         lambda T, rng: (_real(rng, 1, T, INPUTS), rng.integers(0, WORDS, (1, T))), ("x", "ids")),
    Case("GRUs with residuals and layer norm", Residual,
         lambda T, rng: (_real(rng, 1, T, INPUTS), _real(rng, 3, 1, HIDDEN)), ("x", "h0")),
    Case("convolutions, bidirectional LSTM", Convolved,
         lambda T, rng: (_real(rng, 1, T, INPUTS),), ("x",)),
    Case("gate and LSTM cell", Gated,
         lambda T, rng: (_real(rng, 1, INPUTS), _real(rng, 1, HIDDEN), _real(rng, 1, HIDDEN)),
         ("x", "h0", "c0"), (1,)),
]  # fmt: skip
