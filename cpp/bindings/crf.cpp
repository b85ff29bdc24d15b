// Linear-chain conditional random fields.
#include "lstmcore/crf.h"

#include "lstmcore/machine.h"
#include "scores.h"

namespace {

CrfShape shape_of(const py::array& scores, const std::optional<py::array>& lengths,
                  const std::optional<py::array>& mask, bool batch_first) {
    CrfShape shape = laid_out<CrfShape>(scores, lengths, batch_first, "scores");
    shape.mask = numbers_or_null<const bool>(mask, {scores.shape(0), scores.shape(1)}, "mask");
    return shape;
}

template <class T>
CrfParameters<T> parameters_of(const std::vector<py::array>& arrays, int64_t C) {
    require(arrays.size() == 3, "parameters: transitions, start and end expected");
    return {numbers<const T>(arrays[0], C * C, "transitions"),
            numbers<const T>(arrays[1], C, "start"), numbers<const T>(arrays[2], C, "end")};
}

template <class T>
py::array_t<double> crf_of(const py::array& scores, const CrfShape& shape,
                           const std::vector<py::array>& parameters, const py::array& target,
                           const py::array& factor, const std::optional<py::array>& dscores,
                           const std::vector<py::array>& gradients) {
    const int64_t C = shape.C;
    const T* x = numbers<const T>(scores, scores.size(), "scores");
    const CrfParameters<T> p = parameters_of<T>(parameters, C);
    const auto* k = numbers<const int64_t>(target, shape.T * shape.B, "target");
    const double* f = numbers<const double>(factor, shape.B, "factor");
    T* dx = dscores ? numbers<T>(*dscores, scores.size(), "dscores") : nullptr;
    CrfGradients<T> dp{};
    if (!gradients.empty()) {
        require(gradients.size() == 3, "gradients: of transitions, start and end expected");
        dp = {numbers<T>(gradients[0], C * C, "dtransitions"),
              numbers<T>(gradients[1], C, "dstart"), numbers<T>(gradients[2], C, "dend")};
    }
    py::array_t<double> losses(shape.B);
    double* out = losses.mutable_data();
    {
        const ReleaseGil release;
        crf(x, shape, p, k, f, out, dx, gradients.empty() ? nullptr : &dp, get_num_threads());
    }
    return losses;
}

template <class T>
py::array_t<int64_t> paths_of(const py::array& scores, const CrfShape& shape,
                              const std::vector<py::array>& parameters) {
    const T* x = numbers<const T>(scores, scores.size(), "scores");
    const CrfParameters<T> p = parameters_of<T>(parameters, shape.C);
    std::vector<int64_t> paths(size_t(shape.T * shape.B));
    {
        const ReleaseGil release;
        paths.resize(size_t(crf_decode(x, shape, p, paths.data(), get_num_threads())));
    }
    return py::array_t<int64_t>(int64_t(paths.size()), paths.data());
}

}  // namespace

void bind_crf(py::module_& m) {
    m.def("crf",
          [](const py::array& scores, const std::vector<py::array>& parameters,
             const py::array& target, const std::optional<py::array>& lengths,
             const std::optional<py::array>& mask, bool batch_first, const py::array& factor,
             const std::optional<py::array>& dscores, const std::vector<py::array>& gradients) {
              const CrfShape shape = shape_of(scores, lengths, mask, batch_first);
              const auto run = is_of<float>(scores) ? crf_of<float> : crf_of<double>;
              return run(scores, shape, parameters, target, factor, dscores, gradients);
          });
    m.def("crf_decode", [](const py::array& scores, const std::vector<py::array>& parameters,
                           const std::optional<py::array>& lengths,
                           const std::optional<py::array>& mask, bool batch_first) {
        const CrfShape shape = shape_of(scores, lengths, mask, batch_first);
        const auto run = is_of<float>(scores) ? paths_of<float> : paths_of<double>;
        return run(scores, shape, parameters);
    });
}
