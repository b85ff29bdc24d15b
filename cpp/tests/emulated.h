// Kernels with the instructions of units that few machines have written out in C++, see the library
// `emulated` in CMakeLists.txt.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "kernel_table.h"
#include "lstmcore/machine.h"

namespace lstmcore::emulated {
template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n);
extern template void product<float>(const Packed<float>&, int64_t, const ProductRow<float>*,
                                    int64_t);
template <class T>
void rnn_forward(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n);
extern template void rnn_forward<float>(const StepArgs<float>&, const RnnForwardRow<float>*,
                                        int64_t);

/// Whether this machine can run them: they are compiled for level x86-64-v3.
inline bool runs_here() {
#if defined(__x86_64__)
    const std::vector<std::string> levels = available_isas();
    return std::find(levels.begin(), levels.end(), "x86-64-v3") != levels.end();
#else
    return true;
#endif
}
}  // namespace lstmcore::emulated
