"""Optimizers, which change the parameters by their gradients, and what goes with them.

>>> import numpy as np
>>> import lstmcore as lc
>>> head = lc.Linear(2, 1, dtype="float64", seed=0)
>>> optimizer = lc.optim.Adam(head.parameters(), lr=0.1)
>>> schedule = lc.optim.CosineLR(optimizer, total_steps=200)
>>> for _ in range(200):
...     y, tape = head.forward(np.eye(2))
...     loss, dy = lc.losses.mse(y, [[1.0], [2.0]])
...     optimizer.zero_grad()
...     dx = head.backward(tape, dy)
...     norm = lc.clip_grad_norm(head.parameters(), max_norm=1.0)
...     optimizer.step()
...     schedule.step()
>>> loss < 1e-4, optimizer.lr
(True, 0.0)
"""

from .._public.publish import publish
from . import schedules
from ._clipping import clip_grad_norm, clip_grad_value
from ._optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from .schedules import (
    CosineLR,
    CosineRestarts,
    LambdaLR,
    OneCycle,
    Plateau,
    Schedule,
    StepLR,
    WarmUp,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "CosineRestarts",
    "LambdaLR",
    "OneCycle",
    "Optimizer",
    "Plateau",
    "RMSprop",
    "Schedule",
    "StepLR",
    "WarmUp",
    "clip_grad_norm",
    "clip_grad_value",
    "schedules",
]

publish(globals())
