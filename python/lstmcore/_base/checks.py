"""Checks of what users hand in.

Every message names the argument, what it has and what is expected.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .symbolic import Symbolic

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Activation: TypeAlias = str | tuple[str, float] | tuple[str, float, float]

# Activations with parameters, alpha or alpha and beta, and their defaults; the others take none.
_PARAMETERS: dict[str, tuple[float | None, ...]] = {
    "hard_sigmoid": (0.2, 0.5),
    "scaled_tanh": (None, None),
    "affine": (None, None),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "elu": (1.0,),
}
_NOT_NEGATIVE = ("leaky_relu", "thresholded_relu", "elu")  # alpha
_ACTIVATIONS = (
    "sigmoid",
    "tanh",
    "relu",
    "hard_sigmoid",
    "scaled_tanh",
    "softsign",
    "identity",
    "affine",
    "leaky_relu",
    "thresholded_relu",
    "elu",
    "selu",
    "softplus",
    "exponential",
    "gelu",
    "silu",
    "mish",
    "hard_silu",
)


def describe(value: object) -> str:
    """Return what messages call a value: ``3.0 (float)``, ``a ndarray of shape (2, 3)``.

    Or ``a tuple of 2 arrays``, ``a dict of 'x', 'y'``.
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    if isinstance(value, (tuple, list, dict)) and type(value) in (tuple, list, dict):
        parts = list(value.values() if isinstance(value, dict) else value)
        if any(getattr(part, "shape", ()) for part in parts):
            of = f"{len(parts)} array{'s' * (len(parts) > 1)}"
            of = ", ".join(map(repr, value)) if isinstance(value, dict) else of
            return f"a {type(value).__name__} of {of}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


# Options ------------------------------------------------------------------------------------------


def integer(value: object, name: str, least: int) -> int:
    """Return an int that is at least `least`; a bool is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {describe(value)}, expected an int")
    if value < least:
        raise ValueError(f"{name} is {value}, expected at least {least}")
    return int(value)


def boolean(value: object, name: str) -> bool:
    """Return a bool; 0 and 1 are not."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {describe(value)}, expected a bool")
    return bool(value)


def number(value: object, name: str) -> float:
    """Return a finite float."""
    no_number = (bool, np.timedelta64)  # which isinstance takes for integers
    if isinstance(value, no_number) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {describe(value)}, expected a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int too large
        finite = False
    if not finite:
        raise ValueError(f"{name} is {value}, expected a finite number")
    return float(value)


def probability(value: object, name: str) -> float:
    """Return a probability below 1, of being dropped."""
    p = number(value, name)
    if not 0 <= p < 1:
        raise ValueError(f"{name} is {p}, expected 0 <= {name} < 1")
    return p


def fits(value: float, name: str, dtype: np.dtype[Any]) -> None:
    """Refuse what the layer's dtype holds only as infinity, a denormal or zero."""
    limits = np.finfo(dtype)
    if value and not float(limits.tiny) <= abs(value) <= float(limits.max):
        raise ValueError(
            f"{name} is {value}, expected 0 or a size from {limits.tiny:.3g} to {limits.max:.3g}, "
            f"the normal numbers of {dtype}"
        )


def choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """Return one of a few strings."""
    expected = ", ".join(map(repr, choices))
    if not isinstance(value, str):
        raise TypeError(f"{name} is {describe(value)}, expected one of {expected}")
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {expected}")
    return value


def dtype(value: object) -> np.dtype[Any]:
    """Return NumPy's float32 or float64."""
    result: np.dtype[Any] | None = None
    if value is not None:  # which NumPy takes for float64
        with contextlib.suppress(TypeError, ValueError):
            result = np.dtype(value)  # type: ignore[call-overload]
    if result is None or result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype is {describe(value)}, expected 'float32' or 'float64'")
    return result


def activation(value: object, name: str) -> Activation:
    """Return an activation by its name, or as (name, alpha, ...) if it has parameters."""
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not parts or not isinstance(parts[0], str):
        raise TypeError(f"{name} is {describe(value)}, expected a name or (name, alpha, beta)")
    kind = choice(parts[0], name, _ACTIVATIONS)
    if kind not in _PARAMETERS:
        if len(parts) > 1:
            raise ValueError(f"{name} is {value!r}, but {kind!r} takes no parameters")
        return kind
    defaults = _PARAMETERS[kind]
    names = ("alpha", "beta")[: len(defaults)]
    given = parts[1:] or defaults
    if len(given) != len(defaults) or (None in given and len(parts) == 1):
        raise ValueError(f"{name} is {value!r}, expected ({kind!r}, {', '.join(names)})")
    numbers = [number(p, f"{name}, {p_name}") for p, p_name in zip(given, names, strict=True)]
    if kind == "scaled_tanh" and numbers[0] == 0:
        raise ValueError(f"{name} is {value!r}, expected alpha other than 0")
    if kind in _NOT_NEGATIVE and numbers[0] < 0:
        raise ValueError(f"{name} is {value!r}, expected alpha of at least 0")
    return (kind, numbers[0]) if len(numbers) == 1 else (kind, numbers[0], numbers[1])


def activations(value: object, expected: tuple[str, ...]) -> tuple[Activation, ...]:
    """Return as many activations as there are names in `expected`, which say what each is for."""
    what = f"({', '.join(expected)})"
    if not isinstance(value, (tuple, list)):
        raise TypeError(
            f"activations is {describe(value)}, expected {len(expected)} of them: {what}"
        )
    if len(value) != len(expected):
        raise ValueError(f"activations has {len(value)} entries, expected {len(expected)}: {what}")
    return tuple(
        activation(v, f"activations[{i}] ({n})")
        for i, (v, n) in enumerate(zip(value, expected, strict=True))
    )


def seed(value: object) -> int | None:
    """Return a seed, or None for fresh entropy."""
    return None if value is None else integer(value, "seed", 0)


def path(value: object, name: str) -> Path:
    """Return the path of a file; bytes are not one."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is {describe(value)}, expected a path")
    result = Path(value)
    if not result.name:  # "", ".", "/"
        raise ValueError(f"{name} is {str(value)!r}, expected the path of a file")
    return result


# Arrays -------------------------------------------------------------------------------------------


def returned(value: Any) -> bool:
    """Whether it looks like all that a layer returns: a tuple of y and what comes beside it.

    Several arrays of one shape do not, but two do: y and h of one step have the same.
    """
    if type(value) is not tuple or len(value) not in (2, 3):
        return False
    y, *others = value
    if isinstance(y, Symbolic):
        return True
    if not isinstance(y, np.ndarray) or y.ndim < 2:
        return False
    alike = all(isinstance(one, np.ndarray) and one.shape == y.shape for one in others)
    return len(value) == 2 or not alike


def check_one(value: Any, name: str) -> None:
    """Refuse what a layer has returned where its y belongs, and symbols in a list."""
    if returned(value):
        raise TypeError(
            f"{name} is a tuple of {len(value)}, such as the (y, state) that a recurrent layer "
            "returns, expected one array: take its [0]"
        )
    if isinstance(value, (tuple, list)) and any(isinstance(one, Symbolic) for one in value):
        raise TypeError(
            f"{name} is a {type(value).__name__} of symbols, expected one: lc.concat puts the "
            "features of several side by side"
        )


def _asarray(value: object, name: str) -> npt.NDArray[Any]:
    """Return an ndarray, and say which argument it was if that fails."""
    if isinstance(value, (tuple, list)):
        check_one(value, name)
    try:
        array = np.asarray(value)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # ragged lists, tensors that require grad
        hint = ""
        if isinstance(value, (list, tuple)) and "inhomogeneous" in str(error):
            hint = "; rows of several lengths become one by lstmcore.data.pad"
        raise TypeError(f"{name} is not an array of numbers: {error}{hint}") from error
    if array.dtype == object and hasattr(value, "iloc") and hasattr(value, "index"):
        return _of_pandas(value, name)
    return array


def _of_pandas(value: Any, name: str) -> npt.NDArray[Any]:
    """Return a frame or Series with nullable or several types as numbers; NaN for what is missing.

    What is no number is refused, with the name of its column.
    """
    columns = [(name, value)]
    if hasattr(value, "columns"):
        labels = enumerate(value.columns)
        columns = [(f"{name}[{label!r}]", value.iloc[:, i]) for i, label in labels]
    found = []
    for where, column in columns:
        check_column(column, where)
        kind = getattr(column.dtype, "numpy_dtype", column.dtype)
        if column.isna().any():
            kind = np.result_type(kind, np.float32)
            found.append(column.to_numpy(dtype=kind, na_value=np.nan))
        else:
            found.append(column.to_numpy(dtype=kind))
    return np.stack(found, axis=1) if hasattr(value, "columns") else found[0]


def check_column(column: Any, name: str) -> None:
    """Refuse a column of a frame, or a Series, that holds no numbers."""
    kind = getattr(column.dtype, "kind", "O")
    if kind in "biuf":
        return
    more = "numbers: columns of text can be codes, as pandas.get_dummies makes them"
    if kind == "M":
        more = "numbers: dates belong in the index"
    raise TypeError(f"{name} has dtype {column.dtype}, expected {more}")


def real(value: object, dtype: np.dtype[Any], name: str, *, cast: bool = False) -> Array:
    """Return an ndarray of `dtype`, without a copy where `value` is one.

    Integers, bools, float16 and sequences are converted. The other of float32 and float64 is
    an error, because it is nearly always a mistake that costs speed or precision, unless `cast`
    says that it will be copied anyway.
    """
    array = value if type(value) is np.ndarray else _asarray(value, name)
    have = array.dtype
    if have == dtype:
        return array
    converts = cast or not hasattr(value, "dtype")
    same = have.type is dtype.type  # in another byte order
    if have.kind in "biu" or have == np.float16 or same:
        return array.astype(dtype)
    if converts and (have.type in (np.float32, np.float64) or have.name == "bfloat16"):
        return array.astype(dtype)
    expected = f"real numbers to convert to {dtype}" if converts else f"{dtype}, the layer's dtype"
    if have.kind == "f" and have.itemsize in (4, 8) and not converts:
        expected += f': .astype("{dtype}") converts it'
    raise TypeError(f"{name} has dtype {have}, expected {expected}")


def floating(value: object, name: str) -> Array:
    """Return an ndarray of float32 or float64, whichever holds it, without a copy where it is one.

    For what has no dtype of its own to convert to.
    """
    array = value if type(value) is np.ndarray else _asarray(value, name)
    have = array.dtype
    if have.type in (np.float32, np.float64) and have.isnative:
        return array
    if (have.kind in "biuf" and have.itemsize <= 8) or have.name == "bfloat16":
        return array.astype(np.result_type(have, np.float32).newbyteorder("="))
    raise TypeError(f"{name} has dtype {have}, expected float32 or float64")


def plain(value: Any, name: str) -> npt.NDArray[Any]:
    """Return an ndarray of what is array_like, or a torch.Tensor, wherever it is."""
    return _asarray(_from_tensor(value, name), name)


def values(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
    """Return new values for a parameter, to be copied: of its shape, of any real dtype.

    They may be a torch.Tensor, wherever it is.
    """
    value = _from_tensor(value, name)
    array = _asarray(value, name)
    # Before they are converted: a view may be larger than all memory.
    if array.shape != shape and array.dtype != object:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return _int8(array, name) if dtype == np.int8 else real(value, dtype, name, cast=True)


def _int8(array: Array, name: str) -> Array:
    """Return the values of a matrix in int8, which are symmetric."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}, expected int8: see lstmcore.quantize")
    if array.size and (array.min() < -127 or array.max() > 127):
        raise ValueError(f"{name} goes from {array.min()} to {array.max()}, expected -127 to 127")
    return array.astype(np.int8)


def _from_tensor(value: Any, name: str) -> Any:
    """Return a tensor on the CPU and of a type that NumPy has, or what is no tensor as it is.

    Small floats become float32.
    """
    if not hasattr(value, "detach"):
        return value
    try:
        tensor = value.detach().cpu()
        return (
            tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
        )
    except (RuntimeError, NotImplementedError) as error:  # on "meta", sparse, ...
        raise TypeError(f"{name} cannot be read: {error}") from error


def walkable(array: Array) -> Array:
    """Return `array` if the core can walk it in place, else a copy.

    In place it needs a contiguous last axis, and alignment (NumPy's flag includes the strides).
    """
    if array.flags.aligned and (array.strides[-1] == array.itemsize or array.shape[-1] <= 1):
        return array
    return array.copy(order="C")


def in_order(array: Array) -> Array:
    """Return `array` if it is C-contiguous and aligned, else a copy that is."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")


def kept(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return x for a tape to keep: a copy, if somebody may write to its memory before then.

    Nobody can write to arrays that are read-only down to the one that has the memory, as those are
    that go from module to module in a network.
    """
    part: Any = array
    while isinstance(part, np.ndarray):
        if part.flags.writeable:
            try:
                return array.copy(order="C")
            except MemoryError:
                shape = array.shape
                raise MemoryError(f"x has shape {shape}, too large for the memory") from None
        part = part.base
    return array


def contiguous(
    value: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name: str,
    shape_text: str,
    *,
    copy: bool = False,
) -> Array:
    """Return a C-contiguous array of that dtype and shape; `shape_text` says what its axes are."""
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape and not copy:
        return in_order(value)
    array = real(value, dtype, name)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape_text} = {shape}")
    return array.copy(order="C") if copy else in_order(array)


def out(x: Array, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Check `out`, and return x, as a copy where `out` may share its memory."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is {describe(out)}, expected an ndarray")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}, expected {dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, expected {shape}")
    flags = out.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ValueError("out is read-only or not contiguous, expected an array to write to")
    return x.copy() if np.may_share_memory(x, out) else x


def integers(value: object, name: str) -> npt.NDArray[np.integer[Any]]:
    """Return an ndarray of integers, of any size and sign."""
    array = value if type(value) is np.ndarray else _asarray(value, name)
    if array.dtype.kind in "iu":
        return array
    if array.size == 0 and not hasattr(value, "dtype"):  # [] is float64
        return array.astype(np.int64)
    text = name.startswith("target") and array.dtype.kind == "U"
    hint = ": np.unique(..., return_inverse=True) numbers texts" if text else ""
    raise TypeError(f"{name} has dtype {array.dtype}, expected integers{hint}")


def lengths(
    value: object, batch: int, time: int, *, batched: bool, of: str = "x"
) -> npt.NDArray[np.int64]:
    """Return the lengths of the rows, (B,) in 0..T, as a new array; `of` is what has the steps.

    `Lengths` are checked the first time, and are then the same array.
    """
    if type(value) is Lengths:
        return value.checked(batch, time, batched, of)
    array = integers(value, "lengths")
    if array.shape != (batch,) and (batched or array.shape != ()):
        expected = f"(B,) = ({batch},)" if batched else "one integer"
        raise ValueError(f"lengths has shape {array.shape}, expected {expected}")
    array = array.reshape(batch)
    wrong = (array < 0) | (array > time)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"lengths[{row}] is {array[row]}, expected 0 to {time}, the time steps of {of}"
        )
    return array.astype(np.int64)


class Lengths:
    """Lengths on their way through a network: what one module has checked, the next one takes."""

    __slots__ = ("_for", "rows", "there")

    def __init__(self, rows: object, there: npt.NDArray[np.bool_] | None = None) -> None:
        self.rows: Any = rows
        self.there = there  # which steps count, where those that do not are anywhere in a row
        self._for: tuple[int, int, bool] | None = None  # B, T, whether batched: when checked

    def checked(self, batch: int, time: int, batched: bool, of: str) -> npt.NDArray[np.int64]:
        """Return what `lengths` does; nobody may write to it."""
        if self._for != (batch, time, batched):
            self.rows = lengths(self.rows, batch, time, batched=batched, of=of)
            self._for = batch, time, batched
        found: npt.NDArray[np.int64] = self.rows
        return found


def resets(value: object, shape: tuple[int, ...], shape_text: str) -> npt.NDArray[np.bool_]:
    """Return the resets as a new C-contiguous array of bools."""
    array = _asarray(value, "resets")
    if array.dtype != np.bool_ and not (array.size == 0 and not hasattr(value, "dtype")):
        raise TypeError(f"resets has dtype {array.dtype}, expected bool")
    if array.shape != shape:
        raise ValueError(f"resets has shape {array.shape}, expected {shape_text} = {shape}")
    return array.astype(np.bool_, order="C")
