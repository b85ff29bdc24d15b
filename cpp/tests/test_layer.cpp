// Forward and backward of every variant: gradients against finite differences, and the promise of
// bitwise invariance. Buffers have exactly the sizes asked for, so that a sanitizer build sees any
// step beyond them.
#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lstmcore/layer.h"
#include "machine/isa.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

/// Memory of an exact size in bytes, aligned as a workspace or tape must be.
class GuardedMemory {
public:
    explicit GuardedMemory(int64_t bytes) : data_(::operator new(bytes, std::align_val_t(64))) {
        std::memset(data_, 0x7f, bytes);  // nothing may be taken for initialised
    }
    ~GuardedMemory() { ::operator delete(data_, std::align_val_t(64)); }
    GuardedMemory(const GuardedMemory&) = delete;
    void* data() const { return data_; }

private:
    void* data_;
};

template <class T>
struct Result {
    std::vector<T> y, h, c, dx, dh0, dc0;
    std::vector<std::vector<T>> gradients;

    bool operator==(const Result& o) const {
        const auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
            return a.size() == b.size() &&
                   (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
        };
        bool equal = same(y, o.y) && same(h, o.h) && same(c, o.c) && same(dx, o.dx) &&
                     same(dh0, o.dh0) && same(dc0, o.dc0) && gradients.size() == o.gradients.size();
        for (size_t i = 0; equal && i < gradients.size(); ++i)
            equal = same(gradients[i], o.gradients[i]);
        return equal;
    }
};

/// Forward, in training also backward with fixed random output gradients.
template <class T>
Result<T> run(const LayerSpec& spec, const ParameterSet<T>& parameters, const Sequences<T>& in,
              bool train, int threads) {
    const auto weights = pack<T>(spec, parameters.read_only(), train, threads);
    const int64_t F = spec.feature_size(), states = spec.num_layers * spec.directions() * in.batch;
    const int64_t P = spec.output_size(), H = spec.hidden_size;
    const bool lstm = spec.cell.kind == CellKind::lstm;
    Result<T> r;  // not of zeros, so that a number that is never written shows
    r.y.resize(in.steps * in.batch * F, T(77));
    r.h.resize(states * P, T(77));
    if (lstm) r.c.resize(states * H, T(77));
    T* c = lstm ? r.c.data() : nullptr;
    const View<T> y{r.y.data(), in.batch * F, F};
    const GuardedMemory workspace(forward_workspace_bytes(spec, in, train, threads));
    if (!train) {
        forward<T>(*weights, in, y, r.h.data(), c, nullptr, workspace.data(), threads);
        return r;
    }
    const GuardedMemory tape(tape_size(spec, in) * int64_t(sizeof(T)));
    T* on_tape = static_cast<T*>(tape.data());
    forward<T>(*weights, in, y, r.h.data(), c, on_tape, workspace.data(), threads);

    const auto dy = random_numbers<T>(in.steps * in.batch * F, 200);
    const auto dh = random_numbers<T>(states * P, 201), dc = random_numbers<T>(states * H, 202);
    r.dx.resize(in.steps * in.batch * spec.input_size, T(77));
    r.dh0.resize(states * P, T(77));
    if (lstm) r.dc0.resize(states * H, T(77));
    ParameterSet<T> gradients(spec, true);
    const GuardedMemory backward_workspace(backward_workspace_bytes(spec, in, threads));
    backward<T>(*weights, in, {r.y.data(), in.batch * F, F}, on_tape, {dy.data(), in.batch * F, F},
                dh.data(), lstm ? dc.data() : nullptr,
                {r.dx.data(), in.batch * spec.input_size, spec.input_size}, r.dh0.data(),
                lstm ? r.dc0.data() : nullptr, gradients.sets, backward_workspace.data(), threads);
    r.gradients = gradients.arrays;
    return r;
}

/// The loss whose gradients run() computes.
double loss(const LayerSpec& spec, const ParameterSet<double>& parameters,
            const Sequences<double>& in) {
    // Where training is random, with the same random numbers each time.
    const Result<double> r = run(spec, parameters, in, bool(spec.cell.zoneout), 1);
    const auto dot = [](const std::vector<double>& a, unsigned seed) {
        const auto w = random_numbers<double>(int64_t(a.size()), seed);
        double sum = 0;
        for (size_t i = 0; i < a.size(); ++i) sum += a[i] * w[i];
        return sum;
    };
    return dot(r.y, 200) + dot(r.h, 201) + dot(r.c, 202);
}

}  // namespace

TEST(gradients_are_those_of_finite_differences) {
    const double step = 1e-6;
    for_each_isa([&](const std::string& isa_name) {
        for (const Variant& variant : variants()) {
            ParameterSet<double> parameters(variant.spec);
            Input<double> input(variant.spec, 6, 3, true, true);
            const Result<double> r = run(variant.spec, parameters, input.sequences(), true, 1);
            const auto check = [&](std::vector<double>& numbers, const std::vector<double>& exact) {
                CHECK_EQUAL(numbers.size(), exact.size());
                for (size_t i = 0; i < numbers.size(); i += 1 + numbers.size() / 7) {
                    const double saved = numbers[i];
                    numbers[i] = saved + step;
                    const double above = loss(variant.spec, parameters, input.sequences());
                    numbers[i] = saved - step;
                    const double below = loss(variant.spec, parameters, input.sequences());
                    numbers[i] = saved;
                    const double slope = (above - below) / (2 * step);
                    if (!(std::abs(slope - exact[i]) < 1e-7))
                        std::cerr << isa_name << " " << variant.name << std::endl;
                    CHECK_NEAR(slope, exact[i], 1e-7);
                }
            };
            check(input.x, r.dx);
            check(input.h0, r.dh0);
            if (variant.spec.cell.kind == CellKind::lstm) check(input.c0, r.dc0);
            for (size_t i = 0; i < r.gradients.size(); ++i)
                check(parameters.arrays[i], r.gradients[i]);
        }
    });
}

TEST(inference_gives_the_bits_of_training) {
    for_each_isa([](const std::string&) {
        for (const Variant& variant : variants())
            for (const bool ragged : {false, true}) {
                if (variant.spec.cell.zoneout) continue;  // which is random in training
                const ParameterSet<float> parameters(variant.spec);
                const Input<float> input(variant.spec, 9, 4, ragged, ragged);
                Result<float> trained = run(variant.spec, parameters, input.sequences(), true, 1);
                const Result<float> inferred =
                    run(variant.spec, parameters, input.sequences(), false, 1);
                CHECK(trained.y == inferred.y && trained.h == inferred.h &&
                      trained.c == inferred.c);
            }
    });
}

TEST(threads_do_not_change_a_bit) {
    for (const Variant& variant : variants()) {
        LayerSpec spec = variant.spec;
        spec.hidden_size = 35;  // enough work for several threads
        spec.input_size = 21;
        const ParameterSet<float> parameters(spec);
        for (const int64_t batch : {1, 2, 13}) {
            const Input<float> input(spec, 130 / batch * 13, batch, batch > 1, true);
            Sequences<float> in = input.sequences();
            in.dropout = 0.3;
            in.input_dropout = batch > 1 ? 0.2 : 0;
            in.recurrent_dropout = batch > 2 ? 0.4 : 0;
            in.dropout_key = 7;
            const Result<float> one = run(spec, parameters, in, true, 1);
            for (const int threads : {2, 3, 5, 0, -1})
                CHECK(run(spec, parameters, in, true, threads) == one);
        }
    }
}

TEST(threads_that_share_the_units_of_one_row_do_not_change_a_bit) {
    for_each_isa([](const std::string&) {
        for (const Variant& variant : variants())
            for (const int64_t size : {100, 123}) {  // whose last panels are narrower
                LayerSpec spec = variant.spec;
                if (spec.bidirectional || spec.num_layers > 1) continue;
                spec.hidden_size = size;
                const ParameterSet<float> parameters(spec);
                const Input<float> input(spec, 200, 1, false, false);
                for (const bool train : {false, true}) {
                    const auto one = run(spec, parameters, input.sequences(), train, 1);
                    for (const int threads : {2, 7})  // of which some have no unit
                        CHECK(run(spec, parameters, input.sequences(), train, threads) == one);
                }
            }
    });
}

TEST(isa_levels_with_fused_multiply_add_agree_to_the_bit) {
    std::vector<std::string> fused;
    for (const std::string& name : available_isas())
        if (name != "x86-64-v2") fused.push_back(name);
    const std::string before = isa();
    for (const Variant& variant : variants()) {
        LayerSpec spec = variant.spec;
        spec.hidden_size = 37;
        const ParameterSet<float> floats(spec);
        const ParameterSet<double> doubles(spec);
        const Input<float> input(spec, 12, 7, true, true);
        const Input<double> wide(spec, 12, 7, true, true);
        for (size_t i = 0; i + 1 < fused.size(); ++i) {
            set_isa(fused[i]);
            const auto f = run(spec, floats, input.sequences(), true, 1);
            const auto d = run(spec, doubles, wide.sequences(), true, 1);
            set_isa(fused[i + 1]);
            CHECK(run(spec, floats, input.sequences(), true, 1) == f);
            CHECK(run(spec, doubles, wide.sequences(), true, 1) == d);
        }
    }
    set_isa(before);
}

TEST(empty_calls) {
    for (const Variant& variant : variants()) {
        const ParameterSet<float> parameters(variant.spec);
        for (const auto& [steps, batch] : {std::pair<int64_t, int64_t>{0, 3}, {4, 0}, {0, 0}}) {
            const Input<float> input(variant.spec, steps, batch, false, false);
            const Result<float> r = run(variant.spec, parameters, input.sequences(), true, 2);
            CHECK(r.h == input.h0);
            CHECK(r.dh0 == random_numbers<float>(int64_t(r.dh0.size()), 201));
            for (const auto& gradient : r.gradients)
                for (const float g : gradient) CHECK_EQUAL(g, 0.0f);
            CHECK(tape_size(variant.spec, input.sequences()) > 0);  // or it would be taken for none
        }
    }
}

TEST(only_the_rnn_has_no_gates_on_its_tape) {
    for (const Variant& variant : variants()) {
        const Sequences<float> in = Input<float>(variant.spec, 2, 3, false, false).sequences();
        const std::vector<float> tape(tape_size(variant.spec, in));
        const bool has_gates(tape_gates(variant.spec, in, tape.data(), 0, 0));
        CHECK_EQUAL(has_gates, variant.spec.cell.kind != CellKind::rnn);
    }
}

TEST(sizes_around_the_lanes) {
    for_each_isa([](const std::string&) {
        for (const Variant& variant : variants())
            for (const int64_t size : {1, 4, 7, 8, 9, 15, 16, 17, 22, 27, 33, 64, 65}) {
                LayerSpec spec = variant.spec;
                spec.hidden_size = size;
                spec.input_size = size + 1;
                if (spec.proj_size > 0) spec.proj_size = size / 2;
                const ParameterSet<float> floats(spec);
                const ParameterSet<double> doubles(spec);
                for (const int64_t batch : {1, 2, 9}) {
                    const Input<float> narrow(spec, 3, batch, true, false);
                    const Input<double> wide(spec, 3, batch, true, false);
                    const auto f = run(spec, floats, narrow.sequences(), true, 2);
                    const auto d = run(spec, doubles, wide.sequences(), true, 2);
                    for (size_t i = 0; i < f.y.size(); ++i) CHECK_NEAR(f.y[i], d.y[i], 1e-4);
                    for (size_t i = 0; i < f.dx.size(); ++i) CHECK_NEAR(f.dx[i], d.dx[i], 1e-3);
                }
            }
    });
}

TEST(parameters_other_than_those_of_the_spec_are_refused) {
    for (const Variant& variant : variants()) {
        const ParameterSet<float> parameters(variant.spec);
        const float number = 0;
        for (const float* Parameters<const float>::* array :
             {&Parameters<const float>::w_ih, &Parameters<const float>::w_hh,
              &Parameters<const float>::b_ih, &Parameters<const float>::b_hh,
              &Parameters<const float>::w_ch, &Parameters<const float>::w_hr}) {
            auto sets = parameters.read_only();
            sets.back().*array = sets.back().*array ? nullptr : &number;
            CHECK_THROWS(pack<float>(variant.spec, sets, false), std::invalid_argument,
                         "parameters");
        }
    }
}

TEST(bad_specs_and_lengths_are_refused) {
    LayerSpec spec;
    CHECK_THROWS(spec.check(), std::invalid_argument, "input_size");
    spec.input_size = 3;
    spec.hidden_size = 4;
    spec.check();
    spec.proj_size = 4;
    CHECK_THROWS(spec.check(), std::invalid_argument, "proj_size");
    spec.proj_size = 0;
    spec.cell.forget_gate = false;
    spec.cell.coupled = true;
    CHECK_THROWS(spec.check(), std::invalid_argument, "forget_gate");
    spec.cell = CellSpec();
    spec.merge = Merge::sum;
    CHECK_THROWS(spec.check(), std::invalid_argument, "merge");
    spec.merge = Merge::concat;
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm}) {
        spec.cell.kind = kind;
        spec.cell.reset_after = false;
        CHECK_THROWS(spec.check(), std::invalid_argument, "reset_after");
        spec.cell = CellSpec();
    }
    for (const CellKind kind : {CellKind::rnn, CellKind::gru}) {
        spec.cell.kind = kind;
        spec.cell.output = {ActivationKind::identity};
        CHECK_THROWS(spec.check(), std::invalid_argument, "output");
        spec.cell = CellSpec();
    }
    spec.cell.kind = CellKind::rnn;
    spec.cell.gate = {ActivationKind::hard_sigmoid, 0.2, 0.5};
    CHECK_THROWS(spec.check(), std::invalid_argument, "gate");
    spec.cell = CellSpec();
    spec.cell.gate.alpha = std::nan("");
    CHECK_THROWS(spec.check(), std::invalid_argument, "gate");
    spec.cell = CellSpec();
    spec.cell.candidate = {ActivationKind::scaled_tanh, 0, 1};
    CHECK_THROWS(spec.check(), std::invalid_argument, "candidate");
    for (const ActivationKind kind :
         {ActivationKind::elu, ActivationKind::leaky_relu, ActivationKind::thresholded_relu}) {
        spec.cell.candidate = {kind, -0.1};
        CHECK_THROWS(spec.check(), std::invalid_argument, "candidate_activation has alpha -0.1");
    }
    spec.cell = CellSpec();
    for (int64_t LayerSpec::* size :
         {&LayerSpec::input_size, &LayerSpec::hidden_size, &LayerSpec::num_layers}) {
        const int64_t before = std::exchange(spec.*size, int64_t(1) << 31);
        CHECK_THROWS(spec.check(), std::invalid_argument, "is 2147483648");
        spec.*size = before;
    }
    spec.check();

    const ParameterSet<float> parameters(spec);
    Input<float> input(spec, 3, 2, true, false);
    input.lengths = {1, 4};
    CHECK_THROWS(run(spec, parameters, input.sequences(), false, 1), std::invalid_argument,
                 "lengths[1]");
    input.lengths = {-1, 3};
    CHECK_THROWS(run(spec, parameters, input.sequences(), true, 1), std::invalid_argument,
                 "lengths[0] is -1, expected 0 .. 3");
    Sequences<float> huge = input.sequences();
    huge.steps = int64_t(1) << 60;
    CHECK_THROWS(tape_size(spec, huge), std::bad_alloc, "");
}

TEST(pointers_and_sizes_that_cannot_be_are_refused) {
    LayerSpec spec;
    spec.cell.kind = CellKind::gru;
    spec.input_size = 3;
    spec.hidden_size = 5;
    const ParameterSet<float> parameters(spec);
    const auto weights = pack<float>(spec, parameters.read_only(), true);
    Input<float> input(spec, 4, 2, false, false);
    const Sequences<float> in = input.sequences();
    const GuardedMemory workspace(forward_workspace_bytes(spec, in, true, 1));
    const GuardedMemory tape(tape_size(spec, in) * int64_t(sizeof(float)));
    const GuardedMemory more(backward_workspace_bytes(spec, in, 1));
    std::vector<float> y(4 * 2 * 5), state(2 * 5), dx(4 * 2 * 3);
    const View<float> view{y.data(), 2 * 5, 5}, dx_view{dx.data(), 2 * 3, 3};
    const View<const float> y_view{y.data(), 2 * 5, 5};
    const auto run_forward = [&](const Sequences<float>& with, View<float> to, float* h, float* c) {
        forward<float>(*weights, with, to, h, c, static_cast<float*>(tape.data()), workspace.data(),
                       1);
    };
    const auto refused = [&](const Sequences<float>& with, const char* part) {
        CHECK_THROWS(run_forward(with, view, state.data(), nullptr), std::invalid_argument, part);
    };
    run_forward(in, view, state.data(), nullptr);
    // Only an LSTM has a cell.
    CHECK_THROWS(run_forward(in, view, state.data(), state.data()), std::invalid_argument, "c_n");
    CHECK_THROWS(run_forward(in, view, nullptr, nullptr), std::invalid_argument, "h_n is null");
    CHECK_THROWS(run_forward(in, {}, state.data(), nullptr), std::invalid_argument, "y is null");
    Sequences<float> other = in;
    other.c0 = state.data();
    refused(other, "only the LSTM has a cell");
    other = in;
    other.steps = -1;
    refused(other, "steps and batch");
    CHECK_THROWS(tape_size(spec, other), std::invalid_argument, "steps and batch");
    CHECK_THROWS(forward_workspace_bytes(spec, other, true, 1), std::invalid_argument, "steps");
    CHECK_THROWS(backward_workspace_bytes(spec, other, 1), std::invalid_argument, "steps");
    other = in;
    other.batch = -2;
    refused(other, "steps and batch");
    other = in;
    other.x = {};
    refused(other, "x and lookup are null");
    other = in;
    other.dropout = 1;
    refused(other, "dropout");
    other = in;
    other.input_dropout = -0.1;
    refused(other, "input_dropout");
    other = in;
    other.recurrent_dropout = 1;
    refused(other, "recurrent_dropout");
    other = in;
    other.first_step = -1;
    refused(other, "first_step");
    other = in;
    other.whole_steps = 3;
    refused(other, "not within whole_steps");
    const int64_t negative[] = {-1, 2};
    other = in;
    other.lengths = negative;
    refused(other, "lengths[0] is -1");

    ParameterSet<float> gradients(spec, true);
    const auto run_backward = [&](const float* on_tape, const float* dc_n, View<float> to,
                                  float* dh0, float* dc0,
                                  const std::vector<Parameters<float>>& sets) {
        backward<float>(*weights, in, y_view, on_tape, y_view, nullptr, dc_n, to, dh0, dc0, sets,
                        more.data(), 1);
    };
    const float* const on_tape = static_cast<const float*>(tape.data());
    float* const h = state.data();
    run_backward(on_tape, nullptr, dx_view, h, nullptr, gradients.sets);
    const auto first_arrays = gradients.arrays;
    const auto backward_refused = [&](auto call, const char* part) {
        CHECK_THROWS(call(), std::invalid_argument, part);
    };
    backward_refused([&] { run_backward(on_tape, h, dx_view, h, nullptr, gradients.sets); },
                     "dc_n");
    backward_refused([&] { run_backward(on_tape, nullptr, dx_view, h, h, gradients.sets); }, "dc0");
    backward_refused([&] { run_backward(nullptr, nullptr, dx_view, h, nullptr, gradients.sets); },
                     "tape is null");
    backward_refused(
        [&] { run_backward(on_tape, nullptr, dx_view, nullptr, nullptr, gradients.sets); },
        "dh0 is null");
    // Without dx the others are as with it.
    ParameterSet<float> others(spec, true);
    run_backward(on_tape, nullptr, {}, h, nullptr, others.sets);
    CHECK(others.arrays == first_arrays);
    const int64_t ids[8] = {};
    other = in;
    other.x = {};
    other.lookup = {ids, 2, 1};
    other.table = y.data();
    other.table_rows = 1;
    backward_refused(
        [&] {
            backward<float>(*weights, other, y_view, on_tape, y_view, nullptr, nullptr, {}, h,
                            nullptr, gradients.sets, more.data(), 1);
        },
        "dx is null");
    backward_refused([&] { run_backward(on_tape, nullptr, dx_view, h, nullptr, {}); }, "gradients");
    CHECK_THROWS(tape_gates(spec, in, on_tape, 1, 0), std::invalid_argument, "no such part");
    CHECK_THROWS(tape_cells(spec, in, on_tape, 0, 1), std::invalid_argument, "no such part");

    spec.cell.kind = CellKind::lstm;
    const ParameterSet<float> of_lstm(spec);
    const auto lstm = pack<float>(spec, of_lstm.read_only(), false);
    const GuardedMemory room(forward_workspace_bytes(spec, in, false, 1));
    CHECK_THROWS(forward<float>(*lstm, in, view, h, nullptr, nullptr, room.data(), 1),
                 std::invalid_argument, "c_n is null");
}
