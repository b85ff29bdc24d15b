// Numbers in bfloat16: rows are rounded before they are multiplied with a matrix in bfloat16. Sums
// are float32.
//
// A product of two such numbers is exact in float32, so that only additions round, and the bits are
// the same with fused multiply-add and without.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "amx-inl.h"
#include "dot-inl.h"
#include "kernel_table.h"
#include "simd-inl.h"
#include "tile-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// The nearest numbers in bfloat16, of two the even one; NaN stays NaN. What is larger than all of
/// them becomes infinite.
LSTMCORE_INLINE Packet<float> round_to_bfloat16(const Packet<float>& x) {
    const Ints bits = (Ints)x;
    const Ints half = ((bits >> 16) & 1) + 0x7fff;
    const Ints nan = (Ints)(x != x);
    // The bits of a NaN can be the largest of all, beside which there is no room for a half.
    const Ints rounded = nan ? bits | 0x00400000 : (Ints)((Unsigned)bits + (Unsigned)half);
    return (Packet<float>)(rounded & int32_t(0xffff0000u));
}

/// The parts of a float, as kParts says.
LSTMCORE_INLINE void split(const Packet<float>& x, Packet<float> (&parts)[kParts]) {
    const Ints bits = (Ints)x, finite = (bits & 0x7fffffff) < 0x7f800000;
    const Ints rounded = (Ints)round_to_bfloat16(x);
    // What would become infinite is cut off instead.
    const Ints first = (rounded & 0x7fffffff) < 0x7f800000 ? rounded : bits & int32_t(0xffff0000u);
    parts[0] = (Packet<float>)(first & finite);
    const Packet<float> rest = psub(x, parts[0]);
    parts[1] = (Packet<float>)((Ints)round_to_bfloat16(rest) & finite);
    parts[2] = round_to_bfloat16(psub(rest, parts[1]));
}

template <class T>
void round_array(T* x, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
        for (int64_t i = 0; i < n; i += kLanes<float>)
            store(x + i, round_to_bfloat16(load(x + i, n - i)), n - i);
    }
}

/// Kernels::pack_pairs
template <class T>
void pack_pairs(const T* first, const T* second, int64_t n, int64_t width, int64_t parts,
                int64_t step, Bfloat16* out) {
    if constexpr (std::is_same_v<T, float>) {
        const auto parts_at = [&](const float* row, int64_t i, Packet<float>(&of)[kParts])
                                  LSTMCORE_INLINE_LAMBDA {
                                      const Packet<float> x = load(row + i, row ? n - i : 0);
                                      if (parts > 1)
                                          split(x, of);
                                      else
                                          of[0] = round_to_bfloat16(x);
                                  };
        for (int64_t i = 0; i < width; i += kLanes<float>) {
            Packet<float> upper[kParts], lower[kParts];
            parts_at(first, i, upper);
            parts_at(second, i, lower);
            for (int64_t p = 0; p < parts; ++p) {
                const Ints pairs = (Ints)upper[p] | ((Ints)lower[p] >> 16 & 0xffff);
                std::memcpy(out + p * step + kPair * i, &pairs, sizeof pairs);
            }
        }
    }
}

/// Weights in bfloat16 where a multiply-add takes a pair of them: Bfloat16Unit::dot.
enum class DotBfloat16 : Bfloat16 {};

/// The same where the loop keeps what it has widened, see KeepingLoops.
enum class KeptBfloat16 : Bfloat16 {};

/// How many k lie side by side in a matrix of W, for each of its columns: one, or a pair.
template <class T, class W>
constexpr int kTerms = std::is_same_v<T, W> ? 1 : int(kPair);
/// How many numbers of a row a step through the matrix takes. The pairs that `dot` multiplies are
/// one: 32 bits.
template <class T, class W>
constexpr int kFactors = std::is_same_v<W, DotBfloat16> ? 1 : kTerms<T, W>;

/// The weights of one k, of those side by side at w. The first of a pair is its upper half: what
/// VDPBF16PS adds first.
template <int kTerm, class T>
LSTMCORE_INLINE Packet<T> load_weight(const T* w) {
    return load(w);
}
template <int kTerm>
LSTMCORE_INLINE Packet<float> load_weight(const Bfloat16* w) {
    Ints pairs;
    std::memcpy(&pairs, w, sizeof pairs);
    return (Packet<float>)(kTerm == 0 ? pairs & int32_t(0xffff0000u) : pairs << 16);
}
template <int kTerm>
LSTMCORE_INLINE Packet<float> load_weight(const KeptBfloat16* w) {
    return load_weight<kTerm>(reinterpret_cast<const Bfloat16*>(w));
}
template <int kTerm>
LSTMCORE_INLINE Packet<float> load_weight(const DotBfloat16* w) {
    Packet<float> pairs;
    std::memcpy(&pairs, w, sizeof pairs);
    return pairs;
}

/// sum + factor * weight; of pairs, both products, the first one first.
template <class W, class P>
LSTMCORE_INLINE P multiply_add(const P& factor, const P& weight, P sum) {
    if constexpr (!std::is_same_v<W, DotBfloat16>) {
        return pmadd(factor, weight, sum);
    } else {
#if defined(__AVX512F__) && !defined(LSTMCORE_EMULATE_UNITS)
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(factor), "v"(weight));
        return sum;
#else
        // What that instruction does, for tests where there is none.
        const auto half = [](const P& pairs, int term) {
            return (P)(term == 0 ? (Ints)pairs & int32_t(0xffff0000u) : (Ints)pairs << 16);
        };
        sum = pmadd(half(factor, 0), half(weight, 0), sum);
        return pmadd(half(factor, 1), half(weight, 1), sum);
#endif
    }
}

/// Some rounded rows.
class Bfloat16Rows {
public:
    /// Where `w` has them, or on the stack: kernels allocate nothing.
    explicit Bfloat16Rows(const Packed<float>& w) {
        if (w.room.numbers > room_.numbers) room_ = w.room;
    }
    Bfloat16Rows(const Bfloat16Rows&) = delete;
    Bfloat16Rows& operator=(const Bfloat16Rows&) = delete;

    /// How many rows fit that are multiplied with w.
    int64_t most(const Packed<float>& w) const {
        return room_.numbers / std::max<int64_t>(stride_of(w), 1);
    }

    /// Rounds the rows row_of(0), ... row_of(n - 1), to be multiplied with w: to floats, or to
    /// pairs of bfloat16 for the units that multiply these.
    template <class RowOf>
    LSTMCORE_INLINE MadeRows set(const Packed<float>& w, int64_t n, RowOf row_of) {
        const int64_t stride = stride_of(w);
        constexpr int64_t kMost = 16;
        const float* from[kMost];
        for (int64_t i = 0; i < n; i += kMost) {
            const int64_t count = std::min(n - i, kMost);
            for (int64_t j = 0; j < count; ++j) from[j] = row_of(i + j);
            round(from, count, w, room_.data + i * stride, stride);
        }
        return {reinterpret_cast<const char*>(room_.data), stride * int64_t(sizeof(float))};
    }

private:
    static constexpr int64_t L = kLanes<float>;

    static bool takes_pairs(const Packed<float>& w) { return w.unit >= Bfloat16Unit::dot; }
    static int64_t stride_of(const Packed<float>& w) {
        int64_t n = takes_pairs(w) ? w.padded_K() / kPair * w.parts() : w.K;
        // Rows of a tile whose distance is such a power of two would displace each other from the
        // L1 cache.
        if (w.uses_amx() && n % 256 == 0) n += 1;
        return (n + L - 1) / L * L;
    }
    static LSTMCORE_ONE_COPY void round(const float* const* from, int64_t n, const Packed<float>& w,
                                        float* to, int64_t stride) {
        const int64_t K = w.K, padded = w.padded_K();
        if (w.parts() > 1)
            for (int64_t i = 0; i < n; ++i)
                round_row_in_pairs<kParts>(from[i], K, padded, to + i * stride);
        else if (takes_pairs(w))
            for (int64_t i = 0; i < n; ++i)
                round_row_in_pairs<1>(from[i], K, padded, to + i * stride);
        else
            for (int64_t i = 0; i < n; ++i) round_row(from[i], K, to + i * stride);
    }
    // Where K is odd, the second of the last pair is -0: its product with the weight, 0, is then
    // -0, which changes no sum.
    static LSTMCORE_INLINE void round_row(const float* from, int64_t K, float* to) {
        int64_t k = 0;
        for (; k + L <= K; k += L) store(to + k, round_to_bfloat16(load(from + k)));
        if (k < K) store(to + k, round_to_bfloat16(load(from + k, K - k)));
        if (K % kPair != 0) to[K] = -0.0f;
    }
    template <int kOfParts>
    static void round_row_in_pairs(const float* from, int64_t K, int64_t padded, float* to) {
        for (int64_t k = 0; k < padded; k += kPair * L) {
            uint32_t bits[kOfParts][kPair * L], pairs[L];
            for (int64_t i = 0; i < kPair; ++i) {
                const Packet<float> x = load(from + k + i * L, K - k - i * L);
                Packet<float> parts[kParts] = {};
                if constexpr (kOfParts > 1)
                    split(x, parts);
                else
                    parts[0] = round_to_bfloat16(x);
                for (int p = 0; p < kOfParts; ++p)
                    std::memcpy(bits[p] + i * L, &parts[p], sizeof x);
            }
            for (int p = 0; p < kOfParts; ++p) {
                for (int64_t i = 0; i < L; ++i)
                    pairs[i] = bits[p][kPair * i] | bits[p][kPair * i + 1] >> 16;
                if (K - k < kPair * L && K > k && K % kPair != 0) pairs[(K - k) / kPair] |= 0x8000;
                std::memcpy(to + (p * padded + k) / kPair, pairs, sizeof pairs);
            }
        }
    }

    // Or 32 rows of 512 numbers in pairs.
    static constexpr int64_t kRoom = kMostBfloat16 + 512;
    alignas(64) float stack_[kRoom];
    RoundingRoom room_{stack_, kRoom};
};

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
