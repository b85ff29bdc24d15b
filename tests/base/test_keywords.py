"""What errors say of names and keywords that other libraries have, or that are mistyped."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore import datasets
from lstmcore._public import words
from lstmcore._public.publish import _RESULTS

MODULES = [thing for thing in map(vars(lc).get, lc.__all__) if isinstance(thing, ModuleType)]
HOMES = [lc, datasets, *MODULES]
PUBLIC = {
    f"{home.__name__}.{name}": getattr(home, name)
    for home in HOMES
    if home
    not in (lc.reference, lc.torch)  # which is to be read alone; whose classes are PyTorch's
    for name in home.__all__
    if isinstance(getattr(home, name), type | FunctionType)
    if name not in (*_RESULTS, "Callback", "Module", "NonFiniteError")  # of object and ValueError
}


def keywords(thing: Any) -> list[str]:
    taken = inspect.signature(thing).parameters.values()
    return [p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def takes_any(thing: Any) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(thing).parameters.values())


KEYWORDS = {name: keywords(thing) for name, thing in PUBLIC.items() if not takes_any(thing)}


def told(name: str, **options: Any) -> str:
    with pytest.raises(TypeError) as error:
        PUBLIC[name](**options)
    start, _, said = str(error.value).partition(": ")
    assert start == name.rpartition(".")[2]
    return said


@pytest.mark.parametrize("name", KEYWORDS)
def test_every_public_constructor_and_function_names_its_keywords(name: str) -> None:
    taken = KEYWORDS[name]
    said = told(name, zzzz=1)
    assert said.startswith("there is no keyword zzzz=, expected ")
    listed = said.partition("expected ")[2].removeprefix("one of ").split(", ")
    assert listed == (taken or ["none"])
    for keyword in taken:
        if len(keyword) > 3:
            mistyped = keyword + keyword[-1]
            said = told(name, **{mistyped: 1})
            assert said == f"there is no keyword {mistyped}=, expected {keyword}="


@pytest.mark.parametrize("name", KEYWORDS)
def test_too_many_arguments_are_counted_without_self(name: str) -> None:
    taken = inspect.signature(PUBLIC[name]).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in taken):
        return
    most = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in taken)
    with pytest.raises(TypeError, match=rf"given without a name, expected {most or 'none'}"):
        PUBLIC[name](*[0] * (most + 1))


def adam() -> lc.optim.Adam:
    return lc.optim.Adam(lc.Linear(1, 1).parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda **o: lc.optim.Adam(lc.Linear(1, 1).parameters(), **o), "learning_rate= lr="),
        (lambda **o: lc.optim.Adam(lc.Linear(1, 1).parameters(), **o), "beta_1= betas=(0.9"),
        (lambda **o: lc.LSTM(2, **o), "units= hidden_size="),
        (lambda **o: lc.LSTM(2, 3, **o), "return_sequences= left out: y has every step"),
        (lambda **o: lc.LSTM(2, 3, **o), "recurrent_activation= activations="),
        (lambda **o: lc.RNN(2, 3, **o), "activation= nonlinearity="),
        (lambda **o: lc.GRU(2, 3, **o), "merge_mode= merge="),
        (lambda **o: lc.GRU(2, 3, **o), "go_backwards= reverse="),
        (lambda **o: lc.LSTMCell(2, 3, **o), "bidirectional= left out: a cell is one step"),
        (lambda **o: lc.Linear(2, **o), "units= out_features="),
        (lambda **o: lc.Conv1D(2, **o), "filters= out_channels="),
        (lambda **o: lc.Embedding(**o), "input_dim= num_embeddings="),
        (lambda **o: lc.Dropout(**o), "rate= p="),
        (lambda **o: lc.LayerNorm(3, **o), "epsilon= eps="),
        (lambda **o: lc.ReLU(**o), "inplace= left out"),
        (lambda **o: lc.LastStep(**o), "name= left out"),
        (lambda **o: lc.Sequential(**o), "layers= left out: lc.Sequential(*modules)"),
        (lambda **o: lc.Parameter("a", [1.0], **o), "requires_grad= parameter.trainable = False"),
        (lambda **o: lc.attention.MultiHead(8, **o), "key_dim= embed_dim="),
        (lambda **o: lc.optim.OneCycle(adam(), 0.1, 9, **o), "pct_start= rise="),
        (lambda **o: lc.optim.OneCycle(adam(), 0.1, **o), "steps_per_epoch= total_steps="),
        (lambda **o: lc.optim.CosineLR(adam(), **o), "T_max= total_steps="),
        (lambda **o: lc.optim.Plateau(adam(), **o), "monitor= left out: fit tells it"),
        (lambda **o: lc.optim.LambdaLR(adam(), **o), "lr_lambda= function="),
        (lambda **o: lc.callbacks.EarlyStopping(**o), "restore_best_weights= restore_best="),
        (lambda **o: lc.callbacks.Checkpoint(**o), "filepath= path="),
        (lambda **o: lc.callbacks.Checkpoint("a", **o), "save_best_only= lc.callbacks.BestWeights"),
        (lambda **o: lc.callbacks.TensorBoard(**o), "log_dir= folder="),
        (lambda **o: lc.losses.cross_entropy(1, 2, **o), "from_logits= left out: predictions are"),
        (lambda **o: lc.losses.mse(1, 2, **o), "reduction= left out: it is the mean"),
        (lambda **o: lc.losses.huber(1, 2, **o), "beta= delta=; the smooth L1"),
        (lambda **o: lc.metrics.accuracy(1, 2, **o), "sample_weight= weight="),
        (lambda **o: lc.generate(1, 2, **o), "max_new_tokens= steps="),
        (lambda **o: lc.data.windows([1], **o), "lookback= size="),
        (lambda **o: lc.data.Batch(1, **o), "y= target="),
        (lambda **o: lc.to_onnx(1, 2, **o), "opset_version= opset="),
    ],
)  # fmt: skip
def test_words_of_other_libraries(call: Callable[..., Any], message: str) -> None:
    word, _, ours = message.partition("= ")
    with pytest.raises(TypeError, match=f"no keyword {word}=, here {re.escape(ours)}"):
        call(**{word: 1})


def test_a_class_of_ones_own_is_told_the_words_of_ours() -> None:
    class Mine(lc.LSTM):
        def __init__(self, size: int, **options: Any) -> None:
            super().__init__(2, size, **options)

    with pytest.raises(TypeError, match=r"^LSTM: there is no keyword units=, here hidden_size="):
        Mine(3, units=4)
    assert Mine(3, bias=False).hidden_size == 3


def test_an_estimator() -> None:
    require("sklearn")
    with pytest.raises(TypeError, match="hidden_layer_sizes=, here hidden_size="):
        lc.sklearn.SequenceClassifier(hidden_layer_sizes=3)
    with pytest.raises(TypeError, match="learning_rate_init=, here lr="):
        lc.sklearn.Forecaster(learning_rate_init=3)


def test_errors_within_a_constructor_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match=r"^hidden_size is 'a'") as error:
        lc.LSTM(2, "a")  # type: ignore[arg-type]
    assert error.value.__cause__ is None
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'hidden_size'"):
        lc.LSTM(3)  # type: ignore[call-arg]


def test_every_word_is_of_something_that_is_there() -> None:
    taken = {keyword for found in KEYWORDS.values() for keyword in found}
    assert set(words._KEYWORDS) <= taken
    public = {name.rpartition(".")[2]: thing for name, thing in PUBLIC.items()}
    classes = [thing for thing in public.values() if isinstance(thing, type)]
    kinds = {kind.__name__ for thing in classes for kind in thing.__mro__}
    for kind, table in words._OF_KIND.items():
        assert kind in {*kinds, *public, "losses", "metrics"}, kind
        for word, said in table.items():
            keyword, is_one, _ = said.partition("=")
            if is_one and keyword.isidentifier():
                assert keyword in taken, (kind, word)


@pytest.mark.parametrize("name", words.NAMES)
def test_every_other_name_leads_to_something(name: str) -> None:
    said = words.NAMES[name]
    assert not any(name in home.__all__ for home in HOMES)
    if not said.startswith("not needed"):
        thing: Any = lc
        for part in re.match(r"[\w.]+", said)[0].split("."):  # type: ignore[index]
            thing = getattr(thing, part)
    for home in (lc, lc.optim, lc.losses):
        with pytest.raises(AttributeError, match=re.escape(said)):
            getattr(home, name)


@pytest.mark.parametrize(
    ("thing", "name", "said"),
    [
        (adam(), "param_groups", "here it is groups"),
        (adam(), "learning_rate", "here it is lr"),
        (lc.optim.StepLR(adam(), 1), "get_last_lr", "here it is lr"),
        (lc.History(), "history", "here it is losses, validation_losses"),
        (lc.optim, "LSTM", r"it is lstmcore\.LSTM"),
        (lc.callbacks, "Adam", r"it is lstmcore\.optim\.Adam"),
    ],
)
def test_attributes_of_other_libraries(thing: Any, name: str, said: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}': {said}"):
        getattr(thing, name)
    assert name not in dir(thing)
