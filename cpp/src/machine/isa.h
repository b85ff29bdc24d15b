// Which instruction set the kernels use; see also lstmcore/machine.h.
#pragma once

#include <cstdint>

#include "lstmcore/machine.h"

namespace lstmcore {

struct KernelTable;

/// The kernels of the chosen level, see isa(), which throws the same. After the first use it costs
/// one relaxed atomic load. Call it once per call of a layer, outside every loop.
const KernelTable& kernel_table();

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
