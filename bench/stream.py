"""Measure one step of a stream, beside ONNX Runtime and PyTorch with their state fed back.

    python bench/stream.py [--steps 1000000] [--markdown FILE]

One thread, one row, I = H, from Python. Every library first has to give our outputs. Rounds go
through all libraries, so that a machine whose speed changes favours nobody; a cell of the table is
the median over the rounds. For lstmcore the last columns are of single steps, each timed: a call of
the clock is in them.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable, Iterator

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

import lstmcore as lc
from lstmcore._files.layouts import LAYOUTS, OURS, reordered

SIZES = (16, 32, 64, 128, 256, 512)
STEPS = 64  # different inputs
Step = Callable[[int], np.ndarray]  # takes the number of the input


def ours(layer: lc.LSTM | lc.GRU, xs: np.ndarray) -> Iterator[tuple[str, Step]]:
    """Step with an output of one's own, and without."""
    y = np.empty((1, layer.hidden_size), "float32")
    frames = list(xs)
    first, second = layer.stream(), layer.stream()
    yield "lstmcore", lambda i: first.step(frames[i], y)
    yield "lstmcore, new y", lambda i: second.step(frames[i])


def onnx_step(layer: lc.LSTM | lc.GRU) -> bytes:
    """Return an ONNX model of one step: of x and the state, to the next state."""
    import onnx
    from onnx import helper, numpy_helper

    H = layer.hidden_size
    lstm = isinstance(layer, lc.LSTM)
    states = ["h", "c"] if lstm else ["h"]
    sd = layer.state_dict()
    ours, theirs = (layout.order("lstm" if lstm else "gru") for layout in (OURS, LAYOUTS["onnx"]))

    def gates(name: str) -> np.ndarray:
        return reordered(sd[f"{name}_l0"], ours, theirs)

    constants = {
        "W": gates("weight_ih")[None],
        "R": gates("weight_hh")[None],
        "B": np.concatenate([gates("bias_ih"), gates("bias_hh")])[None],
    }
    node = helper.make_node(
        "LSTM" if lstm else "GRU",
        ["x", "W", "R", "B", "", *states],
        ["y", *(f"{s}_out" for s in states)],
        hidden_size=H,
        **({} if lstm else {"linear_before_reset": 1}),
    )
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "step",
        [helper.make_tensor_value_info(s, floats, [1, 1, H]) for s in ("x", *states)],
        [helper.make_tensor_value_info(f"{s}_out", floats, [1, 1, H]) for s in states],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def onnx_runtime(layer: lc.LSTM | lc.GRU, xs: np.ndarray) -> Iterator[tuple[str, Step]]:
    """A session called with arrays, and one whose inputs and outputs are bound, in turns."""
    try:
        import onnxruntime

        model = onnx_step(layer)
    except ImportError:
        return
    H = layer.hidden_size
    states = ["h", "c"] if isinstance(layer, lc.LSTM) else ["h"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    frames = list(xs[:, None])
    state = {s: np.zeros((1, 1, H), "float32") for s in states}
    outputs = [f"{s}_out" for s in states]

    def fed(i: int) -> np.ndarray:
        values = session.run(outputs, {"x": frames[i], **state})
        state.update(zip(states, values, strict=True))
        return values[0][0]

    yield "ONNX Runtime", fed

    def value(array: np.ndarray) -> onnxruntime.OrtValue:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    x = value(np.zeros((1, 1, H), "float32"))
    pairs = [[value(np.zeros((1, 1, H), "float32")) for _ in states] for _ in range(2)]
    bindings = []
    for source, target in (pairs, pairs[::-1]):
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        for name, one, other in zip(states, source, target, strict=True):
            binding.bind_ortvalue_input(name, one)
            binding.bind_ortvalue_output(f"{name}_out", other)
        bindings.append(binding)
    turn = 0

    def bound(i: int) -> np.ndarray:
        nonlocal turn
        x.update_inplace(frames[i])
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn
        return pairs[turn][0].numpy()[0]

    yield "ONNX Runtime, bound", bound


def pytorch(layer: lc.LSTM | lc.GRU, xs: np.ndarray) -> Iterator[tuple[str, Step]]:
    """A layer over one step, and a cell."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    H = layer.hidden_size
    kind = type(layer).__name__
    whole = getattr(torch.nn, kind)(H, H)
    cell = getattr(torch.nn, f"{kind}Cell")(H, H)
    sd = {name: torch.from_numpy(value) for name, value in layer.state_dict().items()}
    whole.load_state_dict(sd)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in sd.items()})
    frames = [torch.from_numpy(x) for x in xs]
    states: list[object] = [None, None]

    def layer_step(i: int) -> np.ndarray:
        with torch.inference_mode():
            y, states[0] = whole(frames[i][None], states[0])
        return y[0].numpy()

    def cell_step(i: int) -> np.ndarray:
        with torch.inference_mode():
            states[1] = cell(frames[i], states[1])
        return (states[1][0] if kind == "LSTM" else states[1]).numpy()

    yield "PyTorch", layer_step
    yield "PyTorch, cell", cell_step


def check(name: str, step: Step, expected: np.ndarray) -> None:
    """Refuse a library whose outputs are others."""
    got = np.stack([step(i).copy() for i in range(len(expected))])
    if not np.allclose(got, expected, atol=1e-4):
        raise SystemExit(f"{name} differs by {np.abs(got - expected).max()}")


def microseconds(step: Step, seconds: float = 0.02) -> float:
    """Return the time of a step, over some of them."""
    done, start = 0, time.perf_counter()
    while True:
        for i in range(STEPS):
            step(i)
        done += STEPS
        passed = time.perf_counter() - start
        if passed > seconds:
            return 1e6 * passed / done


def single_steps(step: Step, count: int) -> np.ndarray:
    """Return the microseconds of so many single steps."""
    times = np.empty(count)
    clock = time.perf_counter_ns
    gc.disable()
    for k in range(count):
        start = clock()
        step(k % STEPS)
        times[k] = clock() - start
    gc.enable()
    return times / 1000


def measure(kind: str, size: int, steps: int) -> dict[str, object]:
    """Return a row of the table."""
    layer = getattr(lc, kind)(size, size, seed=0)
    xs = np.random.default_rng(0).standard_normal((STEPS, 1, size)).astype("float32")
    expected = layer(xs)[0]
    ways = [*ours(layer, xs), *onnx_runtime(layer, xs), *pytorch(layer, xs)]
    for name, step in ways:
        check(name, step, expected)
    rounds = [[microseconds(step) for _, step in ways] for _ in range(7)]
    row: dict[str, object] = {"": f"{kind} {size}"}
    for (name, _), value in zip(ways, np.median(rounds, axis=0), strict=True):
        row[name] = float(value)
    stream, block = layer.stream(), np.repeat(xs, 4, axis=0)
    y = np.empty_like(block)
    row["process, per step"] = microseconds(lambda i: stream.process(block, y)) / len(block)
    times = single_steps(ways[0][1], steps if size < 256 else steps // 10)
    row["single: median"] = float(np.median(times))
    row["99.9 %"] = float(np.quantile(times, 0.999))
    return row


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10**6, help="single steps, for the percentile")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--cells", nargs="+", default=["LSTM", "GRU"])
    parser.add_argument("--markdown", help="a file for the table")
    arguments = parser.parse_args()
    lc.set_num_threads(1)
    lines: list[str] = []
    for kind in arguments.cells:
        for size in arguments.sizes:
            row = measure(kind, size, arguments.steps)
            if not lines:
                lines.append("| µs per step | " + " | ".join(list(row)[1:]) + " |")
                lines.append("| --- |" + " ---: |" * (len(row) - 1))
                print("\n".join(lines), flush=True)
            values = [_text(value) for value in row.values()]
            lines.append("| " + " | ".join(values) + " |")
            print(lines[-1], flush=True)
    if arguments.markdown:
        with open(arguments.markdown, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
