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

namespace lstmcore {
namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();
/// Exponentials below 1e-307 are lost in a sum. That is nothing in a sum of at least this; a lower
/// one is made again from logarithms.
constexpr double kSafe = 1e-250;

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

/// The parameters in double, and exponentials of the transitions.
struct Model {
    int64_t C;
    std::vector<double> transitions, reversed, start, end, powers, reversed_powers, zeros;
    double highest;  ///< powers[i][j] = exp(transitions[i][j] - highest)
    bool known = true;
    Buffer memory;
    Packed<double> forward, backward;  ///< the powers, and the same from column to row

    template <class T>
    Model(const CrfParameters<T>& from, int64_t C_, const Kernels<double>& kernels)
        : C(C_),
          transitions(from.transitions, from.transitions + C * C),
          reversed(size_t(C * C)),
          start(from.start, from.start + C),
          end(from.end, from.end + C),
          powers(size_t(C * C)),
          reversed_powers(size_t(C * C)),
          zeros(size_t(round_up(C, kernels.lanes))) {
        for (const auto* some : {&transitions, &start, &end})
            for (const double x : *some)
                known = known && x < std::numeric_limits<double>::infinity();
        highest = *std::max_element(transitions.begin(), transitions.end());
        if (!(highest > kImpossible)) highest = 0;
        for (int64_t i = 0; i < C; ++i)
            for (int64_t j = 0; j < C; ++j) {
                const size_t at = size_t(i * C + j), turned = size_t(j * C + i);
                reversed[turned] = transitions[at];
                reversed_powers[turned] = powers[at] = std::exp(transitions[at] - highest);
            }
        memory = pack_into_buffer(kernels, Precision::own, 1, [&](Packing<double>& packing) {
            const auto same = [](int64_t k) { return k; };
            forward = packing.in_rows(C, C, powers.data(), same);
            backward = packing.in_rows(C, C, reversed_powers.data(), same);
        });
    }
};

/// log(sum_i exp(x[i] + y[i]))
double log_sum(const double* x, const double* y, int64_t n) noexcept {
    double highest = kImpossible, sum = 0;
    for (int64_t i = 0; i < n; ++i) highest = std::max(highest, x[i] + y[i]);
    if (highest == kImpossible) return highest;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] + y[i] - highest);
    return highest + std::log(sum);
}

/// What is kept of every step, each (steps, C): the sums over all labels before it, itself
/// included (alphas), and after it (betas), as logarithms. Of each step and the next one, label i
/// is followed by j with a probability of left[i] powers[i][j] right[j]; left begins as the
/// exponentials of alphas by their sum, and `sums` are those of powers[i][j] right[j]. Where these
/// are too small for that, left and right are 0 and `weights` has the probability of i, by factor,
/// for the same from `later`, the logarithms of right.
struct Kept {
    double *alphas, *betas, *left, *sums, *later, *weights;
    Panels<double> right;
    bool* apart;  ///< (steps) whether `weights` counts

    static Kept take(Arena& arena, int64_t steps, int64_t C) {
        const int64_t n = size_product(steps, C), width = Panels<double>::kWidth;
        Kept kept{};
        for (double** array :
             {&kept.alphas, &kept.betas, &kept.left, &kept.sums, &kept.later, &kept.weights})
            *array = arena.take<double>(n);
        const int64_t padded = size_product(steps, round_up(C, width));
        kept.right = {arena.take<double>(padded), width, steps};
        kept.apart = arena.take<bool>(steps);
        return kept;
    }
    /// Lets steps [first, last) count for nothing in the gradient of the transitions.
    void leave_out(int64_t first, int64_t last, int64_t C, const double* zeros) const {
        for (int64_t m = first; m < last; ++m) {
            std::fill_n(left + m * C, C, 0);
            copy_to_panels(right, m, zeros, C);
            apart[m] = false;
        }
    }
};

/// One row of the loss.
template <class T>
class Row {
public:
    Row(const Kernels<double>& kernels, const KernelTable& table, const Model& model,
        const CrfShape& shape, const Steps& steps, const Kept& kept, int64_t row, const T* scores)
        : kernels_(kernels),
          log_(table.log),
          model_(model),
          C_(model.C),
          n_(steps.first[size_t(row) + 1] - steps.first[size_t(row)]),
          step_(steps.step.data() + steps.first[size_t(row)]),
          scores_(scores + row * shape.row_stride),
          stride_(shape.step_stride),
          first_(steps.first[size_t(row)]),
          kept_(kept) {}

    /// Returns the loss. `labels` are those of the row.
    double forward(const int64_t* labels, double* room) noexcept {
        if (n_ == 0) return 0;
        bool known = model_.known;
        for (int64_t k = 0; k < n_; ++k)
            for (int64_t c = 0; c < C_; ++c) known &= x(k)[c] < std::numeric_limits<T>::infinity();
        if (!known) return std::nan("");
        for (int64_t c = 0; c < C_; ++c) alpha(0)[c] = model_.start[size_t(c)] + double(x(0)[c]);
        for (int64_t k = 1; k < n_; ++k) {
            sum_over(alpha(k - 1), model_.forward, model_.reversed, at(kept_.left, k - 1), room,
                     alpha(k));
            for (int64_t c = 0; c < C_; ++c) alpha(k)[c] += double(x(k)[c]);
        }
        const double all = log_sum(alpha(n_ - 1), model_.end.data(), C_);
        const double score = score_of(labels);
        return score == kImpossible ? -kImpossible : all - score;
    }

    /// Writes the gradient of the scores and what that of the parameters is made of, for a loss
    /// that is finite.
    void backward(const int64_t* labels, double factor, double* room, T* dscores) noexcept {
        std::copy(model_.end.begin(), model_.end.end(), beta(n_ - 1));
        for (int64_t k = n_ - 2; k >= 0; --k) {
            double* const later = at(kept_.later, k);
            for (int64_t c = 0; c < C_; ++c) later[c] = double(x(k + 1)[c]) + beta(k + 1)[c];
            sum_over(later, model_.backward, model_.transitions, room, at(kept_.sums, k), beta(k));
            copy_to_panels(kept_.right, first_ + k, room, C_);
        }
        for (int64_t k = 0; k < n_; ++k) {
            double* const p = alpha(k);  // from here on the probability of each label, by factor
            if (k + 1 == n_ || !take_shares(k, factor, p)) {
                for (int64_t c = 0; c < C_; ++c) room[c] = alpha(k)[c] + beta(k)[c];
                kernels_.softmax(room, p, C_, factor);
                kept_.leave_out(first_ + k, first_ + k + 1, C_, model_.zeros.data());
                kept_.apart[first_ + k] = k + 1 < n_;
                std::copy_n(p, C_, at(kept_.weights, k));
            }
            p[labels[k]] -= factor;
            T* const dx = dscores + step_[k] * stride_;
            for (int64_t c = 0; c < C_; ++c) dx[c] = T(p[c]);
        }
    }

private:
    const T* x(int64_t k) const { return scores_ + step_[k] * stride_; }
    double* at(double* array, int64_t k) const { return array + (first_ + k) * C_; }
    double* alpha(int64_t k) const { return at(kept_.alphas, k); }
    double* beta(int64_t k) const { return at(kept_.betas, k); }

    /// p becomes the probability of each label of a step that has a next one, by factor, and `left`
    /// what it is there for. Returns whether that was exact; if not, all is as it was.
    bool take_shares(int64_t k, double factor, double* p) const noexcept {
        double* const left = at(kept_.left, k);
        const double* const sums = at(kept_.sums, k);
        double all = 0;
        for (int64_t c = 0; c < C_; ++c) all += left[c] * sums[c];
        if (!(all >= kSafe)) return false;
        const double scale = factor / all;
        for (int64_t c = 0; c < C_; ++c) {
            left[c] *= scale;
            p[c] = left[c] * sums[c];
        }
        kept_.apart[first_ + k] = false;
        return true;
    }

    /// out[j] = log(sum_i exp(in[i] + matrix[i][j])), where `powers` has the exponentials of the
    /// matrix and `columns` its columns. exp(in[i]), by their sum, is left in `powers_in`, and
    /// their products in `sums`.
    void sum_over(const double* in, const Packed<double>& powers,
                  const std::vector<double>& columns, double* powers_in, double* sums,
                  double* out) const noexcept {
        const SoftmaxSums<double> scale = kernels_.softmax(in, powers_in, C_, 1);
        if (!(scale.max > kImpossible)) {
            std::fill_n(out, C_, kImpossible);
            std::fill_n(sums, C_, 0);
            std::fill_n(powers_in, C_, 0);
            return;
        }
        const ProductRow<double> product{powers_in, model_.zeros.data(), sums};
        kernels_.product(powers, C_, &product, 1);
        bool safe = true;
        for (int64_t j = 0; j < C_; ++j) safe &= sums[j] >= kSafe;
        const double shift = scale.max + std::log(scale.sum) + model_.highest;
        if (safe) {
            log_(sums, out, C_);
            for (int64_t j = 0; j < C_; ++j) out[j] += shift;
            return;
        }
        for (int64_t j = 0; j < C_; ++j) {
            if (sums[j] >= kSafe) {
                log_(sums + j, out + j, 1);
                out[j] += shift;
            } else {
                out[j] = log_sum(in, columns.data() + j * C_, C_);
            }
        }
    }

    double score_of(const int64_t* labels) const noexcept {
        int64_t before = labels[0];
        double score = model_.start[size_t(before)] + double(x(0)[before]);
        for (int64_t k = 1; k < n_; ++k) {
            const int64_t label = labels[k];
            score += model_.transitions[size_t(before * C_ + label)] + double(x(k)[label]);
            before = label;
        }
        return score + model_.end[size_t(before)];
    }

    const Kernels<double>& kernels_;
    void (*const log_)(const double*, double*, int64_t);
    const Model& model_;
    const int64_t C_, n_;
    const int64_t* const step_;
    const T* const scores_;
    const int64_t stride_, first_;
    const Kept& kept_;
};

/// What the sums over all rows need of each.
struct Sums {
    const Model& model;
    const Kernels<double>& kernels;
    const Steps& steps;
    const Kept& kept;
    const CrfShape& shape;
    const int64_t* labels;  ///< of all steps
    const double *factor, *losses;

    bool counts(int64_t b) const {
        return steps.first[size_t(b)] < steps.first[size_t(b) + 1] && std::isfinite(losses[b]) &&
               factor[b] != 0;
    }
    /// The gradient of the transitions from labels [first, last), over all rows and steps in order.
    /// `products` and `exact` are (C, C), of which those labels' rows are used; `room` is (C).
    template <class T>
    void add_transitions(int64_t first, int64_t last, double* products, double* exact, double* room,
                         T* out) const noexcept {
        const int64_t C = model.C, begin = first * C, end = last * C;
        std::fill(products + begin, products + end, 0);
        std::fill(exact + begin, exact + end, 0);
        for (int64_t m = 0; m < steps.all(); m += kLinearPieceRows) {
            const Panels<double>& right = kept.right;
            const int64_t n = std::min(kLinearPieceRows, steps.all() - m);
            kernels.outer({{kept.left + m * C, C, n},
                           first,
                           {right.at(m, 0), right.width, right.rows},
                           products + begin,
                           n,
                           last - first,
                           C});
        }
        for (int64_t b = 0; b < shape.B; ++b) {
            if (!counts(b)) continue;
            for (int64_t m = steps.first[size_t(b)]; m + 1 < steps.first[size_t(b) + 1]; ++m) {
                const int64_t label = labels[m];
                if (label >= first && label < last) exact[label * C + labels[m + 1]] -= factor[b];
                for (int64_t i = first; kept.apart[m] && i < last; ++i)
                    add_apart(m, i, exact, room);
            }
        }
        for (int64_t i = begin; i < end; ++i)
            out[i] += T(products[i] * model.powers[size_t(i)] + exact[i]);
    }
    /// The same of a step whose exponentials are too small: the share of each label that may follow
    /// label i.
    void add_apart(int64_t m, int64_t i, double* exact, double* room) const noexcept {
        const int64_t C = model.C;
        const double weight = kept.weights[m * C + i];
        if (weight == 0) return;
        const double* const later = kept.later + m * C;
        for (int64_t j = 0; j < C; ++j) room[j] = later[j] + model.transitions[size_t(i * C + j)];
        kernels.softmax(room, room, C, weight);
        for (int64_t j = 0; j < C; ++j) exact[i * C + j] += room[j];
    }

    /// Those of the first or last labels: alphas are their gradients now.
    template <class T>
    void add_ends(bool last, T* out) const noexcept {
        for (int64_t c = 0; c < model.C; ++c) {
            double sum = 0;
            for (int64_t b = 0; b < shape.B; ++b) {
                if (!counts(b)) continue;
                const int64_t at = last ? steps.first[size_t(b) + 1] - 1 : steps.first[size_t(b)];
                sum += kept.alphas[at * model.C + c];
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
    const Kernels<double>& kernels = table.f64;
    const int64_t C = shape.C;
    const FlushDenormals own_mode;
    const Model model(parameters, C, kernels);
    Arena counting(nullptr);
    Kept::take(counting, steps.all(), C);
    const int team_size = team_size_for(shape, steps, num_threads);
    const int64_t room_size = round_up(C, kAlignment);
    counting.take<double>(size_product(room_size, team_size));
    counting.take<double>(size_product(2, C, C));
    const Buffer memory(counting.used());
    Arena arena(memory.data());
    const Kept kept = Kept::take(arena, steps.all(), C);
    double* const rooms = arena.take<double>(size_product(room_size, team_size));
    double* const products = arena.take<double>(size_product(2, C, C));
    const Sums sums{model, kernels, steps, kept, shape, labels.data(), factor, losses};
    const CallKind kind({'k', shape.B, C, sizeof(T)}, double(steps.all() + 1));
    run_fast_team(kind, team_size, [&](Team& team) noexcept {
        const FlushDenormals mode;
        double* const room = rooms + team.rank * room_size;
        for (int64_t b = team.rank; b < shape.B; b += team.size) {
            Row<T> row(kernels, table, model, shape, steps, kept, b, scores);
            const int64_t at = b * shape.row_stride;
            const int64_t* const own = labels.data() + steps.first[size_t(b)];
            losses[b] = row.forward(own, room);
            if (!dscores) continue;
            const bool unknown = std::isnan(losses[b]);
            T* const dx = dscores + at;
            for (int64_t t = 0; t < shape.T; ++t) std::fill_n(dx + t * shape.step_stride, C, T(0));
            for (int64_t m = steps.first[size_t(b)]; unknown && m < steps.first[size_t(b) + 1]; ++m)
                std::fill_n(dx + steps.step[size_t(m)] * shape.step_stride, C,
                            std::numeric_limits<T>::quiet_NaN());
            if (sums.counts(b))
                row.backward(own, factor[b], room, dx);
            else
                kept.leave_out(steps.first[size_t(b)], steps.first[size_t(b) + 1], C,
                               model.zeros.data());
        }
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
    const int64_t C = shape.C;
    const std::vector<double> transitions(parameters.transitions, parameters.transitions + C * C);
    // The best score of all that ends in each label, for each step.
    std::vector<double> best(size_t(size_product(steps.all(), C)));
    const int team_size = team_size_for(shape, steps, num_threads);
    const CallKind kind({'v', shape.B, C, sizeof(T)}, double(steps.all() + 1));
    run_fast_team(kind, team_size, [&](Team& team) noexcept {
        for (int64_t b = team.rank; b < shape.B; b += team.size) {
            const int64_t first = steps.first[size_t(b)], end = steps.first[size_t(b) + 1];
            for (int64_t m = first; m < end; ++m) {
                const T* x = scores + Steps::at(shape, steps.step[size_t(m)], b);
                double* const now = best.data() + m * C;
                for (int64_t j = 0; m == first && j < C; ++j) now[j] = double(parameters.start[j]);
                if (m > first) std::fill_n(now, C, kImpossible);
                for (int64_t i = 0; m > first && i < C; ++i) {
                    const double before = now[i - C];
                    const double* const row = transitions.data() + i * C;
                    for (int64_t j = 0; j < C; ++j)
                        now[j] = now[j] < before + row[j] ? before + row[j] : now[j];
                }
                for (int64_t j = 0; j < C; ++j) now[j] += double(x[j]);
            }
            int64_t next = -1;
            for (int64_t m = end - 1; m >= first; --m) {
                const auto score = [&](int64_t i) {
                    const double after =
                        next < 0 ? double(parameters.end[i]) : transitions[size_t(i * C + next)];
                    return best[size_t(m * C + i)] + after;
                };
                int64_t label = 0;
                for (int64_t i = 1; i < C; ++i)
                    if (score(i) > score(label)) label = i;
                paths[m] = next = label;
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
