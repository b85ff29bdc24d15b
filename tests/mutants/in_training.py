"""Mutants of what trains: losses, metrics, optimizers, schedules, the loop, its callbacks."""

from __future__ import annotations

from mutant import of

# PyTorch takes seconds to import; the others take long.
NO_PYTORCH = ["-k", "not pytorch and not any_level and not everywhere"]
LOSSES = "tests/top/test_losses.py"
OPTIM = "tests/top/test_optim.py"
FIT = "tests/train/test_fit.py"

TRAINING = [
    *of(
        "python/lstmcore/losses.py",
        ["tests/top/test_losses_of_series.py", *NO_PYTORCH],
        {
            "quantile-turned-round": (
                "np.where(error > 0, 1 - below, below)",
                "np.where(error > 0, below, 1 - below)",
            ),
            "quantile-weighs-each-part": ("loss.weight / shares.size", "loss.weight"),
            "gaussian-spread": ("(1 - square) / 2 if", "(1 - square) if"),
            "gaussian-variance-held-down": ("np.maximum(spread, math.log(least))", "spread"),
            "gaussian-constant": ("math.log(2 * math.pi) / 2", "math.log(2 * math.pi)"),
        },
    ),
    *of(
        "python/lstmcore/losses.py",
        [LOSSES, *NO_PYTORCH],
        {
            "mse-factor": ("error, w, scale, 2.0)", "error, w, scale, 1.0)"),
            "mean-counts-masked": ("total = float(w.sum())", "total = float(w.size)"),
            "mean-forgets-other-axes": (
                "float(w.sum()) * math.prod(losses.shape[w.ndim :])",
                "float(w.sum())",
            ),
            "mean-in-float32": ("losses.mean(dtype=np.float64)", "losses.mean()"),
            "sum-sees-nan-of-no-weight": ("terms[w != 0].sum(", "terms.sum("),
            "masked-gradient-keeps-nan": ("grad[w == 0] = 0", "grad[w < 0] = 0"),
            "weights-not-in-the-gradient": (
                "grad *= along * grad.dtype.type(factor / total)",
                "grad *= grad.dtype.type(factor / total)",
            ),
            "weights-not-in-the-loss": ("losses *= along", "losses *= 1"),
            "smoothing-spread-over-one-class-too-few": (
                "share * (smoothing / num_classes / total)",
                "share * (smoothing / (num_classes - 1) / total)",
            ),
            "smoothing-kept-by-the-target": (
                "factor = hit = picked * ((1 - smoothing) / total)",
                "factor = hit = picked * (1 / total)",
            ),
            "smoothing-without-class-weights": (
                "dx -= part if of_class is None else part * of_class.astype(x.dtype)",
                "dx -= part",
            ),
            "smoothed-loss-of-one-class": (
                "others = x.sum(axis=-1) if of_class is None",
                "others = x.max(axis=-1) if of_class is None",
            ),
            "class-weight-not-in-the-mean": (
                "picked = share if of_class is None else share * of_class[k]",
                "picked = share",
            ),
            "no-weight-divides-by-zero": (
                "if total == 0:\n        dpred.fill(0)",
                "if total < 0:\n        dpred.fill(0)",
            ),
            "huber-is-half": ("error -= held / 2", "error -= held"),
            "huber-bound-twice": (
                "np.clip(error, -bound, bound)",
                "np.clip(error, -bound, 2 * bound)",
            ),
            "mae-gradient": ("np.sign(error), w, scale)", "np.tanh(error), w, scale)"),
            "pos-weight-on-negatives": (
                "positive = 1 - t, t if p is None else p * t",
                "positive = 1 - t, t if p is None else t / p",
            ),
            "bce-loses-small-numbers": ("log = np.log1p(e)", "log = np.log(1 + e.astype('f4'))"),
            "bce-overflows": ("e = a * b  # exp(-|x|)", "e = np.exp(-x)"),
            "bce-takes-any-target": (
                "valid.min() >= 0 and valid.max() <= 1",
                "valid.min() >= -1 and valid.max() <= 1",
            ),
            "huber-takes-delta-0": ("if bound <= 0:", "if bound < 0:"),
            "class-weight-of-any-shape": ("if w.shape != (num_classes,):", "if w.ndim > 2:"),
            "pos-weight-negative": ('check_weights(w, "pos_weight")', "pass"),
        },
    ),
    *of(
        "python/lstmcore/_base/targets.py",
        [LOSSES, *NO_PYTORCH],
        {
            "ignored-targets-count": ("valid & ~ignored", "valid | ignored"),
            "ignored-targets-keep-their-weight": ("else w * ~ignored", "else w"),
            "class-range": ("known.max() < num_classes", "known.max() <= num_classes"),
            "padding-is-checked-too": ("np.where(valid, given, 0)", "given + 0"),
            "weights-unscaled": (
                "return (w / highest, highest) if highest > 0 else (w, 1.0)",
                "return w, 1.0",
            ),
            "padding-weights-count": (
                "(w.ndim - valid.ndim)), w, 0)",
                "(w.ndim - valid.ndim)), w, w)",
            ),
            "weight-infinite": ("and np.isfinite(w.max())", "and True"),
            "lengths-batch-first": (
                "shape[1::-1] if batch_first else shape[:2]",
                "shape[:2] if batch_first else shape[:2]",
            ),
            "lengths-one-too-many": ("steps < ends[:, None] if", "steps <= ends[:, None] if"),
            "lengths-one-too-many-time-major": (
                "else steps[:, None] < ends",
                "else steps[:, None] <= ends",
            ),
        },
    ),
    *of(
        "python/lstmcore/metrics.py",
        [LOSSES, *NO_PYTORCH],
        {
            "accuracy-takes-nan-for-right": ("right &= ~np.isnan(picked[..., 0])", "pass"),
            "accuracy-ties": (
                "np.arange(scores.shape[-1]) < classes",
                "np.arange(scores.shape[-1]) > classes",
            ),
            "top-k-one-more": ("higher.sum(axis=-1) < k", "higher.sum(axis=-1) <= k"),
            "binary-accuracy-of-nan": ("& ~np.isnan(values)", ""),
            "binary-accuracy-threshold": ("(values > limit)", "(values > 0)"),
            "perplexity-overflows": (
                "math.inf if nats > 709 else math.exp(nats)",
                "math.exp(nats)",
            ),
            "bits-are-nats": ("return nats / math.log(2)", "return nats"),
            "rmse-without-root": ("_of_mean(squared, math.sqrt)", "_of_mean(squared, float)"),
            "mean-of-nothing": (
                "np.count_nonzero(right) / count if count else 0.0",
                "np.count_nonzero(right) / max(count, 1) if count else 1.0",
            ),
        },
    ),
    *of(
        "python/lstmcore/optim/_optimizers.py",
        [OPTIM, *NO_PYTORCH],
        {
            "adam-state-is-not-copied-out": ("[a.copy() for a in v]", "list(v)"),
            "optimizer-state-is-not-copied-in": (
                'np.array(checks.values(a, p.shape, p.dtype, f"{key}[{i}]"), order="C")',
                'checks.values(a, p.shape, p.dtype, f"{key}[{i}]")',
            ),
            "steps-do-not-count": ("self.steps += 1", "self.steps += 0"),
            "step-is-not-noticed": ("touch(self.parameters)", "pass"),
            "sparse-is-dense": ("p.rows if p.sparse else None", "None"),
            "dense-is-sparse": ("p.rows if p.sparse else None", "p.rows"),
            "steps-not-loaded": (
                'fresh.steps = checks.integer(state_dict["steps"], "steps", 0)',
                'checks.integer(state_dict["steps"], "steps", 0)',
            ),
            "memory-not-loaded": ("fresh._memory[key] = self._arrays", "_ = self._arrays"),
            "state-of-another-optimizer": ('if state_dict.get("type", name) != name:', "if False:"),
            "state-of-other-names": ("if name != p.name:", "if False:"),
            "state-of-other-shapes": (
                "elif tuple(shape) != p.shape:",
                "elif len(shape) != len(p.shape):",
            ),
            "nesterov-with-dampening": (
                "(self.momentum == 0 or self.dampening != 0)",
                "self.momentum == 0",
            ),
            "alpha-range": ("not 0 <= self.alpha <= 1", "not 0 <= self.alpha <= 2"),
            "betas-range": ("0 <= beta2 < 1", "0 <= beta2 <= 1"),
            "momentum-not-remembered": (
                '{"momentum_buffer": self.momentum != 0}',
                '{"momentum_buffer": self.momentum > 0.95}',
            ),
            "adamw-default-decay": ("weight_decay: float = 1e-2", "weight_decay: float = 1e-3"),
            "adamw-is-adam": (
                "_update = staticmethod(_core.adamw)",
                "_update = staticmethod(_core.adam)",
            ),
            "amsgrad-not-remembered": (
                '"max_exp_avg_sq": self.amsgrad}',
                '"max_exp_avg_sq": False}',
            ),
            "zero-grad-of-the-first": (
                "zero_gradients(self.parameters)",
                "zero_gradients(self.parameters[1:])",
            ),
        },
    ),
    *of(
        "python/lstmcore/optim/_clipping.py",
        [OPTIM, *NO_PYTORCH],
        {
            "clipping-without-bound": (
                "and norm + 1e-6 > limit:",
                "and norm + 1e-6 > 2 * limit:",
            ),
            "clipping-of-all-rows": (
                "norm = _core.gradient_norm(grads, rows)",
                "norm = _core.gradient_norm(grads[:1], rows[:1])",
            ),
            "clipping-makes-nan": (
                "if math.isfinite(norm) and norm",
                "if not math.isnan(norm) and norm",
            ),
            "clip-value-one-side": (
                "np.clip(grad, -limit, limit, out=grad)",
                "np.clip(grad, None, limit, out=grad)",
            ),
            "clip-value-rows": ("grad[rows] = np.clip(grad[rows], -limit, limit)", "pass"),
            "clip-value-0": ("if limit <= 0:", "if limit < 0:"),
            "clipping-epsilon": ("limit / (norm + 1e-6), grads", "limit / (norm + 1e-3), grads"),
        },
    ),
    *of(
        "python/lstmcore/optim/_checks.py",
        [OPTIM, *NO_PYTORCH],
        {
            "parameters-twice": ("if len({id(p) for p in result}) < len(result):", "if False:"),
            "unexpected-keys": ("if k not in wanted]", "if False]"),
            "negative-options": ("if result < 0:", "if result < -2:"),
        },
    ),
    *of(
        "python/lstmcore/optim/schedules.py",
        [OPTIM, *NO_PYTORCH],
        {
            "plateau-max-threshold-sign": ("(1 - sign * self.threshold)", "(1 - self.threshold)"),
            "plateau-abs-threshold-sign": (
                "sign * best - self.threshold",
                "sign * best + self.threshold",
            ),
            "plateau-mode": ('sign = 1 if self.mode == "min" else -1', "sign = 1"),
            "plateau-patience": (
                "if self.bad_steps <= self.patience:",
                "if self.bad_steps < self.patience:",
            ),
            "plateau-cooldown": ("self.cooling_steps = self.cooldown", "self.cooling_steps = 0"),
            "plateau-counts-while-cooling": (
                "self.cooling_steps -= 1\n            self.bad_steps = 0",
                "self.cooling_steps -= 1",
            ),
            "plateau-min-lr": ("max(lr * self.factor, self.min_lr)", "lr * self.factor"),
            "plateau-eps": (
                "return reduced if lr - reduced > self.eps else lr",
                "return reduced",
            ),
            "plateau-best-not-saved": ('"best": self.best,', '"best": None,'),
            "plateau-bad-steps-not-loaded": (
                'self.bad_steps = checks.integer(state_dict["bad_steps"], "bad_steps", 0)',
                "pass",
            ),
            "cosine-rises-again": ("if t >= self.total_steps:", "if t > 2 * self.total_steps:"),
            "cosine-minimum": (
                "self.minimum + (base - self.minimum) * height",
                "base * height",
            ),
            "step-lr-late": ("t // self.step_size", "(t - 1) // self.step_size"),
            "warm-up-start": ("self.start + (1 - self.start) * t", "self.start + t"),
            "warm-up-steps-the-other-early": (
                "if t > self.warmup_steps:",
                "if t >= self.warmup_steps:",
            ),
            "warm-up-forgets-the-metric": ("self.schedule.step(metric)", "self.schedule.step(0.0)"),
            "warm-up-takes-over-a-foreign-schedule": ("elif after is not None:", "elif False:"),
            "schedule-lr-spoilt-by-a-bad-state": (
                "self._set_rates(before)\n            raise",
                "raise",
            ),
            "schedule-base-lr-not-loaded": (
                'self.base_lrs = _rates(state_dict["base_lr"], "base_lr", count)',
                "pass",
            ),
        },
    ),
    *of(
        "python/lstmcore/callbacks.py",
        [FIT, "tests/files/test_checkpoint.py"],
        {
            "best-weights-of-the-first-run": ("if run.epoch == 0:", "if run.epoch < 0:"),
            "best-is-worst": ("if sign * values[name] < best", "if sign * values[name] > best"),
            "metric-lower-is-better": ('return -1 if mode == "max" else 1', "return 1"),
            "min-delta": ("(0 if math.isinf(best) else self.min_delta)", "0"),
            "patience-one-more": (
                "run.epoch - self.best_epoch >= self.patience",
                "run.epoch - self.best_epoch > self.patience",
            ),
            "restores-nothing": ("run.model.load_state_dict(self._weights)", "pass"),
            "restores-always": (
                "            if self._restore:\n                self._weights",
                "            if True:\n                self._weights",
            ),
            "validation-loss-is-not-looked-at": (
                '("loss" if run.validation is None else "validation loss")',
                '"loss"',
            ),
            "checkpoint-every": ("run.epoch % self.every == 0", "run.epoch % self.every == 1"),
            "last-checkpoint-missing": ("run.epoch == run.epochs or ", ""),
            "checkpoint-of-a-stopped-run-missing": (
                "== run.epochs or run.history.stopped",
                "== run.epochs",
            ),
            "checkpoint-folder-late": ("if not path.parent.is_dir():", "if False:"),
            "checkpoint-epoch-name": (
                'self.path.replace("{epoch}", str(epoch))',
                'self.path.replace("{epoch}", "")',
            ),
            "stopped-run-goes-on": (
                "if self.best is not None:\n            self._decide(run)",
                "pass",
            ),
        },
    ),
]
