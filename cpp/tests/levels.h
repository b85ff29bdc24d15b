// Running a check at every ISA level that the machine has.
#pragma once

#include <string>

#include "machine/isa.h"

/// Calls f(name) at each level, and puts the level back.
template <class F>
void for_each_isa(F f) {
    const std::string before = lstmcore::isa();
    for (const std::string& name : lstmcore::available_isas()) {
        lstmcore::set_isa(name);
        f(name);
    }
    lstmcore::set_isa(before);
}
