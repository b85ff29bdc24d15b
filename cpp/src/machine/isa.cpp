#include "machine/isa.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lstmcore {

namespace kernels {
extern const KernelTable table_v2;
extern const KernelTable table_v3;
extern const KernelTable table_v4;
extern const KernelTable table_neon;
}  // namespace kernels

namespace {

struct Level {
    const char* name;
    int rank;  // the x86-64 level it needs; 0 where the architecture alone is enough
    const KernelTable* table;
};

// Worst first. The build defines one LSTMCORE_HAVE_* for each level that it compiles.
constexpr Level kLevels[] = {
#ifdef LSTMCORE_HAVE_V2
    {"x86-64-v2", 2, &kernels::table_v2},
#endif
#ifdef LSTMCORE_HAVE_V3
    {"x86-64-v3", 3, &kernels::table_v3},
#endif
#ifdef LSTMCORE_HAVE_V4
    {"x86-64-v4", 4, &kernels::table_v4},
#endif
#ifdef LSTMCORE_HAVE_NEON
    {"neon", 0, &kernels::table_neon},
#endif
};

#if defined(__x86_64__)
CpuRegisters read_cpu() {
    CpuRegisters cpu;
    unsigned eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) cpu.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) cpu.leaf7_ebx = ebx;
    if (__get_cpuid(0x80000001u, &eax, &ebx, &ecx, &edx)) cpu.extended1_ecx = ecx;
    if (cpu.leaf1_ecx & (1u << 27)) {  // OSXSAVE: xgetbv may be executed
        unsigned low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        cpu.xcr0 = (static_cast<std::uint64_t>(high) << 32) | low;
    }
    return cpu;
}
#endif

int machine_rank() {
#if defined(__x86_64__)
    static const int rank = x86_64_level(read_cpu());
    return rank;
#else
    return 0;
#endif
}

bool available(const Level& level) {
    return level.rank <= machine_rank();
}

std::string list_available() {
    std::string text;
    for (const std::string& name : available_isas()) text += (text.empty() ? "" : ", ") + name;
    return text.empty() ? "none" : text;
}

// `origin` starts the message: the variable or the function that asked.
const Level& find(const std::string& name, const char* origin) {
    bool compiled = false;
    for (const Level& level : kLevels) {
        if (name != level.name) continue;
        if (available(level)) return level;
        compiled = true;
    }
    throw std::invalid_argument(std::string(origin) + ": ISA level '" + name + "' is " +
                                (compiled ? "not supported by this machine" : "unknown") +
                                "; available: " + list_available());
}

const Level& first_choice() {
    const char* wanted = std::getenv("LSTMCORE_ISA");
    if (wanted && *wanted) return find(wanted, "LSTMCORE_ISA");
    const Level* best = nullptr;
    for (const Level& level : kLevels) {
        if (available(level)) best = &level;
    }
    if (!best) {
        throw std::runtime_error(std::string("lstmcore needs a processor of level ") +
                                 kLevels[0].name + " or better");
    }
    return *best;
}

std::mutex mutex;  // guards writing of the two below
std::atomic<const Level*> current{nullptr};
std::atomic<long> version{0};

void choose(const Level& level) {
    if (current.load(std::memory_order_relaxed) == &level) return;
    current.store(&level, std::memory_order_relaxed);
    version.fetch_add(1, std::memory_order_relaxed);
}

const Level& chosen() {
    // The tables are constants, so there is nothing for an acquire to order.
    if (const Level* level = current.load(std::memory_order_relaxed)) return *level;
    const std::lock_guard<std::mutex> lock(mutex);
    if (!current.load(std::memory_order_relaxed)) choose(first_choice());
    return *current.load(std::memory_order_relaxed);
}

}  // namespace

const KernelTable& kernel_table() {
    return *chosen().table;
}

std::string isa() {
    return chosen().name;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Level& level : kLevels) {
        if (available(level)) names.emplace_back(level.name);
    }
    return names;
}

void set_isa(const std::string& name) {
    const Level& level = find(name, "set_isa");
    const std::lock_guard<std::mutex> lock(mutex);
    choose(level);
}

long isa_version() {
    chosen();  // the first choice is not a change
    return version.load(std::memory_order_relaxed);
}

int x86_64_level(const CpuRegisters& cpu) {
    const auto bit = [](int n) { return std::uint32_t{1} << n; };
    const auto has = [](auto value, auto bits) { return (value & bits) == bits; };

    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF/SAHF.
    const bool v2 = has(cpu.leaf1_ecx, bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23)) &&
                    has(cpu.extended1_ecx, bit(0));
    // FMA, MOVBE, OSXSAVE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT; XMM and YMM state.
    const bool v3 = v2 && has(cpu.leaf1_ecx, bit(12) | bit(22) | bit(27) | bit(28) | bit(29)) &&
                    has(cpu.leaf7_ebx, bit(3) | bit(5) | bit(8)) &&
                    has(cpu.extended1_ecx, bit(5)) && has(cpu.xcr0, std::uint64_t{0x06});
    // AVX-512 F, DQ, CD, BW, VL; mask registers and both halves of ZMM state.
    const bool v4 = v3 && has(cpu.leaf7_ebx, bit(16) | bit(17) | bit(28) | bit(30) | bit(31)) &&
                    has(cpu.xcr0, std::uint64_t{0xe6});
    return v4 ? 4 : v3 ? 3 : v2 ? 2 : 1;
}

}  // namespace lstmcore
