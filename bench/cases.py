"""What is measured: the cases, by name.

T steps, B rows, I inputs, H hidden units, L layers, D directions. A name says everything that is
not the default: ``infer/lstm/T100/B32/I256/H256``, ``train/gru/T20/B8/I64/H64/L2/D2``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["GROUPS", "Case", "all_cases", "quick_cases"]

GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": "n"}


@dataclass(frozen=True)
class Case:
    """One call to be timed: a layer, an input, and what is asked of it."""

    group: str
    mode: str  # "infer", or "train": forward, backward, every gradient
    cell: str  # "lstm", "gru", "rnn"
    T: int
    B: int
    I: int  # noqa: E741
    H: int
    L: int = 1
    D: int = 1
    proj_size: int = 0
    peephole: bool = False
    coupled: bool = False
    forget_gate: bool = True
    reset_after: bool = True
    lengths: bool = False  # rows of unequal lengths, uniform in 1 .. T
    dtype: str = "float32"
    int8: bool = False  # weights in int8, what they are multiplied with rounded as it comes
    bfloat16: bool = False  # factors in bfloat16; in PyTorch all numbers
    denormal: bool = False  # inputs and gradients too small to be normal numbers
    network: str = ""  # where layers of this shape are found
    jax: bool = False  # whether JAX, slow to compile, takes part

    @property
    def P(self) -> int:
        """Features of the hidden state."""
        return self.proj_size or self.H

    @property
    def gate_order(self) -> str:
        """The gates with weights of their own, in the order of the parameters."""
        learned = self.forget_gate and not self.coupled
        return GATES[self.cell] if learned else GATES[self.cell].replace("f", "")

    @property
    def gates(self) -> int:
        """Gates with weights of their own."""
        return len(self.gate_order)

    @property
    def layer_inputs(self) -> list[int]:
        """Features that go into each layer."""
        return [self.I] + [self.P * self.D] * (self.L - 1)

    @property
    def name(self) -> str:
        """The name, unique among all cases."""
        parts = [self.network] if self.network else []
        parts += [self.mode, self.cell]
        parts += [f"{letter}{getattr(self, letter)}" for letter in "TBIH"]
        parts += [
            f"{letter}{getattr(self, letter)}" for letter in "LD" if getattr(self, letter) > 1
        ]
        if self.proj_size:
            parts.append(f"P{self.proj_size}")
        options = {
            "peephole": self.peephole,
            "coupled": self.coupled,
            "no-forget-gate": not self.forget_gate,
            "reset-before": not self.reset_after,
            "lengths": self.lengths,
            "float64": self.dtype == "float64",
            "int8": self.int8,
            "bfloat16": self.bfloat16,
            "denormal": self.denormal,
        }
        return "/".join(parts + [option for option, on in options.items() if on])

    @property
    def baseline(self) -> Case | None:
        """The plain case that a variant is compared with; None if this is one."""
        plain = replace(
            self,
            proj_size=0,
            peephole=False,
            coupled=False,
            forget_gate=True,
            reset_after=True,
            lengths=False,
            dtype="float32",
            int8=False,
            bfloat16=False,
            denormal=False,
        )
        return None if plain == self else plain


# T, B, I, H and, where they are not 1, L and D.
Shapes = list[tuple[int, ...]]

INFER_LSTM: Shapes = [
    # one row, a hundred steps: latency
    *[(100, 1, h, h) for h in (16, 32, 64, 100, 128, 200, 256, 512, 1024)],
    (100, 1, 16, 64),
    (100, 1, 64, 256),
    # some rows: throughput
    (100, 4, 128, 128),
    (100, 4, 512, 512),
    (100, 8, 64, 64),
    (100, 8, 256, 256),
    (100, 8, 128, 512),
    (100, 16, 100, 100),
    (100, 16, 256, 256),
    (100, 32, 16, 16),
    (100, 32, 64, 64),
    (100, 32, 64, 256),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (100, 32, 512, 512),
    (100, 64, 32, 32),
    (100, 64, 256, 256),
    (100, 128, 128, 128),
    (100, 128, 256, 256),
    # a single step
    (1, 1, 64, 64),
    (1, 1, 256, 256),
    (1, 1, 1024, 1024),
    (1, 4, 32, 32),
    (1, 8, 16, 64),
    (1, 32, 256, 256),
    (1, 128, 512, 512),
    # short
    (20, 1, 128, 128),
    (20, 4, 25, 100),
    (20, 16, 1024, 1024),
    (20, 32, 200, 200),
    (20, 64, 50, 200),
    (20, 128, 256, 1024),
    # long
    (1000, 1, 64, 64),
    (1000, 1, 256, 256),
    (1000, 4, 128, 128),
    (1000, 16, 32, 32),
    (1000, 32, 16, 64),
    # stacked, in two directions
    (100, 1, 64, 64, 2, 1),
    (100, 1, 128, 128, 2, 1),
    (100, 1, 128, 128, 1, 2),
    (100, 1, 256, 256, 1, 2),
    (100, 8, 64, 256, 1, 2),
    (100, 32, 128, 128, 2, 1),
    (100, 64, 64, 64, 2, 2),
    (20, 1, 512, 512, 2, 2),
]
INFER_GRU: Shapes = [
    *[(100, 1, h, h) for h in (16, 64, 128, 256, 512, 1024)],
    (100, 1, 32, 128),
    (100, 8, 256, 256),
    (100, 32, 64, 64),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (100, 128, 256, 256),
    (1, 1, 128, 128),
    (1, 32, 512, 512),
    (20, 4, 100, 100),
    (20, 16, 1024, 1024),
    (20, 64, 50, 200),
    (1000, 1, 64, 64),
    (1000, 16, 32, 32),
    (100, 1, 128, 128, 2, 1),
    (100, 1, 128, 128, 1, 2),
    (100, 32, 64, 64, 2, 2),
]
INFER_RNN: Shapes = [
    *[(100, 1, h, h) for h in (32, 64, 256, 512, 1024)],
    (100, 8, 256, 256),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (100, 128, 256, 256),
    (1, 1, 256, 256),
    (1, 128, 128, 128),
    (20, 16, 1024, 1024),
    (20, 64, 50, 200),
    (1000, 1, 100, 100),
    (1000, 4, 16, 16),
    (100, 32, 64, 64, 2, 2),
]
TRAIN_LSTM: Shapes = [
    (100, 1, 128, 128),
    (100, 8, 16, 64),
    (100, 32, 64, 64),
    (100, 32, 128, 128),
    (100, 32, 256, 256),
    (100, 128, 256, 256),
    (1, 32, 256, 256),
    (20, 4, 100, 100),
    (20, 32, 512, 512),
    (20, 32, 128, 512),
    (20, 32, 1024, 1024),
    (20, 64, 32, 32),
    (1000, 4, 64, 64),
    (100, 16, 200, 200, 2, 1),
    (100, 32, 128, 128, 1, 2),
]
TRAIN_GRU: Shapes = [
    (100, 1, 128, 128),
    (100, 32, 64, 64),
    (100, 32, 256, 256),
    (100, 128, 128, 128),
    (20, 32, 512, 512),
    (1000, 4, 16, 64),
    (100, 16, 100, 100, 1, 2),
]
TRAIN_RNN: Shapes = [
    (100, 4, 128, 128),
    (100, 32, 64, 64),
    (100, 32, 256, 256),
    (20, 128, 512, 512),
]

UNEQUAL: list[tuple[str, str, tuple[int, ...]]] = [
    ("infer", "lstm", (100, 32, 128, 128)),
    ("infer", "lstm", (100, 16, 64, 128, 1, 2)),
    ("infer", "gru", (100, 32, 128, 128)),
    ("train", "lstm", (100, 32, 128, 128)),
    ("train", "lstm", (100, 64, 64, 64)),
    ("train", "lstm", (1000, 16, 64, 64)),
    ("train", "gru", (100, 32, 128, 128)),
    ("train", "rnn", (100, 32, 128, 128)),
]

# Sizes met in real networks: (name, mode, cell, shape).
NETWORKS: list[tuple[str, str, str, tuple[int, ...]]] = [
    ("speech-encoder-first", "infer", "lstm", (350, 1, 240, 1024)),
    ("speech-encoder-inner", "infer", "lstm", (170, 2, 1024, 1024)),
    ("speech-encoder-halved", "infer", "lstm", (170, 2, 2048, 1024)),
    ("transducer-step", "infer", "lstm", (1, 1, 320, 320)),
    ("transducer-beam", "infer", "lstm", (1, 16, 320, 320)),
    ("translation-step", "infer", "lstm", (1, 10, 1024, 1024)),
    ("translation-encoder", "infer", "lstm", (30, 1, 512, 512, 1, 2)),
    ("word-model", "infer", "lstm", (50, 1, 500, 500)),
    ("tagger", "infer", "lstm", (40, 16, 100, 200, 1, 2)),
    ("spectrogram-rnn", "infer", "rnn", (50, 16, 1760, 1760)),
    ("voice-features", "infer", "gru", (83, 16, 379, 681)),
    ("keyword-spotter", "infer", "gru", (100, 1, 40, 128)),
    ("noise-suppressor-step", "infer", "gru", (1, 1, 42, 96)),
    ("character-model", "train", "lstm", (100, 32, 65, 512, 2, 1)),
    ("rainfall-runoff", "train", "lstm", (365, 32, 27, 256)),
    ("policy-step", "infer", "lstm", (1, 16, 64, 256)),
    ("policy", "train", "lstm", (20, 8, 64, 256)),
    ("speaker-vowels", "train", "gru", (29, 30, 12, 32, 1, 2)),
]

# What XLA takes part in: enough to see where it stands.
JAX = {
    ("lstm", (100, 1, 64, 64)),
    ("lstm", (100, 1, 256, 256)),
    ("lstm", (100, 32, 256, 256)),
    ("gru", (100, 1, 64, 64)),
    ("gru", (100, 32, 256, 256)),
    ("rnn", (100, 32, 256, 256)),
}

QUICK = {
    "infer/lstm/T100/B1/I64/H64",
    "infer/lstm/T100/B1/I256/H256",
    "infer/lstm/T100/B32/I256/H256",
    "infer/lstm/T1/B1/I256/H256",
    "infer/lstm/T100/B1/I128/H128/D2",
    "infer/gru/T100/B1/I64/H64",
    "infer/gru/T100/B32/I256/H256",
    "infer/rnn/T100/B32/I256/H256",
    "train/lstm/T100/B32/I128/H128",
    "train/gru/T100/B32/I64/H64",
    "train/lstm/T100/B32/I128/H128/lengths",
    "infer/lstm/T100/B32/I256/H256/peephole",
}


def _case(group: str, mode: str, cell: str, shape: tuple[int, ...], network: str = "") -> Case:
    T, B, I, H, L, D = (*shape, 1, 1)[:6]  # noqa: E741
    jax = mode == "infer" and (cell, shape) in JAX
    return Case(group, mode, cell, T, B, I, H, L, D, network=network, jax=jax)


def _grid() -> Iterator[Case]:
    for mode, cell, shapes in (
        ("infer", "lstm", INFER_LSTM),
        ("infer", "gru", INFER_GRU),
        ("infer", "rnn", INFER_RNN),
        ("train", "lstm", TRAIN_LSTM),
        ("train", "gru", TRAIN_GRU),
        ("train", "rnn", TRAIN_RNN),
    ):
        group = "inference" if mode == "infer" else "training"
        yield from (_case(group, mode, cell, shape) for shape in shapes)


def _variants() -> Iterator[Case]:
    for mode, shape in (
        ("infer", (100, 1, 128, 128)),
        ("infer", (100, 32, 256, 256)),
        ("train", (100, 32, 128, 128)),
    ):
        lstm, gru, rnn = (_case("variants", mode, cell, shape) for cell in ("lstm", "gru", "rnn"))
        yield replace(lstm, peephole=True)
        yield replace(lstm, coupled=True)
        yield replace(lstm, forget_gate=False)
        yield replace(lstm, proj_size=lstm.H // 2)
        yield replace(gru, reset_after=False)
        yield from (replace(plain, dtype="float64") for plain in (lstm, gru, rnn))
        yield from (replace(plain, denormal=True) for plain in (lstm, gru, rnn))


GROUPS = ("inference", "training", "lengths", "variants", "networks")


def all_cases() -> list[Case]:
    """Return every case, in the order of the tables."""
    cases = list(_grid())
    cases += [replace(_case("lengths", *case), lengths=True) for case in UNEQUAL]
    cases += [replace(case, jax=False) for case in _variants()]
    cases += [_case("networks", mode, cell, shape, name) for name, mode, cell, shape in NETWORKS]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def quick_cases() -> list[Case]:
    """Return a dozen that say most."""
    return [case for case in all_cases() if case.name in QUICK]


def as_dict(case: Case) -> dict[str, object]:
    """Return what JSON keeps of a case."""
    return {"name": case.name, **dataclasses.asdict(case)}
