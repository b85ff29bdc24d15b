#include "lstmcore/model.h"

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "files/json.h"
#include "files/module_reader.h"
#include "files/tensor_file.h"
#include "lstmcore/network.h"
#include "network/attempt.h"
#include "network/part.h"

namespace lstmcore {
namespace {

constexpr const char* kKey = "lstmcore.model";
constexpr int64_t kVersion = 1;

/// Lets a file have its tied tensors under their other names, too: {other: first}.
void name_tied(TensorFile& file, const Json& tied) {
    for (const auto& [other, first] : tied.object("tied")) {
        const auto found = file.tensors.find(first.string("tied"));
        if (found == file.tensors.end() || !file.tensors.emplace(other, found->second).second)
            throw std::runtime_error("it ties tensors that are not there");
    }
}

/// Calls make(part) with what the file describes; what it throws names the file.
template <class T, class Make>
auto read(const void* data, size_t bytes, const std::string& name, Make make) {
    try {
        TensorFile file = TensorFile::parse(static_cast<const char*>(data), bytes);
        const auto text = file.metadata.find(kKey);
        if (text == file.metadata.end())
            throw std::runtime_error("a safetensors file without the description of a model");
        const Json content = Json::parse(text->second);
        const Json *version = content.find("version"), *model = content.find("model");
        if (!version || version->integer("version") != kVersion)
            throw std::runtime_error("its description is not of version " +
                                     std::to_string(kVersion));
        if (!model) throw std::runtime_error("its description has no model");
        if (const Json* tied = content.find("tied")) name_tied(file, *tied);
        return make(read_module<T>(*model, file));
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(name + ": " + error.what());
    } catch (const std::invalid_argument& error) {  // options that contradict each other
        throw std::runtime_error(name + ": " + error.what());
    }
}

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    std::ostringstream data;
    // << takes nothing to copy for a failure.
    if (file.peek() != std::ifstream::traits_type::eof()) data << file.rdbuf();
    if (file.bad() || !data) throw std::runtime_error(path + ": cannot be read");
    return data.str();
}

}  // namespace

template <class T>
std::vector<Stage<T>> load_model(const void* data, size_t bytes, const std::string& name) {
    return read<T>(data, bytes, name, [](const PartPointer<T>& part) {
        std::vector<Stage<T>> stages;
        part->add_stages(stages);
        return stages;
    });
}

template <class T>
std::vector<Stage<T>> load_model(const std::string& path) {
    const std::string bytes = bytes_of(path);
    return load_model<T>(bytes.data(), bytes.size(), path);
}

template <class T>
Network<T> load_network(const void* data, size_t bytes, const std::string& name) {
    return read<T>(data, bytes, name, [](PartPointer<T> part) {
        std::vector<NetworkAxes> inputs = part->inputs();
        for (const NetworkAxes& input : inputs)
            if (input.features == kAnyFeatures)
                throw std::runtime_error("none of its modules says how many features it takes");
        return Network<T>(std::move(part), std::move(inputs));
    });
}

template <class T>
Network<T> load_network(const std::string& path) {
    const std::string bytes = bytes_of(path);
    return load_network<T>(bytes.data(), bytes.size(), path);
}

template <class T>
Result<std::vector<Stage<T>>> try_load_model(const std::string& path) noexcept {
    return attempt([&] { return load_model<T>(path); });
}

template <class T>
Result<std::vector<Stage<T>>> try_load_model(const void* data, size_t bytes,
                                             const std::string& name) noexcept {
    return attempt([&] { return load_model<T>(data, bytes, name); });
}

template <class T>
Result<Stream<T>> try_open_stream(std::vector<Stage<T>> stages, int64_t batch_size) noexcept {
    return attempt([&] { return Stream<T>(std::move(stages), batch_size); });
}

template <class T>
Result<Network<T>> try_load_network(const std::string& path) noexcept {
    return attempt([&] { return load_network<T>(path); });
}

template <class T>
Result<Network<T>> try_load_network(const void* data, size_t bytes,
                                    const std::string& name) noexcept {
    return attempt([&] { return load_network<T>(data, bytes, name); });
}

#define LSTMCORE_INSTANTIATE(T)                                                          \
    template std::vector<Stage<T>> load_model(const std::string&);                       \
    template std::vector<Stage<T>> load_model(const void*, size_t, const std::string&);  \
    template Network<T> load_network(const std::string&);                                \
    template Network<T> load_network(const void*, size_t, const std::string&);           \
    template Result<std::vector<Stage<T>>> try_load_model(const std::string&) noexcept;  \
    template Result<std::vector<Stage<T>>> try_load_model(const void*, size_t,           \
                                                          const std::string&) noexcept;  \
    template Result<Stream<T>> try_open_stream(std::vector<Stage<T>>, int64_t) noexcept; \
    template Result<Network<T>> try_load_network(const std::string&) noexcept;           \
    template Result<Network<T>> try_load_network(const void*, size_t, const std::string&) noexcept;
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
