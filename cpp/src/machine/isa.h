// Which instruction set the kernels use: what the machine offers, what was chosen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lstmcore {

struct KernelTable;

/// The kernels of the chosen level. The first use chooses: `LSTMCORE_ISA` if it is set, else the
/// best level that both this build and this machine have. After that it costs one relaxed atomic
/// load. Call it once per call of a layer, outside every loop. Safe from any thread. Throws
/// std::invalid_argument if `LSTMCORE_ISA` names a level that is unknown or not available, and
/// std::runtime_error if the processor is below the lowest level compiled. The same holds for
/// `isa()`, which a binding calls on loading to report such an error early.
const KernelTable& kernel_table();

/// Name of the chosen level: "x86-64-v2", "x86-64-v3", "x86-64-v4" or "neon".
std::string isa();

/// Levels that both this build and this machine have, the best last.
std::vector<std::string> available_isas();

/// Chooses a level for every call that starts afterwards; weights packed for another level must be
/// packed again. Throws std::invalid_argument, naming what is available, if `name` is not.
void set_isa(const std::string& name);

/// Grows each time the level changes; two equal values mean the level was the same.
long isa_version();

/// The CPUID and XCR0 registers that decide the x86-64 level.
struct CpuRegisters {
    std::uint32_t leaf1_ecx = 0;
    std::uint32_t leaf7_ebx = 0;
    std::uint32_t extended1_ecx = 0;  // leaf 0x80000001
    std::uint64_t xcr0 = 0;           // 0 unless the OS has enabled XSAVE
};

/// The x86-64 micro-architecture level (1 to 4) of a processor *and* its operating system: the
/// psABI's feature lists, and the register state that the OS saves on a context switch.
int x86_64_level(const CpuRegisters& cpu);

}  // namespace lstmcore
