"""Tied weights, kept when modules go from PyTorch to ours and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from .._base.module import Module
from .._base.tying import other_names

__all__ = ["tie_as_ours", "tie_as_theirs"]


def tie_as_theirs(pairs: Iterable[tuple[nn.Module, Module]]) -> None:
    """Tie parameters of ours that are one in PyTorch; each pair is a module there and ours.

    Those of what computes its weights, as weight_norm does, are not compared.
    """
    first: dict[int, tuple[Module, str]] = {}
    for theirs, ours in pairs:
        for name, tensor in theirs.named_parameters(remove_duplicate=False):
            if name not in ours._parameters:
                continue
            other, other_name = first.setdefault(id(tensor), (ours, name))
            if other is ours and other_name != name:
                raise ValueError(
                    f"{other_name} and {name} of {theirs!r} are one parameter, which a module "
                    "has once: give one of them a copy"
                )
            if other is not ours:
                ours.tie(name, other, other_name)


def tie_as_ours(theirs: nn.Module, ours: Module) -> None:
    """Tie parameters of a module of PyTorch, made of ours, that are one in ours."""
    for name, first in other_names(ours).items():
        path, _, last = name.rpartition(".")
        owner: Any = theirs.get_submodule(path)
        setattr(owner, last, theirs.get_parameter(first))  # a layer hears of it by this
