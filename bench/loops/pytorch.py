"""The same training loop in PyTorch, with the same batches and numbers.

Adam is PyTorch's fused one. The last steps of rows of unequal lengths are picked from the padded
outputs, which is faster than packing; only the encoder that also reads backwards needs packing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

import lstmcore as lc

from .tasks import CLIP, LR, Task

__all__ = ["PyTorch"]


class Chain(nn.ModuleList):
    """Twin of a `Sequential`: perhaps an embedding, a recurrent layer, perhaps its last step."""

    def forward(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        """Return the output and the final state."""
        for module in self:
            if isinstance(module, nn.RNNBase):
                x, state = module(x, state)
            elif isinstance(module, nn.Identity):
                x = x[lengths - 1, torch.arange(x.shape[1])]
            else:
                x = module(x)
        return x, state


class Translator(nn.Module):
    """Twin of the `Seq2Seq` of examples/translation.py."""

    def __init__(self, model: lc.Seq2Seq) -> None:
        super().__init__()
        self.encoder, self.decoder = (
            nn.ModuleList(map(twin, part)) for part in (model.encoder, model.decoder)
        )
        self.head = twin(model.head)

    def forward(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        """Return the scores, and no state."""
        source, previous = x
        packed = nn.utils.rnn.pack_padded_sequence(
            self.encoder[0](source), lengths[0], enforce_sorted=False
        )
        keys, count = nn.utils.rnn.pad_packed_sequence(self.encoder[1](packed)[0])
        y, _ = self.decoder[1](self.decoder[0](previous))
        keys, query = keys.transpose(0, 1), y.transpose(0, 1)
        seen = torch.arange(keys.shape[1]) < count[:, None]
        context = functional.scaled_dot_product_attention(
            query, keys, keys, attn_mask=seen[:, None]
        )
        return self.head(torch.cat([context.transpose(0, 1), y], dim=-1)), None


def twin(module: Any) -> nn.Module:
    """Return the module of PyTorch that is like one of ours, with numbers of its own."""
    if isinstance(module, lc.Seq2Seq):
        return Translator(module)
    if isinstance(module, lc.Sequential):
        return Chain(map(twin, module))
    if isinstance(module, lc.LastStep):
        return nn.Identity()
    if isinstance(module, lc.Linear):
        return nn.Linear(module.in_features, module.out_features)
    if isinstance(module, lc.Embedding):
        return nn.Embedding(module.num_embeddings, module.embedding_dim)
    layer = {lc.GRU: nn.GRU, lc.LSTM: nn.LSTM}[type(module)]
    return layer(module.input_size, module.hidden_size, bidirectional=module.bidirectional)


class PyTorch:
    """A task that is trained by PyTorch."""

    version = torch.__version__

    def __init__(self, task: Task, threads: int, weights: Any) -> None:
        torch.set_num_threads(threads)
        self._task, self._batches = task, task.batches()
        self._model = twin(task.model())
        self._model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=LR, fused=True)

    def epoch(self) -> float:
        """Train for one epoch and return the mean loss."""
        total, count = 0.0, 0
        for batch in self._batches:
            x, target, *lengths = _tensors(batch)
            state = None
            size = self._task.truncate or len(target)
            pieces = [(x, target)]
            if self._task.truncate:
                pieces = list(zip(x.split(size), target.split(size), strict=True))
            for chunk, wanted in pieces:
                pred, state = self._model(chunk, state, *(lengths or [None]))
                if state is not None:
                    state = _detached(state)
                loss, weight = self._loss(pred, wanted)
                self._optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self._model.parameters(), CLIP)
                self._optimizer.step()
                total, count = total + loss.item() * weight, count + weight
        return total / count

    def _loss(self, pred: Any, target: Any) -> tuple[Any, int]:
        """Return the loss, and of how many targets it is the mean."""
        if self._task.loss == "mse":
            return functional.mse_loss(pred, target), target.numel()
        ignored = 0 if isinstance(self._model, Translator) else -100  # the padding
        loss = functional.cross_entropy(pred.flatten(0, -2), target.flatten(), ignore_index=ignored)
        return loss, int((target != ignored).sum())


def _tensors(value: Any) -> Any:
    return tuple(map(_tensors, value)) if isinstance(value, tuple) else torch.from_numpy(value)


def _detached(state: Any) -> Any:
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
