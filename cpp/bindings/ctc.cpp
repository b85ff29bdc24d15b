// CTC: the loss, and the search for the likeliest labels.
#include "lstmcore/ctc.h"

#include "lstmcore/machine.h"
#include "scores.h"

namespace {

CtcScores scores_of(const py::array& logits, const std::optional<py::array>& lengths, int64_t blank,
                    bool batch_first) {
    CtcScores scores = laid_out<CtcScores>(logits, lengths, batch_first, "logits");
    scores.blank = blank;
    return scores;
}

template <class T>
py::array_t<double> ctc_of(const py::array& logits, const CtcScores& scores,
                           const py::array& labels, const py::array& target_lengths,
                           const std::optional<py::array>& factor,
                           const std::optional<py::array>& dlogits) {
    const T* x = numbers<const T>(logits, logits.size(), "logits");
    const auto* k = numbers<const int64_t>(labels, labels.size(), "labels");
    const auto* n = numbers<const int64_t>(target_lengths, scores.B, "target_lengths");
    int64_t total = 0;
    for (int64_t b = 0; b < scores.B; ++b) {
        require(n[b] >= 0 && n[b] <= labels.size() - total, "target_lengths: more than labels");
        total += n[b];
    }
    const double* f = numbers_or_null<const double>(factor, {scores.B}, "factor");
    T* dx = dlogits ? numbers<T>(*dlogits, logits.size(), "dlogits") : nullptr;
    require((f != nullptr) == (dx != nullptr), "factor, dlogits: both or none expected");
    py::array_t<double> losses(scores.B);
    double* out = losses.mutable_data();
    {
        const ReleaseGil release;
        ctc(x, scores, k, n, f, out, dx, get_num_threads());
    }
    return losses;
}

template <class T>
py::list beams_of(const py::array& logits, const CtcScores& scores, int64_t beam_size) {
    const T* x = numbers<const T>(logits, logits.size(), "logits");
    std::vector<std::vector<CtcHypothesis>> found;
    {
        const ReleaseGil release;
        found = ctc_beam_search(x, scores, beam_size, get_num_threads());
    }
    py::list rows;
    for (const std::vector<CtcHypothesis>& row : found) {
        py::list beam;
        for (const CtcHypothesis& one : row) {
            py::array_t<int64_t> ids(int64_t(one.labels.size()));
            std::copy(one.labels.begin(), one.labels.end(), ids.mutable_data());
            beam.append(py::make_tuple(ids, one.score));
        }
        rows.append(beam);
    }
    return rows;
}

}  // namespace

void bind_ctc(py::module_& m) {
    m.def("ctc",
          [](const py::array& logits, const py::array& labels, const py::array& target_lengths,
             const std::optional<py::array>& lengths, int64_t blank, bool batch_first,
             const std::optional<py::array>& factor, const std::optional<py::array>& dlogits) {
              const CtcScores scores = scores_of(logits, lengths, blank, batch_first);
              const auto run = is_of<float>(logits) ? ctc_of<float> : ctc_of<double>;
              return run(logits, scores, labels, target_lengths, factor, dlogits);
          });
    m.def("ctc_beam_search", [](const py::array& logits, const std::optional<py::array>& lengths,
                                int64_t blank, bool batch_first, int64_t beam_size) {
        const CtcScores scores = scores_of(logits, lengths, blank, batch_first);
        const auto run = is_of<float>(logits) ? beams_of<float> : beams_of<double>;
        return run(logits, scores, beam_size);
    });
}
