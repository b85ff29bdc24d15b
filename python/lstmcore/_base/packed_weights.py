"""Modules whose parameters the core reads in an order of its own."""

from __future__ import annotations

from typing import Any

from .. import _core
from .checks import Array
from .module import Module

__all__ = ["PacksWeights"]


class PacksWeights(Module):
    """What recurrent layers and Linear share: packed parameters, kept until they may have changed.

    Inference may run in any number of threads at once. Training one module is for one thread at a
    time, because every `backward` adds to the same gradients.
    """

    # Of which token, which ISA, whether for training, and the packed parameters.
    _packed: tuple[Any, int, bool, Any] = (None, 0, False, None)

    def _pack(self, parameters: list[Array], train: bool) -> Any:
        """Return the parameters packed for the core."""
        raise NotImplementedError

    def _weights(self, train: bool) -> Any:
        """Return the parameters packed for the core; what is packed for training serves both."""
        token, isa, for_training, weights = self._packed
        if (
            token is self._watch.token
            and isa == _core.isa_version()
            and (for_training or not train)
        ):
            return weights
        # Without a lock, so threads that arrive together may all pack. The token is read before
        # anything else: whoever writes meanwhile replaces it, and what is packed here is stale. If
        # somebody still holds an array to write through, it is not kept at all.
        token = self._watch.token
        settled = all(p._settled() for p in self._parameters.values())
        isa = _core.isa_version()
        self._packed = PacksWeights._packed  # nothing: what is stale gives its memory to what comes
        del weights
        weights = self._pack([p._storage for p in self._parameters.values()], train)
        if settled:
            self._packed = (token, isa, train, weights)
        return weights

    def _stream_stage(self, name: str) -> Any:
        return self._weights(False)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_packed"}
