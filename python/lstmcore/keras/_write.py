"""Layers and models of ours become Keras's own objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .._base.checks import Array
from .._base.module import Module
from .._files.export_options import check_options, not_written
from .._nn.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .._nn.cells import GRUCell, LSTMCell, RNNCell
from .._nn.conv import Conv1D
from .._nn.dropout import Dropout
from .._nn.embedding import Embedding
from .._nn.layers import GRU, LSTM, RNN, Layer
from .._nn.linear import Linear
from .._nn.masking import Masking
from .._nn.normalization import BatchNorm, LayerNorm
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.sequential import Sequential
from .._nn.time_reversal import Flip
from .._shapes.each_step import EachStep
from .._shapes.rows import Permute, RepeatVector, Reshape
from .._shapes.steps import AvgPool1D, MaxPool1D, Pad1D, UpSample1D
from ._model import major
from ._recurrent import keras_options, to_weights

__all__ = ["Writer", "check", "inexpressible", "write"]

# The modules that are written, and which of their options. Those that say how parameters start or
# are trained (forget_bias, padding_idx, sparse) are left out. `gaps` says what our Masking refuses;
# Keras takes all rows, so that it gives the same wherever ours gives anything.
_CELL = ("input_size", "hidden_size", "bias", "dtype")
_LAYER = (*_CELL, "num_layers", "batch_first", "dropout", "bidirectional", "reverse", "merge")
_OPTIONS: dict[type[Module], tuple[str, ...]] = {
    RNN: (*_LAYER, "nonlinearity"),
    LSTM: (*_LAYER, "activations", "forget_bias"),
    GRU: (*_LAYER, "activations", "reset_after"),
    RNNCell: (*_CELL, "nonlinearity"),
    LSTMCell: (*_CELL, "activations", "forget_bias"),
    GRUCell: (*_CELL, "activations", "reset_after"),
    Embedding: ("num_embeddings", "embedding_dim", "padding_idx", "sparse", "dtype"),
    Linear: ("in_features", "out_features", "bias", "dtype"),
    LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias", "dtype"),
    BatchNorm: ("num_features", "eps", "momentum", "affine", "frozen", "batch_first", "dtype"),
    Conv1D: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
        "batch_first",
        "dtype",
    ),
    Dropout: ("p",),
    Masking: ("value", "ids", "gaps", "batch_first"),
    Flip: ("batch_first",),
    LastStep: ("batch_first",),
    BothEnds: ("merge", "batch_first"),
    MeanPool: ("batch_first",),
    MaxPool: ("batch_first",),
    Activation: ("name",),
    Reshape: ("given", "shape", "batch_first"),
    Permute: ("given", "order", "batch_first"),
    RepeatVector: ("steps", "batch_first"),
    Pad1D: ("left", "right", "batch_first"),
    UpSample1D: ("size", "batch_first"),
    MaxPool1D: ("size", "stride", "padding", "batch_first"),
    AvgPool1D: ("size", "stride", "padding", "batch_first"),
    EachStep: ("module", "batch_first"),
    Tanh: (),
    ReLU: (),
    Sigmoid: (),
    Softmax: (),
    LogSoftmax: (),
    GELU: (),
    SiLU: (),
    ELU: ("alpha",),
    LeakyReLU: ("negative_slope",),
    PReLU: ("num_parameters", "init", "dtype"),
    Softplus: (),
}
_RECURRENT: dict[type[Module], str] = {
    RNN: "SimpleRNN",
    LSTM: "LSTM",
    GRU: "GRU",
    RNNCell: "SimpleRNNCell",
    LSTMCell: "LSTMCell",
    GRUCell: "GRUCell",
}


_INSIDE = "call the Sequential with a lc.Input, and take the lc.Model of what comes of it"


def write(keras: Any, module: Module) -> Any:
    """Return what `to_keras` returns."""
    version = major(keras.__version__, "keras")
    modules = [part for _, part in module._chain()]
    for part in modules:
        check(part)
    if module._state_parts and not module._takes_one_x:  # a cell
        return _cell(keras, version, module)
    writer = Writer(keras, version, modules)
    layers, weights = writer.write(), writer.weights
    if len(layers) > 1 or type(module) is Sequential:
        made = keras.Sequential([_input(keras, modules), *layers])
    else:
        made = layers[0]
        made.build(_input(keras, modules).shape)
    made.set_weights(weights)
    return made


def check(module: Module) -> None:
    """Refuse a module that Keras has nothing for, or an option of it."""
    if type(module) not in _OPTIONS:
        how = (
            ""
            if module._network is None
            else "in a Sequential, which can be called with a lc.Input"
        )
        raise inexpressible(module, how)
    check_options(module, _OPTIONS[type(module)], "Keras")
    if type(module) is EachStep:
        for _, part in module.module._chain():
            check(part)


def _cell(keras: Any, version: int, module: Module) -> Any:
    made = getattr(keras.layers, _RECURRENT[type(module)])(**keras_options(module, version))
    made.build((None, module._config.input_size))
    made.set_weights(to_weights(module._config, module.state_dict()))
    return made


def _input(keras: Any, modules: list[Module]) -> Any:
    """Return what says to Keras what the first module takes."""
    first: Any = next((m for m in modules if not m._finds_lengths), modules[0])
    inner = (None,) if type(first) is EachStep and first.module._knows_time else ()
    if first._takes_ids:
        return keras.layers.Input((None, *inner), dtype="int32")
    if type(first) in (Reshape, Permute):
        return keras.layers.Input(first.given, dtype=_dtype(modules))
    sizes = (module._input_size for module in modules)
    size = next((size for size in sizes if size is not None), None)
    dtype = _dtype(modules)
    time = _known_steps(modules)
    shape = (time, *inner, size) if _with_steps(modules) else (size,)
    return keras.layers.Input(shape, dtype=dtype)


def _with_steps(modules: list[Any]) -> bool:
    """Whether a chain takes time steps, as far as its modules tell."""
    makes = next((i for i, m in enumerate(modules) if m._makes_time), len(modules))
    return any(m._knows_time or m._takes_ids or type(m) is EachStep for m in modules[:makes])


def _known_steps(modules: list[Any]) -> int | None:
    """Return how many steps a chain takes, if one of its modules says so."""
    for module in modules:
        given = getattr(module, "given", None)
        if given is not None:
            size: int | None = given[0] if len(given) > 1 else None
            return size
        if module._changes_lengths or not module._keeps_time:
            return None
    return None


def _dtype(modules: list[Module]) -> str:
    dtypes = (getattr(module, "dtype", None) for module in modules)
    return next((dtype.name for dtype in dtypes if dtype is not None), "float32")


def inexpressible(module: Module, why: str = "") -> ValueError:
    """Return the error for a module that Keras has nothing for, where it stands."""
    why = why or module._instead
    return ValueError(f"{module!r} is nothing that Keras can express there{why and ': '}{why}")


class Writer:
    """The layers of Keras for a chain of ours, each with its weights, in Keras's order.

    Parameters
    ----------
    keras : module
    version : int
        Of Keras.
    modules : list of Module
    dtype : str, optional
        Of what has no parameters; that of the modules if not given.
    states : bool, default False
        Whether recurrent layers give their states, too.
    steps : bool, optional
        Whether what the first module takes has steps; as far as the modules tell if not given.
    """

    def __init__(
        self,
        keras: Any,
        version: int,
        modules: list[Module],
        dtype: str | None = None,
        states: bool = False,
        steps: bool | None = None,
    ) -> None:
        self._steps = _with_steps(modules) if steps is None else steps
        self._keras, self._kinds = keras, keras.layers
        self._version = version
        self._modules = modules
        self._masked = any(module._finds_lengths for module in modules)
        self._dtype = dtype or _dtype(modules)
        self._states = states
        self.pairs: list[tuple[Any, list[Array]]] = []  # layers and their weights

    def write(self) -> list[Any]:
        """Go through the modules, of which some belong together, and return the layers."""
        at = 0
        while at < len(self._modules):
            at += self._write(*self._modules[at : at + 3])
        return [layer for layer, _ in self.pairs]

    @property
    def weights(self) -> list[Array]:
        """Those of all layers."""
        return [weight for _, weights in self.pairs for weight in weights]

    def _write(self, module: Any, *after: Any) -> int:
        """Write a module, and return how many of those that follow it are in it, with itself."""
        kind, following = type(module), type(after[0]) if after else None
        if not module._keeps_time:
            self._steps = False
        elif module._makes_time:
            self._steps = True
        if kind in _RECURRENT:
            return self._recurrent(module, *after)
        if kind is Flip and following in _RECURRENT:
            if after[0]._needs_whole_sequence:
                raise ValueError(f"{after[0]!r} after {module!r} is more than Keras can express")
            return 1 + self._recurrent(*after, backwards=True)
        if kind is Masking and module.ids:
            if following is not Embedding or module.value != 0:
                raise ValueError(f"{module!r} is more than Keras can express: 0 for an Embedding")
            self._embedding(after[0], masks=True)
            return 2
        if kind not in _SINGLE:
            raise inexpressible(module)
        _SINGLE[kind](self, module)
        return 1

    def _add(self, layer: Any, *weights: Array) -> None:
        self.pairs.append((layer, list(weights)))

    # Modules that become one layer ----------------------------------------------------------------

    def _embedding(self, module: Embedding, masks: bool = False) -> None:
        layer = self._kinds.Embedding(
            module.num_embeddings,
            module.embedding_dim,
            mask_zero=masks,
            dtype=module.dtype.name,
        )
        self._add(layer, *module.state_dict().values())

    def _linear(self, module: Linear) -> None:
        weights = module.state_dict()
        weights["weight"] = weights["weight"].T
        layer = self._kinds.Dense(
            module.out_features, use_bias=module.bias, dtype=module.dtype.name
        )
        self._add(layer, *weights.values())

    def _layer_norm(self, module: LayerNorm) -> None:
        if len(module.normalized_shape) != 1:
            raise inexpressible(module)
        affine = module.elementwise_affine
        layer = self._kinds.LayerNormalization(
            epsilon=module.eps,
            scale=affine,
            center=affine and module.bias,
            dtype=module.dtype.name,
        )
        self._add(layer, *module.state_dict().values())

    def _batch_norm(self, module: BatchNorm) -> None:
        if module.momentum is None:
            raise not_written(module, "momentum", "Keras")
        layer = self._kinds.BatchNormalization(
            momentum=round(1 - module.momentum, 12),
            epsilon=module.eps,
            scale=module.affine,
            center=module.affine,
            trainable=not module.frozen,
            dtype=module.dtype.name,
        )
        state = module.state_dict()
        del state["num_batches_tracked"]
        self._add(layer, *state.values())

    def _conv(self, module: Conv1D) -> None:
        if self._masked:
            raise inexpressible(module, "its Conv1D overlooks masks")
        if module.stride > 1 and module.dilation > 1:
            raise inexpressible(module, "its Conv1D has no stride and dilation at once")
        padding: Any = module.padding
        if isinstance(padding, int):
            if padding:
                self._add(self._kinds.ZeroPadding1D(padding, dtype=self._dtype))
            padding = "valid"
        layer = self._kinds.Conv1D(
            module.out_channels,
            module.kernel_size,
            strides=module.stride,
            padding=padding,
            dilation_rate=module.dilation,
            groups=module.groups,
            use_bias=module.bias,
            dtype=module.dtype.name,
        )
        weight, *bias = module.state_dict().values()
        self._add(layer, weight.transpose(2, 1, 0), *bias)

    def _check_unmasked(self, module: Module) -> None:
        if self._masked:
            raise inexpressible(module, "its layer overlooks masks")

    def _by_name(self, module: Activation) -> None:
        if module.name in ("absolute", "square"):
            raise inexpressible(module, "its functions are no activations")
        self._add(self._kinds.Activation(module.name, dtype=self._dtype))

    def _reshape(self, module: Reshape) -> None:
        self._check_unmasked(module)
        shape = [-1 if n is None else n for n in module._made(None)]
        self._add(self._kinds.Reshape(shape, dtype=self._dtype))

    def _permute(self, module: Permute) -> None:
        self._check_unmasked(module)
        self._add(self._kinds.Permute(module.order, dtype=self._dtype))

    def _repeat_vector(self, module: RepeatVector) -> None:
        self._add(self._kinds.RepeatVector(module.steps, dtype=self._dtype))

    def _pad(self, module: Pad1D) -> None:
        self._check_unmasked(module)
        sizes = module.left, module.right
        if min(sizes) < 0:
            crops = tuple(max(-n, 0) for n in sizes)
            self._add(self._kinds.Cropping1D(crops, dtype=self._dtype))
        if max(sizes) > 0:
            pads = tuple(max(n, 0) for n in sizes)
            self._add(self._kinds.ZeroPadding1D(pads, dtype=self._dtype))

    def _up_sample(self, module: UpSample1D) -> None:
        self._check_unmasked(module)
        self._add(self._kinds.UpSampling1D(module.size, dtype=self._dtype))

    def _window_pool(self, module: MaxPool1D | AvgPool1D) -> None:
        self._check_unmasked(module)
        kinds = self._kinds
        kind = kinds.MaxPooling1D if type(module) is MaxPool1D else kinds.AveragePooling1D
        options = {"strides": module.stride, "padding": module.padding, "dtype": self._dtype}
        self._add(kind(module.size, **options))

    def _each_step(self, module: EachStep) -> None:
        self._check_unmasked(module)
        parts = [part for _, part in module.module._chain()]
        writer = Writer(self._keras, self._version, parts, self._dtype)
        layers = writer.write()
        inside = layers[0] if len(layers) == 1 else self._keras.Sequential(layers)
        self._add(self._kinds.TimeDistributed(inside), *writer.weights)

    def _dropout(self, module: Dropout) -> None:
        self._add(self._kinds.Dropout(module.p, dtype=self._dtype))

    def _masking(self, module: Masking) -> None:
        self._add(self._kinds.Masking(module.value, dtype=self._dtype))

    def _mean_pool(self, module: MeanPool) -> None:
        self._add(self._kinds.GlobalAveragePooling1D(dtype=self._dtype))

    def _max_pool(self, module: MaxPool) -> None:
        if self._masked:
            raise inexpressible(module, "its GlobalMaxPooling1D overlooks masks")
        self._add(self._kinds.GlobalMaxPooling1D(dtype=self._dtype))

    def _activation(self, module: Module) -> None:
        name = type(module).__name__.lower()
        self._add(self._kinds.Activation(name, dtype=self._dtype))

    def _log_softmax(self, module: LogSoftmax) -> None:
        self._add(self._kinds.Activation("log_softmax", dtype=self._dtype))

    def _elu(self, module: ELU) -> None:
        self._add(self._kinds.ELU(alpha=module.alpha, dtype=self._dtype))

    def _leaky_relu(self, module: LeakyReLU) -> None:
        if module.negative_slope < 0:
            raise not_written(module, "negative_slope", "Keras", "it takes none below 0")
        name = "negative_slope" if self._version > 2 else "alpha"
        self._add(self._kinds.LeakyReLU(**{name: module.negative_slope}, dtype=self._dtype))

    # Recurrent layers -----------------------------------------------------------------------------

    def _prelu(self, module: PReLU) -> None:
        axes = 1 + self._steps
        shared = list(range(1, axes if module.num_parameters > 1 else axes + 1))
        layer = self._kinds.PReLU(shared_axes=shared or None, dtype=module.dtype.name)
        slopes = module.state_dict()["weight"]
        self._add(layer, slopes.reshape(*[1] * (axes - 1), -1))

    def _recurrent(self, layer: Layer[Any], *after: Any, backwards: bool = False) -> int:
        """Write all layers of a recurrent layer, and the pooling after it that Keras has in it."""
        options = keras_options(layer, self._version)
        pooled = bool(after) and type(after[0]) in (LastStep, BothEnds)
        self._steps = not pooled
        merge = self._merge(layer, after[0]) if pooled else layer.merge
        if layer.reverse and len(self._modules) > 1 and not pooled:
            raise ValueError(
                f"{layer!r} is more than Keras can express in a model: its outputs would stand the "
                "other way round; write Flip before a layer without reverse"
            )
        if backwards and self._masked and (layer.num_layers > 1 or not pooled):
            raise ValueError(
                f"{layer!r} after a Flip and a Masking is more than Keras can express: its outputs "
                "and its mask would run in opposite directions; only the last step of a single "
                "layer can be had"
            )
        kind = getattr(self._kinds, _RECURRENT[type(layer)])
        for i in range(layer.num_layers):
            last = i == layer.num_layers - 1
            made = kind(
                **options,
                return_sequences=not (last and pooled),
                return_state=self._states,
                go_backwards=i == 0 and (backwards or layer.reverse),
            )
            if layer.bidirectional:
                made = self._kinds.Bidirectional(made, merge_mode=merge if last else layer.merge)
            self._add(made, *_weights(layer, i))
            if layer.dropout and not last:
                self._add(self._kinds.Dropout(layer.dropout, dtype=self._dtype))
        return 1 + pooled

    def _merge(self, layer: Layer[Any], pool: Any) -> str:
        """Return how the ends of a layer's directions are merged by the pooling after it."""
        if type(pool) is BothEnds:
            if layer.merge != "concat" or not layer.bidirectional:
                raise ValueError(f"{pool!r} after {layer!r} is more than Keras can express")
            return pool.merge
        if layer.bidirectional or layer.reverse:
            raise ValueError(
                f"{pool!r} after {layer!r} is more than Keras can express: its last step is "
                "the last that a direction has read, so take BothEnds for bidirectional=True, and "
                "for reverse=True a Flip before a layer without"
            )
        return layer.merge


def _weights(layer: Layer[Any], index: int) -> Iterator[Array]:
    """Yield the weights of one of the layers of a recurrent layer."""
    ours = layer.state_dict()
    for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
        end = f"_l{index}{suffix}"
        names = [name for name in ours if name.endswith(end)]
        yield from to_weights(layer._config, {n.removesuffix(end): ours[n] for n in names})


_SINGLE: dict[type[Module], Callable[[Writer, Any], None]] = {
    Embedding: Writer._embedding,
    Linear: Writer._linear,
    LayerNorm: Writer._layer_norm,
    BatchNorm: Writer._batch_norm,
    Conv1D: Writer._conv,
    Dropout: Writer._dropout,
    Masking: Writer._masking,
    MeanPool: Writer._mean_pool,
    MaxPool: Writer._max_pool,
    **dict.fromkeys((Tanh, ReLU, Sigmoid, Softmax, GELU, SiLU, Softplus), Writer._activation),
    Activation: Writer._by_name,
    LogSoftmax: Writer._log_softmax,
    AvgPool1D: Writer._window_pool,
    EachStep: Writer._each_step,
    ELU: Writer._elu,
    LeakyReLU: Writer._leaky_relu,
    PReLU: Writer._prelu,
    MaxPool1D: Writer._window_pool,
    Pad1D: Writer._pad,
    Permute: Writer._permute,
    RepeatVector: Writer._repeat_vector,
    Reshape: Writer._reshape,
    UpSample1D: Writer._up_sample,
}
