// Threads that use one layer, while another one packs new weights and swaps them: each call has the
// bits of the old weights or of the new ones. What ThreadSanitizer is to look at.
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "lstmcore/layer.h"
#include "lstmcore/stream_pool.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

using Shared = std::shared_ptr<const Weights<float>>;
using Numbers = std::vector<float>;

constexpr int64_t kSteps = 6, kRows = 5;
constexpr int kRounds = 150;

LayerSpec spec_of(CellKind kind) {
    LayerSpec spec;
    spec.cell.kind = kind;
    spec.input_size = 3;
    spec.hidden_size = 21;
    spec.num_layers = 2;
    return spec;
}

/// The weights that are in use: users take them, and have them for as long as they like.
class Current {
public:
    explicit Current(Shared weights) : weights_(std::move(weights)) {}
    Shared get() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return weights_;
    }
    void swap(Shared weights) {
        const std::lock_guard<std::mutex> lock(mutex_);
        weights_.swap(weights);
    }

private:
    mutable std::mutex mutex_;
    Shared weights_;
};

struct Release {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};

Numbers forward_of(const LayerSpec& spec, const Weights<float>& weights, const Sequences<float>& in,
                   int threads) {
    const int64_t F = spec.feature_size(), states = spec.num_layers * in.batch;
    Numbers y(in.steps * in.batch * F), h(states * F), c(states * F);
    const int64_t bytes = forward_workspace_bytes(spec, in, false, threads);
    const std::unique_ptr<void, Release> workspace(::operator new(bytes, std::align_val_t(64)));
    forward<float>(weights, in, {y.data(), in.batch * F, F}, h.data(),
                   spec.cell.kind == CellKind::lstm ? c.data() : nullptr, nullptr, workspace.get(),
                   threads);
    return y;
}

/// The steps of all rows by a new pool, from zeros.
Numbers stepped(const Shared& weights, const Input<float>& input) {
    StreamPool<float> pool(weights, kRows);
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < kRows; ++i) ids.push_back(pool.open());
    const int64_t F = pool.output_size();
    Numbers y(kSteps * kRows * F);
    for (int64_t t = 0; t < kSteps; ++t)
        CHECK(pool.step(ids.data(), kRows, input.x.data() + t * kRows * input.I,
                        y.data() + t * kRows * F));
    return y;
}

/// Calls work() on `count` threads, and swap(i) on this one, until each has had its rounds.
template <class Work, class Swap>
void together(int count, Work work, Swap swap) {
    std::atomic<int> left{count};
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round < kRounds; ++round) work(i);
            --left;
        });
    for (int i = 0; left > 0 || i < kRounds; ++i) swap(i);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

TEST(weights_are_swapped_while_threads_call_and_step) {
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm, CellKind::gru}) {
        const LayerSpec spec = spec_of(kind);
        const ParameterSet<float> first(spec), second(spec, true);  // random numbers, and zeros
        const auto packed = [&](bool other, int threads) {
            return pack<float>(spec, (other ? second : first).read_only(), false, threads);
        };
        Input<float> input(spec, kSteps, kRows, false, false);
        Sequences<float> in = input.sequences();
        in.h0 = in.c0 = nullptr;
        const Numbers expected[] = {forward_of(spec, *packed(false, 1), in, 1),
                                    forward_of(spec, *packed(true, 1), in, 1)};
        CHECK(expected[0] != expected[1]);
        Current current(packed(false, 1));
        const auto work = [&](int thread) {
            const Shared weights = current.get();
            const Numbers y =
                thread % 2 ? stepped(weights, input) : forward_of(spec, *weights, in, 2);
            CHECK(y == expected[0] || y == expected[1]);
        };
        together(4, work, [&](int i) { current.swap(packed(i % 2, 1 + i % 3)); });
    }
}

TEST(a_pool_is_swapped_while_its_streams_come_and_go) {
    const LayerSpec spec = spec_of(CellKind::lstm);
    const ParameterSet<float> first(spec), second(spec, true);
    const auto make = [&](bool other) {
        const auto set = other ? second.read_only() : first.read_only();
        return std::make_shared<StreamPool<float>>(pack<float>(spec, set, false), 8);
    };
    std::shared_ptr<StreamPool<float>> pool = make(false);
    std::mutex mutex;
    const auto current = [&] {
        const std::lock_guard<std::mutex> lock(mutex);
        return pool;
    };
    const Numbers x{0.5f, -1.0f, 2.0f};
    Numbers expected[2];
    for (const bool other : {false, true}) {
        const auto one = make(other);
        const int64_t id = one->open();
        expected[other].resize(21);
        CHECK(one->step(&id, 1, x.data(), expected[other].data()));
    }
    const auto work = [&](int) {
        const auto mine = current();  // a stream stays with the pool in which it was opened
        const int64_t id = mine->open();
        if (id < 0) return;
        Numbers y(21);
        PoolResult result;
        do result = mine->step(&id, 1, x.data(), y.data());
        while (result.error == PoolError::stepping);
        CHECK(result);
        CHECK(y == expected[0] || y == expected[1]);
        CHECK(mine->reset(&id, 1));
        CHECK(mine->close(id));
    };
    together(4, work, [&](int i) {
        auto other = make(i % 2);
        const std::lock_guard<std::mutex> lock(mutex);
        pool.swap(other);
    });
}
