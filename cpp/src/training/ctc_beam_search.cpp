#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <unordered_map>

#include "machine/float_mode.h"
#include "machine/isa.h"
#include "machine/threads.h"
#include "training/ctc_scores.h"
#include "training/log_space.h"

namespace lstmcore {
namespace {

constexpr int64_t kNone = -1;

double log_add(double a, double b) {
    const double high = std::max(a, b);
    return high == kImpossible ? high : high + std::log1p(std::exp(std::min(a, b) - high));
}

/// Beginnings of what a row says, as a tree: each is another one and a label behind it.
class Prefixes {
public:
    Prefixes() { nodes_.push_back({kNone, kNone}); }  // the empty one

    int64_t find(int64_t parent, int64_t label) const {
        const auto found = children_.find(key(parent, label));
        return found == children_.end() ? kNone : found->second;
    }
    int64_t get(int64_t parent, int64_t label) {
        const auto [at, is_new] = children_.try_emplace(key(parent, label), size());
        if (is_new) nodes_.push_back({parent, label});
        return at->second;
    }
    int64_t size() const { return int64_t(nodes_.size()); }
    int64_t last(int64_t node) const { return nodes_[size_t(node)].label; }

    std::vector<int64_t> labels(int64_t node) const {
        std::vector<int64_t> found;
        for (; node != 0; node = nodes_[size_t(node)].parent) found.push_back(last(node));
        std::reverse(found.begin(), found.end());
        return found;
    }

private:
    struct Node {
        int64_t parent, label;
    };
    // Both are below 2^31: a row has no more steps, and keeps no more beginnings in memory.
    static uint64_t key(int64_t parent, int64_t label) {
        return uint64_t(parent) << 32 | uint64_t(label);
    }

    std::vector<Node> nodes_;
    std::unordered_map<uint64_t, int64_t> children_;
};

/// A beginning after some steps, and how probable it is to end in a blank, or in its last label.
struct Candidate {
    int64_t node;  ///< or, until it is kept, its parent and its last label
    int64_t label;
    double blank, repeat;
    double total;
};

/// The search of one row.
class Search {
public:
    Search(int64_t beam_size, int64_t blank, int64_t classes)
        : beam_size_(size_t(beam_size)), blank_(blank), classes_(classes) {
        beam_.push_back({0, kNone, 0, kImpossible, 0});
    }

    /// One step, with the logarithms of the probabilities of all classes.
    void step(const double* log_p) {
        next_.clear();
        place_.resize(size_t(prefixes_.size()), kNone);
        for (const Candidate& one : beam_) {
            place_[size_t(one.node)] = int64_t(next_.size());
            const int64_t last = prefixes_.last(one.node);
            const double repeat = last == kNone ? kImpossible : one.repeat + log_p[last];
            next_.push_back({one.node, kNone, one.total + log_p[blank_], repeat, 0});
        }
        for (const Candidate& one : beam_) extend(one, log_p);
        for (const Candidate& one : beam_) place_[size_t(one.node)] = kNone;
        keep();
    }

    std::vector<CtcHypothesis> best() const {
        std::vector<CtcHypothesis> found;
        for (const Candidate& one : beam_) found.push_back({prefixes_.labels(one.node), one.total});
        return found;
    }

private:
    /// Adds each label to a beginning; where that is one of the beam already, to its probability.
    void extend(const Candidate& one, const double* log_p) {
        const int64_t last = prefixes_.last(one.node);
        for (int64_t c = 0; c < classes_; ++c) {
            if (c == blank_) continue;
            // The same label again needs a blank between.
            const double score = (c == last ? one.blank : one.total) + log_p[c];
            if (!(score > kImpossible)) continue;
            const int64_t child = prefixes_.find(one.node, c);
            const int64_t place = child == kNone ? kNone : place_[size_t(child)];
            if (place == kNone)
                next_.push_back({one.node, c, kImpossible, score, 0});
            else
                next_[size_t(place)].repeat = log_add(next_[size_t(place)].repeat, score);
        }
    }

    void keep() {
        std::vector<size_t> order;
        for (size_t i = 0; i < next_.size(); ++i) {
            next_[i].total = log_add(next_[i].blank, next_[i].repeat);
            if (next_[i].total > kImpossible) order.push_back(i);
        }
        const size_t count = std::min(order.size(), beam_size_);
        std::partial_sort(order.begin(), order.begin() + ptrdiff_t(count), order.end(),
                          [&](size_t i, size_t j) {
                              const double a = next_[i].total, b = next_[j].total;
                              return a != b ? a > b : i < j;
                          });
        beam_.clear();
        for (size_t i = 0; i < count; ++i) {
            Candidate one = next_[order[i]];
            if (one.label != kNone) one.node = prefixes_.get(one.node, one.label);
            one.label = kNone;
            beam_.push_back(one);
        }
    }

    const size_t beam_size_;
    const int64_t blank_, classes_;
    Prefixes prefixes_;
    std::vector<Candidate> beam_, next_;
    std::vector<int64_t> place_;  ///< of each beginning in next_, if it is in the beam
};

}  // namespace

template <class T>
std::vector<std::vector<CtcHypothesis>> ctc_beam_search(const T* logits, const CtcScores& scores,
                                                        int64_t beam_size, int num_threads) {
    check_scores(scores);
    check_size(beam_size, "beam_size");
    const Kernels<double>& kernels = kernel_table().f64;
    std::vector<std::vector<CtcHypothesis>> found(size_t(scores.B));
    const auto search_row = [&](int64_t b) {
        Search search(beam_size, scores.blank, scores.C);
        std::vector<double> room(size_t(scores.C)), log_p(size_t(scores.C));
        const int64_t steps = scores.lengths ? scores.lengths[b] : scores.T;
        for (int64_t t = 0; t < steps; ++t) {
            const T* const at = logits + t * scores.step_stride + b * scores.row_stride;
            const double* const x = as_double(at, scores.C, room.data());
            const double sum = log_sum(kernels, x, scores.C);
            for (int64_t c = 0; c < scores.C; ++c) log_p[size_t(c)] = x[c] - sum;
            search.step(log_p.data());
        }
        found[size_t(b)] = search.best();
    };
    const int team_size = int(std::min<int64_t>(num_threads, scores.B));
    std::atomic<bool> failed{false};
    run_team(team_size, [&](Team& team) noexcept {
        const FlushDenormals mode;
        try {
            for (int64_t b = team.rank; b < scores.B; b += team.size) search_row(b);
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    });
    if (failed) throw std::bad_alloc();
    return found;
}

#define LSTMCORE_INSTANTIATE(T)                                                                  \
    template std::vector<std::vector<CtcHypothesis>> ctc_beam_search(const T*, const CtcScores&, \
                                                                     int64_t, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
