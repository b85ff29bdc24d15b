// The boundary between the driver and the kernels: plain pointers and sizes, one table per ISA
// level. Letters: K = summed index, N = columns, H = hidden_size, a "row" is one sequence at one
// step, lanes = numbers in a SIMD register. Kernels allocate nothing and throw nothing; pointers
// of a row may be unaligned and do not overlap those of other rows unless said.
#pragma once

#include <cstdint>

#include "lstmcore/spec.h"

namespace lstmcore {

/// Numbers in int8 are multiplied in groups of so many.
constexpr int64_t kGroup = 4;
/// Rows in int8 are no longer than this: they are quantised on the stack, and their sums are far
/// from 2^31.
constexpr int64_t kMostQuantized = 32768;

/// Rows without a negative number have 0 .. 254 in int8 with this subtracted.
constexpr int32_t kShift = 127;

/// How a product in int8 is computed. All give the same bits.
enum class Int8Unit : uint8_t {
    plain,  ///< by the multiplications that the ISA level has
    vnni,   ///< by VPDPBUSD of AVX512-VNNI or AVX-VNNI, see dot-inl.h
    amx,    ///< by TDPBSSD, see amx-inl.h
};
/// Int8Unit::vnni multiplies bytes without a sign, so weights are kept with this added.
constexpr int32_t kVnniOffset = 128;

/// The upper half of a float: its sign, its exponent and 7 bits of its fraction.
using Bfloat16 = uint16_t;
/// Numbers in bfloat16 lie in pairs.
constexpr int64_t kPair = 2;
/// How a product with a matrix is computed, if in bfloat16. All but the last two give the same
/// bits.
enum class Bfloat16Unit : uint8_t {
    none,       ///< not in bfloat16
    float32,    ///< weights are rounded, and kept and multiplied as float32
    widening,   ///< weights become float32 in registers, and are multiplied as such
    dot,        ///< by VDPBF16PS of AVX512-BF16
    amx,        ///< by TDPBF16PS, see amx-inl.h
    amx_parts,  ///< the same of both factors in three parts: almost float32, see kParts
};
/// In so many parts a float is the sum of numbers in bfloat16: it rounded, what is left rounded,
/// and the rest. A number that is infinite or NaN is in the last part alone, and the others are 0.
/// That part is multiplied only with the first one of the other factor, whose sign is the number's:
/// so an infinity times a number is what it should be (times an infinity it is NaN).
constexpr int kParts = 3;
/// A row of an AMX tile has so many bytes, and so it takes the products of so many k at once: of
/// bfloat16, and of int8.
constexpr int64_t kAmxBytes = 64;
constexpr int64_t kAmxTerms = kAmxBytes / int64_t(sizeof(Bfloat16));
constexpr int64_t kAmxInt8Terms = kAmxBytes;

/// Matrices with a larger K stay in float32 where bfloat16 is asked for: the rows that they are
/// multiplied with may be rounded on the stack.
constexpr int64_t kMostBfloat16 = 8192;
/// The same where it is asked for in three parts.
constexpr int64_t kMostBfloat16Parts = 5120;

/// Where kernels round rows to bfloat16: room for so many numbers. And, for many rows, room for a
/// panel of a matrix that Bfloat16Unit::widening multiplies, as floats; or null.
struct RoundingRoom {
    float* data = nullptr;
    int64_t numbers = 0;
    float* panel = nullptr;
};

/// A (K, N) matrix packed for products row · matrix: panels of `vectors` registers of columns, the
/// last possibly narrower; a panel holds its columns for k = 0, 1, ... one after the other. N is a
/// multiple of lanes, padded with zeros. `vectors` is 4, or 3 if the matrix is for `product` alone.
///
/// A matrix for gates has as many vectors as gates: a panel holds one register of each gate, for
/// the same units. If the last units' gates fit fewer registers than that, they are packed closer
/// in a narrower last panel: gate g begins at column g * (columns / gates), rounded down, and the
/// columns behind the last gate are padding.
///
/// Or the same matrix in int8: then `data` is null, w[k][n] is scales[n] times a whole number of
/// -127 .. 127, and a panel holds for k = 0, 4, 8, ... four numbers (w[k] .. w[k + 3]) of each
/// column, zeros from K to padded_int8_K(). Rows are quantised before they are multiplied, see
/// quantized-inl.h; shifts[n] is what a shift of all their numbers by kShift adds to a product. For
/// Int8Unit::vnni the numbers have kVnniOffset added.
///
/// Or in bfloat16: rows are rounded before they are multiplied, see bfloat16-inl.h. Then `data` is
/// the rounded matrix (Bfloat16Unit::float32), or null, and a panel holds for k = 0, 2, 4, ... a
/// pair of numbers (w[k + 1], w[k]) of each column, so that w[k] is the upper half of 32 bits,
/// zeros from K to padded_K(). With several parts(), a panel holds one behind the other.
template <class T>
struct Packed {
    const T* data = nullptr;
    int64_t K = 0;
    int64_t N = 0;
    int64_t vectors = 0;
    const int8_t* quantized = nullptr;
    const float* scales = nullptr;    ///< (N)
    const int32_t* shifts = nullptr;  ///< (N)
    Int8Unit int8_unit = Int8Unit::plain;
    const Bfloat16* bfloat16 = nullptr;
    Bfloat16Unit unit = Bfloat16Unit::none;
    RoundingRoom room{};  ///< if null, the stack, which has room for kMostBfloat16 numbers

    /// K with the zeros of a matrix in int8.
    int64_t padded_int8_K() const {
        const int64_t group = int8_unit == Int8Unit::amx ? kAmxInt8Terms : kGroup;
        return (K + group - 1) / group * group;
    }
    /// Whether rows are rounded to bfloat16 before they are multiplied.
    bool is_bfloat16() const { return unit != Bfloat16Unit::none; }
    /// K with the zeros of a matrix in bfloat16.
    int64_t padded_K() const {
        const int64_t group = unit >= Bfloat16Unit::amx ? kAmxTerms : kPair;
        return (K + group - 1) / group * group;
    }
    /// How many numbers in bfloat16 stand for one.
    int64_t parts() const { return unit == Bfloat16Unit::amx_parts ? kParts : 1; }
    /// Whether AMX multiplies it.
    bool uses_amx() const { return int8_unit == Int8Unit::amx || unit >= Bfloat16Unit::amx; }
    explicit operator bool() const {
        return data != nullptr || quantized != nullptr || bfloat16 != nullptr;
    }

    /// The `count` columns from `column` on, both at the borders of panels.
    Packed columns(int64_t column, int64_t count) const {
        Packed part = *this;
        part.N = count;
        if (data != nullptr) part.data += column * K;
        if (quantized != nullptr) {
            part.quantized += column * padded_int8_K();
            part.scales += column;
            part.shifts += column;
        }
        if (bfloat16 != nullptr) part.bfloat16 += column * padded_K() * parts();
        return part;
    }
};

/// out[n] = init[n] + sum_k a[k] w[k][n] for n < columns; out may be init.
template <class T>
struct ProductRow {
    const T* a;     ///< (K)
    const T* init;  ///< (columns)
    T* out;         ///< (columns)
};

/// A matrix of rows, cut into panels of `width` columns. A panel holds its columns of row 0, 1, ...
/// one after the other, so that a sum over rows reads memory in order. An ordinary row-major matrix
/// is one panel.
template <class T>
struct Panels {
    T* data = nullptr;
    int64_t width = 0;
    int64_t rows = 0;  ///< that a panel has room for; fewer may be used

    static constexpr int64_t kWidth = 256 / int64_t(sizeof(T));  ///< where they are cut

    /// Number `column` of a row.
    T* at(int64_t row, int64_t column) const {
        T* start = data + row * width;
        if (column < width) return start + column;
        return start + column / width * rows * width + column % width;
    }
};

/// c[j][n] += sum_m a[m][first + j] b[m][n] for m = 0, 1, ... < M: the sum over rows of a weight
/// gradient.
template <class T>
struct OuterArgs {
    Panels<T> a;  ///< (M, first + J)
    int64_t first;
    Panels<T> b;  ///< (M, N), cut at kWidth; the last panel is padded with numbers not used
    T* c;         ///< (J, N)
    int64_t M, J, N;
};

/// out[j] += sum_m a[m][j] * b[m][j] for m = 0, 1, ... < M; without b, the sum of a[m][j].
template <class T>
struct ColumnSumArgs {
    const T* a;  ///< (M, J), row stride lda
    int64_t lda;
    const T* b;  ///< (M, J), row stride ldb, or null
    int64_t ldb;
    T* out;  ///< (J)
    int64_t M, J;
};

/// What layer normalisation has of one row of a step, beside the row itself.
template <class T>
struct NormRow {
    T* hidden;         ///< (G*H) W_hh h_prev; becomes that normalised, times its gain
    T* hidden_normal;  ///< (G*H) without the gain, or null
    T* shown;          ///< (H) LSTM: what output() sees of c
    T* c_normal;       ///< (H) LSTM: the same without gain and bias, or null
    T* scales;         ///< (2) of W_hh h_prev and of c, see NormalizedRow
};

/// A row that is normalised, see norm-inl.h.
template <class T>
struct NormalizedRow {
    const T* x;
    T* out;     ///< may be x
    T* normal;  ///< the same without gain and bias, or null; may be x
    T* scale;   ///< 1 / sqrt(variance + eps)
};

/// The same in backward, of an LSTM's c.
template <class T>
struct NormBackwardRow {
    const T* normal;  ///< (H) NormRow::c_normal
    const T* scale;   ///< of c
    T* dshown;        ///< (H) the gradient of NormRow::shown
    T* dc;            ///< (H) scratch: what that adds to the gradient of c
};

/// What all rows of a step share. Only the members that the cell has are set.
template <class T>
struct StepArgs {
    CellSpec cell;
    int64_t H = 0;
    Packed<T> w;              ///< the product in front of the gate arithmetic, see each row type
    Packed<T> w_n;            ///< GRU, reset before: W_hn, and its transpose in backward
    const T* b_hn = nullptr;  ///< GRU, reset after: (N of one gate), zero-padded
    const T* peephole = nullptr;  ///< (peepholes, H rounded up to lanes): i, f, o or i, o
    /// W_ih, where the step makes the input product itself: then the rows' `x` are set and `pre` is
    /// the bias. Not for the GRU with reset before.
    Packed<T> w_in{};
    // The LSTM and the GRU with reset after compute the units of the full panels [first_panel,
    // last_panel) of w. A call with the last full panel also computes the narrower one behind it.
    int64_t first_panel = 0;
    int64_t last_panel = INT64_MAX;
    /// Whether to go through the panels from the last to the first. Where steps alternate, each
    /// begins with the weights that the step before used last, which are still in the cache.
    bool last_first = false;
    // With layer normalisation, where rows have `pre` in the order of the gates, with all biases
    // but b_hn, and `w` is left out, because the product has been made:
    const NormRow<T>* norms = nullptr;                   ///< of each row, in forward
    const NormBackwardRow<T>* backward_norms = nullptr;  ///< LSTM
    const T* ln_hh = nullptr;
    const T* ln_c = nullptr;
    const T* ln_c_bias = nullptr;
};

/// y = act(pre + W_hh h_prev)
template <class T>
struct RnnForwardRow {
    const T* pre;     ///< W_ih x + b, in the order of the panels
    const T* h_prev;  ///< (H)
    T* y;             ///< (H)
    const T* x;       ///< (w_in.K)
    T* sum;           ///< (H) what enters act, written in training if act needs it, or null
};

/// dpre = (extra + a · W_hh + dy) act'(y); a is the next step's dpre. Every cell adds in this
/// order, dy last: then backward gives the same bits when the steps are cut into several calls.
template <class T>
struct RnnBackwardRow {
    const T* a;      ///< (K)
    const T* dy;     ///< (H)
    const T* extra;  ///< (H)
    const T* y;      ///< (H), or RnnForwardRow::sum if act needs that
    T* dgates;       ///< (H)
};

template <class T>
struct LstmForwardRow {
    const T* pre;     ///< W_ih x + b, in the order of the panels
    const T* h_prev;  ///< (P)
    const T* c_prev;  ///< (H), may be c
    T* c;             ///< (H)
    T* m;             ///< (H) o * output(c): h, or what the projection reads
    T* gates;         ///< (gates, H) i, f, g, o or i, g, o, then their sums if the cell
                      ///< needs_sums(); written in training only
    const T* x;       ///< (w_in.K)
};

/// dm = extra + a · w + dy, where w is W_hh (a = the next step's dgates) or, with a projection,
/// W_hr (a = the gradient of h); from it the gradients of the gates before their activation.
template <class T>
struct LstmBackwardRow {
    const T* a;        ///< (K)
    const T* dy;       ///< (H)
    const T* extra;    ///< (H)
    const T* dc_next;  ///< (H)
    const T* gates;    ///< see LstmForwardRow
    const T* c;        ///< (H)
    const T* c_prev;   ///< (H)
    T* dgates;         ///< (gates, H)
    T* dc;             ///< (H) gradient of c_prev; may be dc_next
    T* m;              ///< (H) o * output(c) again for the projection's gradient, or null
};

template <class T>
struct GruForwardRow {
    const T* pre;     ///< W_ih x + b, in the order of the panels
    const T* h_prev;  ///< (H)
    T* y;             ///< (H)
    T* gates;         ///< (3, H) r, z, n and, reset after, W_hn h + b_hn; then the sums of r, z,
                      ///< n if the cell needs_sums(). Reset before: scratch in inference too
    T* rh;            ///< (H) scratch: reset before for r * h_prev, after for W_in x + b_in
    const T* x;       ///< (w_in.K)
    const T* kept;    ///< (H) the state of which z keeps a part: h_prev, but for its dropout
};

/// dh = extra + a · W_hh + dy, a being the hidden part of the next step's dgates.
/// dgates: n, r, z and, reset after, n * r, so that what multiplies W_ih is in front and what
/// multiplies W_hh at the end.
template <class T>
struct GruBackwardRow {
    const T* a;       ///< (K)
    const T* dy;      ///< (H)
    const T* extra;   ///< (H), may be carry
    const T* gates;   ///< see GruForwardRow
    const T* h_prev;  ///< (H)
    T* dgates;        ///< (3 or 4, H)
    T* carry;         ///< (H) the part of dh_prev that does not pass W_hh (of r and z)
    const T* kept;    ///< (H), see GruForwardRow
    const T* mask;    ///< (H) reset before: the factors of h_prev, by which it differs from `kept`,
                      ///< or null
};

/// n numbers of a parameter, their gradient, and what the optimizer remembers of each (or null).
template <class T>
struct UpdateRun {
    T* data;
    const T* grad;
    T* state[3];
    int64_t n;
};

// The numbers that one step of an optimizer goes by; lstmcore/optim.h has the equations. `fresh` is
// 1 - decay, the factor of the new term in a running average.

template <class T>
struct SgdStep {
    T lr, momentum, fresh, weight_decay;
    bool nesterov;
};
template <class T>
struct RmsPropStep {
    T lr, alpha, fresh, eps, momentum, weight_decay;
};
template <class T>
struct AdamStep {
    T lr;  ///< divided by 1 - beta1^t
    T beta1, fresh1, beta2, fresh2;
    T unbias2;  ///< 1 / sqrt(1 - beta2^t)
    T eps, weight_decay;
    T keep;  ///< factor of the parameter: decoupled weight decay
};

/// What the softmax of a row is made of: max_c x[c] and sum_c exp(x[c] - max).
template <class T>
struct SoftmaxSums {
    T max, sum;
};

template <class T>
struct Kernels {
    int lanes;
    bool has_avx512_units;  ///< Bfloat16Unit::dot, and amx of bfloat16 and of int8
    bool has_vnni;          ///< Int8Unit::vnni
    /// y = f(x) for n numbers, by the same arithmetic as in the cells.
    void (*activate)(const Activation& f, const T* x, T* y, int64_t n);
    /// dx = dy f'(x), from y = f(x) or, if f needs that, from x, for n numbers; dx may be dy.
    void (*differentiate)(const Activation& f, const T* from, const T* dy, T* dx, int64_t n);
    /// out[k][c] = rows[c][k] for k < K, c < width, a multiple of the lanes.
    void (*transpose)(const T* const* rows, int64_t K, int64_t width, T* out);
    /// out = init + a w for n rows.
    void (*product)(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n);
    void (*outer)(const OuterArgs<T>& args);
    void (*column_sum)(const ColumnSumArgs<T>& args);
    void (*rnn_forward)(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n);
    void (*rnn_backward)(const StepArgs<T>& step, const RnnBackwardRow<T>* rows, int64_t n);
    // [0] for inference, [1] for training. Which variant of the cell, the kernel picks by its
    // options.
    void (*lstm_forward[2])(const StepArgs<T>& step, const LstmForwardRow<T>* rows, int64_t n);
    void (*lstm_backward)(const StepArgs<T>& step, const LstmBackwardRow<T>* rows, int64_t n);
    void (*gru_forward[2])(const StepArgs<T>& step, const GruForwardRow<T>* rows, int64_t n);
    void (*gru_backward)(const StepArgs<T>& step, const GruBackwardRow<T>* rows, int64_t n);
    // UpdateRun::state holds, for sgd: m or null; for rmsprop: v, m or null, a or null; for adam:
    // m, v, u or null.
    void (*sgd)(const SgdStep<T>& step, const UpdateRun<T>& run);
    void (*rmsprop)(const RmsPropStep<T>& step, const UpdateRun<T>& run);
    void (*adam)(const AdamStep<T>& step, const UpdateRun<T>& run);
    /// sum_i (factor x[i])^2
    double (*sum_squares)(double factor, const T* x, int64_t n);
    /// x *= factor
    void (*scale)(T factor, T* x, int64_t n);
    /// out[c] = factor softmax(x)[c] for c < C, unless out is null.
    SoftmaxSums<T> (*softmax)(const T* x, T* out, int64_t C, T factor);
    /// dx[c] = factor (dy[c] y[c] - y[c] sum_c dy[c] y[c]), where y = softmax(x), for c < C; dx may
    /// be dy.
    void (*softmax_backward)(const T* dy, const T* y, T* dx, int64_t C, T factor);
    /// Layer normalisation of `count` rows of n numbers; gain and bias may be null.
    void (*normalize)(int64_t count, int64_t n, const NormalizedRow<T>* rows, const T* gain,
                      const T* bias, T eps);
    void (*normalize_backward)(int64_t n, const T* dout, const T* normal, const T* gain, T scale,
                               T* dx);
    /// x becomes the nearest number in bfloat16, of two the even one. Not for double.
    void (*round)(T* x, int64_t n);
    /// Writes two rows of n numbers, each of which may be null for zeros, in pairs (second, first):
    /// rounded, or in so many parts, `step` numbers apart. From n to `width`, a multiple of the
    /// lanes, the numbers are 0. Not for double.
    void (*pack_pairs)(const T* first, const T* second, int64_t n, int64_t width, int64_t parts,
                       int64_t step, Bfloat16* out);
};

struct KernelTable {
    const char* isa;
    Kernels<float> f32;
    Kernels<double> f64;
    /// out[i] = log(exp(x[i]) + exp(x[i - 1]) + exp(x[i - 2] + allowed[i])) for i < n. None of them
    /// is NaN or +infinity; -infinity is the logarithm of 0.
    void (*log_sums_of_three)(const double* x, const double* allowed, double* out, int64_t n);
    /// y = log(x) for n finite numbers of at least 2.3e-308; y may be x.
    void (*log)(const double* x, double* y, int64_t n);

    template <class T>
    const Kernels<T>& of() const;
};

template <>
inline const Kernels<float>& KernelTable::of<float>() const {
    return f32;
}
template <>
inline const Kernels<double>& KernelTable::of<double>() const {
    return f64;
}

}  // namespace lstmcore
