"""Reading the files of Keras, without Keras: ``.keras`` of Keras 3, ``.h5`` of Keras 2 and 3.

Nothing in a file is believed, imported or run, and reading it needs memory in proportion to its
size, whatever it says: what is compressed, linked or elsewhere is refused, as Keras writes nothing
of the kind.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from .._base.checks import describe
from .._files.foreign import what_it_is
from ._hdf5 import SIGNATURE, Dataset, File, Group
from ._layer import FUNCTIONAL, Stored, cells_of, layers_of, name_of
from ._model import Source, major

__all__ = ["is_file", "read"]

T = TypeVar("T")

_TEXT = 2**24  # bytes of a description, far more than any chain of layers needs
_DEPTH = 16  # of layers in layers

# Where Keras 3 keeps the layers of a model, and of a layer what is inside.
_LAYERS = ("layers", "_layer_checkpoint_dependencies")
_INSIDE = {
    "Bidirectional": ("forward_layer", "backward_layer"),
    "TimeDistributed": ("layer",),
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU", "RNN"), ("cell",)),
    "MultiHeadAttention": ("query_dense", "key_dense", "value_dense", "output_dense"),
}


def is_file(source: Any) -> bool:
    """Whether it is a path, the bytes of a file or an open file."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(source, kinds) or callable(getattr(source, "read", None))


def _content(source: Any) -> tuple[str, bytes]:
    """Return what messages call a file, and all of it; it is opened once."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "source", bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        data = source.read()
        if not isinstance(data, bytes):
            raise TypeError(
                f"source gives {describe(data)} when it is read, expected bytes: open it with 'rb'"
            )
        return str(getattr(source, "name", "source")), data
    where = os.fspath(source)
    if os.path.exists(os.path.join(where, "saved_model.pb")):
        raise ValueError(
            f"{where} is a SavedModel folder of TensorFlow, which is a program and no description; "
            "expected a .keras or .h5 file: open it in TensorFlow and save the model as one of them"
        )
    with open(where, "rb") as file:
        return where, file.read()


def read(source: Any, config: Any) -> Source:
    """Return the model in a file, described by `config` unless that is None."""
    where, data = _content(source)
    text = version = None
    if data.startswith(b"PK"):
        try:
            text, version, data = _sound(where, _unzip, data)
        except ValueError:
            _refuse_others(where, data)
            raise
    elif not data.startswith(SIGNATURE):
        _refuse_others(where, data)
        raise ValueError(f"{where} is neither a .keras file (zip) nor an .h5 file (HDF5)")
    store = _Store(where, data)
    if text is None:
        text, version = store.description()
    if config is not None:
        text = config
    if text is None:
        raise ValueError(
            f"{where} has weights alone. Say of which model, with config=, a dict or the text of "
            "model.to_json() in Keras"
        )
    model = _parsed(text)
    number = major(version or model.get("keras_version", 3), where)
    return Source(model, number, store.weights_of(model))


def _refuse_others(where: str, data: bytes) -> None:
    """Say what a file is that another tool has written, if that is known."""
    what = what_it_is(data[:512])
    if what and "lc.from_keras" not in what and what != "a zip archive":
        raise ValueError(f"{where} is {what}; expected a .keras or .h5 file") from None


def _sound(where: str, function: Callable[..., T], *args: Any) -> T:
    """Call it; what goes wrong there is wrong with the file."""
    try:
        return function(*args)
    except Exception as error:
        raise ValueError(f"{where} is damaged, or no model of Keras: {error}") from error


def _parsed(text: Any) -> dict[str, Any]:
    """Return a description from its JSON, if it is not parsed already."""
    if isinstance(text, str):
        if len(text) > _TEXT:
            raise ValueError(f"the description of the model has {len(text)} characters: too many")
        try:
            text = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the description of the model is no sound JSON: {error}") from error
    if not isinstance(text, dict):
        raise ValueError(f"the description of the model is {describe(text)}, expected a dict")
    return text


def _unzip(data: bytes) -> tuple[str, str, bytes]:
    """Return description, version of Keras and HDF5 file of a .keras file."""
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:

        def member(name: str, most: int = len(data)) -> bytes:
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed, which Keras does not do")
            if info.file_size > min(most, len(data)):
                raise ValueError(f"{name} claims to have {info.file_size} bytes")
            return archive.read(info)

        metadata = json.loads(member("metadata.json", 2**16))
        return (
            member("config.json", _TEXT).decode(),
            str(metadata["keras_version"]),
            member("model.weights.h5"),
        )


class _Store:
    """The weights in an HDF5 file, by the names of their layers."""

    def __init__(self, where: str, data: bytes) -> None:
        self._where = where
        self._root: Any = _sound(where, lambda: File(data).root)

    def _get(self, group: Any, path: str) -> Any:
        """Return what has that path in a group, or None."""
        for name in path.split("/"):
            if not isinstance(group, Group):
                return None
            group = _sound(self._where, group.get, name)
        return group

    def _text(self, group: Group, name: str) -> str | None:
        found = _sound(self._where, group.strings, name)
        return found[0] if found else None

    def description(self) -> tuple[str | None, str | None]:
        """Return the JSON of the model, and the version of Keras, as far as they are there."""
        groups = [self._root, self._get(self._root, "model_weights")]
        versions = [self._text(g, "keras_version") for g in groups if isinstance(g, Group)]
        return self._text(self._root, "model_config"), next(filter(None, versions), None)

    def weights_of(self, model: Any) -> Callable[..., list[Stored]]:
        """Return what gives the weights of a layer by its name, behind those of models around."""
        for container in _LAYERS:
            group = self._get(self._root, container)
            if group is not None:  # as Keras 3
                return lambda *names: list(self._of_path(group, model, names))
        group = self._get(self._root, "model_weights") or self._root
        return lambda name, *inside: list(self._listed(self._get(group, name), inside))

    def _of_path(self, group: Any, model: Any, names: tuple[str, ...]) -> Iterator[Stored]:
        """Yield the arrays of a layer of a model whose layers are in a group."""
        layers = {name_of(layer): layer for layer in layers_of(model)}
        name, *inside = names
        if name not in layers:
            return
        layer, place = layers[name], dict(zip(layers, _places(layers.values())))[name]
        if not inside:
            yield from self._inside(group, place, layer, _DEPTH)
            return
        group = self._get(group, place)
        while layer["class_name"] == "TimeDistributed":
            group, layer = self._get(group, "layer"), layer["config"].get("layer")
            name_of(layer)
        for container in _LAYERS:
            if self._get(group, container) is not None:
                yield from self._of_path(self._get(group, container), layer, tuple(inside))

    def _listed(self, group: Any, inside: tuple[str, ...] = ()) -> Iterator[Stored]:
        """Yield the arrays of a layer, of which Keras 2 keeps a list, in pieces if it is long.

        Of a model, those of a layer in it: their names have its name.
        """
        if isinstance(group, Group):
            names = _sound(self._where, group.strings, "weight_names")
            piece = 0
            while names is not None:
                for name in names:
                    if not inside or inside[-1] in name.split("/"):
                        yield self._array(group, name)
                names = _sound(self._where, group.strings, f"weight_names{piece}")
                piece += 1

    def _inside(self, group: Any, place: str, layer: Any, depth: int) -> Iterator[Stored]:
        """Yield the arrays of a layer and of what is inside, as Keras 3 keeps them."""
        group = self._get(group, place)
        kind, config = layer["class_name"], layer["config"]
        if depth == 0:
            raise ValueError(f"{self._where} has more than {_DEPTH} layers in each other")
        if kind in ("Sequential", *FUNCTIONAL):
            inside = [self._get(group, container) for container in _LAYERS]
            children = layers_of(layer)
            for child, its_place in zip(children, _places(children)):
                for container in inside:
                    yield from self._inside(container, its_place, child, depth - 1)
            return
        own = self._get(group, "vars")
        count = _sound(self._where, len, own) if isinstance(own, Group) else 0
        for i in range(count):
            yield self._array(own, str(i))
        inner = config.get("layer") if isinstance(config, dict) else None
        cells = cells_of(layer)
        if cells:
            group = self._get(group, "cell/cells")
            for place in _places(cells):
                yield from self._inside(group, place, {"class_name": "", "config": {}}, depth - 1)
            return
        for part in _INSIDE.get(kind, ()):
            what = {"class_name": "", "config": {}} if inner is None else inner
            name_of(what)
            yield from self._inside(group, part, what, depth - 1)

    def _array(self, group: Any, name: str) -> Stored:
        dataset = self._get(group, name)
        if not isinstance(dataset, Dataset):
            raise ValueError(f"{self._where} has no array {name[:100]!r}, which it speaks of")
        return dataset


def _places(layers: Iterable[Any]) -> Iterator[str]:
    """Yield where Keras 3 keeps layers: by class in snake case, numbered from the second on."""
    counts: Counter[str] = Counter()
    for layer in layers:
        name = re.sub(r"\W+", "", layer["class_name"])
        name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
        yield f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1
