// The updates of the optimizers: lists of arrays in, one call for all of them.
#include "lstmcore/optim.h"

#include <array>
#include <cmath>
#include <vector>

#include "binding.h"
#include "lstmcore/machine.h"

namespace {

/// All of an array, or what `listed` (ascending int64, or None) names of its first axis.
Rows rows_of(const py::array& array, const py::handle& listed) {
    Rows rows;
    rows.size = array.size();
    if (listed.is_none()) return rows;
    require(array.ndim() >= 1, "rows: of an array without axes");
    rows.size = array.shape(0) > 0 ? array.size() / array.shape(0) : 0;
    require(py::isinstance<py::array>(listed), "rows: an array expected");
    rows.count = py::reinterpret_borrow<py::array>(listed).size();
    rows.listed = numbers<const int64_t>(listed, rows.count, "rows");
    int64_t last = -1;
    for (int64_t i = 0; i < rows.count; ++i) {
        require(rows.listed[i] > last && rows.listed[i] < array.shape(0),
                "rows: expected ascending rows of the array");
        last = rows.listed[i];
    }
    return rows;
}

/// The float32 and the float64 ones of a list of arrays, as what Make makes of them.
template <template <class> class Item>
struct Items {
    std::vector<Item<float>> f32;
    std::vector<Item<double>> f64;

    /// make(T(), array, i) for each array of the list.
    template <class Make>
    Items(const py::list& arrays, Make make) {
        for (size_t i = 0; i < arrays.size(); ++i) {
            require(py::isinstance<py::array>(arrays[i]), "an array expected");
            const auto array = py::reinterpret_borrow<py::array>(arrays[i]);
            if (is_of<float>(array))
                f32.push_back(make(float(), array, i));
            else
                f64.push_back(make(double(), array, i));
        }
    }
    /// f(first, count) of each kind that there is.
    template <class F>
    void each(F f) const {
        if (!f32.empty()) f(f32.data(), int64_t(f32.size()));
        if (!f64.empty()) f(f64.data(), int64_t(f64.size()));
    }
};

/// `states` is a list, as long as `data`, of each thing that the rule remembers, or None.
template <class Rule>
void take_step(const Rule& rule, int64_t t, const py::list& data, const py::list& grads,
               const py::list& rows, const py::list& states) {
    require(t >= 1, "step: counted from 1");
    require(grads.size() == data.size() && rows.size() == data.size() && states.size() <= 3,
            "lists of different lengths");
    for (const py::handle& list : states)
        require(list.is_none() || (py::isinstance<py::list>(list) && py::len(list) == data.size()),
                "states: lists of different lengths");
    const Items<Trained> items(data, [&](auto zero, const py::array& array, size_t i) {
        using T = decltype(zero);
        Trained<T> p;
        p.data = numbers<T>(array, array.size(), "data");
        p.grad = numbers<const T>(grads[i], array.size(), "grad");
        p.rows = rows_of(array, rows[i]);
        for (size_t s = 0; s < states.size(); ++s)
            if (!states[s].is_none())
                p.state[s] = numbers<T>(py::reinterpret_borrow<py::list>(states[s])[i],
                                        array.size(), "state");
        return p;
    });
    const ReleaseGil release;
    const int threads = get_num_threads();
    items.each([&](const auto* parameters, int64_t count) {
        update(rule, t, parameters, count, threads);
    });
}

Items<Gradient> gradients(const py::list& grads, const py::list& rows) {
    require(rows.size() == grads.size(), "lists of different lengths");
    return {grads, [&](auto zero, const py::array& array, size_t i) {
                using T = decltype(zero);
                return Gradient<T>{numbers<T>(array, array.size(), "grad"),
                                   rows_of(array, rows[i])};
            }};
}

double norm_of(const py::list& grads, const py::list& rows) {
    const Items<Gradient> items = gradients(grads, rows);
    const ReleaseGil release;
    const int threads = get_num_threads();
    double whole = 0;
    items.each(
        [&](const auto* g, int64_t count) { whole = std::hypot(whole, norm(g, count, threads)); });
    return whole;
}

void scale_by(double factor, const py::list& grads, const py::list& rows) {
    const Items<Gradient> items = gradients(grads, rows);
    const ReleaseGil release;
    const int threads = get_num_threads();
    items.each([&](const auto* g, int64_t count) { scale(factor, g, count, threads); });
}

}  // namespace

void bind_optim(py::module_& m) {
    const auto t = py::arg("t"), data = py::arg("data"), grads = py::arg("grads");
    const auto rows = py::arg("rows"), states = py::arg("states"), lr = py::arg("lr");
    const auto momentum = py::arg("momentum"), weight_decay = py::arg("weight_decay");
    const auto eps = py::arg("eps");
    m.def(
        "sgd",
        [](int64_t t, const py::list& data, const py::list& grads, const py::list& rows,
           const py::list& states, double lr, double momentum, double dampening,
           double weight_decay, bool nesterov) {
            require(states.size() == 1 && states[0].is_none() == (momentum == 0),
                    "states: not those of the rule");
            take_step(Sgd{lr, momentum, dampening, weight_decay, nesterov}, t, data, grads, rows,
                      states);
        },
        t, data, grads, rows, states, lr, momentum, py::arg("dampening"), weight_decay,
        py::arg("nesterov"));
    m.def(
        "rmsprop",
        [](int64_t t, const py::list& data, const py::list& grads, const py::list& rows,
           const py::list& states, double lr, double alpha, double eps, double momentum,
           double weight_decay, bool centered) {
            require(states.size() == 3 && !states[0].is_none() &&
                        states[1].is_none() == (momentum == 0) && states[2].is_none() == !centered,
                    "states: not those of the rule");
            take_step(RmsProp{lr, alpha, eps, momentum, weight_decay, centered}, t, data, grads,
                      rows, states);
        },
        t, data, grads, rows, states, lr, py::arg("alpha"), eps, momentum, weight_decay,
        py::arg("centered"));
    const auto adam = [](bool decoupled) {
        return [decoupled](int64_t t, const py::list& data, const py::list& grads,
                           const py::list& rows, const py::list& states, double lr,
                           const std::array<double, 2>& betas, double eps, double weight_decay,
                           bool amsgrad) {
            require(states.size() == 3 && !states[0].is_none() && !states[1].is_none() &&
                        states[2].is_none() == !amsgrad,
                    "states: not those of the rule");
            take_step(Adam{lr, betas[0], betas[1], eps, weight_decay, decoupled, amsgrad}, t, data,
                      grads, rows, states);
        };
    };
    m.def("adam", adam(false), t, data, grads, rows, states, lr, py::arg("betas"), eps,
          weight_decay, py::arg("amsgrad"));
    m.def("adamw", adam(true), t, data, grads, rows, states, lr, py::arg("betas"), eps,
          weight_decay, py::arg("amsgrad"));
    m.def("gradient_norm", &norm_of, py::arg("grads"), py::arg("rows"));
    m.def("scale_gradients", &scale_by, py::arg("factor"), py::arg("grads"), py::arg("rows"));
}
