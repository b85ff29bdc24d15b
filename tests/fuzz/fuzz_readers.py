"""Coverage-guided fuzzing of the readers of files: each either reads an input or refuses it.

    pip install atheris
    python tests/fuzz/fuzz_readers.py torch -max_total_time=600 corpus

The first argument is the name of a reader, one of `READERS`; what follows is libFuzzer's, such as a
folder that keeps what it finds. A run ends with an input that raises anything but a ValueError,
takes more than twenty seconds, or needs more memory than a multiple of its size; that input is
written to the working folder.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import atheris

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["lstmcore", "pickletools"]):
    import lstmcore as lc
    import lstmcore.keras._files
    import lstmcore.keras._live
    import lstmcore.onnx._importing
    from helpers import bad_files

DATA = TESTS / "data"
WEIGHTS = DATA / "keras2_ids_weights.h5"
CONFIG = (DATA / "keras2_ids.json").read_text("utf-8")
LINEAR = lc.Linear(3, 2)


class Reader(NamedTuple):
    """What is fuzzed."""

    suffix: str  # of the file that is read
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    file: Callable[[bytes], bytes] = bytes  # what the file holds for an input


def _files(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [(DATA / name).read_bytes() for name in names]


def _saved() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        lc.save(lc.Sequential(lc.Embedding(5, 2), lc.LSTM(2, 3), lc.LayerNorm(3)), path)
        return [path.read_bytes(), *bad_files.bad_safetensors().values()]


def _onnx() -> list[bytes]:
    models = []
    for layer in (lc.LSTM(2, 3, bidirectional=True), lc.GRU(2, 3, 2), lc.RNN(2, 3)):
        model = lc.to_onnx(lc.Sequential(layer, lc.LastStep()), lengths=True)
        del model.metadata_props[:]  # by which it would be known for one of ours
        models.append(model.SerializeToString())
    return models


def _described(text: bytes) -> bytes:
    return bad_files.described(text.decode("utf-8", "replace"), LINEAR.state_dict())


READERS = {
    "torch": Reader(
        ".pt",
        lc.load_torch,
        lambda: [
            bad_files.good_checkpoint(),
            *(c for c, _ in bad_files.bad_checkpoints().values()),
        ],
    ),
    "pickle": Reader(  # in such a file
        ".pt",
        lc.load_torch,
        lambda: [bad_files.a_dict(bad_files.tensor())],
        bad_files.checkpoint,
    ),
    "lstmcore": Reader(".safetensors", lc.load, _saved),
    "description": Reader(  # in such a file
        ".safetensors",
        lc.load,
        lambda: [
            b'{"version": 1, "model": {"type": "Linear", "in_features": 3, "out_features": 2}}'
        ],
        _described,
    ),
    "keras": Reader(".keras", lc.from_keras, _files("keras2_ids.keras")),
    "hdf5": Reader(
        ".h5", lc.from_keras, _files("keras2_chain.h5", "keras2_cudnn.h5", "keras2_ids.h5")
    ),
    "weights": Reader(".h5", lambda path: lc.from_keras(path, config=CONFIG), _files(WEIGHTS.name)),
    "config": Reader(  # of such a file
        ".json",
        lambda path: lc.from_keras(WEIGHTS, config=path.read_text("utf-8", "replace")),
        lambda: [CONFIG.encode()],
    ),
    "onnx": Reader(".onnx", lc.from_onnx, _onnx),
}


def main() -> None:
    reader = READERS[sys.argv.pop(1)]
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        path = folder / f"input{reader.suffix}"
        corpus = folder / "seeds"
        corpus.mkdir()
        for i, seed in enumerate(reader.seeds()):
            if len(seed) < 100_000:
                (corpus / f"{i}").write_bytes(seed)

        def test(content: bytes) -> None:
            path.write_bytes(reader.file(content))
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            start = time.process_time()
            with contextlib.suppress(ValueError):
                reader.read(path)
            seconds = time.process_time() - start
            nbytes = tracemalloc.get_traced_memory()[1] - before
            if seconds > 20:
                raise RuntimeError(f"it took {seconds} s")
            if nbytes > 20_000_000 + 50 * len(content):
                raise RuntimeError(f"it took {nbytes} bytes for {len(content)}")

        tracemalloc.start()
        atheris.Setup([*sys.argv, "-max_len=100000", str(corpus)], test)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
