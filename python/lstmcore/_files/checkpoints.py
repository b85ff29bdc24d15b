"""Checkpoints: all that a training run needs to go on to the same bits, in one safetensors file.

Arrays are tensors in it and everything else is JSON beside them; nothing is pickled, so that a
file from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.module import Module, set_random_state
from . import tensor_file
from .source import opened

__all__ = ["load_checkpoint", "save_checkpoint"]

_KEY = "lstmcore.checkpoint"
_VERSION = 1
_ARRAY = "__array__"  # what stands in the JSON for an array: {"__array__": its name in the file}


def save_checkpoint(path: str | os.PathLike[str], **parts: Any) -> None:
    """Save the state of several things under their names.

    The file that was there is replaced when the new one is complete, not before.

    Parameters
    ----------
    path : str or path
        Of the file, by convention ``.safetensors``.
    **parts
        Each a model (parameters and the random streams of dropout), a ``numpy.random.Generator``,
        or anything with ``state_dict`` and ``load_state_dict``: optimizers, schedules, batches.

    Raises
    ------
    TypeError
        If a part has no state, or one that holds more than arrays, numbers, strings and None.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import lstmcore as lc
    >>> head = lc.Linear(3, 2, seed=0)
    >>> adam = lc.optim.Adam(head.parameters(), lr=0.1)
    >>> other = lc.Linear(3, 2, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "run.safetensors"
    ...     lc.save_checkpoint(path, model=head, optimizer=adam)
    ...     lc.load_checkpoint(path, model=other)
    >>> other == head
    True
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    states = {name: _flatten(_state(part, name), name, arrays) for name, part in parts.items()}
    text = json.dumps({"version": _VERSION, "parts": states})
    tensor_file.write(path, arrays, {_KEY: text})


def load_checkpoint(path: str | os.PathLike[str] | bytes | BinaryIO, **parts: Any) -> None:
    """Put things into the state they were saved in: all of them, or none if anything is wrong.

    Parameters
    ----------
    path : path, bytes-like, or file opened in binary mode
        Of a file that `save_checkpoint` wrote, or what is in it.
    **parts
        Like those that were saved, under the same names. What is in the file and not asked for is
        left alone.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged or no checkpoint, lacks a part, or does not fit one.
    TypeError
        If a part cannot take a state.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lc.save_checkpoint(f"{folder}/run.safetensors", rng=rng)
    ...     first = rng.random()
    ...     lc.load_checkpoint(f"{folder}/run.safetensors", rng=rng)
    >>> rng.random() == first
    True
    """
    with opened(path) as source:
        path = source.name
        arrays, metadata = tensor_file.read(source)
    if _KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file, but no checkpoint of lstmcore")
    try:
        content = json.loads(metadata[_KEY])
        version, saved = content["version"], content["parts"]
        states = {name: _unflatten(state, arrays) for name, state in saved.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r} in its description") from error
    if version != _VERSION:
        raise ValueError(f"{path} is a checkpoint of version {version}, expected {_VERSION}")
    missing = [name for name in parts if name not in states]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(states) or 'none'}")
    setters = {name: _setter(part, name) for name, part in parts.items()}
    before = {name: _state(part, name) for name, part in parts.items()}
    done = []
    try:
        for name, set_state in setters.items():
            done.append(name)
            try:
                set_state(states[name])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path} does not fit {name}: {error}") from error
    except BaseException:
        for name in done:
            setters[name](before[name])
        raise


def _state(part: Any, name: str) -> Any:
    if isinstance(part, Module):
        return {"parameters": part.state_dict(), "random": part._rng_state()}
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    if not callable(getattr(part, "state_dict", None)):
        raise TypeError(f"{name} is {checks.describe(part)}, expected something with a state_dict")
    return part.state_dict()


def _setter(part: Any, name: str) -> Callable[[Any], object]:
    if isinstance(part, Module):
        return lambda state: _set_module(part, state)
    if isinstance(part, np.random.Generator):
        return lambda state: set_random_state(part, state)
    if not callable(getattr(part, "load_state_dict", None)):
        what = checks.describe(part)
        raise TypeError(f"{name} is {what}, expected something with load_state_dict")
    load: Callable[[Any], object] = part.load_state_dict
    return load


def _set_module(module: Module, state: Any) -> None:
    module.load_state_dict(state["parameters"])
    module._set_rng_state(state["random"])


def _flatten(value: Any, name: str, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Return what JSON holds of a state; its arrays go into `arrays` under their path."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{name} has dtype {value.dtype}, expected real numbers")
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_flatten(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: _flatten(v, f"{name}.{k}", arrays) for k, v in value.items()}
    raise TypeError(
        f"{name} is {checks.describe(value)}, expected arrays, numbers, strings, None, and lists "
        "and dicts of them"
    )


def _unflatten(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_unflatten(v, arrays) for v in value]
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {k: _unflatten(v, arrays) for k, v in value.items()}
    return value
