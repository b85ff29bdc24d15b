#include "lstmcore/scatter.h"

#include <algorithm>
#include <stdexcept>

#include "machine/caches.h"
#include "machine/call_threads.h"

namespace lstmcore {

template <class T>
void add_rows(T* table, int64_t size, const int64_t* rows, const T* values, int64_t count,
              int num_threads) {
    if (size < 0 || count < 0) throw std::invalid_argument("size and count: expected >= 0");
    // Threads share the columns, in whole cache lines, so that each number has one chain.
    constexpr int64_t kLine = kAlignment / int64_t(sizeof(T));
    const int64_t lines = (size + kLine - 1) / kLine;
    const double useful = double(count) * double(size) / kAdditionsOfThread;
    const int team_size = int(std::min({double(num_threads), 1 + useful, double(lines)}));
    run_fast_team(
        CallKind({'s', size, sizeof(T)}, double(count + 1)), team_size, [&](Team& team) noexcept {
            const int64_t first = lines * team.rank / team.size * kLine;
            const int64_t last = std::min(lines * (team.rank + 1) / team.size * kLine, size);
            for (int64_t i = 0; i < count; ++i) {
                T* __restrict to = table + rows[i] * size;
                const T* from = values + i * size;
                for (int64_t n = first; n < last; ++n) to[n] += from[n];
            }
        });
}

template void add_rows(float*, int64_t, const int64_t*, const float*, int64_t, int);
template void add_rows(double*, int64_t, const int64_t*, const double*, int64_t, int);

}  // namespace lstmcore
