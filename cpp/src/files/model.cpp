#include "lstmcore/model.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "files/json.h"
#include "files/tensor_file.h"
#include "lstmcore/options.h"

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
    /// A name, or "" if there is none.
    std::string name_or_none(const std::string& name) {
        const bool there = std::any_of(values_.begin(), values_.end(),
                                       [&](const Value& value) { return *value.name == name; });
        return there ? get(name).string(name) : "";
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
    const auto kind = find_name(kActivationNames, name);
    if (!kind) throw std::runtime_error("the activation " + name + " is unknown");
    if (!parts) return {*kind};
    return {*kind, (*parts)[1].number("alpha"), (*parts)[2].number("beta")};
}

Merge parse_merge(const Json& json) {
    const std::string& name = json.string("merge");
    if (const auto merge = find_name(kMergeNames, name)) return *merge;
    throw std::runtime_error("merge is " + name + ", which is unknown");
}

/// Takes the options of a layer as Python writes them: those that its cell has, with the
/// activations in one list, or, of the RNN, as `nonlinearity`.
LayerSpec read_layer(CellKind kind, Options& options) {
    LayerSpec spec;
    spec.cell.kind = kind;
    std::vector<Activation*> activations;
    for (const Option& option : kOptions) {
        if (!option.allowed(kind)) continue;
        const OptionField field = option.field(spec);
        if (const auto* size = std::get_if<int64_t*>(&field)) **size = options.size(option.name);
        if (const auto* on = std::get_if<bool*>(&field)) **on = options.boolean(option.name);
        if (const auto* limit = std::get_if<double*>(&field)) **limit = options.clip(option.name);
        if (const auto* merge = std::get_if<Merge*>(&field))
            **merge = parse_merge(options.get(option.name));
        if (const auto* f = std::get_if<Activation*>(&field)) activations.push_back(*f);
    }
    if (kind == CellKind::rnn) {
        *activations[0] = parse_activation(options.get("nonlinearity"));
    } else {
        const Json::Array& given = options.get("activations").array("activations");
        if (given.size() != activations.size())
            throw std::runtime_error("activations has the wrong length");
        for (size_t i = 0; i < given.size(); ++i) *activations[i] = parse_activation(given[i]);
    }
    // Of no meaning to inference.
    options.ignore("batch_first");
    options.ignore("dropout");
    if (kind == CellKind::lstm) options.ignore("forget_bias");
    spec.check();
    return spec;
}

template <class T>
class Builder {
public:
    explicit Builder(const TensorFile& file) : file_(file) {}

    void add(const Json& description, const std::string& prefix, int depth = 0) {
        if (depth > kDepth) throw std::runtime_error("models in models, too deep");
        Options options(description);
        const std::string type = options.get("type").string("type");
        // The kinds of modules, by the names that files have for them, and what reads each.
        struct Kind {
            const char* name;
            void (Builder::*read)(Options& options, const std::string& prefix, int depth);
        };
        static constexpr Kind kKinds[] = {
            {"Sequential", &Builder::add_sequential},
            {"RNN", &Builder::add_recurrent<CellKind::rnn>},
            {"LSTM", &Builder::add_recurrent<CellKind::lstm>},
            {"GRU", &Builder::add_recurrent<CellKind::gru>},
            {"Linear", &Builder::add_linear},
            {"LayerNorm", &Builder::add_layer_norm},
            {"Dropout", &Builder::add_dropout},
            {"CRF", &Builder::add_crf},
            {"Tanh", &Builder::add_activation<ActivationKind::tanh>},
            {"ReLU", &Builder::add_activation<ActivationKind::relu>},
            {"Sigmoid", &Builder::add_activation<ActivationKind::sigmoid>},
            {"Softmax", &Builder::add_softmax},
        };
        for (const Kind& kind : kKinds) {
            if (type != kind.name) continue;
            (this->*kind.read)(options, prefix, depth);
            return options.check_all_used(type);
        }
        throw std::runtime_error("it has a module of type " + type +
                                 ", which is known to Python only");
    }

    std::vector<Stage<T>> finish() {
        for (const auto& [name, tensor] : file_.tensors)
            if (!used_.count(name)) throw std::runtime_error("the tensor " + name + " is unknown");
        return std::move(stages_);
    }

private:
    /// The numbers of a tensor of exactly this shape, kept until the model is made.
    const T* take(const std::string& name, const std::vector<int64_t>& shape) {
        return take_numbers<T>(name, shape, sizeof(T) == 4 ? "F32" : "F64");
    }
    /// The same of a matrix in int8, whose scales are beside it.
    QuantizedMatrix take_quantized(const std::string& name, const std::vector<int64_t>& shape) {
        return {take_numbers<int8_t>(name, shape, "I8"),
                take_numbers<float>(name + "_scale", {shape[0]}, "F32")};
    }

    template <class Number>
    const Number* take_numbers(const std::string& name, const std::vector<int64_t>& shape,
                               const char* dtype) {
        const auto found = file_.tensors.find(name);
        if (found == file_.tensors.end())
            throw std::runtime_error("the tensor " + name + " is missing");
        const Tensor& tensor = found->second;
        if (tensor.dtype != dtype)
            throw std::runtime_error("the tensor " + name + " is " + tensor.dtype + ", expected " +
                                     dtype);
        if (tensor.shape != shape)
            throw std::runtime_error("the tensor " + name + " has the shape " + text(tensor.shape) +
                                     ", expected " + text(shape));
        used_.insert(name);
        // At least one byte: a null pointer would say that the tensor is not there.
        kept_.push_back(std::make_unique<char[]>(size_t(tensor.bytes) + 1));
        if (tensor.bytes > 0) std::memcpy(kept_.back().get(), tensor.data, size_t(tensor.bytes));
        return reinterpret_cast<const Number*>(kept_.back().get());
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

    void add_sequential(Options& options, const std::string& prefix, int depth) {
        const Json::Array& modules = options.get("modules").array("modules");
        for (size_t i = 0; i < modules.size(); ++i)
            add(modules[i], prefix + std::to_string(i) + ".", depth + 1);
    }

    template <CellKind kCell>
    void add_recurrent(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const auto [quantized, precision] = read_precision(options);
        const LayerSpec spec = read_layer(kCell, options);
        kept_.clear();
        if constexpr (std::is_same_v<T, float>) {
            if (quantized) {
                const auto sets =
                    take_sets<QuantizedParameters>(spec, prefix, &Builder::take_quantized);
                return stages_.push_back(pack(spec, sets));
            }
        }
        const auto sets = take_sets<Parameters<const T>>(spec, prefix, &Builder::take);
        stages_.push_back(pack<T>(spec, sets, false, 1, precision));
    }

    /// The parameters of all directions of a layer; (this->*matrix)(name, shape) gives a matrix.
    template <class Set, class Matrix>
    std::vector<Set> take_sets(const LayerSpec& spec, const std::string& prefix, Matrix matrix) {
        using Shape = std::vector<int64_t>;
        std::vector<Set> sets;
        for (int64_t layer = 0; layer < spec.num_layers; ++layer)
            for (int d = 0; d < spec.directions(); ++d) {
                const std::string end = "_l" + std::to_string(layer) + (d == 1 ? "_reverse" : "");
                sets.push_back(take_parameters<Set>(
                    spec, layer,
                    [&](const char* name, const Shape& shape) {
                        return take(prefix + name + end, shape);
                    },
                    [&](const char* name, const Shape& shape) {
                        return (this->*matrix)(prefix + name + end, shape);
                    }));
            }
        return sets;
    }

    /// Whether the matrices of a module are in int8 in the file, and what the others become.
    static std::pair<bool, Precision> read_precision(Options& options) {
        const std::string name = options.name_or_none("precision");
        if (name.empty()) return {false, Precision::own};
        const auto precision = find_name(kPrecisionNames, name);
        if (name != "int8" && !precision)
            throw std::runtime_error("its precision is " + name + ", which is unknown");
        if (sizeof(T) != 4)
            throw std::runtime_error("its precision is " + name +
                                     ", which is there in float32 alone");
        return {name == "int8", precision.value_or(Precision::own)};
    }

    void add_linear(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const auto [quantized, precision] = read_precision(options);
        kept_.clear();
        const int64_t inputs = options.size("in_features"), outputs = options.size("out_features");
        const T* bias = options.boolean("bias") ? take(prefix + "bias", {outputs}) : nullptr;
        if constexpr (std::is_same_v<T, float>) {
            if (quantized) {
                const QuantizedMatrix weight = take_quantized(prefix + "weight", {outputs, inputs});
                return stages_.push_back(pack_linear(weight, bias, inputs, outputs));
            }
        }
        const T* weight = take(prefix + "weight", {outputs, inputs});
        stages_.push_back(pack_linear<T>(weight, bias, inputs, outputs, false, 1, precision));
    }

    void add_layer_norm(Options& options, const std::string& prefix, int) {
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

    /// It does nothing outside training.
    void add_dropout(Options& options, const std::string&, int) { options.ignore("p"); }

    /// It passes scores through; its parameters are for its loss and for decoding, in Python.
    void add_crf(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const int64_t classes = options.size("classes");
        take(prefix + "transitions", {classes, classes});
        take(prefix + "start", {classes});
        take(prefix + "end", {classes});
        kept_.clear();
    }

    template <ActivationKind kActivation>
    void add_activation(Options&, const std::string&, int) {
        stages_.push_back(Activation{kActivation});
    }

    void add_softmax(Options&, const std::string&, int) { stages_.push_back(Softmax{}); }

    const TensorFile& file_;
    std::set<std::string> used_;
    std::vector<std::unique_ptr<char[]>> kept_;  ///< of the stage that is being made
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
