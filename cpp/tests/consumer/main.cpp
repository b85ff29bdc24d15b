#include <lstmcore/layer.h>

#include <cmath>
#include <cstdio>
#include <vector>

// y = tanh(w_ih x + w_hh h) of one unit over two steps.
int main() {
    lstmcore::LayerSpec spec;
    spec.cell.kind = lstmcore::CellKind::rnn;
    spec.input_size = spec.hidden_size = 1;
    spec.bias = false;
    spec.check();

    const double w_ih = 0.5, w_hh = -2;
    lstmcore::Parameters<const double> parameters;
    parameters.w_ih = &w_ih;
    parameters.w_hh = &w_hh;
    const auto weights = lstmcore::pack<double>(spec, {parameters}, false);

    const double x[] = {1, 2};
    double y[2], h;
    lstmcore::Sequences<double> in;
    in.steps = 2;
    in.batch = 1;
    in.x = {x, 1, 1};
    std::vector<double> workspace(
        static_cast<std::size_t>(lstmcore::forward_workspace_bytes(spec, in, false, 1)) / 8 + 1);
    lstmcore::forward<double>(*weights, in, {y, 1, 1}, &h, nullptr, nullptr, workspace.data(), 1);

    const double first = std::tanh(0.5), second = std::tanh(1 - 2 * first);
    std::printf("y = %g %g, expected %g %g\n", y[0], y[1], first, second);
    const bool right = std::abs(y[0] - first) < 1e-14 && std::abs(y[1] - second) < 1e-14;
    return right && h == y[1] ? 0 : 1;
}
