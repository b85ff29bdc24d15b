// What a real-time thread waits for: one step of a stream, one row. I = H. Beside the mean, the
// median and the 99.9th percentile of single steps, with a reading of the clock in each.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "lstmcore/stream.h"
#include "micro.h"

using namespace lstmcore;

namespace {

struct Cell {
    const char* name;
    CellKind kind;
};
constexpr Cell kCells[] = {
    {"lstm", CellKind::lstm}, {"gru", CellKind::gru}, {"rnn", CellKind::rnn}};

constexpr int64_t kSteps = 64;  // different inputs
constexpr int kSingle = 1000000;

Stream<float> make_stream(CellKind kind, int64_t H) {
    LayerSpec spec;
    spec.cell.kind = kind;
    spec.input_size = spec.hidden_size = H;
    const int64_t G = spec.cell.gates();
    const double scale = 1 / std::sqrt(double(H));
    const Array<float> w = random_array<float>(2 * G * H * H, scale);
    const Array<float> b = random_array<float>(2 * G * H, scale);
    const Parameters<const float> parameters{
        w.data(), w.data() + G * H * H, b.data(), b.data() + G * H, nullptr, nullptr};
    return Stream<float>(pack<float>(spec, {parameters}, false));
}

void count_percentiles(benchmark::State& state, Stream<float>& stream, const float* x, float* y,
                       int64_t H) {
    using Clock = std::chrono::steady_clock;
    std::vector<float> times(kSingle);
    for (int i = 0; i < kSingle; ++i) {
        const auto start = Clock::now();
        stream.step(x + i % kSteps * H, y);
        times[i] = std::chrono::duration<float, std::nano>(Clock::now() - start).count();
    }
    const auto quantile = [&](double q) {
        const auto nth = times.begin() + int64_t(q * double(kSingle - 1));
        std::nth_element(times.begin(), nth, times.end());
        return *nth;
    };
    state.counters["median_ns"] = quantile(0.5);
    state.counters["p99.9_ns"] = quantile(0.999);
}

void add_stream(const std::string& isa, const Cell& cell, int64_t H, bool block) {
    const std::string name = std::string(block ? "stream-block/" : "stream/") + cell.name + "/" +
                             isa + (block ? part("T", kSteps) : "") + part("H", H);
    benchmark::RegisterBenchmark(name.c_str(),
                                 [=](benchmark::State& state) {
                                     set_isa(isa);
                                     Stream<float> stream = make_stream(cell.kind, H);
                                     const Array<float> x = random_array<float>(kSteps * H, 1);
                                     Array<float> y(kSteps * H);
                                     if (block) {
                                         for (auto _ : state)
                                             stream.process(x.data(), y.data(), kSteps);
                                         return;
                                     }
                                     int64_t i = 0;
                                     for (auto _ : state)
                                         stream.step(x.data() + i++ % kSteps * H, y.data());
                                     if (H <= 64)
                                         count_percentiles(state, stream, x.data(), y.data(), H);
                                 })
        ->Iterations(block     ? 1000
                     : H <= 64 ? 200000
                               : 5000)
        ->Repetitions(5)
        ->ReportAggregatesOnly();
}

}  // namespace

void add_streams() {
    for (const std::string& isa : available_isas())
        for (const Cell& cell : kCells)
            for (const int64_t H : {8, 16, 32, 64, 128, 256}) {
                add_stream(isa, cell, H, false);
                add_stream(isa, cell, H, true);
            }
}
