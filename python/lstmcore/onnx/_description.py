"""What `to_onnx` writes beside a graph, so that `from_onnx` gives the same layer or model back.

It is the module's description as in our own files, and a checksum of the graph as `to_onnx` wrote
it but for its weights. If the graph has been changed since, it is the graph that counts.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from .._base.budget import BUDGET, Budget
from .._base.module import Module
from .._files.models import _make
from . import _recurrent
from ._model import Model, Tensor

KEY = "lstmcore.model"
TRANSPOSED = "_transposed"  # what the names of parameters end with that a graph has transposed

_VERSION = 1


def describe(module: Module, model: Model) -> str:
    """Return the description of a module that has become this model."""
    description = module._description()
    return json.dumps({"version": _VERSION, "graph": _checksum(model), "model": description})


def restore(model: Model) -> Module | None:
    """Return the module that a model was, or None if it has no description, or not its own."""
    before = BUDGET.set(
        Budget(8 * len(model.constants), sum(a.nbytes for a in model.constants.values()))
    )
    try:
        content = json.loads(model.metadata[KEY])
        if content["version"] != _VERSION or content["graph"] != _checksum(model):
            return None
        module = _make(content["model"])
        module.load_state_dict(_state(module, model))
    except Exception:  # a description can ask for anything
        return None
    finally:
        BUDGET.reset(before)
    return module


def _checksum(model: Model) -> int:
    """Return a number for all of a model but its real numbers."""
    fixed = {
        name: (array.shape, array.tobytes() if array.dtype.kind != "f" else "")
        for name, array in model.constants.items()
    }
    parts = (model.opset, model.nodes, model.inputs, model.outputs, fixed)
    return zlib.crc32(repr(parts).encode())


def _state(module: Module, model: Model) -> dict[str, Any]:
    """Return the state dict of a module from the weights of the model."""
    state = {}
    parts: Any = module._chain() if module._network is None else module._children.items()
    for path, part in parts:
        prefix = f"{path}." if path else ""
        own: dict[str, Any]
        if part._state_parts and _recurrent.has_node(part._config):
            nodes = [
                {
                    name: model.constants[f"{prefix}{name}_l{level}"]
                    for name in ("W", "R", "B", "P", "W_scale", "R_scale")
                    if f"{prefix}{name}_l{level}" in model.constants
                }
                for level in range(part.num_layers)
            ]
            if part._quantized:
                nodes = [_recurrent.turned(one) for one in nodes]
            own = _recurrent.to_state(part._config, nodes)
        else:
            inside = (f"{n}.{name}" for n, m in part._children.items() for name in m._parameters)
            own = {n: _parameter(prefix + n, model) for n in (*part._parameters, *inside)}
            # Of what no graph needs, such as a count of batches, the values it starts with stay.
            own |= {
                name: model.constants.get(prefix + name, p._storage)
                for name, p in part._buffers.items()
            }
        state.update({prefix + name: array for name, array in own.items()})
    return state


def _parameter(name: str, model: Model) -> Tensor:
    transposed = model.constants.get(name + TRANSPOSED)
    if transposed is not None and transposed.dtype == np.uint8:
        transposed = _recurrent.signed(transposed)
    return model.constants[name] if transposed is None else transposed.T
