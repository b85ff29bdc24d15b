"""Getting data ready for training, for users: all the helpers under one name."""

from __future__ import annotations

from .._public.publish import publish
from ._batches import Batch, Batches, Buckets, Pairs, pad
from ._resample import resample
from ._standardizer import Standardizer
from ._text import Vocabulary, columns
from ._windows import windows

__all__ = [
    "Batch",
    "Batches",
    "Buckets",
    "Pairs",
    "Standardizer",
    "Vocabulary",
    "columns",
    "pad",
    "resample",
    "windows",
]

publish(globals())
