"""PyTorch: its layers with and without oneDNN, and its cells for single steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from cases import Case
from data import Array, Data

from .base import Unsupported, Way


def _onednn(enabled: bool) -> Callable[[], None]:
    def enter() -> None:
        torch.backends.mkldnn.set_flags(_enabled=enabled)  # type: ignore[no-untyped-call]

    return enter


class PyTorch:
    """PyTorch, eager, in inference mode where nothing is trained."""

    def __init__(self, threads: int) -> None:
        warnings.simplefilter("ignore")  # what oneDNN has no kernel for
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.version = torch.__version__

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield the layer's own kernels, oneDNN's, and the cell."""
        if case.peephole or case.coupled or not case.forget_gate or not case.reset_after:
            raise Unsupported("no such variant")
        if case.denormal:
            raise Unsupported("compared with normal numbers only")
        options: dict[str, Any] = {"proj_size": case.proj_size} if case.proj_size else {}
        layer: Any = getattr(torch.nn, case.cell.upper())(
            case.I,
            case.H,
            case.L,
            bidirectional=case.D == 2,
            dtype=getattr(torch, case.dtype),
            **options,
        )
        layer.load_state_dict({k: torch.from_numpy(v) for k, v in data.parameters.items()})
        if case.int8:
            layer = torch.ao.quantization.quantize_dynamic(
                torch.nn.Sequential(layer), {type(layer)}, dtype=torch.qint8
            )[0]
        if case.bfloat16:
            layer = layer.bfloat16()
        make_ways = self._train if case.mode == "train" else self._infer
        for name, enabled in (("native", False), ("oneDNN", True)):
            run, outputs = make_ways(case, data, layer)
            yield Way(name, run, outputs, _onednn(enabled))
        if case.mode == "infer" and case.T == case.L == case.D == 1 and not case.proj_size:
            yield self._cell(case, data)

    def _infer(self, case: Case, data: Data, layer: Any) -> Any:
        layer.eval()
        x: Any = torch.from_numpy(data.x)
        if data.lengths is not None:
            x = _pack(data.x, data.lengths)
        if case.bfloat16:
            x = x.bfloat16()

        def run() -> Any:
            with torch.inference_mode():
                return layer(x)[0]

        def outputs(y: Any) -> dict[str, Array]:
            return {"y": _padded(y, case.T)}

        return run, outputs

    def _train(self, case: Case, data: Data, layer: Any) -> Any:
        assert data.dy is not None
        parameters = list(layer.parameters())
        names = [name for name, _ in layer.named_parameters()]
        packed = None
        if data.lengths is None:
            leaf, dy = torch.from_numpy(data.x), torch.from_numpy(data.dy)
        else:
            packed = _pack(data.x, data.lengths)
            leaf, dy = packed.data, _pack(data.dy, data.lengths).data
        if case.bfloat16:
            leaf, dy = leaf.bfloat16(), dy.bfloat16()
        leaf.requires_grad_()

        def run() -> Any:
            # Rows of unequal lengths are packed before and padded after: not in this time.
            y = layer(leaf if packed is None else packed._replace(data=leaf))[0]
            flat = y if packed is None else y.data
            return y, torch.autograd.grad(flat, [leaf, *parameters], dy)

        def outputs(result: Any) -> dict[str, Array]:
            y, (dx, *gradients) = result
            if packed is not None:
                dx = packed._replace(data=dx)
            found = {"y": _padded(y, case.T), "dx": _padded(dx, case.T)}
            found.update((n, _array(g)) for n, g in zip(names, gradients))
            return found

        return run, outputs

    def _cell(self, case: Case, data: Data) -> Way:
        kind = f"{case.cell.upper()}Cell"
        cell: Any = getattr(torch.nn, kind)(case.I, case.H, dtype=getattr(torch, case.dtype))
        state = {k.removesuffix("_l0"): torch.from_numpy(v) for k, v in data.parameters.items()}
        cell.load_state_dict(state)
        x = torch.from_numpy(data.x[0])

        def run() -> Any:
            with torch.inference_mode():
                return cell(x)

        def outputs(result: Any) -> dict[str, Array]:
            h = result[0] if case.cell == "lstm" else result
            return {"y": h.numpy()[None]}

        return Way("cell", run, outputs)


def _pack(array: Array, lengths: Array) -> PackedSequence:
    return pack_padded_sequence(
        torch.from_numpy(array), torch.from_numpy(lengths), enforce_sorted=False
    )


def _padded(value: Any, steps: int) -> Array:
    if isinstance(value, PackedSequence):
        value = pad_packed_sequence(value, total_length=steps)[0]
    return _array(value.detach())


def _array(tensor: torch.Tensor) -> Array:
    """Return it in NumPy, which has no bfloat16."""
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def make(threads: int) -> PyTorch:
    """Return the library, set to this many threads."""
    return PyTorch(threads)
