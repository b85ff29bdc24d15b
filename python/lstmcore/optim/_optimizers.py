"""SGD, RMSprop, Adam and AdamW: one pass over the memory for each step.

All share these properties. A step works in the dtype of each parameter; NaN and infinite gradients
go through into the parameters, and denormal numbers count as zero. The results do not depend on the
number of threads, nor on the level of instructions from x86-64-v3 on. A parameter whose gradient
was never written to counts as one with gradient zero. Of a parameter with ``sparse=True`` only the
rows that its gradient touched are updated, together with their averages and their weight decay: the
others cost nothing and stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.parameter import Parameter, gradients, touch, zero_gradients
from .._public.publish import explain
from ._checks import at_least_0, keys
from ._groups import Given, Group, groups

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]


class Optimizer:
    """What all optimizers have in common. Use one of its subclasses.

    All take a list of Parameters, or one of groups of them as PyTorch does, each a dict with
    "params" and its own "lr" and "weight_decay" where these shall differ.

    Attributes
    ----------
    parameters : list of Parameter
        What it trains: of those it was given, those with ``trainable`` True at that time. A step
        passes over those that have been made untrainable since, as by `Module.freeze`.
    groups : list
        Of the parameters, each with `parameters`, `lr` and `weight_decay`, which may be changed
        between steps.
    steps : int
        How many steps it has taken.
    lr : float
        The learning rate, of the first group; may be changed between steps, which sets that of all.
    weight_decay : float
        In the same way.

    Examples
    --------
    >>> import lstmcore as lc
    >>> layer, head = lc.GRU(3, 8, seed=0), lc.Linear(8, 2, seed=1)
    >>> optimizer = lc.optim.Adam(
    ...     [{"params": layer.parameters(), "lr": 1e-4}, {"params": head.parameters()}], lr=1e-2
    ... )
    >>> [group.lr for group in optimizer.groups]
    [0.0001, 0.01]
    """

    parameters: list[Parameter]
    groups: list[Group]
    steps: int
    _update: Callable[..., None]  # the core's function for a step
    # What is remembered of each parameter, by the names of the state dict: None if the options need
    # no such thing.
    _memory: dict[str, list[Array] | None]

    def __init__(
        self, parameters: Given, lr: float, weight_decay: float, remember: dict[str, bool]
    ) -> None:
        self.groups = groups(parameters, lr, weight_decay)
        self.parameters = [p for group in self.groups for p in group.parameters]
        self.steps = 0
        self._memory = {
            name: [np.zeros(p.shape, p.dtype) for p in self.parameters] if used else None
            for name, used in remember.items()
        }

    @property
    def lr(self) -> float:
        """Learning rate, at least 0."""
        return self.groups[0]._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        for group in self.groups:
            group.lr = lr

    @property
    def weight_decay(self) -> float:
        """Weight decay, at least 0."""
        return self.groups[0]._weight_decay

    @weight_decay.setter
    def weight_decay(self, weight_decay: float) -> None:
        for group in self.groups:
            group.weight_decay = weight_decay

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0."""
        zero_gradients(self.parameters)

    def step(self) -> None:
        """Change every parameter by its gradient. The gradients stay as they are."""
        options = self._options()
        if "eps_hat" in options:
            options = self._with_eps_hat(options)
        end = 0
        for group in self.groups:
            start, end = end, end + len(group.parameters)
            options["lr"], options["weight_decay"] = group._lr, group._weight_decay
            self._change(group.parameters, start, options)
        self.steps += 1
        touch(self.parameters)

    def _change(self, params: list[Parameter], start: int, options: dict[str, Any]) -> None:
        """Change these parameters, the first of which has that number among all."""
        memory = list(self._memory.values())
        if len(self.groups) > 1:
            memory = [m if m is None else m[start : start + len(params)] for m in memory]
        rows, frozen = [], False
        for p in params:
            rows.append(p.rows if p.sparse else None)
            frozen = frozen or not p.trainable
        if frozen:
            kept = [i for i, p in enumerate(params) if p.trainable]
            params, rows = [params[i] for i in kept], [rows[i] for i in kept]
            memory = [m if m is None else [m[i] for i in kept] for m in memory]
        self._update(
            self.steps + 1,
            [p._storage for p in params],
            gradients(params),
            rows,
            memory,
            **options,
        )

    def _options(self) -> dict[str, Any]:
        """Return what makes the same optimizer from the parameters, as JSON could hold it."""
        raise NotImplementedError

    def _with_eps_hat(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of this step for an optimizer that has that option."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that a resumed run needs, to go on with the same bits.

        Returns
        -------
        dict
            The options by their names; "type", the name of the optimizer; "steps"; "parameters" and
            "shapes", lists of their names and shapes; and what is remembered of the parameters: a
            list of arrays for each name such as "exp_avg". All but the arrays is JSON.
        """
        memory = {k: [a.copy() for a in v] for k, v in self._memory.items() if v is not None}
        return {**self._description(), **memory}

    def _description(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            **self._options(),
            "steps": self.steps,
            "parameters": [p.name for p in self.parameters],
            "shapes": [list(p.shape) for p in self.parameters],
            **self._of_groups(),
        }

    def _of_groups(self) -> dict[str, Any]:
        """Return what several groups have each, as JSON could hold it; nothing of a single one."""
        if len(self.groups) == 1:
            return {}
        found = [[len(g.parameters), g.lr, g.weight_decay] for g in self.groups]
        return {"groups": found}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, for the same parameters in the same order.

        All of it, the options too, or nothing if anything is wrong.

        Parameters
        ----------
        state_dict : mapping
            From an optimizer of the same type.

        Raises
        ------
        ValueError
            If it is of other parameters or another optimizer, if keys are missing or unexpected, or
            if an option is out of range or an array misshapen; all keys are named.
        TypeError
            If it is no mapping, or a value is of the wrong type.

        Examples
        --------
        >>> import lstmcore as lc
        >>> state = lc.optim.Adam(lc.RNN(2, 3).parameters()).state_dict()
        >>> lc.optim.Adam(lc.RNN(2, 3).parameters()).load_state_dict(state)
        >>> lc.optim.Adam(lc.RNN(4, 3).parameters()).load_state_dict(state)
        Traceback (most recent call last):
        ValueError: state_dict is of other parameters than Adam's:
          weight_ih_l0 has shape (3, 2), expected (3, 4)
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is {checks.describe(state_dict)}, expected a mapping")
        name = type(self).__name__
        if state_dict.get("type", name) != name:
            raise ValueError(f"state_dict is of {state_dict['type']!r}, expected {name!r}")
        options = {k: state_dict[k] for k in self._options() if k in state_dict}
        fresh = type(self)([Parameter("", 0.0)], **options)  # checks the options
        fresh.parameters = self.parameters
        fresh.groups = self._with_groups(state_dict, fresh.lr, fresh.weight_decay)
        needed = [k for k, v in fresh._memory.items() if v is not None]
        keys(state_dict, [*self._description(), *needed])
        self._check_parameters(state_dict["parameters"], state_dict["shapes"])
        fresh.steps = checks.integer(state_dict["steps"], "steps", 0)
        for key in needed:
            fresh._memory[key] = self._arrays(state_dict[key], key)
        self.__dict__.update(fresh.__dict__)

    def _with_groups(self, state: Mapping[str, Any], lr: float, decay: float) -> list[Group]:
        """Return our groups with the rates and decays of a state, or with these of a single one."""
        if len(self.groups) == 1:
            return [Group(self.parameters, lr, decay)]
        given = state.get("groups", [])
        sizes = [len(group.parameters) for group in self.groups]
        triples = isinstance(given, (list, tuple)) and all(
            isinstance(one, (list, tuple)) and len(one) == 3 for one in given
        )
        if not triples or [one[0] for one in given] != sizes:
            raise ValueError(
                f"state_dict has the groups {given}, expected size, lr and weight_decay of "
                f"{len(sizes)} of {', '.join(map(str, sizes))} parameters"
            )
        return [
            Group(group.parameters, lr, decay)
            for group, (_, lr, decay) in zip(self.groups, given, strict=True)
        ]

    def _check_parameters(self, names: Any, shapes: Any) -> None:
        """Refuse a state of other parameters than ours, naming the first that differ."""
        for key, value in (("parameters", names), ("shapes", shapes)):
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"{key} is {checks.describe(value)}, expected a list")
        of = f"state_dict is of other parameters than {type(self).__name__}'s"
        if not len(names) == len(shapes) == len(self.parameters):
            raise ValueError(f"{of}: it has {len(names)}, expected {len(self.parameters)}")
        complaints = []
        for i, shape in enumerate(shapes):
            if not isinstance(shape, (list, tuple)):
                raise TypeError(f"shapes[{i}] is {checks.describe(shape)}, expected a list")
        for name, shape, p in zip(names, shapes, self.parameters, strict=True):
            if name != p.name:
                complaints.append(f"{name} in the place of {p.name}")
            elif tuple(shape) != p.shape:
                complaints.append(f"{name} has shape {tuple(shape)}, expected {p.shape}")
        if complaints:
            raise ValueError(f"{of}:\n  " + "\n  ".join(complaints))

    def _arrays(self, arrays: Any, key: str) -> list[Array]:
        if not isinstance(arrays, (list, tuple)):
            raise TypeError(f"{key} is {checks.describe(arrays)}, expected a list of arrays")
        if len(arrays) != len(self.parameters):
            raise ValueError(f"{key} has {len(arrays)} arrays, expected {len(self.parameters)}")
        return [
            np.array(checks.values(a, p.shape, p.dtype, f"{key}[{i}]"), order="C")
            for i, (a, p) in enumerate(zip(arrays, self.parameters, strict=True))
        ]

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self._options().items())
        several = f" in {len(self.groups)} groups" if len(self.groups) > 1 else ""
        return f"{type(self).__name__}({len(self.parameters)} parameters{several}, {options})"


explain(Optimizer)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    With g the gradient plus `weight_decay` times w, for every parameter w, as PyTorch computes it::

        m = momentum m + (1 - dampening) g          (at the first step m = g)
        w = w - lr m,  or  w - lr (g + momentum m) if nesterov,  or  w - lr g without momentum

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
        What to train, for instance ``[*lstm.parameters(), *head.parameters()]``; or
        ``[{"params": lstm.parameters(), "lr": 1e-4}, {"params": head.parameters()}]``, see
        `Optimizer`.
    lr : float, default 1e-3
        Learning rate; may be changed between steps.
    momentum : float, default 0
        Share of the last step that goes on, at least 0.
    dampening : float, default 0
        What the gradient loses on its way into the momentum.
    weight_decay : float, default 0
        Factor of w in g: L2 regularisation, at least 0.
    nesterov : bool, default False
        Look ahead along the momentum; needs momentum > 0 and dampening = 0.

    Raises
    ------
    ValueError
        If there is no parameter, one is given twice, or an option is out of range.
    TypeError
        If something else than a Parameter is given, or an option is of the wrong type.

    Notes
    -----
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964;
    Nesterov's form as in I. Sutskever et al., "On the importance of initialization and momentum in
    deep learning", ICML 2013.

    Examples
    --------
    >>> import lstmcore as lc
    >>> p = lc.Parameter("w", [1.0])
    >>> optimizer = SGD([p], lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     p.grad = [1.0]
    ...     optimizer.step()
    >>> p.data  # 1 - 0.1 * 1 - 0.1 * 1.5
    array([0.75])
    """

    _update = staticmethod(_core.sgd)

    def __init__(
        self,
        parameters: Given,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.momentum = at_least_0(momentum, "momentum")
        self.dampening = checks.number(dampening, "dampening")
        self.nesterov = checks.boolean(nesterov, "nesterov")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov is True with momentum {momentum} and dampening {dampening}, "
                f"expected momentum > 0 and dampening = 0"
            )
        super().__init__(parameters, lr, weight_decay, {"momentum_buffer": self.momentum != 0})

    def _options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "momentum": self.momentum,
            "dampening": self.dampening,
            "weight_decay": self.weight_decay,
            "nesterov": self.nesterov,
        }


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by a running average of its size.

    With g the gradient plus `weight_decay` times w, for every parameter w, as PyTorch computes it::

        v = alpha v + (1 - alpha) g^2
        a = alpha a + (1 - alpha) g                           (centered only)
        d = g / (sqrt(v) + eps),  or  g / (sqrt(v - a^2) + eps) if centered
        m = momentum m + d
        w = w - lr m,  or  w - lr d without momentum

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
        What to train, for instance ``[*lstm.parameters(), *head.parameters()]``; or
        ``[{"params": lstm.parameters(), "lr": 1e-4}, {"params": head.parameters()}]``, see
        `Optimizer`.
    lr : float, default 1e-2
        Learning rate; may be changed between steps.
    alpha : float, default 0.99
        Decay rate of the averages, in [0, 1].
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0
        Factor of w in g: L2 regularisation, at least 0.
    momentum : float, default 0
        Share of the last step that goes on, at least 0.
    centered : bool, default False
        Divide by the standard deviation of the gradient in the place of its size. Where rounding
        would make v - a^2 negative it counts as 0 (PyTorch gives NaN).

    Raises
    ------
    ValueError
        If there is no parameter, one is given twice, or an option is out of range.
    TypeError
        If something else than a Parameter is given, or an option is of the wrong type.

    Notes
    -----
    G. Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012; centered: A. Graves,
    "Generating Sequences With Recurrent Neural Networks", arXiv:1308.0850, 2013.

    Examples
    --------
    >>> import lstmcore as lc
    >>> p = lc.Parameter("w", [1.0, 1.0])
    >>> p.grad = [1e-3, -1e3]  # the size does not matter
    >>> RMSprop([p], lr=0.01).step()
    >>> p.data.round(4)
    array([0.9, 1.1])
    """

    _update = staticmethod(_core.rmsprop)

    def __init__(
        self,
        parameters: Given,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        self.alpha = checks.number(alpha, "alpha")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {alpha}, expected 0 to 1")
        self.eps = at_least_0(eps, "eps")
        self.momentum = at_least_0(momentum, "momentum")
        self.centered = checks.boolean(centered, "centered")
        remember = {
            "square_avg": True,
            "momentum_buffer": self.momentum != 0,
            "grad_avg": self.centered,
        }
        super().__init__(parameters, lr, weight_decay, remember)

    def _options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "alpha": self.alpha,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "centered": self.centered,
        }


class Adam(Optimizer):
    """Adam: steps of about `lr` per parameter, whatever the size of its gradient.

    With g the gradient plus `weight_decay` times w at step t, for every parameter w, as PyTorch
    computes it::

        m = beta1 m + (1 - beta1) g                 mhat = m / (1 - beta1^t)
        v = beta2 v + (1 - beta2) g^2               vhat = v / (1 - beta2^t)
        w = w - lr mhat / (sqrt(vhat) + eps)

    Parameters
    ----------
    parameters : iterable of Parameter, or of groups
        What to train, for instance ``[*lstm.parameters(), *head.parameters()]``; or
        ``[{"params": lstm.parameters(), "lr": 1e-4}, {"params": head.parameters()}]``, see
        `Optimizer`.
    lr : float, default 1e-3
        Learning rate; may be changed between steps.
    betas : (float, float), default (0.9, 0.999)
        Decay rates of the two averages, in [0, 1).
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0
        Factor of w in g: L2 regularisation, at least 0.
    amsgrad : bool, default False
        Put the largest v so far in the place of v in vhat.
    eps_hat : bool, default False
        Add eps to sqrt(v) before its correction, not to sqrt(vhat) after it, as Keras and
        TensorFlow do: the article's epsilon hat. (Keras's eps is 1e-7.)

    Raises
    ------
    ValueError
        If there is no parameter, one is given twice, or an option is out of range.
    TypeError
        If something else than a Parameter is given, or an option is of the wrong type.

    Notes
    -----
    D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1;
    AMSGrad: S. J. Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018.

    Of a parameter with ``sparse=True`` a row's averages decay only when it is touched, as those of
    PyTorch's SparseAdam do; t counts all steps.

    Examples
    --------
    >>> import lstmcore as lc
    >>> p = lc.Parameter("w", [1.0, 1.0])
    >>> optimizer = Adam([p], lr=0.1)
    >>> p.grad = [1e-3, -1e3]
    >>> optimizer.step()
    >>> p.data.round(4)
    array([0.9, 1.1])
    """

    _update = staticmethod(_core.adam)

    def __init__(
        self,
        parameters: Given,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        eps_hat: bool = False,
    ) -> None:
        self.betas = _betas(betas)
        self.eps = at_least_0(eps, "eps")
        self.amsgrad = checks.boolean(amsgrad, "amsgrad")
        self.eps_hat = checks.boolean(eps_hat, "eps_hat")
        remember = {"exp_avg": True, "exp_avg_sq": True, "max_exp_avg_sq": self.amsgrad}
        super().__init__(parameters, lr, weight_decay, remember)

    def _options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "betas": list(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "amsgrad": self.amsgrad,
            **({"eps_hat": True} if self.eps_hat else {}),  # states of older versions lack it
        }

    def _with_eps_hat(self, options: dict[str, Any]) -> dict[str, Any]:
        # sqrt(v) + eps, over sqrt(1 - beta2^t), is sqrt(vhat) and this.
        eps = options["eps"] / math.sqrt(1 - self.betas[1] ** (self.steps + 1))
        return {k: v for k, v in options.items() if k != "eps_hat"} | {"eps": eps}


class AdamW(Adam):
    """Adam with decoupled weight decay: the decay does not pass through the averages.

    At every step first ``w = w - lr weight_decay w``, then a step of Adam with the gradient alone.

    Parameters
    ----------
    parameters, lr, betas, eps, amsgrad, eps_hat
        As for `Adam`.
    weight_decay : float, default 1e-2
        What every parameter loses at each step, times lr; at least 0.

    Raises
    ------
    ValueError, TypeError
        As for `Adam`.

    Notes
    -----
    I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2,
    with the decay multiplied by lr as PyTorch has it.

    Examples
    --------
    >>> import lstmcore as lc
    >>> p = lc.Parameter("w", [1.0])
    >>> AdamW([p], lr=0.1, weight_decay=0.5).step()  # with a gradient of 0
    >>> p.data
    array([0.95])
    """

    _update = staticmethod(_core.adamw)

    def __init__(
        self,
        parameters: Given,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        eps_hat: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, amsgrad, eps_hat=eps_hat)


def _betas(value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"betas is {checks.describe(value)}, expected two numbers")
    beta1, beta2 = (checks.number(b, f"betas[{i}]") for i, b in enumerate(value))
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas is {value}, expected two numbers in [0, 1)")
    return beta1, beta2
