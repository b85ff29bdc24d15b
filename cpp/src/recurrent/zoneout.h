// Zoneout (Krueger et al. 2017) of the state of one row after a step; and backward.
#pragma once

#include <cstdint>

#include "lstmcore/layer.h"
#include "recurrent/dropout.h"

namespace lstmcore {

/// Which units take their new state in training.
struct Zones {
    Dropout h, c;

    Zones(const CellSpec& cell, uint64_t key) : h(key, cell.zoneout.h), c(key, cell.zoneout.c) {}
};

/// The random streams of one step of one row.
struct ZoneStreams {
    uint64_t h = 0, c = 0;

    ZoneStreams() = default;
    ZoneStreams(const Zones& zones, int64_t part, int64_t t, int64_t b)
        : h(zones.h.stream(DropoutUse::zone_h, part, t, b)),
          c(zones.c.stream(DropoutUse::zone_c, part, t, b)) {}
};

// No processor foresees which units are kept: so these choose by an index, without a branch.

/// The n numbers of `made`, or, of units that keep their state, of `before`; out may be either.
template <class T>
void zone_row(const Dropout& takes, uint64_t stream, int64_t n, const T* before, const T* made,
              T* out) noexcept {
    const T* const from[2] = {before, made};
    for (int64_t i = 0; i < n; ++i) out[i] = from[takes.kept(stream, i)][i];
}
/// The mean of that over all draws, which inference takes.
template <class T>
void zone_row_in_the_mean(double p, int64_t n, const T* before, const T* made, T* out) noexcept {
    const T keeps = T(p), takes = T(1 - p);
    for (int64_t i = 0; i < n; ++i) out[i] = keeps * before[i] + takes * made[i];
}

/// The gradients of `before` and of `made` of a zone_row() from that of its result; dmade may be
/// dout.
template <class T>
void zone_row_backward(const Dropout& takes, uint64_t stream, int64_t n, const T* dout, T* dbefore,
                       T* dmade) noexcept {
    for (int64_t i = 0; i < n; ++i) {
        const int taken = takes.kept(stream, i);
        const T d[2] = {T(0), dout[i]};
        dbefore[i] = d[1 - taken];
        dmade[i] = d[taken];
    }
}

}  // namespace lstmcore
