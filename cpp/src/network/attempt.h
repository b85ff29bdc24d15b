// What throws, for callers that cannot.
#pragma once

#include <exception>
#include <new>
#include <utility>

#include "lstmcore/result.h"

namespace lstmcore {

/// What f() returns, or what it threw.
template <class F>
auto attempt(F f) noexcept -> Result<decltype(f())> {
    Result<decltype(f())> result;
    try {
        result.value.emplace(f());
        return result;
    } catch (const std::bad_alloc&) {
        result.error = "out of memory";  // short enough not to need any
    } catch (const std::exception& error) {
        try {
            result.error = error.what();
        } catch (const std::bad_alloc&) {
            result.error = "out of memory";
        }
    }
    return result;
}

}  // namespace lstmcore
