// The losses that are computed in C++.
#include "lstmcore/losses.h"

#include <optional>

#include "binding.h"
#include "lstmcore/machine.h"

namespace {

template <class T>
py::array_t<double> cross_entropy_of(const py::array& pred, const py::array& target,
                                     const py::array& factor, const py::array& hit,
                                     const std::optional<py::array>& dpred) {
    require(pred.ndim() == 2 && pred.shape(1) >= 1, "pred: (rows, classes) expected");
    const int64_t rows = pred.shape(0), classes = pred.shape(1);
    const T* x = numbers<const T>(pred, rows * classes, "pred");
    const int64_t* k = numbers<const int64_t>(target, rows, "target");
    const T* f = numbers<const T>(factor, rows, "factor");
    const T* h = numbers<const T>(hit, rows, "hit");
    T* dx = dpred ? numbers<T>(*dpred, rows * classes, "dpred") : nullptr;
    bool known = true;
    for (int64_t i = 0; i < rows; ++i)
        known = known && (f[i] == 0 || (k[i] >= 0 && k[i] < classes));
    require(known, "target: not a class");
    py::array_t<double> losses(rows);
    double* out = losses.mutable_data();
    {
        const ReleaseGil release;
        cross_entropy(x, k, f, h, rows, classes, out, dx, get_num_threads());
    }
    return losses;
}

}  // namespace

void bind_losses(py::module_& m) {
    m.def(
        "cross_entropy", [](const py::array& pred, const py::array& target, const py::array& factor,
                            const py::array& hit, const std::optional<py::array>& dpred) {
            return is_of<float>(pred) ? cross_entropy_of<float>(pred, target, factor, hit, dpred)
                                      : cross_entropy_of<double>(pred, target, factor, hit, dpred);
        });
}
