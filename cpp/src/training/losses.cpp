#include "lstmcore/losses.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kernel_table.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"

namespace lstmcore {

template <class T>
void cross_entropy(const T* pred, const int64_t* target, const T* factor, const T* hit,
                   int64_t rows, int64_t classes, double* losses, T* dpred, int num_threads) {
    if (rows < 0 || classes < 1)
        throw std::invalid_argument("rows and classes: expected rows >= 0, classes >= 1");
    const auto softmax = kernel_table().of<T>().softmax;
    const double useful = double(rows) * double(classes) / kExponentialsOfThread;
    const int team_size = int(std::min(double(num_threads), 1 + useful));
    run_fast_team(CallKind({'x', rows, classes, sizeof(T)}), team_size, [&](Team& team) noexcept {
        const FlushDenormals mode;
        const int64_t last = rows * (team.rank + 1) / team.size;
        for (int64_t i = rows * team.rank / team.size; i < last; ++i) {
            const T* x = pred + i * classes;
            T* dx = dpred ? dpred + i * classes : nullptr;
            losses[i] = 0;
            if (factor[i] == 0) {
                if (dx) std::fill_n(dx, classes, T(0));
                continue;
            }
            const SoftmaxSums<T> row = softmax(x, dx, classes, factor[i]);
            losses[i] = std::log(double(row.sum)) - (double(x[target[i]]) - double(row.max));
            if (dx) dx[target[i]] -= hit[i];
        }
    });
}

template void cross_entropy(const float*, const int64_t*, const float*, const float*, int64_t,
                            int64_t, double*, float*, int);
template void cross_entropy(const double*, const int64_t*, const double*, const double*, int64_t,
                            int64_t, double*, double*, int);

}  // namespace lstmcore
