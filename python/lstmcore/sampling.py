"""How `generate` chooses the next token from the scores of all: a function of the scores each.

A function of your own does as well: from scores (B, C) to ids (B,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._base import checks
from ._base.scoring import says
from ._public.publish import publish

__all__ = ["greedy", "temperature", "top_k"]


Sampler: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def greedy() -> Sampler:
    """Take the token with the highest score, the first if there are several.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lc.sampling.greedy()(np.array([[0.0, 2.0, 1.0]]))
    array([1])
    """
    return lambda scores: checks._asarray(scores, "scores").argmax(axis=-1)


def temperature(t: float = 1.0, *, seed: int | None = None) -> Sampler:
    """Draw each token with probability softmax(scores / t).

    Parameters
    ----------
    t : float, default 1.0
        Below 1 the likely ones become likelier, above 1 less so; more than 0.
    seed : int, optional
        The same seed draws the same tokens.

    Raises
    ------
    ValueError, TypeError
        If t is not a number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> draw = lc.sampling.temperature(0.1, seed=0)
    >>> draw(np.array([[0.0, 2.0, 1.0]]))
    array([1])
    """
    return top_k(None, t, seed=seed)


def top_k(k: int | None, t: float = 1.0, *, seed: int | None = None) -> Sampler:
    """Draw from the k tokens with the highest scores, with probability softmax(scores / t).

    Parameters
    ----------
    k : int or None
        How many; those that tie with the last of them count too. None, or more than there are: all.
    t : float, default 1.0
        The temperature, more than 0.
    seed : int, optional
        The same seed draws the same tokens.

    Raises
    ------
    ValueError, TypeError
        If k or t is out of range.

    Notes
    -----
    A. Fan, M. Lewis, Y. Dauphin, "Hierarchical Neural Story Generation", ACL 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> draw = lc.sampling.top_k(2, seed=0)
    >>> scores = np.array([[0.0, 2.0, 1.0]])
    >>> sorted({int(draw(scores)[0]) for _ in range(100)})
    [1, 2]
    """
    if k is not None:
        k = checks.integer(k, "k", 1)
    t = checks.number(t, "t")
    if t <= 0:
        raise ValueError(f"t is {t}, expected more than 0")
    rng = np.random.default_rng(checks.seed(seed))

    @says(takes_scores=True)
    def sample(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        logits = checks._asarray(scores, "scores").astype(np.float64) / t
        if k is not None and k < logits.shape[-1]:
            least = np.partition(logits, -k, axis=-1)[..., -k, None]
            logits[logits < least] = -np.inf
        # The largest of logits + Gumbel noise is distributed as their softmax.
        ids: npt.NDArray[Any] = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)
        return ids

    return sample


publish(globals())
