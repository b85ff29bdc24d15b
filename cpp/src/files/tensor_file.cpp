#include "files/tensor_file.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "files/json.h"

namespace lstmcore {
namespace {

constexpr uint64_t kMostHeader = 1 << 24;

/// The dtypes that models have.
struct Dtype {
    const char* name;
    const char* numpy;  ///< what NumPy calls it
    int64_t bytes;      ///< of a number
};
constexpr Dtype kDtypes[] = {{"F64", "<f8", 8}, {"F32", "<f4", 4}, {"I8", "|i1", 1}};

/// Null of one that no model has.
const Dtype* find_dtype(const std::string& name) {
    for (const Dtype& dtype : kDtypes)
        if (name == dtype.name) return &dtype;
    return nullptr;
}

Tensor parse_tensor(const std::string& name, const Json& description, const char* data,
                    int64_t bytes) {
    const auto member = [&](const char* key) -> const Json& {
        if (const Json* found = description.find(key)) return *found;
        throw std::runtime_error("the tensor " + name + " has no " + key);
    };
    const std::string of = " of " + name;
    Tensor tensor;
    tensor.dtype = member("dtype").string("dtype" + of);
    for (const Json& size : member("shape").array("shape" + of))
        tensor.shape.push_back(size.integer("shape" + of));
    const Json::Array& offsets = member("data_offsets").array("data_offsets" + of);
    if (offsets.size() != 2)
        throw std::runtime_error("data_offsets" + of + " has " + std::to_string(offsets.size()) +
                                 " entries, expected 2");
    const int64_t first = offsets[0].integer("data_offsets" + of),
                  last = offsets[1].integer("data_offsets" + of);
    if (first > last || last > bytes)
        throw std::runtime_error("data_offsets" + of + " are " + std::to_string(first) + " and " +
                                 std::to_string(last) + " in " + std::to_string(bytes) + " bytes");
    tensor.data = data + first;
    tensor.bytes = last - first;
    const Dtype* const dtype = find_dtype(tensor.dtype);
    if (!dtype)
        throw std::runtime_error("dtype" + of + " is " + tensor.dtype +
                                 ", expected F32, F64 or I8");
    int64_t expected = dtype->bytes;
    for (const int64_t size : tensor.shape)
        if (__builtin_mul_overflow(expected, size, &expected))
            throw std::runtime_error("shape" + of + " is too large");
    if (expected != tensor.bytes)
        throw std::runtime_error(name + " has " + std::to_string(tensor.bytes) +
                                 " bytes, but its shape needs " + std::to_string(expected));
    return tensor;
}

/// The CRC-32 of zlib.
class Crc32 {
public:
    Crc32() {
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit)
                value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
            table_[i] = value;
        }
    }
    void add(const char* data, size_t bytes) {
        for (size_t i = 0; i < bytes; ++i)
            value_ = table_[(value_ ^ static_cast<unsigned char>(data[i])) & 0xff] ^ value_ >> 8;
    }
    void add(const std::string& text) { add(text.data(), text.size()); }
    std::string hex() const {
        char text[9];
        std::snprintf(text, sizeof text, "%08x", value_ ^ 0xffffffffu);
        return text;
    }

private:
    uint32_t table_[256];
    uint32_t value_ = 0xffffffffu;
};

/// The code point at `at` of UTF-8; moves `at` behind it.
uint32_t next_code_point(const std::string& text, size_t& at) {
    const unsigned char lead = text[at++];
    const int more = lead < 0xc0 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    uint32_t code = more == 0 ? lead : lead & (0x3f >> more);
    for (int i = 0; i < more && at < text.size(); ++i) code = code << 6 | (text[at++] & 0x3f);
    return code;
}

/// A string as Python's json.dumps writes it.
std::string python_json(const std::string& text) {
    std::string out = "\"";
    const auto escape = [&](uint32_t unit) {
        char escaped[7];
        std::snprintf(escaped, sizeof escaped, "\\u%04x", unsigned(unit & 0xffff));
        out += escaped;
    };
    for (size_t at = 0; at < text.size();) {
        const uint32_t c = next_code_point(text, at);
        const size_t special =
            c < 0x80 ? std::string_view("\"\\\b\f\n\r\t").find(char(c)) : std::string_view::npos;
        if (special != std::string_view::npos) {
            out += {'\\', "\"\\bfnrt"[special]};
        } else if (c >= 0x20 && c < 0x7f) {
            out += char(c);
        } else if (c < 0x10000) {
            escape(c);
        } else {  // a pair, as in UTF-16
            escape(0xd800 + ((c - 0x10000) >> 10));
            escape(0xdc00 + (c & 0x3ff));
        }
    }
    return out + '"';
}

/// What Python's lstmcore writes behind every string of the metadata: the checksum of all strings
/// and tensors. Takes it off; other programs' files have none.
void check_and_strip(TensorFile& file) {
    static const std::string mark = "\ncrc32:";
    std::string expected;
    for (auto& [key, value] : file.metadata) {
        const size_t at = value.rfind(mark);
        if (at == value.npos) continue;
        expected = value.substr(at + mark.size());
        value.resize(at);
    }
    if (expected.empty()) return;
    Crc32 crc;
    std::string strings;
    for (const auto& [key, value] : file.metadata)
        strings += (strings.empty() ? "" : ", ") + python_json(key) + ": " + python_json(value);
    crc.add("{" + strings + "}");
    for (const auto& [name, tensor] : file.tensors) {
        std::string shape;
        for (const int64_t size : tensor.shape)
            shape += (shape.empty() ? "" : ", ") + std::to_string(size);
        if (tensor.shape.size() == 1) shape += ",";
        crc.add(name + " " + find_dtype(tensor.dtype)->numpy + " (" + shape + ")");
        crc.add(tensor.data, size_t(tensor.bytes));
    }
    if (crc.hex() != expected)
        throw std::runtime_error("it is damaged: not what was written (the checksum differs)");
}

}  // namespace

TensorFile TensorFile::parse(const char* data, size_t bytes) {
    if (bytes < 8) throw std::runtime_error("it is too short for a safetensors file");
    uint64_t header = 0;
    for (int i = 7; i >= 0; --i) header = header << 8 | static_cast<unsigned char>(data[i]);
    if (header > kMostHeader)
        throw std::runtime_error("no safetensors file: its header has " + std::to_string(header) +
                                 " bytes");
    if (header > bytes - 8)
        throw std::runtime_error("it is cut off: its header has " + std::to_string(header) +
                                 " bytes of " + std::to_string(bytes));
    const char* const numbers = data + 8 + header;
    const int64_t left = int64_t(bytes - 8 - header);
    const Json root = Json::parse(std::string_view(data + 8, header));

    TensorFile file;
    std::vector<std::pair<int64_t, int64_t>> pieces;
    for (const auto& [name, description] : root.object("the header")) {
        if (name == "__metadata__") {
            for (const auto& [key, value] : description.object(name))
                file.metadata[key] = value.string(key);
        } else {
            const Tensor tensor = parse_tensor(name, description, numbers, left);
            pieces.emplace_back(tensor.data - numbers, tensor.bytes);
            file.tensors[name] = tensor;
        }
    }
    std::sort(pieces.begin(), pieces.end());
    int64_t end = 0;
    for (const auto& [first, size] : pieces) {
        if (first != end) throw std::runtime_error("its tensors overlap or leave gaps");
        end += size;
    }
    if (end != left) throw std::runtime_error("it is longer than its tensors");
    check_and_strip(file);
    return file;
}

}  // namespace lstmcore
