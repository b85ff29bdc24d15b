"""Mutants of what gets data ready and of the loop that goes through them."""
# ruff: noqa: E501 (lines of other files)

from __future__ import annotations

from mutant import of

DATA_TESTS = "tests/top/test_data.py"
WINDOWS = "tests/top/test_windows.py"
SERIES = "tests/top/test_series.py"
SERIES_LOSSES = "tests/top/test_losses_of_series.py"
COUNTING = "tests/train/test_counting.py"
FIT = "tests/train/test_fit.py"

DATA = [
    *of(
        "python/lstmcore/data/_batches.py",
        [DATA_TESTS],
        {
            "batches-lengths-unshuffled": (
                "lengths = _taken(self._lengths, rows, 0)",
                "lengths = _taken(self._lengths, np.sort(rows), 0)",
            ),
            "batches-resets-of-the-other-axis": (
                "np.take(self._resets, rows, self._axis)",
                "np.take(self._resets, rows % self._resets.shape[1 - self._axis], 1 - self._axis)",
            ),
            "batches-targets-unshuffled": (
                "target = np.take(self._target, rows, self._target_axes)",
                "target = np.take(self._target, np.sort(rows), self._target_axes)",
            ),
            "epochs-all-alike": (
                "default_rng([self.seed, self.epoch])",
                "default_rng([self.seed])",
            ),
            "epochs-ignore-the-seed": (
                "default_rng([self.seed, self.epoch])",
                "default_rng([self.epoch])",
            ),
            "batches-half-loaded": (
                'seed = checks.integer(state["seed"], "seed", 0)\n'
                '        self.epoch = checks.integer(state["epoch"], "epoch", 0)\n'
                "        self.seed = seed",
                'self.seed = checks.integer(state["seed"], "seed", 0)\n'
                '        self.epoch = checks.integer(state["epoch"], "epoch", 0)',
            ),
            "batches-half-loaded-from-the-end": (
                'self.epoch = checks.integer(state["epoch"], "epoch", 0)\n        self.seed = seed',
                'self.seed, self.epoch = seed, checks.integer(state["epoch"], "epoch", -9)',
            ),
            "batches-count": (
                "return -(-self._rows // self.batch_size)",
                "return self._rows // self.batch_size",
            ),
            "batches-per-step-unasked": (
                'steps = gridded if per_step is None else checks.boolean(per_step, "per_step")',
                "steps = gridded",
            ),
            "batches-always-shuffle": (
                "rng.permutation(self._rows) if self.shuffle else",
                "rng.permutation(self._rows) if True else",
            ),
            "buckets-unsorted": (
                'rows = rows[np.argsort(self._sort_by[rows], kind="stable")]',
                "pass",
            ),
            "buckets-in-order-of-length": (
                "for i in rng.permutation(len(batches)):",
                "for i in range(len(batches)):",
            ),
            "buckets-target-padding": (
                "_padded([self._steps[i] for i in rows], 0, self.batch_first)",
                "_padded([self._steps[i] for i in rows], self._padding, self.batch_first)",
            ),
            "buckets-labels-unshuffled": (
                "target = self._labels[rows]",
                "target = self._labels[: len(rows)]",
            ),
            "buckets-lengths-of-others": (
                "lengths = self._lengths[rows]\n            if",
                "lengths = np.sort(self._lengths[rows])[::-1]\n            if",
            ),
            "pairs-bucketed-by-source-alone": (
                "total = self._source_lengths + self._target_lengths",
                "total = self._source_lengths",
            ),
            "pairs-bucketed-by-target-alone": (
                "total = self._source_lengths + self._target_lengths",
                "total = self._target_lengths",
            ),
            "pairs-swap-start-and-end": (
                "np.concatenate([[start], t])",
                "np.concatenate([[end], t])",
            ),
            "pairs-target-without-end": (
                "np.concatenate([t, [end]])",
                "np.concatenate([t, [start]])",
            ),
            "pairs-lengths-swapped": (
                "lengths = self._source_lengths[rows], self._target_lengths[rows]",
                "lengths = self._target_lengths[rows], self._source_lengths[rows]",
            ),
            "padding-in-front": (
                "row[: len(array)] = array",
                "row[len(row) - len(array) :] = array",
            ),
            "padding-zero": ("padding, _common_dtype(arrays))", "0, _common_dtype(arrays))"),
            "padded-as-float": (
                "np.result_type(*{a.dtype for a in arrays})",
                "np.result_type(np.float64, *{a.dtype for a in arrays})",
            ),
            "padding-out-of-range": (
                "value.is_integer() and least <= value <= most",
                "value.is_integer()",
            ),
            "ragged-features": (
                "if array.shape[1:] != arrays[0].shape[1:]:",
                "if array.ndim != arrays[0].ndim:",
            ),
        },
    ),
    *of(
        "python/lstmcore/data/_windows.py",
        [DATA_TESTS, WINDOWS],
        {
            "windows-horizon": (
                "else (size + horizon - 1, count or 1)",
                "else (size, count or 1)",
            ),
            "windows-step-targets": ("after = (horizon, size)", "after = (1, size)"),
            "windows-one-short": (
                "size + horizon + (count or 1) - 1, stride, text)",
                "size + horizon + (count or 1) - 2, stride, text)",
            ),
            "windows-one-too-few": (
                "np.arange(begin, end - needed + 1, stride)",
                "np.arange(begin, end - needed, stride)",
            ),
            "windows-cross-series": (
                "panels = [(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends)]",
                "panels = [(0, total)]",
            ),
            "windows-mix-series": ("values=whole.values[order]", "values=whole.values"),
            "windows-dates-unchecked": ("if wrong.any():", "if False:"),
            "windows-drop-by-the-past": (
                "part.whole(gaps, starts) for part in parts]",
                "part.whole(gaps, starts) for part in parts[:1]]",
            ),
            "windows-mask-weighs": ("1.0 - gone", "1.0 - 0 * gone"),
            "windows-previous-is-the-target": ("later._replace(first=later.first - 1)", "later"),
            "windows-static-changes": ("if not same.all():", "if False:"),
            "windows-frames-in-float64": (
                "whole.values.astype(np.float32) if of_pandas else whole.values",
                "whole.values",
            ),
        },
    ),
    *of(
        "python/lstmcore/data/_resample.py",
        [DATA_TESTS, SERIES],
        {
            "resample-looks-ahead": (
                'np.searchsorted(t, grid + _ROUNDING, "right") - 1',
                'np.searchsorted(t, grid + _ROUNDING, "left")',
            ),
            "resample-rounding": ("_ROUNDING = 1e-9", "_ROUNDING = 0"),
            "resample-rounding-wide": ("_ROUNDING = 1e-9", "_ROUNDING = 0.4"),
            "resample-straight-line": (
                "taken + share * (y[right] - taken)",
                "taken + share / 2 * (y[right] - taken)",
            ),
            "resample-extrapolates": (
                "if not 0 <= first <= last <= t[-1]:",
                "if not first <= last:",
            ),
            "resample-backwards": ("if backwards.size:", "if backwards.size > 1:"),
            "resample-float64": (
                "np.float32 if measured.dtype == np.float32 else np.float64",
                "np.float64",
            ),
            "resample-start-of-dates": (
                'begin = when[0] if start is None else np.asarray(start, "M8")',
                "begin = when[0]",
            ),
            "resample-infinity": ("if np.isinf(measured).any():", "if False:"),
            "resample-fills-all": ("(apart > longest * (1 + _ROUNDING))", "(apart < 0)"),
            "resample-measured-is-filled": (
                "filled = ~measured & (apart > 1 + _ROUNDING)",
                "filled = apart > 1 + _ROUNDING",
            ),
            "resample-before-the-first": ("lost = left < 0", "lost = left < -1"),
        },
    ),
    *of(
        "python/lstmcore/data/_standardizer.py",
        [SERIES],
        {
            "standardizer-counts-nan": ("np.nanmean(values, axis=0)", "values.mean(axis=0)"),
            "standardizer-constant-by-rounding": (
                "constant = least == np.nanmax(values, axis=0)",
                "constant = least > np.nanmax(values, axis=0)",
            ),
            "standardizer-inverse-lacks-the-mean": ("mean + scale * values", "scale * values"),
        },
    ),
    *of(
        "python/lstmcore/data/_text.py",
        [DATA_TESTS],
        {
            "vocabulary-rarest-first": (
                "key=lambda t: (-counts[t], t)",
                "key=lambda t: (counts[t], t)",
            ),
            "vocabulary-order-of-ties": (
                "key=lambda t: (-counts[t], t)",
                "key=lambda t: -counts[t]",
            ),
            "vocabulary-min-count": ("if n >= least)", "if n > least)"),
            "vocabulary-counts-specials": ("counts.pop(token, None)", "pass"),
            "vocabulary-unknown": (
                "self._ids.get(token, self.unknown)",
                "self._ids.get(token, self.padding)",
            ),
            "vocabulary-decodes-negative": (
                "(array < 0) | (array >= len(self))",
                "array >= len(self)",
            ),
            "vocabulary-equality": (
                "mine == (other.tokens, other.padding, other.unknown)",
                "mine[1:] == (other.padding, other.unknown)",
            ),
            "columns-target": ("for shift in (0, 1)]", "for shift in (0, 0)]"),
            "columns-one-short": (
                "time = (len(array) - 1) // batch_size",
                "time = (len(array) - 1) // batch_size - 1",
            ),
            "columns-rows": (
                "if not batch_first:\n        pieces",
                "if batch_first:\n        pieces",
            ),
        },
    ),
    *of(
        "python/lstmcore/_train/batch.py",
        [FIT],
        {
            "chunk-lengths-are-the-whole": (
                "np.clip(lengths - start, 0, stop - start)",
                "np.clip(lengths, 0, stop - start)",
            ),
            "chunk-resets-are-the-first": (
                "else cut(np.asarray(resets)),",
                "else cut(np.roll(np.asarray(resets), start, axis)),",
            ),
            "chunk-steps-of-padding": ("int(lengths.max(initial=0))", "grid[axis]"),
            "truncate-without-step-targets": (
                "for v in [*stepped, *targets]):",
                "for v in stepped):",
            ),
            "truncate-cuts-what-has-no-steps": ("cut(v) if _stepped(v, x) else v", "cut(v)"),
            "truncate-begins-within": ("if begun is not None:", "if False:"),
            "truncate-what-reads-backwards": ("if whole is not None:", "if False:"),
        },
    ),
    *of(
        "python/lstmcore/_train/batch.py",
        ["tests/train/test_other_steps.py"],
        {
            "steps-of-the-output-unasked": (
                "if self.batch_first or not (self.changes_steps or self.may_change_steps):",
                "if True:",
            ),
            "steps-of-the-output-are-those-of-x": (
                "grid = (made.shape[0], rows) if made.ndim > 2 else None",
                "grid = (np.shape(leaves(batch.x)[0])[0], rows) if made.ndim > 2 else None",
            ),
        },
    ),
    *of(
        "python/lstmcore/_train/loop.py",
        [FIT],
        {
            "fit-chunks-forget-the-state": ("state = tape.state\n", "state = None\n"),
            "fit-carries-the-state-to-the-next-batch": (
                "state = None\n                for chunk",
                "state = locals().get('state')\n                for chunk",
            ),
            "fit-adds-up-gradients": ("if first:\n            run.model.zero_grad()", "pass"),
            "fit-clips-all-parameters": (
                "self._parameters: list[Parameter] = list(run.optimizer.parameters)",
                "self._parameters: list[Parameter] = list(run.model.parameters())",
            ),
            "fit-clips-at-twice-the-norm": (
                "self._parameters)), self._clip_norm)",
                "self._parameters)), 2 * self._clip_norm)",
            ),
            "fit-does-not-mind-the-norm": ("if not math.isfinite(norm):", "if False:"),
            "fit-does-not-mind-the-loss": ("if not math.isfinite(loss):", "if False:"),
            "stop-in-a-step-is-late": (
                "if run.history.stopped:\n                        return None",
                "pass",
            ),
            "schedule-by-step-unasked": (
                "if self._by_step and run.schedule is not None:\n            run.schedule.step(run.loss)",
                "if run.schedule is not None:\n            run.schedule.step(run.loss)",
            ),
            "schedule-by-step-without-the-loss": (
                "run.schedule.step(run.loss)",
                "run.schedule.step(0.0)",
            ),
            "schedule-told-the-training-loss": (
                "run.schedule.step(loss if validation_loss is None else validation_loss)",
                "run.schedule.step(loss)",
            ),
            "metrics-of-training-beside-validation": (
                "own = [] if run.validation is not None else",
                "own =",
            ),
            "spoilt-parameters-are-kept": ("self._check_parameters()\n        if", "if"),
            "steps-are-not-counted": ("run.step += 1", "run.step += 2"),
            "named-step": ("step = run.step + (batch is not None)", "step = run.step"),
        },
    ),
    *of(
        "python/lstmcore/_train/evaluate.py",
        [FIT],
        {
            "evaluate-forgets-the-state": (
                "pred, state = caller.run(chunk, state)",
                "pred, _ = caller.run(chunk, state)",
            ),
            "validation-moves-on": ("data.load_state_dict(state)", "pass"),
        },
    ),
    *of(
        "python/lstmcore/_train/fit.py",
        [FIT, "tests/files/test_checkpoint.py"],
        {
            "fit-resumes-nothing": ("load_checkpoint(resume, **run.parts())", "pass"),
            "fit-foreign-optimizer": ("if id(p) not in known:", "if False:"),
            "fit-foreign-schedule": ("is not optimizer:", "is None:"),
            "fit-checkpoints-first": (
                "isinstance(callback, Checkpoint))",
                "not isinstance(callback, Checkpoint))",
            ),
            "fit-end-unsaid": (
                "for callback in run.callbacks:\n            callback.on_end(run)",
                "pass",
            ),
            "fit-clip-norm-0": (
                "if not clip_norm > 0:",
                "if not clip_norm >= 0:",
            ),
            "validation-untried": (
                "measure_first(caller, validation, ",
                "(lambda *_: None)(caller, validation, ",
            ),
        },
    ),
    *of(
        "python/lstmcore/_train/scorer.py",
        [FIT, COUNTING],
        {
            "gaps-count-without-weight": ("self._check_weighted(key, why, self.names)", "pass"),
            "weights-of-the-first-output": (
                "weight = by_key(weight).get(key)",
                "weight = next(iter(by_key(weight).values()))",
            ),
            "batches-weigh-alike": (
                "weight, total = mean.weight, mean.mean",
                "weight, total = 1.0, mean.mean",
            ),
            "batches-are-summed": ("total = weight * total", "total = total"),
            "count-rows-not-steps": (
                "return float(np.sum(targets.lengths))",
                "return float(len(targets.lengths))",
            ),
            "count-of-batch": ("np.shape(leaves(pred)[0])[:2]", "np.shape(leaves(pred)[0])[:1]"),
            "score-ignores-batch-first": ('options["batch_first"] = True', "pass"),
            "score-ignores-lengths": (
                "return function(pred, targets.values, targets.lengths, **options)",
                "return function(pred, targets.values)",
            ),
        },
    ),
    *of(
        "python/lstmcore/metrics.py",
        [FIT, COUNTING],
        {
            "perplexity-is-averaged": ("_of_mean(nats, _perplexity)", "_perplexity(nats)"),
            "rmse-is-averaged": ("_of_mean(squared, math.sqrt)", "float(math.sqrt(squared))"),
        },
    ),
    *of(
        "python/lstmcore/metrics.py",
        [SERIES_LOSSES],
        {
            "nse-is-averaged": ("total * scale, means, _efficiency)", "total * scale)"),
            "nse-in-float64": ("t * t, np.ones_like(t))])", "t * t, np.ones_like(t))], float)"),
            "nse-rounds-weights": ("means[:3] / (means[3] or 1.0)", "means[:3]"),
            "mape-of-nothing": ("(wanted != 0) & (weights != 0)", "weights != 0"),
        },
    ),
]
