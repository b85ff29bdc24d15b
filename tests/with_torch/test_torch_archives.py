"""What load_torch reads beside state dicts: foreign objects, whole modules, TorchScript, ..."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import bad_files
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore.torch import Placeholder, QuantizedArray

torch = require("torch")
from torch import nn  # noqa: E402

FORMATS = [(zipped, protocol) for zipped in (True, False) for protocol in (2, 3, 4, 5)]


def saved(value: Any, zipped: bool = True, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def assert_state(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, t in expected.items():
        assert_same_bits(found[name], t.detach().numpy())


# Foreign objects ----------------------------------------------------------------------------------


class Config(dict[str, Any]):
    """As EasyDict and its like are: a class of a project, derived from dict."""


class Track(list[Any]):
    """The same, of list."""


@pytest.mark.parametrize(("zipped", "protocol"), FORMATS)
def test_foreign_objects_are_placeholders(zipped: bool, protocol: int) -> None:
    weights = nn.GRU(3, 4).state_dict()
    config = Config(lr=0.1, w=torch.ones(2))
    config.frozen = True
    value = {
        "model": weights,
        "args": argparse.Namespace(lr=1.5, layers=[1, 2]),
        "config": config,
        "track": Track([1, torch.zeros(2)]),
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
        "kind": nn.GRU,
        "path": Path("a/b"),
        "sparse": torch.eye(2).to_sparse(),
    }
    found = lc.load_torch(saved(value, zipped, protocol))
    assert list(found) == list(value)
    assert_state(found["model"], weights)
    for name in list(value)[1:]:
        assert isinstance(found[name], Placeholder), name
    assert found["args"].name == "argparse.Namespace"
    assert found["args"].state == {"lr": 1.5, "layers": [1, 2]}
    assert found["config"].name.endswith(".Config")
    assert found["config"].entries["lr"] == 0.1
    np.testing.assert_array_equal(found["config"].entries["w"], [1, 1])
    assert found["config"].state == {"frozen": True}
    assert found["track"].elements[0] == 1
    assert repr(found["device"]) == "<torch.device('cuda', 1)>"
    assert repr(found["dtype"]) == "<torch.float16 itself>"
    assert repr(found["args"]).startswith("<argparse.Namespace")
    assert found["kind"].arguments is None
    indices, values = found["sparse"].arguments[1][:2]
    np.testing.assert_array_equal(indices, [[0, 1], [0, 1]])
    np.testing.assert_array_equal(values, [1, 1])
    lc.GRU(3, 4).load_state_dict(found["model"])


@pytest.mark.parametrize(("zipped", "protocol"), FORMATS)
def test_plain_things_of_python_and_numpy(zipped: bool, protocol: int) -> None:
    value = {
        "scalar": np.float64(3.5),
        "small": np.float32(0.1),
        "flag": np.bool_(True),
        "count": np.int64(-7),
        "array": np.arange(6).reshape(2, 3).T,
        "c order": np.arange(6.0).reshape(1, 2, 3),
        "empty": np.zeros((0, 3)),
        "swapped": np.arange(3, dtype=">f4"),
        "text": np.array(["a", "bcd"]),
        "bytes array": np.array([b"a", b"bcd"]),
        "default": collections.defaultdict(list, {1: [2]}),
        "counter": collections.Counter("aab"),
        "ordered": OrderedDict([("b", 1), ("a", (2,))]),
        "set": {1, "two"},
        "frozen": frozenset([3]),
        "complex": 1 + 2j,
        "bytes": b"\xff\x00",
        "bytearray": bytearray(b"ab"),
        "tuple keys": {(0, 1): 2, (0, (1, "x")): 3, 2**80: 4, 1.5: 5, -1: 6, -2: 7},
    }
    found = lc.load_torch(saved(value, zipped, protocol))
    assert list(found) == list(value)
    for name, expected in value.items():
        if isinstance(expected, (np.ndarray, np.generic)):
            assert type(found[name]) is type(expected), name
            assert found[name].dtype == expected.dtype, name
            np.testing.assert_array_equal(found[name], expected)
        else:
            assert found[name] == expected, name
            assert isinstance(expected, collections.defaultdict) or (
                type(found[name]) is type(expected)
            )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_weights_only_takes_is_taken() -> None:
    """Every object that torch.load(weights_only=True) makes without being told to."""
    parameter = nn.Parameter(torch.ones(2))
    parameter.own = "attribute"

    value = [
        parameter,
        nn.parameter.Buffer(torch.ones(2)),
        torch.Size([1, 2]),
        torch.device("cpu"),
        torch.ones(2, device="meta"),
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        *(getattr(torch, name) for name in ("float32", "bfloat16", "uint4", "int3")),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j]).conj().imag,
        torch.strided,
        collections.Counter("abb"),
        bytearray(b"x"),
        {1, 2},
        b"bytes",
    ]
    for zipped in (True, False):
        for one in value:
            try:
                content = saved(one, zipped)
            except Exception:  # which PyTorch cannot save, or not in the old format
                continue
            torch.load(io.BytesIO(content), weights_only=True)
            lc.load_torch(content)
    assert isinstance(lc.load_torch(saved(torch.ones(2).untyped_storage())), Placeholder)
    conjugates = lc.load_torch(saved(value[-7:-5]))
    np.testing.assert_array_equal(conjugates[0], [1 - 2j])
    np.testing.assert_array_equal(conjugates[1], [-2])
    np.testing.assert_array_equal(lc.load_torch(saved(parameter)), [1, 1])


INERT = bad_files.inert_checkpoints()


@pytest.mark.parametrize("case", INERT)
def test_nothing_is_run(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.environ["PATH"], list(os.sys.path)  # type: ignore[attr-defined]
    tracemalloc.start()
    try:
        found = lc.load_torch(INERT[case])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["a"].shape == (2, 3)
    repr(found["b"])
    if isinstance(found["b"], Placeholder) and case != "a state that has itself":
        assert found["b"].state_dict() == {}
    assert peak < 2_000_000
    assert (os.environ["PATH"], list(os.sys.path)) == before  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_modules_without_end_are_refused() -> None:
    """A module that has itself, and one that has another twice, which has another twice."""
    name, op, text = bad_files.name, bad_files.op, bad_files.text
    module = name("x Module") + op("EMPTY_TUPLE") + op("NEWOBJ")
    itself = module + op("BINPUT", b"\0") + op("EMPTY_DICT") + text("m") + op("BINGET", b"\0")
    itself += op("SETITEM") + op("BUILD")
    body = op("EMPTY_LIST") + op("MARK") + module
    for i in range(1, 60):
        body += op("BINPUT", bytes([i])) + module + op("EMPTY_DICT")
        for key in ("l", "r"):
            body += text(key) + op("BINGET", bytes([i])) + op("SETITEM")
        body += op("BUILD")
    with pytest.raises(ValueError, match=r"the parts of the x\.Module are .* without end"):
        lc.load_torch(bad_files.checkpoint(itself))  # whose state dict is asked for at once
    *_, last = lc.load_torch(bad_files.checkpoint(body + op("APPENDS")))
    with pytest.raises(ValueError, match="without end"):
        last.state_dict()


# Whole modules, TorchScript, exported programs ----------------------------------------------------


class Model(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, 2, bidirectional=True)
        self.norm = nn.BatchNorm1d(8)
        self.heads = nn.ModuleList([nn.Linear(8, 2)])
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("passing", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return self.heads[0](self.norm(y[-1]))


@pytest.mark.parametrize(("zipped", "protocol"), FORMATS)
def test_a_whole_module_comes_as_its_state_dict(zipped: bool, protocol: int) -> None:
    model = Model()
    found = lc.load_torch(saved(model, zipped, protocol))
    assert set(found) == set(model.state_dict())
    assert_state({name: found[name] for name in model.state_dict()}, model.state_dict())
    nested = lc.load_torch(saved({"model": nn.DataParallel(model), "epoch": 3}, zipped, protocol))
    assert nested["epoch"] == 3
    assert set(nested["model"].state_dict()) == {f"module.{name}" for name in model.state_dict()}
    lc.GRU(3, 4, 2, bidirectional=True).load_state_dict(found, prefix="rnn.")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript(tmp_path: Path) -> None:
    model = Model().eval()
    path = tmp_path / "script.pt"
    for scripted in (torch.jit.script(model), torch.jit.trace(model, torch.ones(5, 2, 3))):
        scripted.save(path)
        expected = torch.jit.load(path).state_dict()
        found = lc.load_torch(path)
        assert_state({name: found[name] for name in expected}, expected)
        assert set(found) - set(expected) <= {"passing"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exported_programs(tmp_path: Path) -> None:
    model = Model().eval()
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(model, (torch.ones(5, 2, 3),)), path)
    for given in (path, path.read_bytes()):
        found = lc.load_torch(given)
        assert set(found) == set(model.state_dict())
        assert_state({name: found[name] for name in model.state_dict()}, model.state_dict())
    # As it was written before PyTorch 2.8.
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", saved(model.state_dict()))
        archive.writestr("version", "8.8")
    assert_state(lc.load_torch(file.getvalue()), model.state_dict())


def exported(change: Any) -> bytes:
    """A file as torch.export.save writes it, with another description of its one tensor."""
    entry = {
        "path_name": "weight_0",
        "use_pickle": False,
        "tensor_meta": {
            "dtype": 7,
            "sizes": [{"as_int": 2}, {"as_int": 3}],
            "strides": [{"as_int": 3}, {"as_int": 1}],
            "storage_offset": {"as_int": 0},
        },
    }
    change(entry)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/data/weights/weight_0", bytes(24))
        config = json.dumps({"config": {"w": entry}})
        archive.writestr("m/data/weights/model_weights_config.json", config)
    return file.getvalue()


def test_exported_programs_that_are_not_sound() -> None:
    assert lc.load_torch(exported(lambda entry: None))["w"].shape == (2, 3)
    for change, message in (
        (lambda e: e.pop("path_name"), "describes a tensor wrongly"),
        (lambda e: e.update(path_name="../m"), "lacks the record"),
        (lambda e: e.update(path_name=3), "lacks the record"),
        (lambda e: e["tensor_meta"].update(dtype=99), "type 99"),
        (lambda e: e["tensor_meta"].update(dtype=[]), "describes a tensor wrongly"),
        (lambda e: e["tensor_meta"].update(dtype=4), None),
        (lambda e: e["tensor_meta"].update(dtype=8), "beyond its storage"),
        (lambda e: e["tensor_meta"].update(sizes=[{"as_int": 2**40}]), "sizes and strides"),
        (lambda e: e["tensor_meta"].update(sizes=[{}]), "describes a tensor wrongly"),
        (lambda e: e["tensor_meta"].update(storage_offset={"as_int": 1}), "beyond its storage"),
        (lambda e: e.update(use_pickle=True), "zip directory|not whole"),
    ):
        if message is None:
            assert lc.load_torch(exported(change))["w"].dtype == np.int32
            continue
        with pytest.raises(ValueError, match=message):
            lc.load_torch(exported(change))


# Several files, small numbers ---------------------------------------------------------------------


def test_sharded_weights(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    state = lc.LSTM(3, 5, seed=0).state_dict()
    names = list(state)
    save_file({n: state[n] for n in names[:2]}, tmp_path / "a.safetensors")
    torch.save({n: torch.from_numpy(state[n]) for n in names[2:]}, tmp_path / "b.bin")
    places = {n: "a.safetensors" if i < 2 else "b.bin" for i, n in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    found = lc.load_torch(index)
    assert list(found) == names
    for name in names:
        assert_same_bits(found[name], state[name])
    with pytest.raises(ValueError, match="files that lie beside it, expected its path"):
        lc.load_torch(index.read_bytes())
    for change, error, message in (
        ({"x": "a.safetensors"}, ValueError, r"a\.safetensors lacks x"),
        ({"x": "../a.safetensors"}, ValueError, "expected one beside it"),
        ({"x": "/etc/passwd"}, ValueError, "expected one beside it"),
        ({"x": 3}, ValueError, "expected one beside it"),
        ({"x": "c.safetensors"}, FileNotFoundError, r"c\.safetensors"),
    ):
        index.write_text(json.dumps({"weight_map": places | change}))
        with pytest.raises(error, match=message):
            lc.load_torch(index)
    for text in ('{"weight_map": {}}', '{"a": 1}', '{"weight_map": 3}'):
        index.write_text(text)
        with pytest.raises(ValueError, match="a text in JSON"):
            lc.load_torch(index)
    index.write_text('{"weight_map": ' + "[" * 100_000)
    with pytest.raises(ValueError, match="nests too deeply"):
        lc.load_torch(index)


SMALL = ["e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu"]


@pytest.mark.parametrize("kind", SMALL)
def test_float8_is_widened(kind: str, tmp_path: Path) -> None:
    """All 256 numbers of each kind, as PyTorch widens them."""
    numbers = torch.arange(256, dtype=torch.uint8).view(getattr(torch, f"float8_{kind}"))
    expected = numbers.float().numpy()
    found = lc.load_torch(saved({"w": numbers}))["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    signed = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[signed], np.signbit(expected)[signed])
    if kind in ("e4m3fn", "e5m2"):
        from safetensors.torch import save_file

        save_file({"w": numbers}, tmp_path / "w.safetensors")
        again = lc.load_torch(tmp_path / "w.safetensors")["w"]
        np.testing.assert_array_equal(again, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_quantised_tensors_keep_their_scales(zipped: bool) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    scales, zeros = torch.tensor([0.02, 0.1, 0.5, 1.0]), torch.tensor([0, 3, -4, 1])
    value = {
        "whole": torch.quantize_per_tensor(x, 0.05, 7, torch.quint8),
        "signed": torch.quantize_per_tensor(x, 0.05, -3, torch.qint8),
        "wide": torch.quantize_per_tensor(x, 0.0005, 0, torch.qint32),
        "rows": torch.quantize_per_channel(x, scales, zeros, 0, torch.qint8),
        "columns": torch.quantize_per_channel(x, scales[:3], zeros[:3], 1, torch.qint8),
        "real zeros": torch.quantize_per_channel(x, scales, zeros + 0.25, 0, torch.quint8),
    }
    found = lc.load_torch(saved(value, zipped))
    for name, theirs in value.items():
        mine = found[name]
        assert isinstance(mine, QuantizedArray)
        assert mine.shape == theirs.shape
        np.testing.assert_array_equal(mine.values, theirs.int_repr().numpy())
        np.testing.assert_allclose(mine, theirs.dequantize().numpy(), rtol=0, atol=1e-6)
    assert (found["whole"].scale, found["whole"].zero_point) == (0.05, 7)
    assert found["rows"].axis == 0
    np.testing.assert_array_equal(found["rows"].scale, scales.double().numpy())
    layer = lc.Linear(3, 4, bias=False)
    layer.load_state_dict({"weight": found["rows"]})
    np.testing.assert_allclose(
        layer.state_dict()["weight"], value["rows"].dequantize().numpy(), rtol=0, atol=1e-7
    )


# Checksums ----------------------------------------------------------------------------------------


def test_checksums() -> None:
    weights = nn.GRU(3, 4).state_dict()
    content = saved(weights)
    damaged = content.index(weights["weight_hh_l0"].numpy().tobytes()) + 5
    wrong = bad_files.patched(content, damaged, bytes([content[damaged] ^ 1]))
    torch.load(io.BytesIO(wrong))  # which does not look
    with pytest.raises(ValueError, match=r"data/1' is not what was written \(the checksum differs"):
        lc.load_torch(wrong)
    torch.serialization.set_crc32_options(False)
    try:
        without = saved(weights)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_state(lc.load_torch(without), weights)


def test_the_header_of_a_record_that_is_elsewhere() -> None:
    """The name in a record's own header may have another length than that in the directory."""
    content = bad_files.good_checkpoint()
    at = content.index(b"PK\3\4")
    changed = bad_files.patched(content, at + 26, struct.pack("<H", 60000))
    with pytest.raises(ValueError, match=r"does not end before|overlaps"):
        lc.load_torch(changed)


# Norms folded -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_folds(old: bool, dim: int | None) -> None:
    norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    model = nn.Sequential(OrderedDict(rnn=nn.LSTM(3, 4), head=nn.Linear(4, 2)))
    for part, name in (
        (model.rnn, "weight_hh_l0"),
        (model.rnn, "weight_ih_l0"),
        (model.head, "weight"),
    ):
        norm(part, name, dim=dim)
    for p in model.parameters():
        nn.init.normal_(p)
    model.rnn(torch.ones(2, 3))  # the older one computes its weights when it is called
    model.head(torch.ones(4))
    content = saved(model.state_dict())
    split, found = lc.load_torch(content), lc.load_torch(content, fold=True)
    assert len(split) == len(found) + 3
    assert set(found) == {
        *(f"rnn.{n}" for n in lc.LSTM(3, 4).state_dict()),
        "head.weight",
        "head.bias",
    }
    for module, prefix in ((model.rnn, "rnn."), (model.head, "head.")):
        for name in [n for n in found if n.startswith(prefix)]:
            expected = getattr(module, name.removeprefix(prefix)).detach().numpy()
            np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-7)
    lc.LSTM(3, 4).load_state_dict(found, prefix="rnn.")
    again = lc.torch.fold_norms(model.state_dict())  # PyTorch's own tensors, too
    assert again.keys() == found.keys()


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("old", [True, False])
def test_spectral_norm_folds(old: bool) -> None:
    norm = nn.utils.spectral_norm if old else nn.utils.parametrizations.spectral_norm
    layer = norm(nn.Linear(5, 3))
    for _ in range(20):
        layer(torch.ones(5))
    layer.eval()
    layer(torch.ones(5))
    found = lc.torch.fold_norms(lc.load_torch(saved(layer.state_dict())))
    assert set(found) == {"weight", "bias"}
    np.testing.assert_allclose(found["weight"], layer.weight.detach().numpy(), rtol=1e-5)


def test_folding_refuses_what_it_does_not_know() -> None:
    ones = np.ones((2, 2))
    for state, message in (
        ({"parametrizations.weight.original": ones}, "other than weight or spectral norm"),
        ({"parametrizations.weight.original0": ones}, "original1 is missing"),
        (
            {"weight_g": np.ones((3, 1)), "weight_v": ones},
            r"g has shape \(3, 1\) and its v \(2, 2\)",
        ),
        ({"weight_g": np.ones((2, 1)), "weight_v": np.ones((2, 2), int)}, "int64, expected real"),
        ({"w_orig": ones, "w_u": np.ones(3), "w_v": np.ones(2)}, r"u and v \(3,\) and \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.torch.fold_norms(state)
    with pytest.raises(TypeError, match="expected a mapping"):
        lc.torch.fold_norms(ones)
    kept = {"weight_g": ones, 3: ones, "x": SimpleNamespace()}
    assert lc.torch.fold_norms(kept) == kept


# Other kinds of files -----------------------------------------------------------------------------


def test_other_archives_are_named(tmp_path: Path) -> None:
    arrays = io.BytesIO()
    np.savez(arrays, a=np.ones(3))
    data = Path(__file__).parents[1] / "data"
    for content, message in (
        (arrays.getvalue(), r"arrays of NumPy \(\.npz\), which np\.load reads"),
        ((data / "netra.keras").read_bytes(), r"a file of Keras, which lc\.from_keras reads"),
        ((data / "chars2vec_50.h5").read_bytes(), r"HDF5 file, which lc\.from_keras reads"),
        (b"\x80\x04\x95\x0a\x00", "a pickle, which could run anything"),
        (b"\n\x28\n\x01x\x12\x0bPlaceholder*\x0b", r"TensorFlow.*convert_weights"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.load_torch(content)
