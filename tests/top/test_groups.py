"""Groups of parameters with their own rates, schedules of them, and parameters that are frozen."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore import optim

Array = np.ndarray[Any, np.dtype[Any]]

SHAPES = [(3, 2), (4,), (5,)]
CASES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adam": {"amsgrad": True},
    "AdamW": {},
}


def parameters() -> list[lc.Parameter]:
    rng = np.random.default_rng(0)
    return [lc.Parameter(f"p{i}", rng.standard_normal(shape)) for i, shape in enumerate(SHAPES)]


def grouped(params: list[Any]) -> list[dict[str, Any]]:
    """A rate and a decay, a rate alone, a decay alone."""
    return [
        {"params": [params[1]], "lr": 0.3, "weight_decay": 0.1},
        {"params": [params[0]], "lr": 0.05},
        {"params": [params[2]], "weight_decay": 0.2},
    ]


def set_gradients(params: list[lc.Parameter], step: int) -> None:
    rng = np.random.default_rng(step)
    for p in params:
        p.grad = rng.standard_normal(p.shape)


def theirs_of(torch: Any, ours: list[lc.Parameter]) -> list[Any]:
    return [torch.nn.Parameter(torch.from_numpy(p.data.copy())) for p in ours]


def check(ours: list[lc.Parameter], theirs: list[Any]) -> None:
    for p, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, other.detach().numpy(), rtol=1e-11, atol=1e-13)


def give(torch: Any, ours: list[lc.Parameter], theirs: list[Any]) -> None:
    for p, other in zip(ours, theirs, strict=True):
        other.grad = torch.from_numpy(p.grad.copy())


@pytest.mark.parametrize("name", CASES)
def test_groups_against_pytorch(name: str) -> None:
    torch = require("torch")
    ours = parameters()
    theirs = theirs_of(torch, ours)
    optimizer = getattr(optim, name)(grouped(ours), lr=0.1, weight_decay=0.01, **CASES[name])
    other = getattr(torch.optim, name)(grouped(theirs), lr=0.1, weight_decay=0.01, **CASES[name])
    for step in range(12):
        set_gradients(ours, step)
        give(torch, ours, theirs)
        if step == 6:  # rates may be changed by hand, of one or of all
            optimizer.groups[1].lr = other.param_groups[1]["lr"] = 0.2
            optimizer.groups[2].weight_decay = other.param_groups[2]["weight_decay"] = 0.0
        if step == 9:
            optimizer.lr = 0.01
            for group in other.param_groups:
                group["lr"] = 0.01
        optimizer.step()
        other.step()
        check(ours, theirs)
    assert [g.lr for g in optimizer.groups] == [0.01] * 3


SCHEDULES: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "StepLR": (lambda o: optim.StepLR(o, 2, 0.5), lambda s, o: s.StepLR(o, 2, 0.5)),
    "CosineLR": (
        lambda o: optim.CosineLR(o, 9, minimum=0.01),
        lambda s, o: s.CosineAnnealingLR(o, 9, eta_min=0.01),
    ),
    "Plateau": (
        lambda o: optim.Plateau(o, 0.5, patience=1, min_lr=0.06),
        lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=1, min_lr=0.06),
    ),
    "CosineRestarts": (
        lambda o: optim.CosineRestarts(o, 2, factor=2, minimum=0.01),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 2, T_mult=2, eta_min=0.01),
    ),
    "OneCycle": (
        lambda o: optim.OneCycle(o, [0.5, 0.1, 0.9], 10),
        lambda s, o: s.OneCycleLR(o, [0.5, 0.1, 0.9], 10, cycle_momentum=False),
    ),
    "OneCycle of one rate": (
        lambda o: optim.OneCycle(o, 0.5, 10),
        lambda s, o: s.OneCycleLR(o, 0.5, 10, cycle_momentum=False),
    ),
    "LambdaLR": (
        lambda o: optim.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1.0, lambda t: 1 / (t + 1)]),
        lambda s, o: s.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1.0, lambda t: 1 / (t + 1)]),
    ),
    "WarmUp": (
        lambda o: optim.WarmUp(optim.StepLR(o, 2, 0.5), 3, start=0.2),
        lambda s, o: s.SequentialLR(
            o, [s.LinearLR(o, 0.2, total_iters=3), s.StepLR(o, 2, 0.5)], milestones=[3]
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_groups_against_pytorch(name: str) -> None:
    torch = require("torch")
    ours, theirs = SCHEDULES[name]
    optimizer = optim.SGD(grouped(parameters()), lr=0.1)
    other = torch.optim.SGD(grouped(theirs_of(torch, parameters())), lr=0.1)
    schedule, expected = ours(optimizer), theirs(torch.optim.lr_scheduler, other)
    seen = set()
    for _ in range(9):
        rates = [group.lr for group in optimizer.groups]
        assert rates == pytest.approx([g["lr"] for g in other.param_groups], rel=1e-12)
        assert rates == schedule.lrs
        assert schedule.lr == rates[0]
        seen.add(tuple(rates))
        optimizer.step()
        other.step()
        schedule.step(1.0)
        expected.step(*([1.0] if name == "Plateau" else []))
    assert len(seen) > 2


@pytest.mark.parametrize("name", CASES)
def test_groups_resume(name: str) -> None:
    def made(params: list[lc.Parameter], lr: float) -> tuple[Any, Any]:
        optimizer = getattr(optim, name)(grouped(params), lr=lr, **CASES[name])
        return optimizer, optim.StepLR(optimizer, 2, 0.5)

    whole, second = parameters(), parameters()
    optimizer, schedule = made(whole, 0.1)
    for step in range(5):
        set_gradients(whole, step)
        optimizer.step()
        schedule.step()
    states = json.loads(json.dumps([schedule.state_dict(), optimizer._description()]))
    state = {**optimizer.state_dict(), **states[1]}
    for p, q in zip(whole, second, strict=True):
        q.data = p.data
    again, resumed = made(second, 0.7)
    again.load_state_dict(state)
    resumed.load_state_dict(states[0])
    assert [g.lr for g in again.groups] == [g.lr for g in optimizer.groups]
    assert repr(again) == repr(optimizer)
    assert " in 3 groups" in repr(again)
    for step in range(5, 9):
        for params, one, rate in ((whole, optimizer, schedule), (second, again, resumed)):
            set_gradients(params, step)
            one.step()
            rate.step()
    for p, q in zip(whole, second, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_states_of_other_groups_are_refused() -> None:
    state = optim.SGD(grouped(parameters())).state_dict()
    optimizer = optim.SGD(parameters())
    with pytest.raises(ValueError, match="unexpected: groups"):
        optimizer.load_state_dict(state)
    other = optim.SGD([{"params": parameters()[:2]}, {"params": parameters()[2]}], lr=0.5)
    with pytest.raises(ValueError, match="expected size, lr and weight_decay of 2 of 2, 1 param"):
        other.load_state_dict(state)
    assert [g.lr for g in other.groups] == [0.5, 0.5]
    with pytest.raises(ValueError, match="expected size, lr"):
        other.load_state_dict({**other.state_dict(), "groups": 3})
    with pytest.raises(ValueError, match="lr is -1, expected at least 0"):
        other.load_state_dict({**other.state_dict(), "groups": [[2, -1, 0], [1, 0, 0]]})
    schedule = optim.StepLR(other, 2)
    with pytest.raises(ValueError, match=r"base_lr is 0\.5, expected a list of 2 rates"):
        schedule.load_state_dict({**schedule.state_dict(), "base_lr": 0.5})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"momentum": 1}, ValueError, r"parameters\[0\] has the keys .*, expected 'params' and"),
        ({"params": []}, ValueError, r"parameters\[0\]\['params'\] is empty"),
        ({"params": 3}, TypeError, r"parameters\[0\]\['params'\] is 3"),
        ({"params": [np.zeros(2)]}, TypeError, "expected Parameters only"),
        ({"lr": -1}, ValueError, "lr is -1, expected at least 0"),
        ({"weight_decay": "x"}, TypeError, "weight_decay is 'x'"),
    ],
)
def test_bad_groups_are_refused(change: Any, error: type[Exception], message: str) -> None:
    groups = grouped(parameters())
    groups[0].update(change)
    with pytest.raises(error, match=message):
        optim.SGD(groups)


def test_groups_that_share_or_mix_are_refused() -> None:
    params = parameters()
    with pytest.raises(ValueError, match="one of them twice"):
        optim.Adam([{"params": params}, {"params": params[0]}])
    with pytest.raises(TypeError, match=r"parameters\[1\] is .*, expected a dict"):
        optim.Adam([{"params": params[:2]}, params[2]])
    with pytest.raises(ValueError, match=r"parameters\[0\] has the keys 'lr', expected 'params'"):
        optim.Adam([{"lr": 0.1}])


def test_fit_with_groups(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    x, y = np.eye(4)[:, :3], np.ones((4, 1))

    def made(decay: float = 0.0) -> tuple[Any, dict[str, Any]]:
        model = lc.Sequential(lc.Linear(3, 2, dtype="float64", seed=0),
                              lc.Linear(2, 1, dtype="float64", seed=1))  # fmt: skip
        groups = [
            {"params": model[0].parameters(), "lr": 0.0},
            {"params": model[1].parameters(), "weight_decay": decay},
        ]
        options = {"loss": "mse", "optimizer": optim.Adam(groups, lr=0.1), "progress": False}
        return model, {**options, "data": (x, y)}

    model, options = made()
    lc.fit(model, **options, epochs=3, callbacks=lc.callbacks.Checkpoint(path))
    assert model[0] == made()[0][0]
    assert model[1] != made()[0][1]
    again, options = made()
    lc.fit(again, **options, epochs=3, resume=path)
    assert again == model
    other, options = made(decay=0.5)
    with pytest.raises(ValueError, match=r"weight_decay of the groups is \[0\.0, 0\.5\], and was"):
        lc.fit(other, **options, epochs=4, resume=path)


# Freezing -------------------------------------------------------------------------------------


def bits(model: Any) -> list[bytes]:
    return [p.data.tobytes() for p in model.parameters()]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("before", [False, True])
def test_what_is_frozen_keeps_its_bits(name: str, before: bool) -> None:
    """Whether the optimizer was made before or after; the others go as in PyTorch."""
    torch = require("torch")
    model = lc.Sequential(lc.Linear(3, 4, dtype="float64", seed=0),
                          lc.Linear(4, 2, dtype="float64", seed=1))  # fmt: skip
    theirs = theirs_of(torch, model.parameters())

    def made() -> Any:
        return getattr(optim, name)(model.parameters(), lr=0.1, weight_decay=0.1, **CASES[name])

    optimizer = made() if before else None
    assert model[0].freeze() is model[0]
    optimizer = optimizer or made()
    other = getattr(torch.optim, name)(theirs[2:], lr=0.1, weight_decay=0.1, **CASES[name])
    kept = bits(model[0])
    for step in range(4):
        set_gradients(model.parameters(), step)
        norm = lc.clip_grad_norm(model.parameters(), 1.0)
        expected = np.sqrt(sum((p.grad**2).sum() for p in model[1].parameters()))
        assert min(norm, 1.0) == pytest.approx(expected, rel=1e-5)  # of the others alone
        give(torch, model.parameters(), theirs)
        optimizer.step()
        other.step()
    assert bits(model[0]) == kept
    check(model[1].parameters(), theirs[2:])


def test_a_pause_against_pytorch() -> None:
    """The momentum waits, too."""
    torch = require("torch")
    ours = lc.Linear(3, 2, dtype="float64", seed=0)
    theirs = theirs_of(torch, ours.parameters())
    optimizer = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9)
    other = torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    for step in range(9):
        set_gradients(ours.parameters(), step)
        give(torch, ours.parameters(), theirs)
        if step == 3:
            ours.freeze()
        if step == 6:
            ours.unfreeze()
        if 3 <= step < 6:
            for p in theirs:
                p.grad = None
        optimizer.step()
        other.step()
        check(ours.parameters(), theirs)


def test_what_was_not_trainable_stays_so() -> None:
    """As the second bias of a layer from Keras, which must never be trained."""
    layer = lc.GRU(3, 4, seed=0)
    second = dict(layer.named_parameters())["bias_hh_l0"]
    second.trainable = False
    for _ in range(2):
        layer.freeze()
        layer.freeze()
        assert not any(p.trainable for p in layer.parameters())
        for one in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), layer):
            one.unfreeze()
            assert [p.trainable for p in one.parameters()] == [True, True, True, False]
    layer.unfreeze()
    assert not second.trainable


def test_freezing_while_fit_runs() -> None:
    model = lc.Sequential(lc.Linear(3, 4, seed=0), lc.Tanh(), lc.Linear(4, 1, seed=1))
    seen = []

    def gradual(run: Any) -> None:
        seen.append(bits(run.model[0]))
        run.model[0].freeze() if run.epoch % 2 else run.model[0].unfreeze()

    x, y = np.ones((5, 3), "f4"), np.zeros((5, 1), "f4")
    history = lc.fit(
        model, (x, y), loss="mse", optimizer=optim.Adam(model.parameters(), 0.1), epochs=5,
        clip_norm=1.0, callbacks=gradual, progress=False,
    )  # fmt: skip
    assert history.losses[-1] < history.losses[0]
    assert seen[1] == seen[0]
    assert seen[2] != seen[1]
    assert seen[3] == seen[2]
