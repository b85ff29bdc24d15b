// The Python module lstmcore._core: each file of this folder adds its part. They validate,
// allocate, release the GIL and call the public C++ API. The friendly messages are the Python
// layers'; what is checked here keeps a wrong caller from crashing.
#include "binding.h"

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    m.doc() = "Recurrent kernels of lstmcore; use the layers of the lstmcore package.";
    bind_machine(m);
    bind_spec(m);
    bind_weights(m);
    bind_layer(m);
    bind_linear(m);
    bind_row_functions(m);
    bind_program(m);
    bind_stream(m);
    bind_stream_pool(m);
    bind_attention(m);
    bind_losses(m);
    bind_ctc(m);
    bind_crf(m);
    bind_optim(m);
    bind_scatter(m);
}
