// What step() and process(), and all that a pool does, must not do on a real-time thread: allocate,
// lock, call the system.
//
// malloc and its kin and pthread_mutex_lock are replaced here by ones that count. System calls are
// watched by the kernel: a child forbids itself every one but _exit (seccomp) and is killed by
// SIGSYS at any other.
#include <dlfcn.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "lstmcore/stream_pool.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

#if !defined(LSTMCORE_SANITIZED)  // sanitizers have a malloc of their own
namespace {
std::atomic<long> allocations{0}, locks{0};
}  // namespace

// Seen by the other libraries, which clang would not let them be with -fvisibility=hidden.
#pragma GCC visibility push(default)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t n) {
    ++allocations;
    return __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
    ++allocations;
    return __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
    ++allocations;
    return __libc_realloc(p, n);
}
void* memalign(size_t alignment, size_t n) {
    ++allocations;
    return __libc_memalign(alignment, n);
}
void* aligned_alloc(size_t alignment, size_t n) {
    ++allocations;
    return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, size_t alignment, size_t n) {
    ++allocations;
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : 12;
}
void free(void* p) {
    if (p) ++allocations;
    __libc_free(p);
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
    static const auto real =
        reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
    ++locks;
    return real(mutex);
}
}
#pragma GCC visibility pop
#endif

namespace {

/// Every kind of step there is: all variants, in float32 and in bfloat16, one row and many, one
/// step and blocks, a model, pools.
class Work {
public:
    Work() {
        for (const Variant& variant : variants()) {
            if (variant.spec.reverse || variant.spec.bidirectional) continue;
            LayerSpec spec = variant.spec;
            spec.hidden_size = 21;
            for (const Precision precision : {Precision::own, Precision::bfloat16})
                add(spec, precision);
        }
        x_.resize(100 * 5 * 3, 0.5f);
        y_.resize(100 * 5 * 21);
        h_.resize(3 * 5 * 21);
        c_.resize(3 * 5 * 21);
    }
    void run() noexcept {
        for (Stream<float>& stream : streams_) {
            stream.step(x_.data(), y_.data());
            stream.process(x_.data(), y_.data(), 100);
            stream.get_state(h_.data(), c_.data());
            stream.set_state(h_.data(), c_.data());
            stream.reset(0);
            stream.reset();
        }
        for (StreamPool<float>& pool : pools_) run(pool);
    }
    size_t count() const { return streams_.size() + pools_.size(); }

private:
    void add(const LayerSpec& spec, Precision precision) {
        const auto weights =
            pack<float>(spec, ParameterSet<float>(spec).read_only(), false, 1, precision);
        const auto w = random_numbers<float>(2 * spec.feature_size(), 3);
        const auto head =
            pack_linear<float>(w.data(), nullptr, spec.feature_size(), 2, false, 1, precision);
        for (const int64_t batch : {1, 5}) {
            streams_.emplace_back(weights, batch);
            streams_.emplace_back(
                Stream<float>({weights, head, Activation{ActivationKind::sigmoid}}, batch));
        }
        pools_.emplace_back(StreamPool<float>({weights, head, Softmax{}}, 200));
    }

    /// Streams come, take steps together, all and one of them, and go; wrong calls, too.
    void run(StreamPool<float>& pool) noexcept {
        int64_t ids[200];
        for (int64_t& id : ids) id = pool.open();
        bool right = pool.open() == -1;
        const StreamState<float> state{h_.data(), c_.data()};
        const StreamState<const float> same{h_.data(), c_.data()};
        for (const int64_t n : {200, 1, 7}) right &= bool(pool.step(ids, n, x_.data(), y_.data()));
        right &= bool(pool.get_state(ids[0], &state)) && bool(pool.set_state(ids[1], &same)) &&
                 bool(pool.reset(ids, 100));
        const int64_t last = std::exchange(ids[199], ids[0]);
        right &= pool.step(ids, 200, x_.data(), y_.data()).error == PoolError::repeated;
        ids[199] = last;
        for (const int64_t id : ids) right &= bool(pool.close(id));
        if (!right || pool.count() != 0) std::abort();
    }

    std::vector<Stream<float>> streams_;
    std::vector<StreamPool<float>> pools_;
    std::vector<float> x_, y_, h_, c_;
};

#if !defined(LSTMCORE_SANITIZED)
/// From here on the kernel kills this process at any system call but _exit's.
bool forbid_system_calls() {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const sock_fprog program{sizeof filter / sizeof *filter, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

constexpr int kNotForbidden = 77;

/// The status of a child that runs f where system calls are forbidden.
template <class F>
int run_forbidden(F f) {
    const pid_t child = fork();
    if (child == 0) {
        if (!forbid_system_calls()) _exit(kNotForbidden);
        f();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}
#endif

}  // namespace

TEST(steps_make_no_system_call) {
    Work work;
    work.run();
    CHECK(work.count() > 60);
#if defined(LSTMCORE_SANITIZED)
    std::cout << "SKIPPED the watch: the sanitizer calls the system itself\n";
#else
    // The watch works: the harmless getppid is noticed.
    const int caught = run_forbidden([] { syscall(SYS_getppid); });
    if (WIFEXITED(caught) && WEXITSTATUS(caught) == kNotForbidden) {
        std::cout << "SKIPPED: this system does not let a process forbid itself system calls\n";
        return;
    }
    CHECK(WIFSIGNALED(caught) && WTERMSIG(caught) == SIGSYS);
    const int status = run_forbidden([&] {
        for (int i = 0; i < 10; ++i) work.run();
    });
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

#if !defined(LSTMCORE_SANITIZED)
TEST(steps_neither_allocate_nor_lock) {
    Work work;
    const long before = allocations, locks_before = locks;
    work.run();
    const long during = allocations - before, locks_during = locks - locks_before;
    CHECK_EQUAL(during, 0);
    CHECK_EQUAL(locks_during, 0);
    // The counters work.
    ::operator delete(::operator new(3));  // which no compiler leaves out
    CHECK(allocations >= before + 2);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    CHECK_EQUAL(locks - locks_before, 1);
}

TEST(copies_and_constructions_do_allocate) {
    LayerSpec spec;
    spec.input_size = 3;
    spec.hidden_size = 5;
    const auto weights = pack<float>(spec, ParameterSet<float>(spec).read_only(), false);
    const Stream<float> stream(weights);
    const long before = allocations;
    const Stream<float> copy(stream);
    CHECK(allocations > before);
}
#endif

static_assert(noexcept(std::declval<Stream<float>&>().step(nullptr, nullptr)));
static_assert(noexcept(std::declval<Stream<float>&>().process(nullptr, nullptr, 1)));
