// What of the machine is used: the instruction set of the kernels, and the number of threads.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// Name of the ISA level that kernels run at: "x86-64-v2", "x86-64-v3", "x86-64-v4" or "neon". The
/// first use chooses: `LSTMCORE_ISA` of the environment if it is set, else the best level that both
/// this build and this machine have. Safe from any thread. Throws std::invalid_argument if
/// `LSTMCORE_ISA` names a level that is unknown or not available, and std::runtime_error if the
/// processor is below the lowest level compiled; so does whatever first needs kernels.
std::string isa();

/// Levels that both this build and this machine have, the best last.
std::vector<std::string> available_isas();

/// Chooses a level for what is packed, and every call that packs nothing, from then on. What is
/// packed already runs at the level that it was packed for. Throws std::invalid_argument, naming
/// what is available, if `name` is not.
void set_isa(const std::string& name);

/// Grows each time the level changes; two equal values mean the level was the same.
long isa_version();

/// What multiplies in bfloat16 at the chosen level. "float32": float32's instructions, and rounded
/// weights are kept as float32 where that is faster. "amx" and "avx512-bf16" are chosen where they
/// give the right sums and take less time, which the first use finds out, for the process; it asks
/// the operating system for AMX then. `LSTMCORE_BFLOAT16` of the environment chooses in place of
/// that: one of these, or "widening" (float32's instructions, with all weights in bfloat16, half
/// the memory). What the processor lacks is replaced by the next that it has. Throws
/// std::invalid_argument for another name, as pack() does then.
std::string bfloat16_instructions();

/// What multiplies where bfloat16x3 is asked for, at the chosen level: "amx" where bfloat16 might
/// have it, and it takes less time with many rows, else "float32".
std::string bfloat16x3_instructions();

/// What multiplies in int8 at the chosen level, always with the same result: "amx" where it takes
/// less time, "vnni" (AVX512-VNNI or AVX-VNNI), or "plain", the multiplications that the level
/// itself has. `LSTMCORE_INT8` of the environment, one of these names, keeps better ones from being
/// used, and "amx" is used then however long it takes. Throws std::invalid_argument for another
/// name, as pack() does then.
std::string int8_instructions();

/// The cores this process may use: the smaller of its CPU affinity and its cgroup's CPU quota
/// (versions 1 and 2, rounded up; read once), at least 1. In a build without OpenMP it is 1.
int max_threads();

/// How many threads the Python package gives to a call, and a good `num_threads` in C++: 1 to
/// max_threads(). Before set_num_threads() was called it is `LSTMCORE_NUM_THREADS`, else
/// `OMP_NUM_THREADS`, else max_threads(). Never more than omp_set_num_threads, or threadpoolctl
/// through it, has limited the calling thread to since. Always 1 in the child of a fork, whose
/// thread pool did not survive.
/// Throws std::invalid_argument at first use if `LSTMCORE_NUM_THREADS` is not a positive integer.
int get_num_threads();

/// Sets it; more than max_threads() means max_threads(). For tests, `exactly` gives every call this
/// many threads, on however few cores, and whatever CallThreads has learned. Throws
/// std::invalid_argument if n < 1.
void set_num_threads(int n, bool exactly = false);

/// Calls that take equally long on equally many threads, for each unit of their work.
struct CallKind {
    /// `numbers` tell the kind from others, `work` is in any unit, > 0.
    explicit CallKind(std::initializer_list<int64_t> numbers, double work = 1) noexcept;

    uint64_t key = 0xcbf29ce484222325;
    double work;
};

/// Chooses how many threads a call gets, and learns from how long it takes: it lives as long as the
/// call. Mostly it is the number that was fastest of late for calls of this kind; now and then,
/// half or twice as many. So threads that wait for a core that others use cost little. The results
/// of the core do not depend on it. Safe from any thread; allocates nothing.
class CallThreads {
public:
    /// At most `most`.
    CallThreads(const CallKind& kind, int most) noexcept;
    /// This many, with nothing to learn.
    explicit CallThreads(int count) noexcept : kind_({}), most_(count), count_(count) {}
    ~CallThreads();
    CallThreads(const CallThreads&) = delete;
    CallThreads& operator=(const CallThreads&) = delete;

    int count() const { return count_; }

private:
    CallKind kind_;
    int most_, count_, level_ = -1;
    double start_ = 0;
};

}  // namespace LSTMCORE_API lstmcore
