// Zoneout (Krueger et al. 2017) of the state of one row after a step; and backward.
#pragma once

#include <cstdint>

#include "lstmcore/layer.h"
#include "recurrent/dropout.h"

namespace lstmcore {

/// Draws which units take their new state in training.
struct Zones {
    Dropout h, c;

    Zones(const CellSpec& cell, uint64_t key) : h(key, cell.zoneout.h), c(key, cell.zoneout.c) {}

    /// Of one row of a step, for P numbers of h and H of c; null where they have no zoneout.
    void draw(int64_t part, int64_t t, int64_t b, uint8_t* h_takes, int64_t P, uint8_t* c_takes,
              int64_t H) const noexcept {
        if (h_takes) draw_row(h, h.stream(DropoutUse::zone_h, part, t, b), P, h_takes);
        if (c_takes) draw_row(c, c.stream(DropoutUse::zone_c, part, t, b), H, c_takes);
    }

private:
    static void draw_row(Dropout of, uint64_t stream, int64_t n, uint8_t* takes) noexcept {
        for (int64_t i = 0; i < n; ++i) takes[i] = of.kept(stream, i);
    }
};

// No processor foresees which units are kept: so these have no branch, and a draw is made once and
// lies on the tape.

/// Of n numbers those that do not take their new state become `before` again.
template <class T>
void zone_row(const uint8_t* takes, int64_t n, const T* before, T* state) noexcept {
    for (int64_t i = 0; i < n; ++i) {
        const T old = before[i], made = state[i];
        state[i] = takes[i] ? made : old;
    }
}
/// The mean of that over all draws, which inference takes.
template <class T>
void zone_row_in_the_mean(double p, int64_t n, const T* before, const T* made, T* out) noexcept {
    const T keeps = T(p), takes = T(1 - p);
    for (int64_t i = 0; i < n; ++i) out[i] = keeps * before[i] + takes * made[i];
}

/// The gradient of a zone_row()'s result becomes that of what was made, beside that of `before`.
template <class T>
void zone_row_backward(const uint8_t* takes, int64_t n, T* dstate, T* dbefore) noexcept {
    for (int64_t i = 0; i < n; ++i) {
        const T d = dstate[i];
        dbefore[i] = takes[i] ? T(0) : d;
        dstate[i] = takes[i] ? d : T(0);
    }
}

}  // namespace lstmcore
