"""One layer of Keras: what it is called, its options, its weights. Nothing of it may go unread."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol

import numpy as np

from .._base import checks
from .._base.checks import Array
from .._base.module import Module

__all__ = [
    "FUNCTIONAL", "KerasLayer", "NoChain", "Stored",
    "cells_of", "freeze", "layers_of", "name_of", "unstacked",
]  # fmt: skip

FUNCTIONAL = ("Functional", "Model")
_MOST = 1000  # layers

# What changes how a layer is made, trained or computed, but not what it computes.
_HARMLESS = {
    "name", "trainable", "dtype", "dynamic", "seed", "batch_input_shape", "batch_shape",
    "input_shape", "input_dtype", "input_dim", "input_length", "stateful", "unroll",
    "implementation", "unit_forget_bias", "dropout", "recurrent_dropout", "zero_output_for_mask",
}  # fmt: skip
_HARMLESS_ENDS = ("_initializer", "_regularizer", "_constraint")


class Stored(Protocol):
    """An array that may still be in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without reading it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Known without reading it."""

    def __getitem__(self, index: tuple[()]) -> Any:
        """Read it."""


def name_of(description: Any) -> str:
    """Return the name of a layer, having checked that it has a class_name and a config."""
    if isinstance(description, dict):
        kind, config = description.get("class_name"), description.get("config")
        if isinstance(kind, str) and isinstance(config, (dict, list)):
            name = config.get("name") if isinstance(config, dict) else description.get("name")
            if name is None or isinstance(name, str):
                return name or kind
    raise ValueError(
        f"{checks.describe(description)} stands where a layer should, expected a dict with "
        "class_name and config"
    )


def layers_of(model: Any) -> list[Any]:
    """Return the descriptions of all layers of a model; each has a class_name and a config."""
    config = model.get("config") if isinstance(model, dict) else None
    kind = model.get("class_name") if isinstance(model, dict) else None
    if kind not in ("Sequential", *FUNCTIONAL):
        raise ValueError(
            f"the model is of class {str(kind)[:60]!r}, expected a Sequential or functional one"
        )
    layers = config.get("layers") if isinstance(config, dict) else None
    if kind == "Sequential" and isinstance(config, list):  # before Keras 2.3
        layers = config
    if not isinstance(layers, list):
        raise ValueError(f"the model has layers={checks.describe(layers)}, expected a list")
    if len(layers) > _MOST:
        raise ValueError(f"the model has {len(layers)} layers, expected {_MOST} at most")
    names = [name_of(layer) for layer in layers]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the model has two layers of the name {twice!r}, expected one")
    return layers


def cells_of(description: Any) -> list[Any]:
    """Return the cells of an RNN of StackedRNNCells; none of any other layer."""
    config = description["config"]
    cell = config.get("cell") if isinstance(config, dict) else None
    if description["class_name"] != "RNN" or not isinstance(cell, dict):
        return []
    name_of(cell)
    cells = cell["config"].get("cells") if isinstance(cell["config"], dict) else None
    if cell["class_name"] != "StackedRNNCells" or not isinstance(cells, list):
        return []
    for one in cells:
        name_of(one)
    return cells


def unstacked(description: Any) -> list[Any]:
    """Return descriptions of layers that one after the other are the layer; itself, mostly.

    An RNN of StackedRNNCells is a layer for each cell.
    """
    cells = cells_of(description)
    if not cells:
        return [description]
    config = description["config"]
    layers = [{**description, "config": {**config, "cell": one}} for one in cells]
    for layer in layers[:-1]:
        layer["config"]["return_sequences"] = True
    for layer in layers[1:]:
        layer["config"]["go_backwards"] = False
    return layers


def freeze(modules: Iterable[Module]) -> None:
    """Let no optimizer train them."""
    for module in modules:
        for p in module.parameters():
            p.trainable = False


class NoChain(ValueError):
    """What cannot be a chain of modules; a network may have it."""


class KerasLayer:
    """A layer as its configuration describes it.

    `close` refuses options that nobody has asked for and that are not known to be harmless, so that
    none is ignored.

    Parameters
    ----------
    description : dict
        With "class_name" and "config", and where it comes from if Keras 3 has written it.
    weights : list of arrays
        In Keras's order. The layer takes its own from the front of the list, and leaves the rest to
        whoever comes after it.
    version : int
        Of Keras, 2 or 3.
    """

    def __init__(self, description: Any, weights: list[Stored], version: int) -> None:
        name = name_of(description)
        kind, config = description["class_name"], description["config"]
        self.where = f"the {kind[:60]} layer {name[:60]!r}"
        if not isinstance(config, dict):
            raise self.error("has a list for its config, expected a dict")
        module = description.get("module")
        if module is not None and str(module).split(".")[0] not in ("keras", "tf_keras"):
            raise self.error(f"is of {str(module)[:60]!r}, not of Keras; it is not imported")
        self.is_function = str(module).startswith("keras.src.ops")
        if kind == "RNN":  # a cell in a loop: the layer that has the cell
            cell: Any = config.get("cell")
            kind = name_of(cell) and cell["class_name"]
            if kind not in ("SimpleRNNCell", "LSTMCell", "GRUCell"):
                raise self.error(f"has the cell {kind[:60]!r}, which is not imported")
            config = {**cell["config"], **config, "cell": None}
            kind = kind.removesuffix("Cell")
        self.trainable = config.get("trainable", True) is not False
        self.kind: str = kind
        self.config: dict[str, Any] = config
        self.version = version
        self.left = weights
        self._asked: set[str] = set()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what the layer computes with, float32 or float64."""
        double = "float64" in str(self.config.get("dtype"))
        return np.dtype(np.float64 if double else np.float32)

    def error(self, text: str) -> ValueError:
        """Return an error that names the layer."""
        return ValueError(f"{self.where} {text}")

    def get(self, name: str, default: Any = None) -> Any:
        """Return an option, or the default if it is missing."""
        self._asked.add(name)
        return self.config.get(name, default)

    def need(self, name: str) -> Any:
        """Return an option that must be there."""
        if name not in self.config:
            raise self.error(f"has no {name!r} in its configuration")
        return self.get(name)

    def flag(self, name: str, default: bool) -> bool:
        """Return an option that is a bool."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(f"has {name}={checks.describe(value)}, expected a bool")
        return value

    def number(self, name: str, default: float) -> float:
        """Return an option that is a finite number."""
        try:
            return checks.number(self.get(name, default), name)
        except (TypeError, ValueError) as error:
            raise self.error(f"is wrong: {error}") from error

    def size(self, name: str) -> int:
        """Return an option that is a size, at least 1."""
        try:
            return checks.integer(self.need(name), name, 1)
        except (TypeError, ValueError) as error:
            raise self.error(f"is wrong: {error}") from error

    def take(self, what: str, *shapes: tuple[int | None, ...]) -> Array:
        """Read the next weight, if it has one of the shapes (None is any size)."""
        if not self.left:
            raise self.error(f"has no {what}: it is not built, or its weights are not there")
        weight = self.left.pop(0)
        fits = any(
            len(shape) == len(weight.shape)
            and all(n in (None, m) for n, m in zip(shape, weight.shape, strict=True))
            for shape in shapes
        )
        if not fits:
            expected = " or ".join(str(shape).replace("None", "any") for shape in shapes)
            raise self.error(f"has a {what} of shape {tuple(weight.shape)}, expected {expected}")
        if weight.dtype.kind != "f" or weight.dtype.itemsize > 8:
            raise self.error(f"has a {what} of dtype {weight.dtype}, expected floating point")
        try:
            array = np.asarray(weight[()])
        except ValueError as error:
            raise self.error(f"has a {what} that cannot be read: {error}") from error
        double = weight.dtype.itemsize == 8
        return array.astype(np.float64 if double else np.float32, copy=False)

    def inside(self, description: Any, kinds: Collection[str]) -> KerasLayer:
        """Return a layer inside this one, if it is of one of these kinds."""
        layer = KerasLayer(description, self.left, self.version)
        if layer.kind not in kinds:
            raise self.error(f"has {layer.where} inside, which is not imported there")
        return layer

    def close(self) -> None:
        """Refuse options that nobody has asked for."""
        for name, value in self.config.items():
            known = name in self._asked or name in _HARMLESS or name.endswith(_HARMLESS_ENDS)
            if not known and value is not None and value is not False:
                raise self.error(f"has {name}={checks.describe(value)}, which is not imported")
