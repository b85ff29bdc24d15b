"""Modules of PyTorch as modules of ours, and back."""

from __future__ import annotations

import inspect
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._base import checks
from .._base.module import Module
from .._files.export_options import check_options, not_written
from .._network.model import Model
from .._network.symbol import Input
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
from .._nn.layers import GRU, LSTM, RNN
from .._nn.linear import Linear
from .._nn.normalization import BatchNorm, LayerNorm
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.sequential import Sequential
from .._shapes.steps import AvgPool1D, MaxPool1D, Pad1D
from ..attention import MultiHead

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["from_torch", "to_torch"]

# The modules that both libraries have, and the options that both have.
_CELL = ("input_size", "hidden_size", "bias")
_LAYER = (*_CELL, "num_layers", "batch_first", "dropout", "bidirectional")
_OPTIONS: dict[type[Module], tuple[str, ...]] = {
    RNN: (*_LAYER, "nonlinearity"),
    LSTM: (*_LAYER, "proj_size"),
    GRU: _LAYER,
    RNNCell: (*_CELL, "nonlinearity"),
    LSTMCell: _CELL,
    GRUCell: _CELL,
    Linear: ("in_features", "out_features", "bias"),
    Embedding: ("num_embeddings", "embedding_dim", "padding_idx", "sparse"),
    LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    BatchNorm: ("num_features", "eps", "momentum", "affine"),
    Conv1D: (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
        "bias",
    ),
    Dropout: ("p",),
    Tanh: (),
    ReLU: (),
    Sigmoid: (),
    Softmax: (),
    LogSoftmax: (),
    GELU: ("approximate",),
    SiLU: (),
    ELU: ("alpha",),
    LeakyReLU: ("negative_slope",),
    PReLU: ("num_parameters",),
    Softplus: ("beta", "threshold"),
    MultiHead: ("embed_dim", "num_heads", "dropout", "bias", "kdim", "vdim", "batch_first"),
}  # fmt: skip
# Those whose features are the second axis there, not the last.
_FEATURES_SECOND = (BatchNorm, Conv1D, MaxPool1D, AvgPool1D, PReLU, Pad1D)
# Those of another name there.
_OTHER_NAMES: dict[type[Module], str] = {
    BatchNorm: "BatchNorm1d",
    Conv1D: "Conv1d",
    MultiHead: "MultiheadAttention",
}
_ACTIVATIONS = {
    "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_silu",
    "Mish": "mish",
    "ReLU6": "relu6",
    "SELU": "selu",
    "Softsign": "softsign",
}
_WINDOWS: dict[str, type[Module]] = {"AvgPool1d": AvgPool1D, "MaxPool1d": MaxPool1D}
_PADS = ("ConstantPad1d", "ZeroPad1d")
_OVER_LAST = (Softmax, LogSoftmax)  # which take the axis as an option there
_POOLS = (LastStep, MeanPool, MaxPool, BothEnds)  # which PyTorch has from us
# Only where the numbers started; and where features are the second axis, it is no question.
_LEFT_OUT = ("forget_bias", "batch_first", "init")


def _name_there(kind: type[Module]) -> str:
    return _OTHER_NAMES.get(kind, kind.__name__)


_NAMES = ", ".join((*map(_name_there, _OPTIONS), *_ACTIVATIONS, *_WINDOWS, *_PADS))
_BLOCK = "TransformerEncoder and its layers"  # which become a Model


def _torch(caller: str) -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ImportError(f'{caller} needs PyTorch: pip install "lstmcore[torch]"') from error
    return torch


# In -----------------------------------------------------------------------------------------------


def from_torch(module: nn.Module, *, inputs: Sequence[Input] | None = None) -> Any:
    """Make a module of ours from one of PyTorch: the same options, the same numbers.

    Parameters
    ----------
    module : torch.nn.Module
        RNN, LSTM, GRU, their cells, Linear, Embedding, LayerNorm, Dropout, Tanh, ReLU, Sigmoid,
        GELU, SiLU, ELU, LeakyReLU, PReLU, Softplus, Hardsigmoid, Hardswish, Mish, ReLU6, SELU,
        Softsign, Softmax and LogSoftmax over the last axis, BatchNorm1d, Conv1d, MaxPool1d,
        AvgPool1d without padding, ZeroPad1d, the layers of `lstmcore.torch`, or a Sequential of
        them; MultiheadAttention; a TransformerEncoder, a TransformerEncoderLayer; or a module of a
        class of your own made of these, whose forward torch.fx traces. What DataParallel or
        torch.compile has wrapped is taken out, and of weights under weight_norm or another
        parametrisation, the ones computed with are taken.
    inputs : list of Input, optional
        Of a class of your own: what the arguments of its forward are, where sizes or steps cannot
        be told from what takes them. Without those that are initial states or lengths.

    Returns
    -------
    module : module
        Of the class of the same name, in float64 if the numbers are, else in float32. BatchNorm1d,
        Conv1d and pooling become `BatchNorm`, `Conv1D` and so on: x has its features on the last
        axis where they are the second there. MultiheadAttention becomes
        `lstmcore.attention.MultiHead`, a TransformerEncoder, a layer of it, and a class of your
        own, a `Model` of its parts.

    Raises
    ------
    TypeError, ValueError
        If `module` or one in it is of another kind, or has an option or a hook that ours lacks, or
        a forward does what has no counterpart here: its node and line are named.
    ImportError
        Without PyTorch.

    Notes
    -----
    In a ``torch.nn.Sequential`` a recurrent layer hands on a tuple, (y, state), so that something
    after it must take its part. `lstmcore.torch.Output` does, and so do small classes that people
    write for it. A module without parameters in that place is called with numbers to see what it
    takes: y, its last step, mean or maximum over time, or the final h.

    A forward of your own is traced by torch.fx, so that it may not branch on values or loop over
    all steps. Then the axes of every tensor are followed: sums, products, parts of features, the
    first and last step, means and maxima over steps, transpositions, cat, chunk, activations,
    products of sequences as in attention, parameters of the module itself. An argument that is an
    initial state, lengths, or a mask of the padding for an encoder, is no input of the
    `Model`: states and lengths are given when that is called. A last axis of size 1 that the
    forward squeezes stays. Parameters that two modules share are tied in ours, too; a module that a
    forward calls twice stays one.

    Examples
    --------
    >>> import lstmcore as lc
    >>> import torch
    >>> lc.from_torch(torch.nn.Sequential(torch.nn.Embedding(9, 3), torch.nn.GRU(3, 5)))
    Sequential(
      (0): Embedding(9, 3)
      (1): GRU(3, 5)
    )
    >>> class Tagger(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.gru = torch.nn.GRU(3, 5, batch_first=True)
    ...         self.head = torch.nn.Linear(5, 2)
    ...
    ...     def forward(self, x):
    ...         y, h = self.gru(x)
    ...         return self.head(y), self.head(h[-1])
    >>> steps, rows = lc.from_torch(Tagger().double())([[[1.0, 2.0, 3.0]] * 7])
    >>> steps.shape, rows.shape
    ((1, 7, 2), (1, 2))
    """
    torch = _torch("from_torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"module is {checks.describe(module)}, expected a torch.nn.Module; load_torch reads "
            "files"
        )
    module = _unwrapped(module)
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"module is a {type(module).__name__} of TorchScript, whose code is not read, expected "
            "the module that it was made of; load_torch reads the tensors of its file"
        )
    tensors = (t for t in module.parameters() if t.is_floating_point())
    dtype = str(next((t.dtype for t in tensors), torch.get_default_dtype()))
    _refuse_hooks(module, f"module, {type(module).__name__},")
    if _has_code(module):
        return _from_code(module, dtype, inputs)
    if inputs is not None:
        raise ValueError(f"inputs is given for a {type(module).__name__}, which tells its own")
    if type(module) is torch.nn.Sequential:
        return _from_sequential(module, dtype)
    from ._tying import tie_as_theirs

    made = _from_one(module, dtype, "module")
    tie_as_theirs([(module, made)])
    return made


def _has_code(module: Any) -> bool:
    """Whether it is a class of somebody's own, or a Sequential with one that has to be read."""
    from torch import nn

    from ._tracing import is_code

    if type(module) is not nn.Sequential:
        return is_code(module)
    layer = False  # whether the one before is recurrent
    for _, child in _leaves(module, ""):
        takes = layer and not any(True for _ in child.parameters())
        if not takes and _has_code(_unwrapped(child)):
            return True
        layer = isinstance(child, nn.RNNBase)
    return False


def _from_code(module: Any, dtype: str, inputs: Any) -> Model:
    from ._tracing import from_code

    for path, child in module.named_modules():
        _refuse_hooks(child, f"module {path}, {type(child).__name__},")

    def convert(child: Any, path: str) -> Module:
        from torch import nn

        adaptive = (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.Flatten)
        found = isinstance(child, (nn.Softmax, nn.LogSoftmax, nn.Identity, *adaptive))
        if found or type(child).__name__ == "Output":
            return ReLU()  # what stands for it is found by its arguments
        return _from_one(child, dtype, path)

    try:
        return from_code(module, convert, inputs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}{_hint(module)}") from error


def _hint(module: Any) -> str:
    """Return which recurrent modules of one that is refused can be had alone."""
    from torch import nn

    kinds = (nn.RNNBase, nn.RNNCellBase)
    names = [name for name, part in module.named_modules() if isinstance(part, kinds) and name]
    shown = ", ".join(f"get_submodule({name!r})" for name in names[:5])
    more = ", ..." if len(names) > 5 else ""
    return f". What can be had alone, by from_torch: {shown}{more}" if names else ""


def _from_one(module: Any, dtype: str, path: str) -> Module:
    from torch import nn

    from . import _modules

    module = _unwrapped(module)
    theirs = type(module)
    if nn.utils.parametrize.is_parametrized(module):  # of a class made for it, derived from that
        theirs = theirs.__bases__[0]
    name = theirs.__name__
    if theirs is nn.TransformerEncoderLayer:
        return _from_transformer(module, dtype, path)
    if theirs is nn.TransformerEncoder:
        return _from_encoder(module, dtype, path)
    if name in (*_ACTIVATIONS, *_WINDOWS, *_PADS) and theirs is getattr(nn, name):
        return _from_plain(module, name, path)
    ours = next((kind for kind in _OPTIONS if _name_there(kind) == name), None)
    if ours is None or theirs not in (
        getattr(nn, name),
        getattr(_modules, name, None),
    ):
        pool = next((kind for kind in _POOLS if kind.__name__ == name), None)
        if pool is not None and theirs is getattr(_modules, name):
            return pool(batch_first=module.batch_first)
        if theirs.__module__.startswith("torch.ao."):
            raise TypeError(
                f"{path} is a {theirs.__module__}.{name}, made for other precision, expected the "
                "module that it was made of: lstmcore.quantize rounds what becomes of that"
            )
        raise TypeError(
            f"{path} is a {theirs.__module__}.{name}, expected one of {_NAMES}, {_BLOCK} of "
            "torch.nn, or a Sequential of them: convert the parts of other models one by one"
        )
    _refuse_options(module, f"{path}, {module!r},")
    options = {option: getattr(module, option, None) for option in _OPTIONS[ours]}
    if ours is MultiHead:
        options["bias"] = module.in_proj_bias
    if ours is Conv1D:
        options |= _conv_options(module, f"{path}, {module!r},")
    if "bias" in options:
        options["bias"] = options["bias"] is not None and options["bias"] is not False
    if "dtype" in inspect.signature(ours).parameters:
        numbers = itertools.chain(module.parameters(), module.buffers())
        own = next((str(t.dtype) for t in numbers), dtype)
        options["dtype"] = "float64" if own == "torch.float64" else "float32"
    result = ours(**options)
    result.load_state_dict(_numbers(module, list(result.state_dict())))
    return result


def _from_plain(module: Any, name: str, path: str) -> Module:
    """Return a function of every number, pooling over windows, or steps of zeros."""
    if name in _ACTIVATIONS:
        return Activation(_ACTIVATIONS[name])
    if name in _PADS:
        if module.value != 0:
            raise ValueError(f"{path}, {module!r}, has value={module.value}, expected 0")
        return Pad1D(*module.padding)
    for option, plain in (
        ("padding", 0),
        ("dilation", 1),
        ("ceil_mode", False),
        ("return_indices", False),
    ):
        value = getattr(module, option, plain)
        value = value[0] if isinstance(value, tuple) else value
        if value != plain:
            raise ValueError(f"{path}, {module!r}, has {option}={value}, expected {plain}")
    sizes = (module.kernel_size, module.stride)
    return _WINDOWS[name](*(n[0] if isinstance(n, tuple) else n for n in sizes))


def _unwrapped(module: Any) -> Any:
    """Return the module within what DataParallel and torch.compile make of it."""
    from torch import nn

    wrappers = {nn.DataParallel: "module", nn.parallel.DistributedDataParallel: "module"}
    while True:
        name = wrappers.get(type(module))
        if name is None and type(module).__name__ == "OptimizedModule":
            name = "_orig_mod"
        if name is None:
            return module
        module = getattr(module, name)


def _numbers(module: Any, names: list[str]) -> dict[str, Any]:
    """Return the parameters that a module computes with, by their names."""
    from torch import nn, no_grad

    state: dict[str, Any] = module.state_dict()
    with no_grad():
        if nn.utils.parametrize.is_parametrized(module):
            return {name: getattr(module, name) for name in names}
        for hook in module._forward_pre_hooks.values():  # norms as they were made before
            name = hook.name
            for part in ("_g", "_v", "_u", "_orig"):
                state.pop(name + part, None)
            power = {"do_power_iteration": False} if _is_norm(hook, "SpectralNorm") else {}
            state[name] = hook.compute_weight(module, **power)
    return state


def _is_norm(hook: Any, *names: str) -> bool:
    """Whether a hook is torch.nn.utils' own, which computes a weight of its parts."""
    kind = type(hook)
    return kind.__module__.startswith("torch.nn.utils.") and kind.__name__ in names


def _from_transformer(module: Any, dtype: str, path: str) -> Model:
    """Return attention and a feed-forward part, each added to what it was given, with norms."""
    names = ("self_attn", "linear1", "linear2", "norm1", "norm2")
    parts: dict[str, Any] = {n: _from_one(getattr(module, n), dtype, f"{path}.{n}") for n in names}
    kinds: dict[int, type[Module]] = {1: ReLU, 2: GELU}
    kind = kinds.get(module.activation_relu_or_gelu)
    if kind is None:
        if not hasattr(module.activation, "forward"):
            raise ValueError(f"{path} has an activation that is a function, expected relu or gelu")
        parts["activation"] = _from_one(module.activation, dtype, f"{path}.activation")
    else:
        parts["activation"] = kind()
    drops = {n: getattr(module, n).p for n in ("dropout", "dropout1", "dropout2")}

    def dropped(name: str, x: Any) -> Any:
        return Dropout(drops[name])(x) if drops[name] else x

    def attended(x: Any) -> Any:
        return dropped("dropout1", parts["self_attn"](x, x, x)[0])

    def fed(x: Any) -> Any:
        hidden = dropped("dropout", parts["activation"](parts["linear1"](x)))
        return dropped("dropout2", parts["linear2"](hidden))

    x: Any = Input(parts["linear1"].in_features, dtype=parts["linear1"].dtype)
    if module.norm_first:
        y = x + attended(parts["norm1"](x))
        return Model(x, y + fed(parts["norm2"](y)))
    y = parts["norm1"](x + attended(x))
    return Model(x, parts["norm2"](y + fed(y)))


def _from_encoder(module: Any, dtype: str, path: str) -> Model:
    """Return the layers one after the other, and the norm behind them."""
    parts = [_from_one(part, dtype, f"{path}.layers.{i}") for i, part in enumerate(module.layers)]
    if module.norm is not None:
        parts.append(_from_one(module.norm, dtype, f"{path}.norm"))
    if not parts:
        raise ValueError(f"{path} is a TransformerEncoder without layers")
    axes, kind = parts[0]._network.given[0]
    x: Any = Input(axes.features, dtype=kind)
    y = x
    for part in parts:
        y = part(y)
    return Model(x, y)


def _conv_options(module: Any, what: str) -> dict[str, Any]:
    """Return numbers for the tuples of one that a Conv1d has, and a name for its padding."""
    if module.padding_mode != "zeros":
        raise ValueError(f"{what} has padding_mode={module.padding_mode!r}, expected 'zeros'")
    (size,), (stride,), (dilation,) = module.kernel_size, module.stride, module.dilation
    padding = module.padding
    if not isinstance(padding, str):
        same = padding[0] > 0 and 2 * padding[0] == dilation * (size - 1) and stride == 1
        padding = "same" if same else padding[0] or "valid"
    return {"kernel_size": size, "stride": stride, "dilation": dilation, "padding": padding}


def _refuse_hooks(module: nn.Module, what: str) -> None:
    """Refuse what would run beside a module's own code, or in its place."""
    before = module._forward_pre_hooks.values()
    foreign = [hook for hook in before if not _is_norm(hook, "WeightNorm", "SpectralNorm")]
    for kind, there in (
        ("forward hook", module._forward_hooks),
        ("forward pre-hook", foreign),
        ("forward of its own", "forward" in vars(module)),
    ):
        if there:
            raise ValueError(f"{what} has a {kind}, which cannot be converted")


def _refuse_options(module: nn.Module, what: str) -> None:
    """Refuse what would change the result, and has no counterpart."""
    for option, plain in (
        ("max_norm", None),
        ("scale_grad_by_freq", False),
        ("dim", -1),
        ("track_running_stats", True),
        ("add_zero_attn", False),
        ("bias_k", None),
    ):
        value = getattr(module, option, plain)
        if value != plain:
            raise ValueError(f"{what} has {option}={value}, expected {plain}")
    if getattr(module, "affine", False) and module.bias is None:
        raise ValueError(f"{what} has a weight and no bias, expected both or neither")


def _from_sequential(module: nn.Module, dtype: str) -> Sequential:
    from torch import nn

    from ._tying import tie_as_theirs

    modules: list[Module] = []
    pairs: list[tuple[nn.Module, Module]] = []
    seen: dict[int, str] = {}
    layer: Any = None  # the recurrent one whose (y, state) is still to be taken apart
    for path, child in _leaves(module, ""):
        if seen.setdefault(id(child), path) != path and any(True for _ in child.parameters()):
            raise ValueError(f"modules {seen[id(child)]} and {path} are the same, expected two")
        if layer is not None:
            modules += _taken(child, layer, f"module {path}, {child!r},")
            layer = None
            continue
        _refuse_hooks(child, f"module {path}, {child!r},")
        if type(child) is not nn.Identity:
            modules.append(_from_one(child, dtype, f"module {path}"))
            pairs.append((_unwrapped(child), modules[-1]))
            layer = child if isinstance(child, nn.RNNBase) else None
    _check_features(modules)
    tie_as_theirs(pairs)
    return Sequential(*modules)


def _check_features(modules: list[Any], second: tuple[Any, ...] = _FEATURES_SECOND) -> None:
    """Refuse modules whose features are the second axis in PyTorch where that is the batch."""
    if any(type(module) is Conv1D for module in modules):
        for module in modules:
            each = module._input_size is None and not module._knows_time
            if type(module) in _OVER_LAST or not (each or type(module) in _FEATURES_SECOND):
                raise ValueError(
                    f"{module!r} stands beside a Conv1D: PyTorch's takes features as the last "
                    "axis, and Conv1d as the second; convert them one by one"
                )
        return
    timed = any(module._knows_time or module._takes_ids for module in modules)
    for module in modules:
        if not module._keeps_time:
            timed = False
        elif timed and type(module) in second and not _shares_slope(module):
            raise ValueError(
                f"{module!r} stands where there are time steps: PyTorch's takes features as the "
                "second axis there, and ours as the last"
            )


def _shares_slope(module: Any) -> bool:
    """Whether it is a PReLU with one slope, to which no axis is another than the others."""
    return type(module) is PReLU and module.num_parameters == 1


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, Any]]:
    """Path and module of all in a Sequential, those of Sequentials in it in their place."""
    for name, child in module._modules.items():
        if type(child) is type(module):
            _refuse_hooks(child, f"module {path}{name}")
            yield from _leaves(child, f"{path}{name}.")
        else:
            yield f"{path}{name}", child


def _taken(module: Any, layer: Any, what: str) -> list[Module]:
    """Return what does the same with y as `module` does with the (y, state) of `layer`."""
    import torch

    kinds: set[type[Module] | None] = set()
    if not (list(module.children()) or list(module.parameters()) or list(module.buffers())):
        source = torch.Generator().manual_seed(0)
        kinds = {_try(module, layer, *sizes, source) for sizes in ((3, 5), (2, 7))}
    if len(kinds) != 1 or not (kind := kinds.pop()):
        raise ValueError(
            f"{what} stands behind a recurrent layer, which hands on (y, state), and is not known "
            "to take its part: put lstmcore.torch.Output() between them, which takes y"
        )
    return [] if kind is Module else [kind(batch_first=layer.batch_first)]  # type: ignore[call-arg]


def _try(module: nn.Module, layer: Any, batch: int, steps: int, source: Any) -> type[Module] | None:
    """Return what takes the same of y, Module if it is y itself, None if nothing does."""
    import torch

    directions = 2 if layer.bidirectional else 1
    size = layer.proj_size or layer.hidden_size
    y = torch.rand(steps, batch, directions * size, generator=source)
    states = layer.num_layers * directions
    h = torch.rand(states, batch, size, generator=source)
    c = torch.rand(states, batch, layer.hidden_size, generator=source)
    given = y.transpose(0, 1) if layer.batch_first else y
    try:
        with torch.no_grad():
            got = module((given, (h, c) if isinstance(layer, torch.nn.LSTM) else h))
    except Exception:  # it is somebody else's code
        return None
    last = h[-1] if directions == 1 else torch.cat((h[-2], h[-1]), 1)
    expected: list[tuple[type[Module], Tensor]] = [
        (Module, given),
        (LastStep, y[-1]),
        (MeanPool, y.mean(0)),
        (MaxPool, y.amax(0)),
        (BothEnds if directions == 2 else LastStep, last),
    ]
    for kind, tensor in expected:
        alike = isinstance(got, torch.Tensor) and got.shape == tensor.shape
        if alike and torch.allclose(got, tensor, atol=1e-6):
            return kind
    return None


# Out ----------------------------------------------------------------------------------------------


def to_torch(module: Module) -> Any:
    """Make a module of PyTorch from one of ours: the same options, the same numbers.

    Parameters
    ----------
    module : module
        RNN, LSTM, GRU, their cells, Linear, Embedding, LayerNorm, BatchNorm, Conv1D, Dropout,
        activations, MultiHead, a Sequential of them and of pooling, or a `Model`. Also what
        torch.nn lacks: Reshape, Permute, RepeatVector, Pad1D, UpSample1D, MaxPool1D, AvgPool1D,
        EachStep, Flip, the other kinds of attention.

    Returns
    -------
    module : torch.nn.Module
        Of the class of the same name in ``torch.nn``. In a Sequential each recurrent layer is
        followed by an `lstmcore.torch.Output`, so that the model returns what ours does, and
        pooling by the modules of the same name in `lstmcore.torch`. A `Model`, and what torch.nn
        lacks, becomes a ``torch.fx.GraphModule``: it takes the inputs of the `Model` one by one, or
        by name if they are a dict, and has their layout. Its ``code`` can be printed. Tied
        parameters are one there, too.

    Raises
    ------
    TypeError
        If PyTorch has no such module.
    ValueError
        If a module has an option that PyTorch lacks, such as peepholes: that is named.
    ImportError
        Without PyTorch.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.to_torch(lc.GRU(3, 5, num_layers=2))
    GRU(3, 5, num_layers=2)
    >>> lc.to_torch(lc.LSTM(3, 5, peephole=True))
    Traceback (most recent call last):
    ValueError: LSTM(3, 5, peephole=True): peephole=True cannot be written to PyTorch
    """
    _torch("to_torch")
    from ._tying import tie_as_ours

    if not isinstance(module, Module):
        raise TypeError(f"module is {checks.describe(module)}, expected a module of lstmcore")
    made: nn.Module = _to_one(module, False)
    tie_as_ours(made, module)
    return made


def _to_one(module: Module, batch_first: bool) -> nn.Module:
    import torch

    from ._writing import WRITTEN, write_model, write_one

    if type(module) is Sequential:
        return _to_sequential(module)
    if type(module) is Model:
        return write_model(module, _to_one)
    if type(module) in _POOLS:
        return _to_pool(module, batch_first)
    name = next((n for n, named in _ACTIVATIONS.items() if _is_named(module, named)), None)
    if name is not None:
        result: nn.Module = getattr(torch.nn, name)()
        return result
    if type(module) in WRITTEN or (type(module) is BatchNorm and module.frozen):
        return write_one(module, batch_first, _to_one)
    if type(module) not in _OPTIONS:
        how = module._instead or f"expected one of {_NAMES}"
        raise TypeError(f"{module!r} has no counterpart in PyTorch: {how}")
    written = _OPTIONS[type(module)]
    check_options(module, (*written, "dtype", *_LEFT_OUT), "PyTorch")
    taken: dict[str, Any] = {name: getattr(module._config, name) for name in written}
    if taken.get("nonlinearity", "tanh") not in ("tanh", "relu"):
        raise not_written(module, "nonlinearity", "PyTorch")
    if taken.get("padding") == "causal":
        raise not_written(module, "padding", "PyTorch", "Conv1d has none that looks back alone")
    if type(module) in _OVER_LAST:
        taken["dim"] = -1
    if hasattr(module._config, "dtype"):
        taken["dtype"] = getattr(torch, module._config.dtype.name)
    result = getattr(torch.nn, _name_there(type(module)))(**taken)
    state = module.state_dict()
    result.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return result


def _is_named(module: Module, name: str) -> bool:
    return type(module) is Activation and module.name == name


def _to_pool(module: Any, batch_first: bool) -> nn.Module:
    from . import _modules

    check_options(module, ("batch_first",), "PyTorch")
    own = module.batch_first
    kind = getattr(_modules, type(module).__name__)
    result: nn.Module = kind(batch_first if own is None else own)
    return result


def _to_window(module: Any) -> nn.Module:
    """Return pooling of (B, F, T), as it stands beside a Conv1d."""
    import torch

    check_options(module, ("size", "stride", "batch_first"), "PyTorch")
    name = next(name for name, kind in _WINDOWS.items() if kind is type(module))
    result: nn.Module = getattr(torch.nn, name)(module.size, module.stride)
    return result


def _to_sequential(model: Sequential) -> nn.Module:
    from torch import nn

    from ._modules import Output

    chain = [module for _, module in model._chain()]
    _check_features(chain, (BatchNorm, PReLU))
    second = any(type(module) is Conv1D for module in chain)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, child in enumerate(model):
        if second and type(child) in _WINDOWS.values():
            parts[str(i)] = _to_window(child)
        else:
            parts[str(i)] = _to_one(child, model.batch_first)
        if child._state_parts:
            parts[f"{i}_output"] = Output()  # a name that leaves those of the parameters alone
    return nn.Sequential(parts)
