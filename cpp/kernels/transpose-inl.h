// Rows side by side: what packing a matrix does.
#pragma once

#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

template <class T>
void transpose(const T* const* rows, int64_t K, int64_t width, T* out) {
    constexpr int L = kLanes<T>;
    for (int64_t k = 0; k < K; k += L)
        for (int64_t c = 0; c < width; c += L) {
            T* to = out + k * width + c;
            simd::PacketBlock<Packet<T>, L> block;
            for (int j = 0; j < L; ++j) block.packet[j] = load(rows[c + j] + k, K - k);
            simd::ptranspose(block);
            for (int64_t i = 0; i < L && i < K - k; ++i) store(to + i * width, block.packet[i]);
        }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
