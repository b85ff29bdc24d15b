// Long calls that end when the handler of a signal raises, as that of Ctrl-C does.
#pragma once

#include "binding.h"
#include "lstmcore/stop.h"

/// Whether a call of so many multiply-adds is to end on Ctrl-C: it takes long, and runs on the main
/// thread, where alone Python runs the handlers of signals.
inline bool is_interruptible(double multiply_adds) {
    constexpr double kLong = 1e9;  // some hundredths of a second
    if (multiply_adds < kLong) return false;
    const py::module_ threading = py::module_::import("threading");
    return threading.attr("main_thread")().is(threading.attr("current_thread")());
}

/// Runs a call that may be stopped, with the GIL released. Where the handler of a signal has raised
/// an exception, that is thrown, and the call's results are of no use.
template <class F>
void run_without_gil(bool interruptible, F call) {
    try {
        ReleaseGil release;
        StopCheck stop;
        if (interruptible)
            stop = {[](void* gil) { return static_cast<ReleaseGil*>(gil)->run_signal_handlers(); },
                    &release};
        call(stop);
    } catch (const Stopped&) {
        throw py::error_already_set();
    }
}
