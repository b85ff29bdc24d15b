"""Getting data ready for training, for users: all the helpers under one name."""

from __future__ import annotations

from .batches import Batches, Buckets, Pairs, pad
from .series import resample, windows
from .text import Vocabulary, columns

__all__ = ["Batches", "Buckets", "Pairs", "Vocabulary", "columns", "pad", "resample", "windows"]
