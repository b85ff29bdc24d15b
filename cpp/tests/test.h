// A small test harness. A test program is one file: it includes this, and writes
//
//     TEST(name_of_the_test) { CHECK(1 + 1 == 2); }
//
// Its arguments, if any, are the names of the tests to run. It exits with 1 if a check failed, an
// exception escaped or no test ran.
#pragma once

#include <cmath>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

namespace test {

struct Case {
    const char* name;
    void (*run)();
};

inline std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

inline int failures = 0;
inline std::string program;  ///< how this program was called

struct Register {
    Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};

inline void fail(const char* file, int line, const std::string& what) {
    ++failures;
    std::cerr << file << ":" << line << ": " << what << std::endl;
}

template <class Exception, class F>
void check_throws(const char* file, int line, const char* text, F&& f, const std::string& part) {
    try {
        f();
    } catch (const Exception& error) {
        if (std::strstr(error.what(), part.c_str())) return;
        return fail(file, line,
                    std::string(text) + ": message lacks '" + part + "': " + error.what());
    }
    fail(file, line, std::string(text) + " did not throw");
}

}  // namespace test

#define TEST(name)                                            \
    static void name();                                       \
    static const test::Register register_##name(#name, name); \
    static void name()

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) test::fail(__FILE__, __LINE__, "not " #condition); \
    } while (false)

/// Both must have `==` and be printable.
#define CHECK_EQUAL(a, b)                                                    \
    do {                                                                     \
        const auto a_ = (a);                                                 \
        const auto b_ = (b);                                                 \
        if (!(a_ == b_)) {                                                   \
            std::cerr << #a " = " << a_ << ", " #b " = " << b_ << std::endl; \
            test::fail(__FILE__, __LINE__, "not " #a " == " #b);             \
        }                                                                    \
    } while (false)

/// |a - b| <= tolerance; false for NaN.
#define CHECK_NEAR(a, b, tolerance)                                          \
    do {                                                                     \
        const double a_ = (a), b_ = (b);                                     \
        if (!(std::abs(a_ - b_) <= (tolerance))) {                           \
            std::cerr << #a " = " << a_ << ", " #b " = " << b_ << std::endl; \
            test::fail(__FILE__, __LINE__, #a " is not near " #b);           \
        }                                                                    \
    } while (false)

/// `expression` throws `Exception`, whose message has `part` in it.
#define CHECK_THROWS(expression, Exception, part) \
    test::check_throws<Exception>(__FILE__, __LINE__, #expression, [&] { expression; }, part)

int main(int argc, char** argv) {
    test::program = argv[0];
    int ran = 0;
    for (const test::Case& one : test::cases()) {
        bool wanted = argc == 1;
        for (int i = 1; i < argc; ++i) wanted = wanted || std::strcmp(argv[i], one.name) == 0;
        if (!wanted) continue;
        ++ran;
        const int before = test::failures;
        try {
            one.run();
        } catch (const std::exception& error) {
            test::fail(one.name, 0, std::string("exception: ") + error.what());
        }
        std::cout << (test::failures == before ? "ok    " : "FAIL  ") << one.name << std::endl;
    }
    if (ran == 0) std::cerr << "no test of that name" << std::endl;
    return test::failures > 0 || ran == 0 ? 1 : 0;
}
