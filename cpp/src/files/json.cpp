#include "files/json.h"

#include <algorithm>
#include <cmath>
#include <locale>
#include <set>
#include <sstream>
#include <stdexcept>

namespace lstmcore {

class JsonReader {
public:
    explicit JsonReader(std::string_view text) : text_(text) {}

    Json document() {
        Json value = read(0);
        skip_space();
        if (at_ != text_.size()) fail("something behind the value");
        return value;
    }

private:
    static constexpr int kDepth = 64;

    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error("not JSON at byte " + std::to_string(at_) + ": " + what);
    }
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    char next() {
        if (at_ >= text_.size()) fail("it ends too early");
        return text_[at_++];
    }
    void expect(char c) {
        if (next() != c) {
            --at_;
            fail(std::string("expected ") + c);
        }
    }
    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != text_.npos)
            ++at_;
    }
    bool take(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json read(int depth) {
        if (depth > kDepth) fail("nested too deep");
        skip_space();
        Json json;
        switch (peek()) {
            case '{':
                json.value_ = object(depth);
                break;
            case '[':
                json.value_ = array(depth);
                break;
            case '"':
                json.value_ = string();
                break;
            default:
                if (take("true"))
                    json.value_ = true;
                else if (take("false"))
                    json.value_ = false;
                else if (!take("null"))
                    json.value_ = number();
        }
        return json;
    }

    Json::Object object(int depth) {
        Json::Object members;
        std::set<std::string> keys;
        expect('{');
        skip_space();
        if (take("}")) return members;
        for (;;) {
            skip_space();
            std::string key = string();
            if (!keys.insert(key).second) fail("the key \"" + key + "\" twice");
            skip_space();
            expect(':');
            members.emplace_back(std::move(key), read(depth + 1));
            skip_space();
            if (take("}")) return members;
            expect(',');
        }
    }

    Json::Array array(int depth) {
        Json::Array elements;
        expect('[');
        skip_space();
        if (take("]")) return elements;
        for (;;) {
            elements.push_back(read(depth + 1));
            skip_space();
            if (take("]")) return elements;
            expect(',');
        }
    }

    unsigned hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = next();
            const bool digit = c >= '0' && c <= '9', low = c >= 'a' && c <= 'f',
                       high = c >= 'A' && c <= 'F';
            if (!digit && !low && !high) fail("a bad \\u escape");
            code = code * 16 + unsigned(digit ? c - '0' : (low ? c - 'a' : c - 'A') + 10);
        }
        return code;
    }

    void append_escape(std::string& out) {
        static constexpr std::string_view plain = "\"\\/bfnrt", meaning = "\"\\/\b\f\n\r\t";
        const char c = next();
        if (const auto i = plain.find(c); i != plain.npos) {
            out += meaning[i];
            return;
        }
        if (c != 'u') fail("an unknown escape");
        unsigned code = hex4();
        if (code >= 0xd800 && code < 0xdc00) {  // the first half of a pair (UTF-16)
            if (!take("\\u")) fail("half of a pair of \\u escapes");
            const unsigned second = hex4();
            if (second < 0xdc00 || second >= 0xe000) fail("half of a pair of \\u escapes");
            code = 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00);
        } else if (code >= 0xdc00 && code < 0xe000) {
            fail("half of a pair of \\u escapes");
        }
        if (code < 0x80) {
            out += char(code);
            return;
        }
        const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        static constexpr unsigned lead[] = {0, 0xc0, 0xe0, 0xf0};
        out += char(lead[more] | (code >> (6 * more)));
        for (int i = more - 1; i >= 0; --i) out += char(0x80 | ((code >> (6 * i)) & 0x3f));
    }

    std::string string() {
        std::string out;
        expect('"');
        for (;;) {
            const char c = next();
            if (c == '"') return out;
            if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
            if (c == '\\')
                append_escape(out);
            else
                out += c;
        }
    }

    void digits() {
        if (peek() < '0' || peek() > '9') fail("expected a value");
        while (peek() >= '0' && peek() <= '9') ++at_;
    }

    double number() {
        const size_t start = at_;
        take("-");
        if (!take("0")) digits();
        if (take(".")) digits();
        if (take("e") || take("E")) {
            if (!take("+")) take("-");
            digits();
        }
        // Not strtod, which obeys the locale.
        std::istringstream stream{std::string(text_.substr(start, at_ - start))};
        stream.imbue(std::locale::classic());
        double value = 0;
        stream >> value;
        if (!stream || !std::isfinite(value)) fail("a number out of range");
        return value;
    }

    std::string_view text_;
    size_t at_ = 0;
};

Json Json::parse(std::string_view text) {
    return JsonReader(text).document();
}

template <class V>
const V& Json::get(const std::string& name, const char* expected) const {
    if (const V* value = std::get_if<V>(&value_)) return *value;
    throw std::runtime_error(name + " is not " + expected);
}

bool Json::boolean(const std::string& name) const {
    return get<bool>(name, "true or false");
}

double Json::number(const std::string& name) const {
    return get<double>(name, "a number");
}

int64_t Json::integer(const std::string& name) const {
    const double value = number(name);
    if (!(value >= 0 && value <= 9007199254740992.0 && value == std::floor(value)))
        throw std::runtime_error(name + " is not an integer from 0 to 2^53");
    return int64_t(value);
}

const std::string& Json::string(const std::string& name) const {
    return get<std::string>(name, "a string");
}

const Json::Array& Json::array(const std::string& name) const {
    return get<Array>(name, "a list");
}

const Json::Object& Json::object(const std::string& name) const {
    return get<Object>(name, "an object");
}

const Json* Json::find(const std::string& key) const {
    const Object* members = std::get_if<Object>(&value_);
    if (!members) return nullptr;
    const auto found = std::find_if(members->begin(), members->end(),
                                    [&](const auto& member) { return member.first == key; });
    return found == members->end() ? nullptr : &found->second;
}

}  // namespace lstmcore
