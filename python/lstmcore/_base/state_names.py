"""What the names and shapes in a state dict tell: of which layer it is, and what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["hints", "prefixes_of", "sizes_of"]

_NAME = re.compile(r"(?:.*\.)?weight_ih_l(\d+)(_reverse)?")
_NORMS = re.compile(
    r"(?:.*\.)?parametrizations\..*\.original[01]?|.*_l\d+(?:_reverse)?_(?:g|raw)|.*_orig"
)
_FOLD = "lstmcore.torch.fold_norms makes one weight each of what weight_norm or weight drop split"
_INT8 = "it is of a model in int8: load it into one that lstmcore.quantize made"
_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def prefixes_of(names: Iterable[str], keys: Iterable[Any]) -> list[str]:
    """Return the prefixes with which a state dict has all of these names."""
    given = {key for key in keys if isinstance(key, str)}
    names = list(names)
    if not names:
        return []
    found = [key.removesuffix(names[0]) for key in given if key.endswith(names[0])]
    fits = {prefix for prefix in found if all(prefix + name in given for name in names)}
    return sorted(fits)


def hints(names: Iterable[str], state_dict: Mapping[Any, Any], prefix: str) -> list[str]:
    """Return what may be meant where names are missing or unexpected.

    Parameters
    ----------
    names : iterable of str
        Those that the module has, without the prefix.
    state_dict : mapping
    prefix : str
        What was asked for.
    """
    names = list(names)
    keys = [key for key in state_dict if isinstance(key, str)]
    wanted = [name for name in names if prefix + name not in state_dict]
    found = prefixes_of(names, keys) if wanted else []
    if found and prefix not in found:
        listed = " or ".join(f"prefix={p!r}" for p in found[:3])
        return [f"it has all of these names with {listed}{' and more' * (len(found) > 3)}"]
    own = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    advice = _options(names, own)
    if wanted == names and (parts := _parts(names, keys)):
        listed = ", ".join(f"module {part} those with prefix={p!r}" for part, p in parts.items())
        advice.append(f"its modules have these names one by one: load into {listed}")
    if any(_NORMS.fullmatch(key) for key in own) and wanted:
        advice.append(_FOLD)
    if any(name + "_scale" in own and name + "_scale" not in names for name in names):
        advice.append(_INT8)
    return advice


def _parts(names: list[str], keys: list[str]) -> dict[str, str]:
    """Return the prefix that each module of a network has in a state dict, if each has just one."""
    modules: dict[str, list[str]] = {}
    for name in names:
        first, dot, rest = name.partition(".")
        if not dot:
            return {}
        modules.setdefault(first, []).append(rest)
    found = {module: prefixes_of(rest, keys) for module, rest in modules.items()}
    if any(len(prefixes) != 1 for prefixes in found.values()):
        return {}
    return {module: prefixes[0] for module, prefixes in found.items()}


def _options(names: list[str], own: list[str]) -> list[str]:
    """Return which options would make a layer that has the names of a state dict."""
    mine, theirs = _extent(names), _extent(own)
    if mine is None or theirs is None:
        return []
    advice = []
    if mine[0] != theirs[0] and not any(f"_l{theirs[0]}" in name for name in own):
        advice.append(f"its names are those of num_layers={theirs[0]}, the layer has {mine[0]}")
    if mine[1] != theirs[1]:
        advice.append(f"its names are those of bidirectional={theirs[1]}")
    named = ("bias_ih_l0", "bias"), ("weight_ch_l0", "peephole"), ("weight_ln_ih_l0", "layer_norm")
    for part, option in named:
        if _has(own, part) != _has(names, part):
            advice.append(f"its names are those of {option}={_has(own, part)}")
    if _has(own, "weight_hr_l0") != _has(names, "weight_hr_l0"):
        some = "a" if _has(own, "weight_hr_l0") else "no"
        advice.append(f"its names are those of {some} proj_size")
    return advice


def _has(names: Iterable[str], part: str) -> bool:
    return any(name.rpartition(".")[2] == part for name in names)


def _extent(names: Iterable[str]) -> tuple[int, bool] | None:
    """Return of how many layers the names are, and whether of two directions.

    None if they are of several recurrent layers, or of none.
    """
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    homes = {match[0].rpartition(".")[0] for match in matches}
    if len(homes) != 1:
        return None
    return 1 + max(int(match[1]) for match in matches), any(match[2] for match in matches)


def _refuse_remains(state_dict: Mapping[Any, Any], prefix: str) -> None:
    """Refuse weights of which weight drop has left a part, where all of it is beside them."""
    for key in state_dict:
        if isinstance(key, str) and key.endswith("_raw"):
            path, dot, name = key.removesuffix("_raw").rpartition(".")
            for remains in (path + dot + name, f"{path}{dot}module.{name}"):
                if remains.startswith(prefix) and remains in state_dict:
                    raise ValueError(
                        f"{remains} is what weight drop left of {key} in the last step of "
                        "training: lstmcore.torch.fold_norms(state_dict) has all of it"
                    )


def sizes_of(kind: str, state_dict: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """Return the options of a recurrent layer that the names and shapes of its parameters tell.

    Parameters
    ----------
    kind : {"rnn", "lstm", "gru"}
    state_dict : mapping of str to arrays, or anything with a shape
    prefix : str
        What its names begin with.

    Raises
    ------
    ValueError
        If they are not those of such a layer.
    """
    shapes = {
        key.removeprefix(prefix): tuple(getattr(value, "shape", ()))
        for key, value in state_dict.items()
        if isinstance(key, str) and key.startswith(prefix)
    }
    _refuse_remains(state_dict, prefix)
    layers = {m[0]: int(m[1]) for m in map(_NAME.fullmatch, shapes) if m and "." not in m[0]}
    if "weight_ih_l0" not in shapes or "weight_hh_l0" not in shapes:
        found = prefixes_of(["weight_ih_l0", "weight_hh_l0"], state_dict)
        listed = ", ".join(repr(p) for p in found[:10])
        where = f"it has them with {listed}" if listed else "it has both with no prefix at all"
        more = f"; {_FOLD}" if any(_NORMS.fullmatch(str(key)) for key in state_dict) else ""
        if "weight_ih" in shapes and "weight_hh" in shapes:
            more = "; it has those of a cell, to which a layer adds _l0"
        raise ValueError(
            f"state_dict lacks {prefix}weight_ih_l0 or {prefix}weight_hh_l0, and {where}{more}"
        )
    w_ih, w_hh = shapes["weight_ih_l0"], shapes["weight_hh_l0"]
    if len(w_ih) != 2 or len(w_hh) != 2 or w_ih[0] != w_hh[0] or 0 in (*w_ih, *w_hh):
        raise ValueError(
            f"{prefix}weight_ih_l0 has shape {w_ih} and {prefix}weight_hh_l0 {w_hh}, expected "
            "(G*H, input_size) and (G*H, hidden_size)"
        )
    projection = shapes.get("weight_hr_l0", ())
    hidden = projection[1] if len(projection) == 2 else w_hh[1]
    gates = _GATES[kind]
    if w_ih[0] != gates * hidden and not (kind == "lstm" and w_ih[0] == 3 * hidden):
        cells = [cell.upper() for cell, g in _GATES.items() if w_ih[0] == g * hidden]
        raise ValueError(
            f"{prefix}weight_hh_l0 has shape {w_hh}, expected ({gates} * hidden_size, hidden_size) "
            f"of {kind.upper()}{': it is of ' if cells else ''}{' or '.join(cells)}"
        )
    return {
        "input_size": w_ih[1],
        "hidden_size": hidden,
        "num_layers": 1 + max(layers.values()),
        "bidirectional": "weight_ih_l0_reverse" in shapes,
        "bias": "bias_ih_l0" in shapes,
        **({"proj_size": projection[0]} if projection else {}),
        **({"peephole": True} if "weight_ch_l0" in shapes else {}),
        **({"layer_norm": True} if "weight_ln_ih_l0" in shapes else {}),
    }
