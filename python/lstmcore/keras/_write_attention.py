"""Attention of ours becomes layers of Keras."""

from __future__ import annotations

from typing import Any, TypeAlias

from .._base.checks import Array
from .._base.module import Module
from .._files.export_options import check_options
from ..attention import Additive, MultiHead, ScaledDotProduct

__all__ = ["ATTENTION", "check_attention", "layers_of", "write_attention"]

Made: TypeAlias = "list[tuple[Any, list[Array]]]"  # layers, with their weights

# The options of each that are written.
ATTENTION: dict[type[Module], tuple[str, ...]] = {
    ScaledDotProduct: ("scale", "batch_first", "causal"),
    Additive: ("size", "scale", "batch_first", "causal", "dtype"),
    MultiHead: (
        "embed_dim", "num_heads", "dropout", "bias", "kdim", "vdim", "batch_first", "causal",
        "dtype",
    ),
}  # fmt: skip


def check_attention(module: Module) -> None:
    """Refuse an attention with an option that Keras has nothing for."""
    check_options(module, ATTENTION[type(module)], "Keras")


def layers_of(keras: Any, module: Any, features: int, dtype: str) -> Made:
    """Return the layers of an attention: what scales the queries, if that is one, then itself."""
    kinds = keras.layers
    if type(module) is MultiHead:
        return [_multi_head(kinds, module, dtype)]
    if type(module) is Additive:
        weights = list(module.state_dict().values())
        return [(kinds.AdditiveAttention(use_scale=module.scale, dtype=dtype), weights)]
    scale = features**-0.5 if module.scale is None else module.scale
    return [(kinds.Rescaling(scale, dtype=dtype), []), (kinds.Attention(dtype=dtype), [])]


def _multi_head(kinds: Any, module: MultiHead, dtype: str) -> tuple[Any, list[Array]]:
    size, heads = module.embed_dim, module.num_heads
    each = size // heads
    layer = kinds.MultiHeadAttention(
        heads, each, each, dropout=module.dropout, use_bias=module.bias, output_shape=size,
        dtype=dtype,
    )  # fmt: skip
    state = module.state_dict()
    biases = state["in_proj_bias"].reshape(3, heads, each) if module.bias else [None] * 3
    weights: list[Array] = []
    for matrix, bias in zip(module._in_weights(), biases, strict=True):
        weights.append(matrix.T.reshape(-1, heads, each))
        weights += [] if bias is None else [bias]
    weights.append(state["out_proj.weight"].T.reshape(heads, each, size))
    return layer, weights + ([state["out_proj.bias"]] if module.bias else [])


def write_attention(
    keras: Any, module: Any, made: Made, given: list[Any], masks: tuple[Any, Any], weights: bool
) -> list[Any]:
    """Call the layers of `layers_of`; return y and, if asked for, the weights.

    `masks` are those of the queries and of the keys, or None.
    """
    query, key, value = given
    options: dict[str, Any] = {"return_attention_scores": True} if weights else {}
    if module.causal:
        options["use_causal_mask"] = True
    heads = type(module) is MultiHead
    of_queries, mask = masks
    if mask is not None and heads:
        options |= {"key_mask": mask, "value_mask": mask, "query_mask": of_queries}
    elif mask is not None:
        options["mask"] = [of_queries, mask]
    if type(module) is ScaledDotProduct:
        query = made[0][0](query)
    layer = made[-1][0]
    y = layer(query, value, key, **options) if heads else layer([query, value, key], **options)
    if not weights:
        return [y]
    y, each = y
    return [y, keras.ops.mean(each, axis=1) if heads else each]
