"""Conv1D: against PyTorch, the definition and differences; lengths, streams, other libraries."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.names import name_of
from helpers.numeric import assert_same_bits

T, B, I, O = 11, 4, 3, 6  # noqa: E741
LENGTHS = [11, 6, 2, 0]
CASES: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 3},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "bias": False},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 4, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": "causal"},
    {"kernel_size": 2, "padding": "causal", "dilation": 4, "bias": False},
    {"kernel_size": 3, "padding": "causal", "stride": 2},
    {"kernel_size": 1, "padding": "causal", "stride": 3},
    {"kernel_size": 5, "padding": 1},
    {"kernel_size": 3, "padding": 2, "stride": 2, "bias": False},
    {"kernel_size": 2, "groups": 3},
    {"kernel_size": 3, "groups": 3, "padding": "same", "dilation": 2, "bias": False},
    {"kernel_size": 2, "groups": 3, "padding": "causal", "dilation": 2},
]
CAUSAL = [case for case in CASES if case["kernel_size"] == 1 and len(case) == 1]
CAUSAL += [case for case in CASES if case.get("padding") == "causal" and "stride" not in case]
every_case = pytest.mark.parametrize("options", CASES, ids=name_of)


def made(options: dict[str, Any], dtype: str = "float64", **more: Any) -> lc.Conv1D:
    return lc.Conv1D(I, O, dtype=dtype, seed=0, **options, **more)


def numbers(*shape: int, seed: int = 0, dtype: str = "float64") -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def pytorchs(torch: Any, options: dict[str, Any], module: lc.Conv1D) -> Any:
    """A function of (B, T, I) by PyTorch, zeros put before it where the padding says so."""
    gap, size = options.get("dilation", 1), options["kernel_size"]
    reach = gap * (size - 1)
    left = {"same": reach // 2, "causal": reach}.get(options.get("padding", ""), 0)
    right = reach - left if options.get("padding") == "same" else 0
    if isinstance(options.get("padding"), int):
        left = right = options["padding"]
    weight, *bias = (torch.tensor(a, requires_grad=True) for a in module.state_dict().values())

    def call(x: Any) -> Any:
        padded = torch.nn.functional.pad(x.transpose(1, 2), (left, right))
        y = torch.nn.functional.conv1d(
            padded, weight, bias[0] if bias else None, options.get("stride", 1), dilation=gap,
            groups=options.get("groups", 1),
        )  # fmt: skip
        return y.transpose(1, 2)

    return call, [weight, *bias]


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_against_pytorch(options: dict[str, Any], dtype: str, batch_first: bool) -> None:
    torch = peers.require("torch")
    module = made(options, dtype, batch_first=batch_first)
    x = numbers(B, T, I, dtype=dtype)
    given = torch.tensor(x, requires_grad=True)
    call, parameters = pytorchs(torch, options, module)
    expected = call(given)
    dy = numbers(*expected.shape, seed=1, dtype=dtype)
    expected.backward(torch.tensor(dy))
    turn = (lambda a: a) if batch_first else (lambda a: a.swapaxes(0, 1))
    y, tape = module.forward(turn(x))
    tolerance = {"rtol": 1e-11, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4}
    tolerance.setdefault("atol", 1e-5)
    assert y.dtype == dtype
    np.testing.assert_allclose(turn(y), expected.detach().numpy(), **tolerance)
    dx = module.backward(tape, turn(dy))
    np.testing.assert_allclose(turn(dx), given.grad.numpy(), **tolerance)
    for p, q in zip(module.parameters(), parameters, strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), err_msg=p.name, **tolerance)
    assert_same_bits(module(turn(x)), y)
    row = turn(x)[:, 0] if not batch_first else x[0]
    assert_same_bits(module(row), turn(y)[0])


@every_case
def test_gradients_are_those_of_differences(options: dict[str, Any]) -> None:
    lc.gradcheck(made(options), numbers(T, B, I), lengths=LENGTHS)
    lc.gradcheck(made(options, batch_first=True), numbers(B, T, I), lengths=LENGTHS)
    lc.gradcheck(made(options), numbers(T, I), lengths=7)


@every_case
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_row_alone_has_the_bits_of_a_padded_one(
    options: dict[str, Any], batch_first: bool
) -> None:
    module = made(options, "float32", batch_first=batch_first)
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    x = numbers(T, B, I, dtype="float32")
    x[np.arange(T)[:, None] >= LENGTHS] = np.nan
    y, tape = module.forward(turn(x), lengths=LENGTHS)
    dy = numbers(*turn(y).shape, seed=1, dtype="float32")
    dx = turn(module.backward(tape, turn(dy)))
    y = turn(y)
    assert np.isfinite(dx).all()
    assert all(np.isfinite(p.grad).all() for p in module.parameters())
    for row, length in enumerate(LENGTHS):
        alone, tape = module.forward(x[:length, row])
        assert_same_bits(y[: len(alone), row], alone)
        assert not y[len(alone) :, row].any()
        expected = module.backward(tape, dy[: len(alone), row])
        np.testing.assert_allclose(dx[:length, row], expected, rtol=1e-5, atol=1e-6)
        assert not dx[length:, row].any()


@every_case
def test_few_steps_and_none(options: dict[str, Any]) -> None:
    module = made(options)
    for time in range(4):
        for batch in (0, 2):
            y, tape = module.forward(numbers(time, batch, I))
            assert len(y) == module._ends(np.array(time))
            assert module.backward(tape, y).shape == (time, batch, I)


def test_the_lengths_of_y_go_to_what_is_after_it() -> None:
    conv, gru = lc.Conv1D(I, O, 3, stride=2, seed=0), lc.GRU(O, 4, seed=1)
    x = numbers(T, B, I, dtype="float32")
    shorter = [5, 2, 0, 0]
    y, h = gru(conv(x, lengths=LENGTHS), lengths=shorter)
    model = lc.Sequential(conv, lc.ReLU(), gru)
    expected, _ = gru(np.maximum(conv(x, lengths=LENGTHS), 0), lengths=shorter)
    found, state = model.run(x, lengths=LENGTHS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    symbol = lc.Input(I)
    states, last = gru(conv(symbol))
    network = lc.Model(symbol, [states, last[-1], lc.MeanPool()(states)])
    given, tape = network.forward(x, lengths=LENGTHS)
    np.testing.assert_allclose(given[0], y, atol=1e-6)
    np.testing.assert_allclose(given[1], h[0], atol=1e-6)
    np.testing.assert_allclose(given[2], lc.MeanPool()(y, lengths=shorter), atol=1e-6)
    assert tape.lengths[0].tolist() == shorter
    assert len(state) == 1
    # A masking's lengths go through it, in a Sequential and in a Model.
    padded = np.where((np.arange(T)[:, None] < LENGTHS)[..., None], x, 0).astype("float32")
    masked = lc.Sequential(lc.Masking(), conv, gru, lc.MeanPool())
    np.testing.assert_allclose(masked(padded), given[2], atol=1e-6)
    np.testing.assert_allclose(lc.Model(symbol, masked(symbol))(padded), given[2], atol=1e-6)
    z, lengths = lc.Masking()(symbol)
    wired = lc.Model(symbol, lc.MeanPool()(gru(conv(z, lengths=lengths))[0]))
    np.testing.assert_allclose(wired(padded), given[2], atol=1e-6)


def test_a_residual_stack_of_a_model() -> None:
    x = lc.Input(4)
    y: Any = x
    for i in range(3):
        conv = lc.Conv1D(4, 4, 3, padding="causal", dilation=2**i, dtype="float64", seed=i)
        y = y + lc.SiLU()(conv(y))
    model = lc.Model(x, lc.LSTM(4, 3, dtype="float64", seed=5)(y)[0])
    lc.gradcheck(model, numbers(5, 2, 4), lengths=[5, 3])
    assert model._part_reading_ahead() is None


def test_training_counts_the_steps_of_y() -> None:
    """The loss is that of the rows by themselves, with the steps that y has."""
    model = lc.Sequential(
        lc.Conv1D(I, 4, 3, stride=2, seed=0), lc.GRU(4, 4, seed=1), lc.Linear(4, 1, seed=2)
    )
    x = numbers(T, B, I, dtype="float32")
    target = numbers(5, B, 1, seed=1, dtype="float32")
    ends = np.array([5, 2, 0, 0])
    errors = [
        (model(x[:length, row])[:end] - target[:end, row]) ** 2
        for row, (length, end) in enumerate(zip(LENGTHS, ends, strict=True))
    ]
    expected = np.concatenate(errors).mean()
    found = lc.evaluate(model, [(x, target, np.array(LENGTHS))], loss=lc.losses.mse)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    before = model.state_dict()
    history = lc.fit(
        model, [(x, target, np.array(LENGTHS))], loss=lc.losses.mse, epochs=2, progress=False,
        optimizer=lc.optim.SGD(model.parameters(), lr=0.1),
    )  # fmt: skip
    assert history.losses[0] == pytest.approx(expected, rel=1e-5)
    assert history.losses[1] < history.losses[0]
    first = lc.Sequential(
        lc.Conv1D(I, 4, 3, stride=2, seed=0), lc.GRU(4, 4, batch_first=True, seed=1),
        lc.Linear(4, 1, seed=2),
    )  # fmt: skip
    first.load_state_dict(before)
    rows = x.swapaxes(0, 1), target.swapaxes(0, 1), np.array(LENGTHS)
    for size in (1, 3, None):
        scored = lc.evaluate(first, rows, loss=lc.losses.mse, batch_size=size)
        assert scored["loss"] == pytest.approx(expected, rel=1e-5)


# The past steps as a state ------------------------------------------------------------------------


def chain(first: bool = False) -> lc.Sequential:
    """Of 2 features, with two causal convolutions, dilated and not."""
    return lc.Sequential(
        lc.Conv1D(2, 4, 3, padding="causal", dilation=2, dtype="float64", seed=0),
        lc.GELU(),
        lc.GRU(4, 3, batch_first=first, dtype="float64", seed=1),
        lc.Conv1D(3, 2, 2, padding="causal", dtype="float64", seed=2),
    )


def network(first: bool = False) -> lc.Model:
    """The chain with a path around it, and a bare convolution beside both."""
    x = lc.Input(2)
    y = chain(first)(x) + x
    return lc.Model(x, y + lc.Conv1D(2, 2, 4, padding="causal", dtype="float64", seed=3)(y))


def both(first: bool) -> list[Any]:
    return [chain(first), network(first), lc.Sequential(network(first), lc.Tanh())]


def in_chunks(x: Any, first: bool, lengths: Any) -> Any:
    """Yield parts of a sequence with the lengths that they have."""
    for start, stop in ((0, 2), (2, 3), (3, 3), (3, T)):
        part = x.take(range(start, stop), int(first))
        n = None if lengths is None else np.clip(np.array(lengths) - start, 0, stop - start)
        yield part, n


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("first", [False, True])
def test_chunks_have_the_bits_of_one_call(first: bool, lengths: Any) -> None:
    x = numbers(B, T, 2) if first else numbers(T, B, 2)
    for model in both(first):
        parts, state = [], None
        for part, n in in_chunks(x, first, lengths):
            y, state = model.run(part, state, lengths=n)
            parts.append(y)
        whole, final = model.run(x, lengths=lengths)
        assert_same_bits(np.concatenate(parts, int(first)), whole)
        for one, other in zip(state, final, strict=True):
            assert_same_bits(one, other)
        assert final[0].shape == (4, B, 2)
        row, last = model.run(x[0] if first else x[:, 0])
        assert_same_bits(row, model(x)[0] if first else model(x)[:, 0])
        assert [part.shape for part in last[:2]] == [(4, 2), (1, 3)]
    for model in both(first)[:2]:  # a stream goes on where calls have ended
        _, state = model.run(x, lengths=lengths)
        stream = model.stream(batch_size=B)
        stream.state = state
        expected = model(x, state)
        found = stream.process(x.swapaxes(0, 1) if first else x)
        assert_same_bits(found.swapaxes(0, 1) if first else found, expected)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("first", [False, True])
def test_gradients_cross_chunks_through_the_past(first: bool, lengths: Any) -> None:
    x = numbers(B, T, 2) if first else numbers(T, B, 2)
    for model in both(first):
        tapes, dxs, state = [], [], None
        for part, n in in_chunks(x, first, lengths):
            y, tape = model.forward(part, state, lengths=n)
            tapes.append((tape, y))
            state = tape.state
        whole, tape = model.forward(x, lengths=lengths)
        dy = numbers(*whole.shape, seed=9)
        dstate = tuple(numbers(*part.shape, seed=8) for part in tape.state)
        model.zero_grad()
        dx, initial = model.backward_state(tape, dy, dstate)
        expected = [p.grad.copy() for p in model.parameters()]
        model.zero_grad()
        stop = T
        for tape, y in reversed(tapes):
            start = stop - y.shape[int(first)]
            part = dy.take(range(start, stop), int(first))
            dpart, dstate = model.backward_state(tape, part, dstate)
            dxs.insert(0, dpart)
            stop = start
        np.testing.assert_allclose(np.concatenate(dxs, int(first)), dx, atol=1e-12)
        for one, other in zip(dstate, initial, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)
        for p, grad in zip(model.parameters(), expected, strict=True):
            np.testing.assert_allclose(p.grad, grad, atol=1e-12)


def test_gradients_of_the_past_by_differences() -> None:
    model, x = network(), numbers(3, 1, 2)  # shorter than the past of the first convolution
    y, tape = model.forward(x)
    state = [numbers(*part.shape, seed=i) for i, part in enumerate(tape.state)]
    y, tape = model.forward(x, state)
    dy, dfinal = numbers(*y.shape, seed=7), [numbers(*part.shape, seed=8) for part in tape.state]

    def loss() -> float:
        y, final = model.run(x, state)
        return float(
            (y * dy).sum() + sum((a * b).sum() for a, b in zip(final, dfinal, strict=True))
        )

    _, initial = model.backward_state(tape, dy, dfinal)
    assert [part.shape for part in initial] == [part.shape for part in state]
    for part, gradient in zip(state, initial, strict=True):
        for i in np.ndindex(part.shape):
            value = part[i]
            part[i] = value + 1e-5
            above = loss()
            part[i] = value - 1e-5
            slope = (above - loss()) / 2e-5
            part[i] = value
            assert gradient[i] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("first", [False, True])
def test_a_gradient_of_the_final_past_alone(first: bool) -> None:
    model = network(first)
    x = numbers(B, T, 2) if first else numbers(T, B, 2)
    _, tape = model.forward(x)
    dstate = [None] * len(tape.state)
    dstate[0] = numbers(*tape.state[0].shape, seed=1)
    dx, _ = model.backward_state(tape, None, dstate)
    time_major = dx.swapaxes(0, 1) if first else dx
    np.testing.assert_array_equal(time_major[T - 4 :], dstate[0])
    assert not time_major[: T - 4].any()


@pytest.mark.parametrize("first", [False, True])
def test_generate_goes_on_from_the_past(first: bool) -> None:
    for model in both(first):
        axis = int(first)
        series = prompt = numbers(B, T, 2) if first else numbers(T, B, 2)
        for _ in range(4):
            series = np.concatenate([series, model(series).take([-1], axis)], axis)
        found = lc.generate(model, prompt, 4)
        assert_same_bits(found, series.take(range(T, T + 4), axis))
        lengths = [T, 1, 6, 3]
        ragged = lc.generate(model, prompt, 4, lengths=lengths)
        for b, n in enumerate(lengths):
            row = prompt[b, :n] if first else prompt[:n, b]
            assert_same_bits(ragged[b] if first else ragged[:, b], lc.generate(model, row, 4))


def test_truncated_training_carries_the_past() -> None:
    x, target = numbers(T, B, 2), numbers(T, B, 2, seed=1)
    for make in (chain, network):
        model, twin = make(), make()
        lc.fit(
            model, [(x, target)], loss=lc.losses.mse, epochs=2, truncate=4, progress=False,
            optimizer=lc.optim.SGD(model.parameters(), lr=0.1),
        )  # fmt: skip
        optimizer = lc.optim.SGD(twin.parameters(), lr=0.1)
        for _ in range(2):
            state = None
            for start in range(0, T, 4):
                y, tape = twin.forward(x[start : start + 4], state)
                state = tape.state
                assert np.array_equal(state[0][-len(y) :], x[start : start + 4])
                twin.zero_grad()
                twin.backward(tape, lc.losses.mse(y, target[start : start + 4])[1])
                optimizer.step()
        assert model == twin


def test_an_encoder_and_a_decoder_with_convolutions() -> None:
    """The state that is handed on is that of the recurrent layers."""
    encoder = lc.Sequential(lc.Conv1D(2, 3, 3, padding="causal", seed=0), lc.GRU(3, 4, seed=1))
    decoder = lc.Sequential(lc.GRU(1, 4, seed=2), lc.Conv1D(4, 4, 2, padding="causal", seed=3))
    model = lc.Seq2Seq(encoder, decoder, lc.Linear(4, 1, seed=4))
    source, previous = numbers(T, B, 2, dtype="float32"), numbers(B, 1, dtype="float32")
    found = model.forecast(source, previous, 5)
    forced = np.concatenate([previous[None], found[:-1]])
    assert_same_bits(model((source, forced)), found)
    h = encoder.run(source)[1][1]
    assert_same_bits(model.head(decoder(forced, (h, None))), found)
    model64 = lc.Seq2Seq(
        lc.Sequential(lc.Conv1D(2, 3, 3, padding="causal", dtype="float64"),
                      lc.GRU(3, 4, dtype="float64")),
        lc.Sequential(lc.GRU(1, 4, dtype="float64"),
                      lc.Conv1D(4, 4, 2, padding="causal", dtype="float64")),
        lc.Linear(4, 1, dtype="float64"),
    )  # fmt: skip
    lc.gradcheck(model64, (numbers(4, 2, 2), numbers(3, 2, 1)))


def test_wrong_pasts_are_refused() -> None:
    for model in both(False):
        count = len(model.run(numbers(T, B, 2))[1])
        rest = [None] * (count - 1)
        with pytest.raises(ValueError, match=r"state\[0\] has shape \(3, 4, 2\), .* = \(4, 4, 2\)"):
            model(numbers(T, B, 2), (np.ones((3, B, 2)), *rest))
        with pytest.raises(ValueError, match="one per recurrent layer or causal Conv1D"):
            model(numbers(T, B, 2), (None,))
        _, tape = model.forward(numbers(T, B, 2))
        before = [p.grad.copy() for p in model.parameters()]
        with pytest.raises(ValueError, match=r"dstate\[0\] has shape \(1, 4, 2\)"):
            model.backward_state(tape, numbers(T, B, 2), (np.ones((1, B, 2)), *rest))
        assert all(
            np.array_equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True)
        )
    with pytest.raises(TypeError, match=r"state of Conv1D.* is given, expected None for a symbol"):
        chain().run(lc.Input(2), (lc.Input(2), None, None))


def test_what_cannot_carry_the_past_refuses_it() -> None:
    conv = lc.Conv1D(2, 2, 3, padding="causal", seed=0)
    model = lc.Sequential(conv, lc.GRU(2, 2, seed=1))
    x = numbers(6, 1, 2, dtype="float32")
    with pytest.raises(ValueError, match=r"Conv1D\(2, 2, 3.* has past steps as its state"):
        lc.StateSpace.of(model)
    resets = np.zeros((6, 1), bool)
    with pytest.raises(ValueError, match=r"resets cannot be given to a model with Conv1D\(2, 2, 3"):
        model(x, resets=resets)
    each = lc.Sequential(lc.Conv1D(2, 2, 1, seed=0), lc.GRU(2, 2, seed=1))
    each(x, resets=resets)
    assert lc.generate(each, x, 3).shape == (3, 1, 2)


# Files, copies, options ---------------------------------------------------------------------------


@every_case
def test_files_and_copies(options: dict[str, Any], tmp_path: Path) -> None:
    module = made(options, "float32")
    model = lc.Sequential(module, lc.GELU(), lc.LSTM(O, 2, seed=1))
    x = numbers(T, B, I, dtype="float32")
    symbol = lc.Input(I)
    for i, one in enumerate((module, model, lc.Model(symbol, module(symbol)))):
        lc.save(one, tmp_path / f"{i}.safetensors")
        for twin in (
            lc.load(tmp_path / f"{i}.safetensors"), copy.deepcopy(one),
            pickle.loads(pickle.dumps(one)),
        ):  # fmt: skip
            assert twin == one
            assert repr(twin) == repr(one)
            assert_same_bits(twin(x, lengths=LENGTHS), one(x, lengths=LENGTHS))


def test_changes_of_the_weight_are_seen() -> None:
    module = made({"kernel_size": 3})
    x, dy = numbers(T, B, I), numbers(T - 2, B, O, seed=1)
    y, tape = module.forward(x)
    dx = module.backward(tape, dy)
    module.parameters()[0].data *= 2
    module.parameters()[1].data *= 2
    np.testing.assert_allclose(module(x), 2 * y, rtol=1e-12)
    assert_same_bits(module.backward(tape, dy), dx)  # the tape has its own
    x[...] = np.nan
    assert_same_bits(module.backward(tape, dy), dx)


def test_a_group_does_not_see_the_others() -> None:
    module = made({"kernel_size": 3, "groups": 3})
    x = numbers(T, B, I)
    y = module(x)
    x[:, :, 1] = np.inf
    found = module(x)
    assert_same_bits(found[..., :2], y[..., :2])
    assert_same_bits(found[..., 4:], y[..., 4:])
    assert not np.isfinite(found[..., 2:4]).any()


def test_a_file_names_groups_only_if_there_are_several() -> None:
    """Files of a convolution without them are what they were before there was the option."""
    assert "groups" not in made({"kernel_size": 3})._description()
    assert made({"kernel_size": 3, "groups": 3})._description()["groups"] == 3


def test_parameters_start_as_pytorchs_do() -> None:
    module = lc.Conv1D(8, 200, 5, seed=3)
    assert {name: p.shape for name, p in module.named_parameters()} == {
        "weight": (200, 8, 5), "bias": (200,),
    }  # fmt: skip
    bound = 40**-0.5
    for array in module.state_dict().values():
        assert 0.95 * bound < array.max() <= bound
        assert -bound <= array.min() < -0.95 * bound
    assert module == lc.Conv1D(8, 200, 5, seed=3) != lc.Conv1D(8, 200, 5, seed=4)
    assert repr(module) == "Conv1D(8, 200, 5)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.Conv1D(0, 1, 1), ValueError, "in_channels is 0, expected at least 1"),
        (lambda: lc.Conv1D(1, 1, 0), ValueError, "kernel_size is 0"),
        (lambda: lc.Conv1D(1, 1, (3,)), TypeError, r"kernel_size is \(3,\)"),
        (lambda: lc.Conv1D(1, 1, 1, stride=0), ValueError, "stride is 0"),
        (lambda: lc.Conv1D(1, 1, 1, dilation=1.5), TypeError, "dilation is 1.5"),
        (
            lambda: lc.Conv1D(1, 1, 1, padding=1.0),
            TypeError,
            "padding is 1.0 .*'causal', or an int",
        ),
        (lambda: lc.Conv1D(1, 1, 1, padding=True), TypeError, "padding is True"),
        (lambda: lc.Conv1D(1, 1, 1, padding=-1), ValueError, "padding is -1, expected at least 0"),
        (lambda: lc.Conv1D(1, 1, 1, padding="full"), ValueError, "padding is 'full'"),
        (
            lambda: lc.Conv1D(4, 3, 1, groups=2),
            ValueError,
            "groups is 2, .*divisor of out_channels, 3",
        ),
        (
            lambda: lc.Conv1D(3, 4, 1, groups=2),
            ValueError,
            "groups is 2, .* divisor of in_channels, 3",
        ),
        (lambda: lc.Conv1D(3, 4, 1, groups=0), ValueError, "groups is 0"),
        (lambda: lc.Conv1D(1, 1, 3, 2, "same"), ValueError, "padding is 'same' and stride 2"),
        (lambda: lc.Conv1D(1, 1, 1, bias=1), TypeError, "bias is 1"),
        (lambda: lc.Conv1D(2, 1, 1)(np.ones((4, 3), "f4")), ValueError, r"expected \(T, B, 2\) or"),
        (
            lambda: lc.Conv1D(2, 1, 1, batch_first=True)(np.ones((1, 4, 3), "f4")),
            ValueError,
            r"x has shape \(1, 4, 3\), expected \(B, T, 2\) or \(T, 2\)",
        ),
        (lambda: lc.Conv1D(2, 1, 1)(np.ones((4, 2))), TypeError, "x has dtype float64"),
        (lambda: lc.Conv1D(1, 1, 1)(np.ones((4, 1), "f4"), lengths=5), ValueError, "is 5"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CAUSAL, ids=name_of)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streams_have_the_bits_of_the_model(isa: str, options: dict[str, Any], dtype: str) -> None:
    model = lc.Sequential(
        made(options, dtype), lc.GRU(O, 6, dtype=dtype, seed=1), lc.ReLU(),
        lc.Conv1D(6, 2, 2, padding="causal", dtype=dtype, seed=2),
    )  # fmt: skip
    for batch in (1, 3):
        x = numbers(20, batch, I, dtype=dtype)
        stream = model.stream(batch)
        whole = stream.process(x)
        assert_same_bits(whole, model(x))
        stream.reset()
        parts = [stream.step(frame)[None] for frame in x[:6]]
        parts += [stream.process(x[6:7]), stream.process(x[7:7]), stream.process(x[7:])]
        assert_same_bits(np.concatenate(parts), whole)


def test_the_state_of_a_stream_has_the_past_steps() -> None:
    conv = lc.Conv1D(I, O, 3, padding="causal", dilation=2, seed=0)
    model = lc.Sequential(conv, lc.GRU(O, 6, seed=1))
    x = numbers(9, 2, I, dtype="float32")
    stream = model.stream(2)
    stream.process(x[:5])
    past, h = stream.state
    assert_same_bits(past, x[1:5])
    assert h.shape == (1, 2, 6)
    twins = [stream.copy(), pickle.loads(pickle.dumps(stream)), model.stream(2)]
    twins[2].state = (past, h)
    fresh = model.stream(2)
    fresh.state = (None, None)
    y = stream.process(x[5:])
    for twin in twins:
        assert_same_bits(twin.process(x[5:]), y)
    assert_same_bits(fresh.process(x), model(x))
    stream.reset([1])
    again = stream.process(x)
    assert_same_bits(again[:, 1], model(x)[:, 1])
    assert not np.allclose(again[:, 0], model(x)[:, 0])
    with pytest.raises(ValueError, match=r"state\[0\] has shape \(3, 2, 3\), .* = \(4, 2, 3\)"):
        stream.state = (past[1:], h)
    for p in conv.parameters():
        p.data *= 2  # a stream keeps the weights that it was made with
    assert_same_bits(fresh.copy().process(x[:1]), fresh.process(x[:1]))


@pytest.mark.parametrize(
    "options",
    [case for case in CASES if case not in CAUSAL],
    ids=name_of,
)
def test_what_is_not_causal_is_not_streamed(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"module 0, Conv1D.* needs the whole sequence"):
        lc.Sequential(made(options), lc.Linear(O, 2, dtype="float64")).stream()


# Other libraries ----------------------------------------------------------------------------------


@every_case
def test_pytorch_there_and_back(options: dict[str, Any]) -> None:
    torch = peers.require("torch")
    module = made(options, "float32")
    if options.get("padding") == "causal":
        with pytest.raises(ValueError, match="padding='causal' cannot be written to PyTorch"):
            lc.to_torch(module)
        return
    model = lc.Sequential(module, lc.BatchNorm(O), lc.ReLU())
    for ours in (module, model):
        theirs = lc.to_torch(ours).eval()
        assert lc.from_torch(theirs) == ours
        x = numbers(B, 12, I, dtype="float32")
        with torch.no_grad():
            expected = theirs(torch.tensor(x).transpose(1, 2)).transpose(1, 2).numpy()
        np.testing.assert_allclose(ours(x.swapaxes(0, 1)).swapaxes(0, 1), expected, atol=1e-6)


def test_pytorch_options() -> None:
    nn = peers.require("torch").nn
    for padding, name in ((0, "valid"), (2, "same"), ("same", "same"), ("valid", "valid")):
        assert lc.from_torch(nn.Conv1d(I, O, 3, dilation=2, padding=padding)).padding == name
    assert lc.from_torch(nn.Conv1d(I, O, 1, padding="same")).padding == "same"
    assert lc.from_torch(nn.Conv1d(I, O, 3, dilation=2, padding=2, stride=2)).padding == 2
    with pytest.raises(ValueError, match="padding_mode='circular'"):
        lc.from_torch(nn.Conv1d(I, 6, 3, padding_mode="circular"))
    for other in (nn.Linear(O, 2), nn.LayerNorm(O), nn.Softmax(-1), nn.GRU(O, 2)):
        with pytest.raises(ValueError, match="stands beside a Conv1D"):
            lc.from_torch(nn.Sequential(nn.Conv1d(I, O, 3), other))
    with pytest.raises(ValueError, match=r"GRU\(6, 2\) stands beside a Conv1D"):
        lc.to_torch(lc.Sequential(lc.Conv1D(I, O, 3), lc.GRU(O, 2)))


@every_case
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_onnx_there_and_back(options: dict[str, Any], batch_first: bool, lengths: bool) -> None:
    peers.require("onnx")
    runtime = peers.require("onnxruntime")
    from lstmcore.onnx._importing import graph_of

    first = lc.GRU(I, I, batch_first=batch_first, seed=4)
    more = lc.GRU(O, 4, batch_first=batch_first, bidirectional=True, seed=5)
    conv = made(options, "float32")
    models = [
        lc.Sequential(conv, lc.ELU()),
        lc.Sequential(first, conv, more),
        lc.Sequential(lc.Tanh(), conv, more, lc.MeanPool(), lc.Linear(8, 2, seed=6)),
    ]
    for model in models:
        proto = lc.to_onnx(model, lengths=lengths)
        assert lc.from_onnx(proto) == model
        x = numbers(T, B, I, dtype="float32")
        feed = {"x": x.swapaxes(0, 1).copy() if model.batch_first else x}
        if lengths:
            feed["lengths"] = np.array(LENGTHS)
        expected = model(**feed)
        session = runtime.InferenceSession(proto.SerializeToString())
        found = [session.run(None, feed)[0], graph_of(proto)(**feed)]
        for y in found:
            assert y.shape == expected.shape
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_pytorchs_own_export_runs() -> None:
    onnx, torch = peers.require("onnx"), peers.require("torch")
    from onnx import helper, numpy_helper

    theirs = torch.nn.Conv1d(6, 4, 3, stride=2, padding=1, dilation=2, groups=2)
    weight, bias = (p.detach().numpy() for p in theirs.parameters())
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], strides=[2], pads=[1, 1], dilations=[2], group=2
    )
    pools = [helper.make_node(f"Global{kind}Pool", ["y"], [kind]) for kind in ("Average", "Max")]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node, *pools], "conv",
        [helper.make_tensor_value_info("x", kind, ["B", 6, "T"])],
        [helper.make_tensor_value_info(n, kind, None) for n in ("y", "Average", "Max")],
        [numpy_helper.from_array(a, n) for a, n in ((weight, "w"), (bias, "b"))],
    )  # fmt: skip
    model = lc.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    x = numbers(2, 6, 15, dtype="float32")
    expected = theirs(torch.tensor(x)).detach().numpy()
    y, mean, most = model(x)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(mean, expected.mean(-1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(most, expected.max(-1, keepdims=True), atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@every_case
def test_keras_there_and_back(options: dict[str, Any]) -> None:
    keras = peers.require("keras")
    model = lc.Sequential(
        made(options, "float32", batch_first=True), lc.GRU(O, 4, batch_first=True, seed=1),
        lc.MeanPool(batch_first=True),
    )  # fmt: skip
    if options.get("stride", 1) > 1 and options.get("dilation", 1) > 1:
        with pytest.raises(ValueError, match="no stride and dilation at once"):
            lc.to_keras(model)
        return
    theirs = lc.to_keras(model)
    x = numbers(B, T, I, dtype="float32")
    expected = keras.ops.convert_to_numpy(theirs(x))
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    back = lc.from_keras(theirs)
    if isinstance(options.get("padding"), int):  # a layer of its own there
        assert (
            repr(back[0]) == f"Pad1D({options['padding']}, {options['padding']}, batch_first=True)"
        )
    else:
        assert back[0] == model[0]
    np.testing.assert_allclose(back(x), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras's, of a mask that is lost
def test_keras_options() -> None:
    keras = peers.require("keras")
    layers = keras.layers

    def model(*made: Any) -> Any:
        return keras.Sequential([layers.Input((T, I)), *made])

    x = numbers(B, T, I, dtype="float32")
    theirs = model(layers.Conv1D(4, 3, activation="gelu"), layers.GlobalMaxPooling1D())
    ours = lc.from_keras(theirs)
    assert [type(m).__name__ for m in ours] == ["Conv1D", "GELU", "MaxPool"]
    np.testing.assert_allclose(ours(x), keras.ops.convert_to_numpy(theirs(x)), atol=1e-6)
    with pytest.raises(ValueError, match="has data_format='channels_first'"):
        lc.from_keras(model(layers.Conv1D(3, 3, data_format="channels_first")))
    masked = model(layers.Masking(), layers.Conv1D(4, 3))
    found = lc.from_keras(masked)(x)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(masked(x)), atol=1e-6)
    with pytest.raises(ValueError, match="its Conv1D overlooks masks"):
        lc.to_keras(lc.Sequential(lc.Masking(), lc.Conv1D(I, 4, 3), lc.GRU(4, 2)))
