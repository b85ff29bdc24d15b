"""Words of Keras, PyTorch and others that are called otherwise here, for error messages."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

__all__ = ["explains_words", "named", "other_library"]

Given = ParamSpec("Given")
Result = TypeVar("Result")

_VALIDATION = "validation=(x, target), or batches in a list"
_KEYWORDS = {
    "accumulate_grad_batches gradient_accumulation_steps accumulation_steps": "accumulate=",
    "class_weight class_weights": "an option of the loss: "
    "functools.partial(lc.losses.cross_entropy, class_weight=[...])",
    "device": "left out: all runs on the CPU",
    "early_stopping early_stopping_rounds patience": "callbacks=, "
    "lc.callbacks.EarlyStopping(patience=10)",
    "gradient_clip_norm clipnorm global_clipnorm grad_clip gradient_clip_val max_grad_norm "
    "max_norm": "clip_norm=",
    "initial_epoch ckpt_path resume_from_checkpoint": "resume= with a file of "
    "lc.callbacks.Checkpoint",
    "loss_fn loss_function criterion": "loss=",
    "lr learning_rate weight_decay momentum betas": "an option of the optimizer: "
    "optimizer=lc.optim.Adam(model.parameters(), lr=0.001)",
    "max_epochs num_epochs n_epochs nb_epoch num_train_epochs": "epochs=",
    "lengths resets": "the third and fourth of data, (x, target, lengths, resets)",
    "num_workers workers use_multiprocessing": "left out: batches are made in this process",
    "random_state random_seed": "seed=",
    "sample_weight sample_weights weights": "weight=",
    "scheduler lr_scheduler": "schedule=, one of lc.optim",
    "steps_per_epoch validation_steps validation_freq": "left out: an epoch goes through all data",
    "train_loader train_dataloader train_dataloaders dataloader loader dataset train_data": "data",
    "validation_data valid_data val_data val_loader val_dataloader val_dataloaders valid_loader "
    "eval_dataset": _VALIDATION,
    "validation_batch_size": "validation= with batches ready made, of lc.data.Batches",
    "verbose": "progress=True or False",
    "weighted_metrics": "metrics=, which use weight= if they take it",
    "x X inputs": "data, a tuple (x, target)",
    "y Y target targets labels": "the second of data, (x, target)",
}
# Without underscores and capitals.
_FUNCTIONS = {
    "binarycrossentropy bce bcewithlogits bcewithlogitsloss bceloss": "binary_cross_entropy",
    "categoricalcrossentropy sparsecategoricalcrossentropy crossentropyloss nllloss nll "
    "softmaxcrossentropy": "cross_entropy",
    "ctcloss": "ctc",
    "gaussiannllloss normalnll": "gaussian_nll",
    "huberloss smoothl1 smoothl1loss": "huber",
    "l1 l1loss meanabsoluteerror": "mae",
    "mseloss l2 l2loss meansquarederror": "mse",
    "meanabsolutepercentageerror": "mape",
    "pinball pinballloss meanpinballloss quantileloss": "quantile",
    "r2 r2score nashsutcliffe nashsutcliffeefficiency": "nse",
    "acc sparsecategoricalaccuracy categoricalaccuracy": "accuracy",
    "f1score": "f1",
    "rootmeansquarederror": "rmse",
}
_ROWS = {
    "categoricalcrossentropy": "; its targets are classes, target.argmax(axis=-1)",
    "nllloss": "; it takes scores, not their logarithms after a softmax",
    "nll": "; it takes scores, not their logarithms after a softmax",
    "bceloss": "; it takes scores before the sigmoid",
    "meanabsolutepercentageerror": "; it is a share, not percent",
}


def _table(words: dict[str, str]) -> dict[str, str]:
    return {word: ours for many, ours in words.items() for word in many.split()}


_OF_KEYWORDS, _OF_FUNCTIONS = _table(_KEYWORDS), _table(_FUNCTIONS)


def explains_words(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Say in the error what a keyword of another library is called here: a decorator."""
    taken = inspect.signature(function).parameters
    positional = [p.name for p in taken.values() if p.kind is p.POSITIONAL_OR_KEYWORD]

    @functools.wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Result:
        complaints = [_keyword(name, taken) for name in options if name not in taken]
        if len(args) > len(positional):
            complaints.append(
                f"{len(args)} arguments are given without a name, expected {len(positional)}, "
                f"{' and '.join(positional)}: arrays of x and target go into one tuple, (x, target)"
            )
        if complaints:
            raise TypeError(f"{function.__name__}: " + "; ".join(complaints))
        return function(*args, **options)

    return checked


def _keyword(name: str, taken: Collection[str]) -> str:
    ours = _OF_KEYWORDS.get(name)
    keyword, is_one, _ = (ours or "").partition("=")
    if ours is None or (is_one and keyword.isidentifier() and keyword not in taken):
        near = difflib.get_close_matches(name, taken, 1)
        ours = f"{near[0]}=" if near else "one of " + ", ".join(taken)
        return f"there is no keyword {name}=, expected {ours}"
    return f"there is no keyword {name}=, here {ours}"


def named(name: str, known: Collection[str]) -> str:
    """Say what a function is called here, of all that are known, in place of this name."""
    plain = name.replace("_", "").replace(" ", "").lower()
    ours = _OF_FUNCTIONS.get(plain) or {n.replace("_", ""): n for n in known}.get(plain)
    if ours in known:
        return f"here {ours!r}" + _ROWS.get(plain, "")
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"expected {near[0]!r}"
    return "expected a function or one of " + ", ".join(map(repr, sorted(known)))


def other_library(value: Any) -> str | None:
    """Return the name of what it is, if it is an object, function or class of another library."""
    kind = value if isinstance(value, type) or inspect.isfunction(value) else type(value)
    library = str(getattr(kind, "__module__", "")).partition(".")[0]
    if library not in ("torch", "keras", "tensorflow", "tf_keras"):
        return None
    return f"{kind.__name__} of {library}"
