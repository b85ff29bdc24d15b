// Which version this is.
#pragma once

#include "lstmcore/api.h"

#define LSTMCORE_VERSION_MAJOR 0
#define LSTMCORE_VERSION_MINOR 1
#define LSTMCORE_VERSION_PATCH 0

/// For comparisons: 10203 is 1.2.3.
#define LSTMCORE_VERSION \
    (LSTMCORE_VERSION_MAJOR * 10000 + LSTMCORE_VERSION_MINOR * 100 + LSTMCORE_VERSION_PATCH)

#define LSTMCORE_VERSION_STRING "0.1.0"

namespace LSTMCORE_API lstmcore {

/// The LSTMCORE_VERSION of the library that is linked; the macro is that of the headers.
int version() noexcept;

}  // namespace LSTMCORE_API lstmcore
