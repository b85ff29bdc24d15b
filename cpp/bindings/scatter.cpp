// The gradient of an embedding.
#include "lstmcore/scatter.h"

#include "binding.h"
#include "lstmcore/machine.h"

namespace {

template <class T>
void add_rows_of(const py::array& table, const py::array& rows, const py::array& values) {
    require(table.ndim() == 2, "table: 2 axes expected");
    const int64_t size = table.shape(1), count = rows.size();
    T* to = numbers<T>(table, table.size(), "table");
    const int64_t* listed = numbers<const int64_t>(rows, count, "rows");
    const T* from = numbers<const T>(values, count * size, "values");
    bool known = true;
    for (int64_t i = 0; i < count; ++i)
        known = known && listed[i] >= 0 && listed[i] < table.shape(0);
    require(known, "rows: not of the table");
    const ReleaseGil release;
    add_rows(to, size, listed, from, count, get_num_threads());
}

}  // namespace

void bind_scatter(py::module_& m) {
    m.def("add_rows", [](const py::array& table, const py::array& rows, const py::array& values) {
        is_of<float>(table) ? add_rows_of<float>(table, rows, values)
                            : add_rows_of<double>(table, rows, values);
    });
}
