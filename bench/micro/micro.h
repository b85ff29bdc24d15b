// What the files of micro-benchmarks share.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <new>
#include <random>
#include <string>

#include "machine/isa.h"

/// Each file adds its benchmarks, at every ISA level that the machine has.
void add_limits();
void add_kernels();
void add_layers();
void add_streams();

/// Uninitialised memory, aligned as kernels and workspaces want it.
template <class T>
class Array {
public:
    explicit Array(int64_t size)
        : size_(size),
          data_(static_cast<T*>(::operator new(size * sizeof(T) + kAlignment, kAligned))) {}
    Array(const Array&) = delete;
    Array(Array&& other) noexcept : size_(other.size_), data_(other.data_) {
        other.data_ = nullptr;
    }
    ~Array() { ::operator delete(data_, kAligned); }

    T* data() const { return data_; }
    int64_t size() const { return size_; }

private:
    static constexpr int64_t kAlignment = 64;
    static constexpr std::align_val_t kAligned{kAlignment};

    int64_t size_;
    T* data_;
};

/// Numbers from U(-scale, scale).
template <class T>
Array<T> random_array(int64_t size, double scale) {
    static std::mt19937 random(1);
    std::uniform_real_distribution<double> uniform(-scale, scale);
    Array<T> array(size);
    for (int64_t i = 0; i < size; ++i) array.data()[i] = T(uniform(random));
    return array;
}

/// "/T100" and the like.
inline std::string part(const char* letter, int64_t value) {
    return "/" + std::string(letter) + std::to_string(value);
}

/// Floating-point operations of one iteration, two for a multiply-add, as a rate.
inline void count_flops(benchmark::State& state, double flops) {
    state.counters["FLOP/s"] =
        benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

/// Bytes of one iteration, as a rate.
inline void count_bytes(benchmark::State& state, double bytes) {
    state.counters["bytes/s"] = benchmark::Counter(
        bytes, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::OneK::kIs1000);
}
