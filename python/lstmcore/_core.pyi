"""The compiled core. Sequences have three axes, in the user's order; Python does the checks."""

from collections.abc import Sequence
from typing import Any, final, overload

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.floating[Any]]
_Activation = tuple[str, float, float]  # name, alpha, beta

@final
class Spec:
    """What a layer is; immutable. Its options are those of cpp/include/lstmcore/options.h."""

    def __init__(self, **options: Any) -> None: ...

@final
class Weights:
    """Packed parameters; immutable."""

    @property
    def nbytes(self) -> int: ...

@final
class Tape:
    """What backward needs of a forward call, and the Weights it ran with."""

    @property
    def nbytes(self) -> int: ...
    @property
    def dropout_key(self) -> int: ...
    def gates(self) -> dict[str, _Array]: ...
    def cells(self) -> _Array: ...

@final
class Linear:
    """A packed linear map; immutable."""

class Stream:
    """Stages of a model and their state. `_convert` is the subclass's."""

    @overload
    def __init__(
        self, stages: Sequence[Weights | Linear | tuple[Any, ...]], batch_size: int, is_double: bool
    ) -> None: ...
    @overload
    def __init__(self, other: Stream) -> None: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    def step(self, x: npt.ArrayLike, out: _Array | None = None) -> _Array: ...
    def process(self, x: npt.ArrayLike, out: _Array | None = None) -> _Array: ...
    def _get_states(self) -> list[tuple[_Array, _Array | None]]: ...
    def _set_states(self, states: Sequence[tuple[_Array | None, _Array | None]]) -> None: ...
    def _reset_rows(self, rows: Sequence[int]) -> None: ...

@final
class StreamIds:
    """The numbers of streams, for pools that compute in Python."""

    def __init__(self, capacity: int) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def count(self) -> int: ...
    def open(self) -> tuple[int, int]: ...  # a new id, claimed, and its place
    def close(self, id: int) -> None: ...
    def claim(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]: ...  # their places
    def claim_one(self, id: int) -> int: ...
    def release(self, first: int) -> None: ...  # the first place of a claim; -1: of none

class StreamPool:
    """Stages of a model and the states of many streams. `_convert` is the subclass's."""

    def __init__(
        self, stages: Sequence[Weights | Linear | tuple[Any, ...]], capacity: int, is_double: bool
    ) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    def __len__(self) -> int: ...
    def step(self, ids: npt.ArrayLike, x: npt.ArrayLike, out: _Array | None = None) -> _Array: ...
    def _open(self) -> int: ...
    def _close(self, id: int) -> None: ...
    def _reset(self, ids: npt.NDArray[np.int64]) -> None: ...
    def _get_states(self, id: int) -> list[tuple[_Array, _Array | None]]: ...
    def _set_states(
        self, id: int, states: Sequence[tuple[_Array | None, _Array | None]]
    ) -> None: ...

def pack_linear(
    weight: _Array, bias: _Array | None, train: bool, precision: str = "float32"
) -> Linear: ...
def linear_forward(linear: Linear, x: _Array, /) -> _Array: ...
def linear_backward(
    linear: Linear, x: _Array, dy: _Array, dweight: _Array, dbias: _Array | None = None, /
) -> _Array: ...

# Operations on arrays of known shapes, see program.h: (name, shape, places, last, value, f, matrix)
# with places (memory, offset, strides). Memories are a room of so many numbers, the arrays that it
# is called with, of so many numbers each, `constants`, and arrays that it makes. It returns those
# that `results` has by their number, whole, or a part: where that begins, its shape and strides.
@final
class Program:
    def __call__(self, *arrays: _Array) -> Any: ...

def make_program(
    double: bool,
    operations: Sequence[tuple[Any, ...]],
    room: int,
    inputs: list[int],
    constants: list[_Array],
    made: list[list[int]],
    results: Sequence[tuple[int, tuple[int, list[int], list[int]] | None]],
) -> Program: ...

# y = f(x) for each number, softmax over the last axis, layer normalization over the last axes that
# hold `features` numbers together; in training also what backward takes: (x - mean) * scale as
# (rows, features), or None if that is y, and scale as (rows, 1).
def activate(f: _Activation, x: _Array, /) -> _Array: ...

# dy f'(x), from y, or from x if f falls and rises: gelu, silu, mish, hard_silu.
def activate_backward(f: _Activation, y_or_x: _Array, dy: _Array, /) -> _Array: ...
def softmax(x: _Array, /) -> _Array: ...
def softmax_backward(dy: _Array, y: _Array, /) -> _Array: ...
def layer_norm(
    x: _Array, features: int, weight: _Array | None, bias: _Array | None, eps: float, train: bool, /
) -> tuple[_Array, _Array | None, _Array | None]: ...

# dx; the gradients of weight and bias are added to those given.
def layer_norm_backward(
    dy: _Array,
    normal: _Array,
    scale: _Array,
    weight: _Array | None,
    dweight: _Array | None,
    dbias: _Array | None,
    /,
) -> _Array: ...

# Scaled dot-product attention: y; what is given first is written into, (B, heads, T, S), without
# heads if that is one, and (B, T, S). And the gradients of query, key and value.
def attention(
    weights: _Array | None,
    mean: _Array | None,
    query: _Array,
    key: _Array,
    value: _Array,
    lengths: npt.NDArray[np.int64] | None,
    kept: _Array | None,
    scale: float,
    heads: int,
    batch_first: bool,
    causal: bool,
    /,
) -> _Array: ...
def attention_backward(
    dy: _Array,
    weights: _Array,
    query: _Array,
    key: _Array,
    value: _Array,
    lengths: npt.NDArray[np.int64] | None,
    kept: _Array | None,
    scale: float,
    heads: int,
    batch_first: bool,
    causal: bool,
    /,
) -> tuple[_Array, _Array, _Array]: ...
def pack_quantized(spec: Spec, parameters: Sequence[npt.NDArray[Any]]) -> Weights: ...
def pack_quantized_linear(
    weight: npt.NDArray[np.int8], scales: _Array, bias: _Array | None
) -> Linear: ...
def round_bfloat16(array: _Array) -> None: ...
def quantize(matrix: _Array) -> tuple[npt.NDArray[np.int8], _Array] | None: ...
def pack(
    spec: Spec, parameters: Sequence[_Array], train: bool, precision: str = "float32"
) -> Weights: ...
def same_bits(some: Sequence[_Array], others: Sequence[_Array]) -> bool: ...
def forward(
    weights: Weights,
    x: _Array,
    h0: _Array | None,
    c0: _Array | None,
    lengths: npt.NDArray[np.int64] | None,
    resets: npt.NDArray[np.bool_] | None,
    batch_first: bool,
    train: bool,
    dropouts: tuple[float, float, float],  # between layers, of the input, of h into W_hh
    dropout_key: int,
    lookup: npt.NDArray[np.int64] | None = None,
    first_step: int = 0,  # of a piece of longer sequences: lengths and dropout count from there
    whole_steps: int = -1,
) -> tuple[_Array, _Array, _Array | None, Tape | None]: ...
def infer(weights: Weights, x: Any, state: Any, batch_first: bool, /) -> Any: ...
def backward(
    tape: Tape,
    dy: _Array | None,
    dh: _Array | None,
    dc: _Array | None,
    gradients: Sequence[_Array],
    need_dx: bool = ...,
) -> tuple[Any, _Array, _Array | None]: ...
def dropout_mask(
    key: int, part: int, time: int, batch: int, features: int, p: float, use: str = ...
) -> npt.NDArray[np.bool_]: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def isa_version() -> int: ...
def bfloat16_instructions() -> str: ...
def bfloat16x3_instructions() -> str: ...
def int8_instructions() -> str: ...
def set_num_threads(n: int, exactly: bool = ...) -> None: ...
def get_num_threads() -> int: ...
def max_threads() -> int: ...
def build_info() -> dict[str, str]: ...

# Optimizers: a step for all parameters in place. `rows` has None, or ascending rows of the
# first axis, for each; `states` a list of arrays, or None, for each thing remembered.
def sgd(
    t: int,
    data: list[_Array],
    grads: list[_Array],
    rows: list[npt.NDArray[np.intp] | None],
    states: list[list[_Array] | None],
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> None: ...
def rmsprop(
    t: int,
    data: list[_Array],
    grads: list[_Array],
    rows: list[npt.NDArray[np.intp] | None],
    states: list[list[_Array] | None],
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
    centered: bool,
) -> None: ...
def adam(
    t: int,
    data: list[_Array],
    grads: list[_Array],
    rows: list[npt.NDArray[np.intp] | None],
    states: list[list[_Array] | None],
    lr: float,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
) -> None: ...
def adamw(
    t: int,
    data: list[_Array],
    grads: list[_Array],
    rows: list[npt.NDArray[np.intp] | None],
    states: list[list[_Array] | None],
    lr: float,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
) -> None: ...
def gradient_norm(grads: list[_Array], rows: list[npt.NDArray[np.intp] | None]) -> float: ...
def scale_gradients(
    factor: float, grads: list[_Array], rows: list[npt.NDArray[np.intp] | None]
) -> None: ...

# (losses (N,), filling dpred (N, C)) of scores (N, C); lstmcore/losses.h has the equations.
def cross_entropy(
    pred: _Array,
    target: npt.NDArray[np.int64],
    factor: _Array,
    hit: _Array,
    dpred: _Array | None,
    /,
) -> npt.NDArray[np.float64]: ...

# The loss of each row (B,), filling dlogits with factor (B,) times its gradient; `labels` has those
# of all rows, one after the other. And for each row (ids, score) of what it may say, best first.
def ctc(
    logits: _Array,
    labels: npt.NDArray[np.int64],
    target_lengths: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64] | None,
    blank: int,
    batch_first: bool,
    factor: npt.NDArray[np.float64] | None,
    dlogits: _Array | None,
    /,
) -> npt.NDArray[np.float64]: ...
def ctc_beam_search(
    logits: _Array,
    lengths: npt.NDArray[np.int64] | None,
    blank: int,
    batch_first: bool,
    beam_size: int,
    /,
) -> list[list[tuple[npt.NDArray[np.int64], float]]]: ...

# The loss of each row (B,), filling dscores with factor (B,) times its gradient and adding those of
# the parameters, transitions, start and end, to `gradients`, which may be empty. And the likeliest
# labels, one row after the other.
def crf(
    scores: _Array,
    parameters: Sequence[_Array],
    target: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64] | None,
    mask: npt.NDArray[np.bool_] | None,
    batch_first: bool,
    factor: npt.NDArray[np.float64],
    dscores: _Array | None,
    gradients: Sequence[_Array],
    /,
) -> npt.NDArray[np.float64]: ...
def crf_decode(
    scores: _Array,
    parameters: Sequence[_Array],
    lengths: npt.NDArray[np.int64] | None,
    mask: npt.NDArray[np.bool_] | None,
    batch_first: bool,
    /,
) -> npt.NDArray[np.int64]: ...

# An array that is not initialised. When a large one is freed the thread keeps its memory for its
# next ones, as a training step would else be given the same pages, cleared, each time.
def empty(shape: Sequence[int], dtype: np.dtype[Any], /) -> _Array: ...

# table[rows[i]] += values[i] for each i.
def add_rows(table: _Array, rows: npt.NDArray[np.int64], values: npt.NDArray[Any], /) -> None: ...
