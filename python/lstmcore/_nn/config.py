"""What a layer is: options, checked; names and shapes of parameters; a description for the core.

`Config` is the one table of options. A new option is a line in it (name, type, rule, default), and
a keyword with its docstring in the layers and cells that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_type_hints, overload

import numpy as np

from .. import _core
from .._base import checks
from .._base.checks import Activation
from .._base.low_precision import check_precision
from .._base.machine import memory_limit

KINDS = ("rnn", "lstm", "gru")
MERGES = ("concat", "sum", "mul", "ave")

# What the activations of each kind are for, and their defaults.
_ROLES = {
    "rnn": (),
    "lstm": ("gates", "candidate g", "output h(c)"),
    "gru": ("gates", "candidate n"),
}
_ACTIVATIONS: dict[str, tuple[Activation, ...]] = {
    "rnn": (),
    "lstm": ("sigmoid", "tanh", "tanh"),
    "gru": ("sigmoid", "tanh"),
}


# The table ----------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What is known of an option beside its name, type and default."""

    check: Callable[[Any, str], Any]  # (value, name) -> value; not called for a default of None
    kinds: tuple[str, ...] = KINDS  # those that have the option
    cells: bool = True  # whether cells have it, too, or layers only
    core: bool = True  # whether it is an option of the core's Spec, too, under the same name
    encode: Callable[[Any], Any] | None = None  # value -> what the Spec gets for it
    number: bool = False  # whether the core computes with it, so that the dtype must hold it


_size = partial(checks.integer, least=1)
Zoneout = float | tuple[float, float]
_size_or_0 = partial(checks.integer, least=0)
_merge = partial(checks.choice, choices=MERGES)


def _clip(value: Any, name: str) -> float:
    clip = checks.number(value, name)
    if clip <= 0:
        raise ValueError(f"{name} is {clip}, expected a number above 0, or None")
    return clip


def _zoneout(value: Any, name: str) -> Zoneout:
    if not isinstance(value, (tuple, list)):
        return checks.probability(value, name)
    if len(value) != 2:
        raise ValueError(f"{name} has {len(value)} entries, expected two: of h and of c")
    return checks.probability(value[0], name), checks.probability(value[1], name)


def _by_role(value: Any, name: str) -> Any:
    return value  # activations: Config checks them, because what they are for goes by its kind


def _dtype(value: Any, name: str) -> np.dtype[Any]:
    return checks.dtype(value)


def _or_zero(clip: float | None) -> float:
    return clip or 0.0  # which is no limit, in the core


def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name


@dataclass(frozen=True)
class Config:
    """The options of a layer or cell of any kind; those that its kind lacks keep their defaults."""

    kind: str  # "rnn", "lstm" or "gru"
    input_size: Annotated[int, Rule(_size)]
    hidden_size: Annotated[int, Rule(_size)]
    num_layers: Annotated[int, Rule(_size, cells=False)] = 1
    nonlinearity: Annotated[Activation, Rule(checks.activation, ("rnn",), core=False)] = "tanh"
    bias: Annotated[bool, Rule(checks.boolean)] = True
    batch_first: Annotated[bool, Rule(checks.boolean, cells=False, core=False)] = False
    dropout: Annotated[float, Rule(checks.probability, cells=False, core=False)] = 0.0
    input_dropout: Annotated[float, Rule(checks.probability, cells=False, core=False)] = 0.0
    recurrent_dropout: Annotated[float, Rule(checks.probability, cells=False, core=False)] = 0.0
    weight_dropout: Annotated[float, Rule(checks.probability, cells=False, core=False)] = 0.0
    bidirectional: Annotated[bool, Rule(checks.boolean, cells=False)] = False
    reverse: Annotated[bool, Rule(checks.boolean, cells=False)] = False
    merge: Annotated[str, Rule(_merge, cells=False)] = "concat"
    proj_size: Annotated[int, Rule(_size_or_0, ("lstm",))] = 0
    forget_gate: Annotated[bool, Rule(checks.boolean, ("lstm",))] = True
    coupled: Annotated[bool, Rule(checks.boolean, ("lstm",))] = False
    peephole: Annotated[bool, Rule(checks.boolean, ("lstm",))] = False
    cell_clip: Annotated[float | None, Rule(_clip, ("lstm",), encode=_or_zero, number=True)] = None
    gate_clip: Annotated[float | None, Rule(_clip, encode=_or_zero, number=True)] = None
    zoneout: Annotated[Zoneout, Rule(_zoneout, core=False)] = 0.0
    layer_norm: Annotated[bool, Rule(checks.boolean)] = False
    reset_after: Annotated[bool, Rule(checks.boolean, ("gru",))] = True
    activations: Annotated[
        tuple[Activation, ...] | None,  # None: the defaults of the kind
        Rule(_by_role, ("lstm", "gru"), core=False),
    ] = None
    forget_bias: Annotated[
        float | None, Rule(checks.number, ("lstm",), core=False, number=True)
    ] = None
    dtype: Annotated[np.dtype[Any], Rule(_dtype, encode=_name)] = np.dtype(np.float32)  # noqa: RUF009
    precision: Annotated[str, Rule(check_precision, core=False)] = "float32"

    def __post_init__(self) -> None:
        """Check every option by itself, then together."""
        given = _ACTIVATIONS[self.kind] if self.activations is None else self.activations
        checked: dict[str, Any] = {}
        for name, rule in OPTIONS.items():
            value = getattr(self, name)
            if value is not None or _DEFAULTS[name] is not None:
                checked[name] = rule.check(value, name)
        checked["activations"] = checks.activations(given, _ROLES[self.kind])
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_values()
        self._check_contradictions()
        self._check_memory()

    def _check_values(self) -> None:
        for name, rule in OPTIONS.items():
            if self.kind not in rule.kinds and getattr(self, name) != self._default(name):
                raise TypeError(f"{name} is given, which {self.kind.upper()} does not have")
        for name, value in self._numbers():
            checks.fits(value, name, self.dtype)
        if self.kind != "lstm" and isinstance(self.zoneout, tuple):
            raise ValueError(
                f"zoneout is {self.zoneout}, expected one number: {self.kind.upper()} has no c"
            )
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size is {self.proj_size}, expected less than hidden_size, which is "
                f"{self.hidden_size}, or 0 for no projection"
            )

    def _numbers(self) -> Iterator[tuple[str, float]]:
        """Name and value of every option that becomes a number of the layer's dtype."""
        for name, rule in OPTIONS.items():
            if rule.number and getattr(self, name) is not None:
                yield name, getattr(self, name)
        named = [(f"activations[{i}]", a) for i, a in enumerate(self.activations or ())]
        for name, activation in [("nonlinearity", self.nonlinearity), *named]:
            if not isinstance(activation, str):
                kind, *numbers = activation
                for parameter, number in zip(("alpha", "beta"), numbers, strict=False):
                    yield f"{name}, {parameter} of {kind!r}", number

    def _check_contradictions(self) -> None:
        biased = self.forget_bias is not None
        forget_bias = f"forget_bias={self.forget_bias}"
        merge = f"merge={self.merge!r}"
        before = (
            "reset_after=False (there r is needed before the product of all gates, which is "
            "normalised, is whole), expected reset_after=True"
        )
        for wrong, one, other in (
            (self.reverse and self.bidirectional, "reverse=True", "bidirectional=True"),
            (self.merge != "concat" and not self.bidirectional, merge, "bidirectional=False"),
            (self.coupled and not self.forget_gate, "coupled=True", "forget_gate=False"),
            (self.layer_norm and not self.reset_after, "layer_norm=True", before),
            (biased and not self.forget_gate, forget_bias, "forget_gate=False"),
            (biased and self.coupled, forget_bias, "coupled=True (there f = 1 - i)"),
            (biased and not self.bias, forget_bias, "bias=False"),
        ):
            if wrong:
                raise ValueError(f"{one} contradicts {other}")
        check_precision(self.precision, "precision", self.dtype)

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
    def zoneouts(self) -> tuple[float, float]:
        """Zoneout of h and of c."""
        if isinstance(self.zoneout, tuple):
            return self.zoneout
        return self.zoneout, self.zoneout if self.kind == "lstm" else 0.0

    @property
    def dropouts(self) -> tuple[float, float, float]:
        """What the core drops in training: between layers, of the input, of h into W_hh."""
        return self.dropout, self.input_dropout, self.recurrent_dropout

    @property
    def draws(self) -> bool:
        """Whether training is random."""
        return any((*self.dropouts, *self.zoneouts, self.weight_dropout))

    @property
    def gate_order(self) -> str:
        """The gates that are learned, in the order of the parameters: "ifgo", "igo", "rzn", "n"."""
        if self.kind == "lstm":
            return "ifgo" if self.forget_gate and not self.coupled else "igo"
        return "rzn" if self.kind == "gru" else "n"

    @property
    def gates(self) -> int:
        """How many gates are learned."""
        return len(self.gate_order)

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
        if self.layer_norm:
            yield "weight_ln_ih", (rows,)
            yield "weight_ln_hh", (rows,)
            if self.kind == "lstm":
                yield "weight_ln_c", (self.hidden_size,)
                yield "bias_ln_c", (self.hidden_size,)

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every parameter, in the order of the state dict."""
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                for name, shape in self._shapes(layer):
                    yield f"{name}_l{layer}{suffix}", shape

    def spec(self) -> _core.Spec:
        """The same for the core."""
        roles = self.activations or ()
        options = {name: getattr(self, name) for name, rule in OPTIONS.items() if rule.core}
        for name, encode in _ENCODED.items():
            options[name] = encode(options[name])
        return _core.Spec(
            kind=self.kind,
            zoneout=self.zoneouts,
            gate_activation=_triple(roles[0] if roles else "sigmoid"),
            candidate_activation=_triple(roles[1] if roles else self.nonlinearity),
            output_activation=_triple(roles[2] if len(roles) > 2 else "tanh"),
            **options,
        )

    def _default(self, name: str) -> Any:
        return _ACTIVATIONS[self.kind] if name == "activations" else _DEFAULTS[name]

    def __str__(self) -> str:
        """As between the parentheses of a repr: the sizes, then whatever is not the default."""
        text = [str(self.input_size), str(self.hidden_size)]
        for name in list(OPTIONS)[2:]:
            value = getattr(self, name)
            if value != self._default(name):
                text.append(f"{name}={value.name if name == 'dtype' else value!r}")
        return ", ".join(text)


OPTIONS: dict[str, Rule] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Config, include_extras=True).items()
    if name != "kind"
}
_ENCODED = {name: rule.encode for name, rule in OPTIONS.items() if rule.encode}
_DEFAULTS = {field.name: field.default for field in fields(Config)}


@cache
def options_of(kind: str, cell: bool = False) -> tuple[str, ...]:
    """Return the names of the options that the layer or the cell of a kind has."""
    return tuple(
        name for name, rule in OPTIONS.items() if kind in rule.kinds and (rule.cells or not cell)
    )


# A layer's attributes -----------------------------------------------------------------------------


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
    name, *numbers = (activation,) if isinstance(activation, str) else activation
    alpha, beta, *_ = (*numbers, 0.0, 0.0)
    return name, alpha, beta
