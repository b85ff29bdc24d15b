// Streams: the bits of the whole sequence at once for every variant, and nothing that a real-time
// thread must not do.
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "lstmcore/stream.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Outputs and the last state of a sequence.
template <class T>
struct Run {
    std::vector<T> y, h, c;

    bool operator==(const Run& o) const {
        return same_bits(y, o.y) && same_bits(h, o.h) && same_bits(c, o.c);
    }
};

template <class T>
Run<T> empty_run(const LayerSpec& spec, int64_t steps, int64_t batch) {
    Run<T> run;
    run.y.resize(steps * batch * spec.feature_size());
    run.h.resize(spec.num_layers * batch * spec.output_size());
    if (spec.cell.kind == CellKind::lstm) run.c.resize(spec.num_layers * batch * spec.hidden_size);
    return run;
}

template <class T>
Run<T> whole(const LayerSpec& spec, const Weights<T>& weights, const Sequences<T>& in) {
    Run<T> run = empty_run<T>(spec, in.steps, in.batch);
    const int64_t F = spec.feature_size();
    std::vector<T> workspace(forward_workspace_bytes(spec, in, false, 1) / sizeof(T) + 64);
    void* aligned = workspace.data();
    size_t space = workspace.size() * sizeof(T);
    std::align(64, 1, aligned, space);
    forward<T>(weights, in, {run.y.data(), in.batch * F, F}, run.h.data(),
               run.c.empty() ? nullptr : run.c.data(), nullptr, aligned, 1);
    return run;
}

/// By process() over blocks of that many steps; 0: by step().
template <class T>
Run<T> streamed(const LayerSpec& spec, Stream<T> stream, const Sequences<T>& in, int64_t block) {
    Run<T> run = empty_run<T>(spec, in.steps, in.batch);
    const int64_t F = spec.feature_size();
    stream.set_state(in.h0, in.c0);
    for (int64_t t = 0; t < in.steps; t += std::max<int64_t>(block, 1)) {
        T* y = run.y.data() + t * in.batch * F;
        if (block == 0)
            stream.step(in.x.at(t, 0), y);
        else
            stream.process(in.x.at(t, 0), y, std::min(block, in.steps - t));
    }
    stream.get_state(run.h.data(), run.c.empty() ? nullptr : run.c.data());
    return run;
}

template <class T>
void check_variant(LayerSpec spec) {
    for (const int64_t hidden : {5, 16, 37}) {
        spec.hidden_size = hidden;
        const ParameterSet<T> parameters(spec);
        const auto weights = pack<T>(spec, parameters.read_only(), false);
        for (const int64_t batch : {1, 3, 40}) {
            const Input<T> input(spec, 75, batch, false, false);
            const Sequences<T> in = input.sequences();
            const Run<T> expected = whole(spec, *weights, in);
            const Stream<T> stream(weights, batch);
            for (const int64_t block : {0, 1, 2, 31, 32, 75})
                CHECK(streamed(spec, stream, in, block) == expected);
        }
    }
}

Stage<float> tanh_stage() {
    return Activation{ActivationKind::tanh};
}

}  // namespace

TEST(a_stream_gives_the_bits_of_the_whole) {
    for_each_isa([](const std::string&) {
        for (const Variant& variant : variants()) {
            if (variant.spec.reverse || variant.spec.bidirectional) continue;
            check_variant<float>(variant.spec);
            check_variant<double>(variant.spec);
        }
    });
}

TEST(y_may_be_x) {
    LayerSpec spec;
    spec.input_size = spec.hidden_size = 21;
    spec.num_layers = 2;
    const ParameterSet<float> parameters(spec);
    const auto weights = pack<float>(spec, parameters.read_only(), false);
    const Input<float> input(spec, 70, 2, false, false);
    const Run<float> expected = whole(spec, *weights, input.sequences());
    std::vector<float> y = input.x;
    Stream<float> stream(weights, 2);
    stream.set_state(input.h0.data(), input.c0.data());
    for (int64_t t = 0; t < 4; ++t) stream.step(y.data() + t * 42, y.data() + t * 42);
    stream.process(y.data() + 4 * 42, y.data() + 4 * 42, 66);
    CHECK(same_bits(y, expected.y));
}

TEST(a_model_is_its_stages_one_after_the_other) {
    LayerSpec lstm;
    lstm.input_size = 6;
    lstm.hidden_size = 19;
    LayerSpec gru;
    gru.cell.kind = CellKind::gru;
    gru.input_size = 7;
    gru.hidden_size = 4;
    gru.num_layers = 2;
    const ParameterSet<float> lstm_parameters(lstm), gru_parameters(gru);
    const auto lstm_weights = pack<float>(lstm, lstm_parameters.read_only(), false);
    const auto gru_weights = pack<float>(gru, gru_parameters.read_only(), false);
    const auto w = random_numbers<float>(7 * 19, 1), b = random_numbers<float>(7, 2);
    const auto linear = pack_linear<float>(w.data(), b.data(), 19, 7);
    const int64_t steps = 41, batch = 2;
    const Input<float> input(lstm, steps, batch, false, false);

    Stream<float> first(lstm_weights, batch), last(gru_weights, batch);
    std::vector<float> hidden(steps * batch * 19), middle(steps * batch * 7),
        expected(steps * batch * 4);
    std::vector<float> x = input.x;
    first.process(x.data(), hidden.data(), steps);
    for (int64_t row = 0; row < steps * batch; ++row)
        for (int64_t o = 0; o < 7; ++o) {
            double sum = b[o];
            for (int64_t k = 0; k < 19; ++k) sum += double(w[o * 19 + k]) * hidden[row * 19 + k];
            middle[row * 7 + o] = float(std::tanh(sum));
        }
    last.process(middle.data(), expected.data(), steps);

    Stream<float> model({lstm_weights, linear, tanh_stage(), gru_weights}, batch);
    CHECK_EQUAL(model.input_size(), 6);
    CHECK_EQUAL(model.output_size(), 4);
    CHECK_EQUAL(model.num_states(), 2);
    std::vector<float> y(expected.size()), again(expected.size());
    model.process(x.data(), y.data(), steps);
    for (size_t i = 0; i < y.size(); ++i) CHECK_NEAR(y[i], expected[i], 1e-5);

    model.reset();
    for (int64_t t = 0; t < steps; ++t)
        model.step(x.data() + t * batch * 6, again.data() + t * batch * 4);
    CHECK(same_bits(y, again));

    // Without a bias, and with a function of the input in front.
    const auto plain = pack_linear<float>(w.data(), nullptr, 19, 7);
    Stream<float> small({tanh_stage(), plain});
    std::vector<float> one(7);
    small.step(x.data(), one.data());
    for (int64_t o = 0; o < 7; ++o) {
        double sum = 0;
        for (int64_t k = 0; k < 19; ++k) sum += double(w[o * 19 + k]) * std::tanh(double(x[k]));
        CHECK_NEAR(one[o], sum, 1e-5);
    }
}

TEST(layer_norm_and_softmax) {
    const std::vector<float> x = {1, 1, 3, 3, 0, 1000, 1000, -5};
    std::vector<float> y(8);
    Stream<float> norm({LayerNorm<float>{4, {1, 2, 1, 1}, {0, 0, 0, 5}, 0}}, 2);
    norm.step(x.data(), y.data());
    const float expected[] = {-1, -2, 1, 6};
    for (int i = 0; i < 4; ++i) CHECK_NEAR(y[i], expected[i], 1e-6);
    Stream<float> softmax({LayerNorm<float>{4, {}, {}, 1e-5}, Softmax{}}, 2);
    softmax.step(x.data(), y.data());
    CHECK_NEAR(y[0] + y[1] + y[2] + y[3], 1, 1e-6);
    CHECK_NEAR(y[2] / y[0], std::exp(2), 1e-4);
    CHECK_THROWS(Stream<float>({LayerNorm<float>{4, {1, 2}, {}, 0}}), std::invalid_argument,
                 "LayerNorm");
}

TEST(copies_go_their_own_way) {
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm, CellKind::gru}) {
        LayerSpec spec;
        spec.cell.kind = kind;
        spec.input_size = 3;
        spec.hidden_size = 20;
        spec.num_layers = 2;
        const ParameterSet<float> parameters(spec);
        const auto weights = pack<float>(spec, parameters.read_only(), false);
        const auto x = random_numbers<float>(3 * 9, 5);
        std::vector<float> y(20 * 9), other(20 * 9);
        Stream<float> stream(weights);
        stream.step(x.data(), y.data());
        Stream<float> copy = stream;
        const std::vector<float> junk(3, 7);
        std::vector<float> ignored(20);
        Stream<float> third = copy;
        third.step(junk.data(), ignored.data());
        stream.process(x.data() + 3, y.data() + 20, 8);
        for (int64_t t = 1; t < 9; ++t) copy.step(x.data() + 3 * t, other.data() + 20 * t);
        CHECK(std::equal(y.begin() + 20, y.end(), other.begin() + 20));
        third = std::move(copy);
        std::vector<float> h(40), moved(40);
        stream.get_state(h.data(), nullptr);
        third.get_state(moved.data(), nullptr);
        CHECK(same_bits(h, moved));
    }
}

TEST(a_copy_gives_the_bits_of_the_stream_whatever_the_isa_level_is_by_then) {
    const auto x = random_numbers<float>(4 * 500, 5, 3);
    for_each_isa([&](const std::string& name) {
        Stream<float> stream({LayerNorm<float>{4, {}, {}, 1e-5}, tanh_stage()});
        std::vector<float> y(x.size()), other(x.size());
        stream.process(x.data(), y.data(), 500);
        for (const std::string& later : available_isas()) {
            set_isa(later);
            Stream<float> copy = stream;
            copy.process(x.data(), other.data(), 500);
            CHECK(same_bits(y, other));
        }
        set_isa(name);
    });
}

TEST(rows_are_reset_one_by_one) {
    LayerSpec spec;
    spec.input_size = 3;
    spec.hidden_size = 17;
    spec.num_layers = 2;
    const ParameterSet<float> parameters(spec);
    const auto weights = pack<float>(spec, parameters.read_only(), false);
    const auto x = random_numbers<float>(2 * 3, 5);
    std::vector<float> start(2 * 17), y(2 * 17);
    Stream<float> stream(weights, 2);
    stream.step(x.data(), start.data());
    stream.reset(1);
    stream.step(x.data(), y.data());
    CHECK(std::equal(y.begin() + 17, y.end(), start.begin() + 17));
    CHECK(!std::equal(y.begin(), y.begin() + 17, start.begin()));
    stream.reset();
    stream.step(x.data(), y.data());
    CHECK(same_bits(y, start));
}

TEST(what_cannot_be_streamed_is_refused) {
    const auto weights_of = [](LayerSpec spec) {
        spec.input_size = 3;
        spec.hidden_size = 5;
        return pack<float>(spec, ParameterSet<float>(spec).read_only(), false);
    };
    LayerSpec spec;
    CHECK_THROWS(Stream<float>(weights_of(spec), 0), std::invalid_argument, "batch_size is 0");
    CHECK_THROWS(Stream<float>(weights_of(spec), int64_t(1) << 60), std::bad_alloc, "");
    CHECK_THROWS(Stream<float>({weights_of(spec), weights_of(spec)}), std::invalid_argument,
                 "5 features come to one that takes 3");
    CHECK_THROWS(Stream<float>({tanh_stage()}), std::invalid_argument, "none says");
    CHECK_THROWS(Stream<float>(std::vector<Stage<float>>{}), std::invalid_argument, "stages");
    CHECK_THROWS(Stream<float>(std::shared_ptr<const Weights<float>>()), std::invalid_argument,
                 "null");
    CHECK_THROWS(pack_linear<float>(nullptr, nullptr, 0, 3), std::invalid_argument, "inputs is 0");
    CHECK_THROWS(pack_linear<float>(nullptr, nullptr, 3, int64_t(1) << 62), std::invalid_argument,
                 "outputs is");
    spec.reverse = true;
    CHECK_THROWS(Stream<float>(weights_of(spec)), std::invalid_argument, "reverse");
    spec.reverse = false;
    spec.bidirectional = true;
    CHECK_THROWS(Stream<float>(weights_of(spec)), std::invalid_argument, "bidirectional");
}
