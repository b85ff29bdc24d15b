// The gradient of a table that rows were looked up in.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// table[rows[i]] += values[i] for i = 0, 1, ... < count, in this order whatever num_threads is.
/// table (.., size), rows (count), each a row of the table, values (count, size). T is float or
/// double.
template <class T>
LSTMCORE_API void add_rows(T* table, int64_t size, const int64_t* rows, const T* values,
                           int64_t count, int num_threads);

}  // namespace LSTMCORE_API lstmcore
