"""Modules that derive from lc.Module."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore._files import tensor_file

T, B = 5, 3


class Scale(lc.Module):
    """y = x * factor."""

    def __init__(self, size: int = 3) -> None:
        self.factor = lc.Parameter("factor", np.linspace(0.5, 1.5, size))

    def forward(self, x: Any) -> Any:
        factor = self.factor.data.copy()
        return x * factor, (x, factor)

    def backward(self, tape: Any, dy: Any) -> Any:
        x, factor = tape
        self.factor.grad += (x * dy).reshape(-1, len(factor)).sum(axis=0)
        return dy * factor


class Bilinear(lc.Module):
    """Two x and two y, with modules of its own."""

    def __init__(self) -> None:
        self.left, self.right = lc.Linear(3, 2, seed=0, dtype="float64"), Scale(2)
        self.bias = lc.Parameter("other", np.zeros(2))

    def forward(self, a: Any, b: Any) -> Any:
        left, first = self.left.forward(a)
        right, second = self.right.forward(b)
        return left * right + self.bias.data, left - right, (first, second, left, right)

    def backward(self, tape: Any, dy: Any, dz: Any) -> Any:
        first, second, left, right = tape
        self.bias.grad += dy.reshape(-1, 2).sum(axis=0)
        da = self.left.backward(first, dy * right + dz)
        return da, self.right.backward(second, dy * left - dz)


class Mean(lc.Module):
    """The mean over the steps that are there."""

    def forward(self, x: Any, lengths: Any = None) -> Any:
        ends = np.full(x.shape[1], len(x)) if lengths is None else lengths
        valid = (np.arange(len(x))[:, None] < ends)[..., None] / np.maximum(ends, 1)[:, None]
        return np.where(valid > 0, x, 0).__mul__(valid).sum(axis=0), valid

    def backward(self, valid: Any, dy: Any) -> Any:
        return valid * dy


def test_parameters_and_modules_are_found() -> None:
    module = Bilinear()
    names = ["bias", "left.weight", "left.bias", "right.factor"]
    assert list(module.state_dict()) == names
    assert [name for name, _ in module.named_parameters()] == names
    assert module.num_parameters == 2 + 8 + 2
    module.bias = lc.Parameter("bias", np.ones(3))  # another one
    assert module.num_parameters == 13
    module.right = None
    assert list(module.state_dict()) == names[:3]
    del module.left
    assert list(module.state_dict()) == names[:1]
    module.left = 3
    with pytest.raises(AttributeError):
        del module.right_
    assert repr(Bilinear()) == (
        "Bilinear(\n  (left): Linear(3, 2, dtype=float64)\n  (right): Scale()\n)"
    )


def test_they_do_what_modules_do(tmp_path: Path) -> None:
    module = Bilinear()
    a, b = np.ones((T, B, 3)), np.ones((T, B, 2))
    y = module(a, b)
    *same, tape = module.forward(a, b)
    assert_same_bits(y, tuple(same))
    module.backward(tape, *same)
    assert all(p.grad.any() for p in module.parameters())
    module.zero_grad()
    assert not any(p.grad.any() for p in module.parameters())
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other == module
        other.right.factor.data[...] = 7  # the same thing by attribute and by name
        assert (other.state_dict()["right.factor"] == 7).all()
        assert other != module
        module_again = Bilinear()
        module_again.load_state_dict(other.state_dict())
        assert module_again == other
    path = tmp_path / "own.safetensors"
    for saved in (module, module.state_dict()):
        lc.save(saved, path, extra={"scale": [0.5, 2]})
        for read in (
            lambda other: other.load_state_dict(lc.load_torch(path)),
            lambda other: lc.load(path, into=other),
        ):
            other = Bilinear()
            other.bias.data[...] = 5
            read(other)
            assert other == module
        assert other.extra == {"scale": [0.5, 2]}
        with pytest.raises(ValueError, match="without the description of a model"):
            lc.load(path)
    lc.save_checkpoint(path, model=module)
    lc.load_checkpoint(path, model=other)
    lc.gradcheck(module, np.random.default_rng(0).standard_normal((T, B, 3)), b)


class Chain(lc.Sequential):
    def __init__(self) -> None:
        super().__init__(lc.GRU(3, 2, seed=1, dtype="float64"))


def networks_with_own() -> list[Any]:
    """Networks of this library with a module of somebody else's, and a class derived from one."""
    x = lc.Input(3)
    y, _ = lc.GRU(3, 3, seed=0, dtype="float64")(x)
    return [
        lc.Sequential(lc.GRU(3, 3, seed=0, dtype="float64"), Scale()),
        lc.Model(x, Scale()(y)),
        lc.Sequential(lc.Sequential(Scale())),
        Chain(),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_networks_with_own_modules_are_saved_and_read_into_others(
    kind: int, tmp_path: Path
) -> None:
    path, model = tmp_path / "model.safetensors", networks_with_own()[kind]
    for p in model.parameters():
        p.data[...] = np.random.default_rng(0).standard_normal(p.shape)
    lc.save(model, path, extra={"unit": "MW"})
    other = networks_with_own()[kind]
    assert lc.load(path, into=other) is other
    assert other == model
    assert other.extra == {"unit": "MW"}
    lc.save(other, path)  # with what it was loaded with
    assert lc.load(path.read_bytes(), into=networks_with_own()[kind]).extra == {"unit": "MW"}
    with pytest.raises(ValueError, match=r"a class of your own: .* lc.load\(path, into=model\)"):
        lc.load(path)


def test_into_takes_any_file_that_fits_and_changes_nothing_else(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", lc.GRU(3, 4, seed=0)
    lc.save(model, path, extra={"a": 1})
    other = lc.GRU(3, 4, seed=1).freeze()
    assert lc.load(path, into=other) == model
    assert other.extra == {"a": 1}
    assert not any(p.trainable for p in other.parameters())
    wrong = lc.GRU(3, 5, seed=1)
    with pytest.raises(ValueError, match=r"state_dict does not fit GRU\(3, 5\)"):
        lc.load(path, into=wrong)
    assert wrong == lc.GRU(3, 5, seed=1)
    assert wrong.extra == {}
    for into, message in ((lc.GRU, "expected a module, made already"), ({}, "expected a module")):
        with pytest.raises(TypeError, match=message):
            lc.load(path, into=into)
    tensor_file.write(path, model.state_dict(), {"lstmcore.extra": "[1]"})
    with pytest.raises(ValueError, match="is damaged: what is kept beside the model is no dict"):
        lc.load(path, into=other)


def test_what_is_hidden_in_a_list_is_not_left_out_of_a_file(tmp_path: Path) -> None:
    class Listed(lc.Module):
        def __init__(self) -> None:
            self.parts = [lc.Linear(2, 2)]

    with pytest.raises(ValueError, match=r"a module in parts\[0\], where it is not found"):
        lc.save(Listed(), tmp_path / "model")


def test_in_a_sequential_and_in_a_model() -> None:
    rng = np.random.default_rng(0)
    values, target = rng.standard_normal((T, B, 3)), rng.standard_normal((B, 2))
    lengths = [5, 2, 1]
    parts = [Scale(), lc.GRU(3, 2, seed=0, dtype="float64"), Mean(), Scale(2)]
    sequential = lc.Sequential(*parts)
    x = lc.Input(3)
    model = lc.Model(x, sequential(x))
    by_hand = parts[3](parts[2](parts[1](parts[0](values))[0], lengths=np.array(lengths)))
    for m in (sequential, model):
        assert_same_bits(m(values, lengths=lengths), by_hand)
        lc.gradcheck(m, values, lengths=lengths)
    two = lc.Input(2)
    y, z = Bilinear()(x, two)
    model = lc.Model([x, two], [y, lc.concat([y, z])])
    lc.gradcheck(model, [values, rng.standard_normal((T, B, 2))])
    one = lc.Model([x, two], z)  # the other y has no gradient
    lc.gradcheck(one, [values, rng.standard_normal((T, B, 2))])
    trained = lc.Sequential(Scale(), Mean(), lc.Linear(3, 2, seed=1, dtype="float64"))
    history = lc.fit(
        trained, (values, target, np.array(lengths)), loss=lc.losses.mse, epochs=30,
        optimizer=lc.optim.Adam(trained.parameters(), lr=0.1), progress=False,
        callbacks=lc.callbacks.BestWeights(),
    )  # fmt: skip
    assert history.losses[-1] < 0.5 * history.losses[0]


def test_what_a_model_refuses_of_them() -> None:
    x = lc.Input(3)

    class NoShape(Scale):
        def forward(self, x: Any) -> Any:
            return float(x.sum()), None

    with pytest.raises(ValueError, match=r"NoShape\(\), given .*: called|NoShape.*it gives"):
        NoShape()(x)
    with pytest.raises(
        ValueError, match=r"Scale\(\), given .*called with zeros of \[\(5, 3, 3\)\]"
    ):
        Scale(4)(x)

    class MyGRU(lc.GRU):
        def forward(self, *args: Any, **options: Any) -> Any:
            return super().forward(*args, **options)

    with pytest.raises(TypeError, match=r"MyGRU has its own forward"):
        MyGRU(3, 2)(x)


def test_a_call_of_its_own_is_not_bypassed() -> None:
    """A class with its own __call__ stands in the graph as itself, not as what it calls."""

    class Noise(lc.Tanh):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x)

        def forward(self, x: Any) -> Any:
            y, tape = super().forward(x)
            return y + 1, tape

    x = lc.Input(3, dtype="float64")
    noise = Noise()
    model = lc.Model(x, noise(x))
    assert model._children == {"noise": noise}
    values = np.zeros((T, B, 3))
    assert not model(values).any()
    assert model.forward(values)[0].all()


def test_random_streams_do_not_move_while_a_network_is_described() -> None:
    class Drop(lc.Module):
        def __init__(self) -> None:
            self.dropout = lc.Dropout(0.5, seed=0)

        def forward(self, x: Any) -> Any:
            return self.dropout.forward(x)

        def backward(self, tape: Any, dy: Any) -> Any:
            return self.dropout.backward(tape, dy)

    drop, other = Drop(), Drop()
    drop(lc.Input(3))
    values = np.ones((T, B, 3))
    assert_same_bits(drop.forward(values)[0], other.forward(values)[0])
    lc.gradcheck(drop, values)


# One step after the other ------------------------------------------------------------------------


class Behind(lc.Module):
    """How far each step is from the last one: it reads ahead, and does not say so."""

    def forward(self, x: Any) -> Any:
        return x - x[-1:], None

    def backward(self, tape: None, dy: Any) -> Any:
        dx = dy.copy()
        dx[-1] -= dy.sum(axis=0)
        return dx


class Smooth(lc.Module):
    """A convolution inside a module whose code does not carry what is past."""

    each_step = True  # which is wrong

    def __init__(self) -> None:
        self.conv = lc.Conv1D(3, 3, 2, padding="causal", dtype="float64", seed=0)

    def forward(self, x: Any) -> Any:
        return self.conv.forward(x)

    def backward(self, tape: Any, dy: Any) -> Any:
        return self.conv.backward(tape, dy)


class EachScale(Scale):
    each_step = True


def around(module: Any) -> list[Any]:
    """Models with a module in them: a chain, a network, one in the other."""
    chain = lc.Sequential(lc.GRU(3, 3, dtype="float64", seed=0), module)
    x = lc.Input(3)
    network = lc.Model(x, x + chain(x))
    return [chain, network, lc.Sequential(network, lc.Tanh())]


def truncated(model: Any, x: Any) -> None:
    optimizer = lc.optim.SGD(model.parameters(), lr=0.1)
    lc.fit(model, [(x, x)], loss="mse", optimizer=optimizer, epochs=1, truncate=2, progress=False)


@pytest.mark.parametrize("own", [Scale, Behind])
def test_what_may_need_other_steps_is_given_whole_sequences_only(own: Any) -> None:
    x = np.random.default_rng(0).standard_normal((T, B, 3))
    for model in around(own()):
        name = own.__name__
        with pytest.raises(ValueError, match=rf"{name}\(\) may need .* its each_step is False"):
            lc.generate(model, x, 2)
        before = copy.deepcopy(model)
        with pytest.raises(ValueError, match=rf"truncate=2 .* but {name}\(\) may need other steps"):
            truncated(model, x)
        assert model == before
        with pytest.raises((TypeError, ValueError)):
            model.stream()


def test_what_says_that_it_needs_no_other_steps_is_stepped() -> None:
    x = np.random.default_rng(0).standard_normal((T, B, 3))
    for model in around(EachScale()):
        series = x
        for _ in range(3):
            series = np.concatenate([series, model(series)[-1:]])
        assert_same_bits(lc.generate(model, x, 3), series[T:])
        truncated(model, x)
    stream = around(EachScale())[1].stream(batch_size=B)
    assert_same_bits(np.array([stream.step(one) for one in x]), around(EachScale())[1](x))
    with pytest.raises(
        TypeError, match=r"Scale, whose own .* that of lc.Model\(x, model\(x\)\) does"
    ):
        around(EachScale())[0].stream()


def test_behind_the_last_step_there_are_no_others() -> None:
    model = lc.Sequential(lc.GRU(3, 3, dtype="float64", seed=0), lc.LastStep(), Scale())
    x = lc.Input(3)
    _, h = model[0](x)
    pooled = lc.Model(x, Scale()(h[-1]))
    prompt = np.random.default_rng(0).standard_normal((T, B, 3))
    assert_same_bits(lc.generate(model, prompt, 3), lc.generate(pooled, prompt, 3))


def test_past_steps_inside_a_module_of_ones_own_are_not_carried() -> None:
    x = np.random.default_rng(0).standard_normal((T, B, 3))
    for model in around(Smooth()):
        with pytest.raises(ValueError, match=r"Conv1D\(3, 3, 2.* a module of your own around it"):
            lc.generate(model, x, 2)
        with pytest.raises(ValueError, match=r"Conv1D\(3, 3, 2.* a module of your own around it"):
            truncated(model, x)


def test_a_model_of_ones_own_takes_care_of_its_state() -> None:
    class Mine(lc.Module):
        def __init__(self) -> None:
            self.layer = lc.GRU(3, 3, dtype="float64", seed=0)

        def run(self, x: Any, state: Any = None) -> Any:
            return self.layer(x, state)

        def forward(self, x: Any) -> Any:
            raise AssertionError

    x = np.random.default_rng(0).standard_normal((T, B, 3))
    assert_same_bits(lc.generate(Mine(), x, 3), lc.generate(Mine().layer, x, 3))


class Running(lc.Module):
    """y_t = x_1 + ... + x_t, and what shapes it was given."""

    def __init__(self, batch_first: bool | None = None) -> None:
        self.batch_first, self.seen = batch_first, set[tuple[int, ...]]()

    def forward(self, x: Any) -> Any:
        self.seen.add(x.shape)
        return x.cumsum(axis=int(bool(self.batch_first))), None

    def backward(self, tape: Any, dy: Any) -> Any:
        axis = int(bool(self.batch_first))
        return np.flip(np.flip(dy, axis).cumsum(axis=axis), axis)


def trained(model: Any, data: Any, batch_size: int | None = None) -> None:
    optimizer = lc.optim.SGD(model.parameters(), lr=0.1)
    options = {} if batch_size is None else {"batch_size": batch_size}
    lc.fit(model, data, loss="mse", optimizer=optimizer, epochs=1, progress=False, **options)


@pytest.mark.parametrize("batch_first", [False, True])
def test_fit_cuts_rows_and_not_steps(batch_first: bool) -> None:
    x = np.ones((6, T, 3) if batch_first else (T, 6, 3), "float32")
    model = lc.Sequential(own := Running(batch_first), lc.Linear(3, 3, seed=0))
    trained(model, (x, x), batch_size=2)
    assert own.seen == {(2, T, 3) if batch_first else (T, 2, 3)}


def test_fit_asks_what_it_cannot_know() -> None:
    model = lc.Sequential(Running(), lc.Linear(3, 3, seed=0))
    x = np.ones((T, 6, 3), "float32")
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"axis of x \(5, 6, 3\) of data are rows: set batch_f"):
        trained(model, (x, x), batch_size=2)
    for name, value in model.state_dict().items():
        assert_same_bits(value, before[name])
    # One batch is as it is, and where x has two axes the first are rows.
    trained(model, [(x, x)])
    trained(model, (x[0], x[0]), batch_size=2)


class Keeping(Scale):
    """It writes to its y again at the next call."""

    def forward(self, x: Any) -> Any:
        self.y, tape = super().forward(x)
        return self.y, tape


def test_what_a_module_of_ones_own_keeps_stays_writable() -> None:
    """Behind it is one that gives on what it gets."""
    x = np.ones((4, 3))
    own, same, head = Keeping(), lc.Dropout(0.0), lc.Linear(3, 2, dtype="float64", seed=0)
    lc.Sequential(own, same, head).forward(x)
    assert own.y.flags.writeable
    symbol = lc.Input(3, steps=False)
    lc.Model(symbol, head(same(own(symbol)))).forward(x)
    assert own.y.flags.writeable


def fit_behind(module: lc.Module, *, first: bool = False) -> None:
    """Train a Sequential with the module, (B, 3) to (B, 3), behind a Linear or before it."""
    linear = lc.Linear(3, 3, dtype="float64", seed=0)
    model = lc.Sequential(module, linear) if first else lc.Sequential(linear, module)
    x = np.random.default_rng(0).standard_normal((8, 3))
    optimizer = lc.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 2, "batch_size": 4, "progress": False}
    lc.fit(model, (x, x), loss="mse", optimizer=optimizer, **options)


def test_a_missing_method_is_named() -> None:
    class Nothing(lc.Module):
        pass

    class OnlyForward(Scale):
        backward = lc.Module.backward

    missing = r"Nothing has no forward: expected forward\(self, x\), which returns y and a tape"
    for call in (
        lambda: Nothing()(np.ones(3)),
        lambda: lc.Sequential(Nothing()),
        lambda: lc.EachStep(Nothing()),
        lambda: Nothing()(lc.Input(3)),
        lambda: lc.gradcheck(Nothing(), np.ones(3)),
    ):
        with pytest.raises(TypeError, match=missing):
            call()
    missing = r"OnlyForward has no backward: for training, expected backward\(self, tape, dy\)"
    assert OnlyForward()(np.ones(3)).shape == (3,)
    model = lc.Model(i := lc.Input(3, steps=False), OnlyForward()(i))
    _, tape = model.forward(np.ones((2, 3)))
    with pytest.raises(TypeError, match=missing + r".*gradcheck\(.*OnlyForward\(\.\.\.\), x\)"):
        model.backward(tape, np.ones((2, 3)))
    with pytest.raises(TypeError, match=missing):
        fit_behind(OnlyForward())
    with pytest.raises(TypeError, match=missing):
        lc.gradcheck(OnlyForward(), np.ones(3))


def test_a_method_without_self_or_tape_is_named() -> None:
    class WithoutSelf(Scale):
        def forward(x: Any) -> Any:  # type: ignore[override]
            return x, None

    class WithoutTape(Scale):
        def backward(self, dy: Any) -> Any:  # type: ignore[override]
            return dy

    with pytest.raises(TypeError, match=r"forward\(x: 'Any'\) .*, expected forward\(self, x\)"):
        lc.Sequential(WithoutSelf())
    for call in (fit_behind, lambda module: lc.gradcheck(module, np.ones(3))):
        with pytest.raises(TypeError, match=r"WithoutTape has .*, expected backward\(self, tape"):
            call(WithoutTape())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda x: x, r"returned a ndarray of shape .*, expected y and the tape: return y, tape"),
        (lambda x: (x.tolist(), x), r"\(list\) as y, expected an array"),
        (lambda x: (None, x), r"returned None \(NoneType\) as y, expected an array"),
    ],
    ids=["no tape", "list", "None"],
)
def test_what_forward_returns_is_checked(made: Any, message: str) -> None:
    class Own(Scale):
        def forward(self, x: Any) -> Any:
            return made(x)

    ones, message = np.ones((2, 3)), r"Own\.forward .*" + message
    for call in (fit_behind, lambda own: own(ones), lambda own: lc.gradcheck(own, ones)):
        with pytest.raises(TypeError, match=message if call is fit_behind else r"Own\.forward"):
            call(Own())


def test_what_each_step_gets_of_forward_is_checked() -> None:
    class Own(Scale):
        def forward(self, x: Any) -> Any:
            return x

    with pytest.raises(TypeError, match=r"Own\.forward returned a ndarray .*: return y, tape"):
        lc.EachStep(Own()).forward(np.ones((T, B, 3)))


def test_what_fit_gets_of_forward_is_one_array() -> None:
    class Two(Scale):
        def forward(self, x: Any) -> Any:
            return x, x, x

    two = Two()
    optimizer = lc.optim.SGD(two.parameters(), lr=0.1)
    x = np.ones((4, 3))
    with pytest.raises(TypeError, match=r"Two\.forward returned 2 arrays and a tape, expected one"):
        lc.fit(two, (x, x), loss="mse", optimizer=optimizer, progress=False)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (lambda dx: dx[:1], ValueError, r"of shape \(1, 3\), expected \(4, 3\); .*gradcheck"),
        (lambda dx: None, TypeError, r"None \(NoneType\) as the gradient of x, expected"),
        (
            lambda dx: [dx],
            TypeError,
            r"a list of 1 array as the gradient of x, expected an array of shape",
        ),
        (lambda dx: (dx, dx), TypeError, r"2 gradients, expected 1, those of every x"),
        (lambda dx: dx.astype("f4"), TypeError, r"of float32, expected float64, as x is: \.astype"),
    ],
    ids=["shape", "None", "list", "tuple", "dtype"],
)
def test_gradients_of_x_are_checked(changed: Any, error: type[Exception], message: str) -> None:
    class Own(Scale):
        def backward(self, tape: Any, dy: Any) -> Any:
            return changed(super().backward(tape, dy))

    with pytest.raises(error, match=r"(?s)Own\.backward returned .*" + message):
        fit_behind(Own())
    i = lc.Input(3, steps=False)
    model = lc.Model(i, Own()(lc.Linear(3, 3, dtype="float64", seed=0)(i)))
    _, tape = model.forward(np.ones((4, 3)))
    with pytest.raises(error, match=r"(?s)Own\.backward returned .*" + message):
        model.backward(tape, np.ones((4, 3)))


def test_ids_need_no_gradient() -> None:
    class Table(lc.Module):
        def __init__(self) -> None:
            self.table = lc.Parameter("table", np.ones((5, 3)))

        def forward(self, x: Any) -> Any:
            return self.table.data[x], x

        def backward(self, x: Any, dy: Any) -> None:
            np.add.at(self.table.grad, x, dy)

    i = lc.Input(ids=True, steps=False)
    model = lc.Model(i, lc.Linear(3, 3, dtype="float64", seed=0)(Table()(i)))
    y, tape = model.forward(np.array([1, 4]))
    assert model.backward(tape, np.ones_like(y)) is None
    lc.gradcheck(Table(), np.array([1, 4]))


def test_a_parameter_without_a_gradient_is_warned_of() -> None:
    class Forgetful(Scale):
        def backward(self, tape: Any, dy: Any) -> Any:
            return dy * tape[1]

    with pytest.warns(
        UserWarning, match=r"gradient of 1\.factor is 0 after .*Forgetful.*\+= "
    ) as said:
        fit_behind(Forgetful())
    assert said[0].filename == __file__
    frozen = Forgetful()
    frozen.freeze()
    fit_behind(frozen)
    fit_behind(Scale())


def test_what_nobody_reads_is_not_checked() -> None:
    class First(Scale):
        def backward(self, tape: Any, dy: Any) -> Any:
            super().backward(tape, dy)

    fit_behind(First(), first=True)
    with pytest.raises(TypeError, match=r"First\.backward returned None .*as the gradient of x"):
        fit_behind(First())


def test_parameters_in_lists_are_found_out() -> None:
    class Listed(Scale):
        def __init__(self, parts: Any) -> None:
            super().__init__()
            self.parts = parts

    for parts, what in (
        ([lc.Parameter("w", np.ones(3))], r"a Parameter in parts\[0\]"),
        ({"a": lc.Linear(3, 3)}, r"a module in parts\['a'\]"),
    ):
        message = rf"Listed \(module 1\) has {what}, .*neither trained nor saved: expected an attri"
        with pytest.raises(ValueError, match=message):
            fit_behind(Listed(parts))
        with pytest.raises(ValueError, match=what):
            lc.gradcheck(Listed(parts), np.ones(3))
    known = Listed([])
    known.parts.append(known.factor)
    fit_behind(known)
    fit_behind(Listed((lc.Linear(3, 3),)))  # a tuple keeps what others train
    with pytest.raises(ValueError, match=r"parameters is empty, .*not those in a list or dict"):
        lc.optim.SGD(Mean().parameters())


def test_an_init_that_leaves_out_ours_is_refused() -> None:
    class Own(lc.LSTM):
        def __init__(self) -> None:
            self.mine = 1

    class Derived(Own):
        pass

    class Chain(lc.Sequential):
        def __init__(self) -> None:
            self.mine = lc.Linear(3, 4)

    for kind, name in ((Own, "Own"), (Derived, "Own"), (Chain, "Chain")):
        with pytest.raises(
            TypeError, match=rf"{name}\.__init__ does not call super\(\)\.__init__\(\.\.\.\)"
        ):
            kind()

    class Other(lc.LSTM):
        def __init__(self) -> None:
            self.mine = 1
            super().__init__(3, 4)

    assert Other()(np.ones((2, 1, 3), "f4"))[0].shape == (2, 1, 4)

    class Later(Own):
        """Whose base leaves it to this one."""

        def __init__(self) -> None:
            super().__init__()
            lc.LSTM.__init__(self, 3, 4)

    assert Later()(np.ones((2, 1, 3), "f4"))[0].shape == (2, 1, 4)


def test_an_init_may_call_ours_in_any_way() -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def changed(self: Any, size: int) -> None:
            function(self, 2 * size)

        return changed

    class Decorated(lc.LSTM):
        @twice
        def __init__(self, size: int) -> None:
            super().__init__(3, size)

    class Called(lc.LSTM):
        def __init__(self, module: int) -> None:
            self.begin(module)

        def begin(self, size: int) -> None:
            super().__init__(3, size)

    assert Decorated(2).hidden_size == 4
    assert Called(module=4).hidden_size == 4
    assert list(inspect.signature(Called).parameters) == ["module"]


class Wide(lc.Module):
    """Makes float64 of all."""

    def forward(self, x: Any) -> Any:
        return x.astype("float64"), x.dtype

    def backward(self, tape: Any, dy: Any) -> Any:
        return dy.astype(tape)


def test_a_network_does_not_change_its_dtype_within() -> None:
    x, values = lc.Input(3), np.ones((T, B, 3), "float32")
    for own, way in (
        (Scale(), r'factor has that dtype: lc\.Parameter\(name, array\.astype\("float32"\)\)'),
        (Wide(), r'\.astype\("float32"\) converts it'),
    ):
        message = f"{type(own).__name__}.forward made float64 of float32, .*: {way}"
        for model in (lc.Sequential(own), lc.Sequential(lc.GRU(3, 3, seed=0), own)):
            for call in (model, model.forward):
                with pytest.raises(TypeError, match=message):
                    call(values)
    model = lc.Model(x, Wide()(lc.GRU(3, 3, seed=0)(x)[0]))
    with pytest.raises(TypeError, match=r"Wide\.forward made float64 of float32"):
        model(values)
    assert lc.Sequential(Wide())(values.astype("float64")).dtype == np.float64
