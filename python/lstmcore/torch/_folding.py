"""Weights that weight_norm, spectral_norm and weight drop split, made one again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["fold_norms"]

# What the parts are called in a state dict, by what the weight is: (path.)name.
_PARAMETRISED = re.compile(r"((?:.*\.)?)parametrizations\.([^.]+)\.original([01]?)")
_DROPPED = re.compile(r"((?:.*\.)?)(weight_[ih]h_l\d+(?:_reverse)?)_raw")


def fold_norms(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Make one weight again of what ``weight_norm``, ``spectral_norm`` and weight drop split.

    Parameters
    ----------
    state_dict : mapping of str to array_like
        With the names that ``torch.nn.utils.parametrizations`` gives,
        ``parametrizations.weight.original0``, or those that ``torch.nn.utils`` gave before,
        ``weight_g`` and ``weight_v``; ``weight_orig``, ``weight_u`` and ``weight_v`` of
        spectral_norm; ``weight_hh_l0_raw`` of the weight drop of AWD-LSTMs, beside which there may
        be what was left of it in the last step of training. Other entries are kept as they are.

    Returns
    -------
    dict of str to array
        The weights that the modules compute with, under their own names: g v / norm(v), and
        w / sigma with sigma = u' w v; of weight drop, all of the weight.

    Raises
    ------
    ValueError
        If a part is missing or does not fit, or another parametrisation is there, of which the file
        does not say what it computes.
    TypeError
        If `state_dict` is no mapping.

    Notes
    -----
    T. Salimans and D. P. Kingma, "Weight normalization", NIPS 2016; T. Miyato et al., "Spectral
    normalization for generative adversarial networks", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> parts = {"weight_g": np.array([[10.0]]), "weight_v": np.array([[3.0, 4.0]])}
    >>> lc.torch.fold_norms(parts)
    {'weight': array([[6., 8.]])}
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict is a {type(state_dict).__name__}, expected a mapping")
    found: dict[str, Any] = {}
    used: set[str] = set()
    made: set[str] = set()
    for name in state_dict:
        if name in used or name in made:
            continue
        folded = _fold(state_dict, name)
        if folded is None:
            found[name] = state_dict[name]
            continue
        whole, array, parts = folded
        used |= parts
        made.add(whole)
        found[whole] = array
    return {name: array for name, array in found.items() if name not in used}


def _fold(state: Mapping[str, Any], name: Any) -> tuple[str, Any, set[str]] | None:
    """Return name, numbers and parts of the weight that this is the first part of, if it is."""
    if not isinstance(name, str):
        return None
    match = _PARAMETRISED.fullmatch(name)
    if match:
        path, weight, number = match.groups()
        stem = f"{path}parametrizations.{weight}"
        if number:
            parts = (f"{stem}.original0", f"{stem}.original1")
            return path + weight, _weight_norm(*_taken(state, parts)), {*parts}
        u, v = f"{stem}.0._u", f"{stem}.0._v"
        if u not in state:
            raise ValueError(f"{name} is of a parametrisation other than weight or spectral norm")
        return path + weight, _spectral_norm(*_taken(state, (name, u, v))), {name, u, v}
    match = _DROPPED.fullmatch(name)
    if match:
        path, weight = match.groups()
        inside = f"{path}module."
        home = inside if any(str(key).startswith(inside) for key in state) else path
        return home + weight, state[name], {name}
    stem = name[:-2]
    if name.endswith("_g") and f"{stem}_v" in state:
        parts = (name, f"{stem}_v")
        return stem, _weight_norm(*_taken(state, parts)), {*parts}
    stem = name.removesuffix("_orig")
    if stem != name and f"{stem}_u" in state:
        three = (name, f"{stem}_u", f"{stem}_v")
        return stem, _spectral_norm(*_taken(state, three)), {*three}
    return None


def _taken(state: Mapping[str, Any], names: tuple[str, ...]) -> list[npt.NDArray[Any]]:
    found = []
    for name in names:
        if name not in state:
            raise ValueError(f"{name} is missing, expected it beside {names[0]}")
        value = state[name]
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind != "f":
            raise ValueError(f"{name} is {array.dtype}, expected real numbers")
        found.append(array)
    return found


def _weight_norm(g: npt.NDArray[Any], v: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return g v / |v|, the norm being over the axes that g does not have."""
    fits = g.size == 1 or (
        g.ndim == v.ndim and all(a in (1, b) for a, b in zip(g.shape, v.shape, strict=True))
    )
    if not fits:
        raise ValueError(f"a weight's g has shape {g.shape} and its v {v.shape}")
    axes = tuple(range(v.ndim))
    if g.size > 1:
        axes = tuple(axis for axis in axes if g.shape[axis] == 1)
    norm = np.sqrt(np.square(v).sum(axis=axes, keepdims=True))
    with np.errstate(all="ignore"):
        result: npt.NDArray[Any] = v * (g / norm)
    return result


def _spectral_norm(
    weight: npt.NDArray[Any], u: npt.NDArray[Any], v: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return w / (u' w v), w being a matrix of as many rows as u has numbers."""
    for axis in range(weight.ndim):
        matrix = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        if matrix.shape == (u.size, v.size):
            with np.errstate(all="ignore"):
                result: npt.NDArray[Any] = weight / (u.ravel() @ matrix @ v.ravel())
            return result
    raise ValueError(f"a weight has shape {weight.shape}, and its u and v {u.shape} and {v.shape}")
