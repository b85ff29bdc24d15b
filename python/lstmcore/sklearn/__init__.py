"""scikit-learn: recurrent networks with its ``fit``, ``predict`` and ``score``.

`SequenceClassifier` and `SequenceRegressor` learn from sequences, each with its label or number;
`Forecaster` from a time series, to say what follows. They go into pipelines, grid searches and
cross-validation. Importing this module needs scikit-learn: ``pip install "lstmcore[sklearn]"``.
"""

from __future__ import annotations

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    message = 'lstmcore.sklearn needs scikit-learn: pip install "lstmcore[sklearn]"'
    raise ImportError(message) from error

from .._public.publish import publish
from ._classifier import SequenceClassifier
from ._forecaster import Forecaster
from ._regressor import SequenceRegressor

__all__ = ["Forecaster", "SequenceClassifier", "SequenceRegressor"]

publish(globals())
