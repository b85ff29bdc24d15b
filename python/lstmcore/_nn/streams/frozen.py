"""What streams are made of: copies of modules as they are now, and what the core does for them."""

from __future__ import annotations

import copy
import itertools
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import _core
from ..._base import checks
from ..._base.checks import Array
from ..._base.loads import whole
from ..._base.machine import memory_limit
from ..._base.module import Module, overridden
from ..._base.parameter import settled

__all__ = [
    "Frozen",
    "PythonStage",
    "check_room",
    "counted",
    "dtype_of",
    "embedded",
    "freeze",
    "sections",
    "sizes_of",
    "too_large",
]

_MOST_ROWS = 2**31 - 1


class PythonStage:
    """What a module that the core does not know does in a stream.

    Parameters
    ----------
    function : callable
        Is called with steps. One whose y at a step needs `past` steps of x before it is called with
        these in front of the others, and gives y for the others alone.
    past : int, default 0
        How many; zeros at first.
    features : int, default 0
        Of x, if there are past steps.
    """

    _state_parts = ("h",)  # of the past steps, (past, B, features), as of a recurrent layer

    def __init__(self, function: Any, past: int = 0, features: int = 0) -> None:
        self.function = function
        self.past = self.num_layers = past
        self._outputs = self._hidden = features


class Frozen:
    """A copy of a module that nobody changes, and what the core does for it."""

    __slots__ = ("__weakref__", "module", "stage")

    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.stage = module._stream_stage(name)

    @property
    def in_python(self) -> bool:
        """Whether it is something that the core does not know."""
        return isinstance(self.stage, PythonStage)

    @property
    def state_of(self) -> Any:
        """What has a state, as a recurrent layer has; None for nothing."""
        if self.module._gives_state:
            return self.module
        return self.stage if self.in_python and self.stage.past else None

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self.module, repr(self.module))


def counted(rows: Any, name: str) -> int:
    """Return how many streams there are to be, which messages call `name`."""
    count = checks.integer(rows, name, 1)
    if count > _MOST_ROWS:
        raise ValueError(f"{name} is {count}, expected at most {_MOST_ROWS}")
    return count


def freeze(module: Any) -> list[Frozen]:
    """Return copies of the modules of a layer or model, having checked what a stream is made of."""
    if not (isinstance(module, Module) and callable(getattr(module, "stream", None))):
        what = checks.describe(module)
        raise TypeError(f"module is {what}, expected a recurrent layer or a Sequential")
    _check_own(module, "module")
    chain = module._chain()

    def copies() -> list[Frozen]:
        return [_frozen(m, f"module {path}, {m!r}," if path else f"{m!r}") for path, m in chain]

    return whole(module, copies)


def _frozen(module: Any, name: str) -> Frozen:
    """Return a copy of a module as it is now; streams share the copy until the module changes."""
    if module._needs_whole_sequence or not module._keeps_time:
        raise ValueError(f"{name} needs the whole sequence, which a stream does not have")
    if not module._takes_ids:  # an Embedding is called, so it may compute in its own way
        _check_own(module, name)
    if not (module._parameters or module._buffers):
        return Frozen(module, name)
    watch = module._watch
    isa = _core.isa_version()
    of, token, version, made = watch.frozen
    found: Frozen | None = made() if of() is module else None
    if found is not None and token is watch.token and isa == version:
        return found
    # As in PacksWeights: read the token before the copy is made, and keep no copy while somebody
    # holds an array through which the weights can change.
    token = watch.token
    keep = settled(p for _, p in module._named())
    found = Frozen(copy.deepcopy(module), name)
    if keep:
        watch.frozen = (weakref.ref(module), token, isa, weakref.ref(found))
    return found


def _check_own(module: Module, name: str) -> None:
    own = overridden(module)
    if own:
        more = " of a Sequential does not call: that of lc.Model(x, model(x)) does, x a lc.Input"
        raise TypeError(
            f"{name} is a {type(module).__qualname__}, whose own {own} a stream"
            f"{more if module.each_step else ' does not call'}"
        )


def sections(frozen: list[Frozen], core: Any, part: Any) -> list[Any]:
    """Return what runs one after the other: ``core(stages)`` for modules that the core knows.

    And ``part(stage)``, of a `PythonStage`, for the others.
    """
    found: list[Any] = []
    staged = [f for f in frozen if f.stage is not None]
    for in_python, some in itertools.groupby(staged, lambda f: f.in_python):
        group = list(some)
        if not in_python and any(f.module._input_size is not None for f in group):
            found.append(core([f.stage for f in group]))
            continue
        # Activations alone fit any size, of which the core makes no stream.
        stages = [f.stage if in_python else PythonStage(f.module) for f in group]
        found += [part(stage) for stage in stages]
    return found


def sizes_of(frozen: list[Frozen]) -> tuple[int, int]:
    """Return how many features x and y have."""
    inputs: int = next(f.module._input_size for f in frozen if f.module._input_size)
    outputs = inputs
    for f in frozen:
        outputs = f.module._output_size(outputs)
    return inputs, outputs


def embedded(frozen: list[Frozen], x: npt.ArrayLike) -> Array:
    """Return the vectors of ids, by the Embedding that a model begins with."""
    vectors: Array = frozen[0].module(x)
    return vectors


def dtype_of(frozen: list[Frozen], rows: int, name: str) -> np.dtype[Any]:
    """Return the dtype of x and y, having checked that there is memory for the states."""
    modules = [f.module for f in frozen]
    sized = [m for m in modules if m._input_size is not None]
    if not sized:
        raise ValueError("a stream needs a recurrent layer, a Linear or a LayerNorm")
    dtype: np.dtype[Any] = sized[0].dtype
    # The size of states and gates, roughly.
    row = sum(6 * m.num_layers * m._hidden for m in modules if m._gives_state) * dtype.itemsize
    check_room(rows, row, name)
    return dtype


def check_room(rows: int, row: int, name: str) -> None:
    """Refuse so many rows of so many bytes if there is no memory for them.

    A large allocation may succeed, and have the process killed when it is written to.
    """
    if rows * row > 2**28 and rows * row > memory_limit():
        raise too_large(rows, name)


def too_large(rows: int, name: str) -> MemoryError:
    return MemoryError(f"{name} is {rows}, which needs more memory than this process may use")
