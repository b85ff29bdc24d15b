"""PyTorch's checkpoints and modules: in, out, and out again, with the same bits."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lstmcore as lc
from helpers import bad_files
from helpers.paths import DATA
from helpers.peers import require
from helpers.variants import CELLS, STACKS, name_of, of_a_cell

# Trained models, read without PyTorch -------------------------------------------------------------


def tagger() -> Any:
    """A part-of-speech tagger: PyTorch's file, its weights by prefix."""
    weights = lc.load_torch(DATA / "uzmorph_bigru.pth")
    model = lc.Sequential(
        lc.Embedding(49, 64), lc.GRU(64, 64, 2, bidirectional=True), lc.Linear(128, 746)
    )
    for module, prefix in zip(model, ("char_embeddings.", "gru.", "hidden2tag."), strict=True):
        module.load_state_dict(weights, prefix=prefix)
    return model


def assert_tags(model: Any) -> None:
    recorded = np.load(DATA / "uzmorph_bigru.npz")
    for word in range(7):
        ids, y, h, tags = (recorded[f"{word}/{name}"] for name in ("ids", "y", "h", "tags"))
        mine, state = model[1](model[0](ids[:, None]))
        np.testing.assert_allclose(mine[:, 0], y, rtol=0, atol=2e-5)
        np.testing.assert_allclose(state, h, rtol=0, atol=2e-5)
        np.testing.assert_array_equal(model(ids[:, None])[:, 0].argmax(axis=1), tags)


def detector() -> tuple[Any, Any]:
    """A voice detector: a safetensors file, an LSTMCell and a 1x1 convolution."""
    weights = lc.load_torch(DATA / "silero_vad.safetensors")
    layer = lc.LSTM(128, 128)
    prefix = "lstm_cell."
    names = [name for name in weights if name.startswith(prefix)]
    layer.load_state_dict({name.removeprefix(prefix) + "_l0": weights[name] for name in names})
    head = lc.Linear(128, 1)
    head.load_state_dict(
        {
            "weight": weights["final_conv.weight"][:, :, 0],
            "bias": weights["final_conv.bias"],
        }
    )
    return layer, head


def assert_detects(layer: Any, head: Any) -> None:
    recorded = np.load(DATA / "silero_vad.npz")
    y, (h, c) = layer(recorded["x"])
    np.testing.assert_allclose(y, recorded["y"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(h, recorded["h"], rtol=0, atol=2e-5)
    # Cells reach 25, and PyTorch's own are 4e-5 from the exact ones.
    np.testing.assert_allclose(c, recorded["c"], rtol=2e-5, atol=2e-5)
    speech = head(np.maximum(y, 0))[:, 0, 0] > 0
    np.testing.assert_array_equal(speech, recorded["speech"])
    assert 0 < speech.sum() < len(speech)


def test_trained_tagger() -> None:
    assert_tags(tagger())


def test_trained_voice_detector() -> None:
    assert_detects(*detector())


def mutations(array: Any, gates: int) -> list[Any]:
    """What a wrong importer might make of a parameter: gates swapped, dropped, transposed."""
    size = len(array) // gates
    parts = [array[g * size : (g + 1) * size] for g in range(gates)]
    found = []
    for a, b in itertools.combinations(range(gates), 2):
        order = list(range(gates))
        order[a], order[b] = b, a
        found.append(np.concatenate([parts[g] for g in order]))
    if array.ndim == 1:
        found.append(np.zeros_like(array))
    else:
        found.append(np.ascontiguousarray(array.reshape(-1, size, size).swapaxes(1, 2)))
        found[-1] = found[-1].reshape(array.shape)
    return found


def test_mutations_are_noticed() -> None:
    """Each of them, in each parameter, fails the comparison with what was recorded."""
    model = tagger()
    layer, head = detector()
    count = 0
    for mutable, gates, check in (
        (model[1], 3, lambda: assert_tags(model)),
        (layer, 4, lambda: assert_detects(layer, head)),
    ):
        for p in mutable.parameters():
            right = np.array(p.data)
            for wrong in mutations(right, gates):
                p.data = wrong
                with pytest.raises(AssertionError):
                    check()
                count += 1
            p.data = right
        check()
    assert count == 16 * 4 + 4 * 7


def test_bias_of_the_hidden_gate_is_not_summed() -> None:
    """In a GRU the two biases of n are not one: adding them up beforehand must be noticed."""
    model = tagger()
    weights = dict(model[1].named_parameters())
    both = weights["bias_ih_l0"].data, weights["bias_hh_l0"].data
    both[0][...] += both[1]
    both[1][...] = 0
    with pytest.raises(AssertionError):
        assert_tags(model)


# Checkpoints, read without PyTorch ----------------------------------------------------------------


def arrays_of(value: Any) -> Any:
    """Tensors as load_torch gives them."""
    torch = require("torch")
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, dict):
        return {key: arrays_of(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(arrays_of(part) for part in value)
    return value


def assert_equal(mine: Any, theirs: Any) -> None:
    if isinstance(theirs, np.ndarray):
        assert isinstance(mine, np.ndarray)
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()
    elif isinstance(theirs, dict):
        assert list(mine) == list(theirs)
        for key in theirs:
            assert_equal(mine[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(mine) is type(theirs)
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert_equal(a, b)
    else:
        assert mine == theirs
        assert type(mine) is type(theirs)


def everything() -> dict[str, Any]:
    """All that a checkpoint may hold."""
    torch = require("torch")
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LSTM(4, 5, 2, bidirectional=True))
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": model[0].weight,
        "views": [base, base[1:3, 2:], base.T, base[::2], base[0].expand(5, 6), base[1, 1]],
        "kinds": [
            (base * 20).to(kind)
            for kind in (
                torch.float64,
                torch.float32,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.int32,
                torch.int16,
                torch.int8,
                torch.uint8,
                torch.bool,
                torch.complex64,
                torch.complex128,
                torch.uint16,
                torch.uint32,
            )
        ],
        "empty": [torch.empty(0), torch.empty(3, 0, 2), torch.tensor(2.5)],
        "plain": [1, -1, 2**40, 2**70, 1.5, "text", "ünïcode", None, True, False, (), [], {}, (1,)],
        "nested": {"a": {"b": [{"c": (1, 2, 3, 4, 5)}]}, 3: "three"},
        "long": list(range(3000)),
        "size": torch.Size([2, 3]),
        "ordered": OrderedDict([("z", 1), ("a", 2)]),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_checkpoints(tmp_path: Path, zipped: bool, protocol: int) -> None:
    torch = require("torch")
    value = everything()
    if not zipped:
        value["kinds"] = value["kinds"][:12]  # the others have no place in the old format
    path = tmp_path / "checkpoint.pt"
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    expected = arrays_of(torch.load(path, weights_only=False))
    expected["size"] = (2, 3)
    assert_equal(lc.load_torch(path), expected)
    assert_equal(lc.load_torch(str(path)), expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_shared_storages_stay_shared(tmp_path: Path, zipped: bool) -> None:
    torch = require("torch")
    base = torch.arange(24.0).reshape(4, 6)
    path = tmp_path / "checkpoint.pt"
    value = {"a": base, "b": base[1:, 2:].T, "c": base.clone()}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    read = lc.load_torch(path)
    assert np.shares_memory(read["a"], read["b"])
    assert not np.shares_memory(read["a"], read["c"])
    read["a"][1, 2] = -1
    assert read["b"][0, 0] == -1
    assert read["c"][1, 2] == 8


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("Float", "f4"), ("Double", "f8"), ("Half", "f2"), ("Long", "i8"), ("BFloat16", "u2")],
)
def test_byte_order(kind: str, dtype: str, order: str, tmp_path: Path) -> None:
    """A big-endian machine marks its files, and turns its numbers around."""
    values = np.array([1.5, -2.25, 3e-5, 1e4, np.inf, 0.1]).astype("f4")
    if kind == "BFloat16":
        stored = values.view("u4") >> 16
        expected: Any = (stored << 16).view("f4")
    elif kind == "Long":
        expected = stored = np.arange(6) * 1_000_003
    else:
        expected = stored = values.astype(dtype)
    data = stored.astype((">" if order == "big" else "<") + dtype).tobytes()
    body = bad_files.a_dict(bad_files.tensor(of=bad_files.storage(f"torch {kind}Storage")))
    path = tmp_path / "order.pt"
    path.write_bytes(bad_files.checkpoint(body, {"byteorder": order.encode(), "data/0": data}))
    found = lc.load_torch(path)["a"]
    assert found.dtype.isnative
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.ravel(), expected)


def test_expanded_tensors_take_no_memory(tmp_path: Path) -> None:
    torch = require("torch")
    path = tmp_path / "expanded.pt"
    torch.save({"weight": torch.ones(1).expand(2**20, 2**20)}, path)
    weights = lc.load_torch(path)
    assert weights["weight"].shape == (2**20, 2**20)
    with pytest.raises(ValueError, match="weight has shape"):
        lc.Linear(2, 3, bias=False).load_state_dict(weights)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lc.load_torch(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError):
        lc.load_torch(tmp_path)


# Bad files ----------------------------------------------------------------------------------------

BAD = bad_files.bad_checkpoints()


@pytest.mark.parametrize("case", BAD)
def test_bad_checkpoints(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error that names the file, nothing executed, no memory beyond the file's own size."""
    monkeypatch.chdir(tmp_path)
    content, message = BAD[case]
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            lc.load_torch(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000 + len(str(path))
    assert peak < 12_000_000 + 2 * len(content)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize("body", [b"]", b"}", b"h\0", b"N\x94", b"K\1"])
def test_long_pickles_are_given_up(body: bytes, tmp_path: Path) -> None:
    """Instructions are short, and what they make is not."""
    path = tmp_path / "long.pt"
    start = b"]q\0"
    path.write_bytes(bad_files.checkpoint(start + body * (6_000_000 // len(body)), {}))
    with pytest.raises(ValueError, match="instructions"):
        lc.load_torch(path)


GOOD = bad_files.good_checkpoint()
PICKLES = [
    bad_files.a_dict(bad_files.tensor()),
    bad_files.a_dict(
        bad_files.tensor(of=bad_files.storage("torch.storage UntypedStorage", count=24))
    ),
]


def read_or_refuse(path: Path, content: bytes) -> None:
    bad_files.load_or_refuse(lc.load_torch, path, content, allowance=2_000_000)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file.pt"


@bad_files.FUZZ
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", bad_files._MAGIC, b"\x80\x02"]))
def test_fuzz_random_bytes(somewhere: Path, content: bytes, start: bytes) -> None:
    read_or_refuse(somewhere, start + content)


@bad_files.FUZZ
@given(
    st.sampled_from([GOOD, (DATA / "uzmorph_bigru.pth").read_bytes()[-3000:] + GOOD]),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=4),
    st.integers(0, 10**6),
)
def test_fuzz_changed_bytes(
    somewhere: Path, content: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    for at, value in changes:
        content = bad_files.patched(content, at % len(content), value)
    if cut % 3 == 0:
        content = content[: cut % len(content)]
    read_or_refuse(somewhere, content)


INSTRUCTIONS = st.one_of(
    st.sampled_from(
        [
            *(
                bytes([code])
                for code in b"(.02NQR]abdegjloptu}){\x85\x86\x87\x88\x89\x90\x91\x93\x94"
            ),
            *PICKLES,
            bad_files.storage(),
            bad_files.number(2**63),
            bad_files.number(-1),
            bad_files.numbers([2, 3]),
            bad_files.text("storage"),
            bad_files.text("0"),
            bad_files.name("torch._utils _rebuild_tensor_v2"),
            bad_files.name("torch._utils _rebuild_tensor_v3"),
            bad_files.name("torch._utils _rebuild_parameter"),
            bad_files.name("torch FloatStorage"),
            bad_files.name("torch float32"),
            bad_files.name("torch Size"),
            bad_files.name("collections OrderedDict"),
            bad_files.name("os system"),
            b"q\0",
            b"h\0",
            b"q\1",
            b"h\1",
        ]
    ),
    st.binary(min_size=1, max_size=6),
)


@bad_files.FUZZ
@given(st.lists(INSTRUCTIONS, max_size=25), st.booleans())
def test_fuzz_pickles(somewhere: Path, instructions: list[bytes], old: bool) -> None:
    body = b"".join(instructions)
    if old:
        content = bad_files.legacy(
            bad_files._MAGIC,
            bad_files._VERSION,
            bad_files._SYSTEM,
            bad_files.pickled(body),
            bad_files.keys("0"),
            b"\6" + bytes(7),
            bytes(24),
        )
    else:
        content = bad_files.checkpoint(body)
    read_or_refuse(somewhere, content)


# State dicts --------------------------------------------------------------------------------------


def test_state_dicts_as_they_are() -> None:
    torch = require("torch")
    theirs = torch.nn.LSTM(3, 5, 2, bidirectional=True)
    expected = {name: t.detach().numpy() for name, t in theirs.state_dict().items()}
    wrapped = torch.nn.DataParallel(torch.nn.ModuleDict({"encoder": theirs}))
    compiled = {f"_orig_mod.{name}": t for name, t in theirs.state_dict().items()}
    for state, prefix in (
        (theirs.state_dict(), ""),
        (dict(theirs.named_parameters()), ""),  # which require gradients
        ({name: t.clone().requires_grad_() * 1 for name, t in theirs.state_dict().items()}, ""),
        (torch.nn.DataParallel(theirs).state_dict(), ""),
        (wrapped.state_dict(), "encoder."),
        (wrapped.state_dict(), "module.encoder."),
        (compiled, ""),
        ({f"module.{name}": t for name, t in compiled.items()}, ""),
        ({name: t.double() for name, t in theirs.state_dict().items()}, ""),
        ({name: t.t().contiguous().t() for name, t in theirs.state_dict().items()}, ""),
    ):
        layer = lc.LSTM(3, 5, 2, bidirectional=True)
        layer.load_state_dict(state, prefix=prefix)
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(array, expected[name])
    for small in (torch.float16, torch.bfloat16, torch.float8_e5m2):
        state = {name: t.to(small) for name, t in theirs.state_dict().items()}
        layer.load_state_dict(state)
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(array, state[name].float().numpy())


def test_state_dicts_that_do_not_fit() -> None:
    torch = require("torch")
    layer = lc.GRU(3, 5, seed=0)
    before = layer.state_dict()
    good = torch.nn.GRU(3, 5).state_dict()
    for state, message in (
        ({1: good["bias_ih_l0"], **good}, "unexpected: 1"),
        ({2: good}, r"state_dict\[2\] is a mapping itself"),
        ({"model": good, "epoch": 3}, r"state_dict\['model'\] is a mapping itself"),
        ({f"module.{k}": v for k, v in good.items()} | {"x": good}, "missing: weight_ih_l0"),
        (
            {**good, "weight_ih_l0": good["weight_ih_l0"].to_sparse()},
            "weight_ih_l0 is not an array",
        ),
        ({**good, "weight_ih_l0": good["weight_ih_l0"].to("meta")}, "weight_ih_l0 cannot be read"),
        ({**good, "bias_ih_l0": good["bias_ih_l0"].to(torch.complex64)}, "bias_ih_l0 has dtype"),
        ({**good, "bias_ih_l0": torch.zeros(1).expand(2**50)}, "bias_ih_l0 has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(state)
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(array, before[name])


# Modules, there and back --------------------------------------------------------------------------


def modules() -> list[Any]:
    torch = require("torch")
    nn = torch.nn
    torch.manual_seed(0)
    layers = [
        getattr(nn, kind)(3, 5, **options)
        for kind in ("RNN", "LSTM", "GRU")
        for options in (
            {},
            {"num_layers": 3, "bidirectional": True, "dropout": 0.25},
            {"bias": False, "batch_first": True, "dtype": torch.float64},
        )
    ]
    return [
        *layers,
        nn.RNN(3, 5, nonlinearity="relu"),
        nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True),
        nn.RNNCell(3, 5),
        nn.RNNCell(3, 5, nonlinearity="relu", bias=False),
        nn.LSTMCell(3, 5, dtype=torch.float64),
        nn.GRUCell(3, 5, bias=False),
        nn.Linear(3, 5),
        nn.Linear(3, 5, bias=False, dtype=torch.float64),
        nn.Embedding(7, 3),
        nn.Embedding(7, 3, padding_idx=2, sparse=True),
        nn.LayerNorm(3),
        nn.LayerNorm((2, 3), eps=1e-3, bias=False, dtype=torch.float64),
        nn.LayerNorm(3, elementwise_affine=False),
        nn.Dropout(0.3),
        nn.Tanh(),
        nn.ReLU(),
        nn.Sigmoid(),
        nn.Softmax(dim=-1),
        nn.LogSoftmax(dim=-1),
    ]


def input_for(module: Any) -> Any:
    torch = require("torch")
    nn = torch.nn
    if isinstance(module, nn.Embedding):
        return torch.tensor([[1, 2, 0], [6, 2, 2]])
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    shape = (4, 3) if isinstance(module, nn.RNNCellBase) else (4, 2, 3)
    return torch.randn(shape, dtype=dtype)


def flat(value: Any) -> list[Any]:
    return [part for v in value for part in flat(v)] if isinstance(value, tuple) else [value]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("number", range(28))
def test_modules_there_and_back(number: int) -> None:
    torch = require("torch")
    all_modules = modules()
    assert len(all_modules) == 28
    theirs = all_modules[number].eval()
    mine = lc.from_torch(theirs)
    again = lc.to_torch(mine).eval()
    assert type(mine).__name__ == type(again).__name__ == type(theirs).__name__
    assert repr(again) == repr(theirs)
    assert list(again.state_dict()) == list(theirs.state_dict()) == list(mine.state_dict())
    for name, t in theirs.state_dict().items():
        assert again.state_dict()[name].dtype == t.dtype
        assert torch.equal(again.state_dict()[name], t)
        np.testing.assert_array_equal(mine.state_dict()[name], t.numpy())
    assert lc.from_torch(again) == mine
    x = input_for(theirs)
    with torch.no_grad():
        expected = flat(theirs(x))
        for a, b in zip(flat(again(x)), expected, strict=True):
            assert torch.equal(a, b)
    tolerance = 1e-12 if expected[0].dtype == torch.float64 else 1e-6
    for a, b in zip(flat(mine(x.numpy())), expected, strict=True):
        assert a.dtype == b.numpy().dtype
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=tolerance)


def test_half_modules_are_widened() -> None:
    torch = require("torch")
    for dtype in (torch.float16, torch.bfloat16):
        theirs = torch.nn.LSTM(3, 5).to(dtype)
        mine = lc.from_torch(theirs)
        assert mine.dtype == np.float32
        for name, t in theirs.state_dict().items():
            np.testing.assert_array_equal(mine.state_dict()[name], t.float().numpy())


def test_our_layers_in_torch_come_back() -> None:
    torch = require("torch")
    theirs = lc.torch.LSTM(3, 5, proj_size=2, batch_first=True)
    mine = lc.from_torch(theirs)
    assert repr(mine) == "LSTM(3, 5, batch_first=True, proj_size=2)"
    x = torch.randn(2, 4, 3)
    np.testing.assert_array_equal(mine(x.numpy())[0], theirs(x)[0].detach().numpy())


class First:
    """What people put behind a recurrent layer."""

    def __new__(cls, take: Any) -> Any:
        torch = require("torch")

        class Taking(torch.nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, result: Any) -> Any:
                return take(result)

        return Taking()


def sequentials() -> list[tuple[Any, str]]:
    """Models, and what stands in ours for what takes the output apart."""
    torch = require("torch")
    nn = torch.nn
    torch.manual_seed(0)

    def model(first: bool, kind: str, taking: Any, *rest: Any, **options: Any) -> Any:
        layer = getattr(nn, kind)(4, 5, batch_first=first, **options)
        return nn.Sequential(nn.Embedding(9, 4), nn.Dropout(0.1), layer, taking, *rest)

    head, wide = nn.Linear(5, 2), nn.Linear(10, 2)
    two = {"bidirectional": True, "num_layers": 2}
    return [
        (model(True, "LSTM", lc.torch.Output(), head, nn.Softmax(-1)), ""),
        (model(False, "GRU", lc.torch.Output(), nn.Identity(), head), ""),
        (model(True, "RNN", First(lambda r: r[0]), nn.LayerNorm(5), head), ""),
        (model(True, "LSTM", First(lambda r: r[0][:, -1]), head), "LastStep"),
        (model(False, "LSTM", First(lambda r: r[0][-1]), head), "LastStep"),
        (model(True, "LSTM", First(lambda r: r[1][0][-1]), head), "LastStep"),
        (model(True, "GRU", First(lambda r: r[1][-1]), head, num_layers=2), "LastStep"),
        (model(True, "GRU", First(lambda r: r[0].mean(dim=1)), head), "MeanPool"),
        (model(False, "GRU", First(lambda r: r[0].max(dim=0).values), head), "MaxPool"),
        (
            model(True, "GRU", First(lambda r: torch.cat(tuple(r[1][-2:]), 1)), wide, **two),
            "BothEnds",
        ),
        (model(False, "LSTM", lc.torch.Output(), lc.torch.BothEnds(), wide, **two), "BothEnds"),
        (model(True, "LSTM", lc.torch.Output(), lc.torch.MeanPool(True), head), "MeanPool"),
        (nn.Sequential(model(True, "LSTM", lc.torch.Output()), nn.Sequential(nn.Tanh(), head)), ""),
        (nn.Sequential(nn.Embedding(9, 4), lc.torch.GRU(4, 5), First(lambda r: r[0]), head), ""),
    ]


@pytest.mark.parametrize("number", range(14))
def test_sequentials_there_and_back(number: int) -> None:
    torch = require("torch")
    all_models = sequentials()
    assert len(all_models) == 14
    theirs, pool = all_models[number]
    theirs.eval()
    mine = lc.from_torch(theirs)
    kinds = [type(m).__name__ for m in mine]
    assert (not pool and not any("Pool" in k or k in ("LastStep", "BothEnds") for k in kinds)) or (
        pool in kinds
    )
    again = lc.to_torch(mine).eval()
    assert list(again.state_dict()) == list(mine.state_dict())
    for a, b in zip(theirs.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert lc.from_torch(again) == mine
    ids = torch.tensor([[1, 2, 3, 4], [8, 7, 0, 0], [5, 5, 5, 1]])
    with torch.no_grad():
        expected = theirs(ids).numpy()
        np.testing.assert_allclose(again(ids).numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(mine(ids.numpy()), expected, rtol=0, atol=1e-6)


def test_sequential_that_ends_in_a_layer() -> None:
    torch = require("torch")
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GRU(4, 5))
    x = torch.randn(6, 2, 3)
    mine = lc.from_torch(theirs)
    y, state = mine.run(x.numpy())
    with torch.no_grad():
        expected, h = theirs(x)
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(state[0], h.numpy(), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrappers_are_taken_off() -> None:
    torch = require("torch")
    nn = torch.nn
    layer = nn.GRU(3, 4)
    model = nn.Sequential(nn.Linear(3, 3), nn.DataParallel(nn.Tanh()), layer)
    for wrapped, plain in (
        (nn.DataParallel(layer), layer),
        (torch.compile(layer), layer),
        (nn.DataParallel(torch.compile(layer)), layer),
        (nn.DataParallel(model), model),
    ):
        assert lc.from_torch(wrapped) == lc.from_torch(plain)
    assert repr(lc.from_torch(model)[1]) == "Tanh()"


@pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.*:FutureWarning")
@pytest.mark.parametrize("old", [True, False])
def test_parametrised_weights_are_those_computed_with(old: bool) -> None:
    torch = require("torch")
    nn = torch.nn
    made = nn.utils if old else nn.utils.parametrizations
    gru, linear = nn.GRU(3, 4), nn.Linear(3, 2)
    made.weight_norm(gru, "weight_hh_l0")
    made.weight_norm(gru, "weight_ih_l0")
    for p in gru.parameters():
        nn.init.normal_(p)  # since when the older one has not computed its weights
    made.spectral_norm(linear)
    x = torch.randn(5, 2, 3)
    linear(x)
    linear.eval()
    for theirs in (gru, linear):
        mine = lc.from_torch(theirs)
        with torch.no_grad():
            expected = flat(theirs(x))[0].numpy()
        np.testing.assert_allclose(flat(mine(x.numpy()))[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"kdim": 6, "vdim": 4, "bias": False, "batch_first": True}, {"dropout": 0.2}],
    ids=str,
)
def test_attention_there_and_back(options: dict[str, Any]) -> None:
    torch = require("torch")
    theirs = torch.nn.MultiheadAttention(8, 2, **options).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    mine = lc.from_torch(theirs)
    x = [torch.randn(5, 5, size) for size in (8, theirs.kdim, theirs.vdim)]
    with torch.no_grad():
        expected = theirs(*x)
    for a, b in zip(mine(*(t.numpy() for t in x)), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-5)
    again = lc.to_torch(mine).eval()
    assert lc.from_torch(again) == mine
    with torch.no_grad():
        assert torch.equal(again(*x)[0], expected[0])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", "module"])
def test_a_transformer_layer_becomes_a_model(activation: str, norm_first: bool) -> None:
    torch = require("torch")
    nn = torch.nn
    theirs = nn.TransformerEncoderLayer(
        8,
        2,
        16,
        activation=nn.SiLU() if activation == "module" else activation,
        norm_first=norm_first,
        batch_first=norm_first,
        bias=norm_first,
        dtype=torch.float64,
    ).eval()
    for p in theirs.parameters():
        nn.init.normal_(p)
    mine = lc.from_torch(theirs)
    assert isinstance(mine, lc.Model)
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(mine(x.numpy()), theirs(x).numpy(), rtol=0, atol=1e-9)
    lc.gradcheck(mine, x.numpy()[:2, :2])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_has_no_counterpart_here() -> None:
    torch = require("torch")
    nn = torch.nn
    hooked, normed, shared = nn.GRU(3, 4), nn.GRU(3, 4), nn.Linear(3, 3)
    hooked.register_forward_hook(lambda module, inputs, output: output)
    patched, watched, same = nn.GRU(3, 4), nn.Sequential(nn.Linear(3, 4)), nn.Identity()
    patched.forward = patched.forward
    watched.register_forward_pre_hook(lambda module, inputs: None)
    same.register_forward_hook(lambda module, inputs, output: 2 * output)
    nn.utils.parametrizations.weight_norm(normed, "weight_hh_l0")
    normed.register_forward_pre_hook(lambda module, inputs: None)

    class Mine(nn.LSTM):  # type: ignore[misc, name-defined]
        pass

    for module, error, message in (
        (nn.Conv2d(1, 2, 3), TypeError, r"torch\.nn\.modules\.conv\.Conv2d"),
        (Mine(3, 4), TypeError, "Mine"),
        (nn.ModuleList([nn.GRU(3, 4)]), TypeError, "ModuleList"),
        (hooked, ValueError, "forward hook"),
        (patched, ValueError, "GRU.* has a forward of its own"),
        (watched, ValueError, "module, Sequential, has a forward pre-hook"),
        (nn.Sequential(nn.Linear(3, 3), watched), ValueError, "module 1 has a forward pre-hook"),
        (nn.Sequential(nn.Linear(3, 3), same), ValueError, "module 1, Identity.* forward hook"),
        (normed, ValueError, "ParametrizedGRU, has a forward pre-hook"),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), ValueError, "add_zero_attn=True"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), ValueError, "bias_k="),
        (
            nn.TransformerEncoderLayer(4, 2, 8, activation=lambda x: x),
            ValueError,
            "activation that is a function",
        ),
        (nn.Embedding(3, 4, max_norm=1.0), ValueError, "max_norm=1.0"),
        (nn.Embedding(3, 4, scale_grad_by_freq=True), ValueError, "scale_grad_by_freq=True"),
        (nn.Softmax(dim=1), ValueError, "dim=1, expected -1"),
        (nn.LogSoftmax(dim=1), ValueError, "dim=1, expected -1"),
        (nn.GRU(3, 4, device="meta"), ValueError, "weight_ih_l0 cannot be read"),
        (nn.Sequential(nn.Linear(3, 4), nn.Flatten()), TypeError, "module 1 is a .*Flatten"),
        (nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 4)), ValueError, "module 1, Linear.*Output"),
        (nn.Sequential(nn.GRU(3, 4), First(lambda r: r[0] * 2)), ValueError, "module 1, Taking"),
        (nn.Sequential(nn.GRU(3, 4), First(lambda r: r[1] / 0 + r[7])), ValueError, "Taking"),
        (nn.Sequential(nn.GRU(3, 4), First(lambda r: r[0][0])), ValueError, "module 1, Taking"),
        (nn.Sequential(shared, shared), ValueError, "modules 0 and 1 are the same"),
        ("model.pt", TypeError, "expected a torch.nn.Module; load_torch reads files"),
        (
            torch.jit.script(nn.Linear(3, 4)),
            TypeError,
            "RecursiveScriptModule of TorchScript, .*read",
        ),
        (
            torch.jit.trace(nn.Linear(3, 4), torch.ones(2, 3)),
            TypeError,
            "TopLevelTracedModule of T",
        ),
    ):
        with pytest.raises(error, match=message):
            lc.from_torch(module)


# What PyTorch has no option for, or only this value of it.
LACKS = {
    "gate_clip", "cell_clip", "forget_gate", "coupled", "peephole", "activations", "reset_after",
    "reverse", "merge", "zoneout", "input_dropout", "recurrent_dropout", "weight_dropout",
    "layer_norm",
}  # fmt: skip


def refused(options: dict[str, Any]) -> set[str]:
    """The options of a variant that are refused."""
    plain = options.get("nonlinearity") in (None, "tanh", "relu")
    other: set[str] = set() if plain else {"nonlinearity"}
    return (LACKS & set(options)) | other


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("stack", STACKS, ids=name_of)
@pytest.mark.parametrize(("kind", "options"), CELLS, ids=name_of)
def test_every_variant_there_and_back(
    kind: str, options: dict[str, Any], stack: dict[str, Any]
) -> None:
    """The same numbers in PyTorch and an equal layer back, or refused by name."""
    torch = require("torch")
    mine = getattr(lc, kind)(3, 5, seed=0, **options, **stack)
    names = refused(options | stack)
    if names:
        with pytest.raises(ValueError, match=rf"^{kind}\(.*({'|'.join(names)})=.* to PyTorch$"):
            lc.to_torch(mine)
        return
    theirs = lc.to_torch(mine)
    assert lc.from_torch(theirs) == mine
    x = np.random.default_rng(0).standard_normal((6, 4, 3)).astype("f4")
    with torch.no_grad():
        expected = flat(theirs(torch.from_numpy(x)))
    for a, b in zip(flat(mine(x)), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "options"), CELLS, ids=name_of)
def test_every_variant_of_the_cells_there_and_back(kind: str, options: dict[str, Any]) -> None:
    torch = require("torch")
    options = of_a_cell(kind, options)
    mine = getattr(lc, kind + "Cell")(3, 5, seed=0, **options)
    names = refused(options) | ({"proj_size"} & set(options))  # which PyTorch's cell lacks
    if names:
        with pytest.raises(ValueError, match=rf"^{kind}Cell\(.*({'|'.join(names)})=.* to PyTorch$"):
            lc.to_torch(mine)
        return
    theirs = lc.to_torch(mine)
    assert lc.from_torch(theirs) == mine
    x = np.random.default_rng(0).standard_normal((4, 3)).astype("f4")
    with torch.no_grad():
        expected = flat(theirs(torch.from_numpy(x)))
    for a, b in zip(flat(mine(x)), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-6)


def test_other_modules_that_pytorch_lacks() -> None:
    require("torch")
    pooled = lc.Sequential(lc.GRU(3, 4, bidirectional=True), lc.BothEnds("mul"))
    for module, error, message in (
        (lc.Sequential(lc.Masking(), lc.GRU(3, 4)), TypeError, r"^Masking.* has no counterpart"),
        (pooled, ValueError, r"^BothEnds.*: merge='mul' cannot be written to PyTorch"),
        (3, TypeError, r"module is 3 \(int\)"),
    ):
        with pytest.raises(error, match=message):
            lc.to_torch(module)
    assert lc.to_torch(lc.LSTM(3, 4, forget_bias=1.0)).bias_ih_l0[4] == 1
