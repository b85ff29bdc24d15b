"""Models in files: parameters as tensors in a safetensors file, and beside them what they are of.

Nothing is pickled. A file from elsewhere can make modules of this library, of the sizes that its
tensors have, and nothing else.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from .._base import checks
from .._base.budget import BUDGET, Budget
from .._base.module import STORABLE, Module, check_hidden
from .._base.tying import other_names, use_parameter
from . import tensor_file
from .source import opened

__all__ = ["load", "save"]

_KEY = "lstmcore.model"
_EXTRA = "lstmcore.extra"  # of a file without a description: what is kept beside the parameters
_VERSION = 1  # of the description in a file; kVersion in cpp/src/files/model.cpp is the same
_MOST_TEXT = 2**20  # bytes of a description
_DEPTH = 30  # of modules in modules
_EXTRA_DEPTH = 20
_MOST_TIED = 8  # times the bytes of a file, of parameters that are made and then tied to its own


def save(
    model: Module | Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a safetensors file: its parameters, and what it is.

    The file that was there is replaced when the new one is complete, not before. Any program that
    reads safetensors finds the parameters under PyTorch's names.

    Parameters
    ----------
    model : module, or dict of str to array
        Any layer, cell or model of this library. Where a class of your own is in it, and of a state
        dict, parameters and `extra` are written, and not what the module is, which your code has
        to make: ``lc.load(path, into=module)`` reads them.
    path : str or path
        Of the file, by convention ``.safetensors``.
    extra : dict of str to plain values, optional
        What belongs to the model beside it, such as the ``state_dict()`` of a
        `lstmcore.data.Standardizer`: numbers, strings, bools, None, and lists and dicts of them;
        arrays become lists. `load` gives it back as ``model.extra``. If not given, ``model.extra``
        is written again.

    Raises
    ------
    TypeError
        If `extra` has something else in it, or `model` is no module.
    ValueError
        If `path` names no file, or `extra` has NaN or infinity, is more than 1 MB of text or nested
        more than 20 deep, or a class of your own has parameters in a list, where nobody finds them.
    OSError
        If the file cannot be written.

    Notes
    -----
    Gradients and random streams are not saved: see `save_checkpoint`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.LSTM(3, 5, peephole=True), lc.Linear(5, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.safetensors"
    ...     lc.save(model, path, extra={"unit": "MW", "mean": [0.5, 2.0, 1.0]})
    ...     lc.load(path) == model, lc.load(path).extra["unit"]
    (True, 'MW')
    """
    beside = {} if isinstance(model, Mapping) else getattr(model, "extra", {})
    beside = _plain_value(beside if extra is None else extra, "extra", _EXTRA_DEPTH)
    if not isinstance(beside, dict):
        raise TypeError(f"extra is {checks.describe(extra)}, expected a dict")
    if isinstance(model, Module):
        check_hidden(model)
    plain = _plain(model)
    if plain is not None:
        tensor_file.write(path, plain, {_EXTRA: _text(beside)} if beside else {})
        return
    if not isinstance(model, Module):
        raise TypeError(f"model is {checks.describe(model)}, expected a module")
    description = {"version": _VERSION, "model": model._description()}
    frozen = [name for name, p in model.named_parameters() if not p.trainable]
    description |= {"frozen": frozen} if frozen else {}
    tied = other_names(model)
    description |= {"tied": tied} if tied else {}
    description |= {"extra": beside} if beside else {}
    arrays = {name: p._storage for name, p in model._named()}
    tensor_file.write(path, arrays, {_KEY: _text(description)})


def _text(content: Any) -> str:
    """Return it as JSON."""
    text = json.dumps(content, allow_nan=False)
    if len(text) > _MOST_TEXT:
        raise ValueError(f"the description and extra are {len(text)} long, expected {_MOST_TEXT}")
    return text


def _plain_value(value: Any, name: str, depth: int) -> Any:
    """Return what JSON can hold and `load` will return, or refuse it by name."""
    if depth < 0:
        raise ValueError(f"{name} is nested too deep, expected at most {_EXTRA_DEPTH}")
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufU":
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, expected a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is {value}, expected an integer of 64 bits")
    if isinstance(value, str) and not _is_text(value):
        raise ValueError(f"{name} is {value!r}, expected text that UTF-8 can hold")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain_value(part, f"{name}[{i}]", depth - 1) for i, part in enumerate(value)]
    if isinstance(value, Mapping):
        wrong = [key for key in value if not (isinstance(key, str) and _is_text(key))]
        if wrong:
            raise TypeError(f"{name} has the key {wrong[0]!r}, expected strings")
        return {k: _plain_value(part, f"{name}[{k!r}]", depth - 1) for k, part in value.items()}
    what = checks.describe(value)
    state = hasattr(value, "state_dict") and hasattr(type(value), "from_state_dict")
    more = f", such as its state_dict(), of which {type(value).__name__}.from_state_dict makes it"
    raise TypeError(
        f"{name} is {what}, expected numbers, strings, lists and dicts{more if state else ''}"
    )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of UTF-16
        return False
    return True


def _plain(model: Any) -> dict[str, Any] | None:
    """Return the arrays of what is saved without a description, None of what has one."""
    if isinstance(model, Mapping):
        arrays = all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in model.items())
        return dict(model) if model and arrays else None
    if isinstance(model, Module) and _own_part(model) is not None:
        return {name: p._storage for name, p in model._named()}
    return None


def _own_part(model: Module) -> tuple[str, Module] | None:
    """Return the first module of a class that is not of this library, and where it is."""
    parts = model._modules()
    return next((p for p in parts if STORABLE.get(type(p[1]).__name__) is not type(p[1])), None)


def check_kinds(model: Module, name: str, instead: str) -> None:
    """Refuse a model with a module of a class that is not of this library."""
    found = _own_part(model)
    if found is not None:
        path, module = found
        kind = type(module)
        what = f"module {path!r} of {name}" if path else name
        raise TypeError(
            f"{what} is a {kind.__module__}.{kind.__qualname__}, expected a module of lstmcore "
            f"itself: {instead}"
        )


def load(path: str | os.PathLike[str] | bytes | BinaryIO, *, into: Any = None) -> Any:
    """Make a model from a file that `save` wrote.

    The file is opened once and mapped, so that its parameters are read straight into those of the
    model, and another file that takes its place meanwhile does not matter.

    Parameters
    ----------
    path : path, bytes-like, or file opened in binary mode
        The file's path, or what is in it. Of an open file, what is left to read is read.
    into : module, optional
        Read the parameters into this one and return it, in the place of making one: for models with
        a class of your own, which no file can make. What is frozen or tied in it stays so.

    Returns
    -------
    model : module
        As it was saved, bit for bit; what was kept beside it is ``model.extra``.

    Raises
    ------
    OSError
        If the file cannot be read.
    TypeError
        If `path` is none of these, or a file of text.
    ValueError
        If it is damaged, a file of another kind, was written by a newer version, describes no
        model or one that its parameters do not fit, or they do not fit `into`, which is then as it
        was.

    Examples
    --------
    >>> import tempfile
    >>> import lstmcore as lc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lc.save(lc.GRU(3, 5), f"{folder}/model.safetensors")
    ...     lc.load(f"{folder}/model.safetensors")
    GRU(3, 5)
    """
    if into is not None and not isinstance(into, Module):
        made = ", made already" if isinstance(into, type) else ""
        raise TypeError(f"into is {checks.describe(into)}, expected a module{made}")
    with opened(path) as source:
        arrays, metadata = tensor_file.view(source)
    if into is not None:
        extra = _extra(metadata, source.name)
        into.load_state_dict(arrays)
        into.extra = extra
        return into
    if _KEY not in metadata:
        raise ValueError(
            f"{source.name} is a safetensors file without the description of a model, as of one "
            "with a class of your own: make the model, and read it by lc.load(path, into=model)"
        )
    before = BUDGET.set(None)
    try:
        described, frozen, tied, extra = _read(metadata[_KEY])
        BUDGET.set(_budget(arrays, tied))
        model = _make(described)
        _tie(model, tied)
        wrong = [
            f"{name} is {arrays[name].dtype}, expected {p.dtype}"
            for name, p in model._named()
            if name in arrays and arrays[name].dtype != p.dtype
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        model.load_state_dict(arrays)
        _freeze(model, frozen)
        if extra is not None:
            if not isinstance(extra, dict):
                raise ValueError("what is kept beside the model is no dict")
            model.extra = extra
    except Exception as error:  # a description can ask for anything
        raise ValueError(f"{source.name} is damaged: {error}") from error
    finally:
        BUDGET.reset(before)
    return model


def _extra(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return what a file keeps beside the parameters."""
    try:
        if _KEY in metadata:
            extra = _read(metadata[_KEY])[-1]
        else:
            extra = json.loads(metadata.get(_EXTRA, "null"))
        extra = {} if extra is None else extra
        if not isinstance(extra, dict):
            raise ValueError("what is kept beside the model is no dict")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    return extra


def _budget(arrays: Mapping[str, Any], tied: Any) -> Budget:
    """Return what modules may have: the arrays of the file, and at first those tied to them."""
    if not isinstance(tied, dict) or not all(
        isinstance(first, str) and first in arrays and name not in arrays
        for name, first in tied.items()
    ):
        raise ValueError("it ties parameters that are not there")
    size = sum(array.nbytes for array in arrays.values())
    more = sum(arrays[first].nbytes for first in tied.values())
    if more > _MOST_TIED * size:
        raise ValueError(f"its tied parameters are more than {_MOST_TIED} times what it holds")
    return Budget(len(arrays) + len(tied), size + more)


def _tie(model: Module, tied: Mapping[str, str]) -> None:
    """Tie parameters as they were when they were saved."""
    modules = dict(model._modules())
    for names in tied.items():
        (path, _, name), (other_path, _, other) = (one.rpartition(".") for one in names)
        if path not in modules or other_path not in modules:
            raise ValueError(f"it ties {names[0]!r} and {names[1]!r}, which are not both there")
        if modules[path] is not modules[other_path]:
            use_parameter(modules[path], name, modules[other_path], other)


def _freeze(model: Module, names: Any) -> None:
    """Make the named parameters untrainable, as they were saved."""
    named = dict(model.named_parameters())
    if not isinstance(names, list) or not all(isinstance(n, str) and n in named for n in names):
        raise ValueError("it names parameters to freeze that are not there")
    for name in names:
        named[name].trainable = False


def _read(text: str) -> tuple[Any, Any, Any, Any]:
    """Return the description of a model, its parameters not trained, those tied, and the extra."""
    if len(text) > _MOST_TEXT:
        raise ValueError(f"its description is {len(text)} long, expected at most {_MOST_TEXT}")
    content = json.loads(text)
    version = content.get("version") if isinstance(content, dict) else None
    if version != _VERSION:
        what = version if isinstance(version, int) else "unknown"
        raise ValueError(f"its version is {what}, expected {_VERSION}")
    frozen, tied = content.get("frozen", []), content.get("tied", {})
    return content.get("model"), frozen, tied, content.get("extra")


def _make(description: Any, depth: int = 0) -> Module:
    """Make a module, and first those it is described to be made of."""
    if depth > _DEPTH:
        raise ValueError(f"it describes modules in modules, more than {_DEPTH} deep")
    name = description.get("type") if isinstance(description, dict) else None
    kind = STORABLE.get(name) if isinstance(name, str) else None
    if kind is None:
        what = f"a {name[:100]!r}" if isinstance(name, str) else "something that is no module"
        raise ValueError(f"it describes {what}, expected one of {', '.join(sorted(STORABLE))}")

    def value(option: Any) -> Any:
        if isinstance(option, dict):
            return _make(option, depth + 1)
        return [value(part) for part in option] if isinstance(option, list) else option

    options = {name: value(option) for name, option in description.items() if name != "type"}
    return kind._from_options(options)
