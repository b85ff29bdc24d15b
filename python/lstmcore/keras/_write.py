"""Layers and models of ours become Keras's own objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._base.checks import Array
from .._base.module import Module
from .._nn.activations import ReLU, Sigmoid, Softmax, Tanh
from .._nn.cells import Cell
from .._nn.dropout import Dropout
from .._nn.embedding import Embedding
from .._nn.layer_norm import LayerNorm
from .._nn.layers import Layer
from .._nn.linear import Linear
from .._nn.masking import Masking
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool, Pool
from .._nn.sequential import Sequential
from .._nn.time_reversal import Flip
from ._model import major
from ._recurrent import keras_options, to_weights

__all__ = ["write"]

_KINDS = {"rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
_ACTIVATIONS: dict[type[Module], str] = {
    Tanh: "tanh",
    ReLU: "relu",
    Sigmoid: "sigmoid",
    Softmax: "softmax",
}


def write(keras: Any, module: Module) -> Any:
    """Return what `to_keras` returns."""
    version = major(keras.__version__, "keras")
    if isinstance(module, Cell):
        options = keras_options(module._config, version, module)
        cell = getattr(keras.layers, _KINDS[module._kind] + "Cell")(**options)
        cell.build((None, module.input_size))
        cell.set_weights(to_weights(module._config, module.state_dict()))
        return cell
    modules = [m for _, m in module._steps] if isinstance(module, Sequential) else [module]
    layers, weights = _Writer(keras, version, modules).write()
    if isinstance(module, Sequential) or len(layers) > 1:
        made = keras.Sequential([_input(keras, modules), *layers])
    else:
        made = layers[0]
        made.build(_input(keras, modules).shape)
    made.set_weights(weights)
    return made


def _input(keras: Any, modules: list[Module]) -> Any:
    """Return what says to Keras what the first module takes."""
    first = next((m for m in modules if not isinstance(m, Masking)), modules[0])
    if isinstance(first, Embedding):
        return keras.layers.Input((None,), dtype="int32")
    sizes = (module._input_size for module in modules)
    size = next((size for size in sizes if size is not None), None)
    dtypes = (getattr(module, "dtype", None) for module in modules)
    dtype = next((dtype.name for dtype in dtypes if dtype is not None), "float32")
    timed = any(isinstance(module, (Layer, Pool, Flip, Masking)) for module in modules)
    return keras.layers.Input((None, size) if timed else (size,), dtype=dtype)


class _Writer:
    """The layers of Keras for a chain of ours, and the weights of all of them, in Keras's order."""

    def __init__(self, keras: Any, version: int, modules: list[Module]) -> None:
        self._kinds = keras.layers
        self._version = version
        self._modules = modules
        self._layers: list[Any] = []
        self._weights: list[Array] = []

    def write(self) -> tuple[list[Any], list[Array]]:
        """Go through the modules; some belong together."""
        at = 0
        while at < len(self._modules):
            at += self._write(*self._modules[at : at + 3])
        return self._layers, self._weights

    def _write(self, module: Module, *after: Module) -> int:
        """Write a module, and return how many of those that follow it are in it, with itself."""
        if isinstance(module, Layer):
            return self._recurrent(module, *after)
        if isinstance(module, Flip) and after and isinstance(after[0], Layer):
            if after[0].bidirectional or after[0].reverse:
                raise ValueError(f"{after[0]!r} after {module!r} is more than Keras can express")
            return 1 + self._recurrent(after[0], *after[1:], backwards=True)
        if isinstance(module, Masking) and module.ids:
            if not after or not isinstance(after[0], Embedding) or module.value != 0:
                raise ValueError(f"{module!r} is more than Keras can express: 0 for an Embedding")
            self._embedding(after[0], masks=True)
            return 2
        self._single(module)
        return 1

    def _single(self, module: Module) -> None:
        kinds, dtype = self._kinds, getattr(module, "dtype", None)
        options = {} if dtype is None else {"dtype": dtype.name}
        weights = module.state_dict()
        if isinstance(module, Embedding):
            self._embedding(module, masks=False)
        elif isinstance(module, Linear):
            layer = kinds.Dense(module.out_features, use_bias=module.bias, **options)
            weights["weight"] = weights["weight"].T
            self._add(layer, *weights.values())
        elif isinstance(module, LayerNorm) and len(module.normalized_shape) == 1:
            affine = module.elementwise_affine
            layer = kinds.LayerNormalization(
                epsilon=module.eps, scale=affine, center=affine and module.bias, **options
            )
            self._add(layer, *weights.values())
        elif isinstance(module, Dropout):
            self._add(kinds.Dropout(module.p))
        elif isinstance(module, Masking):
            self._add(kinds.Masking(module.value))
        elif isinstance(module, MeanPool):
            self._add(kinds.GlobalAveragePooling1D())
        elif isinstance(module, MaxPool) and not any(
            isinstance(other, Masking)
            for other in self._modules  # which Keras overlooks
        ):
            self._add(kinds.GlobalMaxPooling1D())
        elif type(module) in _ACTIVATIONS:
            self._add(kinds.Activation(_ACTIVATIONS[type(module)]))
        else:
            raise ValueError(f"{module!r} is nothing that Keras can express there")

    def _add(self, layer: Any, *weights: Array) -> None:
        self._layers.append(layer)
        self._weights.extend(weights)

    def _embedding(self, module: Embedding, masks: bool) -> None:
        layer = self._kinds.Embedding(
            module.num_embeddings,
            module.embedding_dim,
            mask_zero=masks,
            dtype=module.dtype.name,
        )
        self._add(layer, *module.state_dict().values())

    def _recurrent(self, layer: Layer[Any], *after: Module, backwards: bool = False) -> int:
        """Write all layers of a recurrent layer, and the pooling after it that Keras has in it."""
        options = keras_options(layer._config, self._version, layer)
        pooled = bool(after) and isinstance(after[0], LastStep | BothEnds)
        merge = layer.merge
        if pooled and isinstance(after[0], BothEnds):
            if merge != "concat" or not layer.bidirectional:
                raise ValueError(f"{after[0]!r} after {layer!r} is more than Keras can express")
            merge = after[0].merge
        elif pooled and (layer.bidirectional or layer.reverse):
            raise ValueError(
                f"{after[0]!r} after {layer!r} is more than Keras can express: its last step is "
                "the last that a direction has read, so take BothEnds for bidirectional=True, and "
                "for reverse=True a Flip before a layer without"
            )
        elif layer.reverse and len(self._modules) > 1:
            raise ValueError(
                f"{layer!r} is more than Keras can express in a model: its outputs would stand the "
                "other way round; write Flip before a layer without reverse"
            )
        kind = getattr(self._kinds, _KINDS[layer._kind])
        for i in range(layer.num_layers):
            last = i == layer.num_layers - 1
            made = kind(
                **options,
                return_sequences=not (last and pooled),
                go_backwards=i == 0 and (backwards or layer.reverse),
            )
            if layer.bidirectional:
                made = self._kinds.Bidirectional(made, merge_mode=merge if last else layer.merge)
            self._add(made, *self._of_layer(layer, i))
            if layer.dropout and not last:
                self._add(self._kinds.Dropout(layer.dropout))
        return 1 + pooled

    def _of_layer(self, layer: Layer[Any], index: int) -> Iterator[Array]:
        """Yield the weights of one of the layers of a recurrent layer."""
        ours = layer.state_dict()
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            end = f"_l{index}{suffix}"
            names = [name for name in ours if name.endswith(end)]
            yield from to_weights(layer._config, {n.removesuffix(end): ours[n] for n in names})
