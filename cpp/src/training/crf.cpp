#include "lstmcore/crf.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernel_table.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "memory/arena.h"
#include "memory/pack.h"
#include "memory/sizes.h"
#include "training/log_space.h"

namespace lstmcore {
namespace {

/// The same as a finite number: its product with 0 is 0.
constexpr double kLowest = std::numeric_limits<double>::lowest();
/// Exponentials below 1e-307 are lost. A sum of what is left by its highest, 1, that is at least
/// this has lost nothing that counts, see Kept.
constexpr double kLeast = 1e-50, kLeastShared = 1e-200;
/// Rows whose products are made together.
constexpr int64_t kRows = 16;

/// The steps that there are: row b has those of number first[b] .. first[b + 1] - 1.
struct Steps {
    std::vector<int64_t> first, step;

    explicit Steps(const CrfShape& shape) : first(1, 0) {
        if (shape.T < 0 || shape.B < 0 || shape.T > INT32_MAX || shape.B > INT32_MAX)
            throw std::invalid_argument("T, B: expected sizes of at least 0");
        check_size(shape.C, "C");
        for (int64_t b = 0; b < shape.B; ++b) {
            const int64_t end = shape.lengths ? shape.lengths[b] : shape.T;
            if (end < 0 || end > shape.T) throw std::invalid_argument("lengths: expected 0 .. T");
            for (int64_t t = 0; t < end; ++t)
                if (!shape.mask || shape.mask[at(shape, t, b) / shape.C]) step.push_back(t);
            first.push_back(int64_t(step.size()));
        }
    }
    static int64_t at(const CrfShape& shape, int64_t t, int64_t b) {
        return t * shape.step_stride + b * shape.row_stride;
    }
    int64_t all() const { return int64_t(step.size()); }
};

/// Numbers x of a parameter in double, and exp(x - highest).
struct Exponentials {
    std::vector<double> logs, powers;
    double highest;
    bool known = true;  ///< neither NaN nor +infinity

    template <class T>
    Exponentials(const T* from, int64_t n) : logs(from, from + n), powers(size_t(n)) {
        highest = *std::max_element(logs.begin(), logs.end());
        if (!(highest > kImpossible)) highest = 0;
        for (size_t i = 0; i < logs.size(); ++i) {
            known = known && logs[i] < std::numeric_limits<double>::infinity();
            powers[i] = std::exp(logs[i] - highest);
        }
    }
};

/// The parameters, and the transitions as the products need them.
struct Model {
    int64_t C;
    Exponentials transitions, start, end;
    std::vector<double> reversed, reversed_powers;  ///< transitions from column to row
    std::vector<double> zeros;
    bool known;
    Buffer memory;
    Packed<double> forward, backward;  ///< powers and reversed_powers

    template <class T>
    Model(const CrfParameters<T>& from, int64_t C_, const Kernels<double>& kernels)
        : C(C_),
          transitions(from.transitions, C * C),
          start(from.start, C),
          end(from.end, C),
          reversed(size_t(C * C)),
          reversed_powers(size_t(C * C)),
          zeros(size_t(round_up(C, kernels.lanes))),
          known(transitions.known && start.known && end.known) {
        for (int64_t i = 0; i < C; ++i)
            for (int64_t j = 0; j < C; ++j) {
                const size_t at = size_t(i * C + j), turned = size_t(j * C + i);
                reversed[turned] = transitions.logs[at];
                reversed_powers[turned] = transitions.powers[at];
            }
        memory = pack_into_buffer(kernels, Precision::own, false, 1, [&](Packing<double>& packing) {
            const auto same = [](int64_t k) { return k; };
            forward = packing.in_rows(C, C, transitions.powers.data(), same);
            backward = packing.in_rows(C, C, reversed_powers.data(), same);
        });
    }
};

/// What is kept of every step. At first it is all exponentials: `powers` are those of the scores,
/// by their sum. `before` has for each label the sum over all labels of earlier steps, and its own
/// score, by the sum of those of all labels; `after` the sum over all labels of later steps. Before
/// it is made, the powers of the next step are multiplied by its `after`, and divided by their sum.
/// By the sum of before times after these two give the probabilities of the labels, which are left
/// in `after`; then label i is followed by j with the probability
/// before[i] exp(transitions[i][j]) powers[j], powers being those of the next step.
///
/// Lost are numbers below about 1e-307, divided by sums of at least kLeast, beside others whose sum
/// is 1. If the sum of before times after is at least kLeastShared, what they could have added to
/// it is nothing in double. The few rows where any of these sums is less are computed by
/// logarithms: then `before` is 0 and counts for nothing, and i is followed by j with the
/// probability after[i] softmax(transitions[i] + powers)[j], powers being logarithms of score and
/// sum over all later labels.
struct Kept {
    double *powers, *before, *after;  ///< (steps, C); numbers behind powers are read, not used
    double* sums;                     ///< (steps) by which powers and before were divided
    bool* by_logs;                    ///< (B)

    static Kept take(Arena& arena, int64_t steps, int64_t B, int64_t C) {
        const int64_t n = size_product(steps, C);
        Kept kept{};
        kept.powers = arena.take<double>(size_product(steps + 1, C) + kAlignment);
        kept.before = arena.take<double>(n);
        kept.after = arena.take<double>(n);
        kept.sums = arena.take<double>(steps);
        kept.by_logs = arena.take<bool>(B);
        return kept;
    }
};

/// sum_c a[c] b[c], in four chains, so that few additions wait for others.
double dot(const double* a, const double* b, int64_t n) noexcept {
    double sums[4] = {};
    const int64_t whole = n / 4 * 4;
    for (int64_t c = 0; c < whole; c += 4)
        for (int64_t i = 0; i < 4; ++i) sums[i] += a[c + i] * b[c + i];
    for (int64_t c = whole; c < n; ++c) sums[c - whole] += a[c] * b[c];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// What all rows of the loss share.
template <class T>
struct Job {
    const Kernels<double>& kernels;
    void (*log)(const double*, double*, int64_t);
    const Model& model;
    const CrfShape& shape;
    const Steps& steps;
    const Kept& kept;
    const T* scores;
    const int64_t* labels;  ///< of all steps
    const double* factor;
    double* losses;
    T* dscores;
};

/// One row of the loss. Its steps are 0 .. steps() - 1.
template <class T>
class CrfRow {
public:
    CrfRow() = default;
    CrfRow(const Job<T>& job, int64_t b)
        : job_(&job),
          model_(&job.model),
          b_(b),
          C_(job.shape.C),
          first_(job.steps.first[size_t(b)]),
          n_(job.steps.first[size_t(b) + 1] - first_),
          exact_(job.model.known) {}

    int64_t steps() const { return n_; }

    // By exponentials, see Kept.

    void begin(double* room) noexcept {
        for (int64_t k = 0; k < n_; ++k) {
            std::copy_n(x(k), C_, room);
            const SoftmaxSums<double> by = job_->kernels.softmax(room, powers(k), C_, 1);
            highest_ += by.max;
            job_->kept.sums[first_ + k] = by.sum;
        }
        if (n_ == 0) return;
        std::copy_n(model_->start.powers.data(), C_, before(0));
        weigh(0);
    }
    ProductRow<double> forward_product(int64_t k) const {
        return {before(k - 1), model_->zeros.data(), before(k)};
    }
    /// Makes `before` of step k of the sums over all labels of the step before.
    void weigh(int64_t k) noexcept {
        const double* const p = powers(k);
        double* const out = before(k);
        const double sum = dot(out, p, C_), by = 1 / sum;
        for (int64_t c = 0; c < C_; ++c) out[c] *= p[c] * by;
        job_->kept.sums[first_ + k] *= sum;
        exact_ = exact_ && sum >= kLeast;
    }

    void begin_backward() noexcept {
        std::copy_n(model_->end.powers.data(), C_, after(n_ - 1));
        last_ = dot(before(n_ - 1), after(n_ - 1), C_);
    }
    /// The product that makes `after` of step k.
    ProductRow<double> backward_product(int64_t k) noexcept {
        double* const right = powers(k + 1);
        const double* const later = after(k + 1);
        const double sum = dot(right, later, C_), by = 1 / sum;
        for (int64_t c = 0; c < C_; ++c) right[c] *= later[c] * by;
        exact_ = exact_ && sum >= kLeast;
        return {right, model_->zeros.data(), after(k)};
    }
    /// The probabilities of step k, whose `after` is needed no more, and the gradient of its
    /// scores.
    void share(int64_t k) noexcept {
        double *const left = before(k), *const p = after(k);
        const double sum = dot(left, p, C_), by = job_->factor[b_] / sum;
        exact_ = exact_ && sum >= kLeastShared;
        if (!job_->dscores) return;
        for (int64_t c = 0; c < C_; ++c) {
            left[c] *= by;
            p[c] *= left[c];
        }
        write_gradient(k);
    }

    /// The loss, behind all that is above. What that could not hold, and what has no gradient, is
    /// made again.
    void finish(double* room) noexcept {
        double& loss = job_->losses[b_];
        loss = 0;
        job_->kept.by_logs[b_] = !exact_;
        if (n_ == 0) return;
        const double score = score_of_labels();
        const bool known = exact_ || is_known(), counts = known && score > kImpossible;
        loss = !known ? std::nan("") : -kImpossible;
        if (counts) loss = (exact_ ? log_of_all() : forward_by_logs(room)) - score;
        if (!job_->dscores) return;
        if (counts && job_->factor[b_] != 0) {
            if (!exact_) backward_by_logs(room);
            leave_out(exact_ ? n_ - 1 : 0);
            return;
        }
        for (int64_t k = 0; k < n_; ++k)
            std::fill_n(dx(k), C_, known ? T(0) : std::numeric_limits<T>::quiet_NaN());
        std::fill_n(powers(0), n_ * C_, 0);
        leave_out(0);
    }

private:
    int64_t at(int64_t k) const {
        return Steps::at(job_->shape, job_->steps.step[size_t(first_ + k)], b_);
    }
    const T* x(int64_t k) const { return job_->scores + at(k); }
    T* dx(int64_t k) const { return job_->dscores + at(k); }
    int64_t label(int64_t k) const { return job_->labels[first_ + k]; }
    double* powers(int64_t k) const { return job_->kept.powers + (first_ + k) * C_; }
    double* before(int64_t k) const { return job_->kept.before + (first_ + k) * C_; }
    double* after(int64_t k) const { return job_->kept.after + (first_ + k) * C_; }

    /// log(sum over all sequences of labels of exp(score)), by what all was divided by.
    double log_of_all() const noexcept {
        double* const sums = job_->kept.sums + first_;
        job_->log(sums, sums, n_);
        double sum = highest_ + model_->start.highest + model_->end.highest;
        sum += double(n_ - 1) * model_->transitions.highest;
        for (int64_t k = 0; k < n_; ++k) sum += sums[k];
        return sum + std::log(last_);
    }
    double score_of_labels() const noexcept {
        double score = model_->start.logs[size_t(label(0))] + double(x(0)[label(0)]);
        for (int64_t k = 1; k < n_; ++k)
            score += model_->transitions.logs[size_t(label(k - 1) * C_ + label(k))] +
                     double(x(k)[label(k)]);
        return score + model_->end.logs[size_t(label(n_ - 1))];
    }
    void write_gradient(int64_t k) const noexcept {
        const double* const p = after(k);
        T* const out = dx(k);
        for (int64_t c = 0; c < C_; ++c) out[c] = T(p[c]);
        out[label(k)] = T(p[label(k)] - job_->factor[b_]);
    }
    /// Steps from number k on count for nothing in the gradient of the transitions, if powers are
    /// finite.
    void leave_out(int64_t k) const noexcept { std::fill_n(before(k), (n_ - k) * C_, 0); }

    // The same by logarithms: all three of Kept are such here, until a step has its probabilities.

    bool is_known() const noexcept {
        bool known = model_->known;
        for (int64_t k = 0; k < n_; ++k)
            for (int64_t c = 0; c < C_; ++c) known &= x(k)[c] < std::numeric_limits<T>::infinity();
        return known;
    }
    double forward_by_logs(double* room) const noexcept {
        for (int64_t c = 0; c < C_; ++c)
            before(0)[c] = model_->start.logs[size_t(c)] + double(x(0)[c]);
        for (int64_t k = 1; k < n_; ++k)
            for (int64_t c = 0; c < C_; ++c)
                before(k)[c] = log_sum(before(k - 1), &model_->reversed[size_t(c * C_)], room) +
                               double(x(k)[c]);
        return log_sum(before(n_ - 1), model_->end.logs.data(), room);
    }
    void backward_by_logs(double* room) const noexcept {
        std::copy_n(model_->end.logs.data(), C_, after(n_ - 1));
        for (int64_t k = n_ - 1; k >= 0; --k) {
            for (int64_t c = 0; c < C_ && k + 1 < n_; ++c)
                after(k)[c] =
                    log_sum(powers(k + 1), &model_->transitions.logs[size_t(c * C_)], room);
            for (int64_t c = 0; c < C_; ++c) {
                powers(k)[c] = std::max(double(x(k)[c]) + after(k)[c], kLowest);
                after(k)[c] += before(k)[c];
            }
            job_->kernels.softmax(after(k), after(k), C_, job_->factor[b_]);
            write_gradient(k);
        }
    }
    /// log(sum_c exp(a[c] + b[c]))
    double log_sum(const double* a, const double* b, double* room) const noexcept {
        for (int64_t c = 0; c < C_; ++c) room[c] = a[c] + b[c];
        const SoftmaxSums<double> sums = job_->kernels.softmax(room, nullptr, C_, 1);
        return sums.max > kImpossible ? sums.max + std::log(sums.sum) : kImpossible;
    }

    const Job<T>* job_ = nullptr;
    const Model* model_ = nullptr;
    int64_t b_ = 0, C_ = 0, first_ = 0, n_ = 0;
    double highest_ = 0;  ///< of the scores of each step, added up
    double last_ = 0;     ///< the last sum, which is not divided by
    bool exact_ = false;  ///< whether exponentials have lost nothing that counts
};

/// Rows first, first + by, ...: kRows at once, so that a product has that many.
template <class T>
void run_rows(const Job<T>& job, int64_t first, int64_t by, double* room) noexcept {
    const auto run = [&](CrfRow<T>* rows, int64_t count) {
        ProductRow<double> products[kRows];
        int64_t longest = 0;
        for (int64_t r = 0; r < count; ++r) {
            rows[r].begin(room);
            longest = std::max(longest, rows[r].steps());
        }
        for (int64_t k = 1, n = 0; k < longest; ++k, n = 0) {
            for (int64_t r = 0; r < count; ++r)
                if (rows[r].steps() > k) products[n++] = rows[r].forward_product(k);
            job.kernels.product(job.model.forward, job.shape.C, products, n);
            for (int64_t r = 0; r < count; ++r)
                if (rows[r].steps() > k) rows[r].weigh(k);
        }
        for (int64_t k = longest - 1, n = 0; k >= 0; --k, n = 0) {
            for (int64_t r = 0; r < count; ++r)
                if (rows[r].steps() > k + 1) products[n++] = rows[r].backward_product(k);
            job.kernels.product(job.model.backward, job.shape.C, products, n);
            for (int64_t r = 0; r < count; ++r) {
                if (rows[r].steps() > k + 1) rows[r].share(k + 1);
                if (rows[r].steps() == k + 1) rows[r].begin_backward();
                if (rows[r].steps() > k && k == 0) rows[r].share(0);
            }
        }
        for (int64_t r = 0; r < count; ++r) rows[r].finish(room);
    };
    CrfRow<T> rows[kRows];
    int64_t count = 0;
    for (int64_t b = first; b < job.shape.B; b += by) {
        rows[count++] = CrfRow<T>(job, b);
        if (count < kRows && b + by < job.shape.B) continue;
        run(rows, count);
        count = 0;
    }
}

/// The gradients of the parameters, sums over all rows.
template <class T>
struct Sums {
    const Job<T>& job;

    bool counts(int64_t b) const {
        return job.steps.first[size_t(b)] < job.steps.first[size_t(b) + 1] &&
               std::isfinite(job.losses[b]) && job.factor[b] != 0;
    }
    /// That of the transitions from labels [first, last), over all rows and steps in order.
    /// `products` and `exact` are (C, C), of which those labels' rows are used; `room` is (C).
    void add_transitions(int64_t first, int64_t last, double* products, double* exact, double* room,
                         T* out) const noexcept {
        const int64_t C = job.shape.C, begin = first * C, end = last * C;
        std::fill(products + begin, products + end, 0);
        std::fill(exact + begin, exact + end, 0);
        for (int64_t m = 0; m < job.steps.all(); m += kLinearPieceRows) {
            const int64_t n = std::min(kLinearPieceRows, job.steps.all() - m);
            const Panels<double> left{job.kept.before + m * C, C, n};
            const Panels<double> next{job.kept.powers + (m + 1) * C, C, n};
            job.kernels.outer({left, first, next, products + begin, n, last - first, C});
        }
        for (int64_t b = 0; b < job.shape.B; ++b) {
            if (!counts(b)) continue;
            for (int64_t m = job.steps.first[size_t(b)]; m + 1 < job.steps.first[size_t(b) + 1];
                 ++m) {
                const int64_t label = job.labels[m];
                if (label >= first && label < last)
                    exact[label * C + job.labels[m + 1]] -= job.factor[b];
                for (int64_t i = first; job.kept.by_logs[b] && i < last; ++i)
                    add_by_logs(m, i, exact + i * C, room);
            }
        }
        for (int64_t i = begin; i < end; ++i)
            out[i] += T(products[i] * job.model.transitions.powers[size_t(i)] + exact[i]);
    }
    /// The share of each label that may follow label i of step m.
    void add_by_logs(int64_t m, int64_t i, double* exact, double* room) const noexcept {
        const int64_t C = job.shape.C;
        const double weight = job.kept.after[m * C + i];
        if (weight == 0) return;
        const double* const later = job.kept.powers + (m + 1) * C;
        const double* const transitions = &job.model.transitions.logs[size_t(i * C)];
        for (int64_t j = 0; j < C; ++j) room[j] = later[j] + transitions[j];
        job.kernels.softmax(room, room, C, weight);
        for (int64_t j = 0; j < C; ++j) exact[j] += room[j];
    }
    /// Those of the first or last labels.
    void add_ends(bool last, T* out) const noexcept {
        for (int64_t c = 0; c < job.shape.C; ++c) {
            double sum = 0;
            for (int64_t b = 0; b < job.shape.B; ++b) {
                if (!counts(b)) continue;
                const int64_t m =
                    last ? job.steps.first[size_t(b) + 1] - 1 : job.steps.first[size_t(b)];
                const double own = job.labels[m] == c ? job.factor[b] : 0;
                sum += job.kept.after[m * job.shape.C + c] - own;
            }
            out[c] += T(sum);
        }
    }
};

/// The labels of all steps, one row after the other.
std::vector<int64_t> take_labels(const CrfShape& shape, const Steps& steps, const int64_t* target) {
    std::vector<int64_t> labels(steps.step.size());
    for (int64_t b = 0; b < shape.B; ++b)
        for (int64_t m = steps.first[size_t(b)]; m < steps.first[size_t(b) + 1]; ++m) {
            const int64_t k = target[Steps::at(shape, steps.step[size_t(m)], b) / shape.C];
            if (k < 0 || k >= shape.C) throw std::invalid_argument("target: not a class");
            labels[size_t(m)] = k;
        }
    return labels;
}

/// What Viterbi's algorithm looks for the best of, padded with what cannot be.
struct Trellis {
    static constexpr int64_t kBlock = 4;

    int64_t C, width;
    std::vector<double> transitions;  ///< (C, width)
    std::vector<double> reversed;     ///< (C, C) from column to row
    std::vector<double> start, end;   ///< (width), (C)

    template <class T>
    Trellis(const CrfParameters<T>& from, int64_t C_)
        : C(C_),
          width(round_up(C, kBlock)),
          transitions(size_t(C * width), kImpossible),
          reversed(size_t(C * C)),
          start(size_t(width), kImpossible),
          end(from.end, from.end + C) {
        std::copy_n(from.start, C, start.begin());
        for (int64_t i = 0; i < C; ++i)
            for (int64_t j = 0; j < C; ++j)
                transitions[size_t(i * width + j)] = reversed[size_t(j * C + i)] =
                    double(from.transitions[i * C + j]);
    }
    /// now[j] = max_i (before[i] + transitions[i][j])
    void follow(const double* before, double* now) const noexcept {
        for (int64_t j = 0; j < width; j += kBlock) {
            double best[kBlock];
            std::fill_n(best, kBlock, kImpossible);
            for (int64_t i = 0; i < C; ++i) {
                const double* const row = transitions.data() + i * width + j;
                for (int64_t l = 0; l < kBlock; ++l) {
                    const double score = before[i] + row[l];
                    best[l] = best[l] < score ? score : best[l];
                }
            }
            std::copy_n(best, kBlock, now + j);
        }
    }
    /// The label of the highest score[i] + after[i], of equal ones the first.
    int64_t best_before(const double* score, const double* after) const noexcept {
        int64_t label = 0;
        double best = score[0] + after[0];
        for (int64_t i = 1; i < C; ++i)
            if (score[i] + after[i] > best) best = score[label = i] + after[i];
        return label;
    }
};

int team_size_for(const CrfShape& shape, const Steps& steps, int num_threads) {
    const double c = double(shape.C), work = double(steps.all()) * (3 * c * c + 20 * c);
    const double useful = std::min(1 + work / kWorkOfThread, double(std::max(shape.B, shape.C)));
    return int(std::min(double(num_threads), std::max(1.0, useful)));
}

template <class T>
void poison(const CrfGradients<T>& gradients, int64_t C) noexcept {
    constexpr T nan = std::numeric_limits<T>::quiet_NaN();
    std::fill_n(gradients.transitions, C * C, nan);
    std::fill_n(gradients.start, C, nan);
    std::fill_n(gradients.end, C, nan);
}

}  // namespace

template <class T>
void crf(const T* scores, const CrfShape& shape, const CrfParameters<T>& parameters,
         const int64_t* target, const double* factor, double* losses, T* dscores,
         const CrfGradients<T>* gradients, int num_threads) {
    const Steps steps(shape);
    const std::vector<int64_t> labels = take_labels(shape, steps, target);
    const KernelTable& table = kernel_table();
    const int64_t C = shape.C;
    const FlushDenormals own_mode;
    const Model model(parameters, C, table.f64);
    Arena counting(nullptr);
    Kept::take(counting, steps.all(), shape.B, C);
    const int team_size = team_size_for(shape, steps, num_threads);
    const int64_t room_size = round_up(C, kAlignment);
    counting.take<double>(size_product(room_size, team_size));
    counting.take<double>(size_product(2, C, C));
    const Buffer memory(counting.used());
    Arena arena(memory.data());
    const Kept kept = Kept::take(arena, steps.all(), shape.B, C);
    double* const rooms = arena.take<double>(size_product(room_size, team_size));
    double* const products = arena.take<double>(size_product(2, C, C));
    const Job<T> job{table.f64, table.log,     model,  shape,  steps,  kept,
                     scores,    labels.data(), factor, losses, dscores};
    const Sums<T> sums{job};
    std::fill_n(kept.powers + steps.all() * C, C + kAlignment, 0);
    const CallKind kind({'k', shape.B, C, sizeof(T)}, double(steps.all() + 1));
    run_fast_team(kind, team_size, [&](Team& team) noexcept {
        const FlushDenormals mode;
        double* const room = rooms + team.rank * room_size;
        for (int64_t b = team.rank; dscores && b < shape.B; b += team.size)
            for (int64_t t = 0; t < shape.T; ++t)
                std::fill_n(dscores + Steps::at(shape, t, b), C, T(0));
        run_rows(job, team.rank, team.size, room);
        if (!dscores || !gradients) return;
        team.barrier();
        sums.add_transitions(C * team.rank / team.size, C * (team.rank + 1) / team.size, products,
                             products + C * C, room, gradients->transitions);
    });
    if (!dscores || !gradients) return;
    sums.add_ends(false, gradients->start);
    sums.add_ends(true, gradients->end);
    if (std::any_of(losses, losses + shape.B, [](double loss) { return std::isnan(loss); }))
        poison(*gradients, C);
}

template <class T>
int64_t crf_decode(const T* scores, const CrfShape& shape, const CrfParameters<T>& parameters,
                   int64_t* paths, int num_threads) {
    const Steps steps(shape);
    const Trellis trellis(parameters, shape.C);
    const int64_t width = trellis.width;
    // The best score of all that ends in each label, for each step.
    Buffer memory(size_product(steps.all(), width, sizeof(double)));
    double* const best = static_cast<double*>(memory.data());
    const int team_size = team_size_for(shape, steps, num_threads);
    const CallKind kind({'v', shape.B, shape.C, sizeof(T)}, double(steps.all() + 1));
    run_fast_team(kind, team_size, [&](Team& team) noexcept {
        for (int64_t b = team.rank; b < shape.B; b += team.size) {
            const int64_t first = steps.first[size_t(b)], end = steps.first[size_t(b) + 1];
            for (int64_t m = first; m < end; ++m) {
                const T* const x = scores + Steps::at(shape, steps.step[size_t(m)], b);
                double* const now = best + m * width;
                if (m == first)
                    std::copy(trellis.start.begin(), trellis.start.end(), now);
                else
                    trellis.follow(now - width, now);
                for (int64_t j = 0; j < shape.C; ++j) now[j] += double(x[j]);
            }
            const double* after = trellis.end.data();
            for (int64_t m = end - 1; m >= first; --m) {
                paths[m] = trellis.best_before(best + m * width, after);
                after = &trellis.reversed[size_t(paths[m] * shape.C)];
            }
        }
    });
    return steps.all();
}

#define LSTMCORE_INSTANTIATE(T)                                                           \
    template void crf(const T*, const CrfShape&, const CrfParameters<T>&, const int64_t*, \
                      const double*, double*, T*, const CrfGradients<T>*, int);           \
    template int64_t crf_decode(const T*, const CrfShape&, const CrfParameters<T>&, int64_t*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
