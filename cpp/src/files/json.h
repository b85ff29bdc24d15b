// Reads JSON (RFC 8259), strictly: whatever is not exactly that is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lstmcore {

class Json {
public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string, Json>>;  // in the order of the text

    /// Throws std::runtime_error where the text is not JSON, has a key twice or is nested deeper
    /// than anybody writes.
    static Json parse(std::string_view text);

    bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
    bool is_array() const { return std::holds_alternative<Array>(value_); }
    bool is_string() const { return std::holds_alternative<std::string>(value_); }

    // All throw std::runtime_error, saying what `name` should have been.
    bool boolean(const std::string& name) const;
    double number(const std::string& name) const;
    int64_t integer(const std::string& name) const;  // >= 0
    const std::string& string(const std::string& name) const;
    const Array& array(const std::string& name) const;
    const Object& object(const std::string& name) const;

    /// The member of an object, or null if there is none.
    const Json* find(const std::string& key) const;

private:
    friend class JsonReader;
    template <class V>
    const V& get(const std::string& name, const char* expected) const;

    std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value_ = nullptr;
};

}  // namespace lstmcore
