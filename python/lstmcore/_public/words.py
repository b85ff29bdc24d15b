"""Words of Keras, PyTorch and others that are called otherwise here, for error messages."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable, Sequence
from typing import Any

__all__ = ["ATTRIBUTES", "NAMES", "named", "of_keyword", "other_library", "too_many"]


def _table(words: dict[str, str]) -> dict[str, str]:
    return {word: ours for many, ours in words.items() for word in many.split()}


# Names in public modules, and what they are in lstmcore.
NAMES = _table(
    {
        "Add": "Model, in which symbols are added: a + b",
        "BatchNormalization BatchNorm1d": "BatchNorm",
        "Bidirectional": "LSTM(..., bidirectional=True, merge=...)",
        "BinaryCrossentropy BCEWithLogitsLoss BCELoss": "losses.binary_cross_entropy",
        "CategoricalCrossentropy SparseCategoricalCrossentropy CrossEntropyLoss NLLLoss": (
            "losses.cross_entropy"
        ),
        "Concatenate cat concatenate": "concat",
        "Conv1d": "Conv1D",
        "CosineAnnealingLR CosineDecay": "optim.CosineLR",
        "CosineAnnealingWarmRestarts CosineDecayRestarts": "optim.CosineRestarts",
        "CTCLoss": "losses.ctc",
        "DataLoader Dataset TensorDataset": "data.Batches",
        "Dense": "Linear",
        "ExponentialLR ExponentialDecay": "optim.StepLR, with step_size=1",
        "GaussianNLLLoss": "losses.gaussian_nll",
        "GlobalAveragePooling1D AdaptiveAvgPool1d": "MeanPool",
        "GlobalMaxPooling1D AdaptiveMaxPool1d": "MaxPool",
        "HuberLoss SmoothL1Loss Huber": "losses.huber",
        "L1Loss MeanAbsoluteError": "losses.mae",
        "LayerNormalization": "LayerNorm",
        "LearningRateScheduler LambdaCallback": "optim.LambdaLR, or a function in callbacks=",
        "MaxPooling1D MaxPool1d": "MaxPool1D",
        "AveragePooling1D AvgPool1d": "AvgPool1D",
        "ModelCheckpoint": "callbacks.Checkpoint, or callbacks.BestWeights",
        "MSELoss MeanSquaredError": "losses.mse",
        "MultiHeadAttention MultiheadAttention": "attention.MultiHead",
        "OneCycleLR": "optim.OneCycle",
        "ReduceLROnPlateau": "optim.Plateau",
        "SimpleRNN": "RNN",
        "SummaryWriter": "callbacks.TensorBoard",
        "TimeDistributed": "EachStep, needed only around what does not take steps itself",
        "clip_grad_norm_": "clip_grad_norm",
        "clip_grad_value_": "clip_grad_value",
        "load_model": "load",
        "layers nn": "LSTM and others, in lstmcore itself",
        "no_grad inference_mode": "not needed: a call keeps nothing for backward",
        "pack_padded_sequence pad_packed_sequence": "not needed: layer(x, lengths=lengths)",
        "pad_sequence pad_sequences": "data.pad",
        "save_model": "save",
        "tensor Tensor from_numpy": "not needed: arrays are those of NumPy",
        "timeseries_dataset_from_array": "data.windows",
        "train": "fit",
    }
)

# Attributes of objects, by their class.
_FIT = "here it is lstmcore.fit(module, (x, target), loss=..., optimizer=...)"
_STEP = "here it is step(), by the gradients that backward has added"
ATTRIBUTES = {
    kind: _table(words)
    for kind, words in {
        "Module": {
            "compile fit": _FIT,
            "eval": "not needed: a call never drops anything, only forward does",
            "evaluate": "here it is lstmcore.evaluate(module, (x, target), loss=...)",
            "get_weights": "here it is state_dict()",
            "modules children": (
                "a Sequential is a list of them; named_parameters() has the parameters of all"
            ),
            "predict": "here it is a call, module(x)",
            "reset_states": "a stream keeps its state, module.stream(), and has reset()",
            "save": "here it is lstmcore.save(module, path)",
            "set_weights": "here it is load_state_dict(...)",
            "summary": "print(module) shows it; an lstmcore.Model has a summary()",
            "to": "not needed: all runs on the CPU; dtype= is given when a module is made",
            "train": "not needed: forward is for training, a call is not; lstmcore.fit calls it",
            "weight": "parameters() has it, and state_dict() has copies by name",
            "weights": "parameters() has them, and state_dict() has copies by name",
        },
        "Optimizer": {
            "apply_gradients minimize update": _STEP,
            "learning_rate": "here it is lr",
            "param_groups": "here it is groups, each with parameters, lr and weight_decay",
        },
        "Schedule": {
            "get_last_lr get_lr": "here it is lr",
            "last_epoch": "here it is steps",
        },
        "History": {
            "history": "here it is losses, validation_losses and metrics, lists by epoch",
        },
    }.items()
}

# Keywords that are another one here. The first that the class or function has is meant.
_KEYWORDS = {
    "accumulate": "accumulate_grad_batches gradient_accumulation_steps accumulation_steps",
    "affine": "center scale elementwise_affine",
    "alpha": "rho decay_rate slope",
    "anneal": "anneal_strategy",
    "batch_size": "batch bs",
    "bias": "use_bias has_bias",
    "capacity": "max_streams num_streams size",
    "class_weight": "class_weights",
    "classes": "num_classes n_classes num_tags tags",
    "clip_norm": "gradient_clip_norm clipnorm global_clipnorm grad_clip gradient_clip_val "
    "max_grad_norm max_norm",
    "dilation": "dilation_rate",
    "elementwise_affine": "affine center scale",
    "embed_dim": "d_model hidden_size size dim features",
    "embedding_dim": "output_dim embedding_size dim units",
    "epochs": "max_epochs num_epochs n_epochs nb_epoch num_train_epochs max_iter",
    "eps": "epsilon",
    "every": "period save_freq every_n_epochs freq",
    "every_steps": "every_n_train_steps",
    "factor": "T_mult t_mul gamma",
    "features": "shape input_shape size input_size input_dim",
    "first_steps": "T_0 first_decay_steps",
    "folder": "log_dir logdir path dir",
    "function": "lr_lambda lr_fn schedule",
    "gamma": "decay_rate",
    "hidden_size": "units hidden hidden_dim hidden_units num_units n_units n_hidden cell_size "
    "num_hiddens state_size hidden_layer_sizes",
    "horizon": "n_ahead forecast_length prediction_length output_chunk_length",
    "ignore_index": "ignore_class",
    "in_channels": "in_features input_size input_channels channels_in",
    "in_features": "input_size input_dim in_channels n_inputs",
    "input_size": "input_dim n_inputs num_inputs in_features n_features num_features input_shape "
    "in_channels",
    "input_dropout": "dropout_in",
    "label_smoothing": "smoothing",
    "loss": "loss_fn loss_function criterion objective",
    "lr": "learning_rate learning_rate_init eta initial_learning_rate",
    "max_size": "max_tokens max_features num_words vocab_size",
    "merge": "merge_mode",
    "metrics": "metric",
    "min_count": "min_freq min_frequency",
    "min_lr": "eta_min minimum",
    "minimum": "eta_min min_lr alpha",
    "mode": "direction",
    "negative_slope": "alpha slope",
    "nonlinearity": "activation activations",
    "normalized_shape": "axis features size num_features dim",
    "num_embeddings": "input_dim vocab_size num_tokens vocabulary_size",
    "num_features": "features size input_size",
    "num_heads": "nhead heads n_heads",
    "num_layers": "layers n_layers nb_layers depth",
    "num_tokens": "vocab_size classes",
    "opset": "opset_version target_opset",
    "optimizer": "optim optimiser",
    "order": "dims p lags",
    "out_channels": "filters out_features output_size channels_out",
    "out_features": "units output_dim output_size out_channels n_outputs num_outputs",
    "outputs": "output",
    "inputs": "input",
    "p": "rate dropout prob",
    "padding": "pad padding_value pad_value value",
    "parameters": "params model_params",
    "path": "filepath filename file f dirpath fname file_path",
    "period": "season_length seasonality m",
    "pred": "y_pred input inputs output logits predictions preds scores",
    "proj_size": "projection_size num_proj projection",
    "quantiles": "q alpha quantile tau levels",
    "restore_best": "restore_best_weights",
    "reverse": "go_backwards reversed backwards",
    "rise": "pct_start warmup_ratio",
    "seed": "random_state random_seed rng generator",
    "size": "window window_size sequence_length seq_length lookback input_chunk_length length "
    "pool_size kernel_size in_features input_size",
    "step_size": "decay_steps",
    "steps": "n max_length max_len max_new_tokens length n_steps update_freq",
    "stride": "strides shift sequence_stride step",
    "target": "y Y y_true targets labels label",
    "threshold": "min_delta",
    "tol": "atol rtol eps tolerance",
    "total_steps": "T_max decay_steps total_iters num_training_steps max_iters epochs",
    "unknown": "oov_token unk unk_token",
    "value": "mask_value",
    "progress": "verbose progress_bar enable_progress_bar show_progress",
    "warmup_steps": "total_iters warmup_epochs num_warmup_steps",
    "start": "start_factor warmup_factor sos_token bos_token",
    "end": "eos_token",
    "weight": "sample_weight sample_weights weights",
    "weight_decay": "l2 weight_decay_rate lambda_",
    "x": "X input inputs data features",
}

_KERAS_RNN = {
    "activation recurrent_activation nonlinearity": "activations=, of the gates first",
    "implementation unroll use_cudnn cudnn": "left out: there is one way to compute",
    "return_sequences": "left out: y has every step, and lc.LastStep() after it keeps the last",
    "return_state": "left out: a call returns y and the final state",
    "stateful": "left out: a call takes a state and returns one, and layer.stream() keeps its own",
    "time_major": "batch_first=, which is the contrary",
    "unit_forget_bias": "forget_bias=1.0",
}
_TABLE = {
    "Adam": {"beta_1 beta_2 beta1 beta2": "betas=(0.9, 0.999)"},
    "Batches": {
        "drop_last": "left out: the last batch has what is left",
        "collate_fn sampler": "left out: lc.data.Buckets batches by length; any iterable is data",
        "num_workers pin_memory prefetch_factor": "left out: batches are made in this process",
    },
    "Cell": {
        **_KERAS_RNN,
        "batch_first": "left out: x is one step, (B, features)",
        "bidirectional reverse num_layers": "left out: a cell is one step of one layer; "
        "lc.LSTM and the other layers have it",
    },
    "Checkpoint": {
        "monitor mode save_best_only save_top_k save_best": "lc.callbacks.BestWeights, which puts "
        "the best back at the end, for lc.save(model, path)",
        "save_weights_only": "left out: it is what resume= needs; lc.save(model, path) has the "
        "model alone",
    },
    "Conv1D": {
        "activation": "a module after it, lc.ReLU() for instance",
        "data_format": "left out: features are the last axis",
        "groups": "left out: each output sees every input",
    },
    "CSVLogger": {
        "append": "left out: a run that is resumed keeps its lines",
        "separator": "left out: it is a comma",
    },
    "EarlyStopping": {
        "baseline": "monitor= and min_delta=, of this run",
        "start_from_epoch": "patience=",
    },
    "Embedding": {
        "mask_zero": "lc.Masking(0, ids=True) before it",
        "max_norm norm_type scale_grad_by_freq": "left out: lc.optim has weight_decay=",
    },
    "Layer": _KERAS_RNN,
    "Linear": {"activation": "a module after it, lc.ReLU() for instance"},
    "Model": {"layers modules": "inputs= and outputs=, symbols; lc.Sequential takes modules"},
    "MultiHead": {
        "add_bias_kv add_zero_attn": "left out",
        "key_dim value_dim head_dim": "embed_dim=, of all heads together",
    },
    "Optimizer": {
        "clipvalue": "lc.clip_grad_value before each step",
        "clipnorm global_clipnorm max_grad_norm": "lc.clip_grad_norm before each step, or "
        "fit(clip_norm=)",
        "decay": "a schedule of lc.optim",
        "foreach fused capturable differentiable jit_compile": "left out: there is one way to "
        "compute",
        "maximize": "left out: negate the loss and its gradient",
        "model module": "parameters=, model.parameters()",
        "use_ema ema_momentum": "left out",
    },
    "Parameter": {"requires_grad": "parameter.trainable = False, after it is made"},
    "RNN": {
        "activation recurrent_activation activations": "nonlinearity=",
        **{k: v for k, v in _KERAS_RNN.items() if not k.startswith(("activation", "unit"))},
    },
    "Schedule": {
        "cycle_momentum base_momentum max_momentum": "left out: momentum stays as it is",
        "epochs steps_per_epoch": "total_steps=, which is their product",
        "last_epoch": "left out: a schedule goes on by load_state_dict, as fit(resume=) does",
        "lr initial_learning_rate learning_rate": "left out: it is that of the optimizer",
        "monitor": "left out: fit tells it the validation loss, you step(loss)",
        "staircase": "left out",
    },
    "concat": {
        "*": "in one list, lc.concat([a, b])",
        "axis dim": "left out: features, the last axis, are put side by side",
    },
    "Sequential": {"layers modules": "left out: lc.Sequential(*modules)"},
    "fit": {
        "class_weight class_weights": "an option of the loss: "
        "functools.partial(lc.losses.cross_entropy, class_weight=[...])",
        "early_stopping early_stopping_rounds patience": "callbacks=, "
        "lc.callbacks.EarlyStopping(patience=10)",
        "initial_epoch ckpt_path resume_from_checkpoint": "resume= with a file of "
        "lc.callbacks.Checkpoint",
        "lr learning_rate weight_decay momentum betas": "an option of the optimizer: "
        "optimizer=lc.optim.Adam(model.parameters(), lr=0.001)",
        "lengths resets": "the third and fourth of data, (x, target, lengths, resets)",
        "num_workers workers use_multiprocessing": "left out: batches are made in this process",
        "scheduler lr_scheduler": "schedule=, one of lc.optim",
        "steps_per_epoch validation_steps validation_freq": "left out: an epoch goes through all "
        "data",
        "train_loader train_dataloader train_dataloaders dataloader loader dataset train_data": (
            "data"
        ),
        "validation_data valid_data val_data val_loader val_dataloader val_dataloaders "
        "valid_loader eval_dataset": "validation=(x, target), or batches in a list",
        "validation_batch_size": "validation= with batches ready made, of lc.data.Batches",
        "verbose progress_bar": "progress=True or False",
        "weighted_metrics": "metrics=, which use weight= if they take it",
        "x X inputs": "data, a tuple (x, target)",
        "y Y target targets labels": "the second of data, (x, target)",
        "*": "arrays of x and target go into one tuple, (x, target)",
    },
    "generate": {
        "temperature": "sample=lc.sampling.temperature(t)",
        "top_k": "sample=lc.sampling.top_k(k)",
        "do_sample": "sample=, one of lc.sampling",
    },
    "huber": {"beta": "delta=; the smooth L1 loss is this one over delta"},
    "losses": {
        "axis dim": "left out: classes and features are the last axis",
        "from_logits": "left out: predictions are scores, before a softmax or sigmoid",
        "reduction size_average reduce": "left out: it is the mean, and its .weight says of how "
        "many; loss * loss.weight and dpred * loss.weight are the sum's",
    },
    "metrics": {
        "axis dim": "left out: classes and features are the last axis",
        "task num_classes": "left out: it goes by the shapes",
    },
    "to_onnx": {
        "args dynamic_axes dynamic_shapes input_names output_names export_params": "left out: the "
        "file has its names, and takes any number of steps and rows",
    },
}
_TABLE["evaluate"] = _TABLE["fit"]
_ANY = {
    "device": "left out: all runs on the CPU",
    "inplace": "left out: no input is changed in place",
    "input_shape batch_input_shape": "left out: sizes of inputs are those of features alone",
    "kernel_initializer recurrent_initializer bias_initializer embeddings_initializer "
    "weight_initializer": "left out: write into the parameters, p.data[...] = values",
    "kernel_regularizer recurrent_regularizer bias_regularizer activity_regularizer "
    "embeddings_regularizer kernel_constraint bias_constraint recurrent_constraint": "left out: "
    "lc.optim has weight_decay=",
    "name": "left out: what has one here is an lc.Input",
    "requires_grad trainable": "module.freeze(), after it is made",
    "verbose": "left out: it says nothing",
}

_CANDIDATES: dict[str, list[str]] = {}
for _ours, _words in _KEYWORDS.items():
    for _word in _words.split():
        _CANDIDATES.setdefault(_word, []).append(_ours)
_OF_KIND, _OF_ANY = {kind: _table(words) for kind, words in _TABLE.items()}, _table(_ANY)

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
_OF_FUNCTIONS = _table(_FUNCTIONS)


def of_keyword(word: str, kinds: Iterable[str], taken: Collection[str]) -> str:
    """Say what a keyword is called here that a class or function does not take.

    Parameters
    ----------
    word : str
    kinds : iterable of str
        The names of the class and of those below it; or of the function, and of its module.
    taken : collection of str
        The keywords that it takes.
    """
    said = [_OF_KIND[kind].get(word, "") for kind in kinds if kind in _OF_KIND]
    said += [f"{name}=" for name in _CANDIDATES.get(word, ())] + [_OF_ANY.get(word, "")]
    for ours in filter(None, said):
        keyword, is_one, _ = ours.partition("=")
        if not (is_one and keyword.isidentifier() and keyword not in taken):
            return f"there is no keyword {word}=, here {ours}"
    near = difflib.get_close_matches(word, taken, 1)
    ours = f"{near[0]}=" if near else f"one of {', '.join(taken)}" if taken else "none"
    return f"there is no keyword {word}=, expected {ours}"


def too_many(given: int, kinds: Iterable[str], taken: Sequence[str]) -> str:
    """Say that fewer arguments can be given without a name, which are these."""
    more = next((f": {_OF_KIND[kind]['*']}" for kind in kinds if "*" in _OF_KIND.get(kind, ())), "")
    names = f", {', '.join(taken)}" if taken else ""
    are = "argument is" if given == 1 else "arguments are"
    most = len(taken) or "none"
    return f"{given} {are} given without a name, expected {most}{names}{more}"


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
