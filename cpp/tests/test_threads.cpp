#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cfenv>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/threads.h"
#include "test.h"

using namespace lstmcore;

namespace {

// A team larger than max_threads(), so that one core is enough to test it.
constexpr int kTeam = 4;

int run_with(const std::string& variables, const std::string& test_name) {
    const std::string command = variables + " '" + test::program + "' " + test_name + " 2>&1";
    return std::system(command.c_str());
}

// A file tree that stands for the parts of / that a quota is read from.
class FakeRoot {
public:
    FakeRoot() {
        char name[] = "/tmp/lstmcore-XXXXXX";
        if (!mkdtemp(name)) throw std::runtime_error("mkdtemp failed");
        path = name;
    }
    ~FakeRoot() { static_cast<void>(!std::system(("rm -r '" + path + "'").c_str())); }

    void write(const std::string& file, const std::string& text) {
        const std::string full = path + "/" + file;
        for (std::size_t at = path.size(); (at = full.find('/', at + 1)) != full.npos;) {
            mkdir(full.substr(0, at).c_str(), 0700);
        }
        std::ofstream(full) << text;
    }

    std::string path;
};

}  // namespace

TEST(number_of_threads) {
    CHECK(max_threads() >= 1);
    CHECK(get_num_threads() >= 1 && get_num_threads() <= max_threads());
    CHECK_THROWS(set_num_threads(0), std::invalid_argument, "at least 1, got 0");
    CHECK_THROWS(set_num_threads(-3), std::invalid_argument, "-3");
    set_num_threads(1);
    CHECK_EQUAL(get_num_threads(), 1);
    set_num_threads(1 << 30);
    CHECK_EQUAL(get_num_threads(), max_threads());
}

// The next three run in processes of their own.
TEST(one_thread_by_the_environment) {
    if (std::getenv("LSTMCORE_TEST_CHILD")) {
        CHECK_EQUAL(get_num_threads(), 1);
        return;
    }
    const std::string name = "one_thread_by_the_environment";
    CHECK_EQUAL(run_with("LSTMCORE_TEST_CHILD=1 LSTMCORE_NUM_THREADS=1", name), 0);
    CHECK_EQUAL(run_with("LSTMCORE_TEST_CHILD=1 OMP_NUM_THREADS=1", name), 0);
    CHECK_EQUAL(run_with("LSTMCORE_TEST_CHILD=1 LSTMCORE_NUM_THREADS= OMP_NUM_THREADS=1", name), 0);
}

TEST(all_threads_by_the_environment) {
    if (std::getenv("LSTMCORE_TEST_CHILD")) {
        CHECK_EQUAL(get_num_threads(), max_threads());
        return;
    }
    const std::string name = "all_threads_by_the_environment";
    const std::string child = "LSTMCORE_TEST_CHILD=1 ";
    CHECK_EQUAL(run_with(child + "LSTMCORE_NUM_THREADS=100000 OMP_NUM_THREADS=1", name), 0);
    CHECK_EQUAL(run_with(child + "LSTMCORE_NUM_THREADS=99999999999", name), 0);
#if !defined(__clang__)  // LLVM's OpenMP (14) takes any number then, and often ends the process
    CHECK_EQUAL(run_with(child + "LSTMCORE_NUM_THREADS= OMP_NUM_THREADS=nonsense", name), 0);
#endif
}

TEST(bad_environment) {
    if (std::getenv("LSTMCORE_TEST_CHILD")) {
        CHECK_THROWS(get_num_threads(), std::invalid_argument, "LSTMCORE_NUM_THREADS");
        CHECK_THROWS(get_num_threads(), std::invalid_argument, std::getenv("LSTMCORE_NUM_THREADS"));
        set_num_threads(1);
        CHECK_EQUAL(get_num_threads(), 1);
        return;
    }
    for (const char* value : {"0", "-1", "two", "2x", "1.5", "99999999999999999999x"}) {
        const std::string variable = std::string(" LSTMCORE_NUM_THREADS=") + value;
        CHECK_EQUAL(run_with("LSTMCORE_TEST_CHILD=1" + variable, "bad_environment"), 0);
    }
}

TEST(cgroup_version_2) {
    FakeRoot root;
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 0);
    root.write("proc/self/cgroup", "0::/a/b\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 0);
    root.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 0);
    root.write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 3);
    root.write("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 1);
    root.write("proc/self/cgroup", "0::/\n");  // the root of a container's own namespace
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 0);
    root.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 2);
    root.write("sys/fs/cgroup/cpu.max", "nonsense\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 0);
}

TEST(cgroup_version_1) {
    FakeRoot root;
    root.write("proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/c\n1:name=systemd:/s\n");
    root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    root.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 0);
    root.write("sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "150000\n");
    root.write("sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "50000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 3);
    root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
    CHECK_EQUAL(cgroup_cpu_quota(root.path), 2);
}

TEST(team_has_every_rank_once) {
    for (int size = 1; size <= kTeam; ++size) {
        std::vector<int> count(kTeam, 0);
        std::vector<int> sizes(kTeam, 0);
        run_team(size, [&](Team& team) noexcept {
            ++count[team.rank];
            sizes[team.rank] = team.size;
        });
        const int got = sizes[0];
        CHECK(got >= 1 && got <= size);
        for (int rank = 0; rank < kTeam; ++rank) {
            CHECK_EQUAL(count[rank], rank < got ? 1 : 0);
            CHECK_EQUAL(sizes[rank], rank < got ? got : 0);
        }
    }
}

TEST(barrier_separates_phases) {
    constexpr int kPhases = 500;
    std::vector<int> value(kTeam, 0);
    std::vector<int> wrong(kTeam, 0);
    run_team(kTeam, [&](Team& team) noexcept {
        for (int phase = 1; phase <= kPhases; ++phase) {
            value[team.rank] = phase;
            team.barrier();
            for (int rank = 0; rank < team.size; ++rank) wrong[team.rank] += value[rank] != phase;
            team.barrier();
        }
    });
    for (int rank = 0; rank < kTeam; ++rank) CHECK_EQUAL(wrong[rank], 0);
    CHECK_EQUAL(value[0], kPhases);
}

TEST(teams_of_many_callers) {
    std::vector<std::thread> callers;
    std::vector<int> sums(3, 0);
    for (int caller = 0; caller < 3; ++caller) {
        callers.emplace_back([&sums, caller] {
            for (int call = 0; call < 50; ++call) {
                std::atomic<int> sum{0};
                run_team(2, [&](Team& team) noexcept {
                    sum += 10 / team.size;
                    team.barrier();
                });
                sums[caller] += sum;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    for (int sum : sums) CHECK_EQUAL(sum, 500);
}

TEST(barrier_wakes_those_that_sleep) {
    std::vector<int> value(kTeam, 0);
    std::vector<int> wrong(kTeam, 0);
    run_team(kTeam, [&](Team& team) noexcept {
        for (int phase = 1; phase <= 20; ++phase) {
            // Long enough for the others to fall asleep.
            if (phase % team.size == team.rank)
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            value[team.rank] = phase;
            team.barrier();
            for (int rank = 0; rank < team.size; ++rank) wrong[team.rank] += value[rank] != phase;
            team.barrier();
        }
    });
    for (int rank = 0; rank < kTeam; ++rank) CHECK_EQUAL(wrong[rank], 0);
}

// Takes so many calls that are fast on `fast` threads, and slower the farther they are from it;
// every tenth is slow for no reason. Returns how many of the last half got `fast`, in per cent.
int share_of(int fast, CallHistory& history, int calls) {
    int right = 0;
    for (int call = 0; call < calls; ++call) {
        const int level = history.choose(), threads = history.threads(level);
        CHECK(threads == 1 || threads == 2 || threads == 4);
        const double noise = call % 10 == 7 ? 20 : 1;
        history.add(level, float(noise * 1e-4 * (1 + 3 * std::abs(threads - fast))), 1);
        if (2 * call >= calls) right += threads == fast;
    }
    return right * 200 / calls;
}

TEST(calls_get_the_threads_that_are_fast) {
    CallHistory history;
    history.start(1, 4);
    CHECK(share_of(4, history, 60) >= 90);
    CHECK(share_of(1, history, 60) >= 90);  // other processes have come
    CHECK(share_of(2, history, 2000) >= 80);
    CHECK(share_of(4, history, 40000) >= 80);  // and gone: that is noticed within seconds

    const CallKind kind({1, 2, 3}, 10);
    CHECK(kind.key != CallKind({1, 3, 2}).key);
    for (int call = 0; call < 100; ++call) {
        const int count = CallThreads(kind, 4).count();
        CHECK(count == 1 || count == 2 || count == 4);
    }
    CHECK_EQUAL(CallThreads(kind, 1).count(), 1);
    set_num_threads(4, true);
    for (int call = 0; call < 100; ++call) CHECK_EQUAL(CallThreads(kind, 4).count(), 4);
    set_num_threads(1);
}

TEST(one_thread_where_no_more_can_be_made) {
    const std::string name = "one_thread_where_no_more_can_be_made";
    if (!std::getenv("LSTMCORE_TEST_CHILD")) {
        CHECK_EQUAL(run_with("LSTMCORE_TEST_CHILD=1", name), 0);
        return;
    }
    // No machine has room for such a stack. (Less address space for the process would stop
    // sanitizers, too.)
    pthread_attr_t usual, huge;
    CHECK_EQUAL(pthread_getattr_default_np(&usual), 0);
    CHECK_EQUAL(pthread_attr_init(&huge), 0);
    CHECK_EQUAL(pthread_attr_setstacksize(&huge, std::size_t(1) << 60), 0);
    CHECK_EQUAL(pthread_setattr_default_np(&huge), 0);
    int size = 0;
    const auto tell_size = [&](Team& team) noexcept {
        if (team.rank == 0) size = team.size;
    };
    run_team(kTeam, tell_size);
    CHECK_EQUAL(size, 1);
    CHECK_EQUAL(pthread_setattr_default_np(&usual), 0);
    run_team(kTeam, tell_size);
    CHECK(size > 1);
    pthread_attr_destroy(&usual);
    pthread_attr_destroy(&huge);
}

TEST(child_of_a_fork_works_alone) {
    run_team(kTeam, [](Team& team) noexcept { team.barrier(); });  // the pool exists
    const int before = get_num_threads();
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(30);  // rather than hang
        int size = 0;
        run_team(kTeam, [&](Team& team) noexcept {
            team.barrier();
            size += team.size;
        });
        set_num_threads(kTeam);
        _exit(size == 1 && get_num_threads() == 1 ? 0 : 1);
    }
    int status = -1;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(get_num_threads(), before);
    run_team(kTeam, [](Team& team) noexcept { team.barrier(); });
}

TEST(denormals_are_flushed_and_the_mode_restored) {
    volatile float tiny = std::numeric_limits<float>::min();
    volatile float denormal = std::numeric_limits<float>::denorm_min();
    volatile float half = 0.5f, big = 1e30f, one = 1.0f, small = 1e-10f;
    CHECK(tiny * half > 0);
    std::fesetround(FE_UPWARD);
    const float up = one + small;
    CHECK(up > 1.0f);
    {
        const FlushDenormals mode;
        CHECK(tiny * half == 0);     // flushed on the way out
        CHECK(denormal * big == 0);  // and on the way in
        CHECK(one + small == 1.0f);
    }
    CHECK_EQUAL(std::fegetround(), FE_UPWARD);
    std::fesetround(FE_TONEAREST);
    CHECK(tiny * half > 0);
    CHECK(denormal * big > 0);
}

TEST(exception_flags_are_the_callers) {
    std::feclearexcept(FE_ALL_EXCEPT);
    volatile double zero = 0, one = 1;
    {
        const FlushDenormals mode;
        volatile double infinite = one / zero;
        static_cast<void>(infinite);
    }
#if defined(__x86_64__)
    CHECK_EQUAL(std::fetestexcept(FE_DIVBYZERO), 0);
#endif
    volatile double infinite = one / zero;
    static_cast<void>(infinite);
    CHECK(std::fetestexcept(FE_DIVBYZERO) != 0);
    std::feclearexcept(FE_ALL_EXCEPT);
}
