"""What modules with matrices share: the precision of these, and int8 in the place of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np

from . import checks
from .budget import BUDGET
from .calibration import rounded
from .checks import Array
from .module import Module
from .parameter import Parameter, Watch

__all__ = ["PRECISIONS", "SCALE", "LowPrecision", "PrecisionOfParts", "check_precision"]

PRECISIONS = ("float32", "bfloat16", "bfloat16x3")

# Set while a module is made from a file that has its matrices in int8.
_IN_INT8: ContextVar[bool] = ContextVar("IN_INT8", default=False)
SCALE = "_scale"  # behind the name of a matrix in int8: the scales of its rows


def check_precision(value: Any, name: str, dtype: np.dtype[Any] | None = None) -> str:
    """Return a precision, or refuse what is none, or none beside the dtype."""
    if value == "int8":
        raise ValueError(f"{name} is 'int8', which lstmcore.quantize(model) makes of a model")
    precision: str = checks.choice(value, name, PRECISIONS)
    if dtype == np.float64 and precision != "float32":
        raise ValueError(f"{name} is {precision!r}, which needs dtype='float32', not float64")
    return precision


class LowPrecision(Module):
    """A module whose matrices may be rounded to bfloat16 where they are read, or be int8."""

    # What the names of the matrices begin with that may be in int8.
    _MATRICES: ClassVar[tuple[str, ...]] = ()
    # How many columns one may have then: kMostQuantized in cpp/kernels/kernel_table.h.
    _MOST_COLUMNS: ClassVar[float] = 32768

    @property
    def precision(self) -> str:
        """What matrices are read as: float32, bfloat16, bfloat16x3, int8, or float64.

        It can be set to the first three at any time, and the parameters stay as they are.
        ``"int8"`` is what `lstmcore.quantize` makes, float64 follows from the dtype.
        """
        if self._quantized:
            return "int8"
        precision: str = getattr(self._config, "precision", "float32")
        return self._config.dtype.name if precision == "float32" else precision

    @precision.setter
    def precision(self, value: str) -> None:
        if not self._has_precision:
            raise AttributeError(f"{self!r} has no precision to be set: it computes in its dtype")
        self._set_precision(self._check_precision(value, "precision"))

    def _check_precision(self, value: Any, name: str) -> str:
        dtype = self._config.dtype
        if value == dtype.name == "float64":
            return "float32"  # nothing else than the dtype
        precision = check_precision(value, name, dtype)
        if self._quantized:
            raise TypeError(
                f"{self!r} is in int8, expected the model that it was made of by quantize(): its "
                "precision can be set"
            )
        return precision

    def _set_precision(self, value: str) -> None:
        config = copy.copy(self._config)
        config.__dict__["precision"] = value
        self._config = config
        self._watch.token = object()  # what is packed, and copies for streams, are of the old one

    def _make_parameters(
        self, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: np.dtype[Any]
    ) -> None:
        if not _IN_INT8.get():
            super()._make_parameters(shapes, dtype)
            return
        budget = BUDGET.get()
        laid_out: list[tuple[str, tuple[int, ...], np.dtype[Any]]] = []
        for name, shape in shapes:  # of which a file can ask for millions
            made = self._in_int8(name, shape, dtype)
            if budget is not None:
                for part, size, kind in made:
                    list(budget.take([(part, size)], kind))
            laid_out += made
        self._quantized = True
        self._watch = Watch()
        self._parameters = {
            name: Parameter._empty(name, shape, kind, self._watch) for name, shape, kind in laid_out
        }
        for parameter in self._parameters.values():
            parameter.trainable = False

    def _in_int8(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
        """Return the arrays that a parameter is in int8: a matrix has scales beside it."""
        if not name.startswith(self._MATRICES):
            return [(name, shape, dtype)]
        if shape[1] > self._MOST_COLUMNS:
            raise ValueError(
                f"{self!r}: {name} has {shape[1]} columns, expected at most "
                f"{self._MOST_COLUMNS} in int8"
            )
        return [
            (name, shape, np.dtype(np.int8)),
            (name + SCALE, shape[:1], np.dtype(np.float32)),
        ]

    def _quantize(self, name: str, moments: Mapping[int, Array]) -> bool:
        if self._quantized or not self._MATRICES:
            return self._quantized
        if self._config.dtype != np.float32:
            raise TypeError(
                f"{name} is {self._config.dtype.name}, expected float32: int8 is rounded from that"
            )
        given = self._parameters
        quantized = {}
        for key, p in given.items():
            if key.startswith(self._MATRICES):
                matrix = rounded(np.asarray(p._storage), moments.get(id(p)))
                if matrix is None:
                    raise ValueError(f"{key} of {name} holds NaN or infinity, which int8 has not")
                quantized[key] = matrix
        token = _IN_INT8.set(True)
        try:
            self._make_parameters([(key, p.shape) for key, p in given.items()], self._config.dtype)
        finally:
            _IN_INT8.reset(token)
        for key, p in given.items():
            if key in quantized:
                values, scales = quantized[key]
                self._parameters[key]._storage[...] = values
                self._parameters[key + SCALE]._storage[...] = scales
            else:
                self._parameters[key]._storage[...] = p._storage
        self._set_precision("float32")
        return True

    def _refuse_in_int8(self, what: str) -> None:
        """Refuse what is for modules that can be trained."""
        if self._quantized and not _IN_INT8.get():
            raise TypeError(
                f"{self!r} is in int8, for inference alone: {what} is for the model that it was "
                "made of by quantize()"
            )

    def _options(self) -> dict[str, Any]:
        options = {**super()._options(), "precision": self.precision}
        if options["precision"] in ("float32", "float64"):
            del options["precision"]  # as files of older versions have it
        return options

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Module:
        options = dict(options)
        in_int8 = options.get("precision") == "int8"
        if in_int8:
            del options["precision"]
        token = _IN_INT8.set(in_int8)
        try:
            return super()._from_options(options)
        finally:
            _IN_INT8.reset(token)


class PrecisionOfParts(Module):
    """What containers share: the precision of the layers, cells, Linear and Embedding in them."""

    @property
    def precision(self) -> str:
        """That of all recurrent layers, Linear and Embedding in it, or ``"mixed"``.

        Setting it sets that of each of them, or of none if one refuses.
        """
        found = {part.precision for _, part in self._parts()}
        return found.pop() if len(found) == 1 else "mixed"

    @precision.setter
    def precision(self, value: str) -> None:
        parts = self._parts()
        checked = [part._check_precision(value, f"precision of module {p}") for p, part in parts]
        for (_, part), precision in zip(parts, checked, strict=True):
            part._set_precision(precision)

    def _parts(self) -> list[tuple[str, Any]]:
        parts = [(path, module) for path, module in self._modules() if module._has_precision]
        if not parts:
            raise ValueError(
                f"{self!r} has no precision: it has no recurrent layer, Linear or Embedding"
            )
        return parts
