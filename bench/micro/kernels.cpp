// The kernels by themselves: activations beside a loop over the C library, products.
#include <cmath>
#include <vector>

#include "kernel_table.h"
#include "machine/float_mode.h"
#include "micro.h"

using namespace lstmcore;

namespace {

template <class T>
constexpr const char* type_name = sizeof(T) == 4 ? "float32" : "float64";

template <class T>
T libm(ActivationKind kind, T x) {
    return kind == ActivationKind::tanh ? std::tanh(x) : 1 / (1 + std::exp(-x));
}

/// `isa` is the level, or "libm".
template <class T>
void add_activation(const std::string& isa, const char* function, ActivationKind kind) {
    const std::string name = std::string("activation/") + function + "/" + isa + "/" + type_name<T>;
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        constexpr int64_t kCount = 2048;  // both arrays fit into the L1 cache
        const Array<T> x = random_array<T>(kCount, 8), y(kCount);
        if (isa == "libm") {
            for (auto _ : state) {
                for (int64_t i = 0; i < kCount; ++i) y.data()[i] = libm(kind, x.data()[i]);
                benchmark::ClobberMemory();
            }
        } else {
            set_isa(isa);
            const auto activate = kernel_table().of<T>().activate;
            const FlushDenormals mode;
            for (auto _ : state) {
                activate({kind}, x.data(), y.data(), kCount);
                benchmark::ClobberMemory();
            }
        }
        state.SetItemsProcessed(state.iterations() * kCount);
        count_bytes(state, 2.0 * kCount * sizeof(T));
    });
}

/// B rows times a packed (K, N) matrix.
template <class T>
void add_product(const std::string& isa, int64_t B, int64_t K, int64_t N) {
    const std::string name = "product/" + isa + part("B", B) + part("K", K) + part("N", N) +
                             (sizeof(T) == 8 ? "/float64" : "");
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        set_isa(isa);
        const Kernels<T>& kernels = kernel_table().of<T>();
        const int64_t columns = (N + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
        const Array<T> w = random_array<T>(K * columns, 1), a = random_array<T>(B * K, 1),
                       init = random_array<T>(N, 1), out(B * N);
        std::vector<ProductRow<T>> rows;
        for (int64_t b = 0; b < B; ++b)
            rows.push_back({a.data() + b * K, init.data(), out.data() + b * N});
        const Packed<T> packed{w.data(), K, columns, 4};
        for (auto _ : state) {
            kernels.product(packed, N, rows.data(), B);
            benchmark::ClobberMemory();
        }
        count_flops(state, 2.0 * double(B) * double(K) * double(N));
        count_bytes(state, double(K * columns * int64_t(sizeof(T))));  // of the matrix, read once
    });
}

/// The gradient of a (J, N) matrix over M rows.
template <class T>
void add_outer(const std::string& isa, int64_t M, int64_t J, int64_t N) {
    const std::string name = "outer/" + isa + part("M", M) + part("J", J) + part("N", N);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        set_isa(isa);
        const Kernels<T>& kernels = kernel_table().of<T>();
        const auto padded = [](int64_t n) { return n + Panels<T>::kWidth; };
        const Array<T> a = random_array<T>(M * padded(J), 1), c = random_array<T>(J * N, 1);
        const Array<T> b = random_array<T>(M * padded(N), 1);
        for (auto _ : state) {
            constexpr int64_t width = Panels<T>::kWidth;
            kernels.outer({{a.data(), width, M}, 0, {b.data(), width, M}, c.data(), M, J, N});
            benchmark::ClobberMemory();
        }
        count_flops(state, 2.0 * double(M) * double(J) * double(N));
        count_bytes(state, double((M * (J + N) + 2 * J * N) * int64_t(sizeof(T))));
    });
}

template <class T>
void add_activations(const std::string& isa) {
    add_activation<T>(isa, "sigmoid", ActivationKind::sigmoid);
    add_activation<T>(isa, "tanh", ActivationKind::tanh);
}

}  // namespace

void add_kernels() {
    add_activations<float>("libm");
    add_activations<double>("libm");
    for (const std::string& isa : available_isas()) {
        add_activations<float>(isa);
        add_activations<double>(isa);
    }
    for (const std::string& isa : available_isas()) {
        for (const int64_t H : {64, 128, 256, 512})
            for (const int64_t B : {1, 4, 8, 32, 128}) add_product<float>(isa, B, H, 4 * H);
        add_product<float>(isa, 32, 100, 400);
        add_product<double>(isa, 32, 256, 1024);
        for (const int64_t H : {64, 128, 256, 512}) add_outer<float>(isa, 640, 4 * H, H);
        add_outer<float>(isa, 640, 400, 100);
    }
}
