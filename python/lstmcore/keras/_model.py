"""A model of Keras: what it says of itself, and which layers it runs in which order.

Layers are known by the names of their classes; nothing is imported and nothing run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .._base.checks import describe
from .._base.module import Module
from ._chain import Chain, alone
from ._layer import KerasLayer, NoChain, Stored, layers_of, name_of

__all__ = ["Source", "check_taken", "import_layer", "import_model", "major"]

_MASKING = {"Masking": "mask_value", "Embedding": "mask_zero"}


@dataclass(frozen=True)
class Source:
    """A model of Keras, wherever it is."""

    model: Any  # as Keras describes it: {"class_name": ..., "config": ...}
    version: int  # of Keras, 2 or 3
    # Of a layer, in Keras's order, by its name, behind those of the models that it is in.
    weights: Callable[..., Sequence[Stored]]


def import_model(source: Source, name: str | None = None) -> Module:
    """Return our modules for a chain of layers, or for the layer of that name by itself."""
    if name is None:
        chain = Chain()
        for layer in chain_of(source.model):
            weights = list(source.weights(name_of(layer)))
            chain.read(layer, weights, source.version)
            check_taken(f"the layer {name_of(layer)!r}", weights)
        return chain.model()
    layers = {name_of(layer): layer for layer in layers_of(source.model)}
    if name not in layers:
        known = ", ".join(map(repr, layers))
        raise ValueError(f"layer is {name!r}, expected one of {known[:1000]}")
    weights = list(source.weights(name))
    return import_layer(KerasLayer(layers[name], weights, source.version), weights)


def import_layer(layer: KerasLayer, weights: list[Stored]) -> Module:
    """Return what computes the same as one layer, which takes all of its weights."""
    module = alone(layer)
    check_taken(layer.where, weights)
    return module


def check_taken(where: str, weights: list[Stored]) -> None:
    """Refuse weights that are left over."""
    if weights:
        shapes = ", ".join(str(tuple(weight.shape)) for weight in weights)
        raise ValueError(f"{where} has more weights than it needs: {shapes}")


# Which layers -------------------------------------------------------------------------------------


def major(version: Any, where: str) -> int:
    """Return 2 or 3, of a version of Keras."""
    number = str(version).split(".")[0]
    if number not in ("2", "3"):
        raise ValueError(
            f"{where} was written by Keras {str(version)[:20]!r}, expected 2 or 3: open it in "
            "Keras 2 and save it again"
        )
    return int(number)


def chain_of(model: Any) -> list[Any]:
    """Return the descriptions of the layers in the order in which they run."""
    layers = layers_of(model)
    if model["class_name"] == "Sequential":
        return layers
    return _Graph(model["config"], layers).chain()


class _Graph:
    """A functional model that is a chain.

    Keras 3 writes down a mask as operations of its own, ``Any(NotEqual(x, value))``, where x is
    the input of the layer that masks; they are followed back to it, and left out.
    """

    def __init__(self, config: Any, layers: list[Any]) -> None:
        self._config = config
        self._layers = {name_of(layer): layer for layer in layers}

    def chain(self) -> list[Any]:
        """Follow the chain from its end to its start."""
        name = self._end("output_layers")
        first = self._end("input_layers")
        found = [name]
        while name != first:
            name = self._source(name)
            if len(found) > len(self._layers):
                raise ValueError("the model runs in a circle")
            found.append(name)
        found.reverse()
        for i, name in enumerate(found):
            self._check_mask(name, found[:i])
        return [self._layer(name) for name in found]

    def _layer(self, name: Any) -> Any:
        if not isinstance(name, str) or name not in self._layers:
            raise ValueError(f"the model has no layer {describe(name)}, which it runs")
        return self._layers[name]

    def _end(self, which: str) -> str:
        """Return the name of the only layer where the model ends or starts."""
        ends = self._config.get(which)
        if isinstance(ends, list) and len(ends) == 1:
            ends = ends[0]
        if not (isinstance(ends, list) and len(ends) == 3 and isinstance(ends[0], str)):
            raise ValueError(
                f"the model has {which}={describe(ends)}, expected one: only chains of layers are "
                "imported, but `layer` imports one layer of any model"
            )
        return self._tensor(ends, which)

    def _tensor(self, history: Any, where: str) -> str:
        """Return the name of the layer whose first output this is."""
        if not (isinstance(history, list) and len(history) >= 3 and isinstance(history[0], str)):
            raise ValueError(f"{where} is {describe(history)}, expected a layer and two numbers")
        if history[1] != 0 or history[2] != 0:
            what = "second call" if history[1] else "state"
            raise ValueError(f"{where} is the {what} of {history[0]!r}, which is not imported")
        return history[0]

    def _call(self, name: str) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments of the only call of a layer."""
        nodes = self._layer(name).get("inbound_nodes")
        if not isinstance(nodes, list) or len(nodes) != 1:
            raise ValueError(f"the layer {name!r} is not called once: only chains are imported")
        node = nodes[0]
        if isinstance(node, dict):  # Keras 3
            args, kwargs = node.get("args"), node.get("kwargs")
        elif isinstance(node, list) and node and isinstance(node[0], list):  # [[name, 0, 0, {}]]
            args, kwargs = node, node[0][3] if len(node[0]) > 3 else {}
        else:
            args, kwargs = None, None
        if not isinstance(args, list) or not isinstance(kwargs, dict) or not args:
            raise ValueError(f"the layer {name!r} is called in a way that is not known")
        return args, {k: v for k, v in kwargs.items() if v is not None and k != "training"}

    def _source(self, name: str) -> str:
        """Return the layer before this one."""
        args, kwargs = self._call(name)
        others = [arg for arg in args[1:] if arg is not None]
        if isinstance(args[0], list) and any(isinstance(part, dict) for part in args[0][:1]):
            others = args[0]  # a list of tensors, in Keras 3
        if others or set(kwargs) - {"mask"}:
            more = ", ".join(kwargs) or "more than one input"
            raise ValueError(f"the layer {name!r} is called with {more}, which is not imported")
        return self._tensor(_history(args[0]), f"the input of {name!r}")

    def _check_mask(self, name: str, before: list[str]) -> None:
        """Refuse a mask that is not that of the last layer before that masks."""
        mask = self._call(name)[1].get("mask") if before else None
        if mask is None:
            return
        source = self._tensor(_history(mask), f"the mask of {name!r}")
        if self._layer(source)["class_name"] == "Any":
            source = self._tensor(_history(self._call(source)[0][0]), f"the input of {source!r}")
        args, _ = self._call(source)
        for masking, its_input in zip(reversed(before[1:]), reversed(before[:-1]), strict=True):
            kind, config = self._layer(masking)["class_name"], self._layer(masking)["config"]
            if kind in _MASKING and config.get(_MASKING[kind]) is not False:
                value = config.get("mask_value") if kind == "Masking" else 0
                if (
                    self._layer(source)["class_name"] == "NotEqual"
                    and len(args) == 2
                    and self._tensor(_history(args[0]), f"the mask of {name!r}") == its_input
                    and args[1] == value
                ):
                    return
                break
        raise NoChain(f"the layer {name!r} has a mask of its own")


def _history(tensor: Any) -> Any:
    """Return [layer, call, output] of a tensor, from either way of writing it."""
    if isinstance(tensor, dict) and tensor.get("class_name") == "__keras_tensor__":
        config = tensor.get("config")
        return config.get("keras_history") if isinstance(config, dict) else None
    return tensor
