// What a recurrent layer is: its cell, its options, its sizes. Plain values, checked once.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

enum class CellKind { rnn, lstm, gru };

/// Activation functions, by their ONNX definitions.
enum class ActivationKind {
    sigmoid,       ///< 1 / (1 + exp(-x))
    tanh,          ///< tanh(x)
    relu,          ///< max(0, x)
    hard_sigmoid,  ///< clip(alpha x + beta, 0, 1)
    scaled_tanh,   ///< alpha tanh(beta x)
    softsign,      ///< x / (1 + |x|)
    identity,      ///< x
    affine,        ///< alpha x + beta
    // alpha >= 0 in these three
    leaky_relu,        ///< x, or alpha x where x < 0
    thresholded_relu,  ///< x where x > alpha, else 0
    elu,               ///< x, or alpha (exp(x) - 1) where x < 0 (Clevert et al. 2016)
    selu,              ///< 1.0507 elu(x), alpha = 1.6733 (Klambauer et al. 2017)
    softplus,          ///< log(1 + exp(x))
    exponential,       ///< exp(x)
    gelu,              ///< x P(x), P that of the normal distribution (Hendrycks & Gimpel 2016)
    silu,              ///< x sigmoid(x)
    mish,              ///< x tanh(log(1 + exp(x))) (Misra 2019)
    hard_silu,         ///< x clip(x / 6 + 1 / 2, 0, 1)
};

struct Activation {
    ActivationKind kind = ActivationKind::tanh;
    double alpha = 1;
    double beta = 1;

    /// Whether its derivative is taken from x: it falls and rises, so that f(x) does not tell where
    /// x was. All others are differentiated from f(x), and x is not kept.
    bool needs_input() const { return kind >= ActivationKind::gelu; }
    /// How many of alpha and beta it has.
    int parameters() const {
        if (kind == ActivationKind::hard_sigmoid || kind == ActivationKind::scaled_tanh ||
            kind == ActivationKind::affine)
            return 2;
        return has_slope() ? 1 : 0;
    }
    /// Whether alpha is a factor or a threshold that must not be negative: else f(x) would not tell
    /// where x was.
    bool has_slope() const {
        return kind == ActivationKind::leaky_relu || kind == ActivationKind::thresholded_relu ||
               kind == ActivationKind::elu;
    }
};

/// The probability with which a unit keeps its old state in a step (Krueger et al. 2017). Training
/// draws at random; inference takes the mean of the old and the new state with these weights.
struct Zoneout {
    double h = 0;
    double c = 0;  ///< LSTM

    explicit operator bool() const { return h > 0 || c > 0; }
};

/// What layer normalisation adds to a variance.
constexpr double kNormEps = 1e-5;

/// One cell. The variants are options of it:
///   RNN   Elman (1990); `candidate` is its nonlinearity.
///   LSTM  Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000). Without
///         `forget_gate` f = 1 (1997); `coupled` has f = 1 - i (Greff et al. 2017). In both the
///         weights hold the gates i, g, o only. `peephole`: Gers & Schmidhuber (2000).
///   GRU   Cho et al. (2014); `reset_after` multiplies by r after the product, as cuDNN does.
/// What is of another cell keeps its default.
struct CellSpec {
    CellKind kind = CellKind::lstm;
    Activation gate{ActivationKind::sigmoid};
    Activation candidate{ActivationKind::tanh};
    Activation output{ActivationKind::tanh};  ///< of the LSTM's cell, h = o * output(c)
    bool forget_gate = true;
    bool coupled = false;
    bool peephole = false;
    bool reset_after = true;
    double cell_clip = 0;  ///< of the LSTM: |c| is held to this; 0 = no clip
    double gate_clip = 0;  ///< what enters gate and candidate is held to this; 0 = no clip
    Zoneout zoneout;
    /// Layer normalisation (Ba et al. 2016) of W_ih x and of W_hh h, each over all gates, with a
    /// gain and without a bias of its own; in the LSTM also of c on its way to the output.
    bool layer_norm = false;

    /// Blocks of hidden_size rows in the weights: 1 (RNN), 3 or 4 (LSTM), 3 (GRU).
    int gates() const {
        if (kind == CellKind::rnn) return 1;
        if (kind == CellKind::gru) return 3;
        return forget_gate && !coupled ? 4 : 3;
    }
    /// Whether backward needs what enters the gates and the candidate beside what comes out.
    bool needs_sums() const { return gate.needs_input() || candidate.needs_input(); }
    bool normalizes_c() const { return layer_norm && kind == CellKind::lstm; }
    /// Rows of the peephole weights: i, f, o, or i, o where there is no forget gate of its own.
    int peepholes() const { return gates() - 1; }
};

/// How the two directions of a bidirectional layer become its output.
enum class Merge { concat, sum, mul, ave };

/// A stack of recurrent layers. T = steps, B = batch, I = input_size, H = hidden_size,
/// P = output_size(), D = directions(), L = num_layers. Sizes are at most 2^31 - 1.
struct LayerSpec {
    CellSpec cell;
    int64_t input_size = 0;
    int64_t hidden_size = 0;
    int64_t proj_size = 0;  ///< LSTM only (Sak et al. 2014); 0 = no projection
    int64_t num_layers = 1;
    bool bidirectional = false;
    bool reverse = false;  ///< the one direction reads from the end
    bool bias = true;
    Merge merge = Merge::concat;

    int directions() const { return bidirectional ? 2 : 1; }
    int64_t output_size() const { return proj_size > 0 ? proj_size : hidden_size; }
    /// Width of a layer's output y, and so of the next layer's input.
    int64_t feature_size() const {
        return merge == Merge::concat ? directions() * output_size() : output_size();
    }
    int64_t layer_input_size(int64_t layer) const {
        return layer == 0 ? input_size : feature_size();
    }
    /// Multiply-adds of one step of one row, of all layers.
    double multiply_adds() const {
        double sum = 0;
        for (int64_t l = 0; l < num_layers; ++l)
            sum += double(layer_input_size(l) + output_size()) * double(hidden_size);
        return sum * cell.gates() * directions();
    }
    bool reads_backwards(int direction) const { return direction == 1 || reverse; }

    /// Throws std::invalid_argument naming the option that is out of range or contradicts another.
    void check() const;
};

}  // namespace LSTMCORE_API lstmcore
