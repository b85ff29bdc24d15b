// What the machine can do at best: multiply-adds in registers and of a product whose operands come
// from the L1 cache, reading from each cache. What all else is measured by.
#include <algorithm>
#include <cstring>

#include "limits_loops.h"
#include "micro.h"

namespace {

void add_flops(const std::string& name, int64_t (*loop)(int64_t rounds)) {
    benchmark::RegisterBenchmark(name.c_str(), [loop](benchmark::State& state) {
        constexpr int64_t kRounds = 1000;
        int64_t flops = 0;
        for (auto _ : state) flops = loop(kRounds);
        count_flops(state, double(flops));
    });
}

void add_read(const std::string& isa, const limits::Level& level, int cache, int64_t bytes) {
    const std::string name = "limit/read-L" + std::to_string(cache) + "/" + isa;
    benchmark::RegisterBenchmark(name.c_str(), [&level, bytes](benchmark::State& state) {
        const Array<char> data(bytes);
        std::memset(data.data(), 1, bytes);
        for (auto _ : state) benchmark::DoNotOptimize(level.read(data.data(), bytes));
        count_bytes(state, double(bytes));
    });
}

}  // namespace

void add_limits() {
    for (const std::string& isa : lstmcore::available_isas()) {
        const limits::Level* level = limits::find_level(isa.c_str());
        if (level == nullptr) continue;
        add_flops("limit/multiply-add/" + isa, level->multiply_add);
        add_flops("limit/product/" + isa, level->product);
        int64_t inner = 0;
        for (const auto& cache : benchmark::CPUInfo::Get().caches) {
            if (cache.type == "Instruction") continue;
            // Half of it is surely in it. The last is often shared, and huge.
            int64_t bytes = cache.size / 2;
            if (cache.level == 3 && inner > 0) bytes = std::min(bytes, 4 * inner);
            add_read(isa, *level, cache.level, bytes / limits::kBlock * limits::kBlock);
            inner = cache.size;
        }
    }
}
