// Forward and back-propagation through time of a stack of recurrent layers.
//
// Shapes are written with the letters of LayerSpec. Every array is row-major; pointers are
// borrowed for the call and must not overlap unless said. T is float or double.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lstmcore/api.h"
#include "lstmcore/machine.h"
#include "lstmcore/precision.h"
#include "lstmcore/quantized.h"
#include "lstmcore/spec.h"
#include "lstmcore/stop.h"

namespace LSTMCORE_API lstmcore {

/// The parameters of one direction of one layer; null where the spec has none. G = cell.gates().
template <class T>
struct Parameters {
    T* w_ih = nullptr;  ///< (G*H, I)
    T* w_hh = nullptr;  ///< (G*H, P)
    T* b_ih = nullptr;  ///< (G*H)
    T* b_hh = nullptr;  ///< (G*H)
    T* w_ch = nullptr;  ///< (cell.peepholes(), H)
    T* w_hr = nullptr;  ///< (P, H)
    // With cell.layer_norm, the last two of an LSTM:
    T* ln_ih = nullptr;      ///< (G*H)
    T* ln_hh = nullptr;      ///< (G*H)
    T* ln_c = nullptr;       ///< (H)
    T* ln_c_bias = nullptr;  ///< (H)
};

/// The same for inference with matrices in int8.
struct QuantizedParameters {
    QuantizedMatrix w_ih, w_hh;
    const float* b_ih = nullptr;
    const float* b_hh = nullptr;
    const float* w_ch = nullptr;
    QuantizedMatrix w_hr;
    const float* ln_ih = nullptr;
    const float* ln_hh = nullptr;
    const float* ln_c = nullptr;
    const float* ln_c_bias = nullptr;
};

/// Parameters copied into the order in which the kernels read them. Immutable; made for the ISA
/// level chosen at the time, and calls with it run at that level.
template <class T>
class Weights;

/// Packs L*D parameter sets, ordered (layer, direction), by up to `num_threads` threads where they
/// are large. With `train` also what backward needs. The sources are only read here. Throws
/// std::invalid_argument, std::bad_alloc.
///
/// In `bfloat16` the matrices are rounded here, and what is multiplied with them, x, h and what a
/// projection reads, when it is multiplied. In backward so are both factors of every product with a
/// matrix, and of every sum over steps that is the gradient of one. Refused for double.
template <class T>
LSTMCORE_API std::shared_ptr<const Weights<T>> pack(
    const LayerSpec& spec, const std::vector<Parameters<const T>>& parameters, bool train,
    int num_threads = 1, Precision precision = Precision::own);

/// The same with matrices in int8, for inference in float32: what is multiplied with them, x, h and
/// what a projection reads, is rounded to int8 row by row, each row by its largest number, and the
/// products are exact. All else is float32. A row with a NaN or an infinity gives NaN. Throws also
/// where a value is -128, or a matrix has more than 32,768 columns.
std::shared_ptr<const Weights<float>> pack(const LayerSpec& spec,
                                           const std::vector<QuantizedParameters>& parameters,
                                           int num_threads = 1);

/// Bytes held by the packed copy.
template <class T>
LSTMCORE_API int64_t packed_bytes(const Weights<T>& weights);

/// A (T, B, n) array whose last axis is contiguous; strides in elements.
template <class T>
struct View {
    T* data = nullptr;
    int64_t step = 0;  ///< from t to t + 1
    int64_t row = 0;   ///< from b to b + 1

    T* at(int64_t t, int64_t b) const { return data + t * step + b * row; }
    explicit operator bool() const { return data != nullptr; }
};

/// The sequences of a call. Null `lengths`: all are `steps` long. Null `resets`: none.
template <class T>
struct Sequences {
    int64_t steps = 0;           ///< T
    int64_t batch = 0;           ///< B
    View<const T> x;             ///< (T, B, I), unless it is looked up:
    View<const int64_t> lookup;  ///< (T, B), the row of `table` that is x; null = none
    const T* table = nullptr;    ///< (table_rows, I)
    int64_t table_rows = 0;
    const T* h0 = nullptr;             ///< (L*D, B, P), null = zeros
    const T* c0 = nullptr;             ///< (L*D, B, H), LSTM, null = zeros
    const int64_t* lengths = nullptr;  ///< (B), each in 0..T, of the whole
    View<const bool> resets;           ///< (T, B): the state does not cross from t-1 to t
    // In training, probabilities in [0, 1):
    double dropout = 0;            ///< of the outputs on their way to the next layer
    double input_dropout = 0;      ///< of what a layer reads: one mask for all steps of a row
    double recurrent_dropout = 0;  ///< of h on its way into W_hh: one mask for all steps of a row
    uint64_t dropout_key = 0;      ///< of these, and of zoneout
    // A piece of longer sequences: lengths and dropout count from their first step.
    int64_t first_step = 0;    ///< where it begins
    int64_t whole_steps = -1;  ///< T of the whole; negative where this is all
    StopCheck stop;
};

/// Elements of the tape, at least one, and bytes of the workspace that a call needs, of a spec that
/// check() accepts. The tape is what backward reads and must be kept for it, with x, y, h0, c0,
/// lengths, resets and lookup; a workspace is free as soon as the call returns. A num_threads below
/// 1 counts as 1, here and below. All throw std::bad_alloc when the size is not representable.
template <class T>
LSTMCORE_API int64_t tape_size(const LayerSpec& spec, const Sequences<T>& in);
template <class T>
LSTMCORE_API int64_t forward_workspace_bytes(const LayerSpec& spec, const Sequences<T>& in,
                                             bool train, int num_threads);
template <class T>
LSTMCORE_API int64_t backward_workspace_bytes(const LayerSpec& spec, const Sequences<T>& in,
                                              int num_threads);

/// A good num_threads for a call with this workspace, of at most `most`: keep the object until the
/// call has returned, so that it learns from it.
template <class T>
LSTMCORE_API CallThreads forward_threads(const LayerSpec& spec, const Sequences<T>& in, bool train,
                                         int most);
template <class T>
LSTMCORE_API CallThreads backward_threads(const LayerSpec& spec, const Sequences<T>& in, int most);

/// y (T, B, feature_size), zero past each row's end; h_n (L*D, B, P), c_n (L*D, B, H, LSTM) the
/// states after each row's last step. With a tape it is filled, without one nothing is kept.
/// The results do not depend on num_threads, on the other rows, or on the padding, to the bit.
/// Throws std::invalid_argument where a length is not in 0..T, or weights in int8 are given a tape;
/// std::bad_alloc.
template <class T>
LSTMCORE_API void forward(const Weights<T>& weights, const Sequences<T>& in, View<T> y, T* h_n,
                          T* c_n, T* tape, void* workspace, int num_threads);

/// Gradients by back-propagation through time (Werbos 1990) of a loss whose derivatives by y, h_n
/// and c_n are dy, dh_n and dc_n (null = zeros). `y` and `tape` are forward's. Writes dx (T, B, I),
/// zero past the end, unless it is null, or the gradient (table_rows, I) of a table (dx.row = I);
/// dh0 and, unless it is null, dc0. Adds to the L*D parameter gradients, summed over steps (last
/// first) and rows (longest first, then in order) whatever num_threads is; with a table, the dgates
/// of each of its rows first. Throws what forward does, and std::invalid_argument if the weights
/// were packed for inference only.
template <class T>
LSTMCORE_API void backward(const Weights<T>& weights, const Sequences<T>& in, View<const T> y,
                           const T* tape, View<const T> dy, const T* dh_n, const T* dc_n,
                           View<T> dx, T* dh0, T* dc0, const std::vector<Parameters<T>>& gradients,
                           void* workspace, int num_threads);

/// The gates that forward left on the tape, as (T, B, gates, H) of one layer and direction: i, f,
/// g, o or i, g, o (LSTM); r, z, n (GRU). `row` may be wider than the gates. Entries past a row's
/// end are undefined. Empty for the RNN, whose activation is y where there is no zoneout.
template <class T>
LSTMCORE_API View<const T> tape_gates(const LayerSpec& spec, const Sequences<T>& in, const T* tape,
                                      int64_t layer, int direction);

/// Every c_t, (T, B, H), of one layer and direction of an LSTM.
template <class T>
LSTMCORE_API View<const T> tape_cells(const LayerSpec& spec, const Sequences<T>& in, const T* tape,
                                      int64_t layer, int direction);

/// What dropout with one key acts on. Of `zone_h` and `zone_c`, what is kept is the new state.
enum class DropoutUse { between_layers, input, hidden, zone_h, zone_c };

/// Writes into kept (T, B, features) what dropout with this key keeps. `part` is the layer for
/// between_layers, and layer * D + direction for all others. Input and hidden have one mask for all
/// steps, which is that of T = 1.
void dropout_mask(uint64_t key, DropoutUse use, int64_t part, int64_t steps, int64_t batch,
                  int64_t features, double probability, bool* kept);

}  // namespace LSTMCORE_API lstmcore
