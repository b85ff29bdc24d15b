"""Calls of the core on PyTorch's tensors, and their gradients through PyTorch's autograd."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import _core
from .._base.checks import Array
from .._nn.config import Config

__all__ = ["Call", "infer", "spec", "train"]


class Call(NamedTuple):
    """What a call is, besides its tensors."""

    spec: _core.Spec
    batch_first: bool
    lengths: npt.NDArray[np.int64] | None  # (B,)
    dropout: float
    key: int  # of the random numbers for dropout
    precision: str  # of the layer, see lstmcore.LSTM
    resets: npt.NDArray[np.bool_] | None = None  # (T, B), or (B, T) if batch_first
    cells: bool = False  # whether every c is asked for

    def run(
        self, weights: _core.Weights, x: Array, state: Sequence[Array], keep: bool
    ) -> tuple[list[Array], _core.Tape | None]:
        """Return y, the final state and, if asked for, every c; and a tape if it is to be kept."""
        h0, c0 = (*state, None, None)[:2]
        y, h, c, tape = _core.forward(
            weights, x, h0, c0, self.lengths, self.resets, self.batch_first, keep,
            (self.dropout, 0.0, 0.0), self.key,
        )  # fmt: skip
        found = [y, h] if c is None else [y, h, c]
        return [*found, tape.cells()] if self.cells and tape is not None else found, tape


@lru_cache(maxsize=256)
def spec(**options: Any) -> _core.Spec:
    """Return the core's description of a layer."""
    return Config(**options).spec()


def train(
    module: torch.nn.Module,
    call: Call,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Return y and the final state, with dropout, and with gradients where they are asked for."""
    packed = _pack(module, call, weights, True)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *state, *weights)):
        apply: Any = _Recurrence.apply
        return list(apply(call, packed, len(state), x, *state, *weights))
    arrays, _ = call.run(packed, _walkable(x), [_contiguous(s) for s in state], True)
    return [torch.from_numpy(array) for array in arrays]


def infer(
    module: torch.nn.Module,
    call: Call,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Return y and the final state, without dropout and without gradients."""
    packed = _pack(module, call, weights, False)
    arrays, _ = call.run(packed, _walkable(x), [_contiguous(s) for s in state], False)
    return [torch.from_numpy(array) for array in arrays]


class _Recurrence(torch.autograd.Function):
    """Forward and backward of a whole layer.

    The tape lives on a tensor among the saved ones, so that PyTorch frees it when it frees those:
    after `backward` without `retain_graph`. Saving x, the state, the weights and y makes PyTorch
    notice if one of them has been written to meanwhile. Hooks may replace saved tensors (checkpoint
    and offloading do so): then the tape is gone, and is made again from what they bring back.
    """

    @staticmethod
    def forward(
        ctx: Any, call: Call, packed: _core.Weights, parts: int, x: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        state = [_contiguous(s) for s in others[:parts]]
        arrays, tape = call.run(packed, _walkable(x), state, True)
        outputs = tuple(torch.from_numpy(array) for array in arrays)
        if call.cells:
            ctx.mark_non_differentiable(outputs[-1])
        holder = torch.empty(0)
        holder.tape = tape  # type: ignore[attr-defined]
        ctx.save_for_backward(holder, outputs[0], x, *others)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.parts = call, parts
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        holder, _, x, *others = ctx.saved_tensors
        state, weights = others[: ctx.parts], others[ctx.parts :]
        tape: Any = getattr(holder, "tape", None)
        if tape is None:
            with torch.no_grad():
                arrays = [_contiguous(w) for w in weights]
                packed = _core.pack(ctx.call.spec, arrays, True, ctx.call.precision)
                _, tape = ctx.call.run(packed, _walkable(x), [_contiguous(s) for s in state], True)
        with torch.no_grad():
            found = list(_backward(tape, x, weights, ctx.needs_input_grad[3], gradients))
        del found[1 + ctx.parts : len(found) - len(weights)]  # of states that were not given
        wanted = [
            gradient if needed else None
            for gradient, needed in zip(found, ctx.needs_input_grad[3:], strict=True)
        ]
        if torch.is_grad_enabled():  # create_graph=True
            once: Any = _Once.apply
            sources = [t for t in (x, *others, *gradients) if t is not None]
            wanted = [None if t is None else once(t, *sources) for t in wanted]
        return None, None, None, *wanted


def _backward(
    tape: _core.Tape,
    x: Tensor,
    weights: Sequence[Tensor],
    needs_dx: bool,
    gradients: Sequence[Tensor | None],
) -> Sequence[Tensor]:
    """Return the gradients of everything, for given ones of y and the final state.

    Without `needs_dx`, that of x is empty.

    Of many at once, which ``jacobian(vectorize=True)`` and ``is_grads_batched=True`` ask for, by
    one at a time.
    """
    batched: Any = torch._C._functorch.is_legacy_batchedtensor
    if not any(g is not None and batched(g) for g in gradients):
        apply: Any = _Gradients.apply
        made: Sequence[Tensor] = apply(tape, x, weights, needs_dx, *gradients)
        return made
    nesting: Any = torch._C
    level = nesting._vmapmode_increment_nesting() - 1
    nesting._vmapmode_decrement_nesting()
    whole: Any = torch
    # (N, ...) of those that there are many of, the others as they are.
    bare: list[Any] = [
        whole._remove_batch_dim(g, level, 1, 0) if g is not None and batched(g) else g
        for g in gradients
    ]
    many = [g is not None and batched(g) for g in gradients]
    size = next(len(b) for b, is_many in zip(bare, many, strict=True) if is_many)
    rows = []
    for i in range(size):
        one = [b[i] if is_many else b for b, is_many in zip(bare, many, strict=True)]
        rows.append(_backward(tape, x, weights, needs_dx, one))
    return [whole._add_batch_dim(torch.stack(parts), 0, level) for parts in zip(*rows, strict=True)]


class _Gradients(torch.autograd.Function):
    """One backward, and what ``torch.func.vmap`` makes of it."""

    @staticmethod
    def forward(
        tape: _core.Tape,
        x: Tensor,
        weights: Sequence[Tensor],
        needs_dx: bool,
        *gradients: Tensor | None,
    ) -> tuple[Tensor, ...]:
        dy, dh, dc = (*gradients, None)[:3]
        dweights = [np.zeros(w.shape, x.detach().numpy().dtype) for w in weights]
        dx, *states = _core.backward(
            tape,
            None if dy is None else _walkable(dy),
            None if dh is None else _contiguous(dh),
            None if dc is None else _contiguous(dc),
            dweights,
            needs_dx,
        )
        dx = np.empty(0, np.float32) if dx is None else dx
        arrays = [array for array in (dx, *states, *dweights) if array is not None]  # no c
        return tuple(torch.from_numpy(array) for array in arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        rows = []
        for i in range(info.batch_size):
            one: list[Any] = [
                a if dim is None or not isinstance(a, Tensor) else a.select(dim, i)
                for a, dim in zip(arguments, in_dims, strict=True)
            ]
            rows.append(_Gradients.forward(*one))
        made = tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
        return made, (0,) * len(made)


class _Once(torch.autograd.Function):
    """A gradient that refuses to be differentiated, rather than passing for a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, *sources: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "the layers of lstmcore.torch have first derivatives only, and this asks for a second "
            "one (create_graph=True, a gradient penalty, a Hessian): use torch.nn's layers for that"
        )


# Packed weights -----------------------------------------------------------------------------------


class _Packed(NamedTuple):
    """The weights of a module, packed."""

    spec: _core.Spec
    precision: str
    isa: int
    train: bool  # packed for training serves inference too
    marks: list[tuple[int, int]]  # address and version of every tensor they are of
    numbers: list[Array] | None  # copies of these tensors, once it is worth it
    weights: _core.Weights


_packed: weakref.WeakKeyDictionary[torch.nn.Module, _Packed] = weakref.WeakKeyDictionary()


def _pack(
    module: torch.nn.Module, call: Call, tensors: Sequence[Tensor], train: bool
) -> _core.Weights:
    """Return the weights packed: those of the call before, if no number has changed since.

    The version of a tensor tells of most writes, but not of those through its `data`, by which
    loops move a target network, or through NumPy. So where the versions are the same the numbers
    are compared, with copies that are made when the same versions are met for the second time: a
    loop that changes the weights between any two calls never pays for them.
    """
    isa = _core.isa_version()
    marks = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
    arrays = [_contiguous(t) for t in tensors]
    kept = _packed.get(module)
    again = (
        kept is not None
        and kept.spec is call.spec
        and kept.precision == call.precision
        and kept.isa == isa
        and kept.train >= train
        and kept.marks == marks
    )
    if again and kept and kept.numbers and _core.same_bits(kept.numbers, arrays):
        return kept.weights
    numbers = [array.copy() for array in arrays] if again else None
    # Of the copies, if there are some: others may be writing.
    weights = _core.pack(call.spec, numbers or arrays, train, call.precision)
    _packed[module] = _Packed(call.spec, call.precision, isa, train, marks, numbers, weights)
    return weights


# Tensors as arrays --------------------------------------------------------------------------------


def _contiguous(tensor: Tensor) -> Array:
    array: Array = tensor.contiguous().numpy(force=True)
    return array


def _walkable(tensor: Tensor) -> Array:
    """As `_contiguous`, but any strides will do for the axes before the last."""
    if tensor.stride(-1) != 1 and tensor.size(-1) > 1:
        return _contiguous(tensor)
    array: Array = tensor.numpy(force=True)
    return array
