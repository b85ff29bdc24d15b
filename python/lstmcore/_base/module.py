"""What every module has in common: parameters and submodules by name, options, random streams.

The members of `Module` that begin with an underscore are what the rest of the library asks of a
module. A new kind of module answers them where the default is wrong.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from .._public.publish import explain
from . import checks
from .budget import BUDGET
from .checks import Array
from .flow import BackwardFlow, Flow
from .loads import loading, whole
from .machine import memory_limit
from .parameter import Parameter, Watch, gradients, read_only, zero_gradients
from .state_names import hints
from .symbolic import Axes, Symbolic
from .tying import other_names, under_first_names, use_parameter

__all__ = [
    "STORABLE",
    "IncompatibleKeys",
    "Module",
    "check_hidden",
    "check_own",
    "needed_steps",
    "overridden",
    "set_random_state",
    "split_forward",
    "storable",
    "wrong_number",
]

_LIBRARY = __name__.partition(".")[0] + "."  # what the modules are named that it is made of

STORABLE: dict[str, type[Module]] = {}  # the kinds that can be in a file, by name

Kind = TypeVar("Kind", bound="type[Module]")
Own = TypeVar("Own", bound="Module")


def storable(kind: Kind) -> Kind:
    """Let files hold modules of this very class: a decorator for those of this library.

    A class derived from it is another one, which files do not hold.
    """
    STORABLE[kind.__name__] = kind
    return kind


class IncompatibleKeys(NamedTuple):
    """The keys that `load_state_dict` did not find, and those that it found and could not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def _call(module: Any, *x: Any, **options: Any) -> Any:
    """Return what `forward` returns, without the tape."""
    for one in x:
        if isinstance(one, Symbolic):
            return one._enter(module, x, **options)
    y, _ = split_forward(module, whole(module, lambda: module.forward(*x, **options)))
    return y[0] if len(y) == 1 else y


class Module:
    """What all modules are, and what one of your own derives from.

    Set Parameters and modules as attributes, as in PyTorch, and write ``forward(*x)``, which
    returns every y and a tape, whatever the latter is, and ``backward(tape, *dy)``, which adds to
    the gradients of its parameters and returns dx, or a tuple if there are several x. There is no
    ``__init__`` to call first. Then ``module(*x)``, `state_dict`, `parameters`, `zero_grad`,
    pickles, copies, `fit`, its callbacks and checkpoints work, and it may stand in a `Sequential`
    and in a `Model`. `gradcheck` says whether backward is right.

    A ``forward`` with an argument ``lengths`` is given those of its first x, where there are some;
    where it needs to know whether x is (B, T, ...), set an attribute ``batch_first``. Where every
    step of y comes of the same step of x alone, set ``each_step = True``. Without that, a model
    with it is given whole sequences only: it is refused in streams, by `generate` and by
    ``fit(truncate=)``, which cannot know what it needs.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> class Scale(lc.Module):
    ...     def __init__(self, size):
    ...         self.factor = lc.Parameter("factor", np.ones(size))
    ...
    ...     def forward(self, x):
    ...         factor = self.factor.data.copy()
    ...         return x * factor, (x, factor)
    ...
    ...     def backward(self, tape, dy):
    ...         x, factor = tape
    ...         self.factor.grad += (x * dy).reshape(-1, len(factor)).sum(axis=0)
    ...         return dy * factor
    >>> scale = Scale(3)
    >>> scale(np.arange(3.0)), scale.num_parameters, list(scale.state_dict())
    (array([0., 1., 2.]), 3, ['factor'])
    >>> lc.gradcheck(scale, np.arange(6.0).reshape(2, 3))
    >>> lc.Sequential(scale, lc.Linear(3, 1, dtype="float64"))
    Sequential(
      (0): Scale()
      (1): Linear(3, 1, dtype=float64)
    )
    """

    extra: Mapping[str, Any] = MappingProxyType({})
    """What `save` kept beside it in the file that it was loaded from."""

    _config: Any = None  # its attributes are the options; two of them can be compared by ==
    _parameters: Mapping[str, Parameter] = MappingProxyType({})  # its own, in PyTorch's order
    # What it stores beside them that nothing trains, such as running statistics.
    _buffers: Mapping[str, Parameter] = MappingProxyType({})
    _children: Mapping[str, Module] = MappingProxyType({})  # their parameters come after its own
    _watch: Watch
    _quantized: bool = False  # whether its matrices are in int8
    _watches_inputs: ClassVar[bool] = False  # whether `_watch_inputs` does something
    _has_precision: bool = False  # whether it has a precision of its own, as recurrent layers have
    _dropout_rng: np.random.Generator | None = None
    _own: ClassVar[bool] = False  # whether the class is somebody else's

    each_step: bool = False
    """Whether every step of y comes of the same step of x alone."""

    # What the rest of the library asks of a module.
    _takes_one_x: ClassVar[bool] = True  # whether it makes one y of one x, as in a Sequential
    _takes_ids: bool = False  # whether x holds integers and has no axis of features
    _knows_time: bool = False  # whether x has a time axis, and `lengths` say where rows end
    _keeps_time: bool = True  # whether y has the time axis of x, or pools it away
    _makes_time: bool = False  # whether y has a time axis where x has none
    _moves_steps: bool = False  # whether it puts steps in another place, as Flip does
    _changes_lengths: bool = False  # whether rows of y have other lengths than those of x
    _finds_lengths: bool = False  # whether it tells the modules after it where rows end
    _state_parts: tuple[str, ...] = ()  # what the state consists of: "h", or "h" and "c"
    _gives_state: ClassVar[bool] = False  # whether a call gives the final state beside y
    _takes_lookup: ClassVar[bool] = False  # whether it reads steps from a table (see `Flow`)
    _gives_probabilities: bool = False  # whether y is behind a softmax or sigmoid
    _needs_whole_sequence: bool = False  # whether y at a step needs steps after it
    _looks_back: bool = False  # whether it needs x of earlier steps, which no state keeps
    _past_steps: int = 0  # how many earlier steps of x it needs, which networks carry as its state
    # Whether `_apply` calls `forward` and `__call__`. If so, a derived class may have its own.
    _applies_own: ClassVar[bool] = True

    # What to export in its place, for the messages of exporters that have nothing for it.
    _instead: str = ""

    # The plan of a network that is no chain: see _network/plan.py.
    _network: Any = None

    # Of the steps of which argument `lengths` say where rows end, and which has those of y.
    _lengths_of: ClassVar[int] = 0
    _steps_of: ClassVar[int] = 0
    # Whether each step of y comes of the same step of that one, and of all steps of the others.
    _each_query: ClassVar[bool] = False

    __call__: Callable[..., Any] = _call

    def forward(self, *x: Any, **options: Any) -> Any:
        """Return every y, and the tape that `backward` will need: each class has its own.

        It changes none of its x, and keeps in the tape, not in attributes, what `backward` needs:
        there may be another `forward` before.
        """
        raise TypeError(
            f"{type(self).__qualname__} has no forward: expected forward(self, x), which returns y "
            "and a tape, whatever backward will need; see the docstring of lstmcore.Module"
        )

    def backward(self, tape: Any, *dy: Any) -> Any:
        """Add to the gradients of the parameters, and return those of every x."""
        name = type(self).__qualname__
        raise TypeError(
            f"{name} has no backward: for training, expected backward(self, tape, dy), which adds "
            "to the gradient of every parameter and returns that of x; then "
            f"lstmcore.gradcheck({name}(...), x) tells whether it is right"
        )

    def __init_subclass__(cls, **options: Any) -> None:
        """Let classes of somebody else's find their attributes, and take symbols."""
        super().__init_subclass__(**options)
        if cls.__module__.startswith(_LIBRARY):
            return
        cls._own = True
        own = cls.__dict__
        for name, method in (("__setattr__", _set_attribute), ("__delattr__", _delete_attribute)):
            if name not in own:
                setattr(cls, name, method)
        if "__call__" in own:
            type.__setattr__(cls, "__call__", _entering(own["__call__"]))
        if not own.keys().isdisjoint(("forward", "__call__")) and "each_step" not in own:
            cls.each_step = False  # it may compute otherwise than the class it is derived from
        if "forward" in own and cls._applies_own:
            cls._knows_time = "lengths" in inspect.signature(own["forward"]).parameters
            for name in ("_apply", "_apply_backward", "_apply_all", "_apply_all_backward"):
                setattr(cls, name, getattr(Module, f"{name}_own"))
        if "__init__" in own:
            _check_init(cls, own["__init__"])

    def _make_parameters(
        self, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: np.dtype[Any]
    ) -> None:
        budget = BUDGET.get()
        shapes = list(shapes if budget is None else budget.take(shapes, dtype))
        # Checked here, because Linux grants large allocations that fail only when written to.
        size = sum(int(np.prod(shape, dtype=object)) for _, shape in shapes) * dtype.itemsize
        if size > 2**28 and size > memory_limit():
            raise MemoryError(f"{self!r} needs more memory than this process may use")
        self._watch = Watch()
        self._parameters = {
            name: Parameter._empty(name, shape, dtype, self._watch) for name, shape in shapes
        }

    def _modules(self) -> Iterator[tuple[str, Module]]:
        """Name and module of itself, which is "", and of all below it."""
        yield "", self
        for name, child in self._children.items():
            for path, module in child._modules():
                yield f"{name}.{path}" if path else name, module

    def _chain(self) -> list[tuple[str, Any]]:
        """Path and module of all that compute, one after the other: of a container, its parts."""
        return [("", self)]

    def _stateful(self, tape: Any = None) -> list[tuple[Any, Any]]:
        """Return the modules in it whose states a network carries, and their tapes."""
        return [(self, tape)] if self._gives_state or self._past_steps else []

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Any, Any]:
        """Return y and, for training, the tape; else None. Networks call every module by this.

        What a module needs beside x, or tells those after it, is in `flow`.
        """
        if train:
            y, tape = self.forward(x)
            return y, tape
        return self(x), None

    def _apply_backward(self, tape: Any, dy: Any, flow: BackwardFlow) -> Any:
        """Return dx for the tape that `_apply` returned."""
        return self.backward(tape, dy)

    def _add_gradients(self, tape: Any, dy: Any) -> None:
        """Do what `backward` does for somebody who does not need dx."""
        self.backward(tape, dy)

    def _check_tape(self, tape: Any) -> None:
        """Refuse a tape that `_apply_backward` cannot use, before anything is changed."""

    # Networks that are no chains call these two: with all arguments of a call, and all gradients.

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        """Return what a call with these arguments returns and, for training, the tape."""
        return self._apply(args[0], flow, train)

    def _apply_all_backward(self, tape: Any, dy: tuple[Any, ...], flow: BackwardFlow) -> Any:
        """Return the gradients of the arguments; those in dy may be None, for zeros."""
        return (self._apply_backward(tape, dy[0], flow),)

    # The same for those that write their own forward and backward.

    def _apply_own(self, x: Any, flow: Flow, train: bool) -> tuple[Any, Any]:
        return Module._apply_all_own(self, (x,), flow, train)

    def _apply_all_own(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        options = {}
        if self._knows_time and flow.lengths is not None:
            options["lengths"] = np.asarray(flow.lengths.rows)
        if not train:
            made = self(*args, **options)
            _check_dtype(self, args, made if isinstance(made, tuple) else (made,))
            return made, None
        y, tape = split_forward(self, self.forward(*args, **options))
        _check_dtype(self, args, y)
        return (y[0] if len(y) == 1 else y), (tape, [_shape_and_dtype(x) for x in args])

    def _apply_backward_own(self, tape: Any, dy: Any, flow: BackwardFlow) -> Any:
        return Module._apply_all_backward_own(self, tape, (dy,), flow)[0]

    def _apply_all_backward_own(self, tape: Any, dy: tuple[Any, ...], flow: BackwardFlow) -> Any:
        tape, expected = tape
        dx = self.backward(tape, *dy)
        dx = dx if isinstance(dx, tuple) else (dx,)
        if flow.needs_dx:
            _check_gradients_of_x(self, dx, expected)
        return dx

    def _axes(self, *args: Any) -> tuple[Any, ...]:
        """Return the axes of all that a call gives for arguments of these axes.

        A ValueError says what is wrong with them.
        """
        if len(args) > 1:
            raise ValueError(f"it has {len(args)} arguments, expected one")
        x: Axes = args[0]
        if self._takes_ids != (x.features is None):
            raise ValueError(f"x is {x}, expected {'ids' if self._takes_ids else 'features'}")
        if self._knows_time and (not x.steps or x.inner):
            more = " and no axes beside them; lc.EachStep takes those" if x.inner else ""
            raise ValueError(f"x is {x}, expected time steps{more}")
        if self._input_size not in (None, x.features):
            raise ValueError(f"x is {x}, expected {self._input_size} features")
        size = self._output_size(x.features)
        return (Axes(size, x.steps and self._keeps_time, x.states, inner=x.inner),)

    def _call_with_ends(self, x: Any, **options: Any) -> tuple[Any, Any]:
        """Return y for inference, and where its rows end if modules in this one have found out.

        That is an `Ends` or None for every y, in their structure. The tape of a network that
        `_finds_lengths` has the same as `_ends`.
        """
        return self(x, **options), None

    def _output_gives_probabilities(self, output: Any) -> bool:
        """Whether y, or the one of several that has this name or number, is probabilities."""
        return self._gives_probabilities

    def _stream_stage(self, name: str) -> Any:
        """Return what a stream of the core is to do for this module, or None for nothing.

        That is packed weights, or a name and numbers: see `parse_stage` in cpp/bindings/stages.h.
        What the core does not know is a `PythonStage`, which runs between streams of the core.
        The default refuses. `name` is what messages call the module.
        """
        raise TypeError(f"{name} cannot be streamed: streams do not compute this kind of module")

    def _quantize(self, name: str, moments: Mapping[int, Array]) -> bool:
        """Turn its matrices into int8, and return whether it has some; see `lstmcore.quantize`.

        `name` is what messages call the module. `moments` has, by the id of a matrix, the sum of
        x x' of the rows x that it is multiplied with.
        """
        return False

    def _watch_inputs(self, note: Callable[[str, Array], None] | None) -> None:
        """Let calls tell note(name, rows) what comes to be multiplied with its matrices; or stop.

        It is for a copy of a module that nobody else has.
        """

    def _part_reading_ahead(self) -> Module | None:
        """Return the first module in this one that needs steps which no state carries, if any.

        One of somebody else's may need some unless its `each_step` is True. Where it is the whole
        model, that is its own affair: it takes and gives a state.
        """
        for part in self._given_steps():
            unknown = overridden(part) and part._applies_own and not part.each_step
            if unknown or (part._past_steps and overridden(self)):
                return part
            found = part._part_reading_ahead()
            if found is not None:
                return found
        if not (self._needs_whole_sequence or self._looks_back):
            return None
        parts = (part for _, part in self._modules() if not part._children)
        return next((part for part in parts if part._needs_whole_sequence), self)

    def _part_begun_within(self) -> Module | None:
        """Return the first module in this one whose initial state the model makes, if any."""
        found = (part._part_begun_within() for part in self._children.values())
        return next((part for part in found if part is not None), None)

    def _given_steps(self) -> Iterable[Module]:
        """Return the modules in this one that are given its steps, as far as is known."""
        return self._children.values()

    @property
    def _input_size(self) -> int | None:
        """Size of the last axis of x; None if that may be any."""
        return None

    def _output_size(self, size: int | None) -> int | None:
        """Return the size of the last axis of y for that of x; None if that is not known."""
        return None

    def parameters(self) -> list[Parameter]:
        """Return the parameters, in the order of the state dict, each once."""
        found = list(self._parameters.values())
        for child in self._children.values():
            found += child.parameters()
        return list({id(p): p for p in found}.values()) if self._children else found

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Return (name, parameter) pairs, in the order of the state dict.

        The names are PyTorch's: those of submodules begin with their names, as in
        ``"0.weight_ih_l0"``; the attribute `Parameter.name` is the last part of it. In a module of
        your own, the last part is the attribute that holds the parameter. One that is in several
        places has its first name.
        """
        return self._named(False)

    def _named(self, stored: bool = True) -> list[tuple[str, Parameter]]:
        """Return (name, parameter) pairs; with those that are `stored` beside the parameters."""
        named = list(self._parameters.items())
        if stored:
            named += self._buffers.items()
        for prefix, child in self._children.items():
            named += [(f"{prefix}.{name}", p) for name, p in child._named(stored)]
        if self._children:
            first = {id(p): (name, p) for name, p in reversed(named)}
            named = [first[id(p)] for name, p in named if first[id(p)][0] == name]
        return named

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold together."""
        return sum(p.size for p in self.parameters())

    def zero_grad(self) -> None:
        """Fill every gradient with zeros. `backward` adds to them, so call it before each step."""
        zero_gradients(self.parameters())

    def tie(self: Own, name: str, other: Module, other_name: str | None = None) -> Own:
        """Use a parameter of another module in the place of one of its own.

        From then on it is one array with one gradient, to which both add. In a model with both it
        counts once, under the name of the place where it is found first. Files of `lstmcore.save`,
        copies and pickles of such a model keep it tied, and so do `from_torch` and `to_torch`;
        other formats have it twice.

        Parameters
        ----------
        name : str
            Of the parameter of this very module (not of one in it) that is replaced.
        other : module
            Whose parameter is used.
        other_name : str, optional
            What that is called there; `name` if not given.

        Returns
        -------
        module
            Itself.

        Raises
        ------
        ValueError
            If there is no such parameter, shapes or dtypes differ, `other` is an Embedding with
            ``sparse=True``, this module is tied to another one already, or has that parameter
            under another name.
        TypeError
            If one of them has no parameters of its own.

        Notes
        -----
        Make the optimizer afterwards. O. Press, L. Wolf, "Using the output embedding to improve
        language models", EACL 2017, about the example.

        Examples
        --------
        >>> import lstmcore as lc
        >>> embedding = lc.Embedding(1000, 32, seed=0)
        >>> head = lc.Linear(32, 1000, seed=1).tie("weight", embedding)
        >>> model = lc.Sequential(embedding, lc.GRU(32, 32, seed=2), head)
        >>> [name for name, _ in model.named_parameters() if "_" not in name]
        ['0.weight', '2.bias']
        """
        use_parameter(self, name, other, name if other_name is None else other_name)
        return self

    def freeze(self: Own) -> Own:
        """Train none of its parameters until `unfreeze`: they keep their values.

        Optimizers pass over them, those that are made already as well as those to come, and
        clipping does, too. An optimizer made meanwhile does not have them afterwards either.

        Returns
        -------
        module
            Itself.

        Examples
        --------
        >>> import lstmcore as lc
        >>> model = lc.Sequential(lc.GRU(3, 8, seed=0), lc.LastStep(), lc.Linear(8, 2, seed=1))
        >>> _ = model[0].freeze()
        >>> optimizer = lc.optim.Adam(model.parameters())
        >>> [p.name for p in optimizer.parameters]
        ['weight', 'bias']
        """
        for p in self.parameters():
            p._freeze()
        return self

    def unfreeze(self: Own) -> Own:
        """Train again what `freeze` has stopped; what was not trainable before it stays so.

        A file of `lstmcore.save` does not tell the two apart: of a loaded model, set
        ``parameter.trainable = True`` where it shall be trained.

        Returns
        -------
        module
            Itself.
        """
        for p in self.parameters():
            p._unfreeze()
        return self

    def _check_gradients(self) -> None:
        """Refuse gradients that cannot be added to."""
        wrong = self._read_only_gradient()
        if wrong is not None:
            name = next(name for name, p in self.named_parameters() if p is wrong)
            raise ValueError(f"{name}.grad is read-only, expected an array to add to")

    def _read_only_gradient(self) -> Parameter | None:
        """Return the first parameter whose gradient cannot be added to, if there is one."""
        wrong = read_only(self._parameters.values()) if self._parameters else None
        for child in self._children.values():
            if wrong is None and (child._parameters or child._children):
                wrong = child._read_only_gradient()
        return wrong

    def _own_gradients(self) -> list[Array]:
        """Return the gradients of its own parameters, which can be added to."""
        own = gradients(self._parameters.values())
        for gradient in own:
            if not gradient.flags.writeable:
                self._check_gradients()
        return own

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw all parameters anew, as when the modules were made.

        Parameters
        ----------
        seed : int, optional
            From which the seeds of the submodules are derived.
        """
        streams = np.random.SeedSequence(checks.seed(seed)).spawn(len(self._children))
        for child, stream in zip(self._children.values(), streams, strict=True):
            child.reset_parameters(int(stream.generate_state(1, np.uint64)[0]))

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name, with PyTorch's names, shapes and order.

        The running statistics of a `BatchNorm` are among them.
        """

        def copies() -> dict[str, Array]:
            return {name: np.array(p._storage, subok=False) for name, p in self._named()}

        return whole(self, copies)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, prefix: str = ""
    ) -> IncompatibleKeys:
        """Copy parameters from a state dict: all of them, or none if anything is wrong.

        Other threads may compute meanwhile. Every call for inference of a layer, cell, `Linear`,
        `Sequential`, `Model` or module of yours, and every stream, pool and `state_dict` made, is
        of all the old values or of all the new ones; a call that had begun before may be computed
        anew for that. What consists of several calls is not one: `generate`, a loop of yours, two
        models. Nor is training, or a change in another way: optimizers, ``p.data``.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Real arrays of any dtype or ``torch.Tensor``, as `state_dict` or PyTorch's returns them.
            Of tied parameters one name is enough; if several are there, they must be the same.
            What DataParallel puts before every name, ``"module."``, is left out.
        strict : bool, default True
            Whether missing and unexpected keys are errors. Wrong shapes always are.
        prefix : str, default ""
            What the names begin with in `state_dict`, such as ``"encoder."``; keys that begin
            otherwise belong to somebody else.

        Returns
        -------
        (missing_keys, unexpected_keys) : named tuple of two lists of str
            Both empty if `strict`.

        Raises
        ------
        ValueError
            Naming every missing, unexpected or misshapen key.
        TypeError
            If `state_dict` is no mapping.

        Examples
        --------
        >>> import lstmcore as lc
        >>> lc.RNN(2, 3).load_state_dict(lc.RNN(2, 3).state_dict())
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> lc.RNN(2, 3).load_state_dict(lc.RNN(4, 3, bias=False).state_dict())
        Traceback (most recent call last):
        ValueError: state_dict does not fit RNN(2, 3):
          missing: bias_ih_l0, bias_hh_l0
          its names are those of bias=False
          weight_ih_l0 has shape (3, 4), expected (3, 2)
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict is {checks.describe(state_dict)}, expected a mapping: "
                "lstmcore.load_torch reads one from a file"
            )
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is {checks.describe(prefix)}, expected a str")
        strict = checks.boolean(strict, "strict")
        names = {prefix + name: p for name, p in self._named()}
        tied = {prefix + name: prefix + first for name, first in other_names(self).items()}
        state_dict = _unwrap(state_dict, names)
        state_dict, complaints = under_first_names(state_dict, tied)
        ours = [k for k in state_dict if not prefix or str(k).startswith(prefix)]
        missing = [key for key in names if key not in state_dict]
        others = [key for key in ours if key not in names]
        unexpected = [str(key) for key in others]
        if strict and missing:
            complaints.append("missing: " + ", ".join(missing))
        if strict and unexpected:
            complaints.append("unexpected: " + ", ".join(map(str, unexpected)))
            complaints += [
                f"state_dict[{key!r}] is a mapping itself: perhaps it is the state dict"
                for key in others
                if isinstance(state_dict[key], Mapping)
            ]
        if strict and missing:
            part, dot, _ = prefix.partition(".")
            if dot and isinstance(state_dict.get(part), Mapping):
                complaints.append(
                    f"state_dict[{part!r}] is a mapping itself: give that, without "
                    f"prefix={part + dot!r}"
                )
        if complaints:
            complaints += hints([name for name, _ in self._named()], state_dict, prefix)
            shapes = [getattr(state_dict[key], "shape", None) for key in ours]
            if len(missing) == len(unexpected) == len(names) and shapes == [
                p.shape for p in names.values()
            ]:
                complaints.append(
                    "in this order the arrays fit all the same: rename them by "
                    "dict(zip(model.state_dict(), state_dict.values()))"
                )
        arrays = {}
        for key, p in names.items():
            if key in state_dict:
                try:
                    arrays[key] = checks.values(state_dict[key], p.shape, p.dtype, key)
                except (ValueError, TypeError) as error:
                    complaints.append(str(error))
        if complaints:
            raise ValueError(f"state_dict does not fit {self!r}:\n  " + "\n  ".join(complaints))
        with loading([names[key] for key in arrays]):
            for key, array in arrays.items():
                names[key]._storage[...] = array
                names[key]._touch()
        return IncompatibleKeys(missing, [str(key) for key in unexpected])

    def _description(self) -> dict[str, Any]:
        """Return what a file says of this module: its kind and its options."""
        return {"type": type(self).__name__, **self._options()}

    def _options(self) -> dict[str, Any]:
        """Return what the constructor takes to make such a module, as JSON can hold it."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "seed"]
        return {name: _as_json(getattr(self._config, name)) for name in names}

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Module:
        """Make a module from what `_options` returned."""
        return cls(**options)

    def _rng_state(self) -> dict[str, Any]:
        """Return where the random streams of dropout are, by module, as JSON can hold it."""
        return {
            path: _state(module._dropout_rng)
            for path, module in self._modules()
            if module._dropout_rng is not None
        }

    def _set_rng_state(self, state: Mapping[str, Any]) -> None:
        """Continue the random streams where `_rng_state` was asked: all of them, or none."""
        ours = {path: m for path, m in self._modules() if m._dropout_rng is not None}
        if not isinstance(state, Mapping) or set(state) != set(ours):
            names = ", ".join(map(repr, ours)) or "nothing"
            raise ValueError(f"the random state is not of this model, expected that of {names}")
        streams = {path: _generator(path, state[path]) for path in ours}
        for path, module in ours.items():
            module._dropout_rng = streams[path]

    def __eq__(self, other: object) -> bool:
        """Whether both have the same configuration and the same parameters, bit for bit."""
        if not isinstance(other, Module):
            return NotImplemented
        return (
            type(self) is type(other)
            and bool(self._config == other._config)
            and all(
                np.array_equal(_bytes(p), _bytes(q))
                for mine, theirs in (
                    (self._parameters, other._parameters),
                    (self._buffers, other._buffers),
                )
                for p, q in zip(mine.values(), theirs.values(), strict=True)
            )
            and dict(self._children) == dict(other._children)
        )

    def _nested(self) -> str:
        """Return the repr of a container: its modules by name."""
        lines = [f"({name}): {child!r}" for name, child in self._children.items()]
        if not lines:
            return f"{type(self).__name__}()"
        inside = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inside}\n)"

    def __repr__(self) -> str:
        """The sizes, then options that are not the default; of a container, its modules."""
        if self._config is None and self._children:
            return self._nested()
        parts = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if not hasattr(self._config, name):
                continue
            value = getattr(self._config, name)
            if parameter.default is parameter.empty:
                parts.append(repr(value))
            elif value != parameter.default:
                text = value.name if name == "dtype" else repr(value)
                parts.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"


explain(Module)


# What classes of somebody else's have beside `Module` ---------------------------------------------


def _set_attribute(module: Any, name: str, value: Any) -> None:
    """Set an attribute, and find Parameters and modules in it, as PyTorch does."""
    for kind, place in ((Parameter, "_parameters"), (Module, "_children")):
        if isinstance(value, kind):
            if place not in module.__dict__:
                object.__setattr__(module, place, {})
            module.__dict__[place][name] = value
        elif name in module.__dict__.get(place, ()):
            del module.__dict__[place][name]
    object.__setattr__(module, name, value)


def _delete_attribute(module: Any, name: str) -> None:
    for place in ("_parameters", "_children"):
        module.__dict__.get(place, {}).pop(name, None)
    object.__delattr__(module, name)


def _entering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``__call__`` that leaves symbols to `Symbolic._enter`."""

    @functools.wraps(function)
    def call(module: Any, /, *x: Any, **options: Any) -> Any:
        for one in x:
            if isinstance(one, Symbolic):
                return one._enter(module, x, **options)
        return function(module, *x, **options)

    return call


def _check_init(cls: type[Module], function: Any) -> None:
    """Let an ``__init__`` refuse to leave out that of the class of this library below it."""
    base: Any = next(k for k in cls.__mro__ if issubclass(k, Module) and not k._own)
    if base.__init__ is object.__init__ or not inspect.isfunction(function):
        return

    @functools.wraps(function)
    def init(module: Any, /, *args: Any, **options: Any) -> None:
        function(module, *args, **options)
        # All of this library set _config. An __init__ below this one leaves the rest to others.
        if type(module).__init__ is init and "_config" not in vars(module):
            raise TypeError(
                f"{cls.__qualname__}.__init__ does not call super().__init__(...), expected it "
                f"to, as this makes what is in a {base.__qualname__}"
            )

    type.__setattr__(cls, "__init__", init)


def check_own(module: Module, least: int = 1) -> None:
    """Refuse a module of somebody's own whose methods cannot be called as networks do.

    That is with so many x at least.
    """
    kind: Any = type(module)
    if not kind._own:
        return
    if kind.forward is Module.forward and kind.__call__ is Module.__call__:
        module.forward()  # which says what is missing
    for name, given, expected in (
        ("forward", 1 + least, "self, x"),
        ("backward", 3, "self, tape, dy"),
    ):
        signature = inspect.signature(getattr(kind, name))
        try:
            signature.bind_partial(*[None] * given)
        except TypeError:
            raise TypeError(
                f"{kind.__qualname__} has {name}{signature}, expected {name}({expected}), or more "
                "if there are several of them"
            ) from None


def check_hidden(module: Module) -> None:
    """Refuse Parameters and modules in lists and dicts of a module of somebody's own.

    Nothing there is found: it would be neither trained nor saved.
    """
    parts = list(module._modules())
    known = {id(part) for _, part in parts} | {id(p) for p in module.parameters()}
    for path, part in parts:
        if not part._own:
            continue
        for name, value in vars(part).items():
            if name in ("_parameters", "_children") or not isinstance(value, (list, dict)):
                continue
            for key, one in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(one, (Parameter, Module)) and id(one) not in known:
                    kind = type(part).__qualname__ + (f" (module {path})" if path else "")
                    what = "a Parameter" if isinstance(one, Parameter) else "a module"
                    raise ValueError(
                        f"{kind} has {what} in {name}[{key!r}], where it is not found, and so "
                        "neither trained nor saved: expected an attribute for each, as by "
                        f'setattr(self, f"{name}_{{i}}", ...), or a tuple for what others train'
                    )


def split_forward(module: Any, made: Any) -> tuple[tuple[Any, ...], Any]:
    """Return every y, and the tape, of what a forward has returned."""
    if type(made) is tuple and len(made) == 2 and type(made[0]) is np.ndarray:  # as most
        return made[:1], made[1]
    name = f"{type(module).__qualname__}.forward"
    if not isinstance(made, (tuple, list)) or len(made) < 2:
        raise TypeError(
            f"{name} returned {checks.describe(made)}, expected y and the tape: return y, tape"
        )
    *y, tape = made
    for one in y:
        if one is None or (isinstance(one, (list, float)) and not isinstance(one, np.generic)):
            raise TypeError(f"{name} returned {checks.describe(one)} as y, expected an array")
    return tuple(y), tape


def _shape_and_dtype(x: Any) -> tuple[Any, Any] | None:
    """Return what a gradient of x has to have; None where there is none, or several."""
    floats = isinstance(x, np.ndarray) and x.dtype.kind == "f"
    return (x.shape, x.dtype) if floats else None


def _check_dtype(module: Module, xs: Sequence[Any], ys: Sequence[Any]) -> None:
    """Refuse a y of float64 for x of float32, or the other way: a network has one dtype."""
    given = {x.dtype for x in xs if isinstance(x, np.ndarray) and x.dtype.kind == "f"}
    wrong = [
        y.dtype
        for y in ys
        if isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.dtype not in given
    ]
    if not given or not wrong:
        return
    expected = given.pop()
    way = f'.astype("{expected}") converts it'
    for name, p in module.named_parameters():
        if p.dtype == wrong[0]:
            way = f'{name} has that dtype: lc.Parameter(name, array.astype("{expected}"))'
            break
    raise TypeError(
        f"{type(module).__qualname__}.forward made {wrong[0]} of {expected}, expected the dtype of "
        f"x: {way}"
    )


def wrong_number(dx: tuple[Any, ...], expected: int) -> str:
    """Say how the gradients that a backward has returned are not as many as the x."""
    if len(dx) == 1 and isinstance(dx[0], list):
        return f"a list, expected a tuple of {expected} gradients, those of every x"
    return (
        f"{len(dx)} gradients, expected {expected}, those of every x: those of parameters are "
        "added to their grad"
    )


def _check_gradients_of_x(module: Module, dx: tuple[Any, ...], expected: list[Any]) -> None:
    """Refuse what a backward of somebody's own returned, if no module before it could take it."""
    name = f"{type(module).__qualname__}.backward"
    check = "; lstmcore.gradcheck tells whether backward is right"
    if len(dx) != len(expected):
        raise TypeError(f"{name} returned {wrong_number(dx, len(expected))}{check}")
    for d, wanted in zip(dx, expected, strict=True):
        if wanted is None:
            continue
        shape, dtype = wanted
        if not isinstance(d, np.ndarray):
            raise TypeError(
                f"{name} returned {checks.describe(d)} as the gradient of x, expected an array of "
                f"shape {shape}{check}"
            )
        if d.shape != shape:
            raise ValueError(
                f"{name} returned a gradient of x of shape {d.shape}, expected {shape}{check}"
            )
        if d.dtype != dtype:
            raise TypeError(
                f"{name} returned a gradient of x of {d.dtype}, expected {dtype}, as x is: "
                f'.astype("{dtype}") converts it'
            )


def overridden(module: Module) -> str | None:
    """Return which method, ``"forward"`` or ``"__call__"``, is not this library's, if one is."""
    for name in ("__call__", "forward"):
        function = getattr(type(module), name, None)
        home = getattr(function, "__module__", None) or ""  # None where it was typed in
        if function is not None and not home.startswith(_LIBRARY):
            return name
    return None


def needed_steps(module: Module, more: str = "") -> str:
    """Say what the module that `Module._part_reading_ahead` has found needs, and `more` of it."""
    if module._past_steps:
        return f"{module!r} needs past steps, which a module of your own around it does not carry"
    if overridden(module):
        return (
            f"{module!r} may need other steps than the one it is given: its each_step is False; "
            "set it to True if each step of y comes of the same step of x alone"
        )
    ahead = getattr(module._network, "reading_ahead", None)
    if ahead is not None:
        return (
            f"{ahead.module!r} in the {type(module).__name__} takes what comes of all steps back "
            f"into them, and so needs the whole sequence{more}"
        )
    return f"{module!r} needs the whole sequence{more}"


def _unwrap(state_dict: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any]:
    """Return a state dict without what DataParallel and torch.compile put before every name."""
    for wrapper in ("module.", "_orig_mod."):
        if (
            state_dict
            and all(str(key).startswith(wrapper) for key in state_dict)
            and not any(name.startswith(wrapper) for name in names)
        ):
            short = {str(key).removeprefix(wrapper): value for key, value in state_dict.items()}
            return _unwrap(short, names)
    return state_dict


def _bytes(p: Parameter) -> Any:
    return p._storage.reshape(-1).view(np.uint8)


def _as_json(value: Any) -> Any:
    """Return an option as JSON can hold it."""
    if isinstance(value, np.dtype):
        return value.name
    return [_as_json(v) for v in value] if isinstance(value, (tuple, list)) else value


def _state(rng: np.random.Generator) -> dict[str, Any]:
    return dict(rng.bit_generator.state)


def _generator(path: str, state: Any) -> np.random.Generator:
    rng = np.random.default_rng(0)
    try:
        set_random_state(rng, state)
    except ValueError as error:
        raise ValueError(f"the random state of {path!r} is damaged: {error}") from error
    return rng


def set_random_state(rng: np.random.Generator, state: Any) -> None:
    """Set the state of a generator, which NumPy may leave half changed if it is damaged."""
    try:
        rng.bit_generator.state = state
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    # Of these NumPy believes anything, and reads beside its numbers: 624 of MT19937, 4 of Philox.
    for name, place, most in (("pos", state["state"], 624), ("buffer_pos", state, 4)):
        if not 0 <= place.get(name, 0) <= most:
            raise ValueError(f"{name} is {place[name]}, expected 0 to {most}")
