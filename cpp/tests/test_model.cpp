// Models from files: what is read is what was written, and whatever is not right is refused.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "files/json.h"
#include "lstmcore/model.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

struct Named {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> numbers;
    std::vector<int8_t> in_int8 = {};  ///< instead of numbers
};

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    return out + "\"";
}

std::string header_and(const std::string& header, const std::string& numbers) {
    std::string file;
    for (int i = 0; i < 8; ++i) file += char(header.size() >> (8 * i) & 0xff);
    return file + header + numbers;
}

std::string make_file(const std::string& model, const std::vector<Named>& tensors) {
    std::string header = "{\"__metadata__\":{\"lstmcore.model\":" +
                         quoted("{\"version\": 1, \"model\": " + model + "}") +
                         ",\"other\":\"\\u00e9\\ud83d\\ude00\"}";
    std::string numbers;
    for (const Named& tensor : tensors) {
        const bool in_int8 = !tensor.in_int8.empty();
        header += "," + quoted(tensor.name) + ": {\"dtype\":\"" + (in_int8 ? "I8" : "F32") +
                  "\",\"shape\":[";
        for (size_t i = 0; i < tensor.shape.size(); ++i)
            header += (i ? "," : "") + std::to_string(tensor.shape[i]);
        const size_t first = numbers.size();
        const size_t bytes =
            in_int8 ? tensor.in_int8.size() : tensor.numbers.size() * sizeof(float);
        numbers.append(in_int8 ? reinterpret_cast<const char*>(tensor.in_int8.data())
                               : reinterpret_cast<const char*>(tensor.numbers.data()),
                       bytes);
        header += "],\"data_offsets\":[" + std::to_string(first) + "," +
                  std::to_string(first + bytes) + "]}";
    }
    return header_and(header + "}", numbers);
}

std::vector<Stage<float>> load(const std::string& file) {
    // In memory of exactly that size, for the sanitizer.
    const std::vector<char> data(file.begin(), file.end());
    return load_model<float>(data.data(), data.size(), "a file");
}

const char* const kLstm =
    R"({"type": "LSTM", "input_size": 3, "hidden_size": 5, "num_layers": 1, "bias": true,
        "batch_first": false, "dropout": 0.0, "bidirectional": false, "reverse": false,
        "merge": "concat", "proj_size": 0, "forget_gate": true, "coupled": false,
        "peephole": true, "cell_clip": 2.5, "gate_clip": null, "zoneout": [0.125, 0.5],
        "activations": [["hard_sigmoid", 0.25, 0.5], "softsign", "tanh"], "forget_bias": 1.0,
        "dtype": "float32"})";
const char* const kGru =
    R"({"type": "GRU", "input_size": 5, "hidden_size": 4, "num_layers": 2, "bias": false,
        "batch_first": true, "dropout": 0.5, "bidirectional": false, "reverse": false,
        "merge": "concat", "reset_after": false, "gate_clip": 3, "zoneout": 0.125,
        "recurrent_dropout": 0.5, "input_dropout": 0.25, "activations":
        ["silu", ["elu", 0.5]], "dtype": "float32"})";
const char* const kLinear =
    R"({"type": "Linear", "in_features": 4, "out_features": 2, "bias": true, "dtype": "float32"})";
const char* const kNorm =
    R"({"type": "LayerNorm", "normalized_shape": [5], "eps": 0.001, "elementwise_affine": true,
        "bias": true, "dtype": "float32"})";

struct Example {
    std::string model;
    std::vector<Named> tensors;
    LayerSpec lstm, gru;
    ParameterSet<float> lstm_parameters, gru_parameters;
    std::vector<float> weight, bias, scale, shift;

    static LayerSpec lstm_spec() {
        LayerSpec spec;
        spec.input_size = 3;
        spec.hidden_size = 5;
        spec.cell.peephole = true;
        spec.cell.cell_clip = 2.5;
        spec.cell.zoneout = {0.125, 0.5};
        spec.cell.gate = {ActivationKind::hard_sigmoid, 0.25, 0.5};
        spec.cell.candidate = {ActivationKind::softsign};
        return spec;
    }
    static LayerSpec gru_spec() {
        LayerSpec spec;
        spec.cell.kind = CellKind::gru;
        spec.input_size = 5;
        spec.hidden_size = 4;
        spec.num_layers = 2;
        spec.bias = false;
        spec.cell.reset_after = false;
        spec.cell.gate_clip = 3;
        spec.cell.zoneout.h = 0.125;
        spec.cell.gate = {ActivationKind::silu};
        spec.cell.candidate = {ActivationKind::elu, 0.5};
        return spec;
    }

    Example()
        : lstm(lstm_spec()),
          gru(gru_spec()),
          lstm_parameters(lstm),
          gru_parameters(gru),
          weight(random_numbers<float>(8, 11)),
          bias(random_numbers<float>(2, 12)),
          scale(random_numbers<float>(5, 13)),
          shift(random_numbers<float>(5, 14)) {
        model = std::string(R"({"type": "Sequential", "modules": [)") + kLstm +
                R"(, {"type": "Dropout", "p": 0.25}, {"type": "Sequential", "modules": [)" + kNorm +
                ", " + kGru + R"(]}, )" + kLinear + R"(, {"type": "Sigmoid"}]})";
        const auto& l = lstm_parameters.arrays;
        const auto& g = gru_parameters.arrays;
        tensors = {{"0.weight_ih_l0", {20, 3}, l[0]},
                   {"0.weight_hh_l0", {20, 5}, l[1]},
                   {"0.bias_ih_l0", {20}, l[2]},
                   {"0.bias_hh_l0", {20}, l[3]},
                   {"0.weight_ch_l0", {3, 5}, l[4]},
                   {"2.0.weight", {5}, scale},
                   {"2.0.bias", {5}, shift},
                   {"2.1.weight_ih_l0", {12, 5}, g[0]},
                   {"2.1.weight_hh_l0", {12, 4}, g[1]},
                   {"2.1.weight_ih_l1", {12, 4}, g[2]},
                   {"2.1.weight_hh_l1", {12, 4}, g[3]},
                   {"3.weight", {2, 4}, weight},
                   {"3.bias", {2}, bias}};
    }
    std::vector<Stage<float>> stages() const {
        return {pack<float>(lstm, lstm_parameters.read_only(), false),
                LayerNorm<float>{5, scale, shift, 0.001},
                pack<float>(gru, gru_parameters.read_only(), false),
                pack_linear<float>(weight.data(), bias.data(), 4, 2),
                Activation{ActivationKind::sigmoid}};
    }
};

std::vector<float> outputs(std::vector<Stage<float>> stages) {
    Stream<float> stream(std::move(stages), 2);
    const auto x = random_numbers<float>(20 * 2 * 3, 30);
    std::vector<float> y(20 * 2 * stream.output_size());
    stream.process(x.data(), y.data(), 20);
    return y;
}

/// `text` with the first `from` replaced.
std::string with(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    if (at == text.npos) throw std::logic_error("no " + from);
    return text.replace(at, from.size(), to);
}

}  // namespace

TEST(a_model_is_read_as_it_was_written) {
    const Example example;
    const std::string file = make_file(example.model, example.tensors);
    const std::vector<float> expected = outputs(example.stages());
    CHECK(outputs(load(file)) == expected);

    const std::string path = test::program + ".safetensors";
    std::ofstream(path, std::ios::binary) << file;
    CHECK(outputs(load_model<float>(path)) == expected);
    std::remove(path.c_str());
}

TEST(a_layer_alone) {
    const Example example;
    std::vector<Named> tensors;
    for (size_t i = 0; i < 5; ++i) {
        tensors.push_back(example.tensors[i]);
        tensors[i].name = tensors[i].name.substr(2);
    }
    const auto stages = load(make_file(kLstm, tensors));
    CHECK_EQUAL(stages.size(), size_t(1));
    CHECK(outputs(stages) == outputs({example.stages()[0]}));
}

TEST(one_zoneout_of_an_lstm_is_that_of_h_and_c) {
    const Example example;
    const auto read = [&](const char* zoneout) {
        return outputs(
            load(make_file(with(example.model, "[0.125, 0.5]", zoneout), example.tensors)));
    };
    CHECK(read("0.25") == read("[0.25, 0.25]"));
    CHECK(read("0.25") != read("[0.25, 0]"));
}

TEST(bad_files_are_refused) {
    const Example example;
    const std::string good = make_file(example.model, example.tensors);
    const auto refused = [](const std::string& file, const char* part) {
        CHECK_THROWS(load(file), std::runtime_error, part);
        CHECK_THROWS(load(file), std::runtime_error, "a file: ");
    };
    refused("", "too short");
    refused("PK\3\4 something else entirely", "no safetensors file");
    refused(std::string("\xff\0\0\0\0\0\0\0{}", 10), "cut off");
    refused(good.substr(0, good.size() - 1), "data_offsets");
    refused(good + "x", "longer than its tensors");
    refused(header_and("{}", ""), "without the description");
    refused(header_and("{", ""), "not JSON");
    refused(header_and("[]", ""), "the header is not an object");
    refused(header_and(R"({"a": 1})", ""), "has no dtype");
    const auto tensor = [](const std::string& text) {
        return header_and(R"({"a": )" + text + "}", "12345678");
    };
    refused(tensor(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 9]})"), "data_offsets");
    refused(tensor(R"({"dtype": "F32", "shape": [2], "data_offsets": [4, 0]})"), "data_offsets");
    refused(tensor(R"({"dtype": "F32", "shape": [2], "data_offsets": [0]})"), "1 entries");
    refused(tensor(R"({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]})"), "needs 12");
    refused(tensor(R"({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]})"), "integer");
    refused(tensor(R"({"dtype": "F32", "shape": [1.5], "data_offsets": [0, 8]})"), "integer");
    refused(tensor(R"({"dtype": "F32", "shape": [4e15, 4e15], "data_offsets": [0, 8]})"),
            "too large");
    refused(tensor(R"({"dtype": "I64", "shape": [1], "data_offsets": [0, 8]})"), "I64");
    refused(tensor(R"({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})"), "gaps");
    refused(header_and(R"({"__metadata__": {"lstmcore.model": "{}"}})", ""), "version");
    refused(with(good, "\\\"version\\\": 1", "\\\"version\\\": 2"), "version");
    refused(with(good, "\\\"version\\\": 1, \\\"model\\\"", "\\\"version\\\": 1, \\\"medal\\\""),
            "no model");

    const auto described = [&](const std::string& from, const std::string& to) {
        return make_file(with(example.model, from, to), example.tensors);
    };
    refused(described("\"type\": \"Sigmoid\"", "\"type\": \"Pad1D\""), "known to Python only");
    refused(described("\"type\": \"Sigmoid\"", "\"type\": \"LogSoftmax\""),
            "module 4, LogSoftmax: streams do not run it");
    refused(described("\"type\": \"Sigmoid\"", "\"type\": \"Sigmoid\", \"x\": 1"), "option x");
    refused(described("\"hidden_size\": 5", "\"hidden_size\": 6"), "0.weight_ih_l0");
    refused(described("\"hidden_size\": 5", "\"hidden_size\": -5"), "hidden_size");
    refused(described("\"hidden_size\": 5", "\"hidden_size\": 1e12"),
            "hidden_size is 1000000000000");
    refused(described("\"hidden_size\": 5, ", ""), "lacks hidden_size");
    refused(described("\"num_layers\": 2", "\"num_layers\": 2000000000"), "weight_ih_l2");
    refused(described("\"num_layers\": 2", "\"num_layers\": 1"), "2.1.weight_hh_l1 is unknown");
    refused(described("\"softsign\"", "\"swish\""), "swish");
    refused(described("0.25, 0.5", "0.25"), "hard_sigmoid has 2 parts, expected 3");
    refused(described("\"softsign\"", "\"elu\""), "elu has 1 parts, expected 2");
    refused(described("\"softsign\"", "[]"), "no name");
    refused(described("0.125, 0.5", "0.125"), "zoneout has 1 parts, expected 2");
    refused(described("\"concat\"", "\"join\""), "join");
    refused(described("\"coupled\": false", "\"coupled\": 0"), "coupled is not true or false");
    refused(described("\"forget_gate\": true, \"coupled\": false",
                      "\"forget_gate\": false, \"coupled\": true"),
            "contradicts");
    refused(described("\"float32\"", "\"float64\""), "float64");
    refused(described("[5]", "[5, 5]"), "several sizes");
    // Numbers of another type than the description's, with and without the size that fits.
    const std::string linear =
        R"({"__metadata__":{"lstmcore.model":"{\"version\": 1, \"model\": {\"type\": \"Linear\", )"
        R"(\"in_features\": 1, \"out_features\": 2, \"bias\": false, \"dtype\": \"float32\"}}"},)"
        R"("weight":{"dtype":"F64","shape":[2,1],"data_offsets":[0,16]}})";
    refused(header_and(linear, std::string(16, '\0')), "the tensor weight is F64, expected F32");
    std::string nested = kLinear;
    for (int i = 0; i < 50; ++i) nested = R"({"type": "Sequential", "modules": [)" + nested + "]}";
    refused(make_file(nested, {}), "deep");

    CHECK_THROWS(load_model<float>("/no/such/file"), std::runtime_error, "cannot be opened");
    CHECK_THROWS(load_model<float>("/"), std::runtime_error, "/: cannot be read");
    const std::string path = test::program + ".empty";
    std::ofstream(path, std::ios::binary).close();
    CHECK_THROWS(load_model<float>(path), std::runtime_error, "too short");
    std::remove(path.c_str());
    CHECK_THROWS(load_model<double>(good.data(), good.size(), "a file"), std::runtime_error,
                 "float32, but float64");
}

// As Python's lstmcore.save wrote Linear(1, 2) with the weights 1 and -2, and perhaps more
// metadata.
std::string python_file(const std::string& checksum = "9fd73310", const std::string& more = "") {
    return header_and(
        R"({"__metadata__":{"lstmcore.model":"{\"version\": 1, \"model\": {\"type\": \"Linear\", \"in_features\": 1, \"out_features\": 2)"
        R"(, \"bias\": false, \"dtype\": \"float32\"}}\ncrc32:)" +
            checksum + '"' + more +
            R"(},"weight":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})",
        std::string("\0\0\x80\x3f\0\0\0\xc0", 8));
}

TEST(the_checksum_is_that_of_python) {
    const std::string good = python_file();
    const auto stages = load(good);
    Stream<float> stream(stages);
    const float x = 3;
    float y[2];
    stream.step(&x, y);
    CHECK(y[0] == 3 && y[1] == -6);
    std::string bad = good;
    bad.back() ^= 1;
    CHECK_THROWS(load(bad), std::runtime_error, "checksum");
    CHECK_THROWS(load(with(good, "false", "falsE")), std::runtime_error, "a file: ");
    CHECK_THROWS(load(with(good, "[2,1]", "[1,2]")), std::runtime_error, "checksum");

    const std::string more =
        ",\"n\\u00e4me\":\"f\xc3\xbcr \xf0\x9f\x98\x80 \x7f \xe2\x82\xac\\ncrc32:11d1733a\"";
    load(python_file("11d1733a", more));
    CHECK_THROWS(load(with(python_file("11d1733a", more), "\xbc", "\xbd")), std::runtime_error,
                 "checksum");
}

TEST(the_checksum_of_int8_is_that_of_python) {
    // As Python's lstmcore.save wrote quantize(Linear(1, 2)), with the weights 1 and -2.
    const std::string good = header_and(
        R"({"__metadata__":{"lstmcore.model":"{\"version\": 1, \"model\": {\"type\": \"Linear\", \"in_features\": 1, \"out_features\": 2)"
        R"(, \"bias\": false, \"dtype\": \"float32\", \"precision\": \"int8\"}, \"frozen\": [\"weight\", \"weight_scale\"]})"
        R"(\ncrc32:89d875e9"},"weight_scale":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})"
        R"(,"weight":{"dtype":"I8","shape":[2,1],"data_offsets":[8,10]}})",
        std::string("\x04\x02\x01<\x04\x02\x81<\x7f\x81", 10));
    Stream<float> stream(load(good));
    const float x = 127;
    float y[2];
    stream.step(&x, y);
    CHECK_NEAR(y[0], 127, 1e-4);
    CHECK_NEAR(y[1], -254, 1e-4);
    CHECK_THROWS(load(with(good, "\x7f\x81", "\x7f\x82")), std::runtime_error, "checksum");
}

TEST(damaged_files_never_do_harm) {
    const Example example;
    const std::string good = make_file(example.model, example.tensors);
    for (size_t length = 0; length < good.size(); length += length < 3000 ? 1 : 97)
        CHECK_THROWS(load(good.substr(0, length)), std::runtime_error, "a file: ");
    std::mt19937 random(1);
    int refused = 0;
    for (int round = 0; round < 5000; ++round) {
        std::string bad = good;
        for (int i = 0; i < 1 + round % 3; ++i) bad[random() % 3200] = char(random());
        try {
            outputs(load(bad));
        } catch (const std::runtime_error&) {
            ++refused;
        } catch (const std::invalid_argument&) {  // of the stream: stages that do not fit
            ++refused;
        } catch (const std::bad_alloc&) {
            ++refused;
        }
    }
    CHECK(refused > 4000);
}

TEST(json) {
    const auto refused = [](const std::string& text) {
        CHECK_THROWS(Json::parse(text), std::runtime_error, "not JSON");
    };
    for (const char* text : {"",
                             " ",
                             "nul",
                             "truee",
                             "01",
                             "-",
                             "1.",
                             ".5",
                             "1e",
                             "+1",
                             "1e999",
                             "\"",
                             "\"\t\"",
                             "\"\\x\"",
                             "\"\\u12g4\"",
                             "\"\\ud800\"",
                             "\"\\ud800\\u0041\"",
                             "\"\\udc00\"",
                             "\"\\udfff\"",
                             "\"\\ud800\\ud800\"",
                             "\"\\ud800dc00\"",
                             "\"\\udbff\\ue000\"",
                             "\"\\ud800",
                             "\"\\ud83d\\",
                             "[1,]",
                             "[1 2]",
                             "[",
                             "{\"a\"}",
                             "{\"a\":1,}",
                             "{a:1}",
                             "{\"a\":1,\"a\":2}",
                             "1 1",
                             "NaN"})
        refused(text);
    // Depth is refused before it can exhaust the stack.
    std::string objects;
    for (int i = 0; i < 1000000; ++i) objects += "{\"a\":";
    for (const size_t depth : {66, 1000, 1000000}) {
        refused(std::string(depth, '['));
        refused(std::string(depth, '[') + std::string(depth, ']'));
        refused(objects.substr(0, 5 * depth));
    }
    Json::parse(std::string(60, '[') + std::string(60, ']'));
    const Json json = Json::parse(" { \"a\" : [ -1.5e2 , true, null, \"\\u0041\\n\\u00e9\" ] } ");
    const Json::Array& a = json.find("a")->array("a");
    CHECK_EQUAL(a[0].number("a"), -150.0);
    CHECK(a[1].boolean("a") && a[2].is_null());
    CHECK_EQUAL(a[3].string("a"), std::string("A\n\xc3\xa9"));
    CHECK(json.find("b") == nullptr);
    CHECK_EQUAL(Json::parse("\"\\ud83d\\ude00\"").string("s"), std::string("\xf0\x9f\x98\x80"));
    CHECK_EQUAL(Json::parse("\"\\udbff\\udfff\"").string("s"), std::string("\xf4\x8f\xbf\xbf"));
    CHECK_EQUAL(Json::parse("\"\\ud7ff\\ue000\"").string("s"),
                std::string("\xed\x9f\xbf\xee\x80\x80"));
    CHECK_THROWS(a[0].string("size"), std::runtime_error, "size is not a string");
}

TEST(precision_bfloat16) {
    const auto description = [](const std::string& dtype, const char* precision = "bfloat16") {
        return R"({"type": "Linear", "in_features": 2, "out_features": 1, "bias": true,
                   "dtype": ")" +
               dtype + R"(", "precision": ")" + precision + R"("})";
    };
    const std::vector<Named> tensors{{"weight", {1, 2}, {1.00390625f, 2}, {}},
                                     {"bias", {1}, {0.001f}, {}}};
    Stream<float> stream(load(make_file(description("float32"), tensors)), 1);
    const float x[2] = {1, 1.01171875f};
    float y;
    stream.step(x, &y);
    CHECK_NEAR(y, 0.001 + 1 + 2 * 1.015625, 1e-6);  // rounded, of two to the even one
    Stream<float> of_parts(load(make_file(description("float32", "bfloat16x3"), tensors)), 1);
    of_parts.step(x, &y);
    CHECK_NEAR(y, 0.001 + 1.00390625 + 2 * 1.01171875, 1e-6);  // as in float32
    CHECK_THROWS(load_model<double>(make_file(description("float64"), tensors).data(),
                                    make_file(description("float64"), tensors).size(), "model"),
                 std::runtime_error, "precision is bfloat16, which is there in float32 alone");
}

TEST(matrices_in_int8) {
    const std::vector<int8_t> values{1, -2, 3, 127, -127, 0};
    const std::vector<float> scales{0.5, 2}, bias{1, -1};
    const auto description = [](const char* precision) {
        return std::string(R"({"type": "Linear", "in_features": 3, "out_features": 2, "bias": true,
                               "dtype": "float32", "precision": ")") +
               precision + "\"}";
    };
    const std::vector<Named> tensors{
        {"weight", {2, 3}, {}, values}, {"weight_scale", {2}, scales, {}}, {"bias", {2}, bias, {}}};
    Stream<float> stream(load(make_file(description("int8"), tensors)), 1);
    const float x[3] = {127, 0, 127};
    float y[2];
    stream.step(x, y);
    CHECK_NEAR(y[0], 0.5 * (127 + 3 * 127) + 1, 1e-4);
    CHECK_NEAR(y[1], 2.0 * 127 * 127 - 1, 1e-2);

    CHECK_THROWS(load(make_file(description("int4"), tensors)), std::runtime_error,
                 "precision is int4, which is unknown");
    auto changed = tensors;
    changed[1].name = "other";
    CHECK_THROWS(load(make_file(description("int8"), changed)), std::runtime_error,
                 "the tensor weight_scale is missing");
    changed = tensors;
    changed[0].in_int8[2] = -128;
    CHECK_THROWS(load(make_file(description("int8"), changed)), std::runtime_error, "holds -128");
    changed[0] = {"weight", {2, 3}, {1, 2, 3, 4, 5, 6}, {}};
    CHECK_THROWS(load(make_file(description("int8"), changed)), std::runtime_error,
                 "the tensor weight is F32, expected I8");
}
