"""What the exporters share: each has a table of the options that it writes, and refuses all others.

So a new option is refused by every exporter until its table names it. The tables are `_OPTIONS` in
keras/_write.py and torch/_convert.py, and `_MODULES` in onnx/writing/_exporting.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection

from .._base.module import Module

__all__ = ["check_options", "not_written"]


def check_options(
    module: Module, written: Collection[str], to: str, path: str = "", in_int8: bool = False
) -> None:
    """Refuse a module with an option that is neither the default nor among those written.

    Parameters
    ----------
    module : Module
        What is to be exported.
    written : collection of str
        The options that the exporter writes, and those that may be left out because they act in
        training only.
    to : str
        Where the module goes, for the message.
    path : str, default ""
        Where it stands in a model, for the message.
    in_int8 : bool, default False
        Whether weights in int8 can be written.

    Raises
    ------
    ValueError
        Naming the option.
    """
    if module._quantized and not in_int8:
        raise ValueError(
            f"{_where(module, path)}: weights in int8 cannot be written to {to}, write those of "
            "the model that it was made of"
        )
    for name, parameter in inspect.signature(type(module)).parameters.items():
        # Files of others hold parameters, which are float32 whatever they are multiplied in.
        left_out = name not in ("seed", "precision") and name not in written
        if left_out and getattr(module._config, name) != parameter.default:
            raise not_written(module, name, to, path=path)


def not_written(module: Module, option: str, to: str, why: str = "", path: str = "") -> ValueError:
    """Return the error for an option, or a value of it, that cannot be written."""
    where, value = _where(module, path), getattr(module._config, option)
    return ValueError(f"{where}: {option}={value!r} cannot be written to {to}{why and ': '}{why}")


def _where(module: Module, path: str) -> str:
    return f"module {path}, {module!r}" if path else repr(module)
