"""Layers and models that are in memory: Keras's own objects, which are only asked, not imported."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

from .._base.checks import describe
from ._layer import KerasLayer
from ._model import Source, major

__all__ = ["is_model", "layer_of", "source_of"]


def is_model(value: Any) -> bool:
    """Whether it is a model of Keras, which has layers, and not one layer."""
    return hasattr(value, "layers") and hasattr(value, "get_layer")


def source_of(model: Any) -> Source:
    """Return a model as if it had come from a file."""
    version = _version(model)
    known = {layer.name: layer for layer in model.layers}

    def weights(name: str, *inside: str) -> list[Any]:
        layer: Any = known.get(name)
        for one in inside:
            while not is_model(layer) and hasattr(layer, "layer"):  # TimeDistributed
                layer = layer.layer
            layer = layer.get_layer(one) if is_model(layer) else None
        return [] if layer is None else _weights(layer)

    return Source(_description(model), version, weights)


def layer_of(layer: Any) -> tuple[KerasLayer, list[Any]]:
    """Return a layer and the list of its weights, from which it takes them."""
    version = _version(layer)
    weights = _weights(layer)
    return KerasLayer(_description(layer), weights, version), weights


def _version(value: Any) -> int:
    root = type(value).__module__.split(".")[0]
    if root not in ("keras", "tf_keras", "tensorflow") or not hasattr(value, "get_weights"):
        hint = " of a class derived from Keras's" if hasattr(value, "get_weights") else ""
        raise TypeError(
            f"source is {describe(value)}{hint}, expected a layer or model of Keras's own, "
            "or the path of a file"
        )
    return 2 if root == "tensorflow" else major(sys.modules[root].__version__, root)


def _weights(layer: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, about Keras's own code
        return list(layer.get_weights())


def _description(value: Any) -> dict[str, Any]:
    """Return the configuration as it would come out of a file."""
    plain = json.loads(json.dumps(value.get_config(), default=repr))
    return {"class_name": type(value).__name__, "config": plain}
