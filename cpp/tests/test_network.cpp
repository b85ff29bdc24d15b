// Whole models from files: their outputs are Python's, and whatever is not right is refused.
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "files/tensor_file.h"
#include "lstmcore/machine.h"
#include "lstmcore/model.h"
#include "lstmcore/network.h"
#include "network/operations.h"
#include "test.h"

using namespace lstmcore;
using namespace test;

namespace {

/// What data/record_networks.py has written.
class Recorded {
public:
    Recorded() {
        std::ifstream file(LSTMCORE_TEST_DATA "/networks.safetensors", std::ios::binary);
        std::ostringstream data;
        data << file.rdbuf();
        bytes_ = data.str();
        file_ = TensorFile::parse(bytes_.data(), bytes_.size());
    }

    std::set<std::string> cases() const {
        std::set<std::string> names;
        for (const auto& [name, tensor] : file_.tensors)
            names.insert(name.substr(0, name.find('/')));
        return names;
    }
    bool has(const std::string& name) const { return file_.tensors.count(name) > 0; }
    std::string model(const std::string& name) const {
        const Tensor& tensor = file_.tensors.at(name + "/model");
        return {tensor.data, size_t(tensor.bytes)};
    }
    const std::vector<int64_t>& shape(const std::string& name) const {
        return file_.tensors.at(name).shape;
    }
    template <class T>
    std::vector<T> numbers(const std::string& name) const {
        const Tensor& tensor = file_.tensors.at(name);
        return tensor.dtype == "F32" ? converted<float, T>(tensor) : converted<double, T>(tensor);
    }

private:
    template <class From, class To>
    static std::vector<To> converted(const Tensor& tensor) {
        std::vector<From> numbers(size_t(tensor.bytes) / sizeof(From));
        if (!numbers.empty()) std::memcpy(numbers.data(), tensor.data, size_t(tensor.bytes));
        return {numbers.begin(), numbers.end()};
    }

    std::string bytes_;
    TensorFile file_;
};

const Recorded& recorded() {
    static const Recorded all;
    return all;
}

/// The inputs of a case, and what keeps them alive.
template <class T>
struct Inputs {
    std::vector<std::vector<T>> x;
    std::vector<std::vector<int64_t>> ids, lengths;
    std::vector<NetworkInput<T>> given;
    int64_t batch = 0;

    explicit Inputs(const std::string& name) {
        for (size_t i = 0;; ++i) {
            const std::string end = std::to_string(i);
            const bool ids_there = recorded().has(name + "/ids" + end);
            const std::string key = name + (ids_there ? "/ids" : "/x") + end;
            if (!recorded().has(key)) break;
            const std::vector<int64_t>& shape = recorded().shape(key);
            const bool steps = shape.size() == size_t(ids_there ? 2 : 3);
            batch = shape[steps ? 1 : 0];
            x.push_back(ids_there ? std::vector<T>() : recorded().numbers<T>(key));
            ids.push_back(ids_there ? recorded().numbers<int64_t>(key) : std::vector<int64_t>());
            const std::string ends = name + "/lengths" + end;
            lengths.push_back(recorded().has(ends) ? recorded().numbers<int64_t>(ends)
                                                   : std::vector<int64_t>());
            NetworkInput<T> input;
            input.x = ids_there ? nullptr : x.back().data();
            input.ids = ids_there ? ids.back().data() : nullptr;
            if (steps) input.steps = shape[0];
            if (recorded().has(ends)) input.lengths = lengths.back().data();
            given.push_back(input);
        }
    }
};

template <class T>
Network<T> network(const std::string& name) {
    const std::string file = recorded().model(name);
    // In memory of exactly that size, for the sanitizer.
    const std::vector<char> data(file.begin(), file.end());
    return load_network<T>(data.data(), data.size(), name);
}

template <class T>
void check_case(const std::string& name, double tolerance) {
    const Network<T> net = network<T>(name);
    const Inputs<T> in(name);
    CHECK_EQUAL(net.inputs().size(), in.given.size());
    for (const int num_threads : {1, 2}) {
        const auto outputs = net.forward(in.given, in.batch, num_threads);
        CHECK_EQUAL(outputs.size(), net.outputs().size());
        for (size_t i = 0; i < outputs.size(); ++i) {
            const std::string key = name + "/y" + std::to_string(i);
            const std::vector<T> expected = recorded().numbers<T>(key);
            CHECK_EQUAL(outputs[i].y.size(), expected.size());
            CHECK_EQUAL(outputs[i].features, recorded().shape(key).back());
            CHECK_EQUAL(outputs[i].steps * outputs[i].batch * outputs[i].features,
                        int64_t(expected.size()));
            for (size_t j = 0; j < expected.size() && j < outputs[i].y.size(); ++j)
                CHECK_NEAR(outputs[i].y[j], expected[j], tolerance);
        }
        CHECK(!recorded().has(name + "/y" + std::to_string(outputs.size())));
    }
}

std::string file_of(const std::string& model) {
    std::string quoted;
    for (const char c : "{\"version\": 1, \"model\": " + model + "}")
        quoted += c == '"' ? std::string("\\\"") : std::string(1, c == '\n' ? ' ' : c);
    const std::string header = R"({"__metadata__":{"lstmcore.model":")" + quoted + "\"}}";
    std::string file;
    for (int i = 0; i < 8; ++i) file += char(header.size() >> (8 * i) & 0xff);
    return file + header;
}

Network<float> load(const std::string& model) {
    const std::string file = file_of(model);
    return load_network<float>(file.data(), file.size(), "a file");
}

std::string sequential(const std::string& modules) {
    return R"({"type": "Sequential", "modules": [)" + modules + "]}";
}

const std::string kTanh = R"({"type": "Tanh"})";
const std::string kLast = R"({"type": "LastStep", "batch_first": null})";

/// A graph of Tanh and LastStep.
std::string graph(const std::string& inputs, const std::string& given, const std::string& calls,
                  const std::string& outputs) {
    return R"({"type": "Model", "modules": [)" + kTanh + ", " + kLast + R"(], "graph": [[)" +
           inputs + "], " + given + ", [" + calls + "], " + outputs + "]}";
}

}  // namespace

TEST(outputs_are_those_of_python) {
    size_t count = 0;
    for (const std::string& name : recorded().cases()) {
        if (name == "in_float64")
            check_case<double>(name, 1e-13);
        else
            check_case<float>(name, name.substr(0, 5) == "table" ? 0 : 2e-6);
        ++count;
    }
    CHECK_EQUAL(count, size_t(20));
}

TEST(what_comes_out_is_described) {
    const Network<float> net = network<float>("two_inputs");
    CHECK(net.inputs()[0].steps && net.inputs()[0].features == 3);
    CHECK(!net.inputs()[1].steps && net.inputs()[1].features == 2);
    CHECK(net.outputs()[0].steps && !net.outputs()[1].steps && net.outputs()[2].states == 2);
    const Inputs<float> in("two_inputs");
    const auto outputs = net.forward(in.given, in.batch);
    CHECK(outputs[0].lengths == in.lengths[0]);
    CHECK(outputs[1].lengths.empty() && outputs[1].steps == 1);

    const Inputs<float> windows("convolutions");
    const auto shorter = network<float>("convolutions").forward(windows.given[0], windows.batch);
    CHECK_EQUAL(shorter.steps, 3);
    CHECK((shorter.lengths == std::vector<int64_t>{3, 0, 2}));
    CHECK(network<float>("masked_ids").inputs()[0].features == 0);
    CHECK(!network<float>("layer_alone").outputs()[0].states);
}

TEST(rows_do_not_depend_on_each_other) {
    for (const std::string name : {"last_step", "convolutions", "max_pool", "layers"}) {
        const Network<float> net = network<float>(name);
        const Inputs<float> in(name);
        const auto all = net.forward(in.given[0], in.batch);
        const int64_t rows = in.batch, features = net.inputs()[0].features;
        for (int64_t b = 0; b < rows; ++b) {
            std::vector<float> alone;
            const int64_t length = in.lengths[0][size_t(b)];
            for (int64_t t = 0; t < length; ++t) {
                const float* row = in.x[0].data() + (t * rows + b) * features;
                alone.insert(alone.end(), row, row + features);
            }
            const auto one = net.forward({alone.data(), nullptr, length}, 1);
            for (int64_t t = 0; t < one.steps; ++t)
                for (int64_t i = 0; i < one.features; ++i)
                    CHECK_EQUAL(one.y[size_t(t * one.features + i)],
                                all.y[size_t((t * rows + b) * one.features + i)]);
        }
    }
}

TEST(nothing_to_do) {
    for (const std::string name : {"last_step", "mean_pool", "max_pool", "both_ends", "masking"}) {
        const Network<float> net = network<float>(name);
        const auto none = net.forward({nullptr, nullptr, 4}, 0);
        CHECK(none.y.empty());
        const auto empty = net.forward({nullptr, nullptr, 0}, 2);
        for (const float y : empty.y) CHECK(std::isfinite(y));
    }
}

TEST(many_threads_call_one_network) {
    const Network<float> net = network<float>("last_step"), copy = net;
    const Inputs<float> in("last_step");
    const auto expected = net.forward(in.given[0], in.batch).y;
    std::vector<std::thread> threads;
    bool same[4] = {};
    for (bool& right : same)
        threads.emplace_back([&] {
            right = true;
            for (int i = 0; i < 50; ++i)
                right = right && copy.forward(in.given[0], 3).y == expected;
        });
    for (std::thread& thread : threads) thread.join();
    for (const bool right : same) CHECK(right);
}

TEST(bad_calls_are_refused) {
    const Network<float> net = network<float>("two_inputs");
    const Inputs<float> in("two_inputs");
    const auto refused = [](const Network<float>& network, std::vector<NetworkInput<float>> given,
                            int64_t batch, const char* part) {
        CHECK_THROWS(network.forward(given, batch), std::invalid_argument, part);
        const auto result = network.try_forward(given, batch);
        CHECK(!result && result.error.find(part) != std::string::npos);
    };
    refused(net, {in.given[0]}, 3, "inputs has 1 entries, expected 2");
    refused(net, in.given, -1, "batch is -1");
    auto given = in.given;
    const int64_t long_rows[] = {6, 7, 0};
    given[0].lengths = long_rows;
    refused(net, given, 3, "inputs[0].lengths[1] is 7, expected 0 to 6");
    given = in.given;
    given[1].steps = 2;
    refused(net, given, 3, "inputs[1] has steps or lengths, but is (B, 2)");
    given = in.given;
    given[0].steps = -1;
    refused(net, given, 3, "inputs[0].steps is -1");
    given = in.given;
    given[0].x = nullptr;
    refused(net, given, 3, "inputs[0].x is null, expected (T, B, 3)");
    const int64_t id = 5;
    given[0].ids = &id;
    refused(net, given, 3, "inputs[0].x is null");
    given[0].x = in.given[0].x;
    refused(net, given, 3, "inputs[0].ids is given, expected (T, B, 3)");
    const Network<float> ids = network<float>("masked_ids");
    refused(ids, {{nullptr, &id, 1, nullptr}}, 1,
            "module 1, Embedding: ids has 5, expected 0 to 4");
    refused(ids, {{in.given[0].x, nullptr, 1, nullptr}}, 1, "inputs[0].ids is null");

    const auto fine = net.try_forward(in.given, 3);
    CHECK(fine && fine.error.empty());
    CHECK((*fine.value)[0].y == net.forward(in.given, 3)[0].y);
}

TEST(values_that_meet_must_fit) {
    const std::string two = "[2, true, null], [2, true, null]";
    const std::string pair = R"(["tuple", [0, 1]])";
    for (const std::string operation : {R"(["Concat"])", R"(["Binary", "add"])"}) {
        const Network<float> net =
            load(graph(two, pair, "[" + operation + ", " + pair + ", null]", "2"));
        const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        const int64_t short_row = 1, whole = 2;
        const auto ends = [&](const int64_t* a, const int64_t* b, int64_t steps) {
            return net.forward({{x, nullptr, 2, a}, {x, nullptr, steps, b}}, 1);
        };
        CHECK_THROWS(ends(nullptr, nullptr, 3), std::invalid_argument, "2 and 3 steps meet");
        CHECK_THROWS(ends(&short_row, &whole, 2), std::invalid_argument, "different lengths");
        CHECK_THROWS(ends(&short_row, nullptr, 2), std::invalid_argument, "different lengths");
        CHECK_EQUAL(ends(&whole, &whole, 2)[0].y.size(),
                    size_t(operation == R"(["Concat"])" ? 8 : 4));
    }
}

TEST(bad_files_are_refused) {
    const auto refused = [](const std::string& model, const char* part) {
        CHECK_THROWS(load(model), std::runtime_error, part);
        CHECK_THROWS(load(model), std::runtime_error, "a file: ");
        const std::string file = file_of(model);
        const auto result = try_load_network<float>(file.data(), file.size(), "a file");
        CHECK(!result && result.error.find(part) != std::string::npos);
    };
    refused(
        R"({"type": "MultiHead", "features": 8})",
        "a module of type MultiHead, which is known to Python only; C++ knows Sequential, Model");
    refused(sequential(kTanh), "none of its modules says how many features it takes");
    refused(sequential(""), "none of its modules says how many features it takes");
    refused(R"({"type": "LayerNorm", "normalized_shape": [5, 5], "eps": 0.1,
                "elementwise_affine": false, "bias": false, "dtype": "float32"})",
            "several sizes");
    const std::string norm = R"({"type": "LayerNorm", "normalized_shape": [5], "eps": 0.1,
                "elementwise_affine": false, "bias": false, "dtype": "float32"})";
    refused(sequential(kLast + ", " + norm + ", " + kLast),
            "module 2, LastStep: it is given (B, 5), expected (T, B, F)");
    refused(sequential(kTanh + R"(, {"type": "Activation", "name": "step"})"), "activation step");
    refused(R"({"type": "GELU", "approximate": "some"})", "approximate is some");
    refused(R"({"type": "Tanh", "alpha": 1})", "the option alpha of Tanh is unknown");

    const std::string one = "[3, true, null]";
    refused(graph("[3, true, null, 2]", "0", "", "0"), "axes within its steps");
    refused(graph("[0, true, null]", "0", "", "0"), "an input has no features");
    refused(graph("", "0", "", "0"), "too few entries");
    refused(graph(one, "1", "", "0"), "not in order");
    refused(graph(one, "0", "", "5"), "the value 5 of the graph is unknown");
    refused(graph(one, "0", "", "null"), "an output of the graph is null");
    refused(graph(one, "0", "[7, [\"tuple\", [0]], null]", "1"), "the module 7 of the graph");
    refused(graph(one, "0", "[0, [\"tuple\", [3]], null]", "1"), "the value 3 of the graph");
    refused(graph(one, "0", "[0, [\"tuple\", []], null]", "1"), "it is given 0 arguments");
    refused(graph(one, "0", "[[\"Dot\", 1], [\"tuple\", [0]], null]", "1"),
            "the operation Dot, which is known to Python only");
    refused(graph(one, "0", "[[\"Binary\"], [\"tuple\", [0, 0]], null]", "1"), "lacks options");
    refused(graph(one, "0", "[[\"Binary\", \"divide\"], [\"tuple\", [0, 0]], null]", "1"),
            "Binary divide");
    refused(graph(one, "0", "[[\"Index\", \"layer\", 0], [\"tuple\", [0]], null]", "1"),
            "expected a state");
    refused(graph(one + ", " + one, R"(["tuple", [0, 1]])", "[0, [\"tuple\", [0]], 1]", "2"),
            "lengths of another value");
    refused(graph("[null, true, null]", "0", "", "0"), "its output is ids");
    std::string nested = "0";
    for (int i = 0; i < 30; ++i) nested = R"(["tuple", [)" + nested + "]]";
    refused(graph(one, "0", "", nested), "nested too deep");

    CHECK_THROWS(load_network<float>("/no/such/file"), std::runtime_error, "cannot be opened");
    CHECK(try_load_network<double>("/no/such/file").error == "/no/such/file: cannot be opened");
    CHECK_THROWS(network<float>("in_float64"), std::runtime_error, "float64, but float32");
}

/// A recorded model with blanks for the checksum of its description, as older files have none.
std::string without_checksum(const std::string& name) {
    std::string model = recorded().model(name);
    const std::string sum = "\\ncrc32:";  // a line break as JSON has it, and eight digits behind
    model.replace(model.find(sum), sum.size() + 8, sum.size() + 8, ' ');
    return model;
}

TEST(tied_tensors_that_are_not_there) {
    const auto changed = [](const std::string& from, const std::string& to) {
        std::string bad = without_checksum("tied");
        bad.replace(bad.find(from), from.size(), to);
        return try_load_network<float>(bad.data(), bad.size(), "bad").error;
    };
    // What the file says is {"2.weight": "0.weight"}, with quotes that are escaped.
    CHECK(changed("2.weight", "2.weight").empty());
    CHECK(changed("2.weight\\\": \\\"0.weight", "2.weight\\\": \\\"0.weighs") ==
          "bad: it ties tensors that are not there");
    CHECK(changed("2.weight\\\": \\\"0.weight", "2.bias__\\\": \\\"0.weight") ==
          "bad: the tensor 2.weight is missing");
    CHECK(changed("2.weight\\\": \\\"0.weight", "0.weight\\\": \\\"0.weight") ==
          "bad: it ties tensors that are not there");
}

TEST(damaged_descriptions_never_do_harm) {
    for (const std::string name :
         {"two_inputs", "encoder_decoder", "convolutions", "functions", "tied"}) {
        const std::string good = without_checksum(name);
        const size_t text = good.find("version"), length = good.find("\"},") - text;
        CHECK(try_load_network<float>(good.data(), good.size(), "good"));
        unsigned random = 1, loaded = 0;
        for (int round = 0; round < 1000; ++round) {
            std::string bad = good;
            // Digits become others, and in every second round anything does, which few survive.
            for (int i = 0; i < 2; ++i) {
                random = random * 1664525 + 1013904223;
                size_t at = text + random / 65536 % length;
                if (round % 2 == 0) at = bad.find_first_of("0123456789", at);
                bad[at] = "0123456789,[]"[random / 256 % (round % 2 == 0 ? 10 : 13)];
            }
            const auto net = try_load_network<float>(bad.data(), bad.size(), "bad");
            CHECK(net || !net.error.empty());
            if (!net) continue;
            ++loaded;
            const std::vector<float> zeros(1000);
            std::vector<NetworkInput<float>> given;
            for (const NetworkAxes& axes : net.value->inputs()) {
                if (axes.features > 300) break;
                given.push_back({axes.features ? zeros.data() : nullptr, nullptr, 1, nullptr});
            }
            const auto outputs = net.value->try_forward(given, 1);
            CHECK(outputs || !outputs.error.empty());
        }
        CHECK(loaded > 0);
    }
}

TEST(python_slices) {
    const auto places = [](std::optional<int64_t> start, std::optional<int64_t> stop,
                           std::optional<int64_t> step) {
        return Slice{start, stop, step}.places(5);
    };
    using Places = std::vector<int64_t>;
    CHECK((places({}, {}, {}) == Places{0, 1, 2, 3, 4}));
    CHECK((places(-2, {}, {}) == Places{3, 4}));
    CHECK((places(1, 9, 2) == Places{1, 3}));
    CHECK((places({}, {}, -2) == Places{4, 2, 0}));
    CHECK((places(-1, 0, -1) == Places{4, 3, 2, 1}));
    CHECK((places(9, -9, -4) == Places{4, 0}));
    CHECK(places(3, 1, {}).empty() && places(0, 3, -1).empty() && places(0, 3, 0).empty());
    CHECK((Slice{-3, -1, {}}.places(2) == Places{0}));
}

TEST(streams_are_opened_without_throwing) {
    const std::string file = recorded().model("last_step");
    const auto pooled = try_load_model<float>(file.data(), file.size(), "a file");
    CHECK(!pooled && pooled.error.find("a file: module 1, LastStep: streams do not run it; "
                                       "load_network() does") == 0);
    const std::string layer = recorded().model("layer_alone");
    const auto stages = try_load_model<float>(layer.data(), layer.size(), "a file");
    CHECK(stages && stages.error.empty());
    auto stream = try_open_stream(*stages.value, 2);
    CHECK(stream && stream.value->batch_size() == 2 && stream.value->output_size() == 4);
    CHECK(try_open_stream(*stages.value, 0).error.find("batch_size") != std::string::npos);
    CHECK(try_load_model<float>("/no/such/file").error == "/no/such/file: cannot be opened");
}

TEST(a_graph_that_is_a_chain_streams) {
    const std::string chain = graph(
        "[3, true, null]", "0", "[0, [\"tuple\", [0]], null], [0, [\"tuple\", [1]], null]", "2");
    const std::string file = file_of(chain);
    CHECK_EQUAL(load_model<float>(file.data(), file.size(), "a file").size(), size_t(2));
    for (const auto& [calls, output] :
         {std::pair{"[0, [\"tuple\", [0]], null], [0, [\"tuple\", [0]], null]", "2"},
          std::pair{"[0, [\"tuple\", [0]], null]", "[\"tuple\", [1, 0]]"},
          std::pair{"[[\"Binary\", \"add\"], [\"tuple\", [0, 0]], null]", "1"}}) {
        const std::string other = file_of(graph("[3, true, null]", "0", calls, output));
        CHECK_THROWS(load_model<float>(other.data(), other.size(), "a file"), std::runtime_error,
                     "load_network() runs it");
    }
}
