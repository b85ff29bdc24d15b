#include "memory/bfloat16.h"

#include <algorithm>
#include <string>
#include <vector>

#include "lstmcore/memory.h"
#include "lstmcore/precision.h"
#include "machine/caches.h"
#include "machine/cpu_features.h"
#include "machine/environment.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "memory/arena.h"
#include "memory/unit_choice.h"

namespace lstmcore {
namespace {

// In the order of Bfloat16Unit, without `none`.
constexpr const char* kNames[] = {"float32", "widening", "avx512-bf16", "amx"};

/// A product of some rows with a matrix of so many registers of columns, to see what a unit makes
/// of it.
class Trial {
public:
    Trial(const Kernels<float>& kernels, Bfloat16Unit unit, int64_t rows, int64_t registers)
        : kernels_(kernels) {
        w_.K = kInputs;
        w_.N = registers * kernels.lanes;
        w_.vectors = 4;
        w_.unit = unit;
        weights_.resize(size_t(w_.padded_K() * w_.N));
        const int64_t width = w_.vectors * kernels.lanes;
        for (int64_t k = 0; k < kInputs; ++k)
            for (int64_t n = 0; n < w_.N; ++n) {
                const int64_t first = n / width * width, columns = std::min(width, w_.N - first);
                weights_[size_t(first * w_.padded_K() + (k / kPair * columns + n - first) * kPair +
                                1 - k % kPair)] = to_bfloat16(number(k * w_.N + n));
            }
        w_.bfloat16 = weights_.data();
        a_.resize(size_t(rows * kInputs));
        start_.resize(size_t(w_.N));
        out_.resize(size_t(rows * w_.N));
        for (size_t i = 0; i < a_.size(); ++i) a_[i] = number(int64_t(i * i));
        for (size_t i = 0; i < start_.size(); ++i) start_[i] = number(int64_t(3 * i)) / 4;
        for (int64_t r = 0; r < rows; ++r)
            rows_.push_back({a_.data() + r * kInputs, start_.data(), out_.data() + r * w_.N});
    }
    Trial(const Trial&) = delete;
    Trial& operator=(const Trial&) = delete;

    const std::vector<float>& result() {
        const FlushDenormals mode;
        kernels_.product(w_, w_.N, rows_.data(), int64_t(rows_.size()));
        return out_;
    }

private:
    static constexpr int64_t kInputs = 150;

    /// Small whole numbers, whose sums are exact in any order.
    static float number(int64_t i) { return float(i * 7919 % 31 - 15); }

    const Kernels<float>& kernels_;
    Packed<float> w_;
    std::vector<Bfloat16> weights_;
    std::vector<float> a_, start_, out_;
    std::vector<ProductRow<float>> rows_;
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

/// What the environment asks for, or `none`.
Bfloat16Unit wanted_unit() {
    static ChosenOnce<Bfloat16Unit> wanted;
    return wanted.get([] { return 1 + named_choice("LSTMCORE_BFLOAT16", kNames, -1); });
}

/// A unit of the processor, or `none`. What the environment asks for needs not be fast.
Bfloat16Unit find_unit(const Kernels<float>& kernels) {
    const Bfloat16Unit wanted = wanted_unit();
    const auto time_of = [&](Bfloat16Unit unit, int64_t rows) {
        Trial trial(kernels, unit, rows, 18);
        return shortest_time([&] { trial.result(); });
    };
    const auto may_be = [&](Bfloat16Unit unit) {
        return wanted == Bfloat16Unit::none || wanted == unit;
    };
    const auto time_of_many = [&](Bfloat16Unit unit) { return time_of(unit, kRowsOfTrial); };
    const bool amx =
        may_be(Bfloat16Unit::amx) && has_amx_bf16() && comes_out_right(kernels, Bfloat16Unit::amx);
    if (amx && wanted == Bfloat16Unit::amx) return Bfloat16Unit::amx;
    // Where there is no AMX, that stands for this.
    Bfloat16Unit found = Bfloat16Unit::none;
    if ((may_be(Bfloat16Unit::dot) || wanted == Bfloat16Unit::amx) && has_avx512_bf16() &&
        comes_out_right(kernels, Bfloat16Unit::dot)) {
        // Some processors take several cycles for VDPBF16PS, others one.
        if (wanted != Bfloat16Unit::none ||
            time_of_many(Bfloat16Unit::dot) * 5 < time_of_many(Bfloat16Unit::widening) * 4)
            found = Bfloat16Unit::dot;
    }
    const Bfloat16Unit next = found == Bfloat16Unit::none ? Bfloat16Unit::widening : found;
    return amx && is_faster(Bfloat16Unit::amx, next, time_of) ? Bfloat16Unit::amx : found;
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

RoundingRooms::RoundingRooms(int threads, int64_t K, int64_t rows, int matrices)
    : matrices_(matrices) {
    // More rows than this share nothing more: the weights come from the L1 cache by then.
    constexpr int64_t kMostRows = 64;
    const int64_t stride =
        round_up(std::min(K, kMostBfloat16), kAlignment / int64_t(sizeof(float)));
    rows = std::min(rows, kMostRows);
    if (rows * stride <= kMostBfloat16) return;
    numbers_ = rows * stride;
    memory_ = Buffer(threads * matrices_ * numbers_ * int64_t(sizeof(float)));
}

void round_bfloat16(float* numbers, int64_t count) noexcept {
    for (int64_t i = 0; i < count; ++i) numbers[i] = from_bfloat16(to_bfloat16(numbers[i]));
}

std::string bfloat16_instructions() {
    return kNames[size_t(best_unit(kernel_table().f32)) - 1];
}

}  // namespace lstmcore
