#include "files/module_reader.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "files/description.h"
#include "files/graph_reader.h"
#include "files/parameters.h"
#include "lstmcore/options.h"
#include "network/functions.h"
#include "network/graph.h"
#include "network/layers.h"
#include "network/steps.h"

namespace lstmcore {
namespace {

constexpr int kMostModels = 30;  // of models in models

template <class T>
class ModuleReader {
public:
    explicit ModuleReader(const TensorFile& file) : parameters_(file) {}

    PartPointer<T> read(const Json& description, const std::string& prefix, int depth = 0) {
        if (depth > kMostModels) throw std::runtime_error("models in models, too deep");
        Options options(description);
        const std::string type = options.get("type").string("type");
        const Kind& kind = find_kind(type);
        parameters_.forget();
        PartPointer<T> part = (this->*kind.read)(options, prefix, depth);
        options.check_all_used(type);
        return part;
    }

    void check_all_used() const { parameters_.check_all_used(); }

private:
    using Read = PartPointer<T> (ModuleReader::*)(Options& options, const std::string& prefix,
                                                  int depth);
    struct Kind {
        const char* name;
        Read read;
    };
    static const Kind kKinds[];

    static const Kind& find_kind(const std::string& type) {
        for (const Kind& kind : kKinds)
            if (type == kind.name) return kind;
        std::string known;
        for (const Kind& kind : kKinds)
            known += (known.empty() ? "" : ", ") + std::string(kind.name);
        throw std::runtime_error("it has a module of type " + type +
                                 ", which is known to Python only; C++ knows " + known);
    }

    static std::string type_of(const Json& description) {
        return Options(description).get("type").string("type");
    }

    static void check_dtype(Options& options) {
        const std::string& dtype = options.get("dtype").string("dtype");
        const char* const ours = sizeof(T) == 4 ? "float32" : "float64";
        if (dtype != ours)
            throw std::runtime_error("its numbers are " + dtype + ", but " + ours +
                                     " was asked for");
    }

    PartPointer<T> read_sequential(Options& options, const std::string& prefix, int depth) {
        auto chain = std::make_shared<Chain<T>>();
        const Json::Array& modules = options.get("modules").array("modules");
        for (size_t i = 0; i < modules.size(); ++i) {
            const std::string name = prefix + std::to_string(i);
            chain->add("module " + name + ", " + type_of(modules[i]),
                       read(modules[i], name + ".", depth + 1));
        }
        return chain;
    }

    /// The modules of a graph are named after their kinds: linear, linear_1, linear_2.
    PartPointer<T> read_model(Options& options, const std::string& prefix, int depth) {
        std::vector<NamedPart<T>> modules;
        std::set<std::string> names;
        for (const Json& module : options.get("modules").array("modules")) {
            const std::string type = type_of(module);
            std::string kind = type;
            std::transform(kind.begin(), kind.end(), kind.begin(),
                           [](unsigned char c) { return char(std::tolower(c)); });
            std::string name = kind;
            for (int count = 1; !names.insert(name).second; ++count)
                name = kind + "_" + std::to_string(count);
            modules.push_back({"module " + prefix + name + ", " + type,
                               read(module, prefix + name + ".", depth + 1)});
        }
        options.ignore_if_any("names");  // of inputs and outputs, which have an order as well
        return read_graph(options.get("graph"), modules);
    }

    template <CellKind kCell>
    PartPointer<T> read_recurrent(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const auto [quantized, precision] = read_precision(options);
        const LayerSpec spec = read_layer(kCell, options);
        if constexpr (std::is_same_v<T, float>) {
            if (quantized)
                return recurrent_part<T>(pack(
                    spec, take_sets<QuantizedParameters>(
                              spec, prefix, [this](const std::string& name, const Shape& shape) {
                                  return parameters_.take_quantized(name, shape);
                              })));
        }
        const auto sets = take_sets<Parameters<const T>>(
            spec, prefix, [this](const std::string& name, const Shape& shape) {
                return parameters_.take(name, shape);
            });
        return recurrent_part<T>(pack<T>(spec, sets, false, 1, precision));
    }

    using Shape = std::vector<int64_t>;

    /// The parameters of all directions of a layer; matrix(name, shape) gives a matrix.
    template <class Set, class Matrix>
    std::vector<Set> take_sets(const LayerSpec& spec, const std::string& prefix, Matrix matrix) {
        std::vector<Set> sets;
        for (int64_t layer = 0; layer < spec.num_layers; ++layer)
            for (int d = 0; d < spec.directions(); ++d) {
                const std::string end = "_l" + std::to_string(layer) + (d == 1 ? "_reverse" : "");
                sets.push_back(take_parameters<Set>(
                    spec, layer,
                    [&](const char* name, const Shape& shape) {
                        return parameters_.take(prefix + name + end, shape);
                    },
                    [&](const char* name, const Shape& shape) {
                        return matrix(prefix + name + end, shape);
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

    PartPointer<T> read_linear(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const auto [quantized, precision] = read_precision(options);
        const int64_t inputs = options.size("in_features"), outputs = options.size("out_features");
        const T* bias =
            options.boolean("bias") ? parameters_.take(prefix + "bias", {outputs}) : nullptr;
        if constexpr (std::is_same_v<T, float>) {
            if (quantized)
                return linear_part<T>(
                    pack_linear(parameters_.take_quantized(prefix + "weight", {outputs, inputs}),
                                bias, inputs, outputs));
        }
        const T* weight = parameters_.take(prefix + "weight", {outputs, inputs});
        return linear_part<T>(pack_linear<T>(weight, bias, inputs, outputs, false, 1, precision));
    }

    PartPointer<T> read_embedding(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const auto [quantized, precision] = read_precision(options);
        Table<T> table;
        const int64_t count = table.count = options.size("num_embeddings");
        const int64_t size = table.features = options.size("embedding_dim");
        if (count < 1 || size < 1) throw std::runtime_error("an Embedding is empty");
        // Of no meaning to inference.
        options.ignore("padding_idx");
        options.ignore("sparse");
        if (quantized) {
            const QuantizedMatrix matrix =
                parameters_.take_quantized(prefix + "weight", {count, size});
            table.whole.assign(matrix.values, matrix.values + count * size);
            table.scales.assign(matrix.scales, matrix.scales + count);
            return embedding_part<T>(std::move(table));
        }
        const T* numbers = parameters_.take(prefix + "weight", {count, size});
        if (precision != Precision::bfloat16)
            table.numbers.assign(numbers, numbers + count * size);
        else
            for (int64_t i = 0; i < count * size; ++i)
                table.rounded.push_back(to_bfloat16(float(numbers[i])));
        return embedding_part<T>(std::move(table));
    }

    /// What Python knows as "valid", "same" and "causal", or how many zeros there are on each side.
    static void pad(Windows& windows, const Json& given) {
        if (!given.is_string()) {
            windows.left = windows.right = checked(given.integer("padding"), "padding", 0);
            return;
        }
        const std::string padding = given.string("padding");
        if (padding == "causal") {
            windows.left = windows.reach();
        } else if (padding == "same") {
            if (windows.stride != 1) throw std::runtime_error("padding is same and stride not 1");
            windows.left = windows.reach() / 2;
            windows.right = windows.reach() - windows.left;
        } else if (padding != "valid") {
            throw std::runtime_error("padding is " + padding + ", which is unknown");
        }
    }

    static int64_t checked(int64_t value, const std::string& name, int64_t least = 1) {
        if (value < least || value > INT32_MAX)
            throw std::runtime_error(name + " is " + std::to_string(value));
        return value;
    }

    PartPointer<T> read_conv(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        options.ignore("batch_first");
        Windows windows;
        const auto size = [&](const char* name) { return checked(options.size(name), name); };
        const int64_t outputs = size("out_channels");
        windows.channels = size("in_channels");
        windows.taps = size("kernel_size");
        windows.stride = size("stride");
        windows.dilation = size("dilation");
        pad(windows, options.get("padding"));
        const int64_t groups = options.has("groups") ? size("groups") : 1;
        if (outputs % groups != 0 || windows.channels % groups != 0)
            throw std::runtime_error("groups is " + std::to_string(groups));
        const T* bias =
            options.boolean("bias") ? parameters_.take(prefix + "bias", {outputs}) : nullptr;
        const int64_t channels = windows.channels / groups, taps = windows.taps;
        const T* weight = parameters_.take(prefix + "weight", {outputs, channels, taps});
        std::vector<T> beside;  // (outputs, taps, channels), as the steps of a window are
        for (int64_t o = 0; o < outputs; ++o)
            for (int64_t k = 0; k < taps; ++k)
                for (int64_t c = 0; c < channels; ++c)
                    beside.push_back(weight[(o * channels + c) * taps + k]);
        std::vector<std::shared_ptr<const Linear<T>>> linears;
        for (int64_t first = 0; first < outputs; first += outputs / groups)
            linears.push_back(pack_linear<T>(beside.data() + first * taps * channels,
                                             bias ? bias + first : nullptr, taps * channels,
                                             outputs / groups));
        return conv_part<T>(windows, std::move(linears));
    }

    PartPointer<T> read_layer_norm(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const Json::Array& shape = options.get("normalized_shape").array("normalized_shape");
        if (shape.size() != 1)
            throw std::runtime_error(
                "normalized_shape has several sizes, which is known to Python only");
        LayerNorm<T> norm;
        norm.features = shape[0].integer("normalized_shape");
        norm.eps = options.get("eps").number("eps");
        const bool affine = options.boolean("elementwise_affine"), bias = options.boolean("bias");
        if (affine) norm.weight = parameters_.vector(prefix + "weight", norm.features);
        if (affine && bias) norm.bias = parameters_.vector(prefix + "bias", norm.features);
        return row_part<T>(std::move(norm));
    }

    PartPointer<T> read_batch_norm(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        // Of no meaning to inference.
        for (const char* name : {"momentum", "frozen", "batch_first"}) options.ignore(name);
        parameters_.take(prefix + "num_batches_tracked", {});
        const int64_t features = options.size("num_features");
        RunningStatistics<T> statistics;
        statistics.eps = options.get("eps").number("eps");
        statistics.mean = parameters_.vector(prefix + "running_mean", features);
        statistics.variance = parameters_.vector(prefix + "running_var", features);
        if (options.boolean("affine")) {
            statistics.weight = parameters_.vector(prefix + "weight", features);
            statistics.bias = parameters_.vector(prefix + "bias", features);
        }
        return batch_norm_part(statistics);
    }

    /// It passes scores through; its parameters are for its loss and for decoding, in Python.
    PartPointer<T> read_crf(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        const int64_t classes = options.size("classes");
        parameters_.take(prefix + "transitions", {classes, classes});
        parameters_.take(prefix + "start", {classes});
        parameters_.take(prefix + "end", {classes});
        return pass_part<T>(classes);
    }

    /// It does nothing outside training.
    PartPointer<T> read_dropout(Options& options, const std::string&, int) {
        options.ignore("p");
        return pass_part<T>(kAnyFeatures);
    }

    template <Pooling kPooling>
    PartPointer<T> read_pool(Options& options, const std::string&, int) {
        options.ignore("batch_first");
        return pool_part<T>(kPooling);
    }

    PartPointer<T> read_both_ends(Options& options, const std::string&, int) {
        options.ignore("batch_first");
        return both_ends_part<T>(parse_merge(options.get("merge")));
    }

    PartPointer<T> read_flip(Options& options, const std::string&, int) {
        options.ignore("batch_first");
        return flip_part<T>();
    }

    PartPointer<T> read_masking(Options& options, const std::string&, int) {
        options.ignore("batch_first");
        const double value = options.get("value").number("value");
        const bool ids = options.boolean("ids");
        return masking_part<T>(value, ids, options.boolean("gaps"));
    }

    PartPointer<T> read_repeat(Options& options, const std::string&, int) {
        options.ignore("batch_first");
        return repeat_part<T>(options.size("steps"));
    }

    template <ActivationKind kActivation>
    PartPointer<T> read_activation(Options&, const std::string&, int) {
        return row_part<T>(Activation{kActivation});
    }

    PartPointer<T> read_softmax(Options&, const std::string&, int) {
        return row_part<T>(Softmax{});
    }

    PartPointer<T> read_gelu(Options& options, const std::string&, int) {
        const std::string& how = options.get("approximate").string("approximate");
        if (how != "none" && how != "tanh")
            throw std::runtime_error("approximate is " + how + ", which is unknown");
        if (how == "none") return row_part<T>(Activation{ActivationKind::gelu});
        return function_part<T>("GELU(tanh)", {});
    }

    PartPointer<T> read_log_softmax(Options&, const std::string&, int) {
        return function_part<T>("LogSoftmax", {});
    }

    PartPointer<T> read_elu(Options& options, const std::string&, int) {
        const double alpha = options.get("alpha").number("alpha");
        if (alpha >= 0) return row_part<T>(Activation{ActivationKind::elu, alpha});
        return function_part<T>("ELU", {alpha});
    }

    PartPointer<T> read_leaky_relu(Options& options, const std::string&, int) {
        const double slope = options.get("negative_slope").number("negative_slope");
        if (slope >= 0) return row_part<T>(Activation{ActivationKind::leaky_relu, slope});
        return function_part<T>("LeakyReLU", {slope});
    }

    PartPointer<T> read_prelu(Options& options, const std::string& prefix, int) {
        check_dtype(options);
        options.ignore("init");
        return prelu_part(parameters_.vector(prefix + "weight", options.size("num_parameters")));
    }

    PartPointer<T> read_softplus(Options& options, const std::string&, int) {
        const double beta = options.get("beta").number("beta");
        return function_part<T>("Softplus", {beta, options.get("threshold").number("threshold")});
    }

    PartPointer<T> read_named_activation(Options& options, const std::string&, int) {
        const std::string& name = options.get("name").string("name");
        constexpr struct {
            const char* name;
            Activation f;
        } kOfKernels[] = {
            {"exponential", {ActivationKind::exponential}},
            {"hard_sigmoid", {ActivationKind::hard_sigmoid, 1.0 / 6, 0.5}},
            {"hard_silu", {ActivationKind::hard_silu}},
            {"mish", {ActivationKind::mish}},
            {"selu", {ActivationKind::selu}},
        };
        for (const auto& one : kOfKernels)
            if (name == one.name) return row_part<T>(one.f);
        if (PartPointer<T> part = named_function_part<T>(name)) return part;
        throw std::runtime_error("the activation " + name + " is unknown");
    }

    FileParameters<T> parameters_;
};

template <class T>
const typename ModuleReader<T>::Kind ModuleReader<T>::kKinds[] = {
    {"Sequential", &ModuleReader::read_sequential},
    {"Model", &ModuleReader::read_model},
    {"RNN", &ModuleReader::template read_recurrent<CellKind::rnn>},
    {"LSTM", &ModuleReader::template read_recurrent<CellKind::lstm>},
    {"GRU", &ModuleReader::template read_recurrent<CellKind::gru>},
    {"Linear", &ModuleReader::read_linear},
    {"Embedding", &ModuleReader::read_embedding},
    {"Conv1D", &ModuleReader::read_conv},
    {"LastStep", &ModuleReader::template read_pool<Pooling::last>},
    {"BothEnds", &ModuleReader::read_both_ends},
    {"MeanPool", &ModuleReader::template read_pool<Pooling::mean>},
    {"MaxPool", &ModuleReader::template read_pool<Pooling::max>},
    {"Flip", &ModuleReader::read_flip},
    {"Masking", &ModuleReader::read_masking},
    {"RepeatVector", &ModuleReader::read_repeat},
    {"LayerNorm", &ModuleReader::read_layer_norm},
    {"BatchNorm", &ModuleReader::read_batch_norm},
    {"Dropout", &ModuleReader::read_dropout},
    {"CRF", &ModuleReader::read_crf},
    {"Tanh", &ModuleReader::template read_activation<ActivationKind::tanh>},
    {"ReLU", &ModuleReader::template read_activation<ActivationKind::relu>},
    {"Sigmoid", &ModuleReader::template read_activation<ActivationKind::sigmoid>},
    {"Softmax", &ModuleReader::read_softmax},
    {"LogSoftmax", &ModuleReader::read_log_softmax},
    {"GELU", &ModuleReader::read_gelu},
    {"SiLU", &ModuleReader::template read_activation<ActivationKind::silu>},
    {"ELU", &ModuleReader::read_elu},
    {"LeakyReLU", &ModuleReader::read_leaky_relu},
    {"PReLU", &ModuleReader::read_prelu},
    {"Softplus", &ModuleReader::read_softplus},
    {"Activation", &ModuleReader::read_named_activation},
};

}  // namespace

template <class T>
PartPointer<T> read_module(const Json& description, const TensorFile& file) {
    ModuleReader<T> reader(file);
    PartPointer<T> part = reader.read(description, "");
    reader.check_all_used();
    return part;
}

template PartPointer<float> read_module(const Json&, const TensorFile&);
template PartPointer<double> read_module(const Json&, const TensorFile&);

}  // namespace lstmcore
