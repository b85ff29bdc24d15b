// A team of threads that shares one parallel region; lstmcore/machine.h says how many.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <type_traits>

#include "lstmcore/machine.h"

namespace lstmcore {

/// The CPU quota in whole cores (rounded up) of this process's cgroup and its ancestors, or 0 if
/// there is none. `root` is put before every path that is read.
int cgroup_cpu_quota(const std::string& root = "");

/// Whether every call is to have the number of threads that was set for tests.
bool threads_are_exact() noexcept;

namespace detail {

// Counts arrivals; the last one opens the next generation. Its words sit on lines of their own.
class Barrier {
public:
    void wait(int size) noexcept;

private:
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> generation_{0};
    std::atomic<int> asleep_{0};
};

}  // namespace detail

/// One thread's place in a team. `rank` is 0 to size - 1.
class Team {
public:
    Team(int rank_, int size_, detail::Barrier& barrier) noexcept
        : rank(rank_), size(size_), barrier_(barrier) {}
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    const int rank;
    const int size;

    /// Returns when every member has called it; what they wrote before is then visible to all.
    /// Spins for some microseconds, then sleeps. Every member must call it equally often.
    void barrier() noexcept {
        if (size > 1) barrier_.wait(size);
    }

private:
    detail::Barrier& barrier_;
};

namespace detail {
void run_team(int size, void (*body)(void*, Team&), void* context) noexcept;
}

/// Calls body(Team&) once on each of `size` threads, in one parallel region, and returns when all
/// have. The team may be smaller than asked: body must go by team.size. With size <= 1, in the
/// child of a fork and in a serial build, it is a plain call. body must be noexcept: an exception
/// cannot leave a parallel region.
template <class F>
void run_team(int size, F&& body) noexcept {
    using Body = std::remove_reference_t<F>;
    static_assert(std::is_nothrow_invocable_v<Body&, Team&>, "body must be noexcept");
    detail::run_team(
        size, [](void* context, Team& team) { (*static_cast<Body*>(context))(team); },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace lstmcore
