// Instructions beyond those of the ISA levels: whether the processor and its operating system have
// them. All are for kernels of a level that is available.
#pragma once

namespace lstmcore {

/// AVX512-BF16. What it needs of the operating system, level x86-64-v4 needs, too.
bool has_avx512_bf16();

/// AVX512-VNNI, for level x86-64-v4.
bool has_avx512_vnni();

/// AVX-VNNI, for level x86-64-v3.
bool has_avx_vnni();

/// AMX for products of bfloat16, if this process may use it: the operating system is asked for the
/// tiles of the whole process.
bool has_amx_bf16();

/// The same for products of int8.
bool has_amx_int8();

}  // namespace lstmcore
