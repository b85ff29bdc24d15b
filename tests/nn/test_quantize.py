"""quantize: int8 weights in recurrent layers, cells, Linear, Embedding, held to the reference.

What is promised of bits is promised of bfloat16, too: those tests run for both.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from helpers.variants import (
    CELLS,
    STACKS,
    Cell,
    Options,
    cells,
    name_of,
    reference_forward,
    stacks,
)
from lstmcore import _core
from lstmcore._files import tensor_file
from lstmcore._files.source import opened

SIZES = [(1, 1), (3, 5), (8, 16), (13, 33), (64, 100)]


def rounded_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows as whole numbers and their scales, written down again here.

    Those of a row without a negative number are 127 larger than the int8 that is multiplied.
    """
    most = np.abs(x).max(axis=-1, keepdims=True).astype(np.float32)
    steps = np.where(x.min(axis=-1, keepdims=True) < 0, np.float32(127), np.float32(254))
    factor = steps / np.where(most > 0, most, np.float32(1))
    return np.rint(x * factor), most / steps


def layer_of(cell: Cell, sizes: tuple[int, int] = (7, 12), **options: Any) -> Any:
    kind, own = cell
    return getattr(lc, kind)(*sizes, seed=0, **own, **options)


def in_bfloat16(model: Any) -> Any:
    """Return a copy in bfloat16."""
    model = copy.deepcopy(model)
    model.precision = "bfloat16"
    return model


Lowered = Callable[[Any], Any]
both = pytest.mark.parametrize("lowered", [lc.quantize, in_bfloat16], ids=["int8", "bfloat16"])


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def state_of(layer: Any, batch: int) -> Any:
    h = numbers(layer.num_layers * (1 + layer.bidirectional), batch, layer._outputs, seed=3)
    c = numbers(*h.shape[:2], layer.hidden_size, seed=4)
    return (0.5 * h, c) if isinstance(layer, lc.LSTM) else 0.5 * h


# ---- Instructions -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "vnni", "amx"])
def test_bits_do_not_depend_on_what_multiplies(name: str) -> None:
    script = (
        "import numpy as np, lstmcore as lc; small = lc.quantize(lc.GRU(70, 33, seed=0)); "
        "x = np.random.default_rng(0).standard_normal((9, 5, 70)).astype('f4'); "
        "print(lc.info()['int8'], small(x)[0].tobytes().hex(), small(x[:, :1])[0].tobytes().hex())"
    )
    environment = {**os.environ, "LSTMCORE_INT8": name}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    unit, *results = done.stdout.split()
    names = ["plain", "vnni", "amx"]
    assert unit in names[: names.index(name) + 1]  # the best of those that are there
    small, x = lc.quantize(lc.GRU(70, 33, seed=0)), numbers(9, 5, 70)
    assert results == [small(part)[0].tobytes().hex() for part in (x, x[:, :1])]


def test_an_unknown_name_of_what_multiplies_is_refused() -> None:
    script = "import lstmcore as lc; print(lc.info())"
    environment = {**os.environ, "LSTMCORE_INT8": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "LSTMCORE_INT8 is 'nonsense', expected plain, vnni or amx" in done.stderr


# ---- Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.usefixtures("isa")
def test_linear_is_the_sum_of_whole_numbers(sizes: tuple[int, int]) -> None:
    exact = lc.Linear(*sizes, seed=0)
    linear = lc.quantize(exact)
    x = numbers(9, sizes[0])
    x[::2] = np.maximum(x[::2], -0.0)  # no negative number, zeros of both signs
    weight, scale, bias = linear.state_dict().values()
    assert weight.dtype == np.int8
    assert np.abs(weight).max(axis=1).tolist() == [127] * sizes[1]
    largest = np.abs(exact.state_dict()["weight"]).max(axis=1)
    np.testing.assert_allclose(scale * 127, largest, rtol=1e-6)
    values, rows = rounded_rows(x)
    sums = (values @ weight.T.astype(np.float64)).astype(np.float32)
    expected = sums.astype(np.float64) * (rows * scale).astype(np.float64) + bias
    np.testing.assert_allclose(linear(x), expected, rtol=2e-7, atol=2e-7)


def single_step_options(options: Options) -> bool:
    """Whether what is rounded in a step is what the step is given, and no result of it."""
    return options.get("reset_after", True) and not options.get("proj_size")


@cells
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.usefixtures("isa")
def test_steps_of_all_variants_are_those_of_the_reference(
    cell: Cell, sizes: tuple[int, int]
) -> None:
    kind, options = cell
    if options.get("proj_size", 0) >= sizes[1]:
        pytest.skip("proj_size has to be less than hidden_size")
    layer = lc.quantize(layer_of(cell, sizes))
    x, state = numbers(1, 6, sizes[0]), state_of(layer, 6)
    y, final = layer(x, state)
    given = state if isinstance(state, tuple) else (state,)
    expected, *expected_final, _ = reference_forward(layer, options, x, given)
    # Where a result is rounded again, an ulp of it may decide between two whole numbers.
    atol = 1e-6 if single_step_options(options) else 0.02
    np.testing.assert_allclose(y, expected, atol=atol)
    if kind == "LSTM":
        np.testing.assert_allclose(final[1], np.asarray(expected_final[0][1]), atol=2e-6)


@cells
@stacks
@pytest.mark.usefixtures("isa")
def test_errors_of_all_variants_are_small(cell: Cell, stack: Options) -> None:
    layer = layer_of(cell, **stack)
    # Layer normalisation makes weights as small as these count as much as large ones, so that over
    # many steps any difference grows, whatever it comes from.
    x = numbers(1 if "layer_norm" in cell[1] else 20, 5, 7)
    exact, _ = layer(x)
    assert np.abs(lc.quantize(layer)(x)[0] - exact).max() < 0.03 * max(1, np.abs(exact).max())


# ---- Bits ---------------------------------------------------------------------------------------


@both
@cells
@stacks
@pytest.mark.usefixtures("isa")
def test_a_row_does_not_depend_on_the_others(cell: Cell, stack: Options, lowered: Lowered) -> None:
    layer = lowered(layer_of(cell, (7, 37), **stack))
    x, lengths = numbers(11, 70, 7), np.arange(70) % 12
    x[:, 1] *= 1000  # its scale is its own
    state = state_of(layer, 70)
    y, final = layer(x, state, lengths=lengths)
    for b in (0, 1, 11, 69):
        one = slice(b, b + 1)
        parts = state if isinstance(state, tuple) else (state,)
        own: Any = tuple(np.ascontiguousarray(s[:, one]) for s in parts)
        own = own if isinstance(state, tuple) else own[0]
        alone, alone_final = layer(x[: lengths[b], one], own)
        assert_same_bits(y[: lengths[b], one], alone)
        assert not y[lengths[b] :, one].any()
        ends = final if isinstance(final, tuple) else (final,)
        alone_ends = alone_final if isinstance(alone_final, tuple) else (alone_final,)
        for all_ends, own_end in zip(ends, alone_ends, strict=True):
            assert_same_bits(all_ends[:, one], own_end)


@both
@cells
@pytest.mark.usefixtures("isa")
def test_streams_and_chunks_give_the_same_bits(cell: Cell, lowered: Lowered) -> None:
    layer = lowered(layer_of(cell, (7, 37), num_layers=2))
    x = numbers(9, 3, 7)
    y, _ = layer(x)
    first, state = layer(x[:4])
    rest, _ = layer(x[4:], state)
    assert_same_bits(np.concatenate([first, rest]), y)
    stream = layer.stream(3)
    assert_same_bits(np.stack([stream.step(frame) for frame in x]), y)
    assert_same_bits(layer.stream(3).process(x), y)
    alone = layer.stream()
    assert_same_bits(np.stack([alone.step(frame[0]) for frame in x]), y[:, 0])


@both
@cells
def test_threads_change_no_bit(cell: Cell, lowered: Lowered) -> None:
    layer = lowered(layer_of(cell, (64, 300)))
    x, few = numbers(6, 70, 64), numbers(6, 1, 64)
    before, results = lc.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            _core.set_num_threads(count, exactly=True)
            results.append((layer(x)[0], layer(few)[0]))
    finally:
        lc.set_num_threads(before)
    for y, y_few in results:
        assert_same_bits(y, results[0][0])
        assert_same_bits(y_few, results[0][1])


@both
@cells
def test_levels_with_fused_multiply_add_give_the_same_bits(cell: Cell, lowered: Lowered) -> None:
    layer = lowered(layer_of(cell, (13, 33)))
    x, results = numbers(9, 5, 13), []
    before = lc.isa()
    try:
        for isa in lc.available_isas():
            if isa != "x86-64-v2":
                lc.set_isa(isa)
                results.append(layer(x)[0])
    finally:
        lc.set_isa(before)
    for y in results:
        assert_same_bits(y, results[0])


@both
def test_resets_begin_anew(lowered: Lowered) -> None:
    layer = lowered(lc.GRU(3, 5, seed=0))
    x = numbers(8, 1, 3)
    resets = np.zeros((8, 1), bool)
    resets[5] = True
    y, _ = layer(x, resets=resets)
    assert_same_bits(y[5:], layer(x[5:])[0])


@both
@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_are_their_layers(kind: str, lowered: Lowered) -> None:
    cell = getattr(lc, kind)(3, 5, seed=0)
    layer = getattr(lc, kind[:-4])(3, 5)
    layer.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items()})
    x = numbers(4, 3)
    state = lowered(cell)(x)
    h = state[0] if isinstance(state, tuple) else state
    assert_same_bits(h, lowered(layer)(x[None])[0][0])


@both
def test_ids_that_are_looked_up_give_the_same_bits(lowered: Lowered) -> None:
    embedding = lc.Embedding(11, 6, seed=0)
    layer = lowered(lc.LSTM(6, 9, seed=1))
    ids = np.random.default_rng(0).integers(11, size=(13, 4))
    model = lc.Sequential(embedding, layer)
    assert_same_bits(model(ids), layer(embedding(ids))[0])


@pytest.mark.parametrize("sizes", SIZES)
def test_an_embedding_gives_whole_numbers_times_the_scale_of_their_row(
    sizes: tuple[int, int],
) -> None:
    exact = lc.Embedding(*sizes, seed=0)
    small = lc.quantize(exact)
    weight, scale = small.state_dict().values()
    assert weight.dtype == np.int8
    assert np.abs(weight).max(axis=1).tolist() == [127] * sizes[0]
    table = exact.state_dict()["weight"]
    np.testing.assert_allclose(scale * 127, np.abs(table).max(axis=1), rtol=1e-6)
    for shape in [(), (0,), (4,), (5, 3)]:
        ids = np.random.default_rng(1).integers(sizes[0], size=shape)
        y = small(ids)
        assert y.dtype == np.float32
        assert_same_bits(y, weight.astype("f4")[ids] * scale[ids][..., None])
        np.testing.assert_allclose(y, table[ids], atol=0.501 * float(scale.max()))


@pytest.mark.usefixtures("isa")
def test_a_table_in_int8_adds_no_error_before_a_layer_in_int8() -> None:
    embedding = lc.Embedding(50, 24, seed=0)
    layer = lc.quantize(lc.LSTM(24, 9, seed=1))
    ids = np.random.default_rng(0).integers(50, size=(13, 4))
    values, scale = rounded_rows(lc.quantize(embedding)(ids))
    expected, expected_scale = rounded_rows(embedding(ids))
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(scale, expected_scale, rtol=3e-7)
    np.testing.assert_allclose(
        layer(lc.quantize(embedding)(ids))[0], layer(embedding(ids))[0], atol=2e-6
    )


def test_odd_rows_of_a_table() -> None:
    embedding = lc.Embedding(6, 5, padding_idx=0, sparse=True, seed=0)
    table = embedding.state_dict()["weight"]
    table[1] = [1e30, 1, -1, 2, 3]
    table[2] = 1e-42  # subnormal
    embedding.load_state_dict({"weight": table})
    y = lc.quantize(embedding)(np.arange(6))
    assert not y[0].any()
    np.testing.assert_allclose(y[1], [1e30, 0, 0, 0, 0], rtol=1e-6)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y[3:], table[3:], atol=0.02)
    for wrong in (np.nan, np.inf):
        table[4, 2] = wrong
        embedding.load_state_dict({"weight": table})
        with pytest.raises(ValueError, match="weight of module 0 holds NaN or infinity"):
            lc.quantize(lc.Sequential(embedding, lc.Linear(5, 2)))


@both
def test_streams_pools_and_rows_of_models_with_ids(lowered: Lowered) -> None:
    model = lowered(
        lc.Sequential(lc.Embedding(11, 6, seed=0), lc.GRU(6, 9, seed=1), lc.Linear(9, 3, seed=2))
    )
    ids = np.random.default_rng(0).integers(11, size=(40, 4))
    y = model(ids)
    assert_same_bits(model(ids[:, 1:2]), y[:, 1:2])
    assert_same_bits(model.stream(4).process(ids), y)
    pool = model.stream_pool(4)
    streams = [pool.open() for _ in range(4)]
    for row, expected in zip(ids, y, strict=True):
        assert_same_bits(pool.step(streams[1:], row[1:]), expected[1:])
    lengths = np.array([40, 7, 0, 21])
    padded = model(ids, lengths=lengths)
    for b, length in enumerate(lengths):
        assert_same_bits(padded[:length, b], y[:length, b])


def test_what_is_tied_is_tied_in_int8(tmp_path: Path) -> None:
    embedding = lc.Embedding(11, 6, seed=0)
    other = lc.GRU(6, 6, seed=3)
    layer = lc.GRU(6, 6, seed=1).tie("weight_hh_l0", other).tie("bias_hh_l0", other)
    head = lc.Linear(6, 11, seed=2).tie("weight", embedding)
    small = lc.quantize(lc.Sequential(embedding, other, layer, head))
    names = [name for name, _ in small.named_parameters()]
    assert "0.weight_scale" in names
    gone = {"3.weight", "3.weight_scale", "2.weight_hh_l0", "2.weight_hh_l0_scale"}
    assert not (gone | {"2.bias_hh_l0"}) & set(names)
    ids = np.random.default_rng(0).integers(11, size=(9, 2))
    y = lc.quantize(embedding)(ids)
    for part in (other, layer):  # as each alone
        y, _ = lc.quantize(part)(y)
    assert_same_bits(small(ids), lc.quantize(head)(y))
    y = small(ids)
    lc.save(small, tmp_path / "small.safetensors")
    loaded = lc.load(tmp_path / "small.safetensors")
    for copied in (loaded, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert copied == small
        assert [name for name, _ in copied.named_parameters()] == names
        assert_same_bits(copied(ids), y)
    state = small.state_dict()
    state["0.weight"] = -state["0.weight"]
    loaded.load_state_dict(state)
    np.testing.assert_array_equal(loaded[0](ids), -small[0](ids))
    assert_same_bits(loaded[3]._parameters["weight"].data, -small[3]._parameters["weight"].data)


# ---- Odd numbers --------------------------------------------------------------------------------


@pytest.mark.usefixtures("isa")
def test_rows_of_zeros_huge_and_tiny_numbers() -> None:
    linear = lc.Linear(5, 3, seed=0)
    small, bias = lc.quantize(linear), linear.state_dict()["bias"]
    assert_same_bits(small(np.zeros((1, 5), "f4")), bias[None])
    assert_same_bits(small(np.full((1, 5), 1e-42, "f4")), bias[None])  # subnormal
    assert_same_bits(small(np.full((1, 5), 1e-35, "f4")), bias[None])
    huge = np.array([[1e30, 1, -1, 2, 3]], "f4")
    only = np.array([[1e30, 0, 0, 0, 0]], "f4")
    assert_same_bits(small(huge), small(only))
    assert np.isfinite(small(np.array([[3e38, -3e38, 1, 0, 0]], "f4"))).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("isa")
def test_a_row_with_nan_or_infinity_gives_nan_and_no_other_does(wrong: float) -> None:
    layer = lc.quantize(lc.LSTM(5, 7, seed=0))
    x = numbers(4, 3, 5)
    expected, _ = layer(x)
    x[2, 1, 3] = wrong
    y, _ = layer(x)
    assert np.isnan(y[2:, 1]).all()
    assert_same_bits(y[:2], expected[:2])
    assert_same_bits(y[:, [0, 2]], expected[:, [0, 2]])


@both
def test_empty_calls(lowered: Lowered) -> None:
    model = lowered(lc.LSTM(5, 7, seed=0))
    assert model(np.zeros((0, 3, 5), "f4"))[0].shape == (0, 3, 7)
    assert model(np.zeros((3, 0, 5), "f4"))[0].shape == (3, 0, 7)
    assert lowered(lc.Linear(5, 7))(np.zeros((0, 5), "f4")).shape == (0, 7)


def test_a_row_of_zeros_in_a_matrix() -> None:
    linear = lc.Linear(5, 3, seed=0)
    state = linear.state_dict()
    state["weight"][1] = 0
    linear.load_state_dict(state)
    y = lc.quantize(linear)(numbers(4, 5))
    assert_same_bits(y[:, 1], np.repeat(state["bias"][1], 4))


def test_the_widest_matrix() -> None:
    linear = lc.Linear(32768, 2, seed=0)
    x = numbers(3, 32768)
    np.testing.assert_allclose(lc.quantize(linear)(x), linear(x), atol=0.05)
    x[:] = 1  # the largest sum that there can be
    state = linear.state_dict()
    state["weight"][:] = 1
    linear.load_state_dict(state)
    np.testing.assert_allclose(lc.quantize(linear)(x), linear(x), rtol=1e-5)


# ---- Models, files, errors ----------------------------------------------------------------------


def model() -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(7, 40, num_layers=2, seed=0), lc.LayerNorm(40), lc.Tanh(), lc.Linear(40, 3, seed=1)
    )


def test_the_model_given_is_not_changed() -> None:
    exact = model()
    before = copy.deepcopy(exact)
    small = lc.quantize(exact)
    assert exact == before
    assert small != exact
    assert exact[0].precision == "float32"
    assert [m.precision for m in (small[0], small[3])] == ["int8", "int8"]
    assert lc.quantize(small) == small


def test_copies_pickles_and_files_are_equal(tmp_path: Path) -> None:
    small, x = lc.quantize(model()), numbers(6, 2, 7)
    y = small(x)
    lc.save(small, tmp_path / "small.safetensors")
    loaded = lc.load(tmp_path / "small.safetensors")
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), loaded):
        assert other == small
        assert_same_bits(other(x), y)
        assert not any(p.trainable for p in (*other[0].parameters(), *other[3].parameters()))
    for exact in (lc.LSTM(256, 256), lc.Embedding(1000, 256)):
        lc.save(lc.quantize(exact), tmp_path / "small.safetensors")
        lc.save(exact, tmp_path / "exact.safetensors")
        sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("small", "exact")]
        assert sizes[0] < 0.26 * sizes[1]


def test_a_file_may_not_make_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    lc.save(lc.quantize(lc.Linear(30, 30)), path)
    with opened(path) as source:
        arrays, metadata = tensor_file.view(source)
    arrays = {name: np.array(array) for name, array in arrays.items()}
    text = metadata["lstmcore.model"]
    for old, new, message in (
        ('"in_features": 30', '"in_features": 99', "larger than its parameters"),
        ('"precision": "int8"', '"precision": "int4"', "precision is 'int4', expected one of"),
    ):
        assert old in text
        tensor_file.write(path, arrays, {"lstmcore.model": text.replace(old, new)})
        with pytest.raises(ValueError, match=message):
            lc.load(path)


def test_training_is_refused_and_changes_nothing() -> None:
    small = lc.quantize(lc.LSTM(3, 5, seed=0))
    before = small.state_dict()
    with pytest.raises(TypeError, match=r"in int8, for inference alone: training"):
        small.forward(numbers(4, 2, 3))
    with pytest.raises(TypeError, match=r"in int8, for inference alone: training"):
        lc.quantize(lc.Linear(3, 5)).forward(numbers(4, 3))
    table = lc.quantize(lc.Embedding(3, 5))
    with pytest.raises(TypeError, match=r"in int8, for inference alone: training"):
        table.forward([1])
    for module in (small, table):
        with pytest.raises(TypeError, match="reset_parameters"):
            module.reset_parameters(0)
    with pytest.raises(ValueError, match="none that is trainable"):
        lc.optim.Adam(small.parameters())
    for name, value in small.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"model is 3 \(int\), expected a module"):
        lc.quantize(3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"Tanh\(\) has nothing to quantise"):
        lc.quantize(lc.Tanh())
    with pytest.raises(TypeError, match="module 1 is float64, expected float32"):
        lc.quantize(lc.Sequential(lc.Tanh(), lc.Linear(2, 2, dtype="float64")))
    with pytest.raises(ValueError, match="weight has 32769 columns, expected at most 32768"):
        lc.quantize(lc.Linear(32769, 1))
    linear = lc.Linear(2, 2)
    linear.load_state_dict({"weight": [[1, np.nan], [0, 1]], "bias": [0, 0]})
    with pytest.raises(ValueError, match=r"weight of .* holds NaN or infinity"):
        lc.quantize(linear)


def test_state_dicts_are_checked() -> None:
    small = lc.quantize(lc.Linear(2, 2, seed=0))
    state = small.state_dict()
    with pytest.raises(ValueError, match="missing: weight_scale"):
        small.load_state_dict(lc.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match="weight has dtype float32, expected int8"):
        small.load_state_dict({**state, "weight": np.ones((2, 2), "f4")})
    with pytest.raises(ValueError, match=r"weight goes from -128 to 1, expected -127 to 127"):
        small.load_state_dict({**state, "weight": np.array([[-128, 1], [0, 1]], "i1")})
    assert_same_bits(small.state_dict()["weight"], state["weight"])
    small.load_state_dict({**state, "weight": np.array([[1, 2], [3, 4]], "i1")})
    x = np.array([[127, 127]], "f4")
    expected = np.array([3, 7]) * 127 * state["weight_scale"] + state["bias"]
    np.testing.assert_allclose(small(x)[0], expected, rtol=1e-6)


def test_exporters_refuse_it(tmp_path: Path) -> None:
    require("onnx")
    small = lc.quantize(lc.Sequential(lc.GRU(3, 5), lc.Linear(5, 2)))
    with pytest.raises(
        ValueError, match="in int8, which ONNX has in Linear, Embedding and LSTM alone"
    ):
        lc.to_onnx(small, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_cases_have_names() -> None:
    assert name_of(CELLS[0][1]) == name_of(STACKS[0]) == "plain"
