"""Modules whose parameters are packed: copied into the order in which the core reads them."""

from __future__ import annotations

from typing import Any

from .. import _core
from .checks import Array
from .loads import whole
from .low_precision import LowPrecision
from .parameter import settled

__all__ = ["PacksWeights"]


class PacksWeights(LowPrecision):
    """What recurrent layers and Linear share: packed parameters, kept until they may have changed.

    Inference may run in any number of threads at once. Training one module is for one thread at a
    time, because every `backward` adds to the same gradients.
    """

    # What is kept: the token that the parameters had, the version of the ISA level, whether the
    # weights are packed for training, and the weights.
    _packed: tuple[Any, int, bool, Any] = (None, 0, False, None)

    def _pack(self, parameters: list[Array], train: bool) -> Any:
        """Return the parameters packed for the core."""
        raise NotImplementedError

    def _pack_quantized(self, parameters: list[Any]) -> Any:
        """Return those of a quantised module."""
        raise NotImplementedError

    def _weights(self, train: bool) -> Any:
        """Return the parameters packed for the core; what is packed for training serves both."""
        if train and self._quantized:
            self._refuse_in_int8("training")
        token, isa, for_training, weights = self._packed
        if (
            token is self._watch.token
            and isa == _core.isa_version()
            and (for_training or not train)
        ):
            return weights
        del weights
        packed, keep = whole(self, lambda: self._pack_anew(train))
        if keep:  # not before: what is packed while a load writes is a mixture
            self._packed = packed
        return packed[-1]

    def _pack_anew(self, train: bool) -> tuple[tuple[Any, int, bool, Any], bool]:
        """Return what `_packed` is to be, and whether it may be kept."""
        # There is no lock: threads that arrive together all pack, which is slower and not wrong.
        # The token is read first. A write replaces it, so weights that were packed while somebody
        # wrote are kept under an old token and not used again. While somebody holds an array
        # through which a parameter can change, nothing is kept.
        token = self._watch.token
        keep = settled(self._parameters.values())
        isa = _core.isa_version()
        self._packed = PacksWeights._packed  # frees the old weights before the new ones are made
        storages: list[Any] = [p._storage for p in self._parameters.values()]
        weights = self._pack_quantized(storages) if self._quantized else self._pack(storages, train)
        return (token, isa, train, weights), keep

    def _stream_stage(self, name: str) -> Any:
        return self._weights(False)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_packed"}
