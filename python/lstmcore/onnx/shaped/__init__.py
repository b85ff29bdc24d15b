"""Plans for inputs of known shapes: simple nodes as programs of the core, with nothing to find out.

`shaped` makes one while it runs a plan; it is right for all inputs of these shapes and types.
"""

from __future__ import annotations

from ._recording import Unfit, plain
from ._tracing import Changed, shaped

__all__ = ["Changed", "Unfit", "plain", "shaped"]
