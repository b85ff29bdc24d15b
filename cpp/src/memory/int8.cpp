#include "memory/int8.h"

#include <string>
#include <vector>

#include "lstmcore/machine.h"
#include "machine/cpu_features.h"
#include "machine/environment.h"
#include "machine/isa.h"
#include "memory/unit_choice.h"

namespace lstmcore {
namespace {

// In the order of Int8Unit.
constexpr const char* kInt8Units[] = {"plain", "vnni", "amx"};

/// Whether registers have 512 bits: two levels have units.
bool has_512_bits(const Kernels<float>& kernels) {
    return kernels.lanes == 16;
}

/// A product of some rows of K numbers with a matrix of N columns, by a unit.
class Int8Trial {
public:
    Int8Trial(const Kernels<float>& kernels, Int8Unit unit, int64_t rows, int64_t N)
        : kernels_(kernels),
          rows_(
              rows, K, N, [](int64_t i) { return float(i * i * 31 % 511 - 255) / 128; },
              [](int64_t) { return 0.25f; }) {
        w_.K = K;
        w_.N = N;
        w_.vectors = 4;
        w_.int8_unit = unit;
        std::vector<int8_t> values(size_t(N * K));
        std::vector<float> scales(static_cast<size_t>(N));
        // The largest numbers among them, of both signs.
        for (size_t i = 0; i < values.size(); ++i)
            values[i] = int8_t(int64_t(i * 7919 % 255) - 127);
        for (size_t i = 0; i < scales.size(); ++i) scales[i] = float(i % 5 + 1) / 300;
        weights_.resize(size_t(N * w_.padded_int8_K()));
        scales_.resize(scales.size());
        shifts_.resize(scales.size());
        copy_int8(
            {values.data(), scales.data()}, [](int64_t column) { return column; }, w_,
            kernels.lanes, 0, N, weights_.data(), scales_.data(), shifts_.data());
        w_.quantized = weights_.data();
        w_.scales = scales_.data();
        w_.shifts = shifts_.data();
    }

    const std::vector<float>& result() { return rows_.multiply(kernels_, w_); }

private:
    static constexpr int64_t K = 150;

    const Kernels<float>& kernels_;
    Packed<float> w_;
    std::vector<int8_t> weights_;
    std::vector<float> scales_;
    std::vector<int32_t> shifts_;
    TrialRows rows_;
};

/// Whether a unit gives the bits of the plain one: alone and in tiles, in panels of all widths.
bool int8_comes_out_right(const Kernels<float>& kernels, Int8Unit unit) {
    for (const int64_t rows : {1, 40})
        for (const int64_t registers : {4, 5, 6, 7, 18}) {
            const int64_t N = registers * kernels.lanes;
            if (Int8Trial(kernels, unit, rows, N).result() !=
                Int8Trial(kernels, Int8Unit::plain, rows, N).result())
                return false;
        }
    return true;
}

/// The best unit of those that may be used and do as they should. AMX has to be faster, too, unless
/// the environment asks for it.
Int8Unit find_int8_unit(const Kernels<float>& kernels) {
    const int wanted = named_choice("LSTMCORE_INT8", kInt8Units, -1);
    const auto is_there = [&](Int8Unit unit) {
        return (wanted < 0 || int(unit) <= wanted) && has_int8_unit(kernels, unit) &&
               int8_comes_out_right(kernels, unit);
    };
    const auto time_of = [&](Int8Unit unit, int64_t rows) {
        Int8Trial trial(kernels, unit, rows, 18 * kernels.lanes);
        return shortest_time([&] { trial.result(); });
    };
    const bool amx = is_there(Int8Unit::amx);
    if (amx && wanted == int(Int8Unit::amx)) return Int8Unit::amx;
    const Int8Unit found = is_there(Int8Unit::vnni) ? Int8Unit::vnni : Int8Unit::plain;
    return amx && is_faster(Int8Unit::amx, found, time_of) ? Int8Unit::amx : found;
}

}  // namespace

bool has_int8_unit(const Kernels<float>& kernels, Int8Unit unit) {
    switch (unit) {
        case Int8Unit::plain:
            return true;
        case Int8Unit::vnni:
            return kernels.has_vnni && (has_512_bits(kernels) ? has_avx512_vnni() : has_avx_vnni());
        case Int8Unit::amx:
            return kernels.has_avx512_units && has_amx_int8();
    }
    return false;
}

Int8Unit int8_unit(const Kernels<float>& kernels) {
    static ChosenOnce<Int8Unit> of_256_bits, of_512_bits, of_others;
    auto& chosen = !kernels.has_vnni       ? of_others
                   : has_512_bits(kernels) ? of_512_bits
                                           : of_256_bits;
    return chosen.get([&] { return find_int8_unit(kernels); });
}

std::string int8_instructions() {
    return kInt8Units[size_t(int8_unit(kernel_table().f32))];
}

}  // namespace lstmcore
