"""Putting the nodes of a whole model in order: every value is made once, before it is used."""

from __future__ import annotations

from collections.abc import Collection

from ._model import Body, Model, Node

__all__ = ["whole"]


def whole(model: Model) -> Model:
    """Return the model with everything read, and its nodes in an order in which they can run.

    Raises
    ------
    ValueError
        If a value is made twice or by nobody, or nodes need each other in a circle.
    """
    constants = dict(model.constants)
    known = {*(value.name for value in model.inputs), *constants}
    nodes = _ordered(model.nodes, known)
    if not model.outputs:
        raise ValueError("the model has no outputs")
    _check_outputs(model.outputs, nodes, known, "the model")
    return model._replace(nodes=nodes, constants=constants)


def _ordered(nodes: list[Node], known: Collection[str]) -> list[Node]:
    """Return the nodes in order; those that are in order already stay where they are."""
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        if not any(node.outputs):
            raise ValueError(f"{node} has no outputs")
        for name in filter(None, node.outputs):
            if name in known or makers.setdefault(name, i) != i or node.outputs.count(name) > 1:
                raise ValueError(f"{node} makes {name!r}, which exists already")
    needs = []
    for node in nodes:
        needed = node.uses()
        for name in needed:
            if name not in known and name not in makers:
                raise ValueError(f"{node} uses {name!r}, which nothing makes")
        needs.append({makers[name] for name in needed if name in makers})
    order = _sorted(nodes, needs)
    made = set(known)
    found = []
    for i in order:
        found.append(_with_bodies(nodes[i], made))
        made.update(filter(None, nodes[i].outputs))
    return found


def _sorted(nodes: list[Node], needs: list[set[int]]) -> list[int]:
    """Return the places of the nodes in order: depth first, without recursion."""
    order: list[int] = []
    state = [0] * len(nodes)  # 1 while what it needs is looked for, 2 when it has a place
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            i = stack[-1]
            if state[i] == 2:
                stack.pop()
                continue
            state[i] = 1
            missing = [j for j in sorted(needs[i], reverse=True) if state[j] != 2]
            if any(state[j] == 1 for j in missing):
                raise ValueError(f"{nodes[i]} needs its own output: nodes stand in a circle")
            if missing:
                stack += missing
            else:
                state[i] = 2
                order.append(i)
                stack.pop()
    return order


def _with_bodies(node: Node, known: set[str]) -> Node:
    """Return the node with all that it has read, and the graphs within it in order."""
    attributes = {
        name: _body(value, node, known) if isinstance(value, Body) else value
        for name, value in node.attributes.items()
    }
    return node.replaced(attributes=attributes)


def _body(body: Body, node: Node, known: set[str]) -> Body:
    constants = dict(body.constants)
    inside = {*known, *body.inputs, *constants}
    nodes = _ordered(body.nodes, inside)
    _check_outputs(body.outputs, nodes, inside, f"a graph of {node}")
    return body._replace(nodes=nodes, constants=constants)


def _check_outputs(
    outputs: Collection[str], nodes: list[Node], known: Collection[str], what: str
) -> None:
    made = {name for node in nodes for name in node.outputs}
    for name in outputs:
        if name not in known and name not in made:
            raise ValueError(f"output {name!r} of {what} is made by no node")
