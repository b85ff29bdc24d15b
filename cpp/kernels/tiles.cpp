// The loops of products for all shapes of tiles and all that a matrix may be packed in: one copy
// for all the kernels of a level, which is most of what there is to compile.
#include "accumulate-inl.h"
#include "bfloat16-inl.h"
#include "entries.h"
#include "quantized-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Numbers of W.
template <class T, class W>
struct Numbers {
    template <int kVectors, int kPanels, int kRows>
    struct Of {
        static constexpr TileLoop<T> loop = multiply_tile<T, W, kVectors, kPanels, kRows>;
    };
};
/// int8, by a DotFactor or a VnniFactor.
template <class Factor>
struct Quantized {
    template <int kVectors, int kPanels, int kRows>
    struct Of {
        static constexpr TileLoop<float> loop =
            multiply_quantized_tile<Factor, kVectors, kPanels, kRows>;
    };
};

template <class T, template <int kVectors, int kPanels, int kRows> class Of>
constexpr TileLoops<T> kLoops = AllShapes<TileLoops<T>, Of>::make();

const TileLoops<float>& loops_of(Bfloat16Unit unit) {
#if LSTMCORE_AVX512_UNITS
    if (unit == Bfloat16Unit::dot) return kLoops<float, Numbers<float, DotBfloat16>::Of>;
#endif
    (void)unit;
    return kLoops<float, Numbers<float, Bfloat16>::Of>;
}
const TileLoops<float>& loops_of(Int8Unit unit) {
#if LSTMCORE_VNNI
    if (unit == Int8Unit::vnni) return kLoops<float, Quantized<VnniFactor>::Of>;
#endif
    (void)unit;
    return kLoops<float, Quantized<DotFactor>::Of>;
}

/// A matrix of `turns` times a panel of numbers of W.
template <class T, class W>
TileMatrix<T> tile_matrix(const TileLoops<T>& loops, const W* data, int64_t turns, int64_t numbers,
                          const float* scales = nullptr, const int32_t* shifts = nullptr) {
    const int64_t bytes = numbers * int64_t(sizeof(W));
    const auto* const bytes_of = reinterpret_cast<const char*>(data);
    return {&loops, bytes_of, turns * bytes, turns, bytes, scales, shifts};
}

}  // namespace

template <class T>
TileMatrix<T> in_tiles(const Packed<T>& w) {
    const int64_t columns = w.vectors * kLanes<T>;
    if constexpr (std::is_same_v<T, float>) {
        if (w.quantized != nullptr)
            return tile_matrix(loops_of(w.int8_unit), w.quantized, w.padded_int8_K() / kGroup,
                               columns * kGroup, w.scales, w.shifts);
        if (w.bfloat16 != nullptr)
            return tile_matrix(loops_of(w.unit), w.bfloat16, w.padded_K() / kPair, columns * kPair);
    }
    return tile_matrix(kLoops<T, Numbers<T, T>::template Of>, w.data, w.K, columns);
}

template <class T>
KeepingLoops<T> keeping(const Packed<T>& w) {
    return {&kLoops<T, Numbers<T, KeptBfloat16>::template Of>,
            &kLoops<T, Numbers<T, T>::template Of>, w.room.panel, w.K};
}

template KeepingLoops<float> keeping<float>(const Packed<float>&);
template TileMatrix<float> in_tiles<float>(const Packed<float>&);
template TileMatrix<double> in_tiles<double>(const Packed<double>&);

#if LSTMCORE_AVX512_UNITS
template <class T>
void add_by_amx(const Packed<T>& w, const AmxCut& cut, int64_t panel, int64_t panels, int64_t rows,
                const void* first, const void* second, const Ends<T>* ends) {
    const int64_t columns = w.vectors * kTileRow;
    const int64_t width = std::min(columns, w.N - panel * columns), vectors = width / kTileRow;
    const auto* const quantized = w.quantized ? static_cast<const QuantizedRow*>(first) : nullptr;
    AmxSums sums(cut);
    if (quantized) {
        const int64_t K = w.padded_int8_K(), size = columns * K;
        sums.set<int8_t>({reinterpret_cast<const char*>(quantized->q),
                          quantized_row(second).q - quantized->q, rows},
                         {w.quantized + panel * size, panels, size, vectors, K});
    } else {
        const int64_t K = w.padded_K(), size = columns * K * w.parts();
        const Bfloat16* const data = w.bfloat16 + panel * size;
        const auto* const row = static_cast<const char*>(first);
        const AmxRows given{row, static_cast<const char*>(second) - row, rows};
        if (w.parts() > 1)
            sums.set<Bfloat16Part>(
                given, {reinterpret_cast<const Bfloat16Part*>(data), panels, size, vectors, K});
        else
            sums.set<Bfloat16>(given, {data, panels, size, vectors, K});
    }
    for (int64_t p = 0; p < panels; ++p)
        for (int64_t r = 0; r < rows; ++r, ++ends)
            for (int64_t v = 0; v < width; v += kTileRow)
                if (quantized) {
                    const int64_t column = (panel + p) * columns + v;
                    const Ints sum =
                        sums.at<Ints>(p, r, v) + shift_of(quantized[r], w.shifts + column);
                    store_scaled(sum, w.scales + column, set(quantized[r].scale), *ends, v);
                } else
                    store(ends->to + v, padd(load(ends->from + v), sums.at<Packet<T>>(p, r, v)));
}

template void add_by_amx<float>(const Packed<float>&, const AmxCut&, int64_t, int64_t, int64_t,
                                const void*, const void*, const Ends<float>*);
#endif

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
