// The machine, and memory: ISA levels, threads, how this was built, arrays that are not
// initialised.
#include "lstmcore/machine.h"

#include <map>
#include <string>

#include "binding.h"
#include "lstmcore/version.h"

namespace {

std::map<std::string, std::string> build_info() {
    return {{"version", LSTMCORE_VERSION_STRING},
            {"compiler", LSTMCORE_COMPILER},
            {"eigen", LSTMCORE_EIGEN_VERSION},
            {"openmp", LSTMCORE_OPENMP_VERSION},
            {"isas", LSTMCORE_COMPILED_ISAS}};
}

py::array empty(const std::vector<int64_t>& shape, const py::dtype& dtype) {
    if (dtype.equal(py::dtype::of<float>())) return empty_array<float>(shape);
    require(dtype.equal(py::dtype::of<double>()), "dtype: float32 or float64 expected");
    return empty_array<double>(shape);
}

}  // namespace

void bind_machine(py::module_& m) {
    isa();              // so that a wrong LSTMCORE_ISA or LSTMCORE_NUM_THREADS
    get_num_threads();  // is reported by the import
    m.def("isa", &isa);
    m.def("available_isas", &available_isas);
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("isa_version", &isa_version);
    m.def("bfloat16_instructions", &bfloat16_instructions);
    m.def("bfloat16x3_instructions", &bfloat16x3_instructions);
    m.def("int8_instructions", &int8_instructions);
    m.def("set_num_threads", &set_num_threads, py::arg("n"), py::arg("exactly") = false);
    m.def("get_num_threads", &get_num_threads);
    m.def("max_threads", &max_threads);
    m.def("build_info", &build_info);
    m.def("empty", &empty);
}
