"""What an ONNX file says, as plain Python: nodes, the graphs within them, and constants.

Contents are read when they are asked for. So a file can hold what we do not know, as long as nobody
needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Body", "Lazy", "Model", "Node", "Tensor", "Value"]

Tensor: TypeAlias = npt.NDArray[Any]
Content = TypeVar("Content")


class Lazy(Mapping[str, Content], Generic[Content]):
    """A mapping whose values are made when they are asked for, once."""

    def __init__(self, makers: Mapping[str, Callable[[], Content]]) -> None:
        self._makers = makers
        self._made: dict[str, Content] = {}

    def __getitem__(self, name: str) -> Content:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class Node:
    """One operator at work; "" among inputs and outputs is one that was left out.

    Parameters
    ----------
    op, domain : str
    name : str
        Its own, or if it has none, or that of another one, that of its first output. If that is
        another one's too, as it may be in the other branch of an If, a number is added.
    inputs, outputs : tuple of str
    attributes : mapping
        Numbers, strings, lists of them, arrays, and a `Body` for a graph within it.
    opset : int
        The version of ONNX's operators that it is of.
    """

    def __init__(
        self,
        op: str,
        domain: str,
        name: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        attributes: Mapping[str, Any],
        opset: int,
    ) -> None:
        self.op, self.domain, self.name = op, domain, name
        self.inputs, self.outputs = inputs, outputs
        self.attributes, self.opset = attributes, opset

    def replaced(self, **changes: Any) -> Node:
        """Return a node that differs in some fields."""
        return Node(**{**self.__dict__, **changes})

    @property
    def kind(self) -> str:
        """The operator, with its domain if it is not ONNX's own."""
        return f"{self.domain}.{self.op}" if self.domain else self.op

    def bodies(self) -> list[Body]:
        """Return the graphs within the node."""
        names = getattr(self.attributes, "graphs", None)
        values = (self.attributes[n] for n in (self.attributes if names is None else names))
        return [value for value in values if isinstance(value, Body)]

    def uses(self) -> list[str]:
        """Return the names of the values it needs: its inputs, and what the graphs within it take.

        None is there twice, and none that was left out.
        """
        names = [name for name in self.inputs if name]
        for body in self.bodies():
            names += body.captured()
        return list(dict.fromkeys(names))

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"

    def __repr__(self) -> str:
        # `to_onnx` keeps a checksum of this.
        fields = ("op", "domain", "name", "inputs", "outputs", "attributes")
        return f"Node({', '.join(f'{field}={getattr(self, field)!r}' for field in fields)})"


class Body(NamedTuple):
    """A graph within a node: a branch, or what a loop repeats."""

    nodes: list[Node]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]

    def captured(self) -> list[str]:
        """Return the names of the values that it takes from around it."""
        own = {*self.inputs, *self.constants}
        own.update(name for node in self.nodes for name in node.outputs)
        used = [name for node in self.nodes for name in node.uses()]
        return [name for name in dict.fromkeys([*used, *self.outputs]) if name not in own]


@dataclass(frozen=True)
class Value:
    """An input of the model: its shape has None where any size fits, and is None for any rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


class Model(NamedTuple):
    """What a file says."""

    opset: int
    nodes: list[Node]
    inputs: list[Value]
    outputs: list[str]
    constants: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    producer: str = ""


def all_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield nodes, and those of the graphs within them."""
    for node in nodes:
        yield node
        for body in node.bodies():
            yield from all_nodes(body.nodes)
