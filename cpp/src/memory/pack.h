// Copies matrices and rows into the order in which the kernels read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "kernel_table.h"
#include "lstmcore/memory.h"
#include "lstmcore/precision.h"
#include "lstmcore/quantized.h"
#include "machine/call_threads.h"
#include "memory/arena.h"
#include "memory/bfloat16.h"
#include "memory/int8.h"

namespace lstmcore {

/// What a precision comes to: bfloat16x3 to float32 where nothing multiplies parts.
template <class T>
Precision usable_precision(const Kernels<T>& kernels, Precision precision) {
    if constexpr (std::is_same_v<T, float>)
        if (precision == Precision::bfloat16x3 && bfloat16x3_unit(kernels) == Bfloat16Unit::none)
            return Precision::own;
    return precision;
}

/// Lays matrices out in one buffer, and copies them there when all have their place, by
/// as many threads as that is worth. Without a buffer it only counts.
template <class T>
class Packing {
public:
    Packing(void* base, const Kernels<T>& kernels, Precision precision, bool train)
        : arena_(base), kernels_(kernels), precision_(precision), train_(train) {}

    /// The matrix whose column c is row row_of(c) of `source` (rows, K), in panels of `vectors`
    /// registers; a negative row is padding. `source` is read by copy().
    template <class RowOf>
    Packed<T> transposed(int vectors, int64_t K, int64_t columns, const T* source, RowOf row_of) {
        const Room room = take(vectors, K, columns);
        const int64_t N = room.packed.N, width = vectors * kernels_.lanes;
        const int64_t panels = (N + width - 1) / width;
        longest_ = std::max(longest_, K);
        if (room)
            copies_.push_back([=](int64_t part, int64_t parts, const T* padding) {
                const T* rows[kMostColumns<T>];
                const int64_t end = panels * (part + 1) / parts * width;
                for (int64_t first = panels * part / parts * width; first < end; first += width) {
                    const int64_t count = std::min(width, N - first);
                    for (int64_t i = 0; i < count; ++i) {
                        const int64_t row = row_of(first + i);
                        rows[i] = row < 0 ? padding : source + row * K;
                    }
                    if (room.out != nullptr) {
                        kernels_.transpose(rows, K, count, room.out + first * K);
                        if (room.packed.is_bfloat16())
                            kernels_.round(room.out + first * K, count * K);
                    } else
                        transpose_rounded(
                            rows, room.packed, count,
                            room.rounded + first * room.packed.padded_K() * room.packed.parts());
                }
            });
        return room.packed;
    }

    /// The same of a matrix in int8.
    template <class RowOf>
    Packed<T> transposed(int vectors, int64_t K, int64_t columns, QuantizedMatrix source,
                         RowOf row_of) {
        Packed<T> packed;
        packed.K = K;
        packed.N = round_up(columns, kernels_.lanes);
        packed.vectors = vectors;
        packed.int8_unit = int8_unit(kernels_);
        auto* const out =
            arena_.template take<int8_t>(size_product(packed.padded_int8_K(), packed.N));
        auto* const scales = arena_.template take<float>(packed.N);
        packed.quantized = out;
        auto* const shifts = arena_.template take<int32_t>(packed.N);
        packed.scales = scales;
        packed.shifts = shifts;
        const int64_t width = vectors * kernels_.lanes, panels = (packed.N + width - 1) / width;
        if (out != nullptr)
            copies_.push_back([=](int64_t part, int64_t parts, const T*) {
                copy_int8(source, row_of, packed, kernels_.lanes, panels * part / parts * width,
                          std::min(panels * (part + 1) / parts * width, packed.N), out, scales,
                          shifts);
            });
        return packed;
    }

    /// The matrix whose row k is row row_of(k) of `source` (rows, columns), which copy() reads. It
    /// is in float32, too, if one of `beside` rows would be, whose product the same rows make.
    template <class RowOf>
    Packed<T> in_rows(int64_t K, int64_t columns, const T* source, RowOf row_of,
                      int64_t beside = 0) {
        constexpr int kVectors = 4;
        const Room room = take(kVectors, K, columns, beside);
        const int64_t N = room.packed.N, full = kVectors * kernels_.lanes;
        if (room.out != nullptr)
            copies_.push_back([=](int64_t part, int64_t parts, const T*) {
                for (int64_t k = K * part / parts; k < K * (part + 1) / parts; ++k) {
                    const T* from = source + row_of(k) * columns;
                    for (int64_t first = 0; first < N; first += full) {
                        const int64_t width = std::min(full, N - first);
                        const int64_t count = std::min(width, columns - first);
                        T* to = room.out + first * K + k * width;
                        std::copy(from + first, from + first + count, to);
                        std::fill(to + count, to + width, T(0));
                        if (room.packed.is_bfloat16()) kernels_.round(to, count);
                    }
                }
            });
        if (room.rounded != nullptr)
            copies_.push_back([=](int64_t part, int64_t parts, const T*) {
                const Packed<T>& packed = room.packed;
                const int64_t padded = packed.padded_K(), pairs = padded / kPair;
                const auto row = [&](int64_t k) {
                    return k < K ? source + row_of(k) * columns : nullptr;
                };
                const int64_t end = pairs * (part + 1) / parts * kPair;
                for (int64_t k = pairs * part / parts * kPair; k < end; k += kPair)
                    for (int64_t first = 0; first < N; first += full) {
                        const auto at = [&](const T* from) {
                            return from ? from + first : nullptr;
                        };
                        const int64_t width = std::min(full, N - first);
                        kernels_.pack_pairs(
                            at(row(k)), at(row(k + 1)), columns - first, width, packed.parts(),
                            padded * width,
                            room.rounded + first * padded * packed.parts() + k * width);
                    }
            });
        return room.packed;
    }

    /// The numbers value_of(0), ... value_of(n - 1).
    template <class ValueOf>
    const T* vector(int64_t n, ValueOf value_of) {
        T* const out = arena_.template take<T>(n);
        for (int64_t i = 0; out && i < n; ++i) out[i] = value_of(i);
        return out;
    }

    int64_t bytes() const { return arena_.used(); }

    void copy(int num_threads) {
        const std::vector<T> padding(longest_);
        const double useful = double(bytes()) / kPackedBytesOfThread;
        const int team_size = int(std::min(double(num_threads), 1 + useful));
        run_fast_team(CallKind({'p', bytes(), int64_t(copies_.size())}), team_size,
                      [&](Team& team) noexcept {
                          for (const auto& copy : copies_)
                              copy(team.rank, team.size, padding.data());
                      });
    }

private:
    /// Where a matrix goes; both are null while it is only counted.
    struct Room {
        Packed<T> packed;
        T* out = nullptr;
        Bfloat16* rounded = nullptr;  ///< or here, in bfloat16

        explicit operator bool() const { return out != nullptr || rounded != nullptr; }
    };

    /// Room for a matrix of `columns` columns in panels of `vectors` registers.
    Room take(int vectors, int64_t K, int64_t columns, int64_t beside = 0) {
        Room room;
        room.packed.K = K;
        room.packed.N = round_up(columns, kernels_.lanes);
        room.packed.vectors = vectors;
        if constexpr (std::is_same_v<T, float>)
            room.packed.unit = unit_of(K, room.packed.N, beside);
        if (room.packed.unit > Bfloat16Unit::float32) {
            room.rounded = arena_.template take<Bfloat16>(
                size_product(room.packed.padded_K() * room.packed.parts(), room.packed.N));
            room.packed.bfloat16 = room.rounded;
        } else {
            room.out = arena_.template take<T>(size_product(K, room.packed.N));
            room.packed.data = room.out;
        }
        return room;
    }

    Bfloat16Unit unit_of(int64_t K, int64_t N, int64_t beside) const {
        const int64_t longest = std::max(K, beside);
        if (precision_ == Precision::bfloat16 && longest <= kMostBfloat16)
            return bfloat16_unit(kernels_, K, N, train_);
        if (precision_ == Precision::bfloat16x3 && longest <= kMostBfloat16Parts)
            return bfloat16x3_unit(kernels_);
        return Bfloat16Unit::none;
    }

    /// Kernels::transpose, rounded and in pairs of k.
    void transpose_rounded(const T* const* rows, const Packed<T>& packed, int64_t width,
                           Bfloat16* out) const {
        constexpr int64_t kBlock = 32;
        T block[kBlock * kMostColumns<T>];
        const T* from[kMostColumns<T>];
        for (int64_t k = 0; k < packed.padded_K(); k += kBlock) {
            const int64_t count = std::min(kBlock, packed.K - k);
            const int64_t padded = std::min(kBlock, packed.padded_K() - k);
            for (int64_t i = 0; i < width; ++i) from[i] = rows[i] + k;
            kernels_.transpose(from, count, width, block);
            std::fill(block + count * width, block + padded * width, T(0));
            for (int64_t pair = 0; pair < padded; pair += kPair, out += kPair * width)
                kernels_.pack_pairs(block + pair * width, block + (pair + 1) * width, width, width,
                                    packed.parts(), packed.padded_K() * width, out);
        }
    }

    Arena arena_;
    const Kernels<T>& kernels_;
    const Precision precision_;
    const bool train_;
    int64_t longest_ = 0;  // of the rows that padding stands for
    /// Each copies its part of so many.
    std::vector<std::function<void(int64_t part, int64_t parts, const T* padding)>> copies_;
};

/// A buffer with what lay_out(packing) asks for, which is called twice: to count, then to
/// place.
template <class T, class LayOut>
Buffer pack_into_buffer(const Kernels<T>& kernels, Precision precision, bool train, int num_threads,
                        LayOut lay_out) {
    if (precision != Precision::own && !std::is_same_v<T, float>)
        throw std::invalid_argument(
            "precision: bfloat16 and bfloat16x3 are there beside float32 alone");
    Packing<T> counting(nullptr, kernels, precision, train);
    lay_out(counting);
    Buffer memory(counting.bytes());
    Packing<T> packing(memory.data(), kernels, precision, train);
    lay_out(packing);
    packing.copy(num_threads);
    return memory;
}

/// Copies n numbers, if they are few faster than a call of memcpy does.
template <class T>
void copy_numbers(T* to, const T* from, int64_t n) {
    constexpr int64_t kPiece = 16 / int64_t(sizeof(T)), kFew = 4 * kPiece;
    if (n > kFew) {
        std::memcpy(to, from, sizeof(T) * n);
        return;
    }
    int64_t i = 0;
    for (; i + kPiece <= n; i += kPiece) std::memcpy(to + i, from + i, 16);
    if constexpr (kPiece > 2)
        if (n & 2) {
            std::memcpy(to + i, from + i, sizeof(T) * 2);
            i += 2;
        }
    if (n & 1) to[i] = from[i];
}

/// Lays the n numbers of a row out for sums over rows.
template <class T>
void copy_to_panels(const Panels<T>& to, int64_t row, const T* from, int64_t n) {
    for (int64_t i = 0; i < n; i += to.width)
        copy_numbers(to.at(row, i), from + i, std::min(n - i, to.width));
}

/// Rounds the n numbers of a row there to bfloat16.
template <class T>
void round_in_panels(const Kernels<T>& kernels, const Panels<T>& panels, int64_t row, int64_t n) {
    for (int64_t i = 0; i < n; i += panels.width)
        kernels.round(panels.at(row, i), std::min(n - i, panels.width));
}

}  // namespace lstmcore
