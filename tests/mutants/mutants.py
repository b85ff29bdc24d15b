"""All mutants, and the handful that is tried often."""

from __future__ import annotations

from in_cpp import CPP
from in_data import DATA
from in_models import MODELS
from in_modules import MODULES
from in_training import TRAINING
from mutant import Mutant

__all__ = ["MUTANTS", "QUICK", "Mutant"]

MUTANTS = [*TRAINING, *DATA, *MODULES, *MODELS, *CPP]

# Of Python alone: to compile the library for others takes minutes.
QUICK = [
    "mse-factor",
    "mean-counts-masked",
    "smoothing-spread-over-one-class-too-few",
    "accuracy-takes-nan-for-right",
    "adam-state-is-not-copied-out",
    "plateau-max-threshold-sign",
    "clipping-without-bound",
    "batches-lengths-unshuffled",
    "pairs-bucketed-by-source-alone",
    "fit-chunks-forget-the-state",
    "generate-ignores-lengths",
    "haiku-z-of-h",
]
