#include "memory/int8.h"

#include <string>
#include <vector>

#include "lstmcore/machine.h"
#include "machine/cpu_features.h"
#include "machine/environment.h"
#include "machine/float_mode.h"
#include "machine/isa.h"

namespace lstmcore {
namespace {

// In the order of Int8Unit.
constexpr const char* kNames[] = {"plain", "vnni", "amx"};

/// The best unit that may be used, if there is one and its instructions do as they should.
Int8Unit best_allowed() {
    return Int8Unit(named_choice("LSTMCORE_INT8", kNames, int(Int8Unit::vnni)));
}

/// Whether registers have 512 bits: two levels have units.
bool has_512_bits(const Kernels<float>& kernels) {
    return kernels.lanes == 16;
}

/// A product of some rows of K numbers with a matrix of N columns, by a unit.
std::vector<float> try_unit(const Kernels<float>& kernels, Int8Unit unit, int64_t rows, int64_t N) {
    constexpr int64_t K = 150;
    Packed<float> w;
    w.K = K;
    w.N = N;
    w.vectors = 4;
    w.int8_unit = unit;
    std::vector<int8_t> values(size_t(N * K)), packed(size_t(N * w.padded_int8_K()));
    std::vector<float> scales(static_cast<size_t>(N)), packed_scales(scales.size());
    // The largest numbers among them, of both signs.
    for (size_t i = 0; i < values.size(); ++i) values[i] = int8_t(int64_t(i * 7919 % 255) - 127);
    for (size_t i = 0; i < scales.size(); ++i) scales[i] = float(i % 5 + 1) / 300;
    copy_int8(
        {values.data(), scales.data()}, [](int64_t column) { return column; }, w, kernels.lanes, 0,
        N, packed.data(), packed_scales.data());
    w.quantized = packed.data();
    w.scales = packed_scales.data();
    std::vector<float> a(size_t(rows * K)), start(size_t(N), 0.25f), out(size_t(rows * N));
    for (size_t i = 0; i < a.size(); ++i) a[i] = float(int64_t(i * i * 31 % 511) - 255) / 128;
    std::vector<ProductRow<float>> given;
    for (int64_t r = 0; r < rows; ++r)
        given.push_back({a.data() + r * K, start.data(), out.data() + r * N});
    const FlushDenormals mode;
    kernels.product(w, N, given.data(), rows);
    return out;
}

/// Whether a unit gives the bits of the plain one: alone and in tiles, in panels of all widths.
bool comes_out_right(const Kernels<float>& kernels, Int8Unit unit) {
    for (const int64_t rows : {1, 13})
        for (const int64_t registers : {4, 5, 6, 7, 18})
            if (try_unit(kernels, unit, rows, registers * kernels.lanes) !=
                try_unit(kernels, Int8Unit::plain, rows, registers * kernels.lanes))
                return false;
    return true;
}

Int8Unit find_unit(const Kernels<float>& kernels, Int8Unit best) {
    for (const Int8Unit unit : {Int8Unit::amx, Int8Unit::vnni})
        if (unit <= best && has_int8_unit(kernels, unit) && comes_out_right(kernels, unit))
            return unit;
    return Int8Unit::plain;
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
    static const Int8Unit best = best_allowed();
    if (!kernels.has_vnni) return Int8Unit::plain;
    if (has_512_bits(kernels)) {
        static const Int8Unit of_512_bits = find_unit(kernels, best);
        return of_512_bits;
    }
    static const Int8Unit of_256_bits = find_unit(kernels, best);
    return of_256_bits;
}

std::string int8_instructions() {
    return kNames[size_t(int8_unit(kernel_table().f32))];
}

}  // namespace lstmcore
