#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "kernel_table.h"
#include "machine/isa.h"
#include "test.h"

using namespace lstmcore;

namespace {

bool first_use_fails(const std::string& value, const std::string& message) {
    if (setenv("LSTMCORE_ISA", value.c_str(), 1) != 0) return false;
    bool failed = false;
    try {
        isa();
    } catch (const std::invalid_argument& error) {
        failed = std::string(error.what()).find(message) != std::string::npos;
    }
    unsetenv("LSTMCORE_ISA");
    return failed;
}

// All that level 4 needs, and nothing more.
CpuRegisters level4() {
    CpuRegisters cpu;
    for (int n : {0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29}) cpu.leaf1_ecx |= 1u << n;
    for (int n : {3, 5, 8, 16, 17, 28, 30, 31}) cpu.leaf7_ebx |= 1u << n;
    cpu.extended1_ecx = 1u << 0 | 1u << 5;
    cpu.xcr0 = 0xe7;
    return cpu;
}

}  // namespace

// First: a failed first use must leave the choice open for the next.
TEST(variable_is_checked_at_first_use) {
    CHECK(first_use_fails("sse9", "LSTMCORE_ISA"));
    CHECK(first_use_fails("sse9", "unknown"));
    CHECK(first_use_fails("sse9", available_isas().front()));
    CHECK(first_use_fails("X86-64-V2", "unknown"));
}

TEST(default_is_the_best) {
    if (std::getenv("LSTMCORE_ISA")) return;
    CHECK_EQUAL(isa(), available_isas().back());
    CHECK_EQUAL(isa_version(), 1);
}

TEST(set_isa_changes_the_table) {
    for (const std::string& name : available_isas()) {
        set_isa(name);
        CHECK_EQUAL(isa(), name);
        CHECK_EQUAL(std::string(kernel_table().isa), name);
        const long version = isa_version();
        set_isa(name);
        CHECK_EQUAL(isa_version(), version);
    }
    const std::vector<std::string> names = available_isas();
    if (names.size() > 1) {
        const long version = isa_version();
        set_isa(names.front());
        CHECK(isa_version() > version);
        set_isa(names.back());
    }
}

TEST(set_isa_refuses_what_is_not_available) {
    const std::string before = isa();
    CHECK_THROWS(set_isa("avx2"), std::invalid_argument, "'avx2' is unknown");
    CHECK_THROWS(set_isa(""), std::invalid_argument, available_isas().front());
    CHECK_EQUAL(isa(), before);
    for (const char* name : {"x86-64-v2", "x86-64-v3", "x86-64-v4", "neon"}) {
        const auto names = available_isas();
        if (std::find(names.begin(), names.end(), name) == names.end()) {
            CHECK_THROWS(set_isa(name), std::invalid_argument, name);
        }
    }
}

TEST(level_needs_every_feature) {
    CHECK_EQUAL(x86_64_level(CpuRegisters{}), 1);
    CHECK_EQUAL(x86_64_level(level4()), 4);
    const auto without = [](std::uint32_t CpuRegisters::* word, int bit) {
        CpuRegisters cpu = level4();
        cpu.*word &= ~(1u << bit);
        return x86_64_level(cpu);
    };
    for (int n : {0, 9, 13, 19, 20, 23}) CHECK_EQUAL(without(&CpuRegisters::leaf1_ecx, n), 1);
    CHECK_EQUAL(without(&CpuRegisters::extended1_ecx, 0), 1);
    for (int n : {12, 22, 27, 28, 29}) CHECK_EQUAL(without(&CpuRegisters::leaf1_ecx, n), 2);
    for (int n : {3, 5, 8}) CHECK_EQUAL(without(&CpuRegisters::leaf7_ebx, n), 2);
    CHECK_EQUAL(without(&CpuRegisters::extended1_ecx, 5), 2);
    for (int n : {16, 17, 28, 30, 31}) CHECK_EQUAL(without(&CpuRegisters::leaf7_ebx, n), 3);
}

TEST(level_needs_the_operating_system) {
    CpuRegisters cpu = level4();
    const auto level = [&](std::uint64_t xcr0) {
        cpu.xcr0 = xcr0;
        return x86_64_level(cpu);
    };
    CHECK_EQUAL(level(0xe7), 4);
    CHECK_EQUAL(level(0x67), 3);  // upper 16 ZMM registers not saved
    CHECK_EQUAL(level(0xa7), 3);  // upper halves of ZMM not saved
    CHECK_EQUAL(level(0xc7), 3);  // mask registers not saved
    CHECK_EQUAL(level(0x07), 3);
    CHECK_EQUAL(level(0x03), 2);  // upper halves of YMM not saved
    CHECK_EQUAL(level(0x00), 2);
}

#if defined(__x86_64__)
TEST(agrees_with_the_compilers_own_detection) {
    __builtin_cpu_init();
    const auto names = available_isas();
    const auto has = [&](const char* name) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    const auto compiled = [](const char* name) {
        return std::string(LSTMCORE_COMPILED_ISAS).find(name) != std::string::npos;
    };
    CHECK_EQUAL(has("x86-64-v3"), compiled("x86-64-v3") && __builtin_cpu_supports("avx2") &&
                                      __builtin_cpu_supports("fma"));
    CHECK_EQUAL(has("x86-64-v4"), compiled("x86-64-v4") && __builtin_cpu_supports("avx512f") &&
                                      __builtin_cpu_supports("avx512bw") &&
                                      __builtin_cpu_supports("avx512dq") &&
                                      __builtin_cpu_supports("avx512vl"));
}
#endif
