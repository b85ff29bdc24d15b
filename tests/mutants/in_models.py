"""Mutants of models at work, what is compared with them, and the reference."""

from __future__ import annotations

from mutant import of

GENERATE = "tests/models/test_generate.py"
SEQ2SEQ = "tests/models/test_seq2seq.py"
NO_PYTORCH = ["-k", "not torch"]  # which takes seconds to import
REFERENCE = "tests/top/test_reference.py"

MODELS = [
    *of(
        "python/lstmcore/_network/stream.py",
        ["tests/models/test_generate_networks.py"],
        {
            "sources-are-freed": ("step.frees = []", "pass"),
            "sources-have-no-ends": (
                "flow.lengths = self._ends.get(step.given[0]) if step.given else None",
                "pass",
            ),
            "sources-any-attention": ("if query is None or [", "if False and ["),
        },
    ),
    *of(
        "python/lstmcore/_models/feeding.py",
        ["tests/models/test_generate_networks.py"],
        {
            "sources-without-lengths": (
                "SourcedStream(model, x, self._source_lengths, self.rows)",
                "SourcedStream(model, x, None, self.rows)",
            ),
        },
    ),
    *of(
        "python/lstmcore/_models/generate.py",
        [GENERATE],
        {
            "generate-ignores-lengths": ("y = _last(y, axis, lengths)", "y = _last(y, axis, None)"),
            "generate-ignores-the-state": (
                'options = {} if state is None else {"state": state}',
                "options = {}",
            ),
            "generate-forgets-what-it-said": (
                "y, state = model.run(x, state)",
                "y, _ = model.run(x, state)",
            ),
            "generate-forgets-the-lengths-of-the-model": ('options["lengths"] = lengths', "pass"),
            "generate-last-of-lengths": (
                "y[lengths - 1, rows] if axis == 0",
                "y[lengths.max() - 1, rows] if axis == 0",
            ),
            "generate-last-of-lengths-batch-first": (
                "else y[rows, lengths - 1]",
                "else y[rows, -1]",
            ),
            "generate-ended-rows-go-on": ("following = np.where(ended, stop, following)", "pass"),
            "generate-goes-on-for-ever": ("or (stop is not None and ended.all())", ""),
            "generate-samples-nan": ("if np.isnan(y).any():", "if False:"),
            "generate-one-hot-ids": (
                "wrong = ids[(ids < 0) | (ids >= size)]",
                "wrong = ids[ids < 0]",
            ),
            "generate-keeps-other-dtypes": ("following.astype(y.dtype, copy=False)", "following"),
            "generate-axes": (
                '1 if grid == 2 and getattr(model, "batch_first", False) else 0',
                "0",
            ),
            "generate-empty-rows": ("if not lengths.all():", "if not lengths.any():"),
        },
    ),
    *of(
        "python/lstmcore/sampling.py",
        [GENERATE],
        {
            "temperature-multiplies": (".astype(np.float64) / t", ".astype(np.float64) * t"),
            "top-k-takes-one-more": (
                "np.partition(logits, -k, axis=-1)[..., -k, None]",
                "np.partition(logits, -k - 1, axis=-1)[..., -k - 1, None]",
            ),
            "top-k-takes-all": ("logits[logits < least] = -np.inf", "pass"),
            "samplers-are-greedy": (
                "(logits + rng.gumbel(size=logits.shape))",
                "(logits + 0 * rng.gumbel(size=logits.shape))",
            ),
            "samplers-draw-normal-noise": (
                "rng.gumbel(size=logits.shape)",
                "rng.standard_normal(logits.shape)",
            ),
            "samplers-ignore-the-seed": (
                "np.random.default_rng(checks.seed(seed))",
                "np.random.default_rng()",
            ),
            "temperature-0": ("if t <= 0:", "if t < 0:"),
            "top-k-of-few": ("k is not None and k < logits.shape[-1]", "k is not None"),
        },
    ),
    *of(
        "python/lstmcore/baselines.py",
        [GENERATE],
        {
            "ar-order-of-lags": (
                ".reshape(self.order, features, features)[::-1]",
                ".reshape(self.order, features, features)",
            ),
            "ar-coefficients-turned": (
                "np.ascontiguousarray(lags.swapaxes(1, 2))",
                "np.ascontiguousarray(lags)",
            ),
            "ar-without-intercept": (
                "_flat(windows) @ weights + self.intercept",
                "_flat(windows) @ weights",
            ),
            "ar-too-few-windows": ("if rows < unknown:", "if rows < 0:"),
            "window-state-is-late": ("values[-self.size :].copy()", "values[: self.size].copy()"),
            "window-before-is-not-nan": ("np.full(values.shape, np.nan)", "np.zeros(values.shape)"),
            "window-forgets-before": ("values = np.concatenate([before, values])", "pass"),
            "season-is-yesterday": ("return windows[..., 0]", "return windows[..., -1]"),
            "markov-unsmoothed": ("smooth = counts + self.smoothing", "smooth = counts + 1e-9"),
            "markov-sums-columns": (
                "smooth.sum(axis=1, keepdims=True)",
                "smooth.sum(axis=0, keepdims=True)",
            ),
            "markov-ids": ("ids[(ids < 0) | (ids >= self.num_tokens)]", "ids[ids < 0]"),
        },
    ),
    *of(
        "python/lstmcore/_models/seq2seq.py",
        [SEQ2SEQ],
        {
            "beam-parent-forgotten": (
                "state = _take(state, (parent + np.arange(rows)[:, None] * beam_size).ravel())",
                "pass",
            ),
            "beam-scores-not-summed": ("(scores[:, :, None] + log_p)", "(log_p)"),
            "beam-ended-goes-on": ("log_p[ended] = -np.inf", "pass"),
            "beam-ended-ends-once": ("log_p[ended, end] = 0", "pass"),
            "beam-starts-with-all": ("scores[:, 0] = 0", "scores[:, :] = 0"),
            "beam-penalty-of-the-text-alone": (
                "said = length + bool(ends.size)",
                "said = max(length, 1)",
            ),
            "beam-no-penalty": ("float(score) / said**length_penalty", "float(score)"),
            "beam-lengths-of-others": (
                "np.asarray(lengths)[every]",
                "np.tile(np.asarray(lengths), beam_size)",
            ),
            "beam-keys-of-others": ("else keys[:, every]", "else np.tile(keys, (1, beam_size, 1))"),
            "beam-softmax": (
                "np.log(np.exp(scores).sum(axis=-1, keepdims=True))",
                "np.log(np.exp(scores).max(axis=-1, keepdims=True))",
            ),
            "forecast-reads-the-same-value": ("value = choose(output)", "choose(output)"),
            "seq2seq-state-not-carried": (
                "return previous, self._carried(state), keys,",
                "return previous, None, keys,",
            ),
            "seq2seq-state-gradient": (
                "tape.encoder, dkeys, dfinal)",
                "tape.encoder, dkeys, None)",
            ),
            "seq2seq-key-gradient": (
                "dkeys = dy + dquery, dkey + dvalue",
                "dkeys = dy + dquery, dkey",
            ),
            "seq2seq-query-gradient": ("dy, dkeys = dy + dquery,", "dy, dkeys = dy,"),
            "attention-sees-padding": (
                "self.attention(y, keys, keys, source_lengths)",
                "self.attention(y, keys, keys, None)",
            ),
            "attention-trains-on-padding": (
                "self.attention.forward(y, keys, keys, flow.lengths)",
                "self.attention.forward(y, keys, keys, None)",
            ),
        },
    ),
    *of(
        "python/lstmcore/datasets.py",
        ["tests/train/test_training.py::test_japanese_vowels_are_whole"],
        {
            "vowels-shifted": (
                "np.arange(lengths.max()) < lengths[:, None]",
                "np.arange(lengths.max()) >= lengths.max() - lengths[:, None]",
            ),
            "vowels-axes": ("np.ascontiguousarray(x.swapaxes(0, 1))", "np.ascontiguousarray(x)"),
        },
    ),
    *of(
        "python/lstmcore/plot.py",
        ["tests/top/test_plot.py"],
        {
            "slope-of-the-sigmoid": ('"sigmoid": 0.25', '"sigmoid": 1.0'),
            "slope-of-scaled-tanh": ("abs(numbers[0] * numbers[1])", "abs(numbers[0])"),
            "gate-values-of-row-0": ("(layer, slice(length), row)", "(layer, slice(length), 0)"),
            "gate-values-of-row-0-batch-first": (
                "(layer, row, slice(length)) if",
                "(layer, 0, slice(length)) if",
            ),
            "gradient-norms-of-h-alone": (
                "parts = dstate if isinstance(dstate, tuple) else (dstate,)",
                "parts = dstate[:1] if isinstance(dstate, tuple) else (dstate,)",
            ),
            "gradient-norms-touch-the-layer": (
                "layer = copy.deepcopy(layer)",
                "layer = copy.copy(layer)",
            ),
            "heat-map-turned": ("array.T,", "array,"),
        },
    ),
    *of(
        "python/lstmcore/reference.py",
        [REFERENCE, *NO_PYTORCH],
        {
            "reference-sigmoid-overflows": (
                "h = (1.0 - z) * n + z * h_prev",
                "h = z * n + (1.0 - z) * h_prev",
            ),
            "reference-gru-dz": ("dh * (h_prev - n), dh * z", "dh * (n - h_prev), dh * z"),
            "reference-gru-reset-before": (
                "made.append(products[2].run(r * u))",
                "made.append(products[2].run(u))",
            ),
            "reference-gru-dr": (
                "da_r = dv * u * dgate(s_r, r)",
                "da_r = dv * dgate(s_r, r)",
            ),
            "reference-gru-dh": ("du = dv * r + du_r + du_z", "du = dv * r + du_r"),
            "reference-coupled": ("f = 1.0 - i", "f = 1.0 + i"),
            "reference-coupled-gradient": ("di = di - df", "di = di + df"),
            "reference-no-forget-gate": ("f = np.ones_like(i)", "f = np.zeros_like(i)"),
            "reference-peephole-o-sees-the-past": (
                'a["o"] = a["o"] + w["o"] * c\n',
                'a["o"] = a["o"] + w["o"] * c_prev\n',
            ),
            "reference-peephole-dc": ('dc = dc + da["o"] * w["o"]', "pass"),
            "reference-peephole-dc-prev": ('for n in w if n != "o")', "for n in w)"),
            "reference-peephole-gradient": ('"f": c_prev, "o": c}', '"f": c_prev, "o": c_prev}'),
            "reference-cell-clip": (
                "np.clip(c, -self.cell_clip, self.cell_clip)",
                "np.minimum(c, self.cell_clip)",
            ),
            "reference-cell-clip-gradient": ("np.where(np.abs(c) < self.cell_clip, dc, 0.0)", "dc"),
            "reference-dc": ("dc = dc + dshown", "dc = dshown"),
            "reference-reset-late": ("cut[:-1] = resets[1:] & valid[1:]", "cut[:-1] = resets[:-1]"),
            "reference-reset-past-the-end": (
                "cut[:-1] = resets[1:] & valid[1:]",
                "cut[:-1] = resets[1:]",
            ),
            "reference-reset-multiplies": ("np.where(drop, 0.0, s[rows])", "(~drop) * s[rows]"),
            "reference-reset-gradient": ("d[rows] = np.where(drop, 0.0, value)", "d[rows] = value"),
            "reference-padding": ("rows = np.flatnonzero(valid[t])", "rows = np.arange(B)"),
            "reference-merge-mul": (
                "lambda dy, a, b: (dy * b, dy * a)",
                "lambda dy, a, b: (dy * a, dy * b)",
            ),
            "reference-merge-ave": ("(dy / 2, dy / 2)", "(dy, dy)"),
            "reference-dropout-gradient": ("dx = dx * tape.dropout_masks[k - 1]", "pass"),
            "reference-directions-apart": (
                "dx = dxs[0] + dxs[1] if len(runs) == 2",
                "dx = dxs[0] if len(runs) == 2",
            ),
            "reference-lengths-range": ("np.any((ends < 0) | (ends > T))", "np.any(ends > T)"),
            "reference-unknown-names": ("!= len(params):", "> len(params):"),
        },
    ),
]
