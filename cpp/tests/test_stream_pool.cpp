// Pools: every stream has the bits of a lone one, ids come once, and threads may open, close and
// reset while another one takes steps.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "lstmcore/quantized.h"
#include "lstmcore/stream_pool.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

/// A stream of the pool beside a lone one, which takes the same steps.
template <class T>
struct Pair {
    int64_t id;
    Stream<T> alone;
};

template <class T>
std::vector<Stage<T>> stages_of(const LayerSpec& spec) {
    const ParameterSet<T> parameters(spec);
    const auto w = random_numbers<T>(2 * spec.feature_size(), 3);
    return {pack<T>(spec, parameters.read_only(), false), Activation{ActivationKind::relu},
            pack_linear<T>(w.data(), nullptr, spec.feature_size(), 2)};
}

/// h and c of a stream, one behind the other.
template <class T>
std::vector<T> state_of(const StreamPool<T>& pool, int64_t id) {
    const LayerSpec& spec = pool.spec(0);
    std::vector<T> numbers(spec.num_layers * (spec.output_size() + spec.hidden_size));
    const StreamState<T> state{numbers.data(),
                               numbers.data() + spec.num_layers * spec.output_size()};
    CHECK(pool.get_state(id, &state));
    return numbers;
}
template <class T>
std::vector<T> state_of(const Stream<T>& stream) {
    const LayerSpec& spec = stream.spec(0);
    std::vector<T> numbers(spec.num_layers * (spec.output_size() + spec.hidden_size));
    stream.get_state(numbers.data(), numbers.data() + spec.num_layers * spec.output_size());
    return numbers;
}

template <class T>
bool same_bits(const T* a, const T* b, int64_t n) {
    return std::memcmp(a, b, sizeof(T) * n) == 0;
}

/// Streams that come and go at random, some of which take a step.
template <class T>
void check_against_lone_streams(const std::vector<Stage<T>>& stages, int64_t capacity, int steps) {
    StreamPool<T> pool(stages, capacity);
    std::mt19937 random(unsigned(capacity) + 1);
    std::vector<Pair<T>> open;
    const int64_t I = pool.input_size(), O = pool.output_size();
    for (int step = 0; step < steps; ++step) {
        while (int64_t(open.size()) < capacity && random() % 3 != 0)
            open.push_back({pool.open(), Stream<T>(stages)});
        if (!open.empty() && random() % 4 == 0) {
            CHECK(pool.close(open.back().id));
            open.pop_back();
        }
        CHECK_EQUAL(pool.count(), int64_t(open.size()));
        std::shuffle(open.begin(), open.end(), random);
        const auto n = int64_t(random() % (open.size() + 1));
        if (n > 0 && random() % 5 == 0) {
            CHECK(pool.reset(&open[0].id, 1));
            open[0].alone.reset();
        }
        const auto x = random_numbers<T>(n * I, unsigned(step), 1);
        std::vector<T> y(n * O), expected(O);
        std::vector<int64_t> ids;
        for (int64_t i = 0; i < n; ++i) ids.push_back(open[i].id);
        CHECK(pool.step(ids.data(), n, x.data(), y.data()));
        for (int64_t i = 0; i < n; ++i) {
            open[i].alone.step(x.data() + i * I, expected.data());
            CHECK(same_bits(y.data() + i * O, expected.data(), O));
        }
    }
    for (const Pair<T>& pair : open) CHECK(state_of(pool, pair.id) == state_of(pair.alone));
}

LayerSpec small_spec(CellKind kind = CellKind::lstm) {
    LayerSpec spec;
    spec.cell.kind = kind;
    spec.input_size = 3;
    spec.hidden_size = 21;
    return spec;
}

}  // namespace

TEST(every_stream_has_the_bits_of_a_lone_one) {
    for_each_isa([](const std::string&) {
        for (const Variant& variant : variants()) {
            if (variant.spec.reverse || variant.spec.bidirectional) continue;
            LayerSpec spec = variant.spec;
            for (const int64_t hidden : {5, 37}) {
                spec.hidden_size = hidden;
                check_against_lone_streams(stages_of<float>(spec), 7, 40);
                check_against_lone_streams(stages_of<double>(spec), 1, 10);
            }
        }
    });
}

TEST(more_streams_than_go_through_the_stages_at_once) {
    LayerSpec spec = small_spec();
    spec.num_layers = 2;
    spec.hidden_size = 130;  // groups of 113
    check_against_lone_streams(stages_of<float>(spec), 500, 6);
}

TEST(weights_in_int8) {
    LayerSpec spec = small_spec(CellKind::gru);
    const ParameterSet<float> parameters(spec);
    const auto set = parameters.read_only()[0];
    const int64_t rows = 3 * spec.hidden_size;
    std::vector<int8_t> ih(rows * 3), hh(rows * spec.hidden_size);
    std::vector<float> ih_scales(rows), hh_scales(rows);
    CHECK(quantize(set.w_ih, rows, 3, ih.data(), ih_scales.data()));
    CHECK(quantize(set.w_hh, rows, spec.hidden_size, hh.data(), hh_scales.data()));
    QuantizedParameters quantized;
    quantized.w_ih = {ih.data(), ih_scales.data()};
    quantized.w_hh = {hh.data(), hh_scales.data()};
    quantized.b_ih = set.b_ih;
    quantized.b_hh = set.b_hh;
    check_against_lone_streams<float>({pack(spec, std::vector<QuantizedParameters>{quantized})}, 9,
                                      30);
}

TEST(y_may_be_x) {
    LayerSpec spec = small_spec();
    spec.input_size = spec.hidden_size;
    const ParameterSet<float> parameters(spec);
    StreamPool<float> pool(pack<float>(spec, parameters.read_only(), false), 300);
    std::vector<int64_t> ids;
    for (int i = 0; i < 300; ++i) ids.push_back(pool.open());
    auto x = random_numbers<float>(300 * 21, 1);
    std::vector<float> y(x.size());
    CHECK(pool.step(ids.data(), 300, x.data(), y.data()));
    CHECK(pool.reset(ids.data(), 300));
    CHECK(pool.step(ids.data(), 300, x.data(), x.data()));
    CHECK(x == y);
}

TEST(states_are_read_and_set) {
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm, CellKind::gru}) {
        LayerSpec spec = small_spec(kind);
        spec.num_layers = 2;
        StreamPool<float> pool(stages_of<float>(spec), 3);
        const int64_t ids[] = {pool.open(), pool.open()};
        const auto x = random_numbers<float>(6, 1);
        std::vector<float> y(4), again(2);
        CHECK(pool.step(ids, 2, x.data(), y.data()));
        const auto saved = state_of(pool, ids[0]), other = state_of(pool, ids[1]);
        CHECK(pool.step(ids, 1, x.data() + 3, y.data()));
        const StreamState<const float> state{saved.data(), saved.data() + 42};
        CHECK(pool.set_state(ids[1], &state));
        CHECK(state_of(pool, ids[1]) == saved);
        CHECK(pool.step(ids + 1, 1, x.data() + 3, again.data()));
        CHECK(same_bits(again.data(), y.data(), 2));
        const StreamState<const float> none;
        CHECK(pool.set_state(ids[1], &none));
        CHECK(state_of(pool, ids[1]) == std::vector<float>(saved.size()));
        CHECK(saved != other);
    }
}

TEST(what_is_wrong_is_said_and_changes_nothing) {
    StreamPool<float> pool(stages_of<float>(small_spec()), 3);
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 3; ++i) CHECK_EQUAL(pool.open(), i);
    CHECK_EQUAL(pool.open(), -1);
    CHECK_EQUAL(pool.count(), 3);
    const auto x = random_numbers<float>(5 * 3, 1);
    std::vector<float> y(5 * 2, 7.0f);
    const int64_t good[] = {2, 0, 1};
    CHECK(pool.step(good, 2, x.data(), y.data()));
    std::vector<std::vector<float>> before;
    for (const int64_t id : {0, 1, 2}) before.push_back(state_of(pool, id));
    const auto refused = [&](const std::vector<int64_t>& bad, PoolError error, int64_t index) {
        y.assign(y.size(), 7.0f);
        const auto n = int64_t(bad.size());
        for (const PoolResult result :
             {pool.step(bad.data(), n, x.data(), y.data()), pool.reset(bad.data(), n)}) {
            CHECK(!result && result.error == error);
            CHECK_EQUAL(result.index, index);
        }
        CHECK(y == std::vector<float>(y.size(), 7.0f));
        CHECK(pool.step(good, 0, x.data(), y.data()));
    };
    refused({0, 1, 3}, PoolError::unknown, 2);  // the generation has room for it, the pool has not
    refused({0, 4}, PoolError::unknown, 1);     // it will be the next of place 0
    refused({-1}, PoolError::unknown, 0);
    refused({INT64_MAX, 0}, PoolError::unknown, 0);
    refused({INT64_MIN}, PoolError::unknown, 0);
    for (const int shift : {61, 62})  // nor is it taken for 0, whatever is added to an id inside
        refused({int64_t(1) << shift}, PoolError::unknown, 0);
    refused({2, 1, 2}, PoolError::repeated, 2);
    refused({0, 1, 2, 0, 1}, PoolError::repeated, 3);
    for (const int64_t id : {0, 1, 2}) CHECK(state_of(pool, id) == before[id]);
    CHECK(pool.close(1));
    CHECK_EQUAL(pool.count(), 2);
    refused({0, 1}, PoolError::closed, 1);
    CHECK(pool.close(1).error == PoolError::closed);
    CHECK(pool.close(5).error == PoolError::unknown);
    CHECK(pool.close(int64_t(1) << 62).error == PoolError::unknown);
    const StreamState<float> nowhere;
    CHECK(pool.get_state(1, &nowhere).error == PoolError::closed);
    CHECK_EQUAL(pool.open(), 5);  // the place of 1, a new number
    CHECK(state_of(pool, 5) == std::vector<float>(before[0].size()));
    refused({1}, PoolError::closed, 0);
    CHECK(pool.close(1).error == PoolError::closed);
    CHECK_THROWS(StreamPool<float>(stages_of<float>(small_spec()), 0), std::invalid_argument,
                 "capacity is 0, expected 1 to 2147483647");
    CHECK_THROWS(StreamPool<float>(stages_of<float>(small_spec()), int64_t(1) << 31),
                 std::invalid_argument, "capacity is 2147483648");
    CHECK_THROWS(StreamPool<float>(std::vector<Stage<float>>{}, 1), std::invalid_argument,
                 "stages");
    CHECK_THROWS(StreamPool<float>(std::shared_ptr<const Weights<float>>(), 1),
                 std::invalid_argument, "null");
}

TEST(streams_that_are_claimed) {
    StreamIds ids(2);
    const int64_t a = ids.open();
    int64_t first;
    CHECK(ids.claim(&a, 1, &first).error == PoolError::in_use);  // by open()
    ids.release(ids.place(a));
    CHECK(ids.claim(&a, 1, &first));
    CHECK_EQUAL(first, ids.place(a));
    CHECK_EQUAL(ids.next(first), -1);
    CHECK(ids.claim(&a, 1, &first).error == PoolError::in_use);
    // Closed meanwhile: nobody has its place before it is released.
    CHECK(ids.close(a));
    CHECK(ids.close(a).error == PoolError::closed);
    CHECK_EQUAL(ids.count(), 0);
    const int64_t b = ids.open();
    CHECK(ids.place(b) != ids.place(a));
    CHECK_EQUAL(ids.open(), -1);
    ids.release(ids.place(a));
    const int64_t c = ids.open();
    CHECK_EQUAL(ids.place(c), ids.place(a));
    CHECK(c != a);
    CHECK_EQUAL(ids.count(), 2);
}

namespace {

/// Opens and closes until told to stop; none of its ids was there before.
void come_and_go(StreamPool<float>& pool, std::atomic<bool>& stop, std::vector<int64_t>& seen) {
    std::vector<int64_t> mine;
    std::mt19937 random(7);
    const StreamState<float> nowhere;
    while (!stop) {
        const int64_t id = pool.open();
        if (id >= 0) mine.push_back(id), seen.push_back(id);
        if (mine.size() > 5 || (id < 0 && !mine.empty())) {
            std::swap(mine[random() % mine.size()], mine.back());
            CHECK(pool.get_state(mine.back(), &nowhere));
            CHECK(pool.reset(&mine.back(), 1));
            CHECK(pool.close(mine.back()));
            CHECK(pool.close(mine.back()).error == PoolError::closed);
            mine.pop_back();
        }
    }
    for (const int64_t id : mine) CHECK(pool.close(id));
}

}  // namespace

TEST(threads_open_and_close_while_one_steps) {
    const auto stages = stages_of<float>(small_spec());
    StreamPool<float> pool(stages, 40);
    std::vector<Pair<float>> mine;
    for (int i = 0; i < 20; ++i) mine.push_back({pool.open(), Stream<float>(stages)});
    std::atomic<bool> stop{false};
    std::vector<std::vector<int64_t>> seen(3);
    std::vector<std::thread> threads;
    for (auto& ids : seen) threads.emplace_back([&] { come_and_go(pool, stop, ids); });
    // A second one that steps is told so, or has its turn; a stream may be closed while it steps.
    std::atomic<long> steps{0}, refused{0};
    threads.emplace_back([&] {
        std::vector<float> x(3, 0.5f), y(2);
        while (!stop) {
            const int64_t id = pool.open();
            if (id < 0) continue;
            std::thread closing([&] { CHECK(pool.close(id)); });
            const PoolResult result = pool.step(&id, 1, x.data(), y.data());
            closing.join();
            if (result.error == PoolError::stepping)
                ++refused;
            else
                CHECK(result || result.error == PoolError::closed);
        }
    });
    std::mt19937 random(1);
    std::vector<float> x(20 * 3), y(20 * 2), expected(2);
    for (int step = 0; step < 3000; ++step) {
        std::shuffle(mine.begin(), mine.end(), random);
        const int64_t n = int64_t(random() % 21);
        int64_t ids[20];
        for (int64_t i = 0; i < n; ++i) ids[i] = mine[i].id;
        for (float& value : x) value = float(random() % 1000) / 500 - 1;
        for (;;) {
            const PoolResult result = pool.step(ids, n, x.data(), y.data());
            if (result) break;
            CHECK(result.error == PoolError::stepping);
        }
        ++steps;
        for (int64_t i = 0; i < n; ++i) {
            mine[i].alone.step(x.data() + i * 3, expected.data());
            CHECK(same_bits(y.data() + i * 2, expected.data(), 2));
        }
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(pool.count(), 20);
    std::set<int64_t> all;
    size_t count = 0;
    for (const auto& ids : seen) {
        count += ids.size();
        all.insert(ids.begin(), ids.end());
    }
    CHECK_EQUAL(all.size(), count);
    CHECK(count > 100);
    // All places are free again.
    for (int i = 0; i < 20; ++i) CHECK(pool.open() >= 0);
    CHECK_EQUAL(pool.open(), -1);
}
