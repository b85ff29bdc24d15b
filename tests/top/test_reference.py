"""The NumPy oracle against finite differences, PyTorch, the equations by hand, and itself."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore import reference

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ACTIVATIONS = [
    "sigmoid",
    "tanh",
    "relu",
    "softsign",
    "identity",
    "hard_sigmoid",
    ("hard_sigmoid", 0.3, 0.4),
    ("scaled_tanh", 1.7, 0.6),
    ("affine", 0.6, -0.2),
    "leaky_relu",
    ("leaky_relu", 0.3),
    ("thresholded_relu", 0.1),
    "elu",
    ("elu", 0.6),
    "selu",
    "softplus",
    "gelu",
    "silu",
    "mish",
    "hard_silu",
]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# A problem to solve ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """The arguments of a forward call, and upstream gradients for its backward."""

    kind: str
    x: Any
    state: tuple[Any, ...]  # (h0,) or (h0, c0)
    params: dict[str, Any]
    options: dict[str, Any]
    dy: Any = None
    dstate: tuple[Any, ...] = ()

    def forward(self) -> tuple[Any, tuple[Any, ...], Any]:
        state = self.state if self.kind == "lstm" else self.state[0]
        run = getattr(reference, f"{self.kind}_forward")
        y, last, tape = run(self.x, state, self.params, **self.options)
        return y, last if self.kind == "lstm" else (last,), tape

    def solve(self) -> dict[str, Any]:
        """Every output and every gradient, by name."""
        y, state, tape = self.forward()
        dstate = self.dstate if self.kind == "lstm" else self.dstate[0]
        dx, dinitial, grads = getattr(reference, f"{self.kind}_backward")(tape, self.dy, dstate)
        dinitial = dinitial if self.kind == "lstm" else (dinitial,)
        named = {"y": y, "dx": dx, **{f"d {name}": g for name, g in grads.items()}}
        for n, last, first in zip("hc", state, dinitial):
            named |= {n: last, f"d{n}0": first}
        return named


def problem(
    kind: str,
    *,
    sizes: tuple[int, int, int, int] = (5, 4, 3, 4),
    proj: int = 0,
    peephole: bool = False,
    bias: bool = True,
    dropout: bool = False,
    norm: bool = False,
    masks: bool = False,
    zone_masks: bool = False,
    scale: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Problem:
    """Draw a problem of sizes T, B, I, H."""
    rng = np.random.default_rng(seed)
    T, B, inputs, H = sizes
    P = proj or H
    D = 2 if options.get("bidirectional") else 1
    L = options.get("num_layers", 1)
    G = GATES[kind]
    if options.get("coupled") or options.get("forget_gate") is False:
        G = 3
    features = P * (D if options.get("merge", "concat") == "concat" else 1)
    params = {}
    for k in range(L):
        for suffix in (f"_l{k}", f"_l{k}_reverse")[:D]:
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (G * H, features if k else inputs),
                "weight_hh": (G * H, P),
            }
            if bias:
                shapes |= {"bias_ih": (G * H,), "bias_hh": (G * H,)}
            if peephole:
                shapes["weight_ch"] = (G - 1, H)
            if proj:
                shapes["weight_hr"] = (P, H)
            if norm:
                shapes |= {"weight_ln_ih": (G * H,), "weight_ln_hh": (G * H,)}
                if kind == "lstm":
                    shapes |= {"weight_ln_c": (H,), "bias_ln_c": (H,)}
            for name, shape in shapes.items():
                params[name + suffix] = scale * rng.uniform(-0.8, 0.8, shape)
    if dropout:
        kept = rng.random((L - 1, T, B, features)) < 0.6
        options["dropout_masks"] = list(np.where(kept, 1 / 0.6, 0.0))
    if masks:  # of x and of h into W_hh
        inputs_of = [inputs] * D + [features] * D * (L - 1)
        options["input_masks"] = [np.where(rng.random((B, n)) < 0.7, 1 / 0.7, 0) for n in inputs_of]
        options["recurrent_masks"] = np.where(rng.random((L * D, B, P)) < 0.6, 1 / 0.6, 0.0)
    if zone_masks:
        kept_h, kept_c = ((rng.random((L * D, T, B, n)) < 0.3) * 1.0 for n in (P, H))
        options["zoneout_masks"] = (kept_h, kept_c) if kind == "lstm" else kept_h
    state_sizes = (P, H) if kind == "lstm" else (P,)
    state = tuple(rng.standard_normal((L * D, B, size)) for size in state_sizes)
    return Problem(
        kind,
        rng.standard_normal((T, B, inputs)),
        state,
        params,
        options,
        rng.standard_normal((T, B, features)),
        tuple(rng.standard_normal(s.shape) for s in state),
    )


def assert_equal(got: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-12) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert (got[name].shape, got[name].dtype) == (value.shape, value.dtype), name
        np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


# Gradients against finite differences ---------------------------------------------------------

RAGGED = [3, 0, 5, 1]
RESETS = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]], bool)

STACKS: dict[str, dict[str, Any]] = {
    "no bias": {"bias": False},
    "reverse": {"reverse": True},
    "2 layers": {"num_layers": 2},
    "2 layers reverse": {"num_layers": 2, "reverse": True},
    "concat": {"bidirectional": True, "merge": "concat"},
    "sum": {"bidirectional": True, "merge": "sum"},
    "mul": {"bidirectional": True, "merge": "mul"},
    "ave": {"bidirectional": True, "merge": "ave"},
    "2 layers concat": {"num_layers": 2, "bidirectional": True},
    "2 layers mul": {"num_layers": 2, "bidirectional": True, "merge": "mul"},
    "lengths": {"lengths": RAGGED, "bidirectional": True},
    "resets": {"resets": RESETS, "bidirectional": True},
    "resets reverse": {"resets": RESETS, "lengths": RAGGED, "reverse": True},
    "dropout": {"num_layers": 3, "dropout": True},
    "norm": {"norm": True, "num_layers": 2, "lengths": RAGGED},
    "norm and masks": {"norm": True, "masks": True, "zone_masks": True, "bidirectional": True},
    "masks": {"masks": True, "num_layers": 2, "lengths": RAGGED},
    "masks and resets": {"masks": True, "bidirectional": True, "resets": RESETS},
    "zoneout": {"zoneout": 0.3, "num_layers": 2, "resets": RESETS},
    "zoneout masks": {"zone_masks": True, "bidirectional": True, "lengths": RAGGED},
    "all masks": {"masks": True, "zone_masks": True, "reverse": True, "lengths": RAGGED},
    "dropout concat": {"num_layers": 2, "bidirectional": True, "dropout": True},
}


def bound(gate: Any) -> dict[str, Any]:
    """Return what keeps a state from growing beyond all bounds, where gates have none."""
    return {} if gate in ACTIVATIONS[:8] else {"gate_clip": 1.5}


VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    *((f"rnn {a}", "rnn", {"nonlinearity": a}) for a in ACTIVATIONS),
    *(
        (f"lstm gates {a}", "lstm", {"activations": (a, "tanh", "tanh"), **bound(a)})
        for a in ACTIVATIONS
    ),
    *(
        (f"lstm candidate {a}", "lstm", {"activations": ("sigmoid", a, "tanh")})
        for a in ACTIVATIONS
    ),
    *((f"lstm output {a}", "lstm", {"activations": ("sigmoid", "tanh", a)}) for a in ACTIVATIONS),
    *((f"gru gates {a}", "gru", {"activations": (a, "tanh"), **bound(a)}) for a in ACTIVATIONS),
    *((f"gru candidate {a}", "gru", {"activations": ("sigmoid", a)}) for a in ACTIVATIONS),
    # which grows without a bound
    ("rnn exponential", "rnn", {"nonlinearity": "exponential", "gate_clip": 1.0}),
    ("gru before", "gru", {"reset_after": False}),
    ("gru before relu", "gru", {"reset_after": False, "activations": ("hard_sigmoid", "relu")}),
    ("lstm peephole", "lstm", {"peephole": True}),
    ("lstm coupled", "lstm", {"coupled": True}),
    ("lstm coupled peephole", "lstm", {"coupled": True, "peephole": True}),
    (
        "lstm 1997",
        "lstm",
        {
            "forget_gate": False,
            "activations": ("sigmoid", ("scaled_tanh", 2.0, 0.5), ("scaled_tanh", 1.0, 0.5)),
        },
    ),
    ("lstm no forget peephole", "lstm", {"forget_gate": False, "peephole": True}),
    ("lstm proj", "lstm", {"proj": 2}),
    ("lstm proj peephole", "lstm", {"proj": 2, "peephole": True}),
    ("gru before masks", "gru", {"reset_after": False, "masks": True, "zone_masks": True}),
    ("lstm norm coupled peephole", "lstm", {"norm": True, "coupled": True, "peephole": True}),
    ("lstm norm proj clip", "lstm", {"norm": True, "proj": 2, "cell_clip": 0.4, "bias": False}),
    ("lstm zoneout of c", "lstm", {"zoneout": (0.0, 0.4)}),
    ("lstm proj masks", "lstm", {"proj": 2, "masks": True, "zone_masks": True}),
    ("lstm clip", "lstm", {"cell_clip": 0.4}),
    (
        "lstm everything",
        "lstm",
        {
            "peephole": True,
            "proj": 3,
            "cell_clip": 0.5,
            "num_layers": 2,
            "bidirectional": True,
            "merge": "mul",
            "lengths": RAGGED,
            "resets": RESETS,
            "dropout": True,
        },
    ),
    *((f"{kind} {name}", kind, options) for kind in GATES for name, options in STACKS.items()),
]


@pytest.mark.parametrize(
    ("kind", "options"), [pytest.param(kind, o, id=name) for name, kind, o in VARIANTS]
)
def test_gradients_are_finite_differences(kind: str, options: dict[str, Any]) -> None:
    p = problem(kind, **options)
    solved = p.solve()
    rng = np.random.default_rng(1)

    def value(q: Problem) -> float:
        y, state, _ = q.forward()
        parts = zip((y, *state), (p.dy, *p.dstate))
        return float(sum(np.sum(out * weight) for out, weight in parts))

    def check(name: str, at: Any, changed: Any) -> None:
        for _ in range(2):
            direction = rng.standard_normal(at.shape)
            step = 1e-5 * direction
            slope = (value(changed(at + step)) - value(changed(at - step))) / 2e-5
            expected = float(np.sum(solved[name] * direction))
            assert expected == pytest.approx(slope, rel=1e-6, abs=1e-7), name

    check("dx", p.x, lambda v: replace(p, x=v))
    for k, n in enumerate("hc"[: len(p.state)]):
        check(
            f"d{n}0",
            p.state[k],
            lambda v, k=k: replace(p, state=(*p.state[:k], v, *p.state[k + 1 :])),
        )
    for name, at in p.params.items():
        check(f"d {name}", at, lambda v, name=name: replace(p, params=p.params | {name: v}))


def test_the_clip_of_the_gradient_test_clips_some_cells() -> None:
    _, (_, c), _ = problem("lstm", cell_clip=0.4).forward()
    assert 0 < np.mean(np.abs(c) == 0.4) < 1


# PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [3, 7, 1, 5]], ids=["padded", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("rnn", {}),
        ("rnn", {"nonlinearity": "relu"}),
        ("rnn", {"bias": False}),
        ("lstm", {}),
        ("lstm", {"bias": False}),
        ("lstm", {"proj": 3}),
        ("gru", {}),
        ("gru", {"bias": False}),
    ],
)
def test_torch(
    kind: str,
    options: dict[str, Any],
    num_layers: int,
    bidirectional: bool,
    lengths: list[int] | None,
) -> None:
    torch = require("torch")
    T, _, inputs, H = sizes = (7, 4, 3, 5)
    p = problem(
        kind,
        sizes=sizes,
        num_layers=num_layers,
        bidirectional=bidirectional,
        lengths=lengths,
        **options,
    )
    given = {"proj_size" if key == "proj" else key: value for key, value in options.items()}
    module = getattr(torch.nn, kind.upper())(
        inputs, H, num_layers, bidirectional=bidirectional, dtype=torch.float64, **given
    )
    module.load_state_dict({name: torch.tensor(v) for name, v in p.params.items()})
    x, *state = (torch.tensor(v, requires_grad=True) for v in (p.x, *p.state))
    packed: Any = x
    if lengths is not None:
        pack = torch.nn.utils.rnn.pack_padded_sequence
        packed = pack(x, torch.tensor(lengths), enforce_sorted=False)
    y, last = module(packed, tuple(state) if kind == "lstm" else state[0])
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    final: tuple[Any, ...] = last if kind == "lstm" else (last,)
    torch.autograd.backward([y, *final], [torch.tensor(v) for v in (p.dy, *p.dstate)])

    expected = {"y": y, "dx": x.grad, "h": final[0], "dh0": state[0].grad}
    if kind == "lstm":
        expected |= {"c": final[1], "dc0": state[1].grad}
    expected |= {f"d {name}": w.grad for name, w in module.named_parameters()}
    solved = p.solve()
    assert list(solved)[2 : 2 + len(p.params)] == [f"d {n}" for n, _ in module.named_parameters()]
    assert_equal(solved, {name: v.detach().numpy() for name, v in expected.items()})


# The equations by hand ------------------------------------------------------------------------


def squash(spec: Any, x: float) -> float:
    name, *k = (spec,) if isinstance(spec, str) else spec
    if name == "hard_sigmoid":
        alpha, beta = k or (0.2, 0.5)
        return max(0.0, min(1.0, alpha * x + beta))
    if name == "scaled_tanh":
        return float(k[0] * math.tanh(k[1] * x))
    if name == "affine":
        return float(k[0] * x + k[1])
    if name == "leaky_relu":
        return x if x > 0 else x * (k[0] if k else 0.01)
    if name == "thresholded_relu":
        return x if x > k[0] else 0.0
    if name == "elu":
        return x if x > 0 else (k[0] if k else 1.0) * (math.exp(x) - 1)
    return {
        "sigmoid": lambda: 1 / (1 + math.exp(-x)),
        "tanh": lambda: math.tanh(x),
        "relu": lambda: max(x, 0.0),
        "softsign": lambda: x / (1 + abs(x)),
        "identity": lambda: x,
        "selu": lambda: (
            1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1))
        ),
        "softplus": lambda: math.log(1 + math.exp(x)),
        "exponential": lambda: math.exp(x),
        "gelu": lambda: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
        "silu": lambda: x / (1 + math.exp(-x)),
        "mish": lambda: x * math.tanh(math.log(1 + math.exp(x))),
        "hard_silu": lambda: x * max(0.0, min(1.0, x / 6 + 0.5)),
    }[name]()


def one_row(p: Problem) -> tuple[dict[str, Any], list[list[float]], list[list[float]]]:
    params = {name.removesuffix("_l0"): value.tolist() for name, value in p.params.items()}
    return params, p.x[:, 0].tolist(), [s[0, 0].tolist() for s in p.state]


def dot(a: list[float], b: list[float]) -> float:
    return sum(u * v for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("nonlinearity", ACTIVATIONS)
def test_rnn_by_hand(nonlinearity: Any) -> None:
    p = problem("rnn", sizes=(6, 1, 2, 3), scale=2.0, nonlinearity=nonlinearity)
    w, xs, (h,) = one_row(p)
    ys = []
    for x in xs:
        sums = [
            dot(w["weight_ih"][j], x)
            + w["bias_ih"][j]
            + dot(w["weight_hh"][j], h)
            + w["bias_hh"][j]
            for j in range(3)
        ]
        h = [squash(nonlinearity, a) for a in sums]
        ys.append(h)
    np.testing.assert_allclose(p.forward()[0][:, 0], ys, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("proj", [0, 2])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("forget", ["learned", "coupled", "none"])
@pytest.mark.parametrize(
    "activations",
    [
        ("sigmoid", "tanh", "tanh"),
        ("hard_sigmoid", "softsign", "identity"),
        (("hard_sigmoid", 0.3, 0.4), "relu", ("scaled_tanh", 1.7, 0.6)),
        ("sigmoid", "mish", "gelu"),
    ],
)
def test_lstm_by_hand(
    activations: Any, forget: str, peephole: bool, proj: int, clip: float | None
) -> None:
    H = 3
    p = problem(
        "lstm",
        sizes=(6, 1, 2, H),
        peephole=peephole,
        proj=proj,
        forget_gate=forget != "none",
        coupled=forget == "coupled",
        cell_clip=clip,
        activations=activations,
    )
    w, xs, (h, c) = one_row(p)
    gates = "ifgo" if forget == "learned" else "igo"
    see = {n: [0.0] * H for n in "ifo"}
    if peephole:
        see |= dict(zip("ifo" if forget == "learned" else "io", w["weight_ch"], strict=True))
    s, act_g, act_h = activations
    ys = []
    for x in xs:
        m, new = [], []
        for j in range(H):
            a = {}
            for g, gate in enumerate(gates):
                row = g * H + j
                a[gate] = dot(w["weight_ih"][row], x) + w["bias_ih"][row]
                a[gate] += dot(w["weight_hh"][row], h) + w["bias_hh"][row]
            i = squash(s, a["i"] + see["i"][j] * c[j])
            f = 1 - i if forget == "coupled" else 1.0
            if forget == "learned":
                f = squash(s, a["f"] + see["f"][j] * c[j])
            cell = f * c[j] + i * squash(act_g, a["g"])
            if clip is not None:
                cell = max(-clip, min(clip, cell))
            o = squash(s, a["o"] + see["o"][j] * cell)
            new.append(cell)
            m.append(o * squash(act_h, cell))
        h, c = [dot(row, m) for row in w["weight_hr"]] if proj else m, new
        ys.append(h)
    y, (_, c_last), _ = p.forward()
    np.testing.assert_allclose(y[:, 0], ys, rtol=0, atol=1e-13)
    np.testing.assert_allclose(c_last[0, 0], c, rtol=0, atol=1e-13)


@pytest.mark.parametrize("activations", [("sigmoid", "tanh"), ("hard_sigmoid", "relu")])
@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_by_hand(reset_after: bool, activations: Any) -> None:
    H = 3
    p = problem("gru", sizes=(6, 1, 2, H), reset_after=reset_after, activations=activations)
    w, xs, (h,) = one_row(p)
    s, act = activations
    ys = []
    for x in xs:
        a = [dot(row, x) + b for row, b in zip(w["weight_ih"], w["bias_ih"])]
        u = [dot(row, h) + b for row, b in zip(w["weight_hh"], w["bias_hh"])]
        r = [squash(s, a[j] + u[j]) for j in range(H)]
        z = [squash(s, a[H + j] + u[H + j]) for j in range(H)]
        if reset_after:
            q = [r[j] * u[2 * H + j] for j in range(H)]
        else:
            kept = [r[j] * h[j] for j in range(H)]
            q = [dot(w["weight_hh"][2 * H + j], kept) + w["bias_hh"][2 * H + j] for j in range(H)]
        n = [squash(act, a[2 * H + j] + q[j]) for j in range(H)]
        h = [(1 - z[j]) * n[j] + z[j] * h[j] for j in range(H)]
        ys.append(h)
    np.testing.assert_allclose(p.forward()[0][:, 0], ys, rtol=0, atol=1e-13)


# Lengths and resets are only bookkeeping ------------------------------------------------------


def piece_by_piece(p: Problem) -> dict[str, Any]:
    """Solve p by solving every stretch between resets of every row as a sequence of its own."""
    T, B = p.x.shape[:2]
    lengths = p.options.get("lengths") or [T] * B
    resets = p.options.get("resets")
    resets = np.zeros((T, B), bool) if resets is None else resets
    plain = {k: v for k, v in p.options.items() if k not in ("lengths", "resets", "dropout_masks")}
    masks = p.options.get("dropout_masks")
    back = np.zeros(len(p.state[0]), bool)  # which of the states belong to a reverse direction
    back[1::2] = p.options.get("bidirectional", False)
    back |= p.options.get("reverse", False)
    solved = {"y": np.zeros_like(p.dy), "dx": np.zeros_like(p.x)}
    solved |= {f"d {name}": np.zeros_like(v) for name, v in p.params.items()}
    for n, first, dlast in zip("hc", p.state, p.dstate):
        solved |= {n: first.copy(), f"d{n}0": dlast.copy()}  # what a row of length 0 keeps
    for b in range(B):
        cuts = [t for t in range(1, lengths[b]) if resets[t, b]]
        pieces = list(zip([0, *cuts], [*cuts, lengths[b]])) if lengths[b] else []
        for start, end in pieces:
            at = np.s_[start:end, b : b + 1]
            # which states enter this piece from outside, and which leave it
            enter = np.where(back, end == lengths[b], start == 0 and not resets[0, b])
            leave = np.where(back, start == 0, end == lengths[b])
            options = plain | ({} if masks is None else {"dropout_masks": [m[at] for m in masks]})
            part = Problem(
                p.kind,
                p.x[at],
                tuple(np.where(enter[:, None, None], s[:, b : b + 1], 0) for s in p.state),
                p.params,
                options,
                p.dy[at],
                tuple(np.where(leave[:, None, None], s[:, b : b + 1], 0) for s in p.dstate),
            ).solve()
            solved["y"][at], solved["dx"][at] = part["y"], part["dx"]
            for name in p.params:
                solved[f"d {name}"] += part[f"d {name}"]
            for n in "hc"[: len(p.state)]:
                solved[n][leave, b] = part[n][leave, 0]
                first = np.where(back, end == lengths[b], start == 0)
                solved[f"d{n}0"][first, b] = np.where(enter[:, None], part[f"d{n}0"][:, 0], 0)[
                    first
                ]
    return solved


@pytest.mark.parametrize("lengths", [None, RAGGED, [0, 0, 0, 0]], ids=["full", "ragged", "none"])
@pytest.mark.parametrize("resets", [None, RESETS], ids=["whole", "resets"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reverse": True},
        {"bidirectional": True},
        {"bidirectional": True, "num_layers": 2, "merge": "mul", "dropout": True},
        {"reverse": True, "num_layers": 2},
    ],
)
@pytest.mark.parametrize("kind", GATES)
def test_lengths_and_resets_are_separate_sequences(
    kind: str, options: dict[str, Any], resets: Any, lengths: Any
) -> None:
    p = problem(kind, lengths=lengths, resets=resets, **options)
    assert_equal(p.solve(), piece_by_piece(p))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reverse": True},
        {"bidirectional": True, "num_layers": 2, "merge": "mul", "dropout": True},
    ],
)
@pytest.mark.parametrize("kind", GATES)
def test_padding_is_never_read(kind: str, options: dict[str, Any]) -> None:
    T, lengths = 5, np.array(RAGGED)
    padding = np.arange(T)[:, None] >= lengths
    lstm: dict[str, Any] = {"peephole": True, "proj": 2, "cell_clip": 0.5}
    extra = lstm if kind == "lstm" else {}
    p = problem(kind, lengths=lengths, resets=np.zeros((T, 4), bool), **extra, **options)
    expected = p.solve()
    for rubbish in (np.nan, np.inf):
        x, dy = p.x.copy(), p.dy.copy()
        x[padding] = dy[padding] = rubbish
        state = tuple(s.copy() for s in p.state)
        for s in state:
            s[:, 1] = rubbish  # of the row of length 0, which hands it through
        got = replace(p, x=x, dy=dy, state=state, options=p.options | {"resets": padding}).solve()
        for n in "hc"[: len(state)]:
            np.testing.assert_array_equal(got[n][:, 1], rubbish)
            got[n][:, 1] = expected[n][:, 1]
        assert_equal(got, expected, tolerance=0)


def test_a_reset_drops_even_nan() -> None:
    p = problem("lstm", sizes=(3, 2, 2, 2), resets=np.array([[1, 1], [0, 0], [0, 0]], bool))
    expected = p.solve()
    got = replace(p, state=tuple(np.full_like(s, np.nan) for s in p.state)).solve()
    assert_equal(got, expected, tolerance=0)
    assert not got["dh0"].any()
    assert not got["dc0"].any()


# Directions, layers, merges -------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", GATES)
def test_reverse_is_flipping_time(kind: str, num_layers: int) -> None:
    p = problem(kind, num_layers=num_layers, reverse=True)
    options = p.options | {"reverse": False}
    flipped = replace(p, x=p.x[::-1], dy=p.dy[::-1], options=options).solve()
    flipped |= {"y": flipped["y"][::-1], "dx": flipped["dx"][::-1]}
    assert_equal(p.solve(), flipped, tolerance=0)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("kind", GATES)
def test_bidirectional_is_two_layers_merged(kind: str, merge: str) -> None:
    p = problem(kind, bidirectional=True, merge=merge)
    y, state, _ = p.forward()
    parts = []
    for d, suffix in enumerate(["_l0", "_l0_reverse"]):
        params = {n.replace(suffix, "_l0"): v for n, v in p.params.items() if n.endswith(suffix)}
        one = Problem(kind, p.x, tuple(s[d : d + 1] for s in p.state), params, {"reverse": d == 1})
        y_d, state_d, _ = one.forward()
        parts.append(y_d)
        for s, s_d in zip(state, state_d):
            assert_same_bits(s[d], s_d[0])
    a, b = parts
    expected = {
        "concat": np.concatenate([a, b], axis=2),
        "sum": a + b,
        "mul": a * b,
        "ave": 0.5 * a + 0.5 * b,
    }[merge]
    np.testing.assert_allclose(y, expected, rtol=1e-15)


@pytest.mark.parametrize("kind", GATES)
def test_a_stack_is_layers_with_masks_between(kind: str) -> None:
    p = problem(kind, sizes=(5, 4, 3, 3), num_layers=3, dropout=True)
    y = p.x
    for k in range(3):
        params = {f"{n[:-1]}0": v for n, v in p.params.items() if n.endswith(f"_l{k}")}
        state = tuple(s[k : k + 1] for s in p.state)
        y, last, _ = Problem(kind, y, state, params, {}).forward()
        for s, whole in zip(last, p.forward()[1]):
            assert_same_bits(s[0], whole[k])
        if k < 2:
            y = y * p.options["dropout_masks"][k]
    assert_same_bits(p.forward()[0], y)


# The ends of the range ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("sigmoid", 0.0, 1.0),
        ("tanh", -1.0, 1.0),
        ("softsign", -1.0, 1.0),
        ("hard_sigmoid", 0.0, 1.0),
        (("hard_sigmoid", 4.0, 0.5), 0.0, 1.0),
        (("scaled_tanh", 3.0, 4.0), -3.0, 3.0),
        ("relu", 0.0, np.inf),
        ("identity", -np.inf, np.inf),
        ("leaky_relu", -np.inf, np.inf),
        (("thresholded_relu", 0.5), 0.0, np.inf),
        (("elu", 2.0), -2.0, np.inf),
        ("selu", -1.7580993408473766, np.inf),
        ("softplus", 0.0, np.inf),
        ("gelu", 0.0, np.inf),
        ("silu", 0.0, np.inf),
        ("mish", 0.0, np.inf),
        ("hard_silu", 0.0, np.inf),
    ],
)
def test_huge_inputs_saturate_and_nan_stays(name: Any, low: float, high: float) -> None:
    largest = np.finfo(np.float64).max
    x = np.array([[-np.inf, -largest, largest, np.inf, np.nan]]).T[None]
    params = {"weight_ih_l0": [[1.0]], "weight_hh_l0": [[0.0]]}
    y, _, tape = reference.rnn_forward(x, None, params, nonlinearity=name)
    np.testing.assert_array_equal(y.ravel()[[0, 3, 4]], [low, high, np.nan])
    if name not in ("leaky_relu", "selu"):
        clipped = np.clip([low, high], -largest, largest)
        np.testing.assert_allclose(y.ravel()[1:3], clipped, rtol=1e-15)
    dx, _, _ = reference.rnn_backward(tape, np.ones_like(y))
    if np.isfinite([low, high]).all():
        assert not dx.ravel()[:4].any()


def test_sigmoid_keeps_its_precision_in_both_tails() -> None:
    x = np.array([-700.0, -40.0, -1.0, 0.0, 1.0, 30.0])
    params = {"weight_ih_l0": [[1.0]], "weight_hh_l0": [[0.0]]}
    y, _, _ = reference.rnn_forward(x[None, :, None], None, params, nonlinearity="sigmoid")
    exact = [math.exp(-700), math.exp(-40), 1 / (1 + math.e), 0.5, 1 / (1 + 1 / math.e)]
    exact.append(1 - math.exp(-30) + math.exp(-60))
    np.testing.assert_allclose(y.ravel(), exact, rtol=4e-16)


@pytest.mark.parametrize("kind", GATES)
def test_huge_weights_emit_no_warning(kind: str) -> None:
    p = problem(kind, bidirectional=True)
    huge = replace(p, x=1e300 * p.x, params={n: 1e10 * v for n, v in p.params.items()})
    assert np.isfinite(huge.solve()["y"]).all()


@pytest.mark.parametrize("sizes", [(0, 4, 3, 4), (5, 0, 3, 4), (5, 4, 0, 4), (0, 0, 0, 1)])
@pytest.mark.parametrize("kind", GATES)
def test_empty_sizes(kind: str, sizes: tuple[int, int, int, int]) -> None:
    T, B, inputs, H = sizes
    p = problem(kind, sizes=sizes, bidirectional=True, num_layers=2)
    solved = p.solve()
    assert solved["y"].shape == (T, B, 2 * H)
    assert solved["dx"].shape == (T, B, inputs)
    for name, value in p.params.items():
        assert solved[f"d {name}"].shape == value.shape
    if T == 0:
        for n, first, dlast in zip("hc", p.state, p.dstate):
            assert_same_bits(solved[n], first)
            assert_same_bits(solved[f"d{n}0"], dlast)


# Manners --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GATES)
def test_none_is_zeros(kind: str) -> None:
    p = problem(kind, bidirectional=True)
    forward = getattr(reference, f"{kind}_forward")
    backward = getattr(reference, f"{kind}_backward")
    y, _, tape = forward(p.x, None, p.params, bidirectional=True)
    zeros = replace(p, state=tuple(map(np.zeros_like, p.state)))
    assert_same_bits(y, zeros.forward()[0])
    zeros = replace(zeros, dstate=tuple(map(np.zeros_like, p.dstate)))
    assert_same_bits(backward(tape, p.dy)[0], zeros.solve()["dx"])
    dx, dstate, grads = backward(tape, None)
    for value in (dx, *grads.values(), *(dstate if kind == "lstm" else (dstate,))):
        assert not value.any()


@pytest.mark.parametrize("kind", GATES)
def test_the_tape_is_not_touched_by_what_happens_after(kind: str) -> None:
    p = problem(kind, num_layers=2, bidirectional=True, merge="mul", dropout=True)
    expected = p.solve()
    y, last, tape = p.forward()
    changed = [p.x, y, *p.state, *last, *p.params.values(), *p.options["dropout_masks"]]
    for value in changed:
        value *= 2.0
    dstate = p.dstate if kind == "lstm" else p.dstate[0]
    for _ in range(2):  # and a tape can be played twice
        dx, _, grads = getattr(reference, f"{kind}_backward")(tape, p.dy, dstate)
        assert_same_bits(dx, expected["dx"])
        for name, value in grads.items():
            assert_same_bits(value, expected[f"d {name}"])


@pytest.mark.parametrize("kind", GATES)
def test_arguments_are_not_changed(kind: str) -> None:
    p = problem(kind, num_layers=2, bidirectional=True, dropout=True)
    p.options["resets"] = RESETS.copy()
    for value in (p.x, p.dy, *p.state, *p.dstate, *p.params.values(), p.options["resets"]):
        value.flags.writeable = False
    p.solve()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("lstm", {"coupled": True, "forget_gate": False}, "coupled=True contradicts"),
        ("lstm", {"cell_clip": 0.0}, "cell_clip is 0.0"),
        ("rnn", {"bidirectional": True, "reverse": True}, "bidirectional=True contradicts"),
        ("gru", {"merge": "max"}, "merge is 'max'"),
        ("gru", {"num_layers": 0}, "num_layers is 0"),
        ("gru", {"activations": ("sigmoid", "swish")}, "activation is 'swish'"),
        ("rnn", {"nonlinearity": "scaled_tanh"}, "wrong number of constants"),
        ("rnn", {"lengths": [1, 2, 3]}, "lengths is"),
        ("rnn", {"lengths": [1, 2, 3, 6]}, "expected 4 integers in 0..5"),
        ("rnn", {"lengths": [1, 2, 3, -1]}, "expected 4 integers in 0..5"),
        ("rnn", {"resets": np.zeros((4, 5), bool)}, "resets has shape"),
        ("gru", {"dropout_masks": [np.ones((5, 4, 4))]}, "dropout_masks has 1, expected 0"),
        ("gru", {"num_layers": 2}, "params has no weight_ih_l1"),
    ],
)
def test_bad_options_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    p = problem(kind)
    with pytest.raises(ValueError, match=message):
        replace(p, options=options).forward()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bias_ih_l0", np.zeros(1), r"bias_ih_l0 has shape \(1,\), expected \(16,\)"),
        ("weight_ih_l0", np.zeros((16, 2)), r"expected \(16, 3\)"),
        ("weight_hh_l0", np.zeros((16, 3)), r"expected \(16, 4\)"),
        ("weight_ch_l0", np.zeros((2, 4)), r"expected \(3, 4\)"),
        ("weight_hr_l0", np.zeros((4, 3)), r"weight_hr_l0 has shape \(4, 3\), expected \(4, 4\)"),
        ("weight_ih_l1", np.zeros((16, 4)), "unknown to these layers"),
        ("bias_ih_l0_reverse", np.zeros(16), "unknown to these layers"),
    ],
)
def test_bad_parameters_are_refused(name: str, value: Any, message: str) -> None:
    p = problem("lstm")
    with pytest.raises(ValueError, match=message):
        replace(p, params=p.params | {name: value}).forward()


def test_bad_arrays_are_refused() -> None:
    p = problem("lstm")
    h, c = p.state
    for bad, message in [
        (replace(p, x=p.x[0]), "x has shape"),
        (replace(p, state=(h[:, :1], c)), "h0 has shape"),
        (replace(p, state=(h, c[0])), "c0 has shape"),
        (replace(p, dy=p.dy[:1]), "dy has shape"),
        (replace(p, dstate=(h[:, :1], c)), "dh has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad.solve()
    with pytest.raises(ValueError, match="tape is of another cell"):
        reference.gru_backward(p.forward()[2], p.dy)
    q = problem("gru")
    with pytest.raises(ValueError, match="unknown to these layers"):
        replace(q, params=q.params | {"weight_hr_l0": np.ones((4, 4))}).forward()


def test_examples() -> None:
    results = doctest.testmod(reference)
    assert results.attempted > 0
    assert results.failed == 0
