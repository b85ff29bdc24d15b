#include "machine/threads.h"

#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "machine/caches.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace lstmcore {

namespace {

std::atomic<int> requested{0};  // 0: nobody has asked yet
std::atomic<bool> exact{false};

// An OpenMP pool does not survive a fork: a parallel region in the child would wait for ever.
std::atomic<bool> forked{false};
[[maybe_unused]] const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });

#if defined(_OPENMP)
// Of the whole process, not of the calling thread, which may have been pinned.
int affinity() {
    int count = 0;
#if defined(__linux__)
    for (int cpus = 1024; cpus <= (1 << 20) && count == 0; cpus *= 4) {
        cpu_set_t* set = CPU_ALLOC(cpus);
        if (!set) break;
        const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
        const bool ok = sched_getaffinity(getpid(), bytes, set) == 0;
        if (ok) count = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (!ok && errno != EINVAL) break;  // EINVAL: the machine has more than `cpus`
    }
#endif
    if (count == 0) count = static_cast<int>(std::thread::hardware_concurrency());
    // OMP_PROC_BIND pins the main thread; OpenMP alone remembers what it could use before.
    if (omp_get_proc_bind() != omp_proc_bind_false) count = std::max(count, omp_get_num_procs());
    return std::max(count, 1);
}
#endif

// The smallest quota / period from folder/path up to folder, in cores.
double smallest_quota(const std::string& folder, std::string path, bool version2) {
    double cores = std::numeric_limits<double>::infinity();
    if (path == "/") path.clear();
    for (;;) {
        const std::string here = folder + path;
        std::string quota;
        double period = 0;
        if (version2) {
            std::ifstream(here + "/cpu.max") >> quota >> period;
        } else {
            std::ifstream(here + "/cpu.cfs_quota_us") >> quota;
            std::ifstream(here + "/cpu.cfs_period_us") >> period;
        }
        const double microseconds = std::atof(quota.c_str());  // "max" and "-1": no limit
        if (microseconds > 0 && period > 0) cores = std::min(cores, microseconds / period);
        if (path.empty()) return cores;
        path.erase(path.rfind('/'));
    }
}

// The value of an environment variable that holds a positive number, 0 if it is not one.
int positive(const char* text) {
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < 1) return 0;
    return static_cast<int>(std::min(value, static_cast<long>(INT_MAX)));
}

int default_threads() {
    if (const char* text = std::getenv("LSTMCORE_NUM_THREADS"); text && *text) {
        if (const int n = positive(text)) return n;
        throw std::invalid_argument("LSTMCORE_NUM_THREADS must be a positive integer, got '" +
                                    std::string(text) + "'");
    }
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
        if (const int n = positive(text)) return n;
    }
    return INT_MAX;
}

// What the calling thread has been limited to by omp_set_num_threads since we were loaded, as
// threadpoolctl does; none if it has not been lowered.
int openmp_limit() {
#if defined(_OPENMP)
    static const int loaded = omp_get_max_threads();
    const int now = omp_get_max_threads();
    return now < loaded ? now : INT_MAX;
#else
    return INT_MAX;
#endif
}

/// max_threads() as it was not long ago: asking costs a large part of a small call.
int recent_max_threads() {
#if defined(__linux__)
    static std::atomic<int> known{0};
    static std::atomic<int64_t> asked{0};
    timespec time;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    const int64_t tenths = int64_t(time.tv_sec) * 10 + time.tv_nsec / 100'000'000;
    int n = known.load(std::memory_order_relaxed);
    if (n == 0 || asked.load(std::memory_order_relaxed) != tenths) {
        n = max_threads();
        known.store(n, std::memory_order_relaxed);
        asked.store(tenths, std::memory_order_relaxed);
    }
    return n;
#else
    return max_threads();
#endif
}

#if defined(_OPENMP)
/// Whether `count` more threads can run at once. OpenMP ends the process where it cannot make one,
/// as under a limit of a container, so it is tried before.
bool can_make_threads(int count) noexcept {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&gate);
    const auto wait = [](void* at) -> void* {
        auto* const mutex = static_cast<pthread_mutex_t*>(at);
        pthread_mutex_lock(mutex);
        pthread_mutex_unlock(mutex);
        return nullptr;
    };
    constexpr int kMost = 1024;
    pthread_t made[kMost];
    int n = 0;
    while (n < std::min(count, kMost) && pthread_create(&made[n], nullptr, wait, &gate) == 0) ++n;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < n; ++i) pthread_join(made[i], nullptr);
    pthread_mutex_destroy(&gate);
    return n == std::min(count, kMost);
}

/// As many threads as the calling one's team has had: OpenMP has made those.
thread_local int largest_team = 1;

bool can_have_team(int size) noexcept {
    if (size <= largest_team) return true;
    if (!can_make_threads(size - 1)) return false;
    largest_team = size;
    return true;
}
#endif

/// Sleeps until `word` is no longer `value`, or for no reason.
void sleep_on([[maybe_unused]] std::atomic<unsigned>& word,
              [[maybe_unused]] unsigned value) noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
    std::this_thread::yield();
#endif
}
void wake_all([[maybe_unused]] std::atomic<unsigned>& word) noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
}

void pause() noexcept {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

}  // namespace

int cgroup_cpu_quota(const std::string& root) {
    double cores = std::numeric_limits<double>::infinity();
    std::ifstream groups(root + "/proc/self/cgroup");
    const std::string mount = root + "/sys/fs/cgroup";
    for (std::string line; std::getline(groups, line);) {
        // id:controllers:path, with no controllers in version 2
        const std::size_t first = line.find(':');
        const std::size_t second = first == line.npos ? first : line.find(':', first + 1);
        if (second == line.npos || line.compare(second + 1, 1, "/") != 0) continue;
        const std::string path = line.substr(second + 1);
        std::istringstream controllers(line.substr(first + 1, second - first - 1));
        if (second == first + 1) {
            cores = std::min(cores, smallest_quota(mount, path, true));
            cores = std::min(cores, smallest_quota(mount + "/unified", path, true));
        }
        for (std::string controller; std::getline(controllers, controller, ',');) {
            if (controller == "cpu")
                cores = std::min(cores, smallest_quota(mount + "/cpu", path, false));
        }
    }
    return std::isinf(cores) ? 0 : static_cast<int>(std::min(std::ceil(cores), 1e6));
}

int max_threads() {
#if defined(_OPENMP)
    static const int quota = cgroup_cpu_quota();  // a few files: too slow to read for each call
    const int cores = affinity();
    return quota > 0 ? std::min(cores, quota) : cores;
#else
    return 1;
#endif
}

int get_num_threads() {
    if (forked.load(std::memory_order_relaxed)) return 1;
    int n = requested.load(std::memory_order_relaxed);
    if (n == 0) {
        const int initial = default_threads();
        if (requested.compare_exchange_strong(n, initial)) n = initial;
    }
    if (n > 1 && !threads_are_exact()) n = std::min(n, recent_max_threads());
    return std::min(n, openmp_limit());
}

void set_num_threads(int n, bool exactly) {
    if (n < 1) {
        throw std::invalid_argument("the number of threads must be at least 1, got " +
                                    std::to_string(n));
    }
    requested.store(n, std::memory_order_relaxed);
    exact.store(exactly, std::memory_order_relaxed);
}

bool threads_are_exact() noexcept {
    return exact.load(std::memory_order_relaxed);
}

namespace detail {

void Barrier::wait(int size) noexcept {
    const unsigned generation = generation_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
        arrived_.store(0, std::memory_order_relaxed);
        generation_.store(generation + 1);  // in order with what asleep_ counts
        if (asleep_.load() > 0) wake_all(generation_);
        return;
    }
    // Where others use the cores, the one we wait for may need this one.
    for (int spins = 0; spins < kBarrierSpins; ++spins) {
        if (generation_.load(std::memory_order_acquire) != generation) return;
        pause();
    }
    asleep_.fetch_add(1);
    while (generation_.load() == generation) sleep_on(generation_, generation);
    asleep_.fetch_sub(1, std::memory_order_relaxed);
}

void run_team(int size, void (*body)(void*, Team&), void* context) noexcept {
    Barrier barrier;
#if defined(_OPENMP)
    if (size > 1 && !forked.load(std::memory_order_relaxed) && can_have_team(size)) {
#pragma omp parallel num_threads(size)
        {
            Team team(omp_get_thread_num(), omp_get_num_threads(), barrier);
            body(context, team);
        }
        return;
    }
#else
    static_cast<void>(size);
#endif
    Team team(0, 1, barrier);
    body(context, team);
}

}  // namespace detail

}  // namespace lstmcore
