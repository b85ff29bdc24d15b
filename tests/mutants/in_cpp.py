"""Mutants of the C++: kernels and driver."""
# ruff: noqa: E501 (lines of other files)

from __future__ import annotations

from mutant import of

OPTIM = ["ctest:test_optim"]
KERNELS = ["tests/core/test_kernels.py"]
NUMBERS = "tests/core/test_numbers.py"
SHARED_UNITS = ["tests/core/test_invariance.py", "-k", "share_units or many_threads"]

CPP = [
    *of(
        "cpp/src/training/losses.cpp",
        [f"{NUMBERS}::test_denormals_are_flushed_by_the_cross_entropy"],
        {"losses-keep-denormals": ("const FlushDenormals mode;", "")},
    ),
    *of(
        "cpp/src/training/losses.cpp",
        ["ctest:test_losses"],
        {
            "losses-without-the-largest": (
                "- (double(x[target[i]]) - double(row.max))",
                "- double(x[target[i]])",
            ),
            "losses-first-is-not-written": ("losses[i] = 0;", ""),
            "losses-hit-is-added": ("dx[target[i]] -= hit[i]", "dx[target[i]] += hit[i]"),
            "losses-unweighted-rows-keep-their-gradient": (
                "if (dx) std::fill_n(dx, classes, T(0));",
                "",
            ),
            "losses-rows-of-threads": (
                "rows * (team.rank + 1) / team.size",
                "rows * team.rank / team.size + rows / team.size",
            ),
        },
    ),
    *of(
        "cpp/src/training/optim.cpp",
        [f"{NUMBERS}::test_denormals_are_flushed_by_optimizers"],
        {"optimizers-keep-denormals": ("const FlushDenormals mode;", "")},
    ),
    *of(
        "cpp/src/training/optim.cpp",
        OPTIM,
        {
            "sgd-dampens-the-first-step": ("t == 1 ? 0 : rule.dampening", "rule.dampening"),
            "adam-without-unbiasing": (
                "rule.lr / (1 - std::pow(rule.beta1, double(t)))",
                "rule.lr",
            ),
            "adam-unbias-2": (
                "1 / std::sqrt(1 - std::pow(rule.beta2, double(t)))",
                "1 / (1 - std::pow(rule.beta2, double(t)))",
            ),
            "adamw-decays-twice": (
                "T(rule.decoupled ? 0 : rule.weight_decay)",
                "T(rule.weight_decay)",
            ),
            "adamw-keeps-all": ("1 - rule.lr * rule.weight_decay : 1", "1 : 1"),
            "listed-rows-first-only": ("std::min(last, (row + 1) * rows.size)", "last"),
            "listed-rows-place": (
                "rows.listed[row] * rows.size + first - row * rows.size",
                "rows.listed[row] * rows.size",
            ),
            "pieces-of-threads": (
                "std::max(mine, piece), to = std::min(end, next)",
                "std::max(mine, piece), to = next",
            ),
            "norm-underflows": ("!(plain < 1e-200) && ", ""),
            "norm-overflows": ("!(plain > 1e200)", "true"),
            "state-of-the-first": ("p.state[s] + at : nullptr", "p.state[s] : nullptr"),
        },
    ),
    *of(
        "cpp/src/training/linear.cpp",
        ["ctest:test_linear"],
        {
            "linear-pieces": ("dy) + piece * O", "dy)"),
            "linear-without-bias": (
                "return bias && i < outputs ? bias[i] : T(0);",
                "return i < 0 ? bias[i] : T(0);",
            ),
            "linear-first-output": ("dweight + first * I,", "dweight,"),
            "linear-inference-only": ("if (!linear.can_train())", "if (false)"),
        },
    ),
    *of(
        "cpp/src/training/scatter.cpp",
        ["ctest:test_scatter"],
        {
            "scatter-overwrites": ("to[n] += from[n]", "to[n] = from[n]"),
            "scatter-last-column": ("/ team.size * kLine, size)", "/ team.size * kLine, size - 1)"),
        },
    ),
    *of(
        "cpp/include/lstmcore/memory.h",
        ["ctest:test_layer"],
        {
            "sizes-overflow": ("__builtin_mul_overflow(a, b, &ab) || ", "(ab = a * b, false) || "),
        },
    ),
    *of(
        "cpp/src/memory/pack.h",
        KERNELS,
        {
            "packed-padding-is-not-0": (
                "std::fill(to + count, to + width, T(0));",
                "std::fill(to + count, to + width, T(1));",
            ),
            "packed-panels-of-threads": ("out + first * K);", "out + first);"),
        },
    ),
    *of(
        "cpp/src/memory/buffer.cpp",
        ["ctest:test_buffer"],
        {
            "buffers-too-small": (
                "capacity < bytes || capacity > 2 * bytes",
                "capacity > 2 * bytes",
            ),
            "buffers-much-too-large": (
                "capacity < bytes || capacity > 2 * bytes",
                "capacity < bytes",
            ),
        },
    ),
    *of(
        "cpp/src/machine/isa.cpp",
        ["ctest:test_isa"],
        {
            "isa-without-the-systems-leave": ("has(cpu.xcr0, std::uint64_t{0xe6})", "true"),
            "isa-avx-without-ymm": ("has(cpu.xcr0, std::uint64_t{0x06})", "true"),
            "isa-lzcnt": ("has(cpu.extended1_ecx, bit(5)) && ", ""),
            "isa-version-stays": ("version.fetch_add(1, std::memory_order_relaxed);", ""),
        },
    ),
    *of(
        "cpp/src/machine/threads.cpp",
        ["ctest:test_threads"],
        {
            "quota-of-the-first-folder": ("if (path.empty()) return cores;", "return cores;"),
            "quota-rounded-down": ("std::ceil(cores)", "std::floor(cores)"),
        },
    ),
    *of(
        "cpp/src/machine/threads.cpp",
        SHARED_UNITS,
        {
            "barrier-is-open": (
                "if (arrived_.fetch_add(1",
                "if (size > 2) return;\n    if (arrived_.fetch_add(1",
            )
        },
    ),
    *of(
        "cpp/src/machine/float_mode.h",
        [NUMBERS, "-k", "denormal"],
        {
            "denormals-come-out": ("0x1f80 | 0x8000 | 0x0040", "0x1f80 | 0x0040"),
            "denormals-come-in": ("0x1f80 | 0x8000 | 0x0040", "0x1f80 | 0x8000"),
            "the-callers-mode-is-lost": (
                "~FlushDenormals() { write(saved_); }",
                "~FlushDenormals() {}",
            ),
        },
    ),
    *of(
        "cpp/src/recurrent/workers.h",
        SHARED_UNITS,
        {
            "slots-of-other-workers": (
                "worker / 2 : worker % row_workers_, alive, row_workers_",
                "worker / 2 : worker % row_workers_, alive, row_workers_ + 1",
            ),
            "parts-of-other-workers": (
                "int(worker / row_workers_) % parts_",
                "int(worker / row_workers_) % (parts_ > 2 ? parts_ - 1 : parts_)",
            ),
        },
    ),
    *of(
        "cpp/src/recurrent/dropout.h",
        ["tests/nn/test_variational.py", "-k", "masks"],
        {
            "dropout-of-all-rows-alike": ("+ uint64_t(t)) + uint64_t(b))", "+ uint64_t(t)))"),
            "dropout-of-all-layers-alike": (
                "uint64_t(use) << 48 | uint64_t(part)",
                "uint64_t(use) << 48",
            ),
            "dropout-keeps-the-others": (">= threshold_", "< threshold_"),
        },
    ),
    *of(
        "cpp/include/lstmcore/options.h",
        ["ctest:test_model", "tests/core/test_kernels.py"],
        {
            "gate-clip-is-cell-clip": ("return &s.cell.gate_clip;", "return &s.cell.cell_clip;"),
            "candidate-is-output": ("return &s.cell.candidate;", "return &s.cell.output;"),
            "merge-sum-is-mul": ('{"sum", Merge::sum}', '{"sum", Merge::mul}'),
            "model-options-of-other-cells": (
                "return kind == CellKind::rnn ? rnn : kind == CellKind::lstm ? lstm : gru;",
                "return kind == CellKind::rnn ? rnn : true;",
            ),
            "model-biases-swapped": (
                'set.b_ih = take("bias_ih", {rows});\n        set.b_hh = take("bias_hh", {rows});',
                'set.b_hh = take("bias_ih", {rows});\n        set.b_ih = take("bias_hh", {rows});',
            ),
        },
    ),
    *of(
        "cpp/src/recurrent/step_rows.h",
        KERNELS,
        {
            "gru-leaves-no-tape": ("at.gates ? at.gates : gates_.at(n)", "gates_.at(n)"),
            "projection-loses-dy": (
                "products[i].out[p] += lstm_[i].dy[p];",
                "products[i].out[p] += 0;",
            ),
            "projection-adds-dy-to-c-too": ("lstm_[i].dy = zeros;", ""),
        },
    ),
    *of(
        "cpp/src/recurrent/pass.h",
        KERNELS,
        {
            "reset-one-step-off-backwards": (
                "*in_.resets.at(t + 1, b) :",
                "*in_.resets.at(t, b) :",
            ),
            "previous-step-of-the-other-direction": (
                "{b, t, backwards ? t + 1 : t - 1,",
                "{b, t, t - 1,",
            ),
            "states-of-the-other-direction": (
                "((layer * D_ + d) * in_.batch + b) * n",
                "((layer * D_ + D_ - 1 - d) * in_.batch + b) * n",
            ),
        },
    ),
    *of(
        "cpp/src/recurrent/pass.h",
        ["ctest:test_layer"],
        {
            "a-cell-state-for-all": ("!c || spec.cell.kind == CellKind::lstm", "true"),
            "steps-beyond-the-whole": (
                "in.whole_steps < 0 || in.first_step <= in.whole_steps - in.steps",
                "true",
            ),
        },
    ),
    *of(
        "cpp/src/recurrent/merge.h",
        KERNELS,
        {
            "merge-is-not-halved": (
                "out[f] = (h[f] + h[P + f]) * T(0.5);",
                "out[f] = h[f] + h[P + f];",
            ),
            "merge-gradients-swapped": (
                "one *= h[P + f];\n            other *= h[f];",
                "one *= h[f];\n            other *= h[P + f];",
            ),
            "merge-gradient-is-not-halved": ("other *= T(0.5);", ""),
            "dropout-is-not-scaled": ("? row[f] * scale : T(0)", "? row[f] : T(0)"),
        },
    ),
    *of(
        "cpp/src/training/row_functions.cpp",
        ["ctest:test_row_functions"],
        {
            "rows-of-one-thread-alone": (
                "f(count * team.rank / team.size,",
                "f(count * team.rank,",
            ),
            "layer-norm-writes-one-row": (
                "args.normal + (i + r) * n : nullptr",
                "args.normal : nullptr",
            ),
            "layer-norm-keeps-no-scale": (
                "args.scale ? args.scale + i + r : scales + r",
                "scales + r",
            ),
            "row-functions-of-negative-sizes": ("if (count < 0 || size < 0)", "if (false)"),
        },
    ),
    *of(
        "cpp/src/recurrent/schedule.h",
        ["ctest:test_layer"],
        {
            "lengths-negative": ("lengths[b] < 0 || ", ""),
            "lengths-beyond": ("|| lengths[b] > whole_steps", ""),
        },
    ),
    *of(
        "cpp/src/files/json.cpp",
        ["ctest:test_model"],
        {
            "json-any-depth": ("if (depth > kDepth)", "if (depth < 0)"),
            "json-low-surrogate-range": ("second < 0xdc00 || second >= 0xe000", "second < 0xdc00"),
            "json-high-surrogate-alone": (
                'if (!take("\\\\u")) fail("half of a pair of \\\\u escapes");',
                'take("\\\\u");',
            ),
            "json-low-surrogate-alone": (
                "code >= 0xdc00 && code < 0xe000",
                "code >= 0xdc00 && code < 0xdd00",
            ),
            "json-key-twice": ("if (!keys.insert(key).second)", "if (false)"),
            "json-goes-on": ("if (at_ != text_.size()) fail", "if (false) fail"),
            "json-infinite": ("!stream || !std::isfinite(value)", "false"),
            "json-control-characters": ("static_cast<unsigned char>(c) < 0x20", "false"),
            "json-leading-zeros": ('if (!take("0")) digits();', "digits();"),
            "json-utf8": ("code < 0x800 ? 1 : code < 0x10000 ? 2 : 3", "code < 0x800 ? 1 : 2"),
        },
    ),
    *of(
        "cpp/src/files/tensor_file.cpp",
        ["ctest:test_model"],
        {
            "tensors-overlap": ("if (first != end)", "if (first > end)"),
            "tensors-leave-gaps": ("if (first != end)", "if (first < end)"),
            "tensors-behind": ("if (end != left)", "if (end > left)"),
            "tensor-out-of-the-file": ("first > last || last > bytes", "first > last"),
            "tensor-shape": ("if (expected != tensor.bytes)", "if (expected < tensor.bytes)"),
            "header-longer-than-the-file": (
                "if (header > bytes - 8)",
                "if (header > bytes + 1024)",
            ),
            "checksum-unread": (
                "if (crc.hex() != expected)",
                "if (crc.hex() == expected + expected)",
            ),
        },
    ),
    *of(
        "cpp/src/files/description.h",
        ["ctest:test_model"],
        {"model-unknown-options": ("if (!value.used)", "if (false)")},
    ),
    *of(
        "cpp/src/files/parameters.h",
        ["ctest:test_model"],
        {
            "model-unknown-tensors": ("if (!used_.count(name))", "if (false)"),
            "model-any-shape": (
                "if (tensor.shape != shape)",
                "if (tensor.shape.size() != shape.size())",
            ),
        },
    ),
    *of(
        "cpp/src/files/module_reader.cpp",
        ["ctest:test_model", "ctest:test_network"],
        {
            "model-any-dtype": ("if (dtype != ours)", "if (false)"),
            "network-causal-is-valid": ("windows.left = windows.reach();", ""),
            "network-taps-unmoved": (
                "weight[(o * channels + c) * taps + k]",
                "weight[(o * taps + k) * channels + c]",
            ),
            "network-same-name-twice": ("!names.insert(name).second", "false"),
        },
    ),
    *of(
        "cpp/src/files/graph_reader.cpp",
        ["ctest:test_network"],
        {
            "graph-other-lengths": ("(args.empty() || call[2]", "(args.empty() && call[2]"),
            "graph-inputs-in-any-order": ("given[i] != int64_t(i)", "false"),
            "graph-subtract": ("binary_part<T>(Sign::subtract)", "binary_part<T>(Sign::add)"),
        },
    ),
    *of(
        "cpp/src/network/graph.cpp",
        ["ctest:test_network"],
        {
            "graph-frees-outputs": (
                "for (const int64_t slot : outputs_) needed[size_t(slot)] = true;",
                "",
            ),
            "graph-any-axes": ("if (slot >= int64_t(slots_.size()))", "if (false)"),
            "graph-streams-what-is-no-chain": (
                "if (call.args != std::vector<int64_t>{before})",
                "if (false)",
            ),
        },
    ),
    *of(
        "cpp/src/network/layers.cpp",
        ["ctest:test_network"],
        {
            "network-no-lengths": ("in.lengths = x.lengths ? x.lengths->data() : nullptr;", ""),
            "network-no-state": ("if (args.size() > 1) in.h0 = args[1].x;", ""),
            "network-any-id": ("x.ids[i] >= table_.count", "x.ids[i] > table_.count"),
            "network-windows-reach-over": ("s >= 0 && s < x.end(b)", "s >= 0 && s < x.steps"),
            "network-windows-past-the-end": (
                "std::fill_n(y.to(t, b), y.features(), T(0));\n        y.lengths",
                "y.lengths",
            ),
            "network-statistics-past-the-end": (
                "if (t < x.end(b))\n                    row(",
                "if (true)\n                    row(",
            ),
        },
    ),
    *of(
        "cpp/src/network/steps.cpp",
        ["ctest:test_network"],
        {
            "network-mean-of-all": ("double(std::max<int64_t>(end, 1))", "double(x.steps)"),
            "network-last-of-all": ("? end - 1 : 0", "? x.steps - 1 : 0"),
            "network-both-ends-alike": ("x.at(0, b) + half", "x.at(x.end(b) - 1, b) + half"),
            "network-masks-all-of-it": ("std::any_of(row", "std::all_of(row"),
            "network-flips-padding": ("x.at(x.end(b) - 1 - t, b)", "x.at(x.steps - 1 - t, b)"),
        },
    ),
    *of(
        "cpp/kernels/lstm.cpp",
        KERNELS,
        {
            "kernel-forget-gate-peephole": (
                "if (peeps) f = pmadd(peephole(step, 1, unit), c_prev, f);",
                "",
            ),
            "kernel-cell-clip": ("c = clamp(c, -clip, clip);", "c = clamp(c, -clip, T(2) * clip);"),
            "kernel-coupled": ("step.cell.coupled ? psub(set(T(1)), i) : set(T(1))", "set(T(1))"),
            "kernel-dc": (
                "act.output_derivative(squashed, shown), dc)",
                "act.output_derivative(squashed, shown), set(T(0)))",
            ),
            "kernel-peephole-dc": ("dc = pmadd(d_o, peephole(step, kGates - 2, unit), dc);", ";"),
            "kernel-clipped-gradient": (
                "simd::pcmp_lt(simd::pabs(c), set(clip)), dc, set(T(0)))",
                "simd::pcmp_lt(simd::pabs(c), set(clip)), dc, dc)",
            ),
            "kernel-coupled-gradient": ("d_i = pmul(dc, psub(g, c_prev));", "d_i = pmul(dc, g);"),
        },
    ),
    *of(
        "cpp/kernels/gru.cpp",
        KERNELS,
        {
            "kernel-gru-dr": (
                "const P d_r = pmul(pmul(d_n, hn), act.gate_derivative(r, entered(0)));",
                "const P d_r = pmul(pmul(d_n, r), act.gate_derivative(r, entered(0)));",
            ),
            "kernel-gru-sums": ("(rows + gate) * H", "(rows - 1 + gate) * H"),
            "kernel-gru-hn": (
                "store(at.dgates + 3 * H + unit, pmul(d_n, r), valid);",
                "store(at.dgates + 3 * H + unit, d_n, valid);",
            ),
            "kernel-gru-carry": (
                "pmadd(d_rh, factor, load(at.carry + unit, valid))",
                "load(at.carry + unit, valid)",
            ),
        },
    ),
    *of(
        "cpp/kernels/rnn.cpp",
        KERNELS,
        {
            "kernel-rnn-dh": (
                "padd(sum, load(at.dy + unit, valid)), y =",
                "load(at.dy + unit, valid), y =",
            ),
            "kernel-rnn-derivative": ("pmul(dh, slope)", "dh"),
        },
    ),
    *of(
        "cpp/kernels/activations-inl.h",
        ["ctest:test_activations"],
        {
            "sigmoid-saturates-early": (
                "one_from = sizeof(T) == 4 ? 18 : 40",
                "one_from = sizeof(T) == 4 ? 12 : 40",
            ),
            "tanh-beyond-1": ("T(8.18784809)", "T(9)"),
            "exp-polynomial": ("1.381454008219407e-3", "1.381464008219407e-3"),
            "exp-ln2": ("-2.12194440054690583e-4", "-2.12194440054690583e-3"),
            "softsign-of-infinity": (
                "pdiv(huge, padd(set(T(1)), simd::pabs(huge)))",
                "pdiv(x, padd(set(T(1)), simd::pabs(x)))",
            ),
            "hard-sigmoid-below-0": (
                "clamp(pmadd(alpha, x, beta), T(0), T(1))",
                "clamp(pmadd(alpha, x, beta), T(-1), T(1))",
            ),
        },
    ),
    *of(
        "cpp/kernels/softmax-inl.h",
        ["ctest:test_losses"],
        {
            "softmax-overflows": ("const P shift = set(max);", "const P shift = set(T(0));"),
            "softmax-rest": (
                "rest[j] = whole + j < C ? x[whole + j] : kNothing",
                "rest[j] = whole + j < C ? x[whole + j] : T(0)",
            ),
            "softmax-factor": (
                "const T scale = factor / chains[0];",
                "const T scale = T(1) / chains[0];",
            ),
            "softmax-largest-of-all": (
                "chains[j] > max ? chains[j] : max",
                "chains[j] < max ? chains[j] : max",
            ),
        },
    ),
    *of(
        "cpp/kernels/update-inl.h",
        OPTIM,
        {
            "kernel-nesterov": ("kNesterov ? pmadd(momentum, m, g) : m", "m"),
            "kernel-sgd-decay": (
                "if constexpr (kDecay) g = pmadd(weight_decay, w, g);\n        if constexpr (kMomentum) {",
                "if constexpr (kMomentum) {",
            ),
            "kernel-rmsprop-below-0": (
                "v = simd::pmax(pmadd(simd::pnegate(a), a, v), zero);",
                "v = pmadd(simd::pnegate(a), a, v);",
            ),
            "kernel-amsgrad": ("v = simd::pmax(v, load(u_data + i, valid));", ";"),
            "kernel-adam-keep": ("pmadd(keep, w, d)", "padd(w, d)"),
            "kernel-eps": ("padd(simd::psqrt(v), eps)", "simd::psqrt(v)"),
            "kernel-sum-of-squares-rest": (
                "for (int64_t j = 0; i < n; ++i, ++j) {\n        const double value",
                "for (int64_t j = 0; i + 1 < n; ++i, ++j) {\n        const double value",
            ),
        },
    ),
    *of(
        "cpp/src/stream/stream_ids.cpp",
        ["ctest:test_stream_pool"],
        {
            "pools-use-ids-again": (
                "claimed ? word_of(id, kClosing) : word_of(id + generation_, kFree)",
                "claimed ? word_of(id, kClosing) : word_of(id, kFree)",
            ),
            "pools-take-large-ids-for-small": ("id <= INT64_MAX / kStates && place", "place"),
            "pools-claim-some": (
                "            release(*first);\n            PoolResult",
                "            PoolResult",
            ),
            "pools-do-not-close-what-is-claimed": (
                "            add_free(first);\n",
                "",
            ),
            "pools-take-an-id-twice-for-busy": ("result.error = PoolError::repeated;", ";"),
        },
    ),
    *of(
        "cpp/src/stream/stream_pool.cpp",
        ["ctest:test_stream_pool"],
        {
            "pools-open-with-an-old-state": ("    body_->clear(ids.place(id));\n", ""),
            "pools-forget-the-second-group": (
                "        while (place >= 0) {",
                "        if (place >= 0) {",
            ),
            "pools-let-two-step": (
                "if (stepping_.exchange(true, std::memory_order_acquire))",
                "if (stepping_.exchange(true, std::memory_order_acquire) && false)",
            ),
        },
    ),
    *of(
        "cpp/src/stream/stream_ops.h",
        ["ctest:test_stream_pool"],
        {
            "pools-keep-the-old-h": (
                "std::memcpy(h_.at(places_[i]), y_.at(i)",
                "std::memcpy(y_.at(i), y_.at(i)",
            )
        },
    ),
]
