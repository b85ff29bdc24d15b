#include "memory/bfloat16.h"

#include <string>
#include <vector>

#include "lstmcore/precision.h"
#include "machine/cpu_features.h"
#include "machine/environment.h"
#include "machine/float_mode.h"
#include "machine/isa.h"

namespace lstmcore {
namespace {

// In the order of Bfloat16Unit.
constexpr const char* kNames[] = {"float32", "avx512-bf16", "amx"};

/// The best unit that may be used, if its instructions do as they should. The others have been run
/// by emulation only, so they wait for somebody to ask for them.
Bfloat16Unit best_allowed() {
    return Bfloat16Unit(named_choice("LSTMCORE_BFLOAT16", kNames, int(Bfloat16Unit::widening)));
}

/// A product of some rows with a matrix, by a unit.
std::vector<float> try_unit(const Kernels<float>& kernels, Bfloat16Unit unit) {
    constexpr int64_t K = 70, kRows = 13;
    Packed<float> w;
    w.K = K;
    w.N = 7 * kernels.lanes;  // a panel, and a narrower one
    w.vectors = 4;
    w.unit = unit;
    std::vector<Bfloat16> weights(size_t(w.padded_K() * w.N));
    // Small whole numbers, whose sums are exact in any order.
    const auto number = [](int64_t i) { return float(i * 7919 % 31 - 15); };
    const int64_t width = w.vectors * kernels.lanes;
    for (int64_t k = 0; k < K; ++k)
        for (int64_t n = 0; n < w.N; ++n) {
            const int64_t first = n / width * width, columns = n < width ? width : w.N - width;
            weights[size_t(first * w.padded_K() + (k / kPair * columns + n - first) * kPair + 1 -
                           k % kPair)] = to_bfloat16(number(k * w.N + n));
        }
    w.bfloat16 = weights.data();
    std::vector<float> a(kRows * K), start(size_t(w.N)), out(size_t(kRows * w.N));
    for (size_t i = 0; i < a.size(); ++i) a[i] = number(int64_t(i * i));
    for (size_t i = 0; i < start.size(); ++i) start[i] = number(int64_t(3 * i)) / 4;
    std::vector<ProductRow<float>> rows;
    for (int64_t r = 0; r < kRows; ++r)
        rows.push_back({a.data() + r * K, start.data(), out.data() + r * w.N});
    const FlushDenormals mode;
    kernels.product(w, w.N, rows.data(), kRows);
    return out;
}

bool comes_out_right(const Kernels<float>& kernels, Bfloat16Unit unit) {
    return try_unit(kernels, unit) == try_unit(kernels, Bfloat16Unit::widening);
}

Bfloat16Unit find_unit(const Kernels<float>& kernels) {
    const Bfloat16Unit best = best_allowed();
    if (best == Bfloat16Unit::amx && has_amx_bf16() && comes_out_right(kernels, Bfloat16Unit::amx))
        return Bfloat16Unit::amx;
    if (best != Bfloat16Unit::widening && has_avx512_bf16() &&
        comes_out_right(kernels, Bfloat16Unit::dot))
        return Bfloat16Unit::dot;
    return Bfloat16Unit::widening;
}

}  // namespace

Bfloat16Unit bfloat16_unit(const Kernels<float>& kernels) {
    if (!kernels.has_avx512_units) return Bfloat16Unit::widening;
    static const Bfloat16Unit unit = find_unit(kernels);
    return unit;
}

void round_bfloat16(float* numbers, int64_t count) noexcept {
    for (int64_t i = 0; i < count; ++i) numbers[i] = from_bfloat16(to_bfloat16(numbers[i]));
}

std::string bfloat16_instructions() {
    return kNames[int(bfloat16_unit(kernel_table().f32))];
}

}  // namespace lstmcore
