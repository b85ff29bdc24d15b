"""Graphs whose inputs have shapes that came before: what the core runs gives what NumPy gave."""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.onnx_models import value
from lstmcore import _core
from lstmcore.onnx import _plan
from lstmcore.onnx._graph import Graph
from lstmcore.onnx._importing import graph_of

onnx: Any = peers.require("onnx")
helper: Any = onnx.helper

rng = np.random.default_rng(0)
CALLS = 4  # the second is recorded, the ones behind it run what it has found


def real(*shape: int) -> Any:
    return rng.standard_normal(shape).astype("float32")


def graph(nodes: list[Any], given: dict[str, Any], outputs: list[str], constants: dict[str, Any],
          opset: int = 18) -> Graph:  # fmt: skip
    inputs = [value(name, array.dtype, array.shape) for name, array in given.items()]
    proto = helper.make_graph(
        nodes, "g", inputs, [helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return graph_of(helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)]))


def steps_of(found: Graph) -> list[Any]:
    """What runs after the last call: None if only NumPy does."""
    (written,) = found._plan._shaped.values()
    return [] if written is None else written.steps


def python_of(found: Graph) -> list[str]:
    """The operators that the core does not run."""
    steps = steps_of(found)
    assert steps
    return [step.node.op for step in steps if not isinstance(step.run, _core.Program)]


def results(found: Graph, *given: Any) -> list[Any]:
    y = found(*given)
    return list(y) if isinstance(y, tuple) else [y]


def check(found: Graph, *given: Any) -> None:
    expected = results(found, *given)
    for _ in range(CALLS):
        for a, b in zip(results(found, *given), expected, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            most = np.max(np.abs(b), where=np.isfinite(b), initial=1)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * most)


class Case(NamedTuple):
    """An operator of the first input, turned around and negated before, and others."""

    op: str
    shape: tuple[int, ...]
    said: Any = MappingProxyType({})
    others: tuple[Any, ...] = ()
    constant: bool = True  # whether these are
    opset: int = 18


EXTREMES = ("Abs", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Neg",
            "Reciprocal", "Relu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh",
            "ThresholdedRelu")  # fmt: skip
CASES = [
    *(
        Case(op, (2, 3, 4), {}, (real(*shape),), constant)
        for op in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Sum")
        for shape in ((2, 3, 4), (4,), (3, 1), (5, 1, 3, 1), ())
        for constant in (False, True)
    ),
    Case("Sum", (2, 3)),
    Case("Mul", (2, 3), {}, (real(1),)),
    *(Case("Pow", (2, 3), {}, (np.float32(e) + np.zeros(1, "f4"),)) for e in (1, 2)),
    Case("Clip", (2, 3), {}, (np.float32(-0.2), np.float32(0.4))),
    Case("Clip", (2, 3), {"min": -0.1}, opset=9),
    *(Case("Conv", shape, {"pads": pads, "strides": strides, "group": group},
           (real(out, shape[1] // group, *kernel), real(out)))
      for shape, kernel, pads, strides, group, out in (
          ((1, 1, 640), (256,), [0, 0], [128], 1, 258), ((2, 8, 4), (3,), [1, 1], [2], 1, 6),
          ((2, 64, 1), (3,), [1, 1], [1], 1, 16), ((2, 6, 10), (3,), [1, 1], [1], 6, 6),
          ((2, 6, 10), (3,), [1, 1], [1], 2, 4), ((3, 4, 7), (1,), [0, 0], [1], 1, 5),
          ((2, 3, 9, 11), (3, 3), [1, 1, 1, 1], [2, 2], 1, 5), ((3, 4, 40), (5,), [4, 0], [1], 1, 5)
      )),
    Case("Conv", (1, 4, 7), {}, (real(5, 4, 2),)),
    Case("ConvTranspose", (1, 24, 64), {"strides": [4], "pads": [2, 2]}, (real(24, 2, 8), real(2))),
    Case("ConvTranspose", (2, 4, 5), {"strides": [2], "dilations": [2], "output_padding": [1],
         "group": 2}, (real(4, 3, 3),)),
    Case("ConvTranspose", (1, 2, 4, 5), {"strides": [2, 3], "pads": [0, 1, 1, 0]},
         (real(2, 3, 3, 2),)),
    Case("MaxPool", (1, 4, 30, 8), {"kernel_shape": [3, 3], "strides": [2, 2],
         "pads": [1, 1, 1, 1]}),
    Case("MaxPool", (2, 3, 11), {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}),
    *(Case("MatMul", a, {}, (real(*b),), False) for a, b in (
        ((1, 4, 16, 5), (1, 4, 5, 16)), ((7, 5), (5, 3)), ((2, 3, 7, 33), (3, 33, 1)),
        ((1, 9), (2, 9, 64)), ((3, 1, 40), (3, 40, 100)))),
    Case("MatMul", (2, 3, 7), {}, (real(7, 5),)),
    Case("Gemm", (5, 7), {"transA": 1, "transB": 1}, (real(6, 5), real(6)), False),
    Case("Gemm", (5, 7), {}, (real(7, 6),), False),
    *(Case(op, (3, 40, 17), {"axes": axes, "keepdims": keep}, opset=17)
      for op in ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSumSquare")
      for axes, keep in (([0], 0), ([1], 1), ([2], 0), ([-1, 0], 1), ([0, 1, 2], 0))),
    Case("ReduceSum", (3, 4), {}, (np.array([1]),)),
    Case("GlobalAveragePool", (2, 3, 5)),
    Case("GlobalMaxPool", (2, 3, 5, 2)),
    *(Case("Softmax", (3, 5, 7), {"axis": axis}, opset=o) for axis in (0, 1, -1) for o in (11, 18)),
    Case("LayerNormalization", (3, 4, 7), {"epsilon": 1e-3}, (real(7), real(7))),
    Case("LayerNormalization", (3, 4, 7), {"axis": 1}, (real(4, 7),)),
    Case("BatchNormalization", (3, 4, 7), {}, (real(4), real(4), real(4), np.abs(real(4)))),
    *(Case("Concat", (2, 3, 4), {"axis": axis}, (real(2, 3, 4),), False) for axis in (0, 1, -1)),
    Case("Pad", (3, 4), {}, (np.array([1, 0, 2, 3]), np.float32(2.5))),
    Case("Pad", (3, 7), {"mode": "reflect"}, (np.array([0, 4, 0, 3]),)),
    Case("Tile", (2, 3), {}, (np.array([3, 2]),)),
    Case("ScatterND", (7, 3), {}, (np.array([[2], [3], [4]]), real(3, 3))),
    Case("Reshape", (3, 4), {}, (np.array([6, 2]),)),
    Case("Split", (4, 3), {"num_outputs": 1}),
    *(Case(op, (3, 17, 4)) for op in EXTREMES),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.shape}")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operators(case: Case, dtype: str) -> None:
    x = (3 * np.random.default_rng(1).standard_normal(case.shape[::-1])).astype(dtype)
    if case.op in EXTREMES:
        x.flat[:5] = 0, np.inf, -np.inf, np.nan, 1e-3
    others = {
        f"o{i}": np.asarray(a, dtype if np.asarray(a).dtype.kind == "f" else None)
        for i, a in enumerate(case.others)
    }
    given = {"x": x} | ({} if case.constant else others)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"]),
        helper.make_node("Neg", ["t"], ["n"]),
        helper.make_node(case.op, ["n", *others], ["y"], **case.said),
    ]
    found = graph(nodes, given, ["y"], others if case.constant else {}, case.opset)
    check(found, *given.values())
    assert python_of(found) == []


def branching() -> tuple[Graph, Any]:
    """Shapes that decide on a branch, parts of arrays as outputs, nodes that NumPy runs."""
    inside = [
        helper.make_graph([helper.make_node(op, ["n"], [f"{op}.y"])], op, [],
                          [helper.make_empty_tensor_value_info(f"{op}.y")])
        for op in ("Relu", "Exp")
    ]  # fmt: skip
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Shape", ["n"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Equal", ["rows", "three"], ["is_three"]),
        helper.make_node("If", ["is_three"], ["b"], then_branch=inside[0], else_branch=inside[1]),
        helper.make_node("Split", ["b"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Erf", ["right"], ["e"]),
        helper.make_node("Transpose", ["e"], ["turned"]),
        helper.make_node("Sqrt", ["left"], ["root"]),
        helper.make_node("MatMul", ["root", "turned"], ["y"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    constants = {"zero": np.array(0), "three": np.array(3)}
    outputs = ["y", "left", "turned", "shape", "same", "is_three"]
    inputs = [value("x", np.dtype("f4"), (None, 4))]
    proto = helper.make_graph(
        nodes, "g", inputs, [helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return graph_of(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)])), real


def test_branches_that_shapes_decide_on() -> None:
    found, _ = branching()
    for rows in (3, 5, 3):
        check(found, real(rows, 4))
    runs = list(found._plan._shaped.values())
    for written, others in zip(runs, (["Erf"], ["Exp", "Erf"]), strict=True):
        programs = [step for step in written.steps if isinstance(step.run, _core.Program)]
        assert len(programs) == 1 + len(others)
        names = [step.node.op for step in written.steps if step not in programs]
        assert [name for name in dict.fromkeys(names) if name in ("Exp", "Erf")] == others


def test_arrays_however_they_lie_in_memory() -> None:
    found, _ = branching()
    x = real(3, 4)
    expected = results(found, x)
    check(found, x)
    wide = np.zeros((6, 9), "f4")
    odd = np.frombuffer(b"\0" + x.tobytes(), "u1")[1:].view("f4").reshape(3, 4)
    wide[::2, 1::2] = x
    for same in (np.asfortranarray(x), wide[::2, 1::2], x[::-1].copy()[::-1], odd):
        for a, b in zip(results(found, same), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    locked = x.copy()
    locked.flags.writeable = False
    np.testing.assert_allclose(results(found, locked)[0], expected[0], rtol=1e-5, atol=1e-6)


def test_shapes_that_numbers_decide_on() -> None:
    """As with NonZero: what was recorded is right for the shapes that it had."""
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("NonZero", ["n"], ["places"]),
        helper.make_node("Cast", ["places"], ["c"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    x = np.array([1, 0, 1, 1], "f4")
    found = graph(nodes, {"x": x}, ["y"], {})
    check(found, x)
    assert python_of(found) == ["NonZero", "Cast"]
    other = np.array([0, 0, 1, 0], "f4")
    np.testing.assert_array_equal(found(other), [[-2]])
    np.testing.assert_array_equal(found(x), [[0, -2, -3]])
    check(found, other)


def test_an_error_names_its_node() -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Gather", ["n", "i"], ["g"], name="looked_up"),
        helper.make_node("Neg", ["g"], ["y"]),
    ]
    x, i = real(3, 2), np.array([0, 2])
    found = graph(nodes, {"x": x, "i": i}, ["y"], {})
    check(found, x, i)
    with pytest.raises(ValueError, match="Gather 'looked_up'"):
        found(x, np.array([0, 3]))
    check(found, x, i)


def test_layers_that_change_change_the_graph() -> None:
    layer = lc.GRU(4, 3, seed=0)
    found = graph_of(lc.to_onnx(lc.Sequential(layer, lc.Tanh()), states=True))
    x, h = real(5, 2, 4), real(1, 2, 3)
    check(found, x, h)
    (inside,) = found.values()
    before = results(found, x, h)[0]
    inside.load_state_dict({name: 2 * a for name, a in inside.state_dict().items()})
    after = results(found, x, h)[0]
    assert np.abs(after - before).max() > 1e-3
    layer.load_state_dict(inside.state_dict())
    np.testing.assert_allclose(after, np.tanh(layer(x, h)[0]), rtol=1e-5, atol=1e-6)


def test_only_so_many_shapes_are_kept() -> None:
    found, _ = branching()
    for _ in range(2):
        for rows in range(1, 30):
            for _ in range(2):
                found(real(rows, 4))
    assert len(found._plan._shaped) <= _plan._KEPT
    assert len(found._plan._seen) <= _plan._KEPT


def test_arrays_of_no_size_are_left_to_numpy() -> None:
    found, _ = branching()
    check(found, real(0, 4))
    assert steps_of(found) == []


def test_threads_share_a_graph() -> None:
    found, _ = branching()
    arrays = [real(rows, 4) for rows in (1, 3, 3, 200)]
    expected = [results(branching()[0], x) for x in arrays]
    wrong: list[Any] = []

    def run(place: int) -> None:
        for _ in range(200):
            for a, b in zip(results(found, arrays[place]), expected[place], strict=True):
                if not np.allclose(a, b, rtol=1e-5, atol=1e-5):
                    wrong.append(place)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(arrays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_core_refuses_arrays_of_other_sizes() -> None:
    program = _core.make_program(
        False, [("copy", [3], [(2, 0, [1]), (1, 0, [1])], 0, 0.0, None, None)], 0, [3], [], [[3]],
        [(0, None)],
    )  # fmt: skip
    np.testing.assert_array_equal(program(np.arange(3, dtype="f4")), [0, 1, 2])
    for wrong in (np.zeros(4, "f4"), np.zeros(3), np.zeros(6, "f4")[::2], [1.0, 2.0, 3.0], None):
        with pytest.raises(ValueError, match="x: "):
            program(wrong)
    with pytest.raises(ValueError, match="wrong number"):
        program()
    with pytest.raises(ValueError, match="unknown"):
        _core.make_program(False, [("sing", [3], [], 0, 0.0, None, None)], 0, [], [], [], [])
    with pytest.raises(ValueError, match="outside"):
        _core.make_program(False, [], 0, [], [], [[3]], [(0, (1, [3], [1]))])


def test_loops_run_programs_in_every_trip() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Tanh", ["c"], ["t"]),
            helper.make_node("Add", ["t", "x"], ["next"]),
            helper.make_node("Identity", ["going"], ["again"]),
        ],
        "body",
        [value("i", np.dtype("i8"), ()), value("going", np.dtype("?"), ()),
         value("c", np.dtype("f4"), (2,))],
        [value("again", np.dtype("?"), ()), value("next", np.dtype("f4"), (2,))],
    )  # fmt: skip
    x = real(2)
    nodes = [helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)]
    found = graph(nodes, {"x": x}, ["y"], {"times": np.array(6)})
    expected = x
    for _ in range(6):
        expected = np.tanh(expected) + x
    for _ in range(CALLS):
        np.testing.assert_allclose(found(x), expected, rtol=1e-5, atol=1e-6)
