"""Modules for PyTorch models: LSTM, GRU and RNN in place of torch.nn's, and what goes with them."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .._base import checks
from . import _autograd

__all__ = ["GRU", "LSTM", "RNN", "BothEnds", "LastStep", "MaxPool", "MeanPool", "Output"]

Sequences: TypeAlias = "Tensor | PackedSequence"  # a text, as the site is built without PyTorch


class _Beside(NamedTuple):
    """What may be given beside x and the state, and whether every c is asked for."""

    lengths: Any = None
    resets: Any = None
    cells: bool = False

    def given(self) -> dict[str, Any]:
        """Return what is not at its default, by name."""
        return {k: v for k, v in self._asdict().items() if v is not None and v is not False}


_NOTHING = _Beside()


class _Drop(nn.RNNBase):
    """What the three share: torch.nn's module, whose forward runs here.

    Where PyTorch does not compute but writes down or transforms what is computed (tracing, fx,
    export, torch.func), its own layer stands in, with the same parameters.
    """

    def _leaf(self, x: Any, hx: Any, beside: _Beside) -> Any:
        """Return what torch.fx notes for a call of this module, None if it is not tracing."""
        tensors = x if isinstance(x, fx.Proxy) else hx
        tensors = tensors[0] if isinstance(tensors, (tuple, list)) and tensors else tensors
        if not isinstance(tensors, fx.Proxy):
            return None
        tracer: Any = tensors.tracer
        if tracer.root is self:
            raise RuntimeError(
                f"{_name(self)} cannot be traced by itself, but as a part of a model"
            )
        path = tracer.path_of_module(self)
        arguments = (x,) if hx is None else (x, hx)
        return tracer.create_proxy("call_module", path, arguments, beside.given())

    def _written_down(self, x: Any, hx: Any, beside: _Beside) -> bool:
        """Whether PyTorch's own layer is to stand in for this call."""
        if isinstance(x, Tensor) and x.layout != torch.strided:  # nested, sparse
            raise TypeError(
                f"{_name(self)}: input is laid out as {x.layout}, expected torch.strided: give "
                "a nested tensor's rows padded, with lengths=, or packed"
            )
        stands_in = self._is_watched(x, hx)
        if stands_in and beside.given():
            raise RuntimeError(
                f"{_name(self)}: no {', '.join(beside.given())} where PyTorch traces or transforms"
            )
        return stands_in

    def _is_watched(self, x: Any, hx: Any) -> bool:
        """Whether PyTorch writes down or transforms what is computed."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return True
        data = x.data if isinstance(x, PackedSequence) else x
        parts = hx if isinstance(hx, (tuple, list)) else (hx,)
        tensors = [t for t in (data, *parts, *self._parameters.values()) if isinstance(t, Tensor)]
        if any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors):
            self._refuse_transforms(tensors)
            return True
        return any(type(t) not in (Tensor, nn.Parameter) and _is_symbolic(t) for t in tensors)

    def _refuse_transforms(self, tensors: list[Tensor]) -> None:
        """Refuse those of torch.func that torch.nn's layers do not have either."""
        if forward_ad._current_level >= 0:
            raise RuntimeError(f"{_name(self)} has no forward-mode derivatives: use jacrev or grad")
        for tensor in tensors:
            while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
                if torch._C._functorch.is_batchedtensor(tensor):
                    raise RuntimeError(
                        f"{_name(self)} cannot be called within vmap, as torch.nn's own layers "
                        "cannot: give it the batch as a batch"
                    )
                tensor = torch._C._functorch.get_unwrapped(tensor)

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script: what it would take in its place stays in the user's model."""
        kind = next(k.__name__ for k in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(self, k))
        raise RuntimeError(
            f"{_name(self)} cannot be scripted: trace the model, or give the layer the class of "
            f"torch.nn before, layer.__class__ = torch.nn.{kind}"
        )

    def _forward(
        self, x: Any, state: tuple[Tensor, ...], beside: _Beside = _NOTHING
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """Return y and the final state for the input and the initial state, () for zeros.

        Behind the final state is every c, if that is asked for.
        """
        for s in state:
            if not isinstance(s, Tensor):
                raise TypeError(f"{_name(self)}: hx has a {type(s).__name__}, expected tensors")
        if isinstance(x, PackedSequence):
            if beside.lengths is not None or beside.resets is not None or beside.cells:
                raise ValueError(
                    f"{_name(self)}: input is a PackedSequence, which has lengths of its own, "
                    "expected a padded tensor beside lengths, resets or cells"
                )
            return self._forward_packed(x, state)
        name = type(self).__name__
        if x.dim() not in (2, 3):
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {x.dim()}D instead")
        for s in state:
            if s.dim() != x.dim():
                raise RuntimeError(
                    f"{name}: expected hx to be {x.dim()}D like the input, got {s.dim()}D"
                )
        lengths, resets = self._checked(x, beside)
        if x.dim() == 3:
            y, final = self._run(x, state, lengths, resets, beside.cells)
        else:
            batch = 0 if self.batch_first else 1
            y, final = self._run(
                x.unsqueeze(batch),
                tuple(s.unsqueeze(1) for s in state),
                lengths,
                resets,
                beside.cells,
            )
            rows = {3: 1, 4: 1 + batch}  # of a state, and of every c
            y, final = y.squeeze(batch), tuple(s.squeeze(rows[s.dim()]) for s in final)
        return _like(y, x), tuple(_like(s, x) for s in final)

    def _checked(self, x: Tensor, beside: _Beside) -> tuple[Any, Any]:
        """Return lengths (B,) and resets (T, B), or (B, T) if batch_first, as arrays or None."""
        grid = tuple(x.shape[:-1])
        time, batch = (grid[1], grid[0]) if self.batch_first and len(grid) == 2 else (*grid, 1)[:2]
        lengths = resets = None
        if beside.lengths is not None:
            given = np.asarray(beside.lengths)
            lengths = checks.lengths(given, batch, time, batched=x.dim() == 3, of="input")
        if beside.resets is not None:
            axes = "(T,)" if x.dim() == 2 else "(B, T)" if self.batch_first else "(T, B)"
            resets = checks.resets(np.asarray(beside.resets), grid, axes)
            if x.dim() == 2:
                resets = resets[None] if self.batch_first else resets[:, None]
        return lengths, resets

    def _forward_packed(
        self, packed: PackedSequence, state: tuple[Tensor, ...]
    ) -> tuple[PackedSequence, tuple[Tensor, ...]]:
        data, batch_sizes, order, back = packed
        x, lengths = pad_packed_sequence(
            PackedSequence(data, batch_sizes), batch_first=self.batch_first
        )
        if order is not None:
            state = tuple(s.index_select(1, order) for s in state)
        y, final = self._run(x, state, lengths.numpy())
        packed = pack_padded_sequence(y, lengths, batch_first=self.batch_first)
        if back is not None:
            final = tuple(s.index_select(1, back) for s in final)
        return PackedSequence(packed.data, batch_sizes, order, back), final

    def _run(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        lengths: Any = None,
        resets: Any = None,
        cells: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        weights = [self._weight(name) for names in self._all_weights for name in names]
        dtype = weights[0].dtype
        cast = torch.is_autocast_enabled("cpu")
        if x.dtype != dtype and cast:
            x, state = x.to(dtype), tuple(s.to(dtype) for s in state)
        self._check(x, state, weights)
        if dtype == torch.bfloat16:  # autograd takes gradients back through these
            x, *others = (tensor.float() for tensor in (x, *state, *weights))
            state, weights = tuple(others[: len(state)]), others[len(state) :]
        lowers = cast and torch.get_autocast_dtype("cpu") == torch.bfloat16
        low = dtype == torch.bfloat16 or (dtype == torch.float32 and lowers)
        drops = self.training and self.dropout > 0 and self.num_layers > 1
        call = _autograd.Call(
            _autograd.spec(
                kind=self.mode.partition("_")[0].lower(),
                nonlinearity="relu" if self.mode == "RNN_RELU" else "tanh",
                input_size=self.input_size,
                hidden_size=self.hidden_size,
                num_layers=self.num_layers,
                bias=self.bias,
                bidirectional=self.bidirectional,
                proj_size=self.proj_size,
                dtype="float64" if dtype == torch.float64 else "float32",
            ),
            self.batch_first,
            lengths,
            self.dropout if drops else 0.0,
            int(torch.randint(2**63 - 1, ())) if drops else 0,
            "bfloat16" if low else "float32",
            resets,
            cells,
        )
        if drops or cells or torch.is_grad_enabled():
            y, *final = _autograd.train(self, call, x, state, weights)
        else:
            y, *final = _autograd.infer(self, call, x, state, weights)
        if dtype == torch.bfloat16:
            y, *final = (tensor.bfloat16() for tensor in (y, *final))
        return y, tuple(final)

    def _weight(self, name: str) -> Any:
        """Return a weight, as getattr does but sooner where it is a parameter as usual."""
        parameter = self._parameters.get(name)
        return getattr(self, name) if parameter is None else parameter

    def _check(self, x: Tensor, state: tuple[Tensor, ...], weights: list[nn.Parameter]) -> None:
        """Refuse what cannot be computed here; messages on sizes are PyTorch's own."""
        unpack: Any = forward_ad.unpack_dual
        if forward_ad._current_level >= 0 and any(
            unpack(tensor).tangent is not None for tensor in (x, *state, *weights)
        ):
            raise RuntimeError(
                f"{_name(self)} has no forward-mode derivatives: use torch.nn's own layer for them"
            )
        dtype = weights[0].dtype
        if dtype not in (torch.float32, torch.float64, torch.bfloat16):
            raise TypeError(
                f"{_name(self)} has weights of {dtype}, expected float32, float64 or bfloat16"
            )
        for tensor in (x, *state, *weights):
            if not tensor.is_cpu or tensor.dtype != dtype:
                own = any(tensor is w for w in weights)
                name = "input" if tensor is x else "a weight" if own else "hx"
                self._refuse(tensor, name, dtype)
        if self.dropout == 1:
            raise ValueError(f"{_name(self)}: dropout is 1, expected less than 1")
        if state:
            hidden: Any = state if len(state) > 1 else state[0]
            self.check_forward_args(x, hidden, None)
        else:
            self.check_input(x, None)

    def _refuse(self, tensor: Tensor, name: str, dtype: torch.dtype) -> NoReturn:
        """Say of a tensor that it is elsewhere, or of another dtype than the first weight."""
        if not tensor.is_cpu:
            raise RuntimeError(
                f"{_name(self)} runs on the CPU only, but {name} is on {tensor.device}: move "
                "it there, or use torch.nn's own layer"
            )
        if name == "input":  # PyTorch's own words
            raise ValueError(
                f"{_name(self)}: RNN input dtype ({tensor.dtype}) does not match weight dtype "
                f"({dtype}). Convert input: input.to({dtype}), or convert model: "
                f"model.to({tensor.dtype})"
            )
        raise ValueError(
            f"{_name(self)}: {name} has dtype {tensor.dtype}, expected {dtype}, that of "
            "the first weight"
        )


class LSTM(_Drop, nn.LSTM):
    """torch.nn.LSTM, computed by lstmcore.

    It is made, saved, loaded and called like that one, and is an instance of it; see
    ``torch.nn.LSTM`` for arguments, inputs and outputs, `docs/torch.md` for what differs. A call
    takes by name, with a padded tensor as input:

    lengths : integers (B,)
        Steps of each row, 0 to T. y is 0 behind them, and h and c are those of the last step.
    resets : bools (T, B), or (B, T) if batch_first
        Where an episode starts: no state, and no gradient, crosses to that step.
    cells : bool
        Whether to return y, (h, c) and c of every step, (L*D, T, B, H) or (L*D, B, T, H) if
        batch_first, without a gradient.

    Raises
    ------
    RuntimeError
        For tensors that are not on the CPU; when asked for second derivatives; when traced.
    TypeError
        For weights of other dtypes than float32, float64 and bfloat16, or resets that are no bools.
    ValueError
        For lengths and resets of other shapes or values; beside a PackedSequence.

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import LSTM
    >>> lstm = LSTM(3, 5, num_layers=2, batch_first=True)
    >>> y, (h, c) = lstm(torch.ones(2, 7, 3))
    >>> y.sum().backward()
    >>> y.shape, lstm.weight_ih_l0.grad.shape
    (torch.Size([2, 7, 5]), torch.Size([20, 3]))
    >>> starts = torch.zeros(2, 7, dtype=torch.bool)
    >>> starts[0, 4] = True  # the first row begins another episode there
    >>> y, (h, c), cells = lstm(torch.ones(2, 7, 3), lengths=[7, 3], resets=starts, cells=True)
    >>> torch.equal(y[0, 4:], y[0, :3]), y[1, 3:].abs().max().item(), cells.shape
    (True, 0.0, torch.Size([2, 2, 7, 5]))
    """

    def forward(
        self,
        input: Sequences,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        cells: bool = False,
    ) -> Any:
        """Return y and (h, c), as torch.nn.LSTM does, and with `cells` every c."""
        beside = _Beside(lengths, resets, cells)
        leaf = self._leaf(input, hx, beside)
        if leaf is not None:
            return leaf
        if self._written_down(input, hx, beside):
            return super().forward(input, hx)
        checks.boolean(cells, "cells")
        y, (h, c, *every) = self._forward(input, () if hx is None else self._pair(hx), beside)
        return (y, (h, c), *every)

    def _pair(self, hx: Any) -> tuple[Tensor, ...]:
        if not isinstance(hx, (tuple, list)):
            what = type(hx).__name__
            raise TypeError(f"{_name(self)}: hx is a {what}, expected a pair of tensors (h, c)")
        if len(hx) != 2:
            raise RuntimeError(f"{_name(self)}: hx has {len(hx)} tensors, expected two: (h, c)")
        return tuple(hx)


class _OneState(_Drop):
    """What GRU and RNN share: a state that is h alone."""

    def forward(
        self,
        input: Sequences,
        hx: Tensor | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
    ) -> tuple[Sequences, Tensor]:
        """Return y and h, as torch.nn's layer does; `lengths` and `resets` are as of `LSTM`."""
        beside = _Beside(lengths, resets)
        leaf = self._leaf(input, hx, beside)
        if leaf is not None:
            return leaf  # type: ignore[no-any-return]
        if self._written_down(input, hx, beside):
            theirs: tuple[Sequences, Tensor] = super().forward(input, hx)
            return theirs
        y, (h,) = self._forward(input, () if hx is None else (hx,), beside)
        return y, h


class GRU(_OneState, nn.GRU):  # type: ignore[misc]
    """torch.nn.GRU, computed by lstmcore; see `LSTM` for what is raised.

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import GRU
    >>> y, h = GRU(3, 5, bidirectional=True)(torch.ones(7, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    """


class RNN(_OneState, nn.RNN):  # type: ignore[misc]
    """torch.nn.RNN, computed by lstmcore; see `LSTM` for what is raised.

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import RNN
    >>> y, h = RNN(3, 5, nonlinearity="relu")(torch.ones(7, 3))
    >>> y.shape, h.shape
    (torch.Size([7, 5]), torch.Size([1, 5]))
    """


def _is_symbolic(tensor: Tensor) -> bool:
    """Whether it is of a class that decides itself what is computed, as those of export are."""
    kind: Any = type(tensor)
    return kind.__torch_dispatch__ is not Tensor.__torch_dispatch__


def _like(y: Any, x: Any) -> Any:
    """Return y as a tensor of the class of x, as PyTorch's operations do."""
    if not isinstance(x, Tensor) or type(x) in (Tensor, nn.Parameter):
        return y
    return y.as_subclass(type(x))


def _name(module: nn.Module) -> str:
    return f"lstmcore.torch.{type(module).__name__}"


# What stands after a recurrent layer in a torch.nn.Sequential -------------------------------------


class Output(nn.Module):
    """y of the (y, state) that a recurrent layer returns, for the next module of a Sequential.

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import GRU, Output
    >>> model = torch.nn.Sequential(GRU(3, 5), Output(), torch.nn.Linear(5, 2))
    >>> model(torch.ones(7, 4, 3)).shape
    torch.Size([7, 4, 2])
    """

    def forward(self, result: tuple[Tensor, Any]) -> Tensor:
        """Return the first of the two."""
        return result[0]


class _Pool(nn.Module):
    def __init__(self, batch_first: bool = False) -> None:
        super().__init__()
        self.batch_first = batch_first

    def extra_repr(self) -> str:
        return "batch_first=True" if self.batch_first else ""

    def forward(self, y: Tensor) -> Tensor:
        """Return (B, F) for y (T, B, F), or (B, T, F) if batch_first; (F,) for (T, F)."""
        return self._pool(y, 1 if self.batch_first and y.dim() == 3 else 0)

    def _pool(self, y: Tensor, time: int) -> Tensor:
        raise NotImplementedError


class LastStep(_Pool):
    """The last time step: lstmcore.LastStep for PyTorch models, without lengths.

    Parameters
    ----------
    batch_first : bool, default False
        Whether y is (B, T, F) rather than (T, B, F).

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import LastStep
    >>> LastStep()(torch.tensor([[[1.0]], [[2.0]]]))
    tensor([[2.]])
    """

    def _pool(self, y: Tensor, time: int) -> Tensor:
        return y.select(time, -1)


class MeanPool(_Pool):
    """The mean over the time steps: lstmcore.MeanPool for PyTorch models, without lengths.

    Parameters
    ----------
    batch_first : bool, default False
        Whether y is (B, T, F) rather than (T, B, F).

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import MeanPool
    >>> MeanPool()(torch.tensor([[[1.0]], [[2.0]]]))
    tensor([[1.5000]])
    """

    def _pool(self, y: Tensor, time: int) -> Tensor:
        return y.mean(time)


class MaxPool(_Pool):
    """The maximum over the time steps: lstmcore.MaxPool for PyTorch models, without lengths.

    Parameters
    ----------
    batch_first : bool, default False
        Whether y is (B, T, F) rather than (T, B, F).

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import MaxPool
    >>> MaxPool()(torch.tensor([[[1.0]], [[2.0]]]))
    tensor([[2.]])
    """

    def _pool(self, y: Tensor, time: int) -> Tensor:
        return y.amax(time)


class BothEnds(_Pool):
    """Of a bidirectional layer, the last step forward and the first step reverse, side by side.

    It is lstmcore.BothEnds for PyTorch models, without lengths.

    Parameters
    ----------
    batch_first : bool, default False
        Whether y is (B, T, F) rather than (T, B, F).

    Examples
    --------
    >>> import torch
    >>> from lstmcore.torch import BothEnds
    >>> BothEnds()(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
    tensor([[3., 2.]])
    """

    def _pool(self, y: Tensor, time: int) -> Tensor:
        half = y.size(-1) // 2
        return torch.cat((y.select(time, -1)[..., :half], y.select(time, 0)[..., half:]), -1)
