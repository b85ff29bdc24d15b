// Weights in int8: quantised, packed, multiplied at every ISA level; what is not right is refused.
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "levels.h"
#include "lstmcore/layer.h"
#include "lstmcore/linear.h"
#include "lstmcore/memory.h"
#include "lstmcore/quantized.h"
#include "lstmcore/stream.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

/// A matrix in int8 and its memory.
struct Quantized {
    std::vector<int8_t> values;
    std::vector<float> scales;

    Quantized(const float* matrix, int64_t rows, int64_t columns)
        : values(size_t(rows * columns)), scales(size_t(rows)) {
        CHECK(quantize(matrix, rows, columns, values.data(), scales.data()));
    }
    QuantizedMatrix matrix() const { return {values.data(), scales.data()}; }
};

LayerSpec layer_spec(CellKind kind, int64_t inputs, int64_t hidden) {
    LayerSpec spec;
    spec.cell.kind = kind;
    spec.input_size = inputs;
    spec.hidden_size = hidden;
    return spec;
}

/// The parameters of a layer of one direction, quantised.
struct QuantizedSet {
    ParameterSet<float> exact;
    std::vector<Quantized> matrices;
    std::vector<QuantizedParameters> sets;

    explicit QuantizedSet(const LayerSpec& spec) : exact(spec) {
        const int64_t H = spec.hidden_size, P = spec.output_size(), rows = spec.cell.gates() * H;
        matrices.reserve(size_t(3 * spec.num_layers));
        for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
            const Parameters<float>& from = exact.sets[size_t(layer)];
            const auto add = [&](const float* matrix, int64_t n, int64_t columns) {
                matrices.emplace_back(matrix, n, columns);
                return matrices.back().matrix();
            };
            QuantizedParameters set;
            set.w_ih = add(from.w_ih, rows, spec.layer_input_size(layer));
            set.w_hh = add(from.w_hh, rows, P);
            if (from.w_hr) set.w_hr = add(from.w_hr, P, H);
            set.b_ih = from.b_ih;
            set.b_hh = from.b_hh;
            set.w_ch = from.w_ch;
            sets.push_back(set);
        }
    }
};

}  // namespace

TEST(the_largest_number_of_a_row_becomes_127) {
    const std::vector<float> matrix{0.5f, -2, 1, 0, 0, 0, 3, 3, -3};
    const Quantized q(matrix.data(), 3, 3);
    const std::vector<int8_t> expected{32, -127, 64, 0, 0, 0, 127, 127, -127};
    CHECK(q.values == expected);
    CHECK_NEAR(q.scales[0], 2.0 / 127, 1e-9);
    CHECK_EQUAL(q.scales[1], 0.0f);
}

TEST(numbers_that_are_not_finite_are_refused) {
    for (const float wrong :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        const float matrix[2] = {1, wrong};
        int8_t values[2];
        float scale;
        CHECK(!quantize(matrix, 1, 2, values, &scale));
    }
}

TEST(products_are_sums_of_whole_numbers) {
    for (const int64_t inputs : {1, 3, 4, 31, 128, 515})
        for (const int64_t outputs : {1, 7, 16, 45}) {
            const auto weight = random_numbers<float>(inputs * outputs, 1);
            const auto bias = random_numbers<float>(outputs, 2);
            const auto x = random_numbers<float>(5 * inputs, 3);
            const Quantized w(weight.data(), outputs, inputs), rows(x.data(), 5, inputs);
            for_each_isa([&](const std::string&) {
                const auto linear = pack_linear(w.matrix(), bias.data(), inputs, outputs);
                std::vector<float> y(size_t(5 * outputs));
                linear_forward(*linear, x.data(), 5, y.data(), 1);
                for (int64_t r = 0; r < 5; ++r)
                    for (int64_t o = 0; o < outputs; ++o) {
                        int64_t sum = 0;
                        for (int64_t i = 0; i < inputs; ++i)
                            sum += rows.values[size_t(r * inputs + i)] *
                                   w.values[size_t(o * inputs + i)];
                        const double scale = double(rows.scales[size_t(r)]) * w.scales[size_t(o)];
                        const double expected = double(sum) * scale + bias[size_t(o)];
                        CHECK_NEAR(y[size_t(r * outputs + o)], expected,
                                   1e-6 * (1 + std::abs(expected)));
                    }
            });
        }
}

TEST(layers_and_their_streams_give_the_same_bits) {
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm, CellKind::gru})
        for_each_isa([&](const std::string&) {
            LayerSpec spec = layer_spec(kind, 5, 21);
            spec.num_layers = 2;
            if (kind == CellKind::lstm) spec.proj_size = 6;
            const QuantizedSet set(spec);
            const auto weights = pack(spec, set.sets);
            const Input<float> input(spec, 7, 2, false, false);
            Sequences<float> in = input.sequences();
            in.h0 = in.c0 = nullptr;
            const int64_t P = spec.output_size();
            std::vector<float> y(size_t(7 * 2 * P)), h(size_t(4 * P)), c(size_t(4 * 21));
            Buffer workspace(forward_workspace_bytes(spec, in, false, 1));
            forward<float>(*weights, in, {y.data(), 2 * P, P}, h.data(),
                           kind == CellKind::lstm ? c.data() : nullptr, nullptr, workspace.data(),
                           1);
            Stream<float> stream({weights}, 2);
            std::vector<float> out(size_t(2 * P));
            for (int64_t t = 0; t < 7; ++t) {
                stream.step(input.x.data() + t * 2 * 5, out.data());
                CHECK(std::memcmp(out.data(), y.data() + t * 2 * P, out.size() * 4) == 0);
            }
        });
}

TEST(what_cannot_be_multiplied_is_refused) {
    const LayerSpec spec = layer_spec(CellKind::gru, 3, 4);
    QuantizedSet set(spec);
    CHECK_THROWS(pack(spec, std::vector<QuantizedParameters>{}), std::invalid_argument, "one set");
    auto sets = set.sets;
    sets[0].w_hh = {};
    CHECK_THROWS(pack(spec, sets), std::invalid_argument, "parameters");
    set.matrices[0].values[5] = -128;
    CHECK_THROWS(pack(spec, set.sets), std::invalid_argument, "w_ih holds -128");
    const std::vector<int8_t> wide(32769);
    const float scale = 1;
    const QuantizedMatrix too_wide{wide.data(), &scale}, none;
    CHECK_THROWS(pack_linear(too_wide, nullptr, 32769, 1), std::invalid_argument,
                 "weight has 32769 columns");
    CHECK_THROWS(pack_linear(none, nullptr, 3, 1), std::invalid_argument, "weight is null");
}

TEST(training_is_refused) {
    const LayerSpec spec = layer_spec(CellKind::lstm, 3, 4);
    const QuantizedSet set(spec);
    const auto weights = pack(spec, set.sets);
    const Input<float> input(spec, 2, 1, false, false);
    const Sequences<float> in = input.sequences();
    std::vector<float> y(8), h(4), c(4), tape(size_t(tape_size(spec, in)));
    Buffer workspace(forward_workspace_bytes(spec, in, true, 1));
    const View<float> to{y.data(), 4, 4};
    CHECK_THROWS(forward(*weights, in, to, h.data(), c.data(), tape.data(), workspace.data(), 1),
                 std::invalid_argument, "int8 are for inference");
}
