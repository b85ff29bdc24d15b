"""lstmcore, through its Python face."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lstmcore as lc
from cases import Case
from data import Array, Data

from .base import Way


class Ours:
    """lstmcore; `isa` tells the level that it runs at."""

    def __init__(self, threads: int) -> None:
        self.version = lc.info()["lstmcore"]
        self.isa = lc.isa()
        self._threads = threads

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield one way, on the threads of this process; `ways_on` has them given."""
        return self.ways_on(case, data, self._threads)

    def ways_on(self, case: Case, data: Data, threads: int) -> Iterator[Way]:
        """Yield the way of running the case on some number of threads."""
        options: dict[str, Any] = {
            "num_layers": case.L,
            "bidirectional": case.D == 2,
            "dtype": case.dtype,
        }
        if case.cell == "lstm":
            options.update(
                proj_size=case.proj_size,
                peephole=case.peephole,
                coupled=case.coupled,
                forget_gate=case.forget_gate,
            )
        if case.cell == "gru":
            options["reset_after"] = case.reset_after
        layer: Any = getattr(lc, case.cell.upper())(case.I, case.H, **options)
        layer.load_state_dict(data.parameters)
        if case.bfloat16:
            layer.precision = "bfloat16"
        if case.int8:
            layer = lc.quantize(layer)
        x, dy, lengths = data.x, data.dy, data.lengths

        def infer() -> Any:
            return layer(x, lengths=lengths)

        parameters = layer.parameters()
        bias = next(p for p in parameters if p.name.startswith("bias"))

        def train() -> Any:
            layer.zero_grad()
            y, _, tape = layer.forward(x, lengths=lengths)
            dx, _ = layer.backward(tape, dy)
            bias.data += 0  # the step of an optimiser: the next call has to pack its weights anew
            return y, dx

        def inferred(result: Any) -> dict[str, Array]:
            return {"y": result[0]}

        def trained(result: Any) -> dict[str, Array]:
            y, dx = result
            return {"y": y, "dx": dx, **{p.name: p.grad for p in parameters}}

        def enter() -> None:
            lc.set_num_threads(threads)

        if case.mode == "train":
            yield Way("", train, trained, enter)
        else:
            yield Way("", infer, inferred, enter)


def make(threads: int) -> Ours:
    """Return the library, set to this many threads."""
    return Ours(threads)
