"""Mutants of modules, of what goes through them, and of files."""
# ruff: noqa: E501 (lines of other files)

from __future__ import annotations

from mutant import of

LEVELS = "tests/core/test_levels.py"

MODULES = [
    *of(
        "python/lstmcore/_base/flow.py",
        ["tests/nn/test_sequential.py"],
        {
            "flow-loses-the-lengths": ("None if lengths is None else Lengths(lengths)", "None"),
            "flow-loses-the-resets": ("self.resets = resets", "self.resets = None"),
        },
    ),
    *of(
        "python/lstmcore/_nn/sequential.py",
        ["tests/nn/test_sequential.py", "tests/nn/test_modules.py"],
        {
            "sequential-drops-out-in-inference": (
                "module._apply(x, flow, train)",
                "module._apply(x, flow, True)",
            ),
            "sequential-state-gradients-turned": (
                "return dx, tuple(reversed(flow.initial))",
                "return dx, tuple(flow.initial)",
            ),
            "sequential-looks-at-no-dstate": ("self._check_dstate(flow.final, tape)", "pass"),
            "sequential-takes-a-module-twice": (
                "if module._named() and owners",
                "if False and owners",
            ),
            "sequential-mixes-batch-first": ("if value != expected:", "if False:"),
            "sequential-sizes-do-not-meet": (
                "if size is not None and module._input_size not in (None, size):",
                "if False:",
            ),
            "sequential-time-after-pooling": ("if pooled and module._knows_time:", "if False:"),
        },
    ),
    *of(
        "python/lstmcore/_nn/sequential.py",
        ["tests/nn/test_masking.py"],
        {
            "sequential-resets-of-moved-steps": (
                "if resets is not None and self._moves_steps:",
                "if False:",
            ),
        },
    ),
    *of(
        "python/lstmcore/_nn/layers.py",
        ["tests/nn/test_sequential.py", "tests/nn/test_lookup.py"],
        {
            "layers-ask-no-backward-of-ones-own": (
                "if flow.needs_dx or type(self).backward is not Layer.backward:",
                "if flow.needs_dx:",
            ),
            "layers-share-one-state": ("state = flow.states[place]", "state = flow.states[0]"),
            "layers-leave-the-lookup": (
                "flow.lookup = None\n        flow.final",
                "flow.final",
            ),
            "layers-pass-on-no-final-gradient": (
                "dstate = flow.final.pop()\n",
                "dstate = flow.final.pop() and None\n",
            ),
        },
    ),
    *of(
        "python/lstmcore/_nn/streams/stream.py",
        ["tests/nn/test_stream.py", "tests/nn/test_stream_model.py"],
        {"streams-pickle-no-state": ("stream._set_states(states)", "pass")},
    ),
    *of(
        "python/lstmcore/_nn/streams/states.py",
        ["tests/nn/test_stream.py", "tests/nn/test_stream_model.py"],
        {
            "streams-take-negative-rows": (
                "((chosen < 0) | (chosen >= batch_size))",
                "(chosen >= batch_size)",
            ),
            "streams-lose-c": ('part(c, layer._hidden, f"c of {name}")', "None"),
        },
    ),
    *of(
        "python/lstmcore/_base/checks.py",
        ["tests/nn/test_stream.py", "tests/nn/test_stream_model.py"],
        {
            "streams-overwrite-x": (
                "return x.copy() if np.may_share_memory(x, out) else x",
                "return x",
            ),
        },
    ),
    *of(
        "python/lstmcore/_nn/streams/frozen.py",
        ["tests/nn/test_stream.py", "tests/nn/test_stream_model.py"],
        {
            "streams-follow-the-module": (
                "Frozen(copy.deepcopy(module), name)",
                "Frozen(module, name)",
            ),
            "streams-keep-old-weights": (
                "found is not None and token is watch.token",
                "found is not None",
            ),
            "streams-trust-held-arrays": ("    if keep:", "    if True:"),
            "streams-call-nothing-of-ones-own": ("    if own:", "    if False:"),
        },
    ),
    *of(
        "python/lstmcore/_nn/config.py",
        [
            "tests/nn/test_options.py",
            "tests/base/test_bad_input.py",
            "tests/nn/test_layers_face.py",
        ],
        {
            "clip-of-zero": ("if clip <= 0:", "if clip < 0:"),
            "options-of-other-kinds": (
                "if self.kind not in rule.kinds and",
                "if self.kind is None and",
            ),
            "projection-as-large-as-h": (
                "if self.proj_size >= self.hidden_size:",
                "if self.proj_size > self.hidden_size:",
            ),
            "forget-bias-without-bias": ("(biased and not self.bias,", "(False,"),
            "options-beyond-float32": ("checks.fits(value, name, self.dtype)", "pass"),
            "cells-have-the-options-of-layers": (
                "if kind in rule.kinds and (rule.cells or not cell)",
                "if kind in rule.kinds",
            ),
            "repr-leaves-out-options": ("for name in list(OPTIONS)[2:]:", "for name in []:"),
        },
    ),
    *of(
        "python/lstmcore/_files/layouts.py",
        ["tests/files/test_layouts.py"],
        {
            "onnx-gates-in-our-order": ('Layout("iofg", "zrn")', 'Layout("ifgo", "zrn")'),
            "haiku-z-of-h": (
                '"haiku": Layout("igfo", "zrn", inputs_first=True, z_of_new=True,',
                '"haiku": Layout("igfo", "zrn", inputs_first=True,',
            ),
            "z-keeps-its-sign": ("-array[H : 2 * H]", "array[H : 2 * H]"),
            "gates-that-are-not-given-are-the-first": (
                "np.moveaxis(result, axis, 0)[at] = 0",
                "pass",
            ),
            "forget-bias-on-the-input-gate": ("bias[H : 2 * H] += number", "bias[:H] += number"),
            "kernels-not-turned": ("array.T if layout.inputs_first else array", "array"),
            "h-before-the-inputs": (
                '{"weight_ih": whole[:, :inputs], "weight_hh": whole[:, inputs:]}',
                '{"weight_ih": whole[:, -inputs:], "weight_hh": whole[:, :-inputs]}',
            ),
        },
    ),
    *of(
        "python/lstmcore/_files/export_options.py",
        ["tests/files/test_export_options.py"],
        {
            "exporters-forget-options": (
                "if left_out and getattr(module._config, name) != parameter.default:",
                "if False:",
            ),
            "exporters-write-nothing-but-defaults": (
                'left_out = name not in ("seed", "precision") and name not in written',
                'left_out = name not in ("seed", "precision")',
            ),
            "exporters-do-not-say-where": (
                'return f"module {path}, {module!r}" if path else',
                "return",
            ),
        },
    ),
    *of(
        "python/lstmcore/_nn/streams/frozen.py",
        [LEVELS],
        {
            "streams-keep-the-level": (
                "token is watch.token and isa == version:",
                "token is watch.token:",
            )
        },
    ),
    *of(
        "python/lstmcore/torch/_autograd.py",
        [LEVELS],
        {"torch-keeps-the-level": ("and kept.isa == isa", "and kept.isa >= 0")},
    ),
    *of(
        "python/lstmcore/_base/packed_weights.py",
        [LEVELS],
        {"packed-weights-keep-the-level": ("and isa == _core.isa_version()", "and isa >= 0")},
    ),
    *of(
        "python/lstmcore/_base/low_precision.py",
        ["tests/nn/test_quantize.py", "tests/nn/test_bfloat16.py"],
        {
            "int8-is-trained": ("if self._quantized and not _IN_INT8.get():", "if False:"),
            "int8-of-any-width": ("if shape[1] > self._MOST_COLUMNS:", "if False:"),
            "int8-of-float64": ("if self._config.dtype != np.float32:", "if False:"),
            "int8-loses-what-is-no-matrix": ("._storage[...] = p._storage", "._storage[...] = 0"),
            "int8-scales-of-one": ("._storage[...] = scales", "._storage[...] = 1"),
            "int8-is-not-loaded": (
                '== "int8"\n        if in_int8',
                '== "int4"\n        if in_int8',
            ),
            "streams-keep-the-precision": ("self._watch.token = object()", "pass"),
        },
    ),
    *of(
        "python/lstmcore/_base/quantize.py",
        ["tests/nn/test_quantize.py"],
        {
            "int8-is-untied": (
                "use_parameter(module, name + suffix, other, first_name + suffix)",
                "pass",
            )
        },
    ),
    *of(
        "python/lstmcore/_base/calibration.py",
        ["tests/nn/test_calibration.py"],
        {
            "calibration-within-blocks-alone": (
                "left[:, end:] -= errors @ upper[start:end, end:]",
                "pass",
            ),
            "calibration-in-any-order": ("order = np.argsort(-size", "order = np.argsort(size"),
            "calibration-of-the-last-call": ("sums.get(place, 0) + ", ""),
        },
    ),
    *of(
        "python/lstmcore/_nn/layers.py",
        ["tests/nn/test_calibration.py"],
        {
            "calibration-sees-padding": (
                'note(f"weight_ih{at}", x[there])',
                'note(f"weight_ih{at}", x.reshape(-1, x.shape[-1]))',
            ),
            "calibration-sees-h-too-late": ("else [first, y[:-1]])", "else [y])"),
        },
    ),
    *of(
        "python/lstmcore/_nn/masking.py",
        ["tests/nn/test_masking.py"],
        {
            "masking-mixes-steps": ('axis=time_axis, kind="stable")', "axis=time_axis)"),
            "masking-ignores-lengths": ("rows &= np.arange(time)[:, None] < ends", "pass"),
            "masking-gradient-stays": (
                "np.put_along_axis(dx, order, gradient, axis=time_axis)",
                "dx[...] = gradient",
            ),
            "masking-by-one-feature": (
                "(x != self.value).any(axis=-1)",
                "(x != self.value).all(axis=-1)",
            ),
        },
    ),
    *of(
        "python/lstmcore/_files/replacing.py",
        ["tests/files/test_files.py", "-k", "mode or whole_or_not or damaged"],
        {
            "saved-mode-of-the-temporary": (
                "temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())",
                "pass",
            ),
            "saved-mode-of-a-new-file": (
                "target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()",
                "0o666 & ~_umask()",
            ),
            "saved-umask-lost": ("os.umask(mask)\n    return mask", "return mask"),
            "saved-temporary-left": ("temporary.unlink(missing_ok=True)", "pass"),
        },
    ),
    *of(
        "python/lstmcore/_nn/streams/pool.py",
        ["tests/nn/test_stream_pool.py"],
        {
            "pools-in-python-clear-nothing": (
                "            self._clear(np.array([place]))",
                "            pass",
            ),
            "pools-forget-past-steps": ("self._past[:, places] = steps[1:]", "pass"),
            "pools-set-the-first-state": ("            del rest[:count]", "            pass"),
            "pools-take-floats-for-ids": (
                'ids = stream_ids(checks.integers(ids, "ids"))\n        x = checks.real',
                "ids = stream_ids(np.asarray(ids).astype(int))\n        x = checks.real",
            ),
        },
    ),
    *of(
        "python/lstmcore/_network/pool.py",
        ["tests/network/test_model_pool.py"],
        {
            "model-pools-begin-anew": ("begun[places] = new_begun", "pass"),
            "model-pools-take-x-without-a-batch": ("stream._may_lack_batch = False", "pass"),
            "model-pools-do-not-look-at-out": (
                "checks.out(made, to, made.shape, made.dtype)",
                "pass",
            ),
        },
    ),
    *of(
        "python/lstmcore/_base/loads.py",
        ["tests/base/test_loads.py"],
        {
            "loads-are-not-noticed": ("_LOADS.count == before or not", "True or not"),
            "loads-disturb-others": ("not _loaded_since(module, before)", "False"),
            "loads-do-not-make-calls-wait": ("        if _LOADS.busy:", "        if False:"),
            "loads-do-not-wait-for-calls": (" and not self.calls)", ")"),
            "loads-take-no-turns": ("lambda: self.loads[0] == me", "lambda: not self.busy"),
            "loads-that-were-stopped-keep-their-turn": ("self.loads.remove(load)", "pass"),
            "loads-of-the-parent-last-for-ever": (
                "after_in_child=_LOADS.renew",
                "after_in_child=int",
            ),
        },
    ),
]
