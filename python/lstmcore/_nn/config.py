"""What a layer is: options, checked; names and shapes of parameters; a description for the core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar, overload

import numpy as np

from .. import _core
from .._base import checks
from .._base.checks import Activation
from .._base.machine import memory_limit

MERGES = ("concat", "sum", "mul", "ave")

# What the activations of each kind are for, and their defaults.
_ROLES = {
    "rnn": (),
    "lstm": ("gates", "candidate g", "output h(c)"),
    "gru": ("gates", "candidate n"),
}
_ACTIVATIONS = {
    "rnn": (),
    "lstm": ("sigmoid", "tanh", "tanh"),
    "gru": ("sigmoid", "tanh"),
}


@dataclass(frozen=True)
class Config:
    """The options of a layer or cell of any kind; those that its kind lacks keep their defaults."""

    kind: str  # "rnn", "lstm" or "gru"
    input_size: int
    hidden_size: int
    num_layers: int = 1
    nonlinearity: Activation = "tanh"
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    reverse: bool = False
    merge: str = "concat"
    proj_size: int = 0
    forget_gate: bool = True
    coupled: bool = False
    peephole: bool = False
    cell_clip: float | None = None
    gate_clip: float | None = None
    reset_after: bool = True
    activations: tuple[Activation, ...] | None = None  # None: the defaults of the kind
    forget_bias: float | None = None
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009 (immutable)

    def __post_init__(self) -> None:
        """Check every option by itself, then together."""
        checked: dict[str, Any] = {
            "input_size": checks.integer(self.input_size, "input_size", 1),
            "hidden_size": checks.integer(self.hidden_size, "hidden_size", 1),
            "num_layers": checks.integer(self.num_layers, "num_layers", 1),
            "nonlinearity": checks.activation(self.nonlinearity, "nonlinearity"),
            "dropout": checks.probability(self.dropout, "dropout"),
            "merge": checks.choice(self.merge, "merge", MERGES),
            "proj_size": checks.integer(self.proj_size, "proj_size", 0),
            "dtype": checks.dtype(self.dtype),
        }
        for field in fields(self):
            if field.type == "bool":
                checked[field.name] = checks.boolean(getattr(self, field.name), field.name)
        activations = _ACTIVATIONS[self.kind] if self.activations is None else self.activations
        checked["activations"] = checks.activations(activations, _ROLES[self.kind])
        for name in ("cell_clip", "gate_clip", "forget_bias"):
            if getattr(self, name) is not None:
                checked[name] = checks.number(getattr(self, name), name)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_values()
        self._check_contradictions()
        self._check_memory()

    def _check_values(self) -> None:
        for name, clip in (("cell_clip", self.cell_clip), ("gate_clip", self.gate_clip)):
            if clip is not None and clip <= 0:
                raise ValueError(f"{name} is {clip}, expected a number above 0, or None")
        for name, value in self._numbers():
            checks.fits(value, name, self.dtype)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size is {self.proj_size}, expected less than hidden_size, which is "
                f"{self.hidden_size}, or 0 for no projection"
            )

    def _numbers(self) -> Iterator[tuple[str, float]]:
        """Name and value of every option that becomes a number of the layer's dtype."""
        for name in ("cell_clip", "gate_clip", "forget_bias"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        named = [(f"activations[{i}]", a) for i, a in enumerate(self.activations or ())]
        for name, activation in [("nonlinearity", self.nonlinearity), *named]:
            if not isinstance(activation, str):
                kind, alpha, beta = activation
                yield f"{name}, alpha of {kind!r}", alpha
                yield f"{name}, beta of {kind!r}", beta

    def _check_contradictions(self) -> None:
        biased = self.forget_bias is not None
        forget_bias = f"forget_bias={self.forget_bias}"
        merge = f"merge={self.merge!r}"
        for wrong, one, other in (
            (self.reverse and self.bidirectional, "reverse=True", "bidirectional=True"),
            (self.merge != "concat" and not self.bidirectional, merge, "bidirectional=False"),
            (self.coupled and not self.forget_gate, "coupled=True", "forget_gate=False"),
            (biased and not self.forget_gate, forget_bias, "forget_gate=False"),
            (biased and self.coupled, forget_bias, "coupled=True (there f = 1 - i)"),
            (biased and not self.bias, forget_bias, "bias=False"),
        ):
            if wrong:
                raise ValueError(f"{one} contradicts {other}")

    def _check_memory(self) -> None:
        """Refuse what would be allocated, but have the process killed when written to."""
        first, others = list(self._shapes(0)), list(self._shapes(1))
        bytes_ = 0
        for shapes, layers in ((first, 1), (others, self.num_layers - 1)):
            numbers = sum(int(np.prod(shape, dtype=object)) for _, shape in shapes)
            objects = 1024 * len(shapes)  # roughly, for Parameter and array themselves
            bytes_ += layers * self.directions * (numbers * self.dtype.itemsize + objects)
        if bytes_ > 2**28 and 2 * bytes_ > memory_limit():
            gib = bytes_ >> 30  # an int of any size, which a float may not hold
            raise MemoryError(
                f"input_size={self.input_size}, hidden_size={self.hidden_size}, "
                f"num_layers={self.num_layers} needs {gib} GiB of parameters, and as much to pack "
                f"them; this process may use {memory_limit() / 2**30:.3g} GiB"
            )

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P, the size of h."""
        return self.proj_size or self.hidden_size

    @property
    def features(self) -> int:
        """The size of y."""
        return self.output_size * (self.directions if self.merge == "concat" else 1)

    @property
    def gates(self) -> int:
        """How many gates are learned: i, f, g, o or i, g, o; r, z, n; or one."""
        if self.kind == "lstm":
            return 4 if self.forget_gate and not self.coupled else 3
        return 3 if self.kind == "gru" else 1

    def _shapes(self, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of the parameters of one direction of a layer, in order."""
        rows = self.gates * self.hidden_size
        yield "weight_ih", (rows, self.features if layer else self.input_size)
        yield "weight_hh", (rows, self.output_size)
        if self.bias:
            yield "bias_ih", (rows,)
            yield "bias_hh", (rows,)
        if self.peephole:
            yield "weight_ch", (self.gates - 1, self.hidden_size)
        if self.proj_size:
            yield "weight_hr", (self.proj_size, self.hidden_size)

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every parameter, in the order of the state dict."""
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                for name, shape in self._shapes(layer):
                    yield f"{name}_l{layer}{suffix}", shape

    def spec(self) -> _core.Spec:
        """The same for the core."""
        roles = self.activations or ()
        gate = roles[0] if roles else "sigmoid"
        return _core.Spec(
            kind=self.kind,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            proj_size=self.proj_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            reverse=self.reverse,
            merge=self.merge,
            bias=self.bias,
            forget_gate=self.forget_gate,
            coupled=self.coupled,
            peephole=self.peephole,
            reset_after=self.reset_after,
            cell_clip=self.cell_clip or 0.0,
            gate_clip=self.gate_clip or 0.0,
            gate_activation=_triple(gate),
            candidate_activation=_triple(roles[1] if roles else self.nonlinearity),
            output_activation=_triple(roles[2] if len(roles) > 2 else "tanh"),
            dtype=self.dtype.name,
        )

    def __str__(self) -> str:
        """As between the parentheses of a repr: the sizes, then whatever is not the default."""
        plain = Config(self.kind, 1, 2)
        text = [str(self.input_size), str(self.hidden_size)]
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value != getattr(plain, field.name):
                text.append(f"{field.name}={value.name if field.name == 'dtype' else value!r}")
        return ", ".join(text)


T = TypeVar("T")


class Option(Generic[T]):
    """A read-only attribute of a layer: one option of its `_config`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Option[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else getattr(instance._config, self.name)

    def __set__(self, instance: object, value: object) -> None:
        kind = type(instance).__name__
        raise AttributeError(f"{self.name} is fixed when the {kind} is made: make another one")


def _triple(activation: Activation) -> tuple[str, float, float]:
    return (activation, 0.0, 0.0) if isinstance(activation, str) else activation
