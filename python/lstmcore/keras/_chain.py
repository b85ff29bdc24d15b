"""Keras's layers, one after the other, become modules of ours.

What a chain cannot have is a `NoChain`: a mask at the end or behind a layer that overlooks it,
models inside that are functional ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._base.checks import Array
from .._base.module import Module
from .._nn.activations import (
    ELU,
    FUNCTIONS,
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
from .._nn.conv import Conv1D
from .._nn.dropout import Dropout
from .._nn.embedding import Embedding
from .._nn.linear import Linear
from .._nn.masking import Masking
from .._nn.normalization import BatchNorm, LayerNorm
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.sequential import Sequential
from .._nn.time_reversal import Flip
from .._shapes.each_step import EachStep
from .._shapes.rows import Permute, RepeatVector, Reshape
from .._shapes.steps import AvgPool1D, MaxPool1D, Pad1D, UpSample1D
from ._layer import (
    FUNCTIONAL,
    KerasLayer,
    NoChain,
    Stored,
    freeze,
    layers_of,
    name_of,
    unstacked,
)
from ._recurrent import CELLS, LAYERS, Direction, both_directions, direction, make, make_cell

__all__ = ["ACTIVATIONS", "KINDS", "Chain", "alone", "not_imported", "shape_after"]

ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "tanh": Tanh,
    "relu": ReLU,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "log_softmax": LogSoftmax,
    "gelu": GELU,
    "hard_swish": lambda: Activation("hard_silu"),
    "silu": SiLU,
    "swish": SiLU,
    "elu": ELU,
    "leaky_relu": lambda: LeakyReLU(0.2),
    "softplus": Softplus,
    **{name: (lambda name=name: Activation(name)) for name in FUNCTIONS},  # type: ignore[misc]
}
_DEPTH = 16  # of models in models


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
        module = make(forward, reverse, merge=merge or "concat")
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


def shape_after(module: Any, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return the shape of a row of what a module makes of one of that shape; None is not known."""
    inside = getattr(module, "module", None)
    if inside is not None:  # for each step
        rest = shape[1:]
        for _, part in inside._chain():
            rest = shape_after(part, rest)
        return shape[0], *rest
    if module._network is not None:
        plan = module._network
        axes = plan.axes[plan.outputs]
        return (*([None] * axes.steps), *axes.inner, axes.features)
    if hasattr(module, "_made"):
        return _reshaped(module._made(shape[-1]), shape)
    if module._takes_ids:
        return *shape, module._output_size(None)
    size = module._output_size(shape[-1])
    if not module._keeps_time:
        return (size,)
    if module._changes_lengths and shape[0] is not None:
        return int(module._ends(np.asarray(shape[0]))), size
    return (None if module._changes_lengths else shape[0], *shape[1:-1], size)[-len(shape) :]


def _reshaped(
    made: tuple[int | None, ...], shape: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """Return the shape that is made, with what is left of the numbers for what is not known."""
    if None in shape or made.count(None) != 1:
        return made
    rest = math.prod(n for n in made if n is not None)
    total = math.prod(n or 0 for n in shape)
    return tuple(total // rest if n is None else n for n in made)


class Chain:
    """The modules for a chain of layers, and what is known of what they give.

    A mask is what Keras sends along beside the output of a layer: which steps are there. Ours is
    the lengths that a `Masking` finds; whether it may move steps is known at the end only.
    """

    def __init__(self, shape: tuple[int | None, ...] = (None, None)) -> None:
        self._modules: list[Module] = []
        self.shape = shape  # of a row of what comes in and goes on: None is not known
        self._masking_module: Masking | None = None
        self._masked = False  # whether a mask comes along
        self._mask_used = False
        self._inside = False  # whether it is inside TimeDistributed, where Keras makes no masks

    @property
    def _has_steps(self) -> bool:
        return len(self.shape) > 1

    def read(self, layer: Any, weights: list[Stored], version: int, depth: int = _DEPTH) -> None:
        """Append a layer, or those of a Sequential model."""
        kind = layer["class_name"]
        if kind in FUNCTIONAL:
            raise NoChain(f"the model {name_of(layer)!r} inside the model is a functional one")
        if kind != "Sequential":
            for part in unstacked(layer):
                self.add(KerasLayer(part, weights, version))
            return
        inside = layers_of(layer)
        if depth == 0:
            raise ValueError(f"the model has more than {_DEPTH} models in each other")
        if len({child["config"].get("trainable", True) is True for child in inside}) > 1:
            # Keras 2 stores the weights of frozen layers after all others.
            raise ValueError(
                f"the model {name_of(layer)!r} inside the model has layers with trainable=False "
                "beside others, which is not imported: set all to the same before saving"
            )
        for child in inside:
            self.read(child, weights, version, depth - 1)

    def add(self, layer: KerasLayer) -> None:
        """Append what computes the same as the layer."""
        if layer.kind not in _READERS:
            raise not_imported(layer)
        given = layer.config.get("batch_input_shape") or layer.config.get("batch_shape")
        if not self._modules and isinstance(given, (list, tuple)):
            self.shape = tuple(n if isinstance(n, int) else None for n in given[1:])
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
        if self._masked and self._mask_used:
            raise NoChain("the model masks steps, and gives an output for each")
        modules: list[Module] = []
        for module in self._modules:
            if module is not self._masking_module:
                modules.append(module)
            elif self._mask_used:
                value, ids = module.value, module.ids
                modules.append(Masking(value, ids, batch_first=True))
        if not modules:
            raise ValueError("the model has no layers that compute anything")
        return Sequential(*modules)

    def _append(self, module: Module, **weights: Array) -> None:
        if weights:
            module.load_state_dict(weights)
        self._modules.append(module)
        if module is not self._masking_module:
            self.shape = shape_after(module, self.shape)

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
            self._append(Flip(batch_first=True))
        self._append(make(only))
        if not only.sequences:
            self._end_time(LastStep(batch_first=True))

    def _bidirectional(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        forward, reverse, merge = both_directions(layer)
        if merge is None:
            raise NoChain(f"{layer.where} gives two outputs")
        self._check_recurrent(layer, forward)
        if forward.sequences:
            self._append(make(forward, reverse, merge=merge))
        else:
            self._append(make(forward, reverse))
            self._end_time(BothEnds(merge, batch_first=True))

    def _check_recurrent(self, layer: KerasLayer, read: Direction) -> None:
        if not read.options["batch_first"]:
            raise layer.error("has time_major=True, which is imported for a layer alone only")
        self._mask_used |= self._masked

    # The axis of time -----------------------------------------------------------------------------

    def _need_time(self, layer: KerasLayer) -> None:
        if not self._has_steps:
            raise layer.error("needs time steps, and the layers before it leave none")
        if len(self.shape) > 2:
            raise layer.error(
                f"is given rows of shape {self._shape_text()}, expected (time, features)"
            )

    def _shape_text(self) -> str:
        return f"({', '.join('any' if n is None else str(n) for n in self.shape)})"

    def _overlook_mask(self) -> None:
        """Go on without a mask, as Keras does behind layers that know nothing of it."""
        if self._masked and (self._mask_used or self._zeroes()):
            raise NoChain("a layer overlooks the mask that others before it do not")
        self._masked = False

    def _zeroes(self) -> bool:
        """Whether masked steps become zeros that were none."""
        masking = self._masking_module
        return masking is not None and not masking.ids and masking.value != 0

    def _end_time(self, pool: Module) -> None:
        self._append(pool)
        self._masked = False

    def _mean_pool(self, layer: KerasLayer) -> None:
        keep = self._check_pool(layer)
        self._mask_used |= self._masked
        self._end_time(MeanPool(batch_first=True))
        self._keep_axis(keep)

    def _max_pool(self, layer: KerasLayer) -> None:
        keep = self._check_pool(layer)
        self._overlook_mask()
        self._end_time(MaxPool(batch_first=True))
        self._keep_axis(keep)

    def _check_pool(self, layer: KerasLayer) -> bool:
        self._need_time(layer)
        self._check_format(layer)
        return layer.flag("keepdims", False)

    def _check_format(self, layer: KerasLayer) -> None:
        if layer.get("data_format") not in (None, "channels_last"):
            raise layer.error(
                f"has data_format={layer.get('data_format')!r}, which is not imported"
            )

    def _keep_axis(self, keep: bool) -> None:
        if keep:
            (size,) = self._known()
            self._append(Reshape((size,), (1, size), batch_first=True))

    def _known(self, layer: KerasLayer | None = None) -> tuple[int, ...]:
        """Return the shape of a row, all of which must be known."""
        known = tuple(n for n in self.shape if n is not None)
        if len(known) < len(self.shape):
            where = "a layer" if layer is None else layer.where
            raise ValueError(
                f"{where} needs rows whose size is fixed, and these are {self._shape_text()}: give "
                "the Input of the model its number of steps"
            )
        return known

    def _window_pool(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        self._check_format(layer)
        self._overlook_mask()
        size = self._one_number(layer, "pool_size")
        stride = size if layer.get("strides") is None else self._one_number(layer, "strides")
        kind = MaxPool1D if layer.kind == "MaxPooling1D" else AvgPool1D
        padding = layer.get("padding", "valid")
        if padding not in ("valid", "same"):
            raise layer.error(f"has padding={padding!r}, expected 'valid' or 'same'")
        self._append(kind(size, stride, padding, batch_first=True))

    def _pad(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        self._check_format(layer)
        self._overlook_mask()
        crops = layer.kind == "Cropping1D"
        value = layer.need("cropping" if crops else "padding")
        pair = [value, value] if isinstance(value, int) else value
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not fits or not all(isinstance(n, int) and n >= 0 for n in pair):
            raise layer.error(f"has the sizes {value!r}, expected two")
        left, right = (-n if crops else n for n in pair)
        self._append(Pad1D(left, right, batch_first=True))

    def _up_sample(self, layer: KerasLayer) -> None:
        self._need_time(layer)
        self._overlook_mask()
        self._append(UpSample1D(self._one_number(layer, "size"), batch_first=True))

    # Rows as a whole ------------------------------------------------------------------------------

    def _flatten(self, layer: KerasLayer) -> None:
        self._check_format(layer)
        self._overlook_mask()
        if self._has_steps:
            self._append(Reshape(self._known(layer), (-1,), batch_first=True))

    def _reshape(self, layer: KerasLayer) -> None:
        self._overlook_mask()
        target = layer.need("target_shape")
        if not isinstance(target, (list, tuple)) or not target:
            raise layer.error(f"has target_shape={target!r}, expected sizes")
        try:
            self._append(Reshape(self.shape, tuple(target), batch_first=True))
        except (TypeError, ValueError) as error:
            raise layer.error(f"is not imported: {error}") from error

    def _permute(self, layer: KerasLayer) -> None:
        self._overlook_mask()
        try:
            self._append(Permute(self.shape, layer.need("dims"), batch_first=True))
        except (TypeError, ValueError) as error:
            raise layer.error(
                f"is not imported: {error}. Give the Input of the model its number of steps"
            ) from error

    def _repeat_vector(self, layer: KerasLayer) -> None:
        if self._has_steps:
            raise layer.error("is given time steps, expected none")
        self._append(RepeatVector(layer.size("n"), batch_first=True))

    def _masking(self, layer: KerasLayer) -> None:
        self._mask(layer, Masking(layer.number("mask_value", 0.0)))

    def _mask(self, layer: KerasLayer, masking: Masking) -> None:
        if self._masking_module is not None or (masking.ids and len(self.shape) > 2):
            raise NoChain(f"{layer.where} masks steps, which a layer before it does already")
        self._masking_module = masking
        self._append(masking)
        self._masked = True

    # Layers that take every step by itself --------------------------------------------------------

    def _embedding(self, layer: KerasLayer) -> None:
        count, size = layer.size("input_dim"), layer.size("output_dim")
        weight = layer.take("embeddings", (count, size))
        if not self._modules and self.shape == (None, None):
            self.shape = (None,)
        if layer.flag("mask_zero", False) and not self._inside:
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
        if not isinstance(name, str) or name not in ACTIVATIONS:
            known = ", ".join([*ACTIVATIONS, "linear"])
            raise layer.error(f"has activation={name!r}, which is not imported; these are: {known}")
        self._append(ACTIVATIONS[name]())

    def _relu(self, layer: KerasLayer) -> None:
        slope, threshold = layer.number("negative_slope", 0.0), layer.number("threshold", 0.0)
        most = layer.get("max_value")
        if threshold or most not in (None, 6) or (most and slope):
            raise layer.error("has a threshold or a max_value that is not 6, which is not imported")
        self._append(Activation("relu6") if most else LeakyReLU(slope) if slope else ReLU())

    def _leaky_relu(self, layer: KerasLayer) -> None:
        name = "negative_slope" if layer.version > 2 else "alpha"
        self._append(LeakyReLU(layer.number(name, 0.3)))

    def _prelu(self, layer: KerasLayer) -> None:
        """Read slopes: one for each number of a row, but for the axes that share theirs."""
        shared = layer.get("shared_axes")
        slopes = layer.take("alpha", *((None,) * n for n in range(1, len(self.shape) + 1)))
        if slopes.size != slopes.shape[-1]:
            raise layer.error(
                f"has slopes of shape {slopes.shape}, one for each step, which is not imported; "
                "with shared_axes=[1] there is one for each feature"
            )
        if shared is not None and not isinstance(shared, (list, tuple)):
            raise layer.error(f"has shared_axes={shared!r}, expected a list")
        prelu = PReLU(slopes.size, dtype=slopes.dtype)
        self._append(prelu, weight=slopes.reshape(-1))

    def _elu(self, layer: KerasLayer) -> None:
        self._append(ELU(layer.number("alpha", 1.0)))

    def _softmax(self, layer: KerasLayer) -> None:
        if layer.get("axis", -1) not in (-1, [-1], len(self.shape), [len(self.shape)]):
            raise NoChain(f"{layer.where} is over another axis than the last")
        self._append(Softmax())

    def _dropout(self, layer: KerasLayer) -> None:
        if layer.get("noise_shape") is not None:
            raise layer.error("has noise_shape, which is not imported")
        self._append(Dropout(layer.number("rate", 0.5)))

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
        self._overlook_mask()
        self._check_format(layer)
        groups = 1 if layer.get("groups") is None else layer.size("groups")
        filters, bias = layer.size("filters"), layer.flag("use_bias", True)
        size, stride, dilation = (
            self._one_number(layer, name) for name in ("kernel_size", "strides", "dilation_rate")
        )
        kernel = layer.take("kernel", (size, None, filters))
        weights = {"weight": kernel.transpose(2, 1, 0)}
        if bias:
            weights["bias"] = layer.take("bias", (filters,))
        padding = layer.get("padding", "valid")
        if padding == "same" and stride > 1:
            padding = "valid"
            self._pad_same(dilation * (size - 1) + 1, stride)
        try:
            conv = Conv1D(
                kernel.shape[1] * groups, filters, size, stride, padding, dilation, bias, True,
                kernel.dtype, groups=groups,
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise layer.error(f"is not imported: {error}") from error
        self._append(conv, **weights)
        self._activation(layer)

    def _depthwise(self, layer: KerasLayer) -> None:
        """Read a convolution of each feature by itself, and what SeparableConv1D has behind it."""
        self._need_time(layer)
        self._overlook_mask()
        self._check_format(layer)
        separable, bias = layer.kind == "SeparableConv1D", layer.flag("use_bias", True)
        multiple = layer.size("depth_multiplier")
        size, stride, dilation = (
            self._one_number(layer, name) for name in ("kernel_size", "strides", "dilation_rate")
        )
        kernel = layer.take("depthwise_kernel", (size, None, multiple))
        inputs, padding = kernel.shape[1], layer.get("padding", "valid")
        weights = {"weight": kernel.transpose(1, 2, 0).reshape(inputs * multiple, 1, size)}
        if bias and not separable:
            weights["bias"] = layer.take("bias", (inputs * multiple,))
        if padding == "same" and stride > 1:
            padding = "valid"
            self._pad_same(dilation * (size - 1) + 1, stride)
        try:
            conv = Conv1D(
                inputs, inputs * multiple, size, stride, padding, dilation, "bias" in weights,
                True, kernel.dtype, groups=inputs,
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise layer.error(f"is not imported: {error}") from error
        self._append(conv, **weights)
        if separable:
            filters = layer.size("filters")
            matrix = layer.take("pointwise_kernel", (1, inputs * multiple, filters))[0]
            behind = {"weight": matrix.T}
            if bias:
                behind["bias"] = layer.take("bias", (filters,))
            self._append(Linear(inputs * multiple, filters, bias, matrix.dtype), **behind)
        self._activation(layer)

    def _pad_same(self, reach: int, stride: int) -> None:
        """Pad so that there is a window for each stride begun, which depends on the steps."""
        time = self.shape[0]
        if time is None:
            raise NoChain("a convolution is padded by how many steps there are")
        total = max((-(-time // stride) - 1) * stride + reach - time, 0)
        self._append(Pad1D(total // 2, total - total // 2, batch_first=True))

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

    def _normalization(self, layer: KerasLayer) -> None:
        self._check_axis(layer)
        invert = layer.flag("invert", False)
        mean, variance = layer.get("mean"), layer.get("variance")
        if mean is None:
            mean, variance = (layer.take(name, (None,)) for name in ("mean", "variance"))
            if layer.left and not layer.left[0].shape:
                layer.left.pop(0)  # of how many samples
        mean, variance = (np.asarray(a, layer.dtype).reshape(-1) for a in (mean, variance))
        deviation = np.maximum(np.sqrt(variance), 1e-7)
        if invert:
            self._scale(layer, deviation, mean)
        else:
            self._scale(layer, np.ones_like(mean), 0 * mean, mean, deviation**2)

    def _rescaling(self, layer: KerasLayer) -> None:
        scale, offset = layer.get("scale", 1.0), layer.get("offset", 0.0)
        try:
            self._scale(layer, np.asarray(scale, layer.dtype), np.asarray(offset, layer.dtype))
        except (TypeError, ValueError) as error:
            raise layer.error(f"has scale={scale!r} and offset={offset!r}: {error}") from error

    def _scale(self, layer: KerasLayer, *arrays: Array) -> None:
        """Append weight (x - mean) / sqrt(variance) + bias of given numbers, which none trains."""
        size = self.shape[-1]
        if size is None:
            raise NoChain(f"{layer.where} is of an unknown number of features")
        names = ("weight", "bias", "running_mean", "running_var")
        given = {name: np.broadcast_to(a, (size,)) for name, a in zip(names, arrays)}
        first = True if self._has_steps else None
        norm = BatchNorm(size, 0.0, frozen=True, batch_first=first, dtype=layer.dtype)
        self._append(norm, **{**norm.state_dict(), **given})
        freeze([norm])

    def _check_axis(self, layer: KerasLayer) -> None:
        axis = layer.get("axis", -1)
        if axis not in (-1, [-1], len(self.shape), [len(self.shape)]):
            raise layer.error(f"has axis={axis!r}, expected the last one")

    def _time_distributed(self, layer: KerasLayer) -> None:
        if not self._has_steps:
            raise layer.error("needs time steps, and the layers before it leave none")
        inside = layer.need("layer")
        name_of(inside)
        if inside["class_name"] in _EACH_STEP:
            self.add(layer.inside(inside, _EACH_STEP))
            return
        chain = Chain(self.shape[1:])
        chain._inside = True
        chain.read(inside, layer.left, layer.version)
        if chain.masks:
            raise layer.error("has a layer inside that masks steps, which is not imported there")
        if chain.modules:
            self._append(EachStep(Sequential(*chain.modules), batch_first=True))

    def _nothing(self, layer: KerasLayer) -> None:
        """Read a layer that only says what comes in, or that only acts in training."""
        if layer.get("ragged") or layer.get("sparse"):
            raise layer.error("takes ragged or sparse tensors, which is not imported")
        for name in ("optional", "rate", "stddev", "noise_shape", "l1", "l2"):
            layer.get(name)


_READERS: dict[str, Callable[[Chain, KerasLayer], None]] = {
    **dict.fromkeys(LAYERS, Chain._recurrent),
    "Activation": Chain._activation,
    "ActivityRegularization": Chain._nothing,
    "AlphaDropout": Chain._nothing,
    "AveragePooling1D": Chain._window_pool,
    "BatchNormalization": Chain._batch_norm,
    "Bidirectional": Chain._bidirectional,
    "Conv1D": Chain._conv,
    "Cropping1D": Chain._pad,
    "Dense": Chain._dense,
    "DepthwiseConv1D": Chain._depthwise,
    "Dropout": Chain._dropout,
    "ELU": Chain._elu,
    "Embedding": Chain._embedding,
    "Flatten": Chain._flatten,
    "GaussianDropout": Chain._nothing,
    "GaussianNoise": Chain._nothing,
    "GlobalAveragePooling1D": Chain._mean_pool,
    "GlobalMaxPooling1D": Chain._max_pool,
    "Identity": Chain._nothing,
    "InputLayer": Chain._nothing,
    "LayerNormalization": Chain._layer_norm,
    "LeakyReLU": Chain._leaky_relu,
    "Masking": Chain._masking,
    "MaxPooling1D": Chain._window_pool,
    "Normalization": Chain._normalization,
    "PReLU": Chain._prelu,
    "Permute": Chain._permute,
    "ReLU": Chain._relu,
    "RepeatVector": Chain._repeat_vector,
    "Rescaling": Chain._rescaling,
    "Reshape": Chain._reshape,
    "SeparableConv1D": Chain._depthwise,
    "Softmax": Chain._softmax,
    "SpatialDropout1D": Chain._nothing,
    "TimeDistributed": Chain._time_distributed,
    "UpSampling1D": Chain._up_sample,
    "ZeroPadding1D": Chain._pad,
}
KINDS = sorted({*_READERS, "RNN"})  # what a chain may have
_EACH_STEP = (
    "Activation",
    "Dense",
    "Dropout",
    "ELU",
    "LayerNormalization",
    "LeakyReLU",
    "PReLU",
    "ReLU",
    "Softmax",
)


def not_imported(layer: KerasLayer) -> ValueError:
    """Return the error for a layer of a kind that is not known."""
    return layer.error(f"is not imported; those that are: {', '.join(KINDS)}")
