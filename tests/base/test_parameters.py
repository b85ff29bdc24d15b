"""Parameters: never stale, saved and loaded whole, copied, pickled and compared."""

from __future__ import annotations

import copy
import ctypes
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore import _core

X = np.linspace(-1, 1, 30).reshape(5, 2, 3)

MAKERS: dict[str, Callable[..., Any]] = {
    "RNN": lambda **k: lc.RNN(3, 4, dtype="float64", **k),
    "GRU": lambda **k: lc.GRU(3, 4, num_layers=2, bidirectional=True, dtype="float64", **k),
    "LSTM": lambda **k: lc.LSTM(3, 4, proj_size=2, dtype="float64", **k),
    "RNNCell": lambda **k: lc.RNNCell(3, 4, dtype="float64", **k),
    "GRUCell": lambda **k: lc.GRUCell(3, 4, dtype="float64", **k),
    "LSTMCell": lambda **k: lc.LSTMCell(3, 4, dtype="float64", **k),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return MAKERS[request.param]


def output(layer: Any) -> Any:
    """Some output of a layer or cell that depends on all its parameters."""
    if not type(layer).__name__.endswith("Cell"):
        return layer(X)[0]
    h = np.full((2, 4), 0.5)
    return np.array(layer(X[0], (h, h) if isinstance(layer, lc.LSTMCell) else h))


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows with every packing of weights."""
    seen: list[bool] = []
    pack = _core.pack

    def counted(spec: Any, parameters: Any, train: bool, *more: Any) -> Any:
        seen.append(train)
        return pack(spec, parameters, train, *more)

    monkeypatch.setattr(_core, "pack", counted)
    return seen


# Writes are seen ----------------------------------------------------------------------------------


def fresh(layer: Any) -> Any:
    """The output of a new layer with the same parameters."""
    return output(pickle.loads(pickle.dumps(layer)))


def test_write_through_data(make: Callable[..., Any]) -> None:
    layer = make(seed=0)
    for _, p in layer.named_parameters():
        before = output(layer)
        p.data[...] += 0.5
        after = output(layer)
        assert not np.array_equal(after, before)
        assert_same_bits(after, fresh(layer))
        p.data -= 0.25
        assert not np.array_equal(output(layer), after)
        p.data = np.full(p.shape, 0.125)
        assert_same_bits(output(layer), fresh(layer))


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda data: data,
    "slice": lambda data: data[1:],
    "slice of a slice": lambda data: data[1:][:, 1:],
    "row": lambda data: data[0],
    "transpose": lambda data: data.T,
    "ravel": np.ravel,
    "reshape": lambda data: data.reshape(-1, 1),
    "asarray": np.asarray,
    "other dtype": lambda data: data[:, :2].view(complex),
    "subclass": lambda data: data.view(np.matrix),
    "strided": lambda data: np.lib.stride_tricks.as_strided(data, (2,), (8,)),
    "memoryview": lambda data: np.asarray(memoryview(data)),
    "frombuffer": lambda data: np.frombuffer(data),
    "flat": lambda data: data.flat,
    "ctypes": lambda data: data.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_writes_through_what_was_taken_before_are_seen(holder: str, packs: list[bool]) -> None:
    layer = lc.RNN(3, 4, dtype="float64", seed=0)
    p = layer.parameters()[0]
    held = HOLDERS[holder](p.data)
    for value in (1, 2, 3):  # the first call packs; later writes must not be missed
        before = output(layer)
        held[0] = value
        assert not np.array_equal(output(layer), before)
        assert_same_bits(output(layer), fresh(layer))
    assert len(packs) > 3
    del held
    output(layer)
    packs.clear()
    output(layer)
    assert packs == []  # nobody can write unnoticed any more


def test_torch_shares_the_memory() -> None:
    torch = require("torch")
    layer = lc.RNN(3, 4, dtype="float64", seed=0)
    tensor = torch.from_numpy(layer.parameters()[0].data)
    before = output(layer)
    tensor += 1
    assert not np.array_equal(output(layer), before)
    assert_same_bits(output(layer), fresh(layer))


def test_packs_only_when_needed(packs: list[bool]) -> None:
    layer = lc.GRU(3, 4, dtype="float64", seed=0)
    output(layer)
    output(layer)
    assert packs == [False]
    layer.forward(X)
    layer.forward(X)
    output(layer)  # what is packed for training serves inference
    assert packs == [False, True]
    layer.parameters()[0].data[0] = 1
    output(layer)
    output(layer)
    assert packs == [False, True, False]
    layer.load_state_dict(layer.state_dict())
    output(layer)
    layer.reset_parameters(1)
    output(layer)
    assert packs == [False, True, False, False, False]
    layer.zero_grad()
    _ = layer.parameters()[0].grad, layer.state_dict(), layer == layer
    output(layer)
    assert len(packs) == 5


def test_packs_once_for_a_call(packs: list[bool]) -> None:
    """Also while somebody could write, whatever has to be converted first."""
    layer = lc.LSTM(2, 3, seed=0)
    held = layer.parameters()[0].data
    for x in (np.zeros((4, 1, 2), "float32"), np.zeros((4, 2), "float32"), [[[0, 0]]]):
        packs.clear()
        layer(x)
        assert packs == [False]
    assert held.shape == (12, 2)


def test_packs_again_for_another_isa(packs: list[bool]) -> None:
    layer = lc.GRU(3, 4, dtype="float64", seed=0)
    chosen = lc.isa()
    try:
        for name in lc.available_isas():
            lc.set_isa(name)
            packs.clear()
            output(layer)
            output(layer)
            assert packs == [False]
    finally:
        lc.set_isa(chosen)


def test_a_view_taken_while_another_thread_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes during a packing makes its result stale, even if nobody holds a view after."""
    layer = lc.RNN(3, 4, dtype="float64", seed=0)
    p = layer.parameters()[0]
    pack = _core.pack

    def slow(*given: Any) -> Any:
        weights = pack(*given)
        monkeypatch.undo()
        p.data[...] = 0  # as another thread might
        return weights

    monkeypatch.setattr(_core, "pack", slow)
    before = output(layer)
    after = output(layer)
    assert not np.array_equal(after, before)
    assert_same_bits(after, fresh(layer))


def test_threads_that_write_and_run() -> None:
    """Every thread sees its own writes at once, whatever the others do to the packed weights."""
    layer = lc.RNN(3, 4, dtype="float64", bias=False, seed=0)
    weight_ih, weight_hh = layer.parameters()
    weight_hh.data = np.zeros(weight_hh.shape)
    failures: list[str] = []

    def work(unit: int) -> None:
        for value in np.linspace(-1, 1, 200):
            weight_ih.data[unit] = value
            y, _ = layer(np.eye(3)[None])
            if not np.allclose(y[0, :, unit], np.tanh(value), rtol=1e-12):
                failures.append(f"{unit}: {y[0, :, unit]} is not {np.tanh(value)}")

    threads = [threading.Thread(target=work, args=(unit,)) for unit in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# One parameter ------------------------------------------------------------------------------------


def test_parameter() -> None:
    p = lc.Parameter("w", np.arange(6, dtype="float32").reshape(2, 3))
    assert (p.name, p.shape, p.dtype, p.size) == ("w", (2, 3), np.float32, 6)
    assert repr(p) == "Parameter('w', shape=(2, 3), dtype=float32)"
    assert type(p.data) is np.ndarray
    assert p.data.flags.writeable
    assert p.data.flags.c_contiguous
    storage = p.data
    p.data = [[1, 2, 3], [4, 5, 6]]
    p.data *= 2
    np.testing.assert_array_equal(storage, [[2, 4, 6], [8, 10, 12]])
    p.data = p.data.reshape(-1)[::-1].reshape(2, 3)  # overlaps
    np.testing.assert_array_equal(storage, [[12, 10, 8], [6, 4, 2]])


def test_parameter_copies_its_data() -> None:
    values = np.ones(3)
    p = lc.Parameter("b", values)
    values[0] = 7
    np.testing.assert_array_equal(p.data, [1, 1, 1])


def test_gradient() -> None:
    p = lc.Parameter("b", np.ones(3, dtype="float32"))
    p.zero_grad()
    np.testing.assert_array_equal(p.grad, [0, 0, 0])
    assert p.grad.dtype == np.float32
    held = p.grad
    p.grad += 2
    p.grad = p.grad * 2
    np.testing.assert_array_equal(held, [4, 4, 4])
    p.zero_grad()
    np.testing.assert_array_equal(held, [0, 0, 0])


@pytest.mark.parametrize("name", ["data", "grad"])
def test_wrong_values_change_nothing(name: str) -> None:
    p = lc.Parameter("b", np.ones(3))
    p.grad += 1
    with pytest.raises(ValueError, match=rf"b\.{name} has shape \(2,\), expected \(3,\)"):
        setattr(p, name, np.zeros(2))
    with pytest.raises(ValueError, match=r"has shape \(\), expected"):
        setattr(p, name, 0.0)
    with pytest.raises(TypeError, match=r"has dtype complex128, expected real numbers"):
        setattr(p, name, np.zeros(3, complex))
    with pytest.raises(TypeError, match=r"has dtype <U1, expected"):
        setattr(p, name, ["a", "b", "c"])
    with pytest.raises(TypeError, match=r"has dtype object, expected"):
        setattr(p, name, None)
    np.testing.assert_array_equal(p.data, [1, 1, 1])
    np.testing.assert_array_equal(p.grad, [1, 1, 1])


def test_the_name_of_a_parameter_is_a_str() -> None:
    with pytest.raises(TypeError, match=r"name is 3 \(int\), expected a str"):
        lc.Parameter(3, [1.0])  # type: ignore[arg-type]


def test_parameter_is_float() -> None:
    with pytest.raises(TypeError, match="w has dtype int64, expected float32 or float64"):
        lc.Parameter("w", np.arange(3, dtype="int64"))


# Initialisation -----------------------------------------------------------------------------------


def test_seed(make: Callable[..., Any]) -> None:
    assert make(seed=3) == make(seed=3)
    assert make(seed=3) != make(seed=4)
    assert make() != make()
    layer = make(seed=3)
    layer.reset_parameters(4)
    assert layer == make(seed=4)
    layer.reset_parameters()
    assert layer != make(seed=4)
    bound = 4**-0.5
    values = np.concatenate([p.data.ravel() for p in make(seed=0).parameters()])
    assert np.abs(values).max() <= bound
    assert values.max() > 0.8 * bound
    assert values.min() < -0.8 * bound


def test_same_seed_in_both_precisions() -> None:
    double, single = lc.LSTM(3, 4, dtype="float64", seed=0), lc.LSTM(3, 4, seed=0)
    for p, q in zip(double.parameters(), single.parameters(), strict=True):
        np.testing.assert_array_equal(p.data.astype(np.float32), q.data)


def test_forget_bias() -> None:
    layer = lc.LSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=1.5, seed=0)
    plain = lc.LSTM(3, 4, num_layers=2, bidirectional=True, seed=0)
    for (name, p), q in zip(layer.named_parameters(), plain.parameters(), strict=True):
        wanted = q.data.copy()
        if name.startswith("bias_ih"):
            wanted[4:8] = 1.5
        elif name.startswith("bias_hh"):
            wanted[4:8] = 0
        np.testing.assert_array_equal(p.data, wanted)
    cell = lc.LSTMCell(3, 4, forget_bias=1.5, seed=0)
    np.testing.assert_array_equal(cell.state_dict()["bias_ih"][4:8], 1.5)
    np.testing.assert_array_equal(cell.state_dict()["bias_hh"][4:8], 0)


# Names and state dicts ----------------------------------------------------------------------------


def test_names_and_shapes() -> None:
    layer = lc.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, peephole=True)
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    assert list(shapes) == [
        f"{name}_l{k}{suffix}"
        for k in range(2)
        for suffix in ("", "_reverse")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ch", "weight_hr")
    ]
    assert shapes["weight_ih_l0"] == (20, 3)
    assert shapes["weight_ih_l1_reverse"] == (20, 4)
    assert shapes["weight_hh_l0"] == (20, 2)
    assert shapes["bias_ih_l0"] == shapes["bias_hh_l1"] == (20,)
    assert shapes["weight_ch_l0"] == (3, 5)
    assert shapes["weight_hr_l0"] == (2, 5)
    assert [p.name for p in layer.parameters()] == list(shapes) == list(layer.state_dict())
    assert layer.num_parameters == sum(int(np.prod(shape)) for shape in shapes.values())


@pytest.mark.parametrize("option", [{"coupled": True}, {"forget_gate": False}])
def test_three_gates(option: dict[str, bool]) -> None:
    shapes = {n: p.shape for n, p in lc.LSTM(3, 5, peephole=True, **option).named_parameters()}
    assert shapes == {
        "weight_ih_l0": (15, 3),
        "weight_hh_l0": (15, 5),
        "bias_ih_l0": (15,),
        "bias_hh_l0": (15,),
        "weight_ch_l0": (2, 5),
    }


@pytest.mark.parametrize(
    ("merge", "features"), [("concat", 10), ("sum", 5), ("mul", 5), ("ave", 5)]
)
def test_merged_features(merge: str, features: int) -> None:
    layer = lc.GRU(3, 5, num_layers=2, bidirectional=True, merge=merge)
    assert layer.state_dict()["weight_ih_l1"].shape == (15, features)


def test_reverse_layers_have_no_suffix() -> None:
    names = [name for name, _ in lc.RNN(3, 5, reverse=True, bias=False).named_parameters()]
    assert names == ["weight_ih_l0", "weight_hh_l0"]


def test_cells_have_pytorchs_names() -> None:
    cell = lc.LSTMCell(3, 5, peephole=True, proj_size=2)
    assert {name: p.shape for name, p in cell.named_parameters()} == {
        "weight_ih": (20, 3),
        "weight_hh": (20, 2),
        "bias_ih": (20,),
        "bias_hh": (20,),
        "weight_ch": (3, 5),
        "weight_hr": (2, 5),
    }
    assert list(lc.GRUCell(3, 5, False).state_dict()) == ["weight_ih", "weight_hh"]


def test_state_dict_round_trip(make: Callable[..., Any]) -> None:
    layer, other = make(seed=0), make(seed=1)
    result = other.load_state_dict(layer.state_dict())
    assert result.missing_keys == result.unexpected_keys == []
    assert other == layer
    assert_same_bits(output(other), output(layer))


def test_state_dict_is_a_copy() -> None:
    layer = lc.RNN(3, 4, dtype="float64", seed=0)
    before = output(layer)
    for array in layer.state_dict().values():
        assert type(array) is np.ndarray
        array[...] = 0
    assert_same_bits(output(layer), before)


def test_load_with_a_prefix() -> None:
    layer, other = lc.RNN(3, 4, seed=0), lc.RNN(3, 4, seed=1)
    state = {f"encoder.{k}": v for k, v in layer.state_dict().items()}
    state["decoder.weight"] = np.zeros(7)
    other.load_state_dict(state, prefix="encoder.")
    assert other == layer
    state["encoder.extra"] = np.zeros(7)
    with pytest.raises(ValueError, match=r"unexpected: encoder\.extra$"):
        other.load_state_dict(state, prefix="encoder.")


def test_load_other_dtypes() -> None:
    layer = lc.RNN(2, 2, seed=0)
    for dtype in ("float64", "float16", "int8", "bool", ">f4"):
        state = {k: np.ones(v.shape, dtype) for k, v in layer.state_dict().items()}
        layer.load_state_dict(state)
        assert all(p.dtype == np.float32 and (p.data == 1).all() for p in layer.parameters())
    layer.load_state_dict({k: v.tolist() for k, v in lc.RNN(2, 2, seed=1).state_dict().items()})
    assert layer == lc.RNN(2, 2, seed=1)


def test_load_that_fails_names_everything_and_changes_nothing() -> None:
    layer = lc.LSTM(3, 4, num_layers=2, seed=0)
    before = layer.state_dict()
    state = lc.LSTM(3, 4, num_layers=2, seed=1).state_dict()
    del state["bias_hh_l0"], state["weight_ih_l1"]
    state["weight_ih_l0"] = np.zeros((16, 5))
    state["bias_ih_l1"] = np.zeros((1, 16))
    state["bias_hh_l1"] = np.zeros(16, complex)
    state["weight_hr_l0"] = np.zeros(3)
    state["fc.bias"] = np.zeros(3)
    with pytest.raises(ValueError, match="state_dict does not fit") as caught:
        layer.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "state_dict does not fit LSTM(3, 4, num_layers=2):",
        "  missing: bias_hh_l0, weight_ih_l1",
        "  unexpected: weight_hr_l0, fc.bias",
        "  its names are those of a proj_size",
        "  weight_ih_l0 has shape (16, 5), expected (16, 3)",
        "  bias_ih_l1 has shape (1, 16), expected (16,)",
        "  bias_hh_l1 has dtype complex128, expected real numbers to convert to float32",
    ]
    with pytest.raises(ValueError, match=r"unexpected: 1, \(\)$"):
        layer.load_state_dict({**before, 1: 2, (): 3})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="weight_ih_l0 has shape") as caught:
        layer.load_state_dict(state, strict=False)  # shapes count even then
    assert "missing" not in str(caught.value)
    for name, array in layer.state_dict().items():
        assert_same_bits(array, before[name])


def test_load_not_strictly() -> None:
    layer = lc.RNN(3, 4, seed=0)
    before = layer.state_dict()
    result = layer.load_state_dict({"bias_ih_l0": np.full(4, 9), "fc": np.zeros(1)}, strict=False)
    assert result.missing_keys == ["weight_ih_l0", "weight_hh_l0", "bias_hh_l0"]
    assert result.unexpected_keys == ["fc"]
    assert result == (result.missing_keys, result.unexpected_keys)
    before["bias_ih_l0"][...] = 9
    for name, array in layer.state_dict().items():
        assert_same_bits(array, before[name])


@pytest.mark.parametrize("wrong", [None, 3, [("weight_ih_l0", 1)], "state.pt"])
def test_load_something_else(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"state_dict is .*, expected a mapping"):
        lc.RNN(3, 4).load_state_dict(wrong)
    with pytest.raises(TypeError, match=r"prefix is None .*, expected a str"):
        lc.RNN(3, 4).load_state_dict({}, prefix=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"strict is 1 .*, expected a bool"):
        lc.RNN(3, 4).load_state_dict({}, strict=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ours", ["float64", "float32"])
def test_load_from_torch(dtype: str, ours: str) -> None:
    torch = require("torch")
    theirs = torch.nn.LSTM(3, 4, num_layers=2, proj_size=2, dtype=getattr(torch, dtype))
    layer = lc.LSTM(3, 4, num_layers=2, proj_size=2, dtype=ours)
    for state in (theirs.state_dict(), dict(theirs.named_parameters())):  # these require grad
        layer.reset_parameters()
        layer.load_state_dict(state)
        for name, array in layer.state_dict().items():
            wanted = theirs.state_dict()[name].double().numpy()
            assert_same_bits(array, wanted.astype(ours))
    back = {name: torch.from_numpy(array) for name, array in layer.state_dict().items()}
    theirs.load_state_dict(back)  # the same names and shapes


def test_load_complex_from_torch() -> None:
    torch = require("torch")
    layer = lc.RNN(3, 4, seed=0)
    state = {k: torch.zeros(v.shape, dtype=torch.complex64) for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match="weight_ih_l0 has dtype complex64, expected real"):
        layer.load_state_dict(state)
    assert layer == lc.RNN(3, 4, seed=0)


# Copies and comparison ----------------------------------------------------------------------------


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {n}": lambda layer, n=n: pickle.loads(pickle.dumps(layer, protocol=n))
        for n in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("how", COPIES)
def test_copies(make: Callable[..., Any], how: str) -> None:
    layer = make(seed=0)
    before = output(layer)
    layer.parameters()[0].grad += 1
    twin = COPIES[how](layer)
    assert twin == layer
    assert repr(twin) == repr(layer)
    assert_same_bits(output(twin), before)
    assert (twin.parameters()[0].grad == 0).all()  # gradients stay behind, as in PyTorch
    for p in twin.parameters():  # nothing is shared, and every write is seen
        p.data += 1
    assert twin != layer
    assert not np.array_equal(output(twin), before)
    assert_same_bits(output(layer), before)


def test_copy_shares_parameters(make: Callable[..., Any]) -> None:
    layer = make(seed=0)
    twin = copy.copy(layer)
    output(layer), output(twin)
    layer.parameters()[0].data += 1
    assert_same_bits(output(twin), output(layer))


def test_pickle_keeps_subclasses_and_their_attributes() -> None:
    layer = Named(3, 4, name="encoder")
    twin = pickle.loads(pickle.dumps(layer))
    assert type(twin) is Named
    assert twin.name == "encoder"
    assert twin == layer


class Named(lc.GRU):
    def __init__(self, input_size: int, hidden_size: int, name: str) -> None:
        super().__init__(input_size, hidden_size, seed=0)
        self.name = name


def test_equality_is_of_configuration_and_bits() -> None:
    assert lc.LSTM(3, 4, seed=0) == lc.LSTM(3, 4, seed=0)
    assert lc.LSTM(3, 4, seed=0) != lc.LSTM(3, 4, batch_first=True, seed=0)
    assert lc.LSTM(3, 4, seed=0) != lc.LSTM(3, 4, cell_clip=3, seed=0)
    assert lc.LSTM(3, 4, seed=0) != lc.LSTM(3, 4, dtype="float64", seed=0)
    assert lc.LSTM(3, 4, seed=0) != lc.GRU(3, 4, seed=0)
    assert lc.RNN(3, 4, seed=0) != lc.RNNCell(3, 4, seed=0)
    assert lc.LSTM(3, 4, seed=0) != "LSTM(3, 4)"
    one, other = lc.RNN(1, 1, seed=0), lc.RNN(1, 1, seed=0)
    for value in (0.0, np.nan):
        one.parameters()[0].data[...] = value
        other.parameters()[0].data[...] = value
        assert one == other
    one.parameters()[0].data[...] = 0.0
    other.parameters()[0].data[...] = -0.0
    assert one != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_a_parameter_is_no_array_and_says_where_one_is() -> None:
    p = lc.Parameter("w", np.ones((2, 3)))
    with pytest.raises(AttributeError, match=r"no attribute 'T': its numbers have it, \.data\.T"):
        _ = p.T  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"no attribute 'spam'$"):
        _ = p.spam  # type: ignore[attr-defined]
    assert not hasattr(p, "mean")
    assert "mean" not in dir(p)
    assert "shape" in dir(p)
    for call in (lambda: np.ones(2) @ p, lambda: p * np.ones(3), lambda: np.tanh(p)):  # type: ignore
        with pytest.raises(TypeError, match=r"is given the parameter 'w', expected .*: w\.data"):
            call()
    array: Any = np.ones((2, 3))
    assert p not in [array]
    assert (array == p) is False
    assert (array != p) is True
    assert p in [array, p]
    with pytest.raises(TypeError, match="less is given the parameter 'w'"):
        _ = array < p
    with pytest.raises(TypeError, match=r"name is a ndarray of .*, and the numbers after it"):
        lc.Parameter(np.ones(3), np.ones(3))  # type: ignore[arg-type]
