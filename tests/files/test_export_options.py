"""What exporters write is in their tables; what is not there is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import lstmcore as lc
from helpers import peers
from lstmcore._files.export_options import check_options

TABLES = {"ONNX": "onnx", "Keras": "keras", "PyTorch": "torch"}
RECURRENT = (lc.RNN, lc.LSTM, lc.GRU)
CELLS = (lc.RNNCell, lc.LSTMCell, lc.GRUCell)


def table_of(library: str) -> dict[Any, tuple[str, ...]]:
    """The options that an exporter writes, by the kind of module."""
    peers.require(TABLES[library])
    if library == "ONNX":
        from lstmcore.onnx.writing import _exporting

        return {kind: options for kind, (_, options) in _exporting._MODULES.items()}
    if library == "Keras":
        from lstmcore.keras import _write

        return dict(_write._OPTIONS)
    from lstmcore.torch import _convert

    return dict(_convert._OPTIONS)


@pytest.mark.parametrize("library", TABLES)
def test_tables_name_options_that_there_are(library: str) -> None:
    table = table_of(library)
    assert set(RECURRENT) <= set(table)
    assert set(CELLS) <= set(table) or library == "ONNX"
    for kind, options in table.items():
        assert len(set(options)) == len(options)
        assert set(options) <= set(inspect.signature(kind).parameters), kind


def without(option: str) -> Callable[[Any], Any]:
    """Take an option out of a row of a table."""

    def change(row: Any) -> Any:
        if row and callable(row[0]):
            return row[0], change(row[1])
        return tuple(name for name in row if name != option)

    return change


@pytest.mark.parametrize(
    ("library", "module", "option"),
    [
        ("ONNX", lc.RNN(2, 3, gate_clip=0.5), "gate_clip"),
        ("ONNX", lc.LSTM(2, 3, peephole=True), "peephole"),
        ("ONNX", lc.GRU(2, 3, reverse=True), "reverse"),
        ("ONNX", lc.Linear(2, 3, bias=False), "bias"),
        ("Keras", lc.RNN(2, 3, nonlinearity="relu"), "nonlinearity"),
        ("Keras", lc.LSTM(2, 3, num_layers=2), "num_layers"),
        ("Keras", lc.GRUCell(2, 3, reset_after=False), "reset_after"),
        ("Keras", lc.LayerNorm(3, eps=0.5), "eps"),
        ("PyTorch", lc.LSTM(2, 3, proj_size=2), "proj_size"),
        ("PyTorch", lc.GRU(2, 3, bidirectional=True), "bidirectional"),
        ("PyTorch", lc.RNNCell(2, 3, bias=False), "bias"),
        ("PyTorch", lc.Embedding(2, 3, padding_idx=1), "padding_idx"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_a_table_does_not_name_is_refused(
    library: str, module: Any, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a new option is, before somebody enters it."""
    peers.require(TABLES[library])
    from lstmcore.keras import _write
    from lstmcore.onnx.writing import _exporting
    from lstmcore.torch import _convert

    table: Any
    export, table = {
        "ONNX": (lc.to_onnx, _exporting._MODULES),
        "Keras": (lc.to_keras, _write._OPTIONS),
        "PyTorch": (lc.to_torch, _convert._OPTIONS),
    }[library]
    export(module)
    monkeypatch.setitem(table, type(module), without(option)(table[type(module)]))
    value = getattr(module, option)
    with pytest.raises(ValueError, match=rf"{option}={value!r} cannot be written to {library}"):
        export(module)


def test_the_message_names_the_module_and_its_place() -> None:
    layer = lc.LSTM(3, 4, cell_clip=0.5)
    written = [name for name in inspect.signature(lc.LSTM).parameters if name != "cell_clip"]
    check_options(lc.LSTM(3, 4), written, "Elsewhere")
    message = r"^module 2, LSTM\(3, 4, cell_clip=0.5\): cell_clip=0.5 cannot be written to Elsewh"
    with pytest.raises(ValueError, match=message):
        check_options(layer, written, "Elsewhere", "2")
    with pytest.raises(ValueError, match=r"^LSTM\(3, 4, cell_clip=0.5\): cell_clip=0.5"):
        check_options(layer, written, "Elsewhere")
    check_options(layer, [*written, "cell_clip"], "Elsewhere")


@pytest.mark.parametrize("library", TABLES)
def test_refusals_of_a_crf_tell_what_to_export(library: str) -> None:
    peers.require(TABLES[library])
    write = {"ONNX": lc.to_onnx, "Keras": lc.to_keras, "PyTorch": lc.to_torch}[library]
    model = lc.Sequential(lc.GRU(3, 4, seed=0), lc.Linear(4, 2, seed=1), lc.CRF(2, seed=2))
    for refused in (model, model[-1]):
        with pytest.raises((TypeError, ValueError), match=r"CRF\(2\).*without it, as model\[:-1\]"):
            write(refused)
    write(model[:-1])


def test_the_refusal_of_a_cell_tells_what_to_export() -> None:
    peers.require("onnx")
    with pytest.raises(ValueError, match=r"LSTMCell\(3, 4\) is not .*with _l0 at the end"):
        lc.to_onnx(lc.LSTMCell(3, 4))
