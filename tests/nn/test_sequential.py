"""Sequential: against its modules by hand, PyTorch and central differences; what it refuses."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient, parameter_gradient
from helpers.peers import require
from lstmcore._base import checks
from lstmcore._base.module import Module

Array = np.ndarray[Any, np.dtype[Any]]

T, B, F = 6, 4, 3
X = np.random.default_rng(0).standard_normal((T, B, F))
LENGTHS = [6, 4, 1, 0]
D: dict[str, Any] = {"dtype": "float64"}


def tagger(**options: Any) -> lc.Sequential:
    """An output per step."""
    return lc.Sequential(
        lc.Linear(F, 5, seed=1, **D),
        lc.Tanh(),
        lc.LSTM(5, 4, num_layers=2, seed=2, **D, **options),
        lc.Sequential(lc.LayerNorm(4, **D), lc.GRU(4, 3, seed=3, **D, **options)),
        lc.Linear(3, 2, seed=4, **D),
    )


def classifier(pool: Any = lc.MeanPool, **options: Any) -> lc.Sequential:
    """An output per sequence."""
    return lc.Sequential(
        lc.GRU(F, 4, bidirectional=True, seed=1, **D, **options),
        pool(),
        lc.ReLU(),
        lc.Linear(8, 3, seed=2, **D),
        lc.Softmax(),
    )


# What it computes ---------------------------------------------------------------------------------


def test_is_its_modules_one_after_the_other() -> None:
    model = tagger()
    resets = np.random.default_rng(1).random((T, B)) < 0.2
    state = ((np.ones((2, B, 4)), None), np.ones((1, B, 3)))
    linear, tanh, lstm, inner, head = model
    norm, gru = inner
    a, end0 = lstm(tanh(linear(X)), state[0], lengths=LENGTHS, resets=resets)
    b, end1 = gru(norm(a), state[1], lengths=LENGTHS, resets=resets)
    y, final = model.run(X, state, lengths=LENGTHS, resets=resets)
    assert_same_bits(y, head(b))
    assert_same_bits(model(X, state, lengths=LENGTHS, resets=resets), y)
    assert_same_bits(np.array(final[0]), np.array(end0))
    assert_same_bits(final[1], end1)
    trained, tape = model.forward(X, state, lengths=LENGTHS, resets=resets)
    assert_same_bits(trained, y)
    assert_same_bits(np.array(tape.state[0]), np.array(end0))
    assert_same_bits(tape.state[1], end1)
    assert len(tape.tapes) == 6
    assert tape.nbytes == sum(t.nbytes for t in tape.tapes) > 0


@pytest.mark.parametrize("pool", [lc.LastStep, lc.MeanPool, lc.MaxPool])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_are_those_of_differences(pool: Any, lengths: Any) -> None:
    for model in (tagger(), classifier(pool)):
        y, tape = model.forward(X, lengths=lengths)
        dy = np.random.default_rng(2).standard_normal(y.shape)
        model.zero_grad()
        dx = model.backward(tape, dy)

        def loss(x: Array, model: Any = model, dy: Array = dy) -> float:
            return float((model(x, lengths=lengths) * dy).sum())

        np.testing.assert_allclose(dx, numeric_gradient(loss, X), atol=1e-8)
        for name, p in model.named_parameters():
            expected = parameter_gradient(p, partial(loss, X))
            np.testing.assert_allclose(p.grad, expected, atol=1e-7, err_msg=name)


def test_gradients_through_the_states() -> None:
    model = tagger()
    rng = np.random.default_rng(3)
    h, c, g = rng.standard_normal((2, B, 4)), rng.standard_normal((2, B, 4)), np.ones((1, B, 3))
    y, tape = model.forward(X, ((h, c), g))
    dy = rng.standard_normal(y.shape)
    dh, dg = rng.standard_normal(h.shape), rng.standard_normal(g.shape)
    dx, (lstm, gru) = model.backward_state(tape, dy, ((dh, None), dg))

    def loss(x: Array, h: Array, c: Array, g: Array) -> float:
        y, ((h_end, _), g_end) = model.run(x, ((h, c), g))
        return float((y * dy).sum() + (h_end * dh).sum() + (g_end * dg).sum())

    np.testing.assert_allclose(dx, numeric_gradient(lambda x: loss(x, h, c, g), X), atol=1e-8)
    expected = numeric_gradient(lambda h: loss(X, h, c, g), h)
    np.testing.assert_allclose(lstm[0], expected, atol=1e-8)
    expected = numeric_gradient(lambda c: loss(X, h, c, g), c)
    np.testing.assert_allclose(lstm[1], expected, atol=1e-8)
    np.testing.assert_allclose(gru, numeric_gradient(lambda g: loss(X, h, c, g), g), atol=1e-8)

    encoder = lc.Sequential(lc.Linear(F, 4, seed=0, **D), lc.RNN(4, 4, seed=1, **D))
    _, tape = encoder.forward(X)
    dx, _ = encoder.backward_state(tape, None, (np.ones((1, B, 4)),))
    expected = numeric_gradient(lambda x: float(encoder.run(x)[1][0].sum()), X)
    np.testing.assert_allclose(dx, expected, atol=1e-8)


def test_against_pytorch() -> None:
    """An embedding, a bidirectional LSTM of sequences with lengths, a mean, a head."""
    torch = require("torch")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Embedding(11, 5, padding_idx=0),
        nn.LSTM(5, 4, num_layers=2, bidirectional=True),
        nn.LayerNorm(8),
        nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)),
    ).double()
    ours = lc.Sequential(
        lc.Embedding(11, 5, padding_idx=0, **D),
        lc.LSTM(5, 4, num_layers=2, bidirectional=True, **D),
        lc.MeanPool(),
        lc.LayerNorm(8, **D),
        lc.Sequential(lc.Linear(8, 6, **D), lc.Tanh(), lc.Linear(6, 3, **D)),
    )

    def renamed(name: str) -> str:  # ours has the pooling as a module
        number, rest = name.split(".", 1)
        return f"{int(number) + (int(number) > 1)}.{rest}"

    ours.load_state_dict({renamed(k): v for k, v in theirs.state_dict().items()})
    ids = np.random.default_rng(5).integers(1, 11, (T, B))
    lengths = [6, 4, 1, 3]
    ids[np.arange(T)[:, None] >= lengths] = 0

    embedding, lstm, norm, head = theirs
    packed = nn.utils.rnn.pack_padded_sequence(
        embedding(torch.from_numpy(ids)), torch.tensor(lengths), enforce_sorted=False
    )
    states, _ = nn.utils.rnn.pad_packed_sequence(lstm(packed)[0])
    expected = head(norm(states.sum(0) / torch.tensor(lengths)[:, None]))
    y, tape = ours.forward(ids, lengths=lengths)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
    target = np.array([0, 2, 1, 2])
    _, dy = lc.losses.cross_entropy(y, target)
    torch.nn.functional.cross_entropy(expected, torch.from_numpy(target)).backward()
    assert ours.backward(tape, dy) is None  # ids have no gradient
    grads = {renamed(name): p.grad.numpy() for name, p in theirs.named_parameters()}
    assert [name for name, _ in ours.named_parameters()] == list(grads)
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad, grads[name], atol=1e-11, err_msg=name)


def test_carries_its_state_across_chunks() -> None:
    model = tagger()
    whole = model(X)
    y, state = model.run(X[:2])
    rest, _ = model.run(X[2:], state)
    np.testing.assert_allclose(np.concatenate([y, rest]), whole, rtol=1e-13)
    _, tape = model.forward(X[:2])
    rest, tape = model.forward(X[2:], tape.state)
    np.testing.assert_allclose(rest, whole[2:], rtol=1e-13)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_batch_first(lengths: Any) -> None:
    turned = X.swapaxes(0, 1)
    assert_same_bits(
        tagger(batch_first=True)(turned, lengths=lengths).swapaxes(0, 1),
        tagger()(X, lengths=lengths),
    )
    for pool in (lc.LastStep, lc.MeanPool, lc.MaxPool):
        model, plain = classifier(pool, batch_first=True), classifier(pool)
        assert model.batch_first
        assert not plain.batch_first
        y, tape = model.forward(turned, lengths=lengths)
        expected, plain_tape = plain.forward(X, lengths=lengths)
        assert_same_bits(y, expected)
        assert_same_bits(model.backward(tape, y).swapaxes(0, 1), plain.backward(plain_tape, y))


@pytest.mark.parametrize("length", [None, 4, 0])
@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched(length: Any, batch_first: bool) -> None:
    lengths = None if length is None else [length]
    for make in (tagger, classifier):
        plain = make()
        model = make(batch_first=batch_first)
        y, tape = model.forward(X[:, 0], lengths=length)
        expected, batched = plain.forward(X[:, :1], lengths=lengths)
        expected = expected[:, 0] if make is tagger else expected[0]
        np.testing.assert_allclose(y, expected, rtol=1e-13)
        dy = np.ones_like(y)
        expected_dx = plain.backward(batched, dy[:, None] if make is tagger else dy[None])
        np.testing.assert_allclose(model.backward(tape, dy), expected_dx[:, 0], atol=1e-14)


def test_last_step_gives_the_last_valid_step_of_each_row() -> None:
    gru = lc.GRU(F, 4, seed=0, **D)
    model = lc.Sequential(gru, lc.LastStep())
    y = model(X, lengths=LENGTHS)
    assert_same_bits(y[:3], gru(X, lengths=LENGTHS)[1][0, :3])
    assert not y[3].any()
    both = lc.GRU(F, 4, bidirectional=True, seed=0, **D)
    states, h = both(X, lengths=LENGTHS)
    y = lc.Sequential(both, lc.LastStep())(X, lengths=LENGTHS)
    assert_same_bits(y[:3, :4], h[0, :3])
    assert_same_bits(y[0], states[5, 0])
    assert_same_bits(states[0, :3, 4:], h[1, :3])
    y = lc.Sequential(both, lc.BothEnds())(X, lengths=LENGTHS)
    assert_same_bits(y[:3], np.concatenate([h[0, :3], h[1, :3]], axis=1))


def test_lists_and_other_numbers() -> None:
    model = lc.Sequential(lc.GRU(F, 4, seed=0), lc.LastStep(), lc.Linear(4, 2, seed=1))
    x = np.arange(T * B * F).reshape(T, B, F)
    expected = model(x.astype("float32"), lengths=LENGTHS)
    assert_same_bits(model(x.tolist(), lengths=tuple(LENGTHS)), expected)
    assert_same_bits(model(x.astype("int8"), lengths=np.array(LENGTHS)), expected)
    y, tape = model.forward(x.astype("float16"), lengths=LENGTHS)
    model.backward(tape, y.tolist())


def test_dropout_only_in_forward() -> None:
    model = lc.Sequential(lc.GRU(F, 4, seed=0, **D), lc.Dropout(0.5, seed=1))
    twin = pickle.loads(pickle.dumps(model))
    first, second = model.forward(X)[0], model.forward(X)[0]
    assert not np.array_equal(first, second)
    assert_same_bits(model(X), model[0](X)[0])
    assert_same_bits(twin.forward(X)[0], first)
    assert_same_bits(copy.deepcopy(twin).forward(X)[0], second)


def test_trains_like_a_loop_by_hand() -> None:
    model, (gru, head) = (
        lc.Sequential(lc.GRU(F, 4, seed=0), lc.Linear(4, 2, seed=1)) for _ in "ab"
    )
    x, target = X.astype("float32"), np.zeros((T, B), int)
    ours = lc.optim.Adam(model.parameters(), lr=0.01)
    theirs = lc.optim.Adam([*gru.parameters(), *head.parameters()], lr=0.01)
    for _ in range(10):
        y, tape = model.forward(x, lengths=LENGTHS)
        loss, dy = lc.losses.cross_entropy(y, target, LENGTHS)
        model.zero_grad()
        dx = model.backward(tape, dy)
        ours.step()
        a, _, t0 = gru.forward(x, lengths=LENGTHS)
        b, t1 = head.forward(a)
        expected, db = lc.losses.cross_entropy(b, target, LENGTHS)
        theirs.zero_grad()
        expected_dx, _ = gru.backward(t0, head.backward(t1, db))
        theirs.step()
        assert loss == expected
        assert_same_bits(dx, expected_dx)
    for p, q in zip(model.parameters(), [*gru.parameters(), *head.parameters()], strict=True):
        assert_same_bits(p.data, q.data)


# A container --------------------------------------------------------------------------------------


def test_names_are_pytorchs() -> None:
    torch = require("torch")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Linear(3, 5), nn.Sequential(nn.ReLU(), nn.LSTM(5, 4)), nn.LayerNorm(4)
    )
    ours = lc.Sequential(lc.Linear(3, 5), lc.Sequential(lc.ReLU(), lc.LSTM(5, 4)), lc.LayerNorm(4))
    names = list(theirs.state_dict())
    assert list(ours.state_dict()) == [name for name, _ in ours.named_parameters()] == names
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    assert ours.num_parameters == sum(p.numel() for p in theirs.parameters())
    assert ours.parameters()[0] is ours[0].parameters()[0]
    prefixed = {f"model.{k}": v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(prefixed, prefix="model.")


def test_indexing() -> None:
    model = tagger()
    assert len(model) == len(list(model)) == 5
    assert model[0] is next(iter(model))
    assert model[-1] is model[4]
    assert isinstance(model[1], lc.Tanh)
    part = model[:2]
    assert isinstance(part, lc.Sequential)
    assert len(part) == 2
    assert part[0] is model[0]
    assert_same_bits(model[2:](part(X)), model(X))
    with pytest.raises(IndexError):
        model[5]
    with pytest.raises(ValueError, match="modules is empty"):
        model[5:]


def test_repr_copies_and_options() -> None:
    model = lc.Sequential(
        lc.Embedding(9, 4), lc.Sequential(lc.LSTM(4, 3, seed=0), lc.LastStep()), lc.Linear(3, 2)
    )
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Embedding(9, 4)\n"
        "  (1): Sequential(\n"
        "    (0): LSTM(4, 3)\n"
        "    (1): LastStep()\n"
        "  )\n"
        "  (2): Linear(3, 2)\n"
        ")"
    )
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin == model
        ids = np.array([[1, 2], [3, 4]])
        assert_same_bits(twin(ids), model(ids))
        for p in twin.parameters():
            p.data += 1
            assert twin != model
            p.data -= 1
        assert twin[1][0] is not model[1][0]
    options = json.loads(json.dumps(tagger()._options()))
    assert [part["type"] for part in options["modules"]] == [
        "Linear", "Tanh", "LSTM", "Sequential", "Linear",
    ]  # fmt: skip
    assert options["modules"][0]["out_features"] == 5
    assert tagger() == tagger()
    assert tagger() != tagger(batch_first=True)
    assert lc.Sequential(lc.Tanh()) != lc.Sequential(lc.Tanh(), lc.Tanh())
    assert lc.Sequential(lc.Tanh()) != lc.Sequential(lc.Sequential(lc.Tanh()))
    _, tape = tagger().forward(X)
    assert repr(tape) == f"<SequentialTape of 6 modules, {tape.nbytes} bytes>"


def test_resets_all_parameters_from_one_seed() -> None:
    model, other = tagger(), tagger()
    model.reset_parameters(7)
    assert model != other
    other.reset_parameters(7)
    assert model == other
    values = np.concatenate([p.data.ravel() for p in (model[0], model[4]) for p in p.parameters()])
    assert len(np.unique(values)) == len(values)  # each module has a stream of its own
    other.reset_parameters(8)
    assert model != other


def test_loading_that_fails_changes_nothing() -> None:
    model = tagger()
    before, y = model.state_dict(), model(X)
    state = {name: np.zeros_like(a) for name, a in before.items()}
    del state["0.bias"]
    state["4.weight"] = np.zeros((2, 4))
    state["5.weight"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"state_dict does not fit Sequential") as caught:
        model.load_state_dict(state)
    for text in ("missing: 0.bias", "unexpected: 5.weight", "4.weight has shape (2, 4)"):
        assert text in str(caught.value)
    for name, p in model.named_parameters():
        assert_same_bits(p.data, before[name])
    assert_same_bits(model(X), y)
    model.load_state_dict({name: a * 2 for name, a in before.items()})
    assert not np.array_equal(model(X), y)  # nothing stale is left of the packed weights


def test_a_module_without_parameters_may_stand_twice() -> None:
    tanh = lc.Tanh()
    model = lc.Sequential(tanh, tanh)
    y, tape = model.forward([0.5])
    np.testing.assert_array_equal(y, np.tanh(np.tanh([0.5])))
    np.testing.assert_allclose(model.backward(tape, [1.0]), (1 - y**2) * (1 - np.tanh(0.5) ** 2))
    assert model.dtype is None


# What it refuses ----------------------------------------------------------------------------------

LINEAR = lc.Linear(3, 3)


@pytest.mark.parametrize(
    ("modules", "error", "message"),
    [
        (list, ValueError, "modules is empty, expected at least one"),
        (lambda: [lc.Tanh], TypeError, r"modules\[0\] is .*Tanh.*, expected a module"),
        (lambda: [LINEAR, np.tanh], TypeError, r"modules\[1\] is .*, expected a module"),
        (lambda: [[LINEAR]], TypeError, r"\(list\), expected a module: of a list, Sequential\("),
        (
            lambda: [LINEAR, lc.LSTMCell(3, 4)],
            TypeError,
            r"modules\[1\] is LSTMCell\(3, 4\), which takes more than one x.*LSTM rather than",
        ),
        (lambda: [lc.attention.ScaledDotProduct()], TypeError, r"modules\[0\] is ScaledDotProduct"),
        (
            lambda: [lc.LSTM(3, 32), lc.Linear(16, 2)],
            ValueError,
            r"module 1, Linear\(16, 2\), takes 16 features, but the module before it gives 32",
        ),
        (
            lambda: [lc.LSTM(3, 32, bidirectional=True), lc.Dropout(), lc.Linear(32, 2)],
            ValueError,
            r"module 2, Linear\(32, 2\), takes 32 features, .* gives 64",
        ),
        (
            lambda: [lc.Sequential(lc.Embedding(9, 4), lc.Tanh()), lc.Sequential(lc.GRU(5, 6))],
            ValueError,
            r"module 1\.0, GRU\(5, 6\), takes 5 features, .* gives 4",
        ),
        (lambda: [LINEAR, lc.LayerNorm(4)], ValueError, "takes 4 features"),
        (
            lambda: [lc.Linear(3, 3, dtype="float64"), lc.GRU(3, 4)],
            ValueError,
            r"module 1, GRU\(3, 4\), has dtype=float32, but module 0, Linear\(3, 3, "
            r"dtype=float64\), has dtype=float64: expected the same",
        ),
        (
            lambda: [lc.GRU(3, 4, batch_first=True), lc.GRU(4, 4)],
            ValueError,
            r"module 1, GRU\(4, 4\), has batch_first=False, but module 0, GRU\(3, 4, "
            r"batch_first=True\), has batch_first=True",
        ),
        (
            lambda: [lc.GRU(3, 4, batch_first=True), lc.LastStep(batch_first=False)],
            ValueError,
            "module 1, .*has batch_first=False",
        ),
        (lambda: [LINEAR, lc.Embedding(3, 4)], ValueError, r"module 1, Embedding.* takes ids"),
        (
            lambda: [lc.GRU(3, 4), lc.MaxPool(), lc.GRU(4, 4)],
            ValueError,
            r"module 2, GRU\(4, 4\), needs time steps, but module 1, MaxPool\(\), leaves none",
        ),
        (lambda: [lc.LastStep(), lc.MeanPool()], ValueError, "module 1, .* needs time steps"),
        (
            lambda: [LINEAR, lc.Sequential(LINEAR)],
            ValueError,
            r"modules 0 and 1\.0 are the same Linear\(3, 3\), expected .* once",
        ),
    ],
)
def test_what_cannot_follow_each_other(
    modules: Callable[[], list[Any]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lc.Sequential(*modules())


class Named(lc.GRU):
    """A class of a user's that computes as GRU does."""


class OwnGRU(lc.GRU):
    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().forward(2 * x, *args, **kwargs)


class OwnPool(lc.MeanPool):
    def __call__(self, x: Any, **kwargs: Any) -> Any:
        return 2 * super().__call__(x, **kwargs)


class OwnModel(lc.Sequential):
    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().__call__(x, *args, **kwargs)


class Scaled(lc.Embedding):
    def __call__(self, x: Any) -> Any:
        return 2 * super().__call__(x)


def test_classes_of_a_users_own() -> None:
    """What they compute in their own way is called, or refused where a Sequential does not."""
    x = np.ones((4, 2, 3), "float32")
    assert (lc.Sequential(Named(3, 4, seed=0))(x) == lc.GRU(3, 4, seed=0)(x)[0]).all()
    own: Any
    for own, name in (
        (OwnGRU(3, 3), "forward"), (OwnPool(), "__call__"), (OwnModel(lc.Tanh()), "__call__"),
    ):  # fmt: skip
        with pytest.raises(
            TypeError, match=rf"modules\[1\] is a {type(own).__name__}, .* {name} a"
        ):
            lc.Sequential(lc.Linear(3, 3), own)
    ids, gru = [[0, 1], [1, 0]] * 9, lc.GRU(3, 4, seed=0)  # few, so that they could be looked up
    scaled = Scaled(2, 3, seed=0)
    assert (lc.Sequential(scaled, gru)(ids) == gru(scaled(ids))[0]).all()


def test_lengths_are_checked_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lc.Sequential(lc.GRU(3, 4, seed=0), lc.Flip(), lc.LSTM(4, 5, seed=1), lc.MeanPool())
    x, checked = np.ones((6, 2, 3), "float32"), []
    whole = checks.integers
    monkeypatch.setattr(checks, "integers", lambda v, n: checked.append(n) or whole(v, n))
    lengths = np.array([6, 2])
    y, tape = model.forward(x, lengths=lengths)
    assert checked == ["lengths"]
    dx = model.backward(tape, np.ones_like(y))
    lengths[:] = 1  # of the user's; those of the tape are its own
    assert_same_bits(model.backward(tape, np.ones_like(y)), dx)
    with pytest.raises(
        ValueError, match=r"lengths\[0\] is 7, expected 0 to 6, the time steps of x"
    ):
        model(x, lengths=[7, 1])


class Halves(Module):
    """A module of a user's own, which writes forward and backward and nothing else."""

    def forward(self, x: Any) -> Any:
        return x / 2, x.shape

    def backward(self, tape: Any, dy: Any) -> Any:
        return dy / 2


def test_a_module_of_a_users_own(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("float32")
    first, second = lc.GRU(3, 4, seed=0), lc.Linear(4, 2, seed=1)
    model = lc.Sequential(first, Halves(), second)
    y, tape = model.forward(x, lengths=[5, 3])
    hidden, _, gru_tape = first.forward(x, lengths=[5, 3])
    expected, linear_tape = second.forward(hidden / 2)
    assert_same_bits(y, expected)
    assert_same_bits(model(x, lengths=[5, 3]), y)
    assert tape.nbytes == gru_tape.nbytes + linear_tape.nbytes
    dx = model.backward(tape, np.ones_like(y))
    grads = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    dhidden = second.backward(linear_tape, np.ones_like(y)) / 2
    assert_same_bits(dx, first.backward(gru_tape, dhidden)[0])
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert_same_bits(p.grad, grad)
    assert repr(model[1]) == "Halves()"
    assert model == copy.deepcopy(model)
    with pytest.raises(
        TypeError, match=r"module 1, Halves\(\), is a Halves, whose own forward a st"
    ):
        model.stream()
    lc.save(model, tmp_path / "model")
    assert lc.load(tmp_path / "model", into=copy.deepcopy(model)) == model
    with pytest.raises(ValueError, match="takes ids: expected it first"):
        lc.Sequential(Halves(), lc.Masking(ids=True), lc.Embedding(3, 4))


def test_a_module_of_a_users_own_trains() -> None:
    model = lc.Sequential(lc.Linear(3, 4, seed=0), Halves(), lc.Linear(4, 1, seed=1))
    x = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
    data = (x, x.sum(axis=1, keepdims=True))
    adam = lc.optim.Adam(model.parameters(), lr=0.05)
    history = lc.fit(
        model, data, loss=lc.losses.mse, optimizer=adam, epochs=60, validation=data, progress=False
    )
    assert history.losses[-1] < 0.1 * history.losses[0]
    alone = lc.evaluate(Halves(), (x, x / 2), loss=lc.losses.mse, batch_size=7)
    assert alone["loss"] == 0


def test_a_read_only_gradient_changes_nothing() -> None:
    model = tagger()
    y, tape = model.forward(X)
    name, first = next(iter(model.named_parameters()))
    first.grad.flags.writeable = False
    with pytest.raises(ValueError, match=rf"^{name}\.grad is read-only"):
        model.backward(tape, y)
    assert not any(p.grad.any() for p in model.parameters())
    first.grad.flags.writeable = True
    model.backward(tape, y)
    assert all(p.grad.any() for p in model.parameters())


def test_wrong_calls_change_nothing() -> None:
    model, other = tagger(), tagger()
    y, tape = model.forward(X)
    h = np.zeros((2, B, 4))
    g = np.zeros((1, B, 3))
    before = model.state_dict()
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: model(X[..., :2]), ValueError, "x has shape (6, 4, 2), expected (..., 3)"),
        (lambda: model(X.astype("f4")), TypeError, "x has dtype float32, expected float64"),
        (lambda: model(X, lengths=[7, 0, 0, 0]), ValueError, "lengths[0] is 7, expected 0 to 6"),
        (lambda: model(X, lengths=[1]), ValueError, "lengths has shape (1,)"),
        (lambda: model(X, resets=np.zeros((B, T), bool)), ValueError, "resets has shape (4, 6)"),
        (lambda: model(X, h), TypeError, "state is a ndarray of shape (2, 4, 4), expected a tuple"),
        (lambda: model(X, (g,)), ValueError, "state has 1 entries, expected 2, one per recurrent"),
        (lambda: model(X, ((h, h), g[..., :2])), ValueError, "h0 of state[1] has shape"),
        (lambda: model(X, (h, None)), TypeError, "state[0] is a ndarray"),
        (lambda: model(X, ((h, h[:1]), g)), ValueError, "c0 of state[0] has shape (1, 4, 4)"),
        (lambda: model.backward(None, y), TypeError, "tape is None (NoneType), expected a Sequen"),
        (lambda: model.backward(tape.tapes[0], y), TypeError, "expected a SequentialTape"),
        (lambda: other.backward(tape, y), ValueError, "tape was made by another layer"),
        (lambda: model.backward(tape, y[:2]), ValueError, "dy has shape (2, 4, 2), expected (6"),
        (lambda: model.backward(tape, None), TypeError, "dy has dtype object"),
        (lambda: model.backward_state(tape, y, (h, g)), TypeError, "dstate[0] is a ndarray"),
        (
            lambda: model.backward_state(tape, y, ((h, h), h)),
            ValueError,
            "dh of dstate[1] has shape (2, 4, 4)",
        ),
        (lambda: model.backward_state(tape, y, (None,)), ValueError, "dstate has 1 entries"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=re.escape(message)):
            call()
    for name, p in model.named_parameters():
        assert_same_bits(p.data, before[name])
        assert not p.grad.any(), name
    model.backward(tape, y)


class _Seen(lc.Module):
    """One's own without parameters, which notes that backward has been there."""

    def __init__(self) -> None:
        self.seen = 0

    def forward(self, x: Any) -> Any:
        return x, None

    def backward(self, tape: Any, dy: Any) -> Any:
        self.seen += 1
        return dy


@pytest.mark.parametrize(
    "make",
    [
        lambda: [lc.LSTM(3, 4, seed=0), lc.LastStep(), lc.Linear(4, 2, seed=1)],
        lambda: [lc.Dropout(0.5, seed=0), lc.GRU(3, 4, 2, bidirectional=True, seed=1)],
        lambda: [lc.LayerNorm(3), lc.RNN(3, 4, seed=1), lc.GRU(4, 4, seed=2)],
        lambda: [lc.Tanh(), lc.Linear(3, 4, seed=0), lc.LSTM(4, 3, proj_size=2, seed=1)],
        lambda: [lc.GRU(3, 4, input_dropout=0.3, dropout=0.2, num_layers=2, seed=1)],
        lambda: [lc.Masking(), lc.LSTM(3, 4, weight_dropout=0.3, seed=1)],
        lambda: [lc.Conv1D(3, 4, 2, padding="causal", seed=0), lc.GRU(4, 2, seed=1)],
    ],
)
def test_gradients_without_that_of_x(make: Any) -> None:
    """What training leaves out changes no gradient of a parameter."""
    x = np.random.default_rng(0).standard_normal((5, 6, 3)).astype("f4")
    found = []
    for add in ("backward", "_add_gradients"):
        model = lc.Sequential(*make())
        y, tape = model.forward(x)
        getattr(model, add)(tape, np.ones_like(y))
        found.append([p.grad for p in model.parameters()])
    assert_same_bits(found[0], found[1])
    assert all(gradient.any() for gradient in found[0])


def test_training_asks_nobody_for_a_gradient_of_x_in_vain() -> None:
    """But modules of one's own, and classes with a backward of their own, it does ask."""
    x = np.ones((5, 6, 3), "f4")
    seen, asked = _Seen(), []

    class Asked(lc.LSTM):
        def backward(self, tape: Any, dy: Any, dstate: Any = None) -> Any:
            asked.append("layer")
            return super().backward(tape, dy, dstate)

    class Around(lc.Sequential):
        def backward(self, tape: Any, dy: Any) -> Any:
            asked.append("network")
            return super().backward(tape, dy)

    networks = (lc.Sequential(seen, lc.LSTM(3, 3)), Around(Asked(3, 3)), lc.Sequential(Asked(3, 3)))
    for model in networks:
        lc.fit(
            model, (x, x), loss="mse", progress=False,
            optimizer=lc.optim.SGD(model.parameters(), lr=0.1),
        )  # fmt: skip
    assert seen.seen == 1
    assert asked == ["network", "layer", "layer"]
