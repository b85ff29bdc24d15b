"""A recurrent net as a dynamical system: x' = f(x, u), y = g(x)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.module import Module, needed_steps

__all__ = ["StateSpace"]

Vectors: TypeAlias = npt.NDArray[Any]


class StateSpace:
    """A system in discrete time: x' = f(x, u), y = g(x).

    x is the state, (..., n), u the input, y the output.

    Parameters
    ----------
    f : function of x and u
        The next state.
    g : function of x, optional
        The output; by default the state itself.
    size : int, optional
        n, which `simulate` needs to start from zeros.
    dtype : {"float32", "float64"}, default "float64"
        Of the state.

    Raises
    ------
    TypeError, ValueError
        If f or g is no function, or an option has a wrong value.

    Notes
    -----
    What this view shows of recurrent nets: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of
    training recurrent neural networks", ICML 2013, section 2.2.

    Examples
    --------
    >>> import lstmcore as lc
    >>> decay = lc.StateSpace(lambda x, u: 0.5 * x + u, size=1)
    >>> x, y = decay.simulate([[1.0], [0.0], [0.0]])
    >>> x.ravel(), y.ravel()
    (array([0.  , 1.  , 0.5 , 0.25]), array([1.  , 0.5 , 0.25]))
    """

    def __init__(
        self,
        f: Callable[[Vectors, Vectors], Vectors],
        g: Callable[[Vectors], Vectors] | None = None,
        *,
        size: int | None = None,
        dtype: npt.DTypeLike = "float64",
    ) -> None:
        for name, function in (("f", f), ("g", g)):
            if not callable(function) and not (name == "g" and g is None):
                raise TypeError(f"{name} is {checks.describe(function)}, expected a function")
        self.f = f
        self.g = g if g is not None else lambda x: x
        self.size = None if size is None else checks.integer(size, "size", 1)
        self.dtype = checks.dtype(dtype)

    @classmethod
    def linear(
        cls, a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike | None = None
    ) -> StateSpace:
        """Make the linear system x' = A x + B u, y = C x, with C = 1 if not given.

        Parameters
        ----------
        a : array (n, n)
        b : array (n, inputs)
        c : array (outputs, n), optional

        Raises
        ------
        ValueError
            If the shapes do not fit.

        Examples
        --------
        >>> import lstmcore as lc
        >>> swing = lc.StateSpace.linear([[0.0, 1.0], [-1.0, 0.0]], [[0.0], [1.0]], [[1.0, 0.0]])
        >>> swing.simulate([[1.0], [0.0], [0.0], [0.0]])[1].ravel()
        array([ 0.,  1.,  0., -1.])
        """
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        size = a.shape[0] if a.ndim else 0
        c = np.eye(size) if c is None else np.asarray(c, np.float64)
        if a.shape != (size, size) or b.shape[:-1] != (size,) or c.shape[1:] != (size,):
            raise ValueError(
                f"a, b, c have shapes {a.shape}, {b.shape}, {c.shape}, expected (n, n), "
                "(n, inputs), (outputs, n)"
            )
        return cls(lambda x, u: x @ a.T + u @ b.T, lambda x: x @ c.T, size=size)

    @classmethod
    def of(cls, model: Module) -> StateSpace:
        """View a recurrent model as such a system.

        Its state is all that the model carries from one step to the next, as one vector: h of every
        layer, first layer first, and c after the h of a recurrent module if it is an LSTM. The
        output depends on the state after the step alone.

        Parameters
        ----------
        model : layer, cell or Sequential
            Reads forward. Of a Sequential, what comes before the last recurrent layer is part of f,
            what comes after it is g. The view follows the parameters when they change.

        Raises
        ------
        ValueError, TypeError
            If the model is not recurrent, reads backwards or pools over time.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> lstm = lc.LSTM(3, 4, seed=0)
        >>> u = np.ones((10, 3), "float32")
        >>> x, y = lc.StateSpace.of(lstm).simulate(u)
        >>> x.shape, y.shape, bool(np.allclose(y, lstm(u)[0]))
        ((11, 8), (10, 4), True)
        """
        return _view(cls, model)

    def simulate(self, u: npt.ArrayLike, x0: npt.ArrayLike | None = None) -> tuple[Array, Array]:
        """Run the system from a state through inputs.

        Parameters
        ----------
        u : array (T, ..., inputs)
            What f takes: of a model, its dtype, or lists.
        x0 : array (..., n), optional
            Zeros if not given.

        Returns
        -------
        x : ndarray (T + 1, ..., n)
            The states, x0 first.
        y : ndarray (T, ..., outputs)
            ``y[t] = g(x[t + 1])``: what is read after ``u[t]`` has acted.

        Raises
        ------
        ValueError
            If there is no input, or no x0 for a system of unknown size.
        """
        inputs = np.asarray(u)
        if inputs.dtype.kind == "f" and not hasattr(u, "dtype"):
            inputs = inputs.astype(self.dtype)  # a list
        if inputs.ndim == 0 or not len(inputs):
            raise ValueError(f"u has shape {inputs.shape}, expected (T, ...) with T >= 1")
        if x0 is None:
            if self.size is None:
                raise ValueError("x0 is not given, and the size of the state is not known")
            state = np.zeros((*inputs.shape[1:-1], self.size), self.dtype)
        else:
            state = np.asarray(x0, self.dtype)
        states, outputs = [state], []
        for step in inputs:
            state = self.f(state, step)
            states.append(state)
            outputs.append(self.g(state))
        return np.stack(states), np.stack(outputs)


def _view(cls: type[StateSpace], model: Module) -> StateSpace:
    steps = [module for _, module in model._chain()] if isinstance(model, Module) else []
    where = [i for i, module in enumerate(steps) if module._state_parts]
    if not where and (not steps or steps[0] is model):
        what = checks.describe(model)
        raise TypeError(f"model is {what}, expected a layer, a cell or a Sequential")
    if not where:
        raise ValueError(f"{model!r} has no recurrent layer, and so no state")
    pool = next((module for module in steps if not module._keeps_time), None)
    past = next((module for module in steps if module._past_steps), None)
    if past is not None:
        raise ValueError(f"{past!r} has past steps as its state, which this view does not take")
    whole = pool or model._part_reading_ahead()
    if whole is not None:
        raise ValueError(needed_steps(whole, ", and so has no state in time"))
    before, after = steps[: where[-1] + 1], steps[where[-1] + 1 :]
    recurrent = [module for module in before if module._state_parts]
    widths = [width for module in recurrent for width in _widths(module)]
    cuts = np.cumsum(widths)

    def f(x: Vectors, u: Vectors) -> Vectors:
        parts = iter(np.split(x, cuts[:-1], axis=-1))
        following: list[Vectors] = []
        for module in before:
            if not module._state_parts:
                u = module(u)
                continue
            state = tuple(_layered(next(parts), module._states) for _ in module._state_parts)
            u, state = module._step(u, state)
            following += [_vector(part) for part in state]
        return np.concatenate(following, axis=-1)

    last = recurrent[-1]
    end = int(cuts[-1]) - sum(_widths(last)[1:])

    def g(x: Vectors) -> Vectors:
        y = x[..., end - last._outputs : end]  # h of the top layer
        for module in after:
            y = module(y)
        return y

    return cls(f, g, size=int(cuts[-1]), dtype=last._dtype)


def _widths(module: Any) -> list[int]:
    """How many numbers of the state are h and, for an LSTM, c."""
    sizes = [module._outputs, module._hidden][: len(module._state_parts)]
    return [module._states * size for size in sizes]


def _layered(part: Vectors, layers: int) -> Vectors:
    """Turn (..., L * size) into (L, ..., size)."""
    return np.moveaxis(part.reshape(*part.shape[:-1], layers, -1), -2, 0).copy()


def _vector(part: Vectors) -> Vectors:
    """The opposite of `_layered`."""
    part = np.moveaxis(part, 0, -2)
    return part.reshape(*part.shape[:-2], -1)
