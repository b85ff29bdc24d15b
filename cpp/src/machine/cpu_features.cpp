#include "machine/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lstmcore {
namespace {

struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// What CPUID says in leaf 7, zeros where it has no such subleaf.
Registers leaf7(unsigned subleaf) {
    Registers r;
#if defined(__x86_64__)
    // How many subleaves there are is in eax of the first.
    if (!__get_cpuid_count(7, 0, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
    if (subleaf > 0) {
        if (r.eax < subleaf) return {};
        __cpuid_count(7, subleaf, r.eax, r.ebx, r.ecx, r.edx);
    }
#else
    static_cast<void>(subleaf);
#endif
    return r;
}

constexpr unsigned bit(int n) {
    return 1u << n;
}

/// Whether kernels emulate all of these instructions: then every machine has them.
#if defined(LSTMCORE_EMULATE_UNITS)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

/// Whether the operating system lets this process use tiles.
bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
    unsigned low, high;  // XCR0: OSXSAVE is there, or the level were not x86-64-v4
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    constexpr unsigned kTileState = bit(17) | bit(18);
    if ((low & kTileState) != kTileState) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

/// Whether the processor has AMX with this bit of leaf 7, and this process may use it.
bool has_amx(unsigned products) {
    const unsigned bits = bit(24) | products;  // AMX-TILE
    return kEmulated || ((leaf7(0).edx & bits) == bits && may_use_tiles());
}

}  // namespace

bool has_avx512_bf16() {
    return kEmulated || (leaf7(1).eax & bit(5)) != 0;
}

bool has_avx512_vnni() {
    return kEmulated || (leaf7(0).ecx & bit(11)) != 0;
}

bool has_avx_vnni() {
    return kEmulated || (leaf7(1).eax & bit(4)) != 0;
}

bool has_amx_bf16() {
    return has_amx(bit(22));
}

bool has_amx_int8() {
    return has_amx(bit(25));
}

}  // namespace lstmcore
