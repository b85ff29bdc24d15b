"""Activations that are functions in PyTorch, by the names that `Activation` has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "absolute": torch.abs,
    "exponential": torch.exp,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_silu": functional.hardswish,
    "mish": functional.mish,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "softsign": functional.softsign,
    "square": torch.square,
}
