#include "lstmcore/model.h"

#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "files/json.h"
#include "files/tensor_file.h"
#include "recurrent/names.h"
#include "recurrent/parameters.h"

namespace lstmcore {
namespace {

constexpr const char* kKey = "lstmcore.model";
constexpr int64_t kVersion = 1;
constexpr int kDepth = 30;  // of models in models

/// The options of one module, each of which must be asked for: what is unknown is refused, never
/// ignored.
class Options {
public:
    explicit Options(const Json& description) {
        for (const auto& [name, value] : description.object("the description of a module"))
            values_.push_back({&name, &value, false});
    }

    const Json& get(const std::string& name) {
        for (Value& value : values_)
            if (*value.name == name) {
                value.used = true;
                return *value.value;
            }
        throw std::runtime_error("the description lacks " + name);
    }
    bool boolean(const std::string& name) { return get(name).boolean(name); }
    int64_t size(const std::string& name) { return get(name).integer(name); }
    /// null is 0
    double clip(const std::string& name) {
        const Json& value = get(name);
        return value.is_null() ? 0 : value.number(name);
    }
    /// Of no meaning to inference.
    void ignore(const std::string& name) { get(name); }

    void check_all_used(const std::string& type) const {
        for (const Value& value : values_)
            if (!value.used)
                throw std::runtime_error("the option " + *value.name + " of " + type +
                                         " is unknown");
    }

private:
    struct Value {
        const std::string* name;
        const Json* value;
        bool used;
    };
    std::vector<Value> values_;
};

Activation parse_activation(const Json& json) {
    const Json::Array* parts = json.is_string() ? nullptr : &json.array("an activation");
    if (parts && parts->size() != 3)
        throw std::runtime_error("an activation has " + std::to_string(parts->size()) +
                                 " parts, expected 3");
    const std::string& name = (parts ? (*parts)[0] : json).string("an activation");
    const auto kind = find_name(kActivations, name);
    if (!kind) throw std::runtime_error("the activation " + name + " is unknown");
    if (!parts) return {*kind};
    return {*kind, (*parts)[1].number("alpha"), (*parts)[2].number("beta")};
}

template <class T>
class Builder {
public:
    explicit Builder(const TensorFile& file) : file_(file) {}

    void add(const Json& description, const std::string& prefix, int depth = 0) {
        if (depth > kDepth) throw std::runtime_error("models in models, too deep");
        Options options(description);
        const std::string type = options.get("type").string("type");
        if (type == "Sequential") {
            const Json::Array& modules = options.get("modules").array("modules");
            for (size_t i = 0; i < modules.size(); ++i)
                add(modules[i], prefix + std::to_string(i) + ".", depth + 1);
        } else if (type == "RNN" || type == "LSTM" || type == "GRU") {
            add_recurrent(type, options, prefix);
        } else if (type == "Linear") {
            add_linear(options, prefix);
        } else if (type == "LayerNorm") {
            add_layer_norm(options, prefix);
        } else if (type == "Dropout") {
            options.ignore("p");
        } else if (type == "Tanh") {
            stages_.push_back(Activation{ActivationKind::tanh});
        } else if (type == "ReLU") {
            stages_.push_back(Activation{ActivationKind::relu});
        } else if (type == "Sigmoid") {
            stages_.push_back(Activation{ActivationKind::sigmoid});
        } else if (type == "Softmax") {
            stages_.push_back(Softmax{});
        } else {
            throw std::runtime_error("it has a module of type " + type +
                                     ", which is known to Python only");
        }
        options.check_all_used(type);
    }

    std::vector<Stage<T>> finish() {
        for (const auto& [name, tensor] : file_.tensors)
            if (!used_.count(name)) throw std::runtime_error("the tensor " + name + " is unknown");
        return std::move(stages_);
    }

private:
    /// The numbers of a tensor of exactly this shape, kept until the model is made.
    const T* take(const std::string& name, const std::vector<int64_t>& shape) {
        const auto found = file_.tensors.find(name);
        if (found == file_.tensors.end())
            throw std::runtime_error("the tensor " + name + " is missing");
        const Tensor& tensor = found->second;
        const char* const dtype = sizeof(T) == 4 ? "F32" : "F64";
        if (tensor.dtype != dtype)
            throw std::runtime_error("the tensor " + name + " is " + tensor.dtype + ", expected " +
                                     dtype);
        if (tensor.shape != shape)
            throw std::runtime_error("the tensor " + name + " has the shape " + text(tensor.shape) +
                                     ", expected " + text(shape));
        used_.insert(name);
        std::vector<T> numbers(size_t(tensor.bytes) / sizeof(T));
        if (!numbers.empty()) std::memcpy(numbers.data(), tensor.data, size_t(tensor.bytes));
        kept_.push_back(std::move(numbers));
        return kept_.back().data();
    }

    static std::string text(const std::vector<int64_t>& shape) {
        std::string out;
        for (const int64_t size : shape) out += (out.empty() ? "" : ", ") + std::to_string(size);
        return "(" + out + ")";
    }

    static void check_dtype(Options& options) {
        const std::string& dtype = options.get("dtype").string("dtype");
        const char* const ours = sizeof(T) == 4 ? "float32" : "float64";
        if (dtype != ours)
            throw std::runtime_error("its numbers are " + dtype + ", but " + ours +
                                     " was asked for");
    }

    void add_recurrent(const std::string& type, Options& options, const std::string& prefix) {
        LayerSpec spec;
        CellSpec& cell = spec.cell;
        check_dtype(options);
        spec.input_size = options.size("input_size");
        spec.hidden_size = options.size("hidden_size");
        spec.num_layers = options.size("num_layers");
        spec.bias = options.boolean("bias");
        spec.bidirectional = options.boolean("bidirectional");
        spec.reverse = options.boolean("reverse");
        const std::string& merge = options.get("merge").string("merge");
        const auto known_merge = find_name(kMerges, merge);
        if (!known_merge) throw std::runtime_error("merge is " + merge + ", which is unknown");
        spec.merge = *known_merge;
        options.ignore("batch_first");
        options.ignore("dropout");
        cell.gate_clip = options.clip("gate_clip");
        if (type == "RNN") {
            cell.kind = CellKind::rnn;
            cell.candidate = parse_activation(options.get("nonlinearity"));
        } else {
            const Json::Array& activations = options.get("activations").array("activations");
            if (activations.size() != (type == "LSTM" ? 3u : 2u))
                throw std::runtime_error("activations has the wrong length");
            cell.gate = parse_activation(activations[0]);
            cell.candidate = parse_activation(activations[1]);
            if (type == "LSTM") cell.output = parse_activation(activations[2]);
        }
        if (type == "GRU") {
            cell.kind = CellKind::gru;
            cell.reset_after = options.boolean("reset_after");
        }
        if (type == "LSTM") {
            cell.kind = CellKind::lstm;
            spec.proj_size = options.size("proj_size");
            cell.forget_gate = options.boolean("forget_gate");
            cell.coupled = options.boolean("coupled");
            cell.peephole = options.boolean("peephole");
            cell.cell_clip = options.clip("cell_clip");
            options.ignore("forget_bias");
        }
        spec.check();

        kept_.clear();
        std::vector<Parameters<const T>> parameters;
        for (int64_t layer = 0; layer < spec.num_layers; ++layer)
            for (int d = 0; d < spec.directions(); ++d) {
                const std::string end = "_l" + std::to_string(layer) + (d == 1 ? "_reverse" : "");
                parameters.push_back(take_parameters<const T>(
                    spec, layer, [&](const char* name, const std::vector<int64_t>& shape) {
                        return take(prefix + name + end, shape);
                    }));
            }
        stages_.push_back(pack<T>(spec, parameters, false));
    }

    void add_linear(Options& options, const std::string& prefix) {
        check_dtype(options);
        kept_.clear();
        const int64_t inputs = options.size("in_features"), outputs = options.size("out_features");
        const T* weight = take(prefix + "weight", {outputs, inputs});
        const T* bias = options.boolean("bias") ? take(prefix + "bias", {outputs}) : nullptr;
        stages_.push_back(pack_linear<T>(weight, bias, inputs, outputs));
    }

    void add_layer_norm(Options& options, const std::string& prefix) {
        check_dtype(options);
        const Json::Array& shape = options.get("normalized_shape").array("normalized_shape");
        if (shape.size() != 1)
            throw std::runtime_error("normalized_shape has several sizes, which a stream has not");
        LayerNorm<T> norm;
        norm.features = shape[0].integer("normalized_shape");
        norm.eps = options.get("eps").number("eps");
        const bool affine = options.boolean("elementwise_affine"), bias = options.boolean("bias");
        kept_.clear();
        const auto numbers = [&](const char* name) {
            const T* data = take(prefix + name, {norm.features});
            return std::vector<T>(data, data + norm.features);
        };
        if (affine) norm.weight = numbers("weight");
        if (affine && bias) norm.bias = numbers("bias");
        stages_.push_back(std::move(norm));
    }

    const TensorFile& file_;
    std::set<std::string> used_;
    std::vector<std::vector<T>> kept_;  ///< of the stage that is being made
    std::vector<Stage<T>> stages_;
};

}  // namespace

template <class T>
std::vector<Stage<T>> load_model(const void* data, size_t bytes, const std::string& name) {
    try {
        const TensorFile file = TensorFile::parse(static_cast<const char*>(data), bytes);
        const auto text = file.metadata.find(kKey);
        if (text == file.metadata.end())
            throw std::runtime_error("a safetensors file without the description of a model");
        const Json content = Json::parse(text->second);
        const Json *version = content.find("version"), *model = content.find("model");
        if (!version || version->integer("version") != kVersion)
            throw std::runtime_error("its description is not of version " +
                                     std::to_string(kVersion));
        if (!model) throw std::runtime_error("its description has no model");
        Builder<T> builder(file);
        builder.add(*model, "");
        return builder.finish();
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(name + ": " + error.what());
    } catch (const std::invalid_argument& error) {  // options that contradict each other
        throw std::runtime_error(name + ": " + error.what());
    }
}

template <class T>
std::vector<Stage<T>> load_model(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    std::ostringstream data;
    // << takes nothing to copy for a failure.
    if (file.peek() != std::ifstream::traits_type::eof()) data << file.rdbuf();
    if (file.bad() || !data) throw std::runtime_error(path + ": cannot be read");
    const std::string bytes = data.str();
    return load_model<T>(bytes.data(), bytes.size(), path);
}

template std::vector<Stage<float>> load_model(const std::string&);
template std::vector<Stage<double>> load_model(const std::string&);
template std::vector<Stage<float>> load_model(const void*, size_t, const std::string&);
template std::vector<Stage<double>> load_model(const void*, size_t, const std::string&);

}  // namespace lstmcore
