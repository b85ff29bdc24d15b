"""Models in files: as they were, whole or not at all, and nothing else made by bad ones."""

from __future__ import annotations

import copy
import json
import os
import re
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import lstmcore as lc
from helpers import bad_files
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore._base.module import Module


def models() -> dict[str, Any]:
    """One or more of every kind, with options of every type."""
    encoder, decoder = lc.GRU(3, 4, seed=0), lc.GRU(2, 4, seed=1)
    x, static = lc.Input(3), lc.Input(2, steps=False)
    y, h = lc.GRU(3, 4, seed=3)(lc.Masking()(x)[0])
    heads = {
        "steps": lc.Linear(6, 3, seed=4)(lc.concat([y, lc.repeat(static, like=y)])) * 0.5,
        "rows": [1 - lc.Linear(4, 3, seed=5)(h[-1]), h],
    }
    return {
        "CRF": lc.CRF(4, seed=0),
        "RNN": lc.RNN(3, 4, nonlinearity=("scaled_tanh", 1.5, 0.5), seed=0),
        "LSTM": lc.LSTM(3, 4, 2, bidirectional=True, dropout=0.25, dtype="float64", seed=0),
        "LSTM of 1997": lc.LSTM(
            3,
            4,
            forget_gate=False,
            peephole=True,
            activations=("sigmoid", ("scaled_tanh", 2.0, 0.5), ("scaled_tanh", 1.0, 0.5)),
            cell_clip=3.0,
        ),
        "LSTM, projected": lc.LSTM(3, 4, proj_size=2, forget_bias=1.0, batch_first=True),
        "LSTM, coupled": lc.LSTM(3, 4, coupled=True, reverse=True),
        "GRU": lc.GRU(3, 4, reset_after=False, bidirectional=True, merge="ave", bias=False),
        "GRU, silu": lc.GRU(3, 4, activations=("silu", ("elu", 0.5)), gate_clip=1.0),
        "RNNCell": lc.RNNCell(3, 4, nonlinearity="relu"),
        "LSTMCell": lc.LSTMCell(3, 4, peephole=True, dtype="float64"),
        "GRUCell": lc.GRUCell(3, 4, activations=(("hard_sigmoid", 0.2, 0.5), "tanh")),
        "Linear": lc.Linear(3, 4, bias=False),
        "Embedding": lc.Embedding(7, 3, padding_idx=2, sparse=True),
        "LayerNorm": lc.LayerNorm((2, 3), eps=1e-3, dtype="float64"),
        "BatchNorm": lc.BatchNorm(3, eps=1e-3, momentum=None, dtype="float64"),
        "Conv1D": lc.Conv1D(3, 4, 2, padding="causal", dilation=2, bias=False, batch_first=True),
        "LayerNorm, plain": lc.LayerNorm(3, elementwise_affine=False),
        "Dropout": lc.Dropout(0.3),
        "Tanh": lc.Tanh(),
        "ReLU": lc.ReLU(),
        "Sigmoid": lc.Sigmoid(),
        "Softmax": lc.Softmax(),
        "GELU": lc.GELU("tanh"),
        "LogSoftmax": lc.LogSoftmax(),
        "SiLU": lc.SiLU(),
        "ELU": lc.ELU(0.5),
        "LeakyReLU": lc.LeakyReLU(0.2),
        "PReLU": lc.PReLU(3),
        "Softplus": lc.Softplus(2.0),
        "Activation": lc.Activation("mish"),
        "Reshape": lc.Reshape((None, 4), (-1, 2), batch_first=True),
        "Permute": lc.Permute((2, 3), (2, 1)),
        "RepeatVector": lc.RepeatVector(3),
        "Pad1D": lc.Pad1D(2, -1),
        "UpSample1D": lc.UpSample1D(2),
        "MaxPool1D": lc.MaxPool1D(3, 2, "same"),
        "AvgPool1D": lc.AvgPool1D(3, batch_first=False),
        "EachStep": lc.EachStep(lc.Sequential(lc.LSTM(3, 4, seed=0), lc.LastStep())),
        "LastStep": lc.LastStep(),
        "MeanPool": lc.MeanPool(batch_first=True),
        "MaxPool": lc.MaxPool(),
        "BothEnds": lc.BothEnds(merge="sum"),
        "Flip": lc.Flip(),
        "Masking": lc.Masking(ids=True),
        "ScaledDotProduct": lc.attention.ScaledDotProduct(),
        "Additive": lc.attention.Additive(4, seed=0),
        "MultiHead": lc.attention.MultiHead(4, 2, seed=0),
        "Seq2Seq": lc.Seq2Seq(encoder, decoder, lc.Linear(4, 2, seed=2)),
        "Sequential": lc.Sequential(
            lc.Embedding(9, 3, seed=0),
            lc.Sequential(lc.Dropout(0.1), lc.LSTM(3, 5, bidirectional=True, seed=1)),
            lc.LayerNorm(10),
            lc.MeanPool(),
            lc.Linear(10, 2, seed=2),
            lc.Softmax(),
        ),
        "Model": lc.Model((x, static), heads),
    }


@pytest.mark.parametrize("name", models())
def test_there_and_back(name: str, tmp_path: Path) -> None:
    model = models()[name]
    path = tmp_path / "model.safetensors"
    lc.save(model, path)
    again = lc.load(path)
    assert type(again) is type(model)
    assert again == model
    assert repr(again) == repr(model)
    assert again._options() == model._options()
    assert list(again.state_dict()) == list(model.state_dict())
    for p, q in zip(again.parameters(), model.parameters(), strict=True):
        assert p.dtype == q.dtype
        assert p.data.flags.writeable
        p.data[...] += 1
        assert not np.array_equal(p.data, q.data)
    assert lc.load(str(path)) == model  # nothing of the file has changed


def test_every_kind_is_here() -> None:
    kinds = {type(model).__name__ for model in models().values()}
    public = {
        value.__name__
        for home in (lc, lc.attention)
        for value in (getattr(home, name) for name in home.__all__)
        if isinstance(value, type) and issubclass(value, Module)
    }
    assert public - {"Module"} == kinds


def test_computes_the_same(tmp_path: Path) -> None:
    model = models()["Sequential"]
    lc.save(model, tmp_path / "model.safetensors")
    again = lc.load(tmp_path / "model.safetensors")
    ids = np.arange(8).reshape(4, 2)
    assert_same_bits(again(ids, lengths=[4, 2]), model(ids, lengths=[4, 2]))


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    """Other programs find the parameters, under PyTorch's names."""
    from safetensors.numpy import load_file

    path = tmp_path / "model.safetensors"
    model = models()["Sequential"]
    lc.save(model, path)
    for arrays in (load_file(path), lc.load_torch(path)):
        assert set(arrays) == set(model.state_dict())
        for name, array in model.state_dict().items():
            assert_same_bits(arrays[name], array)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    text, checksum = header["__metadata__"]["lstmcore.model"].split("\n")
    assert checksum.startswith("crc32:")
    description = json.loads(text)
    assert description["version"] == 1
    assert description["model"]["type"] == "Sequential"
    torch = require("torch")
    from safetensors.torch import load_file as load_tensors

    lc.save(lc.GRU(3, 4, seed=0), path)
    theirs = torch.nn.GRU(3, 4)
    theirs.load_state_dict(load_tensors(path))
    lc.GRU(3, 4).load_state_dict(theirs.state_dict())


def test_the_same_model_makes_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        lc.save(models()["LSTM"], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_special_numbers(tmp_path: Path) -> None:
    layer = lc.Linear(3, 2, dtype="float64")
    layer.parameters()[0].data = [[np.nan, -np.inf, -0.0], [5e-324, 1e308, 0.1]]
    lc.save(layer, tmp_path / "model")
    assert lc.load(tmp_path / "model") == layer


def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    first, second = lc.GRU(3, 4, seed=0), lc.GRU(3, 4, seed=1)
    lc.save(first, path)

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            lc.save(second, path)
    assert lc.load(path) == first
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    lc.save(second, path)
    assert lc.load(path) == second
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_a_file_has_the_mode_of_any_new_file(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "model.safetensors"
    before = os.umask(umask)
    try:
        lc.save(lc.GRU(3, 4, seed=0), path)
        assert os.umask(umask) == umask  # which saving has to put back
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for mode in (0o640, 0o604, 0o600):
        lc.save(lc.GRU(3, 4, seed=0), path)
        path.chmod(mode)
        lc.save(lc.GRU(3, 4, seed=1), path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_overwriting_a_file_that_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    lc.save(lc.GRU(3, 4, seed=0), path)
    loaded = lc.load(path)
    lc.save(lc.GRU(3, 4, seed=1), path)
    assert loaded == lc.GRU(3, 4, seed=0)


def test_loading_takes_the_memory_of_the_model(tmp_path: Path) -> None:
    """The file is mapped: there is no second copy of its parameters."""
    path = tmp_path / "model.safetensors"
    model = lc.LSTM(500, 1000, seed=0)
    size = sum(p.data.nbytes for p in model.parameters())
    lc.save(model, path)
    tracemalloc.start()
    again = lc.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert again == model
    assert peak < 1.1 * size


def test_refuses_to_save(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for model, message in (
        ({"weight": 1}, "model is {'weight': 1}"),
        (lc.GRU, "expected a module"),
    ):
        with pytest.raises(TypeError, match=message):
            lc.save(model, path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        lc.save(lc.GRU(3, 4), tmp_path / "nowhere" / "model")
    with pytest.raises(FileNotFoundError):
        lc.load(path)


def test_classes_of_others_are_not_taken_for_ours(tmp_path: Path) -> None:
    class Mine(lc.GRU):
        pass

    class GRU(lc.GRU):
        """Has the name of a kind that files hold, but is not that."""

    path = tmp_path / "model.safetensors"
    for kind in (Mine, GRU):
        for model in (
            kind(3, 4, seed=0),
            lc.Sequential(lc.Linear(3, 3, seed=0), kind(3, 4, seed=1)),
        ):
            lc.save(model, path)
            with pytest.raises(ValueError, match="without the description of a model"):
                lc.load(path)
            other = copy.deepcopy(model)
            other.reset_parameters(2)
            assert lc.load(path, into=other) == model


def test_paths_are_named() -> None:
    for call in (
        lambda path: lc.load(path),
        lambda path: lc.save(lc.GRU(3, 4), path),
        lambda path: lc.load_checkpoint(path),
        lambda path: lc.save_checkpoint(path),
    ):
        for wrong in (None, 3, ["model"]):
            message = f"path is {wrong!r} ({type(wrong).__name__}), expected a path"
            with pytest.raises(TypeError, match=re.escape(message)):
                call(wrong)
        for wrong in ("", ".", "/"):
            with pytest.raises(
                ValueError, match=re.escape(f"path is {wrong!r}, expected the path")
            ):
                call(wrong)


def test_other_safetensors_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(
        bad_files.safetensors({"weight": bad_files.entry(0, 8)}, bytes(8)),
    )
    with pytest.raises(ValueError, match=r"without the description of a model.*into=model"):
        lc.load(path)
    head = lc.Linear(3, 2, seed=0)
    lc.save_checkpoint(path, head=head)
    with pytest.raises(ValueError, match="without the description of a model"):
        lc.load(path)


def test_small_types_are_widened_by_load_torch(tmp_path: Path) -> None:
    torch = require("torch")
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    values = torch.linspace(-2, 2, 12).reshape(3, 4)
    kinds = {
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float64": torch.float64,
        "int8": torch.int8,
        "bool": torch.bool,
    }
    save_file({name: values.to(kind) for name, kind in kinds.items()}, path)
    arrays = lc.load_torch(path)
    for name, kind in kinds.items():
        expected = values.to(kind)
        expected = expected.float() if name == "bfloat16" else expected
        assert_same_bits(arrays[name], expected.numpy())
        assert arrays[name].dtype == expected.numpy().dtype


# Bad files ----------------------------------------------------------------------------------------

LAYOUTS = bad_files.bad_safetensors()
DESCRIPTIONS = bad_files.bad_descriptions()


def refused(path: Path, content: bytes, load: Any) -> str:
    """The error, which names the file, has been raised at once and cost no memory."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r".") as caught:
            load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000 + 2 * len(content)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("case", LAYOUTS)
@pytest.mark.parametrize("load", [lc.load, lc.load_torch], ids=["load", "load_torch"])
def test_bad_layouts(case: str, load: Any, tmp_path: Path) -> None:
    message = refused(tmp_path / "bad.safetensors", LAYOUTS[case], load)
    if case == "empty":
        assert message.endswith(" empty")
    else:
        assert "damaged" in message or "no checkpoint" in message


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_bad_descriptions(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = DESCRIPTIONS[case]
    found = refused(tmp_path / "bad.safetensors", content, lc.load)
    with pytest.raises(ValueError, match=message):
        raise ValueError(found)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.safetensors"]


def test_damage_is_noticed(tmp_path: Path) -> None:
    """A changed bit anywhere, in the numbers as well, and a cut anywhere."""
    path = tmp_path / "model.safetensors"
    lc.save(lc.LSTM(2, 3, seed=0), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(whole), 200, replace=False):
        path.write_bytes(bad_files.patched(whole, at, bytes([whole[at] ^ 1 << rng.integers(8)])))
        with pytest.raises(ValueError, match=r"damaged|without the description"):
            lc.load(path)
    for size in rng.choice(len(whole), 50, replace=False):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged"):
            lc.load(path)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.safetensors"


def load_or_refuse(path: Path, content: bytes) -> None:
    bad_files.load_or_refuse(lc.load, path, content, allowance=4_000_000)


TENSORS = {"weight": np.zeros((2, 3), "float32"), "bias": np.zeros(2, "float32")}
SOUND = bad_files.described({"type": "Linear", "in_features": 3, "out_features": 2}, TENSORS)


@bad_files.FUZZ
@given(
    st.lists(
        st.tuples(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=8)), max_size=4
    ),
    st.integers(0, 3 * len(SOUND)),
)
def test_fuzz_bytes(somewhere: Path, changes: list[tuple[int, bytes]], cut: int) -> None:
    content = SOUND
    for at, value in changes:
        content = bad_files.patched(content, at, value)
    load_or_refuse(somewhere, content[:cut])


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.integers(10**5, 10**30)
    | st.floats()
    | st.sampled_from(["LSTM", "GRU", "Sequential", "Linear", "tanh", "float32", "modules", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "modules", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KINDS = {type(model).__name__: sorted(model._options()) for model in models().values()}
OPTIONS = sorted({name for options in KINDS.values() for name in options})


@bad_files.FUZZ
@given(
    st.sampled_from(sorted(KINDS)),
    st.dictionaries(st.sampled_from(OPTIONS), JSON, max_size=5),
    st.integers(1, 40),
    st.integers(1, 40),
)
@pytest.mark.filterwarnings("ignore:dropout=.* has no effect")
def test_fuzz_descriptions(
    somewhere: Path, kind: str, options: dict[str, Any], rows: int, columns: int
) -> None:
    sizes = {"input_size": 3, "hidden_size": 4, "in_features": 3, "out_features": 2}
    known = {name: size for name, size in sizes.items() if name in KINDS[kind]}
    tensors = {"weight": np.zeros((rows, columns), "float32")}
    load_or_refuse(somewhere, bad_files.described({"type": kind, **known, **options}, tensors))


def test_files_know_what_is_not_trained(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = lc.Sequential(lc.GRU(3, 4, seed=0), lc.Linear(4, 2, seed=1))
    lc.save(model, path)
    assert all(p.trainable for p in lc.load(path).parameters())
    for p in model[0].parameters():
        p.trainable = False
    lc.save(model, path)
    assert [p.trainable for p in lc.load(path).parameters()] == [False] * 4 + [True] * 2
    for frozen in (["gone"], "0.bias", [3], [["a"]]):
        description = {"version": 1, "model": model._description(), "frozen": frozen}
        save_file(model.state_dict(), path, {"lstmcore.model": json.dumps(description)})
        with pytest.raises(ValueError, match="damaged: it names parameters to freeze"):
            lc.load(path)
