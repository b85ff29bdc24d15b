#include "lstmcore/ctc.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernel_table.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "memory/arena.h"
#include "training/ctc_scores.h"
#include "training/log_space.h"

namespace lstmcore {
namespace {

/// Entries before the first state of a row of states, as the recursion looks two states back.
constexpr int64_t kBefore = 2;

/// What one row needs. Its states s < S are a blank, the first label, a blank, ... and a blank.
struct Workspace {
    double* alphas;     ///< (T + 1, kBefore + S): states at the start and behind each step
    double* betas;      ///< (2, kBefore + S): the last state first
    double* allowed;    ///< (S + 2): 0 where a state may follow the one two before it
    double* reversed;   ///< (S + 2): the same, the last state first
    double* posterior;  ///< (S)
    double* classes;    ///< (C)
    double* logsums;    ///< (T): what log softmax subtracts
    double* row;        ///< (C): scores in double
    int64_t* states;    ///< (S): class of each

    static Workspace take(Arena& arena, int64_t T, int64_t S, int64_t C) {
        const int64_t width = kBefore + S;
        return {arena.take<double>(size_product(T + 1, width)),
                arena.take<double>(2 * width),
                arena.take<double>(width),
                arena.take<double>(width),
                arena.take<double>(S),
                arena.take<double>(C),
                arena.take<double>(T),
                arena.take<double>(C),
                arena.take<int64_t>(S)};
    }
};

/// One row: forward, and backward beside it.
template <class T>
class CtcRow {
public:
    CtcRow(const KernelTable& kernels, const Workspace& work, const T* logits, T* dlogits,
           int64_t step_stride, int64_t steps, int64_t classes)
        : kernels_(kernels),
          work_(work),
          logits_(logits),
          dlogits_(dlogits),
          stride_(step_stride),
          T_(steps),
          C_(classes) {}

    /// Returns the loss.
    double forward(const int64_t* labels, int64_t count, int64_t blank) noexcept {
        S_ = 2 * count + 1;
        width_ = kBefore + S_;
        lay_out_states(labels, blank);
        bool known = true;
        for (int64_t t = 0; t < T_; ++t) {
            work_.logsums[t] =
                log_sum(kernels_.f64, as_double(logits_ + t * stride_, C_, work_.row), C_);
            known = known && !std::isnan(work_.logsums[t]);
        }
        if (!known) return std::nan("");
        start(alphas(0));
        for (int64_t t = 0; t < T_; ++t) {
            double* const next = alphas(t + 1);
            const double* const before = alphas(t);
            std::fill_n(next - kBefore, width_, kImpossible);
            const int64_t first = first_state(t), last = last_state(t);
            if (first >= last) return -kImpossible;
            kernels_.log_sums_of_three(before + first, work_.allowed + first, next + first,
                                       last - first);
            for (int64_t s = first; s < last; ++s) next[s] += log_probability(t, s);
        }
        const double* const end = alphas(T_);
        const double a = end[S_ - 1], b = end[S_ - 2], highest = std::max(a, b);
        if (highest == kImpossible) return -kImpossible;
        return 0 - (highest + std::log1p(std::exp(std::min(a, b) - highest)));
    }

    /// Writes the gradient, for a loss that is finite.
    void backward(double factor) noexcept {
        double *later = betas(0), *beta = betas(1);
        start(later);
        for (int64_t t = T_ - 1; t >= 0; --t) {
            std::fill_n(beta - kBefore, width_, kImpossible);
            const int64_t first = first_state(t), last = last_state(t), n = last - first;
            // Here state s is number S - 1 - s.
            const int64_t begin = S_ - last, end = S_ - first;
            kernels_.log_sums_of_three(later + begin, work_.reversed + begin, beta + begin, n);
            double* const posterior = work_.posterior;
            const double* const alpha = alphas(t + 1);
            for (int64_t s = first; s < last; ++s) posterior[s] = alpha[s] + beta[S_ - 1 - s];
            kernels_.f64.softmax(posterior + first, posterior + first, n, 1);
            write_gradient(t, first, last, factor);
            for (int64_t i = begin; i < end; ++i) beta[i] += log_probability(t, S_ - 1 - i);
            std::swap(later, beta);
        }
    }

    void fill_gradient(T value) noexcept {
        for (int64_t t = 0; t < T_; ++t) std::fill_n(dlogits_ + t * stride_, C_, value);
    }

private:
    double* alphas(int64_t t) const { return work_.alphas + t * width_ + kBefore; }
    double* betas(int64_t i) const { return work_.betas + i * width_ + kBefore; }

    /// States [first, last) can be reached by step t, and reach the end from there.
    int64_t first_state(int64_t t) const { return std::max<int64_t>(0, S_ - 2 * (T_ - t)); }
    int64_t last_state(int64_t t) const { return std::min(S_, 2 * (t + 1)); }

    /// What comes before the first step: from it the first two states can be reached.
    void start(double* states) const {
        std::fill_n(states - kBefore, width_, kImpossible);
        states[-1] = 0;
    }

    void lay_out_states(const int64_t* labels, int64_t blank) noexcept {
        double* const allowed = work_.allowed;
        allowed[0] = allowed[S_ + 1] = kImpossible;
        allowed[1] = allowed[S_] = 0;
        for (int64_t s = 0; s < S_; ++s) {
            work_.states[s] = s % 2 == 0 ? blank : labels[s / 2];
            if (s >= 2) {
                const bool may = s % 2 == 1 && work_.states[s] != work_.states[s - 2];
                allowed[s] = may ? 0 : kImpossible;
            }
        }
        std::reverse_copy(allowed, allowed + S_ + 2, work_.reversed);
    }

    double log_probability(int64_t t, int64_t s) const noexcept {
        return double(logits_[t * stride_ + work_.states[s]]) - work_.logsums[t];
    }

    void write_gradient(int64_t t, int64_t first, int64_t last, double factor) noexcept {
        const double* const x = as_double(logits_ + t * stride_, C_, work_.row);
        kernels_.f64.softmax(x, work_.classes, C_, 1);
        for (int64_t s = first; s < last; ++s) work_.classes[work_.states[s]] -= work_.posterior[s];
        T* const dx = dlogits_ + t * stride_;
        for (int64_t c = 0; c < C_; ++c) dx[c] = T(factor * work_.classes[c]);
    }

    const KernelTable& kernels_;
    const Workspace work_;
    const T* const logits_;
    T* const dlogits_;
    const int64_t stride_, T_, C_;
    int64_t S_ = 0, width_ = 0;
};

/// Labels of all rows, and how many the longest has.
int64_t check_labels(const CtcScores& scores, const int64_t* labels, const int64_t* lengths,
                     std::vector<int64_t>& starts) {
    int64_t longest = 0, total = 0;
    for (int64_t b = 0; b < scores.B; ++b) {
        if (lengths[b] < 0) throw std::invalid_argument("target_lengths: negative");
        starts[b] = total;
        total += lengths[b];
        longest = std::max(longest, lengths[b]);
    }
    for (int64_t i = 0; i < total; ++i)
        if (labels[i] < 0 || labels[i] >= scores.C || labels[i] == scores.blank)
            throw std::invalid_argument("labels: expected 0 .. C - 1, not blank");
    return longest;
}

}  // namespace

template <class T>
void ctc(const T* logits, const CtcScores& scores, const int64_t* labels,
         const int64_t* target_lengths, const double* factor, double* losses, T* dlogits,
         int num_threads) {
    check_scores(scores);
    std::vector<int64_t> starts(scores.B);
    const int64_t longest = check_labels(scores, labels, target_lengths, starts);
    const KernelTable& kernels = kernel_table();
    const int64_t states = 2 * longest + 1;
    const double work = double(scores.T) * double(scores.B) * double(5 * states + 2 * scores.C);
    const double useful = std::min(1 + work / kExponentialsOfThread, double(scores.B));
    const int team_size = int(std::max(1.0, std::min(double(num_threads), useful)));
    Arena counting(nullptr);
    Workspace::take(counting, scores.T, states, scores.C);
    const Buffer memory(size_product(counting.used(), team_size));
    run_fast_team(
        CallKind({'c', states, scores.B, scores.C}, work), team_size, [&](Team& team) noexcept {
            const FlushDenormals mode;
            Arena arena(static_cast<char*>(memory.data()) + counting.used() * team.rank);
            const Workspace workspace = Workspace::take(arena, scores.T, states, scores.C);
            for (int64_t b = team.rank; b < scores.B; b += team.size) {
                const int64_t steps = scores.lengths ? scores.lengths[b] : scores.T;
                const int64_t at = b * scores.row_stride;
                T* const dx = dlogits ? dlogits + at : nullptr;
                CtcRow<T> row(kernels, workspace, logits + at, dx, scores.step_stride, steps,
                              scores.C);
                const double loss = losses[b] =
                    row.forward(labels + starts[b], target_lengths[b], scores.blank);
                if (!dx) continue;
                if (std::isfinite(loss) && factor[b] != 0)
                    row.backward(factor[b]);
                else
                    row.fill_gradient(std::isnan(loss) ? std::numeric_limits<T>::quiet_NaN()
                                                       : T(0));
                for (int64_t t = steps; t < scores.T; ++t)
                    std::fill_n(dx + t * scores.step_stride, scores.C, T(0));
            }
        });
}

#define LSTMCORE_INSTANTIATE(T)                                                                  \
    template void ctc(const T*, const CtcScores&, const int64_t*, const int64_t*, const double*, \
                      double*, T*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
