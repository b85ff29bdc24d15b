// The floating-point mode that the kernels run in.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace lstmcore {

/// While it lives, this thread computes in the default mode (round to nearest, exceptions masked)
/// with denormals flushed to zero, in and out; then the caller's mode is back as it was, its
/// exception flags included. The mode belongs to a thread: each member of a team needs its own.
class FlushDenormals {
public:
    FlushDenormals() noexcept : saved_(read()) { write(kMode | (saved_ & kFlags)); }
    ~FlushDenormals() { write(saved_); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

private:
#if defined(__x86_64__)
    using Register = unsigned;  // MXCSR, which AVX and AVX-512 obey too
    static constexpr Register kMode = 0x1f80 | 0x8000 | 0x0040;  // masks | FTZ | DAZ
    // Kept, because reading the register soon after a flag was set anew takes tens of nanoseconds.
    static constexpr Register kFlags = 0x3f;
    static Register read() noexcept { return _mm_getcsr(); }
    static void write(Register mode) noexcept { _mm_setcsr(mode); }
#elif defined(__aarch64__)
    using Register =
        std::uint64_t;  // FPCR; the exception flags are elsewhere and stay as they fall
    static constexpr Register kMode = Register{1} << 24, kFlags = 0;  // FZ
    static Register read() noexcept {
        Register mode;
        __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void write(Register mode) noexcept { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
    using Register = int;  // no such mode: denormals stay, and may be slow
    static constexpr Register kMode = 0, kFlags = 0;
    static Register read() noexcept { return 0; }
    static void write(Register) noexcept {}
#endif

    Register saved_;
};

}  // namespace lstmcore
