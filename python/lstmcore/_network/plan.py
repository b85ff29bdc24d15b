"""The plan of a network: its calls in order, and where each finds what it takes.

Every value has a number, its slot: first those of the inputs, then what the calls give, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._base import checks
from .._base.module import Module, overridden
from .._base.tree import leaves, matched, rebuilt
from . import arrays, masks, operations
from .operations import Operation
from .symbol import Call, Input, Lengths, Symbol

__all__ = ["Plan", "Step", "replay"]

_OPERATIONS = {**operations.OPERATIONS, **arrays.OPERATIONS, **masks.OPERATIONS}


class Step:
    """One call of a module: slots of what it takes and gives."""

    __slots__ = (
        "along", "args", "feeds_lookup", "flat", "frees", "given", "inside", "lengths", "module",
        "needs_dx", "nested", "ours", "outs", "own", "past", "place", "timed", "trains", "wired",
        "xs", "ys",
    )  # fmt: skip

    def __init__(self, call: Call, slots: dict[int, int]) -> None:
        def slot(symbol: Symbol | None) -> int | None:
            return None if symbol is None else slots[id(symbol)]

        self.module: Any = call.module
        self.args = rebuilt(call.args, map(slot, leaves(call.args)))
        self.xs: list[int | None] = leaves(self.args)
        self.ys = rebuilt(call.ys, map(slot, leaves(call.ys)))
        self.outs: list[int] = leaves(self.ys)
        self.nested = any(isinstance(one, (tuple, list, dict)) for one in self.args)
        self.flat = type(self.ys) is tuple and len(self.ys) == len(self.outs)
        self.lengths = None if call.lengths is None else slots[id(call.lengths.of)]
        # Slots whose lengths the module is told, and those whose lengths and resets its y have.
        self.given = [slots[id(s)] for s in call.given]
        self.along = [slots[id(s)] for s in call.along]
        self.timed = [slots[id(s)] for s in leaves(call.ys) if s.axes.steps]
        # Of what has a state: its number, and whether the network gives its initial state.
        self.place: int | None = None
        self.wired = bool(self.module._gives_state and self.args[1] is not None)
        self.past = self.module._past_steps > 0  # whether that state is past steps of its x
        self.own = bool(overridden(self.module)) and len(self.outs) > 1
        self.feeds_lookup = False
        self.frees: list[int] = []  # slots that nobody needs after this step
        # Whether it computes as modules of this library do, and whether its y goes to such alone:
        # others may want to write to theirs.
        self.ours = all(overridden(module) is None for _, module in self.module._modules())
        self.inside = False
        # Whether a gradient that it is given, and that of its first argument, gets to parameters.
        self.trains = self.needs_dx = True

    @property
    def what(self) -> Any:
        """Return what a description says of an operation."""
        return [type(self.module).__name__, *self.module._given]


class Plan:
    """What inputs and outputs, structures of symbols, describe."""

    def __init__(self, inputs: Any, outputs: Any) -> None:
        inputs, outputs = _tuples(inputs), _tuples(outputs)
        given = _inputs(inputs)
        calls = _calls(outputs)
        slots = {id(symbol): i for i, (_, symbol) in enumerate(given)}
        _check_inputs(given, calls, outputs, slots)
        for call in calls:
            for symbol in leaves(call.ys):
                slots[id(symbol)] = len(slots)
        self.count = len(slots)
        self.names = [name for name, _ in given]
        # What the user calls each input, and each output; None if they have no names.
        self.input_names = _own_names([symbol.name for _, symbol in given])
        self.output_names: list[str] | None = None
        self.given = [(symbol.axes, symbol.dtype) for _, symbol in given]
        # Of each input, the sizes of its last axes that are known.
        self.tails = [
            axes.inner if axes.features is None else (*axes.inner, axes.features)
            for axes, _ in self.given
        ]
        self.inputs = rebuilt(inputs, iter(range(len(given))))
        self.outputs = rebuilt(outputs, (slots[id(s)] for s in leaves(outputs)))
        self.last: list[int] = leaves(self.outputs)
        self.axes = [symbol.axes for _, symbol in given]
        self.axes += [symbol.axes for call in calls for symbol in leaves(call.ys)]
        self.steps = [Step(call, slots) for call in calls]
        self.stateful = [s for s in self.steps if s.module._gives_state or s.past]
        for place, step in enumerate(self.stateful):
            step.place = place
        modules = [step.module for step in self.steps]
        self.finds = any(m._finds_lengths or m._changes_lengths for m in modules)
        self.free = [step for step in self.stateful if not step.wired]
        self.free_places = [i for i, step in enumerate(self.stateful) if not step.wired]
        self._find_uses()
        self._find_trained()
        self._find_time()

    def placed(self, states: Sequence[Any]) -> list[Any]:
        """Return a state for all that have one, of those that the network does not give itself."""
        found: list[Any] = [None] * len(self.stateful)
        for place, state in zip(self.free_places, states, strict=True):
            found[place] = state
        return found

    def arrays(self, x: Any, name: str, none: bool = False) -> Iterator[tuple[str, Any]]:
        """Yield what messages call each input, and what is given for it: by place, or by name."""
        names = self.input_names
        if names is None or isinstance(self.inputs, dict) or not isinstance(x, Mapping):
            return matched(self.inputs, x, name, none)
        return matched({one: slot for slot, one in enumerate(names)}, x, name, none)

    def _find_uses(self) -> None:
        """Find where each value is needed last, and which embeddings feed a single layer."""
        last: dict[int, Step | None] = {}
        users: dict[int, list[Any]] = {}
        for step in self.steps:
            for x in step.xs:
                if x is not None:
                    last[x] = step
                    users.setdefault(x, []).append(step)
            for y in step.outs:
                last[y] = step
        for y in self.last:
            last.pop(y, None)
            users.setdefault(y, []).append(None)
        for slot, end in last.items():
            if end is not None:
                end.frees.append(slot)
        for step in self.steps:
            only = users.get(step.ys[0], ()) if len(step.ys) == 1 else ()
            step.inside = len(step.outs) == 1 and all(
                one is not None and one.ours for one in (step, *only)
            )
            if len(only) == 1 and only[0] is not None:
                user = only[0]
                step.feeds_lookup = user.module._takes_lookup and user.args[0] == step.ys[0]

    def _find_trained(self) -> None:
        """Find which calls have something to train, or take what comes of such."""
        trained: set[int] = set()  # slots
        for step in self.steps:
            step.needs_dx = step.xs[0] in trained
            own = not step.ours or bool(step.module._named())
            step.trains = own or not trained.isdisjoint(step.xs)
            if step.trains:
                trained.update(step.outs)

    def _find_time(self) -> None:
        """Find which inputs' lengths and resets somebody uses."""
        count = len(self.given)
        time = [{i} if a.steps else set() for i, a in enumerate(self.axes[:count])]
        time += [set() for _ in range(self.count - count)]
        self.lengths_used: set[int] = set()
        self.resets_used: set[int] = set()
        for step in self.steps:
            sources = set().union(*(time[s] for s in step.along))
            if step.module._knows_time:
                self.lengths_used |= set().union(*(time[s] for s in step.given))
            if step.module._gives_state:
                self.resets_used |= sources
            for y in step.timed:
                time[y] = sources
        for y in self.last:
            if self.axes[y].steps:
                self.lengths_used |= time[y]
        self._time = time

    @property
    def lengths_together(self) -> list[set[int]]:
        """The inputs with steps, those in one set whose values meet, so that they have one length.

        What a Masking finds is left out.
        """
        groups = [{i} for i, (axes, _) in enumerate(self.given) if axes.steps]
        for step in self.steps:
            for slots in (step.given, step.along if step.timed else []):
                meeting = set().union(*(self._time[s] for s in slots))
                apart = [group for group in groups if group.isdisjoint(meeting)]
                if len(groups) - len(apart) > 1:
                    groups = [*apart, set().union(*(g for g in groups if g not in apart))]
        return sorted(groups, key=min)

    def slots_of(self, inputs: set[int]) -> list[int]:
        """Return the values whose steps are those of these inputs."""
        return [slot for slot, sources in enumerate(self._time) if sources & inputs]

    @property
    def probabilities(self) -> set[int]:
        """The slots of what is behind a softmax or sigmoid; pooling and Flip leave it that."""
        found: set[int] = set()
        for step in self.steps:
            module = step.module
            passes = module._knows_time and not module._gives_state and module._takes_one_x
            if module._gives_probabilities or (passes and step.xs[0] in found):
                found.add(step.outs[0])
        return found

    @property
    def reading_ahead(self) -> Step | None:
        """The first call that takes what comes of all steps back into them; None if none does."""
        return self.ahead_in(self.steps)

    def ahead_in(self, steps: Iterable[Step]) -> Step | None:
        """The first of some calls that takes what the others make of all steps back into steps."""
        pooled: set[int] = set()  # slots of what comes of all steps of something
        for step in steps:
            xs = [x for x in step.xs if x is not None]
            timed = any(self.axes[x].steps for x in xs)
            for y in step.outs:
                if not self.axes[y].steps and (timed or any(x in pooled for x in xs)):
                    pooled.add(y)
            if step.timed and any(x in pooled for x in xs):
                return step
        return None

    @property
    def sources(self) -> set[int]:
        """The inputs of whose steps all are read before others take their first: an encoder's."""
        of = [set(inputs) for inputs in self._time]  # the inputs of whose steps a value is made
        found: set[int] = set()
        for step in self.steps:
            xs = [x for x in step.xs if x is not None]
            origins: set[int] = set().union(*(of[x] for x in xs))
            for y in step.outs:
                of[y] = of[y] or origins
            if step.timed:
                found.update(*(of[x] for x in xs if not self.axes[x].steps))
        return found

    def apart(self, inputs: set[int]) -> tuple[list[Step], list[Step]]:
        """Return the calls that take nothing of these inputs, and the others."""
        reached, before, after = set(inputs), [], []
        for step in self.steps:
            if reached.isdisjoint(step.xs):
                before.append(step)
            else:
                after.append(step)
                reached.update(step.outs)
        return before, after

    @property
    def chain(self) -> list[Step] | None:
        """The steps, if each takes what the one before gives, and nothing else; None if not."""
        x: Any = 0
        seen: set[int] = set()
        for step in self.steps:
            module = step.module
            alone = [s for s in step.xs if s is not None] == [x] and step.lengths is None
            if not alone or not module._takes_one_x or id(module) in seen:
                return None
            seen.add(id(module))
            x = step.ys[0]
        return self.steps if self.inputs == 0 and self.outputs == x and self.steps else None

    def description(self, modules: Sequence[Module]) -> list[Any]:
        """Return the graph as JSON can hold it; modules are named by their numbers."""
        numbers = {id(module): i for i, module in enumerate(modules)}
        inputs = [
            [a.features, a.steps, None if dtype is None else dtype.name, *a.inner]
            for a, dtype in self.given
        ]
        calls = [
            [
                step.what if isinstance(step.module, Operation) else numbers[id(step.module)],
                _encode(step.args),
                step.lengths,
            ]
            for step in self.steps
        ]
        return [inputs, _encode(self.inputs), calls, _encode(self.outputs)]

    @staticmethod
    def symbols(
        description: Any, modules: Sequence[Module], names: Sequence[str] | None = None
    ) -> tuple[Any, Any]:
        """Return the inputs and outputs that `description` was made of, as new symbols."""
        inputs, structure, calls, outputs = description
        called: Sequence[str | None] = names or [None] * len(inputs)
        values: list[Any] = [
            Input(features, steps=steps, ids=features is None, dtype=dtype, inner=inner, name=name)
            for (features, steps, dtype, *inner), name in zip(inputs, called, strict=True)
        ]
        for what, args, lengths in calls:
            module: Module
            if isinstance(what, list):
                module = _OPERATIONS[what[0]](*what[1:])
            else:
                module = modules[checks.integer(what, "a module", 0)]
            _replay_one(module, _decode(args), lengths, values)
        return _filled(_decode(structure), values), _filled(_decode(outputs), values)


def replay(plan: Plan, inputs: list[Symbol], states: list[Any]) -> tuple[Any, list[Any]]:
    """Call the modules of a plan with other symbols; return outputs and final states."""
    values: list[Any] = list(inputs)
    initial, final = iter(states), []
    for step in plan.steps:
        args = _filled(step.args, values)
        given = next(initial) if step.place is not None and not step.wired else None
        if step.past and given is not None:
            raise TypeError(f"state of {step.module!r} is given, expected None for a symbol")
        if step.place is not None and not step.wired and not step.past:
            args = (args[0], given)
        made = _enter(step.module, args, step.lengths, values)
        if step.place is not None and not step.wired:
            final.append(None if step.past else made[1])
    return _filled(plan.outputs, values), final


def _replay_one(module: Module, args: Any, lengths: Any, values: list[Any]) -> None:
    if not isinstance(args, tuple):
        raise ValueError(f"arguments are {args!r}, expected a tuple of them")
    _enter(module, _filled(args, values), lengths, values)


def _enter(module: Module, args: Any, lengths: int | None, values: list[Any]) -> Any:
    """Call a module with symbols, and add what it gives to the values."""
    first = next((one for one in leaves(args) if isinstance(one, Symbol)), None)
    if first is None:
        raise ValueError(f"{module!r} is given no symbol")
    made = first._enter(module, args, None if lengths is None else Lengths(values[lengths]))
    values += [one for one in leaves(made) if isinstance(one, Symbol)]
    return made


def _filled(template: Any, values: list[Any]) -> Any:
    """Return a structure of slots with the values that are there; None stays."""
    return rebuilt(template, (None if s is None else values[s] for s in leaves(template)))


def _encode(tree: Any) -> Any:
    """Return a structure of slots as lists that say what they were."""
    if isinstance(tree, dict):
        return ["dict", list(tree), [_encode(part) for part in tree.values()]]
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return [kind, [_encode(part) for part in tree]]
    return tree


def _decode(text: Any) -> Any:
    """Return what `_encode` was given."""
    if not isinstance(text, list):
        return text if text is None else checks.integer(text, "a value", 0)
    kind, *parts = text
    made = [_decode(part) for part in parts[-1]]
    if kind == "dict":
        return dict(zip(parts[0], made, strict=True))
    return {"tuple": tuple, "list": list}[kind](made)


def _tuples(tree: Any) -> Any:
    """Return a structure with tuples for its lists, which is what a model gives."""
    if isinstance(tree, dict):
        return {name: _tuples(part) for name, part in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, (tuple, list)) else tree


def _inputs(inputs: Any) -> list[tuple[str, Input]]:
    """Return the inputs, each with what messages call the array given for it."""
    found: list[tuple[str, Any]] = list(matched(inputs, inputs, "x"))
    if not found:
        raise ValueError("inputs is empty, expected at least one lc.Input")
    for name, symbol in found:
        where = "inputs" + name[1:]
        if not isinstance(symbol, Input):
            raise TypeError(f"{where} is {checks.describe(symbol)}, expected a lc.Input")
    if len({id(symbol) for _, symbol in found}) < len(found):
        raise ValueError("inputs has the same lc.Input twice, expected each once")
    return found


def _own_names(names: Sequence[str | None]) -> list[str] | None:
    """Return the names of all inputs; None if none has one."""
    found = [name for name in names if name is not None]
    if found and len(set(found)) < len(names):
        raise ValueError(f"inputs have the names {list(names)}, expected one of its own for each")
    return found or None


def _calls(outputs: Any) -> list[Call]:
    """Return the calls that the outputs need, in the order in which they were written."""
    waiting: list[Any] = leaves(outputs)
    if not waiting:
        raise ValueError("outputs is empty, expected at least one symbol")
    for symbol in waiting:
        if not isinstance(symbol, Symbol):
            hint = ": what a Masking finds goes with its y" if isinstance(symbol, Lengths) else ""
            raise TypeError(f"outputs has {checks.describe(symbol)}, expected symbols alone{hint}")
    found: dict[int, Call] = {}
    while waiting:
        call = waiting.pop().call
        if call is not None and call.serial not in found:
            found[call.serial] = call
            waiting += _needed(call)
    return [found[serial] for serial in sorted(found)]


def _needed(call: Call) -> Iterator[Symbol]:
    yield from (s for s in leaves(call.args) if s is not None)
    if call.lengths is not None:
        yield call.lengths.of


def _check_inputs(
    given: list[tuple[str, Input]], calls: Iterable[Call], outputs: Any, slots: dict[int, int]
) -> None:
    used = {id(s): s for call in calls for s in _needed(call)}
    used |= {id(s): s for s in leaves(outputs)}
    for key, symbol in used.items():
        if symbol.call is None and key not in slots:
            raise ValueError(f"outputs need {symbol!r}, which is not among the inputs")
    for name, symbol in given:
        if id(symbol) not in used:
            raise ValueError(f"no output needs {'inputs' + name[1:]}, {symbol!r}")
