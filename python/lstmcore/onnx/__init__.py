"""ONNX: files become layers or models that run, and layers and models become files.

The onnx package is needed, and imported when one of these is called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

from .._public.publish import publish

if TYPE_CHECKING:
    from .._base.module import Module
    from ._graph import Graph

    Imported: TypeAlias = Module | dict[str, Module] | Graph

__all__ = ["from_onnx", "to_onnx"]


def from_onnx(model: str | os.PathLike[str] | bytes | Any, node: str | None = None) -> Any:
    """Return the layer, the layers or the whole model that an ONNX file holds.

    Parameters
    ----------
    model : path, bytes, open file, or onnx.ModelProto
        Opsets 7 to 28. External data must lie in the folder of the file, which is known of a path
        alone.
    node : str, optional
        The name of one LSTM, GRU, RNN or DynamicQuantizeLSTM node, to get its layer alone: nothing
        else is read. It may be in a branch, a loop or a function. One without a name has that of
        its first output.

    Returns
    -------
    RNN, LSTM or GRU
        With `node`, or if the model is nothing but one recurrent node. y is (T, B, D*H) where
        ONNX's Y is (T, D, B, H); states are as in ONNX, (D, B, H). With layout=1 the layer is
        batch_first and its states are still (D, B, H).
    dict of str to layer
        If the model is nothing but several recurrent nodes, each fed by the model's own inputs: the
        layers by the names of the nodes.
    Module
        If `to_onnx` has written the file and its graph is as it was: an equal layer or model.
    Sequential
        If its graph is a chain of modules of this library with one input and one output, such as
        recurrent layers, a pooling, Linear and softmax; states of zeros and dropout count for
        nothing.
    Model
        If it is of such modules and of sums, products, parts and features side by side, in any
        shape: its inputs are a list if there are several, ``model(x1, x2)``, and so are its
        outputs. It also takes a dict by the file's names, which are its ``input_names`` and
        ``output_names``.
    Graph
        Otherwise: the whole model, to be called with its inputs by position or by name. It also
        gives the layer of every recurrent node by its name, like a dict.

    Raises
    ------
    ValueError
        If the file is not sound, or needs operators that are not there, which are listed, or a node
        has an attribute or input that cannot be expressed. Nothing is ignored.
    ImportError
        Without the onnx package.

    Notes
    -----
    The dtype is that of the node's weights; float16 and bfloat16 become float32. A
    DynamicQuantizeLSTM with symmetric integers becomes a layer in int8, as `lstmcore.quantize`
    makes it; of others the weights become real numbers.

    For a row of length 0 ONNX Runtime returns 0 as the final state, and we the initial one.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import lstmcore as lc
    >>> gru = lc.GRU(3, 5, bidirectional=True, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "gru.onnx"
    ...     _ = lc.to_onnx(gru, path)
    ...     lc.from_onnx(path) == gru, lc.from_onnx(path, node="gru_l0")
    (True, GRU(3, 5, bidirectional=True))
    """
    from ._importing import load

    return load(model, node)


def to_onnx(
    layer_or_model: Module,
    path: str | os.PathLike[str] | None = None,
    *,
    states: bool = False,
    lengths: bool = False,
    opset: int = 17,
) -> Any:
    """Write a layer or a model as an ONNX model, with any time and batch size.

    Its input is x, (time, batch, features), or (batch, time, features) if batch_first; ids of int64
    without the last axis for an Embedding. Its output is y. Dropout is left out. Inputs and outputs
    of a `Model` that has several are x0, x1 and y0, y1, or have their names.

    Parameters
    ----------
    layer_or_model : RNN, LSTM, GRU, Sequential, Model, or another module
        Of Linear, Embedding, LayerNorm, BatchNorm, Conv1D, activations, pooling, Flip and Dropout
        too; a Model also of attention.
    path : path, optional
        Where to write. A file that is there is replaced when the new one is complete, not before.
    states : bool, default False
        Whether there are inputs ``h0`` (and ``c0``) and outputs ``hn`` (and ``cn``), (L*D, B, H);
        with ``"0."`` and the like before the name if there are several recurrent layers. Layers
        whose initial state a Model gives have none.
    lengths : bool, default False
        Whether there is an input ``lengths``, (batch,) of int64: how many steps each row has. Of a
        Model there is one for all inputs whose values meet; if that makes several, they are
        ``x0.lengths`` and the like, by the first input of each.
    opset : int, default 17
        13 to 22. A LayerNorm needs 17.

    Returns
    -------
    onnx.ModelProto
        What has been written.

    Raises
    ------
    ValueError
        Naming the module, and the option of it, that ONNX cannot express, such as int8 of a GRU.
    OSError
        If the file cannot be written.
    ImportError
        Without the onnx package.

    Notes
    -----
    A layer is a node LSTM, GRU or RNN, or, with an option that these lack (layer_norm, zoneout,
    proj_size, cell_clip), a Scan over the steps. ONNX Runtime knows the nodes in float32 only; a
    float64 model is written as it is.

    Examples
    --------
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.LSTM(3, 8, seed=0), lc.LastStep(), lc.Linear(8, 2, seed=0))
    >>> proto = lc.to_onnx(model, lengths=True)
    >>> [node.op_type for node in proto.graph.node][:3]
    ['Cast', 'LSTM', 'Squeeze']
    """
    from .._base import checks
    from .._files.replacing import replacing
    from .writing._to_onnx import export

    if path is not None:
        checks.path(path, "path")
    proto = export(layer_or_model, states, lengths, opset)
    if path is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(proto.SerializeToString())
    return proto


publish(globals())
