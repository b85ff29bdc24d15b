#include <lstmcore/layer.h>
#include <lstmcore/machine.h>
#include <lstmcore/network.h>
#include <lstmcore/stream.h>
#include <lstmcore/version.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#if LSTMCORE_VERSION < 100 || LSTMCORE_VERSION_MAJOR > 0
#error "a version that this program was not written for"
#endif

namespace {

/// y = tanh(w_ih x + w_hh h) of one unit over two steps.
bool layers_work() {
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
    const auto bytes = lstmcore::forward_workspace_bytes(spec, in, false, 1);
    std::vector<double> workspace(static_cast<std::size_t>(bytes) / 8 + 1);
    lstmcore::forward<double>(*weights, in, {y, 1, 1}, &h, nullptr, nullptr, workspace.data(), 1);

    lstmcore::Stream<double> stream(weights);
    double last = 0;
    for (const double& step : x) stream.step(&step, &last);

    const double first = std::tanh(0.5), second = std::tanh(1 - 2 * first);
    std::printf("y = %g %g, expected %g %g\n", y[0], y[1], first, second);
    return std::abs(y[0] - first) < 1e-14 && std::abs(y[1] - second) < 1e-14 &&
           std::abs(h - y[1]) < 1e-300 && std::abs(last - h) < 1e-300;
}

/// What goes wrong is said, although this program is built without exceptions.
bool errors_come_back() {
    const auto network = lstmcore::try_load_network<float>("/no/such/file");
    std::printf("%s\n", network.error.c_str());
    return !network && network.error == "/no/such/file: cannot be opened";
}

}  // namespace

int main() {
    std::printf("lstmcore %s, %s, %d threads\n", LSTMCORE_VERSION_STRING, lstmcore::isa().c_str(),
                lstmcore::max_threads());
    const bool same_version = lstmcore::version() == LSTMCORE_VERSION;
    return same_version && layers_work() && errors_come_back() ? 0 : 1;
}
