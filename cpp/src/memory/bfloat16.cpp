#include "memory/bfloat16.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "lstmcore/memory.h"
#include "lstmcore/precision.h"
#include "machine/caches.h"
#include "machine/cpu_features.h"
#include "machine/environment.h"
#include "machine/isa.h"
#include "memory/arena.h"
#include "memory/unit_choice.h"

namespace lstmcore {
namespace {

// In the order of Bfloat16Unit, without `none`.
constexpr const char* kBfloat16Units[] = {"float32", "widening", "avx512-bf16", "amx"};

/// A product of some rows with a matrix of so many registers of columns, to see what a unit makes
/// of it; by `none` in float32.
class Trial {
public:
    /// Of small whole numbers, whose sums are exact in any order, or of what has three parts.
    Trial(const Kernels<float>& kernels, Bfloat16Unit unit, int64_t rows, int64_t registers,
          bool whole = true)
        : kernels_(kernels),
          whole_(whole),
          rows_(
              rows, kInputs, registers * kernels.lanes, [&](int64_t i) { return number(i * i); },
              [&](int64_t i) { return number(3 * i) / 4; }) {
        w_.K = kInputs;
        w_.N = registers * kernels.lanes;
        w_.vectors = 4;
        w_.unit = unit;
        pack();
    }

    const std::vector<float>& result() { return rows_.multiply(kernels_, w_); }

private:
    static constexpr int64_t kInputs = 150;

    float number(int64_t i) const {
        const float n = float(i * 7919 % 31 - 15);
        return whole_ ? n : n * 1.0043f;
    }

    void pack() {
        const int64_t K = w_.padded_K(), width = w_.vectors * kernels_.lanes, parts = w_.parts();
        if (!w_.is_bfloat16()) floats_.resize(size_t(kInputs * w_.N));
        weights_.resize(size_t(parts * K * w_.N));
        for (int64_t k = 0; k < kInputs; ++k)
            for (int64_t n = 0; n < w_.N; ++n) {
                const int64_t first = n / width * width, columns = std::min(width, w_.N - first);
                const float weight = number(k * w_.N + n);
                Bfloat16 of_weight[kParts] = {to_bfloat16(weight)};
                if (parts > 1) split_bfloat16(weight, of_weight);
                for (int64_t p = 0; p < parts; ++p)
                    weights_[size_t((first * parts + p * columns) * K +
                                    (k / kPair * columns + n - first) * kPair + 1 - k % kPair)] =
                        of_weight[p];
                if (!floats_.empty())
                    floats_[size_t(first * kInputs + k * columns + n - first)] = weight;
            }
        if (w_.is_bfloat16())
            w_.bfloat16 = weights_.data();
        else
            w_.data = floats_.data();
    }

    const Kernels<float>& kernels_;
    const bool whole_;
    Packed<float> w_;
    std::vector<Bfloat16> weights_;
    std::vector<float> floats_;
    TrialRows rows_;
};

/// Whether a unit gives the sums that the plain one does: alone and in tiles, in panels of all
/// widths.
bool comes_out_right(const Kernels<float>& kernels, Bfloat16Unit unit) {
    for (const int64_t rows : {1, 40})
        for (const int64_t registers : {5, 6, 19})
            if (Trial(kernels, unit, rows, registers).result() !=
                Trial(kernels, Bfloat16Unit::widening, rows, registers).result())
                return false;
    return true;
}

/// The same of what multiplies parts: its sums are near those of float32.
bool parts_come_out_right(const Kernels<float>& kernels) {
    for (const int64_t rows : {1, 40}) {
        Trial trial(kernels, Bfloat16Unit::amx_parts, rows, 6, false);
        Trial exact(kernels, Bfloat16Unit::none, rows, 6, false);
        const std::vector<float>&sums = trial.result(), &expected = exact.result();
        for (size_t i = 0; i < sums.size(); ++i)
            if (!(std::abs(sums[i] - expected[i]) < 0.005f)) return false;  // of 150 up to 230
    }
    return true;
}

/// What the environment asks for, or `none`.
Bfloat16Unit wanted_unit() {
    static ChosenOnce<Bfloat16Unit> wanted;
    return wanted.get([] { return 1 + named_choice("LSTMCORE_BFLOAT16", kBfloat16Units, -1); });
}

std::chrono::nanoseconds time_of(const Kernels<float>& kernels, Bfloat16Unit unit, int64_t rows) {
    Trial trial(kernels, unit, rows, 18);
    return shortest_time([&] { trial.result(); });
}

/// Whether AMX may be used, for products of numbers in bfloat16 or of their parts.
bool may_use_amx(const Kernels<float>& kernels) {
    const Bfloat16Unit wanted = wanted_unit();
    return (wanted == Bfloat16Unit::none || wanted == Bfloat16Unit::amx) && has_amx_bf16() &&
           comes_out_right(kernels, Bfloat16Unit::amx);
}

/// AVX512-BF16, or `none`. Also where AMX is asked for and is not there.
Bfloat16Unit find_dot(const Kernels<float>& kernels) {
    const Bfloat16Unit wanted = wanted_unit();
    const bool asked = wanted >= Bfloat16Unit::dot;
    if ((!asked && wanted != Bfloat16Unit::none) || !has_avx512_bf16() ||
        !comes_out_right(kernels, Bfloat16Unit::dot))
        return Bfloat16Unit::none;
    // Some processors take several cycles for VDPBF16PS, others one.
    const bool fast =
        asked || is_clearly_less(time_of(kernels, Bfloat16Unit::dot, kRowsOfTrial),
                                 time_of(kernels, Bfloat16Unit::widening, kRowsOfTrial));
    return fast ? Bfloat16Unit::dot : Bfloat16Unit::none;
}

/// A unit of the processor, or `none`. What the environment asks for needs not be fast.
Bfloat16Unit find_unit(const Kernels<float>& kernels) {
    const bool amx = may_use_amx(kernels);
    if (amx && wanted_unit() == Bfloat16Unit::amx) return Bfloat16Unit::amx;
    const Bfloat16Unit dot = find_dot(kernels);
    const Bfloat16Unit other = dot == Bfloat16Unit::none ? Bfloat16Unit::widening : dot;
    const bool faster = amx && is_faster(Bfloat16Unit::amx, other, [&](auto unit, int64_t rows) {
                            return time_of(kernels, unit, rows);
                        });
    return faster ? Bfloat16Unit::amx : dot;
}

/// What multiplies parts, or `none`. Timed with many rows: with one it cannot pay, as three parts
/// of a weight are more bytes to read than the weight.
Bfloat16Unit find_parts_unit(const Kernels<float>& kernels) {
    if (!may_use_amx(kernels) || !parts_come_out_right(kernels)) return Bfloat16Unit::none;
    const bool fast = wanted_unit() == Bfloat16Unit::amx ||
                      is_clearly_less(time_of(kernels, Bfloat16Unit::amx_parts, 2 * kRowsOfTrial),
                                      time_of(kernels, Bfloat16Unit::none, 2 * kRowsOfTrial));
    return fast ? Bfloat16Unit::amx_parts : Bfloat16Unit::none;
}

/// The unit for every matrix, or `float32`, which large ones may do without.
Bfloat16Unit best_unit(const Kernels<float>& kernels) {
    if (kernels.has_avx512_units) {
        static ChosenOnce<Bfloat16Unit> chosen;
        const Bfloat16Unit found = chosen.get([&] { return find_unit(kernels); });
        if (found != Bfloat16Unit::none) return found;
    }
    return wanted_unit() == Bfloat16Unit::widening ? Bfloat16Unit::widening : Bfloat16Unit::float32;
}

}  // namespace

Bfloat16Unit bfloat16_unit(const Kernels<float>& kernels, int64_t K, int64_t N, bool train) {
    const Bfloat16Unit unit = best_unit(kernels);
    if (unit != Bfloat16Unit::float32) return unit;
    const int64_t bytes = size_product(size_product(K, N), int64_t(sizeof(float)));
    const int64_t most = kernels.lanes == 16 ? kRoundedBytesOf512 : kRoundedBytes;
    return train || bytes <= most ? Bfloat16Unit::float32 : Bfloat16Unit::widening;
}

Bfloat16Unit bfloat16x3_unit(const Kernels<float>& kernels) {
    if (!kernels.has_avx512_units) return Bfloat16Unit::none;
    static ChosenOnce<Bfloat16Unit> chosen;
    return chosen.get([&] { return find_parts_unit(kernels); });
}

RoundingRooms::RoundingRooms(Precision precision, int threads, int64_t K, int64_t rows,
                             int matrices, bool widens)
    : matrices_(matrices) {
    if (precision == Precision::own) return;
    // More rows than this share nothing more: the weights come from the L1 cache by then.
    constexpr int64_t kMostRows = 64;
    // What Bfloat16Rows takes for a row, or more.
    constexpr int64_t kLine = kAlignment / int64_t(sizeof(float));
    const int64_t parts = kParts * round_up(std::min(K, kMostBfloat16Parts), kAmxTerms) / kPair;
    const int64_t stride = precision == Precision::bfloat16x3
                               ? parts + kLine
                               : round_up(std::min(K, kMostBfloat16), kLine);
    // Fewer rows, or larger panels than the L2 cache holds two of, are not faster widened first.
    constexpr int64_t kFewestRows = 9, kMostWidened = 2048;
    if (widens && rows >= kFewestRows && K <= kMostWidened)
        panel_ = round_up(K, kPair) * kMostColumns<float>;
    rows = std::min(rows, kMostRows);
    if (rows * stride > kMostBfloat16) numbers_ = rows * stride;
    if (numbers_ + panel_ == 0) return;
    memory_ = Buffer(threads * matrices_ * (numbers_ + panel_) * int64_t(sizeof(float)));
}

void round_bfloat16(float* numbers, int64_t count) noexcept {
    for (int64_t i = 0; i < count; ++i) numbers[i] = from_bfloat16(to_bfloat16(numbers[i]));
}

std::string bfloat16_instructions() {
    return kBfloat16Units[size_t(best_unit(kernel_table().f32)) - 1];
}

std::string bfloat16x3_instructions() {
    const bool amx = bfloat16x3_unit(kernel_table().f32) != Bfloat16Unit::none;
    return amx ? "amx" : "float32";
}

}  // namespace lstmcore
