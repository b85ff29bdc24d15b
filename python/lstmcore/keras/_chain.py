"""Keras's layers, one after the other, become modules of ours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._base.checks import Array
from .._base.module import Module
from .._nn.activations import (
    ELU,
    GELU,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .._nn.conv import Conv1D
from .._nn.dropout import Dropout
from .._nn.embedding import Embedding
from .._nn.linear import Linear
from .._nn.masking import Masking
from .._nn.normalization import BatchNorm, LayerNorm
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.sequential import Sequential
from .._nn.time_reversal import Flip
from ._layer import KerasLayer
from ._recurrent import CELLS, LAYERS, Direction, both_directions, direction, make, make_cell

__all__ = ["Chain", "alone", "freeze"]

_ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "tanh": Tanh,
    "relu": ReLU,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "gelu": GELU,
    "silu": SiLU,
    "swish": SiLU,
    "elu": ELU,
    "leaky_relu": lambda: LeakyReLU(0.2),
    "softplus": Softplus,
}


def alone(layer: KerasLayer) -> Module:
    """Return what computes the same as one layer; recurrent ones with all outputs and states."""
    module: Module
    if layer.kind in CELLS:
        module = make_cell(layer)
    elif layer.kind in LAYERS:
        only = direction(layer)
        module = make(only, reverse=only.backwards)
    elif layer.kind == "Bidirectional":
        forward, reverse, merge = both_directions(layer)
        module = make(forward, reverse, merge=merge)
    else:
        module = _other(layer)
    if not layer.trainable:
        freeze([module])
    return module


def _other(layer: KerasLayer) -> Module:
    chain = Chain()
    chain.add(layer)
    model = chain.model()
    return model[0] if len(model) == 1 else model


def freeze(modules: list[Module]) -> None:
    """Let no optimizer train them."""
    for module in modules:
        for p in module.parameters():
            p.trainable = False


class Chain:
    """The modules for a chain of layers, and what is known of what they give.

    A mask is what Keras sends along beside the output of a layer: which steps are there. Ours is
    the lengths that a `Masking` finds; whether it may move steps is known at the end only.
    """

    def __init__(self, has_steps: bool = True) -> None:
        self._modules: list[Module] = []
        self._has_steps = has_steps  # whether there still is an axis of time
        self._masking_module: Masking | None = None
        self._masked = False  # whether a mask comes along
        self._mask_used = False

    def add(self, layer: KerasLayer) -> None:
        """Append what computes the same as the layer."""
        if layer.kind not in _READERS:
            raise layer.error(f"is not imported; those that are: {', '.join(sorted(_READERS))}")
        before = len(self._modules)
        _READERS[layer.kind](self, layer)
        layer.close()
        if not layer.trainable:
            freeze(self._modules[before:])

    @property
    def masks(self) -> bool:
        """Whether a layer masks steps."""
        return self._masking_module is not None

    @property
    def modules(self) -> list[Module]:
        """The modules so far."""
        return self._modules

    def model(self) -> Sequential:
        """Return the modules, in a Sequential."""
        modules: list[Module] = []
        for module in self._modules:
            if module is not self._masking_module:
                modules.append(module)
            elif self._mask_used:
                value, ids = module.value, module.ids
                modules.append(Masking(value, ids, gaps=not self._has_steps, batch_first=True))
        if not modules:
            raise ValueError("the model has no layers that compute anything")
        return Sequential(*modules)

    def _append(self, module: Module, **weights: Array) -> None:
        module.load_state_dict(weights)
        self._modules.append(module)

    # Recurrent layers -----------------------------------------------------------------------------

    def _recurrent(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        only = direction(layer)
        self._check_recurrent(layer, only)
        if only.backwards:
            if self._masked and only.sequences:
                raise layer.error(
                    "has go_backwards=True and return_sequences=True after a layer that masks "
                    "steps: Keras's outputs and its mask then run in opposite directions"
                )
            self._modules.append(Flip(batch_first=True))
        self._modules.append(make(only))
        if not only.sequences:
            self._end_time(LastStep(batch_first=True))

    def _bidirectional(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        forward, reverse, merge = both_directions(layer)
        self._check_recurrent(layer, forward)
        if forward.sequences:
            self._modules.append(make(forward, reverse, merge=merge))
        else:
            self._modules.append(make(forward, reverse))
            self._end_time(BothEnds(merge, batch_first=True))

    def _check_recurrent(self, layer: KerasLayer, read: Direction) -> None:
        if not read.options["batch_first"]:
            raise layer.error("has time_major=True, which is imported for a layer alone only")
        self._mask_used |= self._masked

    # The axis of time -----------------------------------------------------------------------------

    def _need_time(self, layer: KerasLayer) -> None:
        if not self._has_steps:
            raise layer.error("needs time steps, and the layers before it leave none")

    def _end_time(self, pool: Module) -> None:
        self._modules.append(pool)
        self._has_steps = self._masked = False

    def _mean_pool(self, layer: KerasLayer) -> None:
        self._check_pool(layer)
        self._mask_used |= self._masked
        self._end_time(MeanPool(batch_first=True))

    def _max_pool(self, layer: KerasLayer) -> None:
        self._check_pool(layer)
        if self._masked:
            raise layer.error("is after a layer that masks steps, which Keras overlooks here")
        self._end_time(MaxPool(batch_first=True))

    def _check_pool(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        if layer.flag("keepdims", False):
            raise layer.error("has keepdims=True, which is not imported")
        if layer.get("data_format", "channels_last") != "channels_last":
            raise layer.error(
                f"has data_format={layer.get('data_format')!r}, which is not imported"
            )

    def _masking(self, layer: KerasLayer) -> None:
        self._mask(layer, Masking(layer.number("mask_value", 0.0)))

    def _mask(self, layer: KerasLayer, masking: Masking) -> None:
        if self._masking_module is not None:
            raise layer.error("masks steps, which a layer before it does already")
        self._modules.append(masking)
        self._masking_module = masking
        self._masked = True

    # Layers that take every step by itself --------------------------------------------------------

    def _embedding(self, layer: KerasLayer) -> None:
        count, size = layer.size("input_dim"), layer.size("output_dim")
        weight = layer.take("embeddings", (count, size))
        if layer.flag("mask_zero", False):
            self._mask(layer, Masking(ids=True))
        self._append(Embedding(count, size, dtype=weight.dtype), weight=weight)

    def _dense(self, layer: KerasLayer) -> None:
        units, bias = layer.size("units"), layer.flag("use_bias", True)
        kernel = layer.take("kernel", (None, units))
        weights = {"weight": kernel.T}
        if bias:
            weights["bias"] = layer.take("bias", (units,))
        self._append(Linear(kernel.shape[0], units, bias, kernel.dtype), **weights)
        self._activation(layer)

    def _activation(self, layer: KerasLayer) -> None:
        name = layer.get("activation")
        if name is None or name == "linear":
            return
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            known = ", ".join([*_ACTIVATIONS, "linear"])
            raise layer.error(f"has activation={name!r}, which is not imported; these are: {known}")
        self._modules.append(_ACTIVATIONS[name]())

    def _relu(self, layer: KerasLayer) -> None:
        slope, threshold = layer.number("negative_slope", 0.0), layer.number("threshold", 0.0)
        if threshold or layer.get("max_value") is not None:
            raise layer.error("has a threshold or a max_value, which is not imported")
        self._modules.append(LeakyReLU(slope) if slope else ReLU())

    def _leaky_relu(self, layer: KerasLayer) -> None:
        name = "negative_slope" if layer.version > 2 else "alpha"
        self._modules.append(LeakyReLU(layer.number(name, 0.3)))

    def _elu(self, layer: KerasLayer) -> None:
        self._modules.append(ELU(layer.number("alpha", 1.0)))

    def _softmax(self, layer: KerasLayer) -> None:
        self._check_axis(layer)
        self._modules.append(Softmax())

    def _dropout(self, layer: KerasLayer) -> None:
        if layer.get("noise_shape") is not None:
            raise layer.error("has noise_shape, which is not imported")
        self._modules.append(Dropout(layer.number("rate", 0.5)))

    def _layer_norm(self, layer: KerasLayer) -> None:
        self._check_axis(layer)
        if layer.flag("rms_scaling", False):
            raise layer.error("has rms_scaling=True, which is not imported")
        scale, centre = layer.flag("scale", True), layer.flag("center", True)
        weights: dict[str, Array] = {}
        if scale:
            weights["weight"] = layer.take("gamma", (None,))
        if centre:
            weights["bias"] = layer.take("beta", weights["weight"].shape if scale else (None,))
        if not weights:
            raise layer.error("has neither scale nor center, which is not imported")
        one = next(iter(weights.values()))
        weights.setdefault("weight", np.ones_like(one))
        norm = LayerNorm(one.size, layer.number("epsilon", 1e-3), bias=centre, dtype=one.dtype)
        self._append(norm, **weights)

    def _conv(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        if self._masked:
            raise layer.error("is after a layer that masks steps, which Keras overlooks here")
        if layer.get("groups", 1) != 1 or layer.get("data_format") not in (None, "channels_last"):
            raise layer.error("has groups or channels_first, which is not imported")
        filters, bias = layer.size("filters"), layer.flag("use_bias", True)
        size, stride, dilation = (
            self._one_number(layer, name) for name in ("kernel_size", "strides", "dilation_rate")
        )
        kernel = layer.take("kernel", (size, None, filters))
        weights = {"weight": kernel.transpose(2, 1, 0)}
        if bias:
            weights["bias"] = layer.take("bias", (filters,))
        padding = layer.get("padding", "valid")
        try:
            conv = Conv1D(
                kernel.shape[1], filters, size, stride, padding, dilation, bias, True, kernel.dtype
            )
        except (TypeError, ValueError) as error:
            raise layer.error(f"is not imported: {error}") from error
        self._append(conv, **weights)
        self._activation(layer)

    def _one_number(self, layer: KerasLayer, name: str) -> int:
        value = layer.need(name)
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if not isinstance(value, int) or value < 1:
            raise layer.error(f"has {name}={value!r}, expected one number above 0")
        return value

    def _batch_norm(self, layer: KerasLayer) -> None:
        self._check_axis(layer)
        for name in ("synchronized", "renorm_clipping", "renorm_momentum"):
            layer.get(name)  # which act in training only
        for name in ("renorm", "virtual_batch_size"):  # of Keras 2
            if layer.get(name):
                raise layer.error(f"has {name}={layer.get(name)!r}, which is not imported")
        scale, centre = layer.flag("scale", True), layer.flag("center", True)
        names = ["weight"] * scale + ["bias"] * centre + ["running_mean", "running_var"]
        keras_names = {"weight": "gamma", "bias": "beta"}
        taken: dict[str, Array] = {}
        for name in names:
            shape = next((a.shape for a in taken.values()), (None,))
            taken[name] = layer.take(
                keras_names.get(name, name.replace("running", "moving")), shape
            )
        mean = taken["running_mean"]
        norm = BatchNorm(
            mean.size,
            layer.number("epsilon", 1e-3),
            round(1 - layer.number("momentum", 0.99), 12),
            affine=scale or centre,
            frozen=not layer.trainable,
            batch_first=True if self._has_steps else None,
            dtype=mean.dtype,
        )
        self._mask_used |= self._masked
        self._append(norm, **{**norm.state_dict(), **taken})
        for name, p in norm.named_parameters():
            p.trainable = name in taken

    def _check_axis(self, layer: KerasLayer) -> None:
        axis = layer.get("axis", -1)
        if axis not in (-1, [-1], 1 + self._has_steps, [1 + self._has_steps]):
            raise layer.error(f"has axis={axis!r}, expected the last one")

    def _time_distributed(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        self.add(layer.inside(layer.need("layer"), _EACH_STEP))

    def _nothing(self, layer: KerasLayer) -> None:
        """Read a layer that only says what comes in, or that only acts in training."""
        if layer.get("ragged") or layer.get("sparse"):
            raise layer.error("takes ragged or sparse tensors, which is not imported")
        for name in ("optional", "rate", "stddev", "noise_shape"):
            layer.get(name)


_READERS: dict[str, Callable[[Chain, KerasLayer], None]] = {
    **dict.fromkeys(LAYERS, Chain._recurrent),
    "Activation": Chain._activation,
    "AlphaDropout": Chain._nothing,
    "BatchNormalization": Chain._batch_norm,
    "Bidirectional": Chain._bidirectional,
    "Conv1D": Chain._conv,
    "Dense": Chain._dense,
    "Dropout": Chain._dropout,
    "ELU": Chain._elu,
    "Embedding": Chain._embedding,
    "GaussianDropout": Chain._nothing,
    "GaussianNoise": Chain._nothing,
    "GlobalAveragePooling1D": Chain._mean_pool,
    "GlobalMaxPooling1D": Chain._max_pool,
    "InputLayer": Chain._nothing,
    "LayerNormalization": Chain._layer_norm,
    "LeakyReLU": Chain._leaky_relu,
    "Masking": Chain._masking,
    "ReLU": Chain._relu,
    "Softmax": Chain._softmax,
    "SpatialDropout1D": Chain._nothing,
    "TimeDistributed": Chain._time_distributed,
}
_EACH_STEP = (
    "Activation",
    "Dense",
    "Dropout",
    "ELU",
    "LayerNormalization",
    "LeakyReLU",
    "ReLU",
    "Softmax",
)
