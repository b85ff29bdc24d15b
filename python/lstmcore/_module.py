"""What everything with parameters has in common: listing, saving, loading, comparing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _checks
from ._checks import Array
from ._parameter import Parameter, Watch

__all__ = ["IncompatibleKeys", "Module"]


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and found but did not want."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Parameters by name, and the configuration that says what they are for."""

    _config: Any  # compares with ==
    _parameters: dict[str, Parameter]  # in the order of the state dict
    _watch: Watch

    def _make_parameters(self, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: Any) -> None:
        self._watch = Watch()
        self._parameters = {
            name: Parameter._empty(name, shape, dtype, self._watch) for name, shape in shapes
        }

    def parameters(self) -> list[Parameter]:
        """Return the parameters, in the order of the state dict."""
        return list(self._parameters.values())

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Return (name, parameter) pairs, in the order of the state dict."""
        return list(self._parameters.items())

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold together."""
        return sum(p.size for p in self._parameters.values())

    def zero_grad(self) -> None:
        """Fill every gradient with zeros. `backward` adds to them, so call it before each step."""
        for p in self._parameters.values():
            p.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name, with PyTorch's names, shapes and order."""
        return {name: np.array(p._storage, subok=False) for name, p in self._parameters.items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, prefix: str = ""
    ) -> IncompatibleKeys:
        """Copy parameters from a state dict: all of them, or none if anything is wrong.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Real arrays of any dtype or ``torch.Tensor``, as `state_dict` or PyTorch's returns them.
        strict : bool, default True
            Whether missing and unexpected keys are errors. Wrong shapes always are.
        prefix : str, default ""
            What the names begin with in `state_dict`, such as ``"encoder."``; keys that begin
            otherwise belong to somebody else.

        Returns
        -------
        (missing_keys, unexpected_keys) : named tuple of two lists of str
            Both empty if `strict`.

        Raises
        ------
        ValueError
            Naming every missing, unexpected or misshapen key.
        TypeError
            If `state_dict` is no mapping.

        Examples
        --------
        >>> import lstmcore as lc
        >>> lc.RNN(2, 3).load_state_dict(lc.RNN(2, 3).state_dict())
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> lc.RNN(2, 3).load_state_dict(lc.RNN(4, 3, bias=False).state_dict())
        Traceback (most recent call last):
        ValueError: state_dict does not fit RNN(2, 3):
          missing: bias_ih_l0, bias_hh_l0
          weight_ih_l0 has shape (3, 4), expected (3, 2)
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is {_checks.describe(state_dict)}, expected a mapping")
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is {_checks.describe(prefix)}, expected a str")
        strict = _checks.boolean(strict, "strict")
        names = {prefix + name: p for name, p in self._parameters.items()}
        ours = [k for k in state_dict if not prefix or str(k).startswith(prefix)]
        missing = [key for key in names if key not in state_dict]
        unexpected = [str(key) for key in ours if key not in names]
        complaints = []
        if strict and missing:
            complaints.append("missing: " + ", ".join(missing))
        if strict and unexpected:
            complaints.append("unexpected: " + ", ".join(unexpected))
        arrays = {}
        for key, p in names.items():
            if key in state_dict:
                try:
                    arrays[key] = _checks.values(state_dict[key], p.shape, p.dtype, key)
                except (ValueError, TypeError) as error:
                    complaints.append(str(error))
        if complaints:
            raise ValueError(f"state_dict does not fit {self!r}:\n  " + "\n  ".join(complaints))
        for key, array in arrays.items():
            names[key]._storage[...] = array
        self._watch.token = object()
        return IncompatibleKeys(missing, unexpected)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same configuration and the same parameters, bit for bit."""
        if not isinstance(other, Module):
            return NotImplemented
        return (
            type(self) is type(other)
            and bool(self._config == other._config)
            and all(
                np.array_equal(p._storage.view(np.uint8), q._storage.view(np.uint8))
                for p, q in zip(self.parameters(), other.parameters(), strict=True)
            )
        )
