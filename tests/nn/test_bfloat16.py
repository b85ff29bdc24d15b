"""precision="bfloat16", held to float32 with rounded factors, to the bit, and to the reference.

That a row does not depend on the others, and the like, is tested in test_quantize.py.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from helpers.variants import (
    Cell,
    Options,
    cells,
    reference_forward,
    reference_step,
    stacks,
    states_of,
    train_step,
)
from lstmcore import _core, reference

SIZES = [(1, 1), (3, 5), (8, 16), (13, 33), (64, 100)]
KNOWN = ("weight_ih", "weight_hh", "weight_hr")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rounded(x: np.ndarray) -> np.ndarray:
    """To bfloat16, written down again here: by the neighbours that have no lower half."""
    bits = x.astype(np.float32).view(np.uint32)
    low = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    high = ((bits & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    down = np.abs(x.astype(np.float64) - low)
    up = np.abs(high.astype(np.float64) - x)
    even = (bits >> np.uint32(16)) % 2 == 0
    return np.where((down < up) | ((down == up) & even), low, high)


def pair(kind: str, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """A module in bfloat16, and one in float32 with matrices that are rounded."""
    low = getattr(lc, kind)(*sizes, seed=0, precision="bfloat16", **options)
    exact = getattr(lc, kind)(*sizes, **options)
    state = low.state_dict()
    for name, value in state.items():
        if name.startswith(KNOWN) or name == "weight":
            state[name] = rounded(value)
    exact.load_state_dict(state)
    return low, exact


def assert_same_sums(actual: np.ndarray, expected: np.ndarray) -> None:
    """To the bit, unless AMX multiplies, which adds in an order of its own."""
    if _core.bfloat16_instructions() != "amx":
        assert_same_bits(actual, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(finite.max(initial=0), 1e-38)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * scale)


# ---- Instructions -------------------------------------------------------------------------------


def results_in_hex() -> list[str]:
    """Return what layers of all kinds give, alone, in a batch and in training."""
    found = []
    for layer in (
        lc.RNN(20, 33, seed=0, precision="bfloat16"),
        lc.LSTM(20, 33, seed=0, precision="bfloat16", proj_size=7),
        lc.GRU(20, 33, seed=0, precision="bfloat16"),
        lc.GRU(20, 33, seed=0, precision="bfloat16", reset_after=False),
        lc.Linear(20, 33, seed=0, precision="bfloat16"),
        lc.Linear(1024, 2080, seed=0, precision="bfloat16"),  # more than any cache has for it
    ):
        x = numbers(4, 20, layer.input_size if hasattr(layer, "input_size") else layer.in_features)
        y, *_, tape = layer.forward(x)
        layer.backward(tape, y)
        inferred = (layer(part) for part in (x, x[:, :1]))
        results = [y if isinstance(y, np.ndarray) else y[0] for y in inferred]
        found += [a.tobytes().hex() for a in (y, *results, *(p.grad for p in layer.parameters()))]
    return [hashlib.sha256(text.encode()).hexdigest() for text in found]


def results_by(name: str) -> tuple[str, list[str]]:
    """Return what multiplies in a process that asks for `name`, and results_in_hex() there."""
    script = "import test_bfloat16 as t, lstmcore as lc; print(lc.info()['bfloat16']); "
    done = subprocess.run(
        [sys.executable, "-c", script + "print(*t.results_in_hex())"],
        env={
            **os.environ,
            "LSTMCORE_BFLOAT16": name,
            "PYTHONPATH": os.pathsep.join(str(path) for path in sys.path),
        },
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    unit, *results = done.stdout.split()
    return unit, results


@pytest.fixture(scope="module")
def results_in_float32() -> list[str]:
    unit, results = results_by("float32")
    assert unit == "float32"
    return results


@pytest.mark.parametrize("name", ["widening", "avx512-bf16"])
def test_bits_do_not_depend_on_what_multiplies(name: str, results_in_float32: list[str]) -> None:
    unit, results = results_by(name)
    assert unit in {name, "float32"}  # the latter where the processor lacks the other
    assert results == results_in_float32


def test_who_asks_for_amx_gets_it_or_the_next_best() -> None:
    unit, results = results_by("amx")
    assert unit in {"amx", "avx512-bf16", "float32"}
    assert results == results_by(unit)[1]


def test_a_child_of_a_fork_has_the_same_unit() -> None:
    script = (
        "import os, lstmcore as lc\n"
        "units = [lc.info()[name] for name in ('bfloat16', 'bfloat16x3', 'int8')]\n"
        "child = os.fork()\n"
        "again = [lc.info()[name] for name in ('bfloat16', 'bfloat16x3', 'int8')]\n"
        "if child == 0: os._exit(units != again)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["0"]


# ---- Numbers ------------------------------------------------------------------------------------


def test_the_reference_rounds_as_here() -> None:
    x = np.concatenate([numbers(1000), numbers(1000) * 1e30, numbers(1000) * 1e-38])
    ties = (np.arange(0x3F800000, 0x3F900000, 0x4000, np.uint32)).view(np.float32)
    for values in (x, ties, -ties):
        assert_same_bits(reference.round_bfloat16(values).astype(np.float32), rounded(values))
    odd = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 3.4e38], np.float32)
    assert_same_bits(
        reference.round_bfloat16(odd)[[0, 1, 3, 4, 5]], np.array([np.inf, -np.inf, 0, -0.0, np.inf])
    )
    all_nan = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32)
    assert np.isnan(reference.round_bfloat16(all_nan.view(np.float32))).all()


@pytest.mark.parametrize("sizes", [*SIZES, (64, 255), (201, 48), (8192, 3)])
@pytest.mark.parametrize("rows", [1, 2, 3, 9, 40])
@pytest.mark.usefixtures("isa")
def test_linear_is_float32_with_rounded_factors(sizes: tuple[int, int], rows: int) -> None:
    low, exact = pair("Linear", *sizes)
    x, dy = numbers(rows, sizes[0]), numbers(rows, sizes[1], seed=1)
    assert_same_sums(low(x), exact(rounded(x)))
    y, tape = low.forward(x)
    assert_same_bits(y, low(x))
    dx = low.backward(tape, dy)
    _, tape = exact.forward(rounded(x))
    assert_same_sums(dx, exact.backward(tape, rounded(dy)))
    (dweight, _), (expected, _) = ([p.grad for p in module.parameters()] for module in (low, exact))
    assert_same_bits(dweight, expected)
    exact.zero_grad()
    exact.backward(exact.forward(x)[1], dy)
    assert_same_bits(low.parameters()[1].grad, exact.parameters()[1].grad)


def test_a_sum_of_more_numbers_stays_in_float32() -> None:
    low = lc.Linear(8193, 3, seed=0, precision="bfloat16")
    exact = lc.Linear(8193, 3, seed=0)
    x = numbers(2, 8193)
    assert_same_bits(low(x), exact(x))
    layer = lc.LSTM(8193, 5, seed=0, precision="bfloat16")
    x = numbers(1, 1, 8193)
    assert_same_bits(layer(x)[0], lc.LSTM(8193, 5, seed=0)(x)[0])
    h = rounded(numbers(1, 1, 5))  # of which the products are the only rounded ones
    y, _ = layer(x, (h, h))
    _, exact_lstm = pair("LSTM", 8193, 5)
    state = layer.state_dict()
    exact_lstm.load_state_dict({**state, "weight_hh_l0": rounded(state["weight_hh_l0"])})
    assert_same_sums(y, exact_lstm(x, (h, h))[0])


@pytest.mark.parametrize(
    "cell",
    [("LSTM", {}), ("LSTM", {"proj_size": 40}), ("LSTM", {"layer_norm": True}), ("GRU", {})],
    ids=str,
)
def test_large_batches_are_rounded_part_by_part(cell: Cell) -> None:
    """More and longer rows than are rounded at once: each is as it is in a batch of three."""
    kind, options = cell
    layer = getattr(lc, kind)(300, 130, seed=0, precision="bfloat16", **options)
    x = numbers(3, 150, 300)
    y, *_, tape = layer.forward(x)
    dx, *_ = layer.backward(tape, y)
    assert_same_bits(layer(x)[0], y)
    for rows in (slice(0, 3), slice(62, 65), slice(147, 150)):
        part_y, *_, tape = layer.forward(x[:, rows])
        part_dx, *_ = layer.backward(tape, part_y)
        assert_same_bits(part_y, y[:, rows])
        assert_same_bits(part_dx, dx[:, rows])


@cells
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.usefixtures("isa")
def test_a_step_is_that_of_float32_with_rounded_factors(
    cell: Cell, sizes: tuple[int, int], batch: int
) -> None:
    kind, options = cell
    if options.get("proj_size", 0) >= sizes[1]:
        pytest.skip("proj_size has to be less than hidden_size")
    low, exact = pair(kind, *sizes, **options)
    x = numbers(1, batch, sizes[0])
    state = states_of(low, batch, np.random.default_rng(2))
    h, *c = state
    y, final = low(x, (h, *c) if c else h)
    # What is multiplied is needed as it is, too:
    if kind == "GRU" or {"proj_size", "zoneout"} & set(options):
        expected = reference_forward(low, options, x, state, precision="bfloat16")[0]
        # Where a result is rounded again, an ulp of it may decide between two numbers.
        once = options.get("reset_after", True) and "proj_size" not in options
        np.testing.assert_allclose(y, expected, atol=2e-6 if once else 4e-3)
        return
    expected, exact_final = exact(rounded(x), (rounded(h), *c) if c else rounded(h))
    assert_same_sums(y, expected)
    if c:
        assert_same_sums(final[1], exact_final[1])
    low_y, low_final, _ = low.forward(x, (h, *c) if c else h)  # in training
    assert_same_bits(low_y, y)
    assert_same_bits(low_final[0] if c else low_final, final[0] if c else final)


@cells
@stacks
@pytest.mark.parametrize("sizes", [(1, 1, 3, 5), (4, 9, 5, 33)])
@pytest.mark.usefixtures("isa")
def test_forward_and_backward_follow_the_reference(
    cell: Cell, stack: Options, sizes: tuple[int, ...]
) -> None:
    kind, options = cell
    batch, T, inputs, hidden = sizes
    layer = getattr(lc, kind)(inputs, hidden, seed=3, **options, **stack)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((T, batch, inputs)).astype("f4")
    state = states_of(layer, batch, rng)
    dy = rng.standard_normal((T, batch, layer._features)).astype("f4")
    dstate = states_of(layer, batch, rng)
    more = {"lengths": rng.integers(0, T + 1, batch)} if batch > 1 else {}
    exact = reference_step(layer, {**options, **stack}, x, state, dy, dstate, **more)
    layer.precision = "bfloat16"
    ours = train_step(layer, x, state, dy, dstate, **more)
    low = {"precision": "bfloat16", **more}
    truth = reference_step(layer, {**options, **stack}, x, state, dy, dstate, **low)
    # An ulp of float32 may decide how something is rounded, but rarely does. So the result is far
    # nearer to the reference in bfloat16 than that is to the exact one; but for derivatives that
    # jump, which a small difference may move to the other side.
    jumps = any(name in repr(options) for name in ("clip", "relu", "hard_sigmoid"))
    # Dropout makes larger what it keeps, r * h among it, which is rounded again.
    share = 0.4 if "recurrent_dropout" in options and "reset_after" in options else 0.2
    for mine, true, unrounded in zip(ours, truth, exact, strict=True):
        distance = sum(float(np.square(true[n] - unrounded[n]).sum()) for n in mine) ** 0.5
        error = sum(float(np.square(mine[n] - true[n]).sum()) for n in mine) ** 0.5
        size = sum(float(np.square(true[n]).sum()) for n in mine) ** 0.5
        assert error <= (0.05 * size if jumps else share * distance) + 1e-6 * size
        # With normalised sums the small differences of bfloat16 grow from step to step.
        assert "layer_norm" in options or distance <= 0.3 * size


def assert_threads_train_alike(layer: Any, *given: Any) -> None:
    """Check that outputs and gradients have the same bits with one thread and two."""
    before, results = lc.get_num_threads(), []
    try:
        for count in (1, 2):
            lc.set_num_threads(count)
            results.append(train_step(layer, *given))
    finally:
        lc.set_num_threads(before)
    for one, other in zip(results[0], results[-1], strict=True):
        for name, value in one.items():
            assert_same_bits(value, other[name])


@cells
@pytest.mark.usefixtures("isa")
def test_training_does_not_depend_on_threads(cell: Cell) -> None:
    kind, options = cell
    layer = getattr(lc, kind)(20, 100, seed=3, num_layers=2, precision="bfloat16", **options)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((6, 7, 20)).astype("f4")
    dy = rng.standard_normal((6, 7, layer._features)).astype("f4")
    state, dstate = states_of(layer, 7, rng), states_of(layer, 7, rng)
    assert_threads_train_alike(layer, x, state, dy, dstate)


def test_ids_that_are_looked_up_train_alike() -> None:
    rng = np.random.default_rng(0)
    ids, dy = rng.integers(11, size=(13, 4)), numbers(13, 4, 9)
    model = lc.Sequential(lc.Embedding(11, 6, seed=0), lc.LSTM(6, 9, seed=1))
    model.backward(model.forward(ids)[1], dy)
    of_float32 = {n: p.grad.copy() for n, p in model.named_parameters()}
    model.zero_grad()
    model.precision = "bfloat16"
    model.backward(model.forward(ids)[1], dy)
    for name, p in model.named_parameters():
        scale = np.abs(of_float32[name]).max()
        assert not np.array_equal(p.grad, of_float32[name])
        np.testing.assert_allclose(p.grad, of_float32[name], atol=0.02 * scale)


# ---- Odd numbers --------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("isa")
def test_nan_and_infinity_go_where_they_go_in_float32(cell: Cell, wrong: float) -> None:
    kind, options = cell
    low, exact = pair(kind, 5, 7, **options)
    x = numbers(4, 3, 5)
    x[2, 1, 3] = wrong
    y, expected = low(x)[0], exact(x)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(y[np.isinf(expected)], expected[np.isinf(expected)])
    weights = low.state_dict()
    weights["weight_hh_l0"][2, 0] = wrong
    for layer in (low, exact):
        layer.load_state_dict(weights)
    y, expected = low(numbers(4, 3, 5))[0], exact(numbers(4, 3, 5))[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))


@pytest.mark.usefixtures("isa")
def test_huge_tiny_and_subnormal_numbers() -> None:
    low, exact = pair("Linear", 5, 3)
    for value in (0.0, -0.0, 1e-42, 1e-35, 1e30, 3e38):
        x = numbers(2, 5)
        x[0, 2] = x[1, 4] = value
        assert_same_sums(low(x), exact(rounded(x)))
    largest = np.zeros((1, 5), "f4")
    largest[0, 0] = np.finfo("f4").max  # rounded, it is infinite
    y, expected = low(largest), np.sign(low.state_dict()["weight"][:, 0]) * np.inf
    np.testing.assert_array_equal(y[0], expected)


# ---- The attribute, files, errors ---------------------------------------------------------------


def model() -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(7, 40, num_layers=2, seed=0), lc.LayerNorm(40), lc.Tanh(), lc.Linear(40, 3, seed=1)
    )


def test_it_can_be_set_and_set_back() -> None:
    net, x = model(), numbers(6, 2, 7)
    exact, before = net(x), net.state_dict()
    assert net.precision == net[0].precision == "float32"
    net.precision = "bfloat16"
    assert [m.precision for m in (net, net[0], net[3])] == ["bfloat16"] * 3
    y = net(x)
    assert not np.array_equal(y, exact)
    np.testing.assert_allclose(y, exact, atol=0.01)
    for name, value in net.state_dict().items():
        assert_same_bits(value, before[name])
    net[3].precision = "float32"
    assert net.precision == "mixed"
    assert "GRU(7, 40, num_layers=2, precision='bfloat16')" in repr(net)
    net.precision = "float32"
    assert net == model()
    assert_same_bits(net(x), exact)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (5, 3)])
def test_an_embedding_gives_rounded_rows(shape: tuple[int, ...]) -> None:
    exact = lc.Embedding(6, 5, seed=0)
    low = lc.Embedding(6, 5, seed=0, precision="bfloat16")
    ids = np.random.default_rng(1).integers(6, size=shape)
    y, tape = low.forward(ids)
    expected = lc.reference.round_bfloat16(exact.state_dict()["weight"])[ids]
    assert_same_bits(y, expected.astype("f4"))
    assert_same_bits(low(ids), y)
    dy = numbers(*y.shape)
    low.backward(tape, dy)
    exact.backward(exact.forward(ids)[1], dy)  # the gradient of the table is not rounded
    assert_same_bits(low.parameters()[0].grad, exact.parameters()[0].grad)
    assert low.state_dict()["weight"].dtype == np.float32
    low.precision = "float32"
    assert low == exact


def test_a_table_in_bfloat16_changes_no_bit_of_a_layer_in_bfloat16(tmp_path: Path) -> None:
    net = lc.Sequential(lc.Embedding(9, 4, seed=0), lc.LSTM(4, 6, seed=1), lc.Linear(6, 2, seed=2))
    net[1].precision = net[2].precision = "bfloat16"
    assert net.precision == "mixed"
    ids = np.random.default_rng(0).integers(9, size=(20, 3))
    expected = net(ids)
    net.precision = "bfloat16"
    assert net[0].precision == "bfloat16"
    assert_same_bits(net(ids), expected)
    lc.save(net, tmp_path / "net.safetensors")
    assert lc.load(tmp_path / "net.safetensors") == net


def test_a_stream_made_after_a_change_has_the_new_precision() -> None:
    net, x = model(), numbers(6, 2, 7)
    before = net.stream(2)  # which shares its copies of the modules with others
    exact = net(x)
    net.precision = "bfloat16"
    assert not np.array_equal(net(x), exact)
    assert_same_bits(net.stream(2).process(x), net(x))
    assert_same_bits(before.process(x), exact)


def test_networks_of_any_shape_have_it() -> None:
    x = lc.Input(4)
    y, h = lc.GRU(4, 8, seed=0)(x)
    net = lc.Model(x, [lc.Linear(8, 2, seed=1)(y), lc.Linear(8, 2, seed=2)(h[-1])])
    net.precision = "bfloat16"
    assert net.precision == "bfloat16"
    own = lc.GRU(4, 8, seed=0, precision="bfloat16")
    rows = numbers(5, 3, 4)
    head = lc.Linear(8, 2, seed=1, precision="bfloat16")
    assert_same_bits(net(rows)[0], head(own(rows)[0]))


def test_a_tape_keeps_the_precision_it_was_made_in() -> None:
    layer, x = lc.LSTM(3, 5, seed=0, precision="bfloat16"), numbers(4, 2, 3)
    y, _, tape = layer.forward(x)
    expected, _ = layer.backward(tape, np.ones_like(y))
    y, _, tape = layer.forward(x)
    layer.precision = "float32"
    assert_same_bits(layer.backward(tape, np.ones_like(y))[0], expected)


def test_copies_pickles_and_files_keep_it(tmp_path: Path) -> None:
    low, x = model(), numbers(6, 2, 7)
    low.precision = "bfloat16"
    assert low != model()
    y = low(x)
    lc.save(low, tmp_path / "model.safetensors")
    loaded = lc.load(tmp_path / "model.safetensors")
    for other in (copy.deepcopy(low), pickle.loads(pickle.dumps(low)), loaded):
        assert other == low
        assert other.precision == "bfloat16"
        assert_same_bits(other(x), y)
    lc.save(model(), tmp_path / "exact.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("model", "exact")]
    assert abs(sizes[0] - sizes[1]) < 100  # the parameters are float32
    assert b"precision" not in (tmp_path / "exact.safetensors").read_bytes()


def test_what_is_quantised_afterwards_is_in_int8() -> None:
    low, x = model(), numbers(6, 2, 7)
    low.precision = "bfloat16"
    small = lc.quantize(low)
    assert small == lc.quantize(model())
    assert_same_bits(small(x), lc.quantize(model())(x))
    with pytest.raises(TypeError, match=r"is in int8, expected the model that it was made of"):
        small.precision = "bfloat16"


def test_bad_input_is_refused_by_name() -> None:
    for kind, sizes in (("RNN", (3, 5)), ("LSTMCell", (3, 5)), ("Linear", (3, 5))):
        make = getattr(lc, kind)
        with pytest.raises(ValueError, match="precision is 'bf16', expected one of 'float32'"):
            make(*sizes, precision="bf16")
        with pytest.raises(ValueError, match="precision is 'int8', which lstmcore"):
            make(*sizes, precision="int8")
        with pytest.raises(TypeError, match=r"precision is 16 \(int\)"):
            make(*sizes, precision=16)
        with pytest.raises(
            ValueError, match="precision is 'bfloat16', which needs dtype='float32'"
        ):
            make(*sizes, precision="bfloat16", dtype="float64")
        double = make(*sizes, dtype="float64")
        assert double.precision == "float64"
        with pytest.raises(ValueError, match="which needs dtype='float32', not float64"):
            double.precision = "bfloat16"
        double.precision = "float64"
        single = make(*sizes)
        with pytest.raises(ValueError, match="precision is 'half'"):
            single.precision = "half"
        assert single.precision == "float32"
    with pytest.raises(ValueError, match="it has no recurrent layer, Linear or Embedding"):
        lc.Sequential(lc.Tanh()).precision = "bfloat16"
    net = lc.Sequential(lc.GRU(3, 4), lc.Linear(4, 2))
    net._children["1"] = lc.quantize(lc.Linear(4, 2))
    with pytest.raises(TypeError, match="is in int8"):
        net.precision = "bfloat16"
    assert net[0].precision == "float32"  # none is changed where one refuses
    with pytest.raises(AttributeError, match="no precision to be set"):
        lc.Conv1D(3, 4, 2).precision = "bfloat16"


# ---- Of three parts -----------------------------------------------------------------------------


def multiplies_parts() -> bool:
    return _core.bfloat16x3_instructions() == "amx"


def relative_error(ours: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """Of arrays, each in the mean of its numbers: a few small sums are hit by chance."""
    squares = [np.square(ours[n] - x).mean() / np.square(x).mean() for n, x in truth.items()]
    return float(np.sqrt(np.mean(squares)))


@cells
@pytest.mark.parametrize("sizes", [(4, 3, 5, 9), (3, 19, 40, 70)])
@pytest.mark.usefixtures("isa")
def test_bfloat16x3_is_as_accurate_as_float32(cell: Cell, sizes: tuple[int, ...]) -> None:
    kind, options = cell
    T, batch, inputs, hidden = sizes
    layer = getattr(lc, kind)(inputs, hidden, num_layers=2, seed=3, **options)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((T, batch, inputs)).astype("f4")
    state, dstate = states_of(layer, batch, rng), states_of(layer, batch, rng)
    dy = rng.standard_normal((T, batch, layer._features)).astype("f4")
    all_options = {**options, "num_layers": 2}
    truth = reference_step(layer, all_options, x, state, dy, dstate)
    results = []
    for precision in ("float32", "bfloat16x3"):
        layer.precision = precision
        results.append(train_step(layer, x, state, dy, dstate))
    for exact, ours, true in zip(*results, truth, strict=True):
        if not multiplies_parts():
            for name, value in exact.items():
                assert_same_bits(ours[name], value)
        assert relative_error(ours, true) <= 2 * relative_error(exact, true) + 2e-7
    low = reference_step(layer, all_options, x, state, dy, dstate, precision="bfloat16x3")
    for ours, true in zip(low, truth, strict=True):
        for name, value in ours.items():
            assert_close_to_scale(value, true[name], 1e-6)


def assert_close_to_scale(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    scale = np.abs(expected).max() if expected.size else 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("rows", [1, 2, 17, 40])
@pytest.mark.parametrize("sizes", [(1, 1), (33, 70), (600, 20), (5121, 3)])
@pytest.mark.usefixtures("isa")
def test_linear_in_parts_is_as_accurate_as_float32(rows: int, sizes: tuple[int, int]) -> None:
    exact, low = lc.Linear(*sizes, seed=0), lc.Linear(*sizes, seed=0, precision="bfloat16x3")
    x, dy = numbers(rows, sizes[0]), numbers(rows, sizes[1], seed=1)
    W, b = (p.data.astype("f8") for p in exact.parameters())
    truth = (x @ W.T + b, dy @ W, dy.T.astype("f8") @ x)
    errors = []
    for module in (exact, low):
        y, tape = module.forward(x)
        assert_same_bits(module(x), y)
        assert_same_bits(module(x[-1:]), y[-1:])
        results = (y, module.backward(tape, dy), module.parameters()[0].grad)
        errors.append([np.abs(a - t).max() / np.abs(t).max() for a, t in zip(results, truth)])
    for ours, of_float32 in zip(errors[1], errors[0], strict=True):
        assert ours <= 2 * of_float32 + 1e-7
    if sizes[0] > 5120 or not multiplies_parts():
        assert_same_bits(low(x), exact(x))
    else:
        assert sizes == (1, 1) or not np.array_equal(low(x), exact(x))


@cells
@pytest.mark.usefixtures("isa")
def test_rows_steps_and_threads_change_no_bit_of_parts(cell: Cell) -> None:
    kind, options = cell
    layer = getattr(lc, kind)(20, 70, seed=3, precision="bfloat16x3", **options)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((6, 35, 20)).astype("f4")
    state, dstate = states_of(layer, 35, rng), states_of(layer, 35, rng)
    dy = rng.standard_normal((6, 35, layer._features)).astype("f4")
    assert_threads_train_alike(layer, x, state, dy, dstate)
    y = layer(x)[0]
    for rows in (slice(0, 1), slice(16, 19), slice(34, 35)):
        assert_same_bits(layer(x[:, rows])[0], y[:, rows])
    assert_same_bits(layer.stream(35).process(x), y)
    stream = layer.stream(1)
    assert_same_bits(np.stack([stream.step(x[t, 7:8]) for t in range(6)]), y[:, 7:8])


@cells
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3.4e38])
@pytest.mark.usefixtures("isa")
def test_parts_of_nan_and_infinity_go_where_they_go_in_float32(cell: Cell, wrong: float) -> None:
    kind, options = cell
    exact = getattr(lc, kind)(5, 7, seed=0, **options)
    low = getattr(lc, kind)(5, 7, seed=0, precision="bfloat16x3", **options)
    x = numbers(4, 3, 5)
    x[2, 1, 3] = wrong
    y, expected = low(x)[0], exact(x)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(y[np.isinf(expected)], expected[np.isinf(expected)])
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
    if np.isfinite(wrong):
        return  # products far beyond the largest float may be NaN
    weights = low.state_dict()
    weights["weight_hh_l0"][2, 0] = wrong
    for layer in (low, exact):
        layer.load_state_dict(weights)
    y, expected = low(numbers(4, 3, 5))[0], exact(numbers(4, 3, 5))[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))


def test_the_reference_of_parts_is_almost_exact() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((7, 40)), rng.standard_normal((40, 9))
    product = reference._product_of_parts(x, w)
    assert np.abs(product - x @ w).max() <= 2.0**-23 * (np.abs(x) @ np.abs(w)).max()
    assert not np.array_equal(product, x @ w)
    odd = np.array([np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-30, 0.0], np.float32)
    np.testing.assert_array_equal(sum(reference._parts(odd.astype("f8"))), odd)


def test_bfloat16x3_is_kept(tmp_path: Path) -> None:
    net, x = model(), numbers(6, 2, 7)
    of_float32 = net(x)
    net.precision = "bfloat16x3"
    exact = net(x)
    np.testing.assert_allclose(exact, of_float32, atol=1e-6)
    assert [m.precision for m in (net, net[0], net[3])] == ["bfloat16x3"] * 3
    lc.save(net, tmp_path / "model.safetensors")
    loaded = lc.load(tmp_path / "model.safetensors")
    for other in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded):
        assert other == net
        assert other != model()
        assert other.precision == "bfloat16x3"
        assert_same_bits(other(x), exact)
        assert_same_bits(other.stream(2).process(x), exact)
    assert lc.quantize(net) == lc.quantize(model())
    net.precision = "bfloat16"
    assert not np.array_equal(net(x), exact)


def test_bfloat16x3_is_refused_in_float64() -> None:
    for kind, sizes in (("RNN", (3, 5)), ("LSTMCell", (3, 5)), ("Linear", (3, 5))):
        with pytest.raises(ValueError, match="'bfloat16x3', which needs dtype='float32'"):
            getattr(lc, kind)(*sizes, precision="bfloat16x3", dtype="float64")
        with pytest.raises(ValueError, match="'bfloat16x3', which needs dtype='float32'"):
            getattr(lc, kind)(*sizes, dtype="float64").precision = "bfloat16x3"


def test_reference_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="precision is 'half'"):
        reference.gru_forward(np.ones((1, 1, 1)), None, {}, precision="half")


def test_exporters_write_the_parameters_as_they_are(tmp_path: Path) -> None:
    onnx = require("onnx")
    low = lc.Sequential(lc.LSTM(3, 5, seed=0), lc.Linear(5, 2, seed=1))
    lc.to_onnx(low, tmp_path / "exact.onnx")
    low.precision = "bfloat16"
    lc.to_onnx(low, tmp_path / "low.onnx")
    graphs = [onnx.load(tmp_path / f"{name}.onnx").graph for name in ("low", "exact")]
    assert graphs[0] == graphs[1]
    assert lc.from_onnx(tmp_path / "low.onnx") == low  # what the file says beside the graph


def test_pytorch_gets_the_parameters_as_they_are() -> None:
    require("torch")
    low, x = lc.GRU(3, 5, seed=0, precision="bfloat16"), numbers(4, 2, 3)
    exact = lc.from_torch(lc.to_torch(low))
    assert exact == lc.GRU(3, 5, seed=0)
    assert not np.array_equal(exact(x)[0], low(x)[0])
