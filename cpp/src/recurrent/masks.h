// Variational dropout (Gal & Ghahramani 2016): each row has one mask for all of its steps, of what
// a direction of a layer reads, and another of its h on the way into W_hh.
#pragma once

#include <cstdint>

#include "lstmcore/layer.h"
#include "machine/threads.h"
#include "memory/arena.h"
#include "memory/strided_rows.h"
#include "recurrent/dropout.h"
#include "recurrent/tape.h"

namespace lstmcore {

/// out = x times a mask of n factors; what is dropped is 0, whatever x is. out may be x.
template <class T>
void mask_row(const T* mask, const T* x, int64_t n, T* out) noexcept {
    for (int64_t i = 0; i < n; ++i) out[i] = mask[i] != 0 ? x[i] * mask[i] : T(0);
}

/// The masks of a call: factors 0 and 1 / (1 - p).
template <class T>
class SequenceMasks {
public:
    SequenceMasks(const LayerSpec& spec, const Sequences<T>& in, bool train, Arena& arena)
        : spec_(spec), in_(in) {
        const int64_t rows = size_product(spec.num_layers * spec.directions(), in.batch);
        if (train && in.input_dropout > 0) input_ = take_rows<T>(arena, rows, widest_input(spec));
        if (train && in.recurrent_dropout > 0)
            hidden_ = take_rows<T>(arena, rows, spec.output_size());
    }

    bool of_input() const { return input_.stride > 0; }
    bool of_hidden() const { return hidden_.stride > 0; }

    /// Makes the masks; the members of the team share the rows, and wait for each other.
    void fill(Team& team) const {
        if (!of_input() && !of_hidden()) return;
        const int64_t D = spec_.directions(), B = in_.batch;
        for (int64_t b = team.rank; b < B; b += team.size)
            for (int64_t part = 0; part < spec_.num_layers * D; ++part) {
                if (of_input())
                    fill_row(DropoutUse::input, part, b, in_.input_dropout,
                             spec_.layer_input_size(part / D), input_);
                if (of_hidden())
                    fill_row(DropoutUse::hidden, part, b, in_.recurrent_dropout,
                             spec_.output_size(), hidden_);
            }
        team.barrier();
    }

    /// The mask of x (I) and of h (P) of a row; null if there is none.
    const T* input(int64_t layer, int d, int64_t b) const { return row(input_, layer, d, b); }
    const T* hidden(int64_t layer, int d, int64_t b) const { return row(hidden_, layer, d, b); }

private:
    void fill_row(DropoutUse use, int64_t part, int64_t b, double p, int64_t n,
                  const StridedRows<T>& to) const {
        const Dropout mask(in_.dropout_key, p);
        const uint64_t stream = mask.stream(use, part, 0, b);
        const T scale = T(1 / (1 - p));
        T* const row = to.at(part * in_.batch + b);
        for (int64_t i = 0; i < n; ++i) row[i] = mask.kept(stream, i) ? scale : T(0);
    }
    const T* row(const StridedRows<T>& masks, int64_t layer, int d, int64_t b) const {
        if (masks.stride == 0) return nullptr;
        return masks.at((layer * spec_.directions() + d) * in_.batch + b);
    }

    const LayerSpec& spec_;
    const Sequences<T>& in_;
    StridedRows<T> input_, hidden_;  ///< by layer, direction and row of the batch
};

}  // namespace lstmcore
