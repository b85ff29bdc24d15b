"""How predictions are scored: which lengths and weights belong to them, and means over batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .._base import checks
from .._base.flow import Ends
from .._base.scoring import Mean, apart, check_scores, told
from .._base.structure import by_key, is_structure, leaves, mapped
from ..data._batches import Batch, has_steps
from .batch import Caller
from .functions import Functions, Scored

__all__ = ["NoTargets", "Scorer", "Total"]


class Targets(NamedTuple):
    """What the targets of one batch, or of one output, are beside their values."""

    values: Any
    lengths: Any  # None if all steps count, or if there is one target per sequence
    weight: Any  # like the values, or None
    per_step: bool


class Graded(NamedTuple):
    """A loss, and its gradients."""

    loss: Any
    dpred: Any
    parameters: Any = ()  # pairs of a Parameter of the loss itself and its gradient

    def scaled(self, factor: float) -> Any:
        """Add the gradients of the parameters, by this factor, and return that of pred."""
        for p, gradient in self.parameters:
            p.grad += gradient if factor == 1 else gradient * gradient.dtype.type(factor)
        return self.dpred if factor == 1 else _scaled(self.dpred, factor)


class Scorer:
    """The losses and metrics of a run, and how they are called for a model."""

    def __init__(self, functions: Functions, caller: Caller) -> None:
        self.names = list(functions.by_name)
        self.loss_weights = functions.loss_weights
        # Those with parameters of their own add to their gradients in `gradient`, nowhere else.
        self._apart = {name: apart(f) for name, f in functions.by_name.items()}
        self._functions = {n: self._apart[n] or f for n, f in functions.by_name.items()}
        self._output = functions.output  # of which output a function is; of all of them without
        self._outputs = functions.outputs
        self._scored = list({self._output.get(name): None for name in self.names})
        self._caller = caller
        for name, function in functions.by_name.items():
            check_scores(caller.model, name, function, self._output.get(name))
        self._weighted = {name: _takes_weight(f) for name, f in self._functions.items()}
        self._lengths_unknown = {
            name: _lacks_lengths(f, caller.batch_first) for name, f in self._functions.items()
        }

    def scored_only(self, batch: Batch) -> Batch:
        """Return the batch with None for the targets of outputs that nothing scores."""
        target = batch.target
        if not is_structure(target) or None in self._scored:
            return batch
        kept = {key: one if key in self._scored else None for key, one in by_key(target).items()}
        return batch._replace(target=kept if isinstance(target, dict) else tuple(kept.values()))

    def targets(self, pred: Any, batch: Batch, ends: Any) -> dict[Any, Targets]:
        """Return the targets of each output that is scored, and of all, under None, if these are.

        `ends` is what the model found of the rows of each.
        """
        if batch.weight is not None and not (self.loss_weights or any(self._weighted.values())):
            raise ValueError("weight is given, but no metric takes an argument of that name")
        if self._outputs is not None:
            self._check_outputs(pred, batch.target)
        both = type(pred), type(batch.target)
        if None in self._scored and not {tuple, dict}.isdisjoint(both):
            self._check_one_output(pred, batch.target)
        found: dict[Any, Targets] = {}
        used = False  # whether lengths say which predictions count
        for key in self._scored:
            if key is None:
                end = ends if ends is None else _joint(ends)
                found[key] = self._of_output(key, pred, batch.target, batch.weight, batch, end)
            else:
                one = _part(pred, key, "the output is")
                target = _part(batch.target, key, "target is")
                end = ends if isinstance(ends, Ends | None) else ends[key]
                weight = batch.weight
                if is_structure(weight):
                    weight = by_key(weight).get(key)
                found[key] = self._of_output(key, one, target, weight, batch, end)
            of = found[key]
            used = used or (of.per_step and (of.lengths is not None or end is not None))
        if batch.lengths is not None and not used:
            self._check_lengths_used()
        return found

    def _of_output(
        self, key: Any, pred: Any, target: Any, weight: Any, batch: Batch, ends: Ends | None
    ) -> Targets:
        lengths = batch.lengths
        if type(pred) is np.ndarray:
            per_step = self._per_step(pred, batch)
        else:
            per_step = any(self._per_step(np.asarray(part), batch) for part in leaves(pred))
        other = self._caller.changes_steps and not self._caller.ours
        if not per_step and self._caller.may_change_steps:
            per_step = other = self._has_other_steps(np.shape(leaves(pred)[0]), batch)
        if not per_step or other:  # the lengths are those of x
            lengths = None
        elif ends is not None:
            if ends.moved:
                raise ValueError(
                    "x has masked steps before the end of a row: the model gives an output for "
                    "every step, and these stand elsewhere than their targets then; expected "
                    "padding at the end of rows only"
                )
            lengths = ends.lengths if ends.there is None else None
        elif isinstance(lengths, tuple):  # of an encoder-decoder; the last is the decoder's
            lengths = lengths[-1]
        if weight is not None:
            self._check_weighted(key, "weight is given", self.loss_weights)
            try:
                weight = self._weight(weight, target, per_step)
            except ValueError as error:
                if key is None:
                    raise
                hint = "" if is_structure(batch.weight) else self._weight_for_each()
                raise ValueError(f"for {key!r}: {error}{hint}") from error
        if per_step and ends is not None and ends.there is not None:
            why = "the model masks steps between others, which only weight= can leave out"
            self._check_weighted(key, why, self.names)
            there = self._weight(ends.there.astype(np.float64), target, True)
            weight = there if weight is None else weight * there
        return Targets(target, lengths, weight, per_step)

    def _weight_for_each(self) -> str:
        """Say how outputs are given weights of their own."""
        given = [f"{key!r}: ..." for key in by_key(self._outputs)]
        if isinstance(self._outputs, dict):
            return f"; {{{', '.join(given)}}} gives each its own, and None where all count"
        return f"; a tuple of {len(given)} gives each its own, and None where all count"

    def _check_lengths_used(self) -> None:
        if not self._caller.uses_lengths:
            raise ValueError(
                "lengths are given, but the model does not look at them and there is one "
                "target per sequence: expected none; weights are given by name, in "
                "lc.data.Batch(x, target, weight=...)"
            )

    def _check_outputs(self, pred: Any, target: Any) -> None:
        """Refuse predictions and targets that are not of the outputs that the losses are for."""
        expected = by_key(self._outputs)
        unscored = {key for key, has_loss in expected.items() if not has_loss}
        for what, value in (("the model gives", pred), ("target is", target)):
            optional = unscored if value is target else set()
            keys = set(by_key(value)) if is_structure(value) else set()
            if keys and keys <= expected.keys() <= keys | optional:
                continue
            given = ", ".join(map(repr, by_key(value))) if keys else checks.describe(value)
            raise (ValueError if keys else TypeError)(
                f"{what} {given}, but loss is of the outputs {', '.join(map(repr, expected))}: "
                "expected the same; the loss of one that is not trained by is None"
            )

    def _per_step(self, pred: Any, batch: Batch) -> bool:
        """Whether there is a prediction for each step; what can be (B, C) is one per sequence."""
        if self._caller.pools:  # even if the sizes look like steps
            return False
        shape = pred.shape
        if len(shape) < 2:
            return False
        if self._caller.changes_steps:
            return len(shape) > 2
        x = batch.x
        if type(x) is not np.ndarray and is_structure(x):
            grids = [part.shape[:2] for part in leaves(x) if part is not None and has_steps(part)]
        else:
            grids = [x.shape[:2]]
        if shape[:2] not in grids:
            return False
        return len(shape) > 2 or shape[0] != shape[0 if self._caller.batch_first else 1]

    def _has_other_steps(self, shape: tuple[int, ...], batch: Batch) -> bool:
        """Whether a module of the user's own has made other steps than x has, of the same rows."""
        caller = self._caller
        if caller.batch_first or len(shape) < 3:
            return False
        if self._rows(batch.x) != shape[1] or shape[0] == shape[1]:
            return False
        if batch.lengths is not None and caller.ours and not caller.finds_lengths:
            raise ValueError(
                f"lengths are given, which are those of x, but the model gives {shape[0]} steps "
                "for it, in a module of your own: expected weight=, which is 0 for the steps of y "
                "that do not count"
            )
        return True

    def _rows(self, x: Any) -> int | None:
        """Return how many rows an x has that is not batch-first."""
        stepped = [part for part in leaves(x) if part is not None and has_steps(part)]
        parts = stepped if is_structure(x) else leaves(x)
        return parts[0].shape[1] if parts and parts[0].ndim > 1 else None

    def _check_weighted(self, key: Any, why: str, names: Iterable[str]) -> None:
        """Refuse functions of that output, of these names, that know of no weights."""
        for name in names:
            if self._output.get(name) == key and not self._weighted[name]:
                which = "the loss" if name == "loss" else name
                raise ValueError(f"{why}, but {which} takes no argument of that name")

    def _check_one_output(self, pred: Any, target: Any) -> None:
        """Refuse a function of one output, of ours, for several outputs or targets."""
        for name, function in self._functions.items():
            of_one = told(function, "mode") is not None and not told(function, "takes_parts")
            if of_one and name not in self._output:
                if not is_structure(pred):
                    names = ", ".join(map(repr, by_key(target)))
                    raise TypeError(
                        f"target is a {type(target).__name__} of {names}, expected an array: the "
                        "model gives one output"
                    )
                outputs = by_key(pred)
                first = next(iter(outputs), "a")
                example = {first: "mse"} if name == "loss" else {first: [name]}
                what = "losses" if name == "loss" else "metrics"
                raise TypeError(
                    f"the model gives several outputs, {', '.join(map(repr, outputs))}, but {name} "
                    f"is of one: expected {what} for each in their structure, such as {example}"
                )

    def _weight(self, weight: Any, target: Any, per_step: bool) -> Any:
        """Return the weight of each element of the target, from that of each row or step."""
        if is_structure(target) or weight.shape == target.shape:
            return weight
        axis = int(per_step and not self._caller.batch_first)
        rows, grid = target.shape[axis : axis + 1], target.shape[:2]
        if weight.shape == rows:
            leading = weight.reshape((1,) * axis + rows)
        elif per_step and weight.shape == grid:
            leading = weight
        else:
            expected = f"{rows}, one for each row"
            expected += f", or {grid}, one for each step" if per_step else ""
            raise ValueError(f"weight has shape {weight.shape}, expected {expected}")
        leading = leading.reshape(leading.shape + (1,) * (target.ndim - leading.ndim))
        return np.broadcast_to(leading, target.shape)

    def score(self, name: str, pred: Any, of: dict[Any, Targets]) -> Any:
        """Return what the function of that name returns; errors say what it is of."""
        try:
            return self._call(name, pred, of)
        except (ValueError, TypeError) as error:
            is_loss = name in self.loss_weights
            if (is_loss and self._outputs is None) or type(error) not in (ValueError, TypeError):
                raise
            what = f"loss of {self._output[name]!r}" if is_loss else f"metric {name!r}"
            raise type(error)(f"{what}: {error}") from error

    def _call(self, name: str, pred: Any, of: dict[Any, Targets]) -> Any:
        key, options = self._output.get(name), {}
        function, targets = self._functions[name], of[key]
        if key is not None:
            pred = pred[key]
        if targets.weight is not None and self._weighted[name]:
            options["weight"] = targets.weight
        if targets.lengths is None:
            return function(pred, targets.values, **options)
        if self._lengths_unknown[name] is not None:
            raise TypeError(
                f"{name} takes no lengths, but the rows have some: expected "
                f"{self._lengths_unknown[name]}, to leave out what is past their ends"
            )
        if self._caller.batch_first:
            options["batch_first"] = True
        return function(pred, targets.values, targets.lengths, **options)

    def loss(self, pred: Any, of: dict[Any, Targets]) -> dict[str, Graded]:
        """Return every loss and its gradient with respect to its prediction, by name."""
        found = {}
        for name in self.loss_weights:
            scored = self.score(name, pred, of)
            count = 2 if self._apart[name] is None else 3
            if not isinstance(scored, tuple) or len(scored) != count:
                what = checks.describe(scored)
                raise TypeError(f"{name} returned {what}, expected the loss and its gradient")
            if type(scored[0]) is not Mean:
                _check_number(name, scored[0])
            found[name] = Graded(*scored)
        return found

    def total(self, values: Mapping[str, Any]) -> float:
        """Return the loss that all losses make together."""
        if self._outputs is None:
            return float(values["loss"])
        return sum(w * float(values[name]) for name, w in self.loss_weights.items())

    def gradient(self, losses: Mapping[str, Graded], shares: Mapping[str, float] | None) -> Any:
        """Return the gradient of the loss, in the structure of the predictions.

        Those of parameters of the losses are added. Each is multiplied by its share, for batches
        that make one step together.
        """
        scaled = {}
        for name, scored in losses.items():
            factor = self.loss_weights[name] * (1.0 if shares is None else shares[name])
            scaled[self._output.get(name)] = scored.scaled(factor)
        if self._outputs is None:
            return scaled[None]
        parts = {key: scaled.get(key) for key in by_key(self._outputs)}
        return parts if isinstance(self._outputs, dict) else tuple(parts.values())

    def means(self, values: dict[str, Any], pred: Any, of: dict[Any, Targets]) -> dict[str, Mean]:
        """Return what functions returned as means: of one that does not say, over all targets."""
        for name, value in values.items():
            if isinstance(value, tuple):  # a loss comes with its gradient
                value = values[name] = value[0]
            if type(value) is not Mean:
                _check_number(name, value)
                key = self._output.get(name)
                weight = of[key].weight if self._weighted[name] else None
                count = self._count(pred if key is None else pred[key], of[key], weight)
                values[name] = Mean(float(value), count)
        return values

    def _count(self, pred: Any, targets: Targets, weight: Any) -> float:
        """Return how many targets there are, or the sum of their weights."""
        first = leaves(targets.values)[0]
        if weight is None:
            if targets.lengths is not None:
                return float(np.sum(targets.lengths))
            if targets.per_step:
                return float(np.prod(np.shape(leaves(pred)[0])[:2]))
            return float(len(first)) if first.ndim else 1.0
        if targets.lengths is None or is_structure(targets.values):
            return float(sum(np.sum(part) for part in leaves(weight) if part is not None))
        time, steps = (1, 0) if self._caller.batch_first else (0, 1)
        valid = np.arange(first.shape[time])[:, None] < targets.lengths
        valid = valid if steps else valid.T
        return float(weight[valid].sum())


class Total:
    """Sums over batches of several means, each with the weight that it stands for."""

    def __init__(self, scorer: Scorer, state: Mapping[str, Any] | None = None) -> None:
        self._scorer = scorer
        self._sums: dict[str, Any] = dict(state["sums"]) if state else {}
        self._weights: dict[str, float] = dict(state["weights"]) if state else {}
        # To go on with; what is in it changes as means are added.
        self.state = {"sums": self._sums, "weights": self._weights}
        self._finish: dict[str, Callable[[Any], float]] = {}

    def add(self, means: Mapping[str, Mean]) -> None:
        """Add those of a batch."""
        for name, mean in means.items():
            weight, total = mean.weight, mean.mean
            if weight:
                total = weight * total
            else:  # also where the mean is not finite
                total = np.zeros_like(total) if isinstance(total, np.ndarray) else 0.0
            self._sums[name] = self._sums.get(name, 0.0) + total
            self._weights[name] = self._weights.get(name, 0.0) + weight
            if mean.finish is not None:
                self._finish[name] = mean.finish

    def loss(self) -> float:
        """Return the loss so far; 0.0 without targets."""
        sums, weights = self._sums, self._weights
        names = self._scorer.loss_weights
        return self._scorer.total({name: sums[name] / (weights[name] or 1.0) for name in names})

    def means(self, name: str) -> dict[str, float]:
        """Return the mean of each over all of `name`, or what is made of the mean."""
        if not any(self._weights.values()):
            raise NoTargets(f"{name} is empty, expected at least one target")
        means = {n: s / (self._weights[n] or 1.0) for n, s in self._sums.items()}
        means |= {n: finish(means[n]) for n, finish in self._finish.items()}
        return {"loss": self._scorer.total(means), **means} if self._scorer.loss_weights else means


class NoTargets(ValueError):
    """There is nothing to average."""


def _part(values: Any, key: Any, what: str) -> Any:
    """Return the output of that name or number of several."""
    there = list(by_key(values)) if is_structure(values) else []
    if key not in there or values[key] is None:
        names = ", ".join(repr(k) for k in there if values[k] is not None)
        given = f"for {names or None}" if there else checks.describe(values)
        raise ValueError(f"{what} {given}, expected one for {key!r}, which a loss or metric is of")
    return values[key]


def _joint(ends: Any) -> Ends | None:
    """Return where the rows of all outputs with steps end."""
    if isinstance(ends, Ends):
        return ends
    found = [end for end in leaves(ends) if end is not None]
    for other in found[1:]:
        one, two = found[0].lengths, other.lengths
        same = one is two if one is None or two is None else np.array_equal(one, two)
        if not same or found[0].moved != other.moved:
            raise ValueError(
                f"the rows of the outputs end at other steps, {one} and {two}: expected the same, "
                "to be scored together; a loss for each output scores them apart"
            )
    return found[0] if found else None


def _scaled(dpred: Any, factor: float) -> Any:
    if is_structure(dpred):
        return mapped(lambda part, _: _scaled(part, factor), dpred, "dpred")
    return dpred if dpred is None else dpred * np.asarray(dpred).dtype.type(factor)


def _check_number(name: str, value: Any) -> None:
    """Refuse what a loss or metric of one's own has returned, if it is no number."""
    if not (isinstance(value, (int, float)) or (hasattr(value, "dtype") and np.ndim(value) == 0)):
        raise TypeError(f"{name} returned {checks.describe(value)}, expected a number")


def _lacks_lengths(function: Scored, batch_first: bool) -> str | None:
    """Return how a function is called for rows with lengths, if it cannot be called so."""
    options = {"batch_first": True} if batch_first else {}
    try:
        # Only partly: a weight without a default is given by name where there is one.
        inspect.signature(function).bind_partial(None, None, None, **options)
    except ValueError:  # it is not written in Python
        return None
    except TypeError:
        more = ", batch_first=True" if batch_first else ""
        return f"function(pred, target, lengths{more})"
    return None


def _takes_weight(function: Scored) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of one that is not written in Python
        return True
    partial = getattr(function, "keywords", {})  # a weight that is set already is another one
    return "weight" not in partial and (
        "weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    )
