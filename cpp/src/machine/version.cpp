#include "lstmcore/version.h"

namespace lstmcore {

int version() noexcept {
    return LSTMCORE_VERSION;
}

}  // namespace lstmcore
