#pragma once

// Compiled into each object that uses it; the linker keeps one of them, of whatever ISA level.
__attribute__((noinline)) inline int shared_with_others(int x) {
    return x * x + 1;
}
