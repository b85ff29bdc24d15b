"""Keras: its layers, models and files become modules of ours, and ours become its.

What does it is imported when it is used.
"""

from __future__ import annotations

from typing import Any

from .._base.checks import describe
from .._base.module import Module
from .._public.publish import publish

__all__ = ["from_keras", "to_keras"]


def from_keras(source: Any, *, layer: str | None = None, config: Any = None) -> Module:
    """Make modules of ours that compute what a layer or model of Keras computes.

    Files are read without Keras; nothing in them is imported or run.

    Parameters
    ----------
    source : layer, model, path, bytes or binary file
        A layer or model of Keras 2 or 3, built; or a ``.keras`` or ``.h5`` file, by its path, its
        bytes, or opened for reading. Models are Sequential or functional ones.
    layer : str, optional
        The name of one layer of the model: only that is imported, whatever the rest of it is.
    config : dict or str, optional
        Which model it is, for a file that has weights alone: what ``model.to_json()`` gives in
        Keras, or the same as a dict.

    Returns
    -------
    Module
        A recurrent layer of Keras by itself becomes an `RNN`, `LSTM` or `GRU` that gives all
        outputs and the final state, whatever ``return_sequences`` and ``return_state`` say, and
        with ``go_backwards`` has ``reverse=True``: its outputs stand where their inputs are. A
        chain of layers becomes a `Sequential`, any other model a `Model`, and they give what the
        model gives. All are batch-first, as Keras is.

    Raises
    ------
    ValueError
        If something is not imported, naming the layer and the option; or if the file is damaged.
    TypeError
        If `source` is no layer or model of Keras and no file.
    OSError
        If the file cannot be opened.

    Notes
    -----
    Imported are SimpleRNN, LSTM, GRU and their cells, CuDNNLSTM, CuDNNGRU, RNN with one or several
    of the cells, Bidirectional, Embedding, Dense, Conv1D, DepthwiseConv1D, SeparableConv1D,
    LayerNormalization, BatchNormalization, UnitNormalization, Normalization, Rescaling, Masking,
    Activation, ReLU, LeakyReLU, PReLU, ELU, Softmax, Dropout, TimeDistributed, Flatten, Reshape,
    Permute, RepeatVector, ZeroPadding1D, Cropping1D, UpSampling1D, MaxPooling1D, AveragePooling1D,
    GlobalAveragePooling1D, GlobalMaxPooling1D, and in functional models Add, Subtract, Multiply,
    Average, Maximum, Minimum, Concatenate, Dot, Attention, AdditiveAttention, MultiHeadAttention,
    many functions of ``keras.ops``, initial states, models in models and layers that are called
    twice. What acts in training only (dropout inside recurrent layers and attention, noise,
    regularizers) is left out.

    Masked steps are passed over wherever they are, and outputs stay where their inputs are. Where a
    step is masked, an output is what it is in Keras.

    Examples
    --------
    >>> import lstmcore as lc
    >>> model = lc.from_keras("model.keras")  # doctest: +SKIP
    >>> model(x)  # doctest: +SKIP
    """
    from . import _files, _functional, _live, _model

    if _files.is_file(source):
        try:
            return _functional.import_model(_files.read(source, config), layer)
        except RecursionError:
            raise ValueError("source has parts within parts without end") from None
    if config is not None:
        raise ValueError("config is given, but source is no file of weights: it has its own")
    if _live.is_model(source):
        return _functional.import_model(_live.source_of(source), layer)
    if layer is not None:
        raise ValueError(f"layer is {layer!r}, but source is not a model")
    return _model.import_layer(*_live.layer_of(source))


def to_keras(module: Module) -> Any:
    """Make a layer or model of Keras that computes what a module of ours computes.

    Parameters
    ----------
    module : RNN, LSTM, GRU, one of the cells, Sequential, Model, or what may stand in one
        Keras is batch-first: there x and y are (B, T, ...), whatever `batch_first` says here.

    Returns
    -------
    layer or model of Keras
        A recurrent layer by itself gives all outputs (``return_sequences=True``), with
        ``reverse=True`` from the last step to the first. A recurrent layer of several layers and a
        `Sequential` become a ``keras.Sequential``, a `Model` that is no chain a functional model.

    Raises
    ------
    ValueError
        If Keras cannot express it, naming the module and the option.
    TypeError
        If `module` is not a module of ours, or one of a class of your own is in it.
    ImportError
        If Keras is missing, or what computes for it: TensorFlow, or what ``KERAS_BACKEND`` in the
        environment names.

    Notes
    -----
    b_ih and b_hh become the one bias that Keras has, their sum, but for a GRU with reset_after,
    where it has both. Keras 3 has hard_sigmoid with a slope of 1/6 only, Keras 2 with 0.2 only.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5, bidirectional=True, batch_first=True)
    >>> layer = lc.to_keras(lstm)  # doctest: +SKIP
    >>> lc.from_keras(layer) == lstm  # doctest: +SKIP
    True
    """
    if not isinstance(module, Module):
        raise TypeError(f"module is {describe(module)}, expected a module of lstmcore")
    from .._files.models import check_kinds

    check_kinds(module, "module", "convert its parts")
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            'to_keras needs Keras, pip install "lstmcore[keras]", and what computes for it: '
            "TensorFlow, unless the environment says KERAS_BACKEND=torch or KERAS_BACKEND=jax when "
            "Keras is imported first"
        ) from error
    from ._write_network import unfolded, write_network

    module = unfolded(module)
    if module._network is not None:
        return write_network(keras, module)
    from ._write import write

    return write(keras, module)


publish(globals())
