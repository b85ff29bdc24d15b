// What the machine can do, for compare.py: multiply-adds per second and bytes read per second, on a
// number of threads at once. Built and loaded by limits.py.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "limits_loops.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + values.size() / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// Each of `threads` threads repeats its burst for `seconds`, all at the same time. Returns the sum
/// of their rates, each the median of its bursts. make_burst(rank) returns a function that does
/// some work, about 20 µs of it, and returns how much.
template <class MakeBurst>
double rate(int threads, double seconds, MakeBurst make_burst) {
    std::vector<double> rates(threads);
    std::atomic<int> waiting{threads};
    const auto work = [&](int rank) {
        const auto burst = make_burst(rank);
        burst();
        waiting.fetch_sub(1);
        while (waiting.load() > 0) {
        }
        std::vector<double> found;
        for (const auto start = Clock::now(); seconds_since(start) < seconds;) {
            const auto before = Clock::now();
            const double amount = burst();
            found.push_back(amount / seconds_since(before));
        }
        // The first of them also bring the clock to the pace of wide registers.
        found.erase(found.begin(), found.begin() + found.size() / 4);
        rates[rank] = median(found);
    };
    std::vector<std::thread> others;
    for (int rank = 1; rank < threads; ++rank) others.emplace_back(work, rank);
    work(0);
    for (std::thread& thread : others) thread.join();
    double sum = 0;
    for (double r : rates) sum += r;
    return sum;
}

/// Memory to read, in huge pages where the system gives them.
class Buffer {
public:
    explicit Buffer(int64_t bytes) : bytes_(bytes) {
        constexpr size_t kHuge = size_t(1) << 21;
        const size_t alignment = size_t(bytes) >= kHuge ? kHuge : 4096;
        const size_t size = (size_t(bytes) + alignment - 1) / alignment * alignment;
        data_ = std::aligned_alloc(alignment, size);
        if (data_ == nullptr) std::abort();
#if defined(MADV_HUGEPAGE)
        if (alignment == kHuge) madvise(data_, size, MADV_HUGEPAGE);
#endif
        std::memset(data_, 1, size);
    }
    Buffer(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }
    const void* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

private:
    int64_t bytes_;
    void* data_;
};

}  // namespace

/// Floating-point operations (float32) per second, in registers or of a product whose operands come
/// from the L1 cache; -1 if the level is not known.
extern "C" double limits_flops(const char* isa, int threads, bool product, double seconds) {
    const limits::Level* level = limits::find_level(isa);
    if (level == nullptr) return -1;
    const auto loop = product ? level->product : level->multiply_add;
    return rate(threads, seconds, [&](int) { return [=] { return double(loop(2000)); }; });
}

/// The same of int8, in registers; -1 if the level has no instruction for its products, or the
/// processor does not have it.
extern "C" double limits_int8(const char* isa, int threads, double seconds) {
    if (!limits::has_int8_dots(isa)) return -1;
    return rate(threads, seconds,
                [&](int) { return [] { return double(limits::int8_dots(2000)); }; });
}

/// Bytes per second that the threads together read, each from `bytes` of its own, over and over.
extern "C" double limits_read(const char* isa, int threads, int64_t bytes, double seconds) {
    const limits::Level* level = limits::find_level(isa);
    if (level == nullptr) return -1;
    bytes = (bytes + limits::kBlock - 1) / limits::kBlock * limits::kBlock;
    static std::vector<std::unique_ptr<Buffer>> buffers;  // kept for the next call
    if (buffers.size() < size_t(threads)) buffers.resize(threads);
    const int64_t passes = std::max<int64_t>((int64_t(1) << 20) / bytes, 1);
    return rate(threads, seconds, [&](int rank) {
        std::unique_ptr<Buffer>& buffer = buffers[rank];
        if (buffer == nullptr || buffer->bytes() != bytes) buffer = std::make_unique<Buffer>(bytes);
        const void* data = buffer->data();
        return [=] {
            static std::atomic<int64_t> sink;
            int64_t seen = 0;
            for (int64_t pass = 0; pass < passes; ++pass) seen |= level->read(data, bytes);
            sink.store(seen, std::memory_order_relaxed);
            return double(passes) * double(bytes);
        };
    });
}
