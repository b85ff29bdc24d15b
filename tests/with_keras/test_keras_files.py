"""Files of Keras, read without it: trained models, recorded outputs, and what is wrong with files.

The outputs were recorded from Keras 3.15 and tf_keras 2.21; tests/data/README.md says of what.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lstmcore as lc
from helpers import peers
from helpers.paths import DATA
from lstmcore._files.layouts import LAYOUTS
from lstmcore.keras import _hdf5, _recurrent

LSTM_50 = {"units": 50, "activation": "tanh", "recurrent_activation": "hard_sigmoid"}
CHARS2VEC = {  # of which the package has the weights alone
    "class_name": "Sequential",
    "config": [
        {"class_name": "LSTM", "config": {"name": "lstm_1", "return_sequences": True, **LSTM_50}},
        {"class_name": "LSTM", "config": {"name": "lstm_2", **LSTM_50}},
    ],
}


def arrays(name: str) -> dict[str, Any]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


# Trained models -----------------------------------------------------------------------------------


def netra() -> tuple[dict[str, Any], dict[str, Any]]:
    """What an encoder and decoder with attention (Keras 3) gives, and what it should.

    The model is no chain, so its layers are imported one by one, and attention is NumPy here.
    """
    file, data = DATA / "netra.keras", arrays("netra")
    part = {
        name: lc.from_keras(file, layer=name)
        for name in (
            "embedding_8",
            "embedding_9",
            "bidirectional_3",
            "gru_7",
            "time_distributed_9",
            "dense_13",
        )
    }
    encoded, _ = part["bidirectional_3"](part["embedding_8"](data["enc_ids"]))
    decoded, state = part["gru_7"](part["embedding_9"](data["dec_ids"]))
    values = part["time_distributed_9"](encoded)
    scores = np.tanh(decoded[:, :, None] + values[:, None]) @ data["scale"]
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    full = part["dense_13"](np.concatenate([decoded, weights @ values], axis=-1))
    got = {"bigru_out": encoded, "gru_out": decoded, "gru_state": state[0], "full_out": full}
    return got, data


def chars2vec() -> tuple[dict[str, Any], dict[str, Any]]:
    """What two LSTMs with hard_sigmoid gates (Keras 2.2.0) give, and what they should."""
    data = arrays("chars2vec_50")
    model = lc.from_keras(DATA / "chars2vec_50.h5", config=CHARS2VEC)
    x = data["x"].astype("float32")
    return {"lstm_1_out": model[:1](x), "vec": model(x)}, data


def error(model: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> float:
    got, expected = model()
    return max(float(np.abs(got[name] - expected[name]).max()) for name in got)


@pytest.mark.parametrize("model", [netra, chars2vec])
def test_trained_models(model: Any) -> None:
    assert error(model) < 2e-5
    got, expected = model()
    for name in got:
        np.testing.assert_array_equal(got[name].argmax(-1), expected[name].argmax(-1))


def swap(kind: str, gates: str) -> Callable[[pytest.MonkeyPatch], None]:
    wrong: Any = LAYOUTS["keras"]._replace(**{kind: gates})
    return lambda patch: patch.setitem(LAYOUTS, "keras", wrong)


def without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    read = _recurrent.from_weights

    def lossy(*args: Any) -> Any:
        weights, *more = read(*args)
        return weights | {name: np.zeros_like(weights[name])}, *more

    return lambda patch: patch.setattr(_recurrent, "from_weights", lossy)


def transposed(patch: pytest.MonkeyPatch) -> None:
    read = _recurrent.from_weights

    def turned(*args: Any) -> Any:
        weights, *more = read(*args)
        hidden = weights["weight_hh"].shape[1]
        gates = weights["weight_hh"].reshape(-1, hidden, hidden)
        return weights | {"weight_hh": gates.transpose(0, 2, 1).reshape(-1, hidden)}, *more

    patch.setattr(_recurrent, "from_weights", turned)


@pytest.mark.parametrize(
    ("model", "damage"),
    [
        (netra, swap("gru", "rzn")),
        (netra, swap("gru", "nrz")),
        (netra, swap("gru", "znr")),
        (chars2vec, swap("lstm", "figo")),
        (chars2vec, swap("lstm", "igfo")),
        (chars2vec, swap("lstm", "ifog")),
        (chars2vec, swap("lstm", "ofgi")),
        (netra, without("bias_ih")),
        (netra, without("bias_hh")),
        (chars2vec, without("bias_ih")),
        (netra, transposed),
        (chars2vec, transposed),
    ],
)
def test_a_wrong_importer_would_be_noticed(
    model: Any, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)
    assert error(model) > 1e-2


# Keras 2 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["keras2_ids.h5", "keras2_ids.keras"])
def test_ids_with_masks(file: str) -> None:
    data = arrays("keras2")
    model = lc.from_keras(DATA / file)
    np.testing.assert_allclose(model(data["ids/x"]), data["ids/y"], atol=1e-6)
    np.testing.assert_allclose(model(data["ids/x_gaps"]), data["ids/y_gaps"], atol=1e-6)
    assert model[2].activations[0] == ("hard_sigmoid", 0.2, 0.5)


def test_weights_and_their_description() -> None:
    description = (DATA / "keras2_ids.json").read_text()
    expected = lc.from_keras(DATA / "keras2_ids.h5")
    for config in (description, json.loads(description)):
        assert lc.from_keras(DATA / "keras2_ids_weights.h5", config=config) == expected
    with pytest.raises(ValueError, match=r"has weights alone. Say of which model, with config="):
        lc.from_keras(DATA / "keras2_ids_weights.h5")
    renamed = description.replace('"dense"', '"other"')
    with pytest.raises(ValueError, match=r"'other' has no kernel: .* its weights are not there"):
        lc.from_keras(DATA / "keras2_ids_weights.h5", config=renamed)


@pytest.mark.parametrize("name", ["chain", "cudnn"])
def test_functional_chain_and_cudnn(name: str) -> None:
    data = arrays("keras2")
    model = lc.from_keras(DATA / f"keras2_{name}.h5")
    np.testing.assert_allclose(model(data[f"{name}/x"]), data[f"{name}/y"], atol=1e-6)


def test_cudnn_weights_by_construction() -> None:
    """What cuDNN is given is what PyTorch calls weight_ih and weight_hh, gate by gate."""
    rng = np.random.default_rng(0)
    inputs, units = 3, 2
    for kind, gates, order in (("LSTM", "ifgo", "ifgo"), ("GRU", "rzn", "zrn")):
        blocks = {
            gate: tuple(rng.random(s) for s in ((units, inputs), (units, units), units, units))
            for gate in gates
        }
        kernel = np.hstack([blocks[g][0].reshape(inputs, units) for g in order])
        recurrent = np.hstack([blocks[g][1] for g in order])
        bias = np.concatenate([blocks[g][i] for i in (2, 3) for g in order])
        layer = _recurrent.KerasLayer(
            {"class_name": f"CuDNN{kind}", "config": {"units": units}}, [kernel, recurrent, bias], 2
        )
        read = _recurrent.direction(layer).weights
        for i, name in enumerate(("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
            expected = np.concatenate([blocks[g][i] for g in gates])
            np.testing.assert_array_equal(read[name], expected)


def test_nothing_but_numpy_is_needed() -> None:
    blocked = "import sys\nfor n in ('keras', 'tf_keras', 'tensorflow', 'h5py', 'torch'):\n    "
    blocked += "sys.modules[n] = None\nimport lstmcore as lc\n"
    files = [str(DATA / f) for f in ("keras2_ids.h5", "keras2_ids.keras", "keras2_cudnn.h5")]
    code = blocked + f"for path in {files}: print(len(lc.from_keras(path)))\n"
    code += "try: lc.to_keras(lc.GRU(2, 3))\nexcept ImportError as e: print(e)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lengths, message = run.stdout.splitlines()
    assert lengths == ["8", "8", "5"]
    assert 'pip install "lstmcore[keras]"' in message


# Keras 3 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return peers.require("keras")


@pytest.mark.filterwarnings("ignore")  # Keras's own: .h5 is old, NumPy 2 is new
@pytest.mark.parametrize("double", [False, True])
def test_files_of_keras_3(keras: Any, tmp_path: Path, double: bool) -> None:
    L = keras.layers
    dtype = {"dtype": "float64"} if double else {}
    model = keras.Sequential(
        [
            L.Input((None, 3), **dtype),
            L.Bidirectional(L.LSTM(4, return_sequences=True, **dtype), **dtype),
            L.Dropout(0.5),
            L.LSTM(4, return_sequences=True, recurrent_dropout=0.1, **dtype),
            L.RNN(L.GRUCell(4, **dtype), return_sequences=True, **dtype),
            keras.Sequential([L.LSTM(4, return_sequences=True, **dtype), L.Dense(3, **dtype)]),
            L.TimeDistributed(L.Dense(4, **dtype), **dtype),
            L.LSTM(3, recurrent_activation="hard_sigmoid", **dtype),
            L.Dense(2, **dtype),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    expected = lc.from_keras(model)
    x = rng.standard_normal((2, 5, 3)).astype("float64" if double else "float32")
    theirs = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(expected(x), theirs, atol=1e-6)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        assert lc.from_keras(tmp_path / name) == expected
        assert lc.from_keras(str(tmp_path / name)) == expected
    model.save_weights(tmp_path / "model.weights.h5")
    by_json = lc.from_keras(tmp_path / "model.weights.h5", config=model.to_json())
    assert by_json == expected
    alone = lc.from_keras(tmp_path / "model.keras", layer=model.layers[0].name)
    assert alone == expected[0]


@pytest.mark.filterwarnings("ignore")
def test_many_layers(keras: Any, tmp_path: Path) -> None:
    """Groups so large that HDF5 keeps them in trees of several levels, and names in pieces."""
    L = keras.layers
    names = [f"{i:03d}_" + "x" * 200 for i in range(350)]
    model = keras.Sequential([L.Input((3,)), *(L.Dense(3, name=name) for name in names)])
    for file in ("model.keras", "model.h5"):
        model.save(tmp_path / file)
        assert lc.from_keras(tmp_path / file) == lc.from_keras(model)


def test_our_reader_against_h5py() -> None:
    h5py = peers.require("h5py")

    def compare(ours: Any, theirs: Any) -> int:
        assert len(ours) == len(theirs)
        count = 0
        for name, value in theirs.items():
            mine = ours.get(name)
            if isinstance(value, h5py.Dataset):
                assert (mine.shape, mine.dtype) == (value.shape, value.dtype)
                np.testing.assert_array_equal(mine[()], value[()])
                count += 1
            else:
                for key, text in value.attrs.items():
                    texts = np.asarray(text, dtype=object).ravel()
                    expected = [t.decode() if isinstance(t, bytes) else str(t) for t in texts]
                    assert mine.strings(key) == expected
                count += compare(mine, value)
        return count

    for name, count in (("chars2vec_50", 6), ("keras2_ids", 12), ("keras2_cudnn", 14)):
        data = (DATA / f"{name}.h5").read_bytes()
        with h5py.File(io.BytesIO(data)) as file:
            assert compare(_hdf5.File(data).root, file) == count
    data = zipfile.ZipFile(DATA / "netra.keras").read("model.weights.h5")
    with h5py.File(io.BytesIO(data)) as file:
        assert compare(_hdf5.File(data).root, file) == 16


# Bad files ----------------------------------------------------------------------------------------


def refused(path: Path, data: bytes, message: str | None = None, **options: Any) -> None:
    """Refused with that message, within memory in proportion to the file."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            lc.from_keras(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * len(data) + 2**20


@pytest.mark.parametrize("name", ["keras2_ids.h5", "keras2_ids.keras"])
def test_files_that_are_cut_off(name: str, tmp_path: Path) -> None:
    data = (DATA / name).read_bytes()
    for size in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        refused(tmp_path / "file", data[:size])


_FILES = ("keras2_ids.h5", "keras2_ids.keras", "keras2_chain.h5", "keras2_cudnn.h5")
_CHANGES = st.lists(
    st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8
)
_EXAMPLES = int(os.environ.get("LSTMCORE_FUZZ", "500"))  # of each kind of damage


@settings(
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(_FILES), _CHANGES)
def test_damaged_files_are_read_or_refused(
    tmp_path: Path, name: str, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray((DATA / name).read_bytes())
    for place, new in changes:
        at = place % len(data)
        data[at : at + len(new)] = new
    path = tmp_path / "file"
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
        assert isinstance(lc.from_keras(path), lc.Sequential)


@settings(
    max_examples=_EXAMPLES // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from([b"", b"PK\x03\x04", _hdf5.SIGNATURE]), st.binary(max_size=300))
def test_random_files_are_refused(tmp_path: Path, start: bytes, rest: bytes) -> None:
    (tmp_path / "file").write_bytes(start + rest)
    with pytest.raises(ValueError, match="file"):
        lc.from_keras(tmp_path / "file")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside),
    max_leaves=10,
)


@settings(max_examples=_EXAMPLES, deadline=None)
@given(st.data())
def test_any_description_is_read_or_refused(data: Any) -> None:
    """One value in a sound description is replaced by another of any kind."""
    model = json.loads((DATA / "keras2_ids.json").read_text())
    place: Any = model
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inside = place[key]
        if not isinstance(inside, (dict, list)) or not inside or data.draw(st.integers(0, 9)) == 0:
            break
        place = inside
    place[key] = data.draw(_JSON)
    with contextlib.suppress(ValueError):
        read = lc.from_keras(DATA / "keras2_ids_weights.h5", config=model)
        assert isinstance(read, lc.Sequential)


def zipped(description: Any, method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A .keras file."""
    source = zipfile.ZipFile(DATA / "keras2_ids.keras")
    parts = {name: source.read(name) for name in source.namelist()}
    if description is not None:
        text = description if isinstance(description, str) else json.dumps(description)
        parts["config.json"] = text.encode()
    parts.update({name.replace("_json", ".json"): value for name, value in members.items()})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, value in parts.items():
            archive.writestr(name, value)
    return file.getvalue()


def described(**changes: Any) -> Any:
    """The description of keras2_ids.keras with another layer at its end."""
    model = json.loads(zipfile.ZipFile(DATA / "keras2_ids.keras").read("config.json"))
    model["config"]["layers"].append(changes)
    return model


DEEP = 100_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is empty; expected a \.keras or \.h5 file"),
        (b"\x80\x04\x95", r"is a pickle, .*expected a \.keras or \.h5 file"),
        (zipped(None, zipfile.ZIP_DEFLATED), "is compressed"),
        (zipped("[" * DEEP + "]" * DEEP), "no sound JSON|without end"),
        (zipped('{"a":' * DEEP + "1" + "}" * DEEP), "no sound JSON|without end"),
        (zipped("[]"), "expected a dict"),
        (zipped("{"), "no sound JSON"),
        (zipped({}), "the model is of class"),
        (zipped({"class_name": "MyModel", "config": {}}), "of class 'MyModel'"),
        (zipped({"class_name": "Sequential", "config": {}}), "has layers=None"),
        (zipped({"class_name": "Sequential", "config": {"layers": []}}), "no layers that compute"),
        (zipped(None, metadata_json=b'{"keras_version": "1.2.2"}'), "was written by Keras '1.2.2'"),
        (zipped(None, metadata_json=b"[]"), "is damaged"),
        (
            zipped(described(class_name="Lambda", config={"name": "l", "function": "os.system"})),
            "the Lambda layer 'l' is not imported",
        ),
        (
            zipped(described(class_name="LSTM", module="os.path", config={"name": "mine"})),
            "is of 'os.path', not of Keras",
        ),
        (
            zipped(described(class_name="Activation", config={"name": "a", "activation": "eval"})),
            "has activation='eval'",
        ),
        (
            zipped(described(class_name="ReLU", config={"name": "r", "surprise": 1})),
            r"has surprise=1 \(int\), which is not imported",
        ),
        (zipped(described(class_name="ReLU", config={"name": "gru"})), "two layers of the name"),
        (
            zipped(described(class_name="Dense", config={"name": "d", "units": 10**12})),
            "'d' has no kernel",
        ),
        (zipped({"class_name": "Sequential", "config": {"layers": [{}] * 2000}}), "2000 layers"),
        (
            zipped(
                described(
                    class_name="RNN",
                    config={"cell": {"class_name": "StackedRNNCells", "config": []}},
                )
            ),
            "has the cell 'StackedRNNCells', which is not imported",
        ),
    ],
    ids=range(21),
)
def test_bad_keras_files(data: bytes, message: str, tmp_path: Path) -> None:
    refused(tmp_path / "model.keras", data, message)


def test_sizes_that_the_weights_do_not_have(tmp_path: Path) -> None:
    text = zipfile.ZipFile(DATA / "keras2_ids.keras").read("config.json").decode()
    for size in (4, 6, 2**31, 2**63, 10**30, 0, -1):
        changed = text.replace('"units": 5', f'"units": {size}')
        assert changed != text
        refused(tmp_path / "a.keras", zipped(changed), "'gru' (has a kernel of shape|is wrong)")
    huge = text.replace('"input_dim": 10', f'"input_dim": {10**12}')
    refused(tmp_path / "a.keras", zipped(huge), r"has a embeddings of shape \(10, 4\)")


def test_a_zip_bomb(tmp_path: Path) -> None:
    """A member that claims, in the directory of the archive, to be larger than the file."""
    data = bytearray(zipped(None))
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"model.weights.h5"))
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    refused(tmp_path / "a.keras", bytes(data), "claims to have 2147483648 bytes|is damaged")
    refused(tmp_path / "b.keras", zipped("0" * 2**24, zipfile.ZIP_DEFLATED), "is compressed")


def hdf5(h5py: Any, tmp_path: Path, damage: Callable[[Any], None], **options: Any) -> bytes:
    """keras2_ids_weights.h5 with something else in it."""
    with h5py.File(DATA / "keras2_ids_weights.h5") as source:
        path = tmp_path / "made.h5"
        with h5py.File(path, "w", **options) as file:
            for name in source:
                source.copy(name, file)
            damage(file)
    return path.read_bytes()


DENSE = "dense/dense"


def other(file: Any, **options: Any) -> None:
    del file[DENSE]["bias:0"]
    file[DENSE].create_dataset("bias:0", **{"shape": (2,), "dtype": "f4", **options})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file, h5py: other(file, chunks=(1,)), "is in pieces"),
        (lambda file, h5py: other(file, chunks=(2,), compression="gzip"), "is compressed"),
        (lambda file, h5py: other(file, external=[("/etc/passwd", 0, 8)]), "is in another file"),
        (lambda file, h5py: other(file, shape=(2**40,)), r"bias of shape \(1099511627776,\), exp"),
        (lambda file, h5py: other(file, dtype="i4"), "class 0, which is not read"),
        (lambda file, h5py: other(file, dtype="S4"), "dtype .S4, expected floating point"),
        (lambda file, h5py: other(file, shape=()), r"bias of shape \(\), expected \(2,\)"),
        (lambda file, h5py: other(file, shape=(3,)), r"bias of shape \(3,\), expected \(2,\)"),
        (lambda file, h5py: file[DENSE].pop("bias:0"), "has no array 'dense/bias:0'"),
        (lambda file, h5py: file["dense"].attrs.pop("weight_names"), "'dense' has no kernel"),
        (lambda file, h5py: file["dense"].attrs.create("weight_names", 3), "class 0, which is"),
    ],
)
def test_bad_arrays(damage: Any, message: str, tmp_path: Path) -> None:
    h5py = peers.require("h5py")
    config = (DATA / "keras2_ids.json").read_text()
    data = hdf5(h5py, tmp_path, lambda file: damage(file, h5py))
    refused(tmp_path / "file.h5", data, message, config=config)


def test_an_array_that_is_not_there_in_full(tmp_path: Path) -> None:
    h5py = peers.require("h5py")
    config = json.loads((DATA / "keras2_ids.json").read_text())
    dense = config["config"]["layers"][-1]["config"]
    for units in (2**20, 2**40):
        dense["units"] = units

        def damage(file: Any, units: int = units) -> None:
            del file[DENSE]["kernel:0"]
            file[DENSE].create_dataset("kernel:0", (5, units), "f4")

        data = hdf5(h5py, tmp_path, damage)
        refused(tmp_path / "file.h5", data, "cannot be read: it has", config=config)


@pytest.mark.parametrize("link", ["soft", "external"])
def test_links_are_not_followed(link: str, tmp_path: Path) -> None:
    h5py = peers.require("h5py")
    target = str(DATA / "keras2_ids_weights.h5")

    def damage(file: Any) -> None:
        del file[DENSE]["bias:0"]
        made = h5py.SoftLink("/gru") if link == "soft" else h5py.ExternalLink(target, "/dense")
        file[DENSE]["bias:0"] = made

    config = (DATA / "keras2_ids.json").read_text()
    data = hdf5(h5py, tmp_path, damage)
    refused(tmp_path / "file.h5", data, "a link to elsewhere|newer kind", config=config)


def test_one_array_for_many_weights(tmp_path: Path) -> None:
    """Hard links to one array, which many layers would each read into memory of their own."""
    h5py = peers.require("h5py")
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["big"] = np.zeros((200, 200), "float32")
        layers = []
        for i in range(100):
            file.create_group(f"d{i}").attrs["weight_names"] = ["k"]
            file[f"d{i}"]["k"] = file["big"]
            options = {"name": f"d{i}", "units": 200, "use_bias": False, "activation": "linear"}
            layers.append({"class_name": "Dense", "config": options})
    config = {"class_name": "Sequential", "config": layers}
    data = (tmp_path / "file.h5").read_bytes()
    refused(tmp_path / "file.h5", data, "refers to the same content many times", config=config)


def test_newer_hdf5_is_refused_by_name(tmp_path: Path) -> None:
    h5py = peers.require("h5py")
    data = hdf5(h5py, tmp_path, lambda file: None, libver="latest")
    refused(tmp_path / "file.h5", data, "superblock has version 3, expected 0 or 1")
    ordered = hdf5(h5py, tmp_path, lambda file: None, track_order=True)
    refused(tmp_path / "file.h5", ordered, "newer kind|version", config={})


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lc.from_keras(tmp_path / "none.keras")
    with pytest.raises(OSError):  # noqa: PT011 (a directory is no file, as every system says)
        lc.from_keras(tmp_path)


def test_circles_end(tmp_path: Path) -> None:
    """A group's tree, and a header's continuation, that lead back to themselves."""
    data = bytearray((DATA / "keras2_ids.h5").read_bytes())
    tree = data.find(b"TREE")
    data[tree + 5] = 200  # a level far above the leaves
    data[tree + 32 : tree + 40] = struct.pack("<Q", tree)
    refused(tmp_path / "tree.h5", bytes(data), "is damaged")
    data = bytearray((DATA / "keras2_ids.h5").read_bytes())
    (header,) = struct.unpack_from("<Q", data, 64)
    data[header + 16 : header + 24] = struct.pack("<HHBxxx", 16, 16, 0)
    data[header + 24 : header + 40] = struct.pack("<QQ", header + 16, 24)
    refused(tmp_path / "header.h5", bytes(data), "refer to each other without end")
