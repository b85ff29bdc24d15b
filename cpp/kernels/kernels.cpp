// The table of one ISA level, and the small kernels. All files in this folder are compiled once per
// level, with -DLSTMCORE_LEVEL=... and that level's instructions.
#include "activations-inl.h"
#include "amx-inl.h"
#include "bfloat16-inl.h"
#include "dot-inl.h"
#include "entries.h"
#include "kernel_table.h"
#include "log-inl.h"
#include "norm-inl.h"
#include "softmax-inl.h"
#include "transpose-inl.h"
#include "update-inl.h"

#define LSTMCORE_JOIN_(a, b) a##b
#define LSTMCORE_JOIN(a, b) LSTMCORE_JOIN_(a, b)
#define LSTMCORE_STRING_(a) #a
#define LSTMCORE_STRING(a) LSTMCORE_STRING_(a)
#if defined(__x86_64__)
#define LSTMCORE_ISA_NAME "x86-64-" LSTMCORE_STRING(LSTMCORE_LEVEL)
#else
#define LSTMCORE_ISA_NAME LSTMCORE_STRING(LSTMCORE_LEVEL)
#endif

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

template <class T>
constexpr Kernels<T> make_kernels() {
    return {kLanes<T>,
            LSTMCORE_AVX512_UNITS != 0,
            LSTMCORE_VNNI != 0,
            activate_array<T>,
            differentiate_array<T>,
            transpose<T>,
            product<T>,
            outer<T>,
            column_sum<T>,
            rnn_forward<T>,
            rnn_backward<T>,
            {lstm_forward<T, false>, lstm_forward<T, true>},
            lstm_backward<T>,
            {gru_forward<T, false>, gru_forward<T, true>},
            gru_backward<T>,
            sgd<T>,
            rmsprop<T>,
            adam<T>,
            sum_squares<T>,
            scale<T>,
            softmax<T>,
            softmax_backward<T>,
            normalize<T>,
            normalize_backward<T>,
            round_array<T>,
            pack_pairs<T>};
}

}  // namespace
}  // namespace LSTMCORE_LEVEL

namespace kernels {

extern const KernelTable LSTMCORE_JOIN(table_, LSTMCORE_LEVEL);
constexpr KernelTable LSTMCORE_JOIN(table_, LSTMCORE_LEVEL) = {
    LSTMCORE_ISA_NAME, LSTMCORE_LEVEL::make_kernels<float>(),
    LSTMCORE_LEVEL::make_kernels<double>(), LSTMCORE_LEVEL::log_sums_of_three,
    LSTMCORE_LEVEL::log_array};

}  // namespace kernels
}  // namespace lstmcore
