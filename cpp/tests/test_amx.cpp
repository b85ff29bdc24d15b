// AMX, where this machine has it: its tiles give the bits of the same instructions written out in
// C++, with as many numbers to a row, and no thread keeps any after a call. `nox -s amx` runs this
// on an emulated processor. LSTMCORE_REQUIRE_AMX of the environment: fail where there is none.
#if defined(__x86_64__) && defined(__linux__)
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "kernel_table.h"
#include "lstmcore/layer.h"
#include "lstmcore/linear.h"
#include "lstmcore/memory.h"
#include "lstmcore/stream.h"
#include "machine/cpu_features.h"
#include "machine/float_mode.h"
#include "machine/threads.h"
#include "test.h"
#include "variants.h"

namespace lstmcore::emulated_512 {
template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n);
extern template void product<float>(const Packed<float>&, int64_t, const ProductRow<float>*,
                                    int64_t);
}  // namespace lstmcore::emulated_512

using namespace lstmcore;
using namespace test;

namespace {

constexpr long kGetPermission = 0x1022, kRequestPermission = 0x1023;  // of arch_prctl

/// Whether there is AMX, at the level that has kernels for it.
bool has_amx() {
    const std::vector<std::string> levels = available_isas();
    const bool there = std::find(levels.begin(), levels.end(), "x86-64-v4") != levels.end() &&
                       has_amx_bf16() && has_amx_int8();
    if (there)
        set_isa("x86-64-v4");
    else if (std::getenv("LSTMCORE_REQUIRE_AMX"))
        CHECK(!"AMX is there");
    else
        std::cout << "SKIPPED: this machine has no AMX, or no level x86-64-v4\n";
    return there;
}

/// What of the tiles, their configuration or numbers, is in use on this thread.
uint32_t tiles_in_use() {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return low & (1u << 17 | 1u << 18);
}

struct Units {
    Bfloat16Unit bfloat16;
    Int8Unit int8;
};
constexpr Units kUnits[] = {{Bfloat16Unit::amx, Int8Unit::plain},
                            {Bfloat16Unit::amx_parts, Int8Unit::plain},
                            {Bfloat16Unit::none, Int8Unit::amx}};

/// A matrix of random numbers as a unit takes them, and rows to be multiplied with it.
class Product {
public:
    Product(int64_t K, int64_t N, int64_t rows, const Units& units) {
        w_.K = K;
        w_.N = (N + 15) / 16 * 16;
        w_.vectors = 4;
        w_.unit = units.bfloat16;
        w_.int8_unit = units.int8;
        const bool int8 = !w_.is_bfloat16();
        const auto weights =
            random_numbers<float>(3 * (int8 ? w_.padded_int8_K() : w_.padded_K()) * w_.N, 1);
        for (const float x : weights) {
            uint32_t bits;
            std::memcpy(&bits, &x, sizeof bits);
            bfloat16_.push_back(Bfloat16(bits >> 16));
            int8_.push_back(int8_t(bits % 255 - 127));
        }
        scales_ = random_numbers<float>(w_.N, 2);
        w_.bfloat16 = int8 ? nullptr : bfloat16_.data();
        w_.quantized = int8 ? int8_.data() : nullptr;
        w_.scales = scales_.data();
        for (int64_t n = 0; n < w_.N; ++n) shifts_.push_back(int32_t(n * 7919 % 2001 - 1000));
        w_.shifts = shifts_.data();
        columns_ = N;
        a_ = random_numbers<float>(rows * K, 3);
        start_ = random_numbers<float>(w_.N, 4);
        out_.resize(size_t(rows * N));
        for (int64_t r = 0; r < rows; ++r)
            rows_.push_back({a_.data() + r * K, start_.data(), out_.data() + r * N});
    }
    Product(const Product&) = delete;
    Product& operator=(const Product&) = delete;

    template <class Multiply>
    std::vector<float> by(Multiply multiply) {
        const FlushDenormals mode;
        std::fill(out_.begin(), out_.end(), -1.0f);
        multiply(w_, columns_, rows_.data(), int64_t(rows_.size()));
        return out_;
    }

private:
    Packed<float> w_;
    int64_t columns_;
    std::vector<Bfloat16> bfloat16_;
    std::vector<int8_t> int8_;
    std::vector<float> scales_, a_, start_, out_;
    std::vector<int32_t> shifts_;
    std::vector<ProductRow<float>> rows_;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Calls f(name) after each kind of call, on one thread and on two, in bfloat16.
template <class F>
void for_each_call(F f) {
    LayerSpec spec;
    spec.input_size = 40;
    spec.hidden_size = 70;
    const ParameterSet<float> parameters(spec), zeros(spec, true);
    const Input<float> input(spec, 6, 40, true, false);
    const Sequences<float> in = input.sequences();
    const int64_t H = spec.hidden_size, numbers = 6 * 40 * H;
    std::vector<float> y(static_cast<size_t>(numbers)), h(size_t(40 * H)), c(h), dx(y), dh(h),
        dc(h);
    for (const bool train : {false, true})
        for (const int threads : {1, 2}) {
            const auto w =
                pack<float>(spec, parameters.read_only(), train, threads, Precision::bfloat16);
            std::vector<float> tape(size_t(train ? tape_size(spec, in) : 0));
            Buffer workspace(forward_workspace_bytes(spec, in, train, threads));
            forward<float>(*w, in, {y.data(), 40 * H, H}, h.data(), c.data(),
                           train ? tape.data() : nullptr, workspace.data(), threads);
            f("forward");
            if (!train) continue;
            Buffer backward_workspace(backward_workspace_bytes(spec, in, threads));
            backward<float>(*w, in, {y.data(), 40 * H, H}, tape.data(), {y.data(), 40 * H, H},
                            nullptr, nullptr, {dx.data(), 40 * 40, 40}, dh.data(), dc.data(),
                            zeros.sets, backward_workspace.data(), threads);
            f("backward");
        }
    const auto w = pack<float>(spec, parameters.read_only(), false, 1, Precision::bfloat16);
    Stream<float> stream({w}, 3);
    stream.step(input.x.data(), y.data());
    f("step");
}

/// The same with one matrix, in bfloat16 and in int8.
template <class F>
void for_each_linear(F f) {
    const int64_t K = 100, N = 90, rows = 50;
    const auto weight = random_numbers<float>(K * N, 1), x = random_numbers<float>(rows * K, 2);
    std::vector<float> y(size_t(rows * N)), scales(static_cast<size_t>(N)), dx(size_t(rows * K)),
        dw(size_t(K * N));
    std::vector<int8_t> values(size_t(K * N));
    CHECK(quantize(weight.data(), N, K, values.data(), scales.data()));
    const auto int8 = pack_linear({values.data(), scales.data()}, nullptr, K, N);
    const auto trained =
        pack_linear<float>(weight.data(), nullptr, K, N, true, 1, Precision::bfloat16);
    for (const int threads : {1, 2}) {
        linear_forward(*int8, x.data(), rows, y.data(), threads);
        f("int8");
        linear_forward(*trained, x.data(), rows, y.data(), threads);
        f("linear");
        linear_backward(*trained, x.data(), y.data(), rows, dx.data(), dw.data(),
                        static_cast<float*>(nullptr), threads);
        f("linear backward");
    }
}

/// y of each step, the rows [first, first + count) of a batch; with gradients, those of w_hh
/// behind.
std::vector<float> layer_outputs(const LayerSpec& spec, Precision precision, bool train,
                                 int threads, int64_t first, int64_t count) {
    const int64_t T = 4, B = 40, I = spec.input_size, H = spec.hidden_size;
    ParameterSet<float> parameters(spec);
    for (auto& array : parameters.arrays)
        for (float& number : array) number /= 4;  // so that errors do not grow from step to step
    const auto w = pack<float>(spec, parameters.read_only(), train, threads, precision);
    const auto x = random_numbers<float>(T * B * I, 9);
    Sequences<float> in;
    in.steps = T;
    in.batch = count;
    in.x = {x.data() + first * I, B * I, I};
    std::vector<float> y(size_t(T * count * H)), h(size_t(count * H)), c(h);
    float* const c_n = spec.cell.kind == CellKind::lstm ? c.data() : nullptr;
    std::vector<float> tape(size_t(train ? tape_size(spec, in) : 0));
    Buffer workspace(forward_workspace_bytes(spec, in, train, threads));
    forward<float>(*w, in, {y.data(), count * H, H}, h.data(), c_n, train ? tape.data() : nullptr,
                   workspace.data(), threads);
    if (!train) return y;
    const ParameterSet<float> gradients(spec, true);
    std::vector<float> dx(size_t(T * count * I)), dh(h), dc(h);
    float* const dc_0 = c_n ? dc.data() : nullptr;
    Buffer other(backward_workspace_bytes(spec, in, threads));
    const View<const float> outputs{y.data(), count * H, H};
    backward<float>(*w, in, outputs, tape.data(), outputs, nullptr, nullptr,
                    {dx.data(), count * I, I}, dh.data(), dc_0, gradients.sets, other.data(),
                    threads);
    dx.insert(dx.end(), gradients.arrays[1].begin(), gradients.arrays[1].end());
    return dx;
}

/// The largest difference, in units of the largest number.
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        difference = std::max(difference, std::abs(double(a[i]) - double(b[i])));
        size = std::max(size, std::abs(double(b[i])));
    }
    return a.size() == b.size() ? difference / size : INFINITY;
}

/// Runs one of these tests in a process of its own; `prepare` runs in it before.
template <class F>
int run_child(const char* test_name, F prepare) {
    std::cout.flush();
    const pid_t child = fork();
    if (child == 0) {
        setenv("LSTMCORE_TEST_CHILD", "1", 1);
        setenv("LSTMCORE_BFLOAT16", "amx", 1);
        setenv("LSTMCORE_INT8", "amx", 1);
        if (prepare()) execl("/proc/self/exe", program.c_str(), test_name, nullptr);
        _exit(99);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
int run_child(const char* test_name) {
    return run_child(test_name, [] { return true; });
}

/// From here on the system refuses tiles to this process, as old ones do.
bool forbid_tiles() {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kRequestPermission, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filters{sizeof filter / sizeof *filter, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filters) == 0;
}

bool is_child() {
    return std::getenv("LSTMCORE_TEST_CHILD") != nullptr;
}

}  // namespace

TEST(tiles_give_the_bits_of_their_description) {
    if (!has_amx()) return;
    for (const Units& units : kUnits)
        for (const int64_t K : {1, 2, 31, 32, 33, 64, 65, 100, 300, 2000})
            for (const int64_t N : {1, 16, 17, 40, 48, 64, 100, 130})
                for (const int64_t rows : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70}) {
                    if (K * N * rows > 300000) continue;
                    Product product(K, N, rows, units);
                    const auto expected = product.by(emulated_512::product<float>);
                    if (!same_bits(product.by(kernel_table().f32.product), expected))
                        test::fail(
                            __FILE__, __LINE__,
                            std::string(units.int8 == Int8Unit::amx ? "int8 " : "bfloat16 ") +
                                std::to_string(K) + " " + std::to_string(N) + " " +
                                std::to_string(rows) + ": other bits");
                    CHECK_EQUAL(tiles_in_use(), 0u);
                }
}

// The system saves tiles where it takes a core from one thread for another.
TEST(threads_do_not_disturb_each_others_tiles) {
    if (!has_amx()) return;
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; ++i)
        threads.emplace_back([i, &wrong] {
            Product product(400 + 10 * i, 100, 1 + 5 * i, kUnits[size_t(i) % std::size(kUnits)]);
            const auto expected = product.by(emulated_512::product<float>);
            for (int n = 0; n < 300; ++n) {
                wrong += !same_bits(product.by(kernel_table().f32.product), expected);
                if (n % 50 == 0) std::this_thread::yield();
            }
        });
    for (std::thread& thread : threads) thread.join();
    CHECK_EQUAL(wrong.load(), 0);
}

TEST(permission_is_asked_for) {
    if (!has_amx()) return;
    if (!is_child()) {
        CHECK_EQUAL(run_child("permission_is_asked_for"), 0);
        return;
    }
    CHECK_EQUAL(bfloat16_instructions(), std::string("amx"));
    CHECK_EQUAL(int8_instructions(), std::string("amx"));
    uint64_t allowed = 0;
    CHECK_EQUAL(syscall(SYS_arch_prctl, kGetPermission, &allowed), 0);
    CHECK((allowed >> 18 & 1) == 1);
}

TEST(no_thread_keeps_tiles_after_a_call) {
    if (!has_amx()) return;
    if (!is_child()) {
        CHECK_EQUAL(run_child("no_thread_keeps_tiles_after_a_call"), 0);
        return;
    }
    set_num_threads(2, true);
    int calls = 0;
    const auto check = [&](const char* call) {
        ++calls;
        std::atomic<uint32_t> used{0};
        run_team(2, [&](Team&) noexcept { used |= tiles_in_use(); });
        if (used != 0) test::fail(__FILE__, __LINE__, std::string("tiles in use after ") + call);
    };
    for_each_call(check);
    for_each_linear(check);
    CHECK(calls > 10);

    // The check itself sees tiles: LDTILECFG, then TILERELEASE.
    alignas(64) uint8_t config[64] = {1};
    config[16] = 64;
    config[48] = 16;
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0x00" : : "a"(config), "m"(config));
    CHECK(tiles_in_use() != 0);
    __asm__ volatile(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0");
    CHECK_EQUAL(tiles_in_use(), 0u);
}

TEST(layers_do_not_depend_on_threads_or_other_rows_and_are_near_float32) {
    if (!has_amx()) return;
    if (!is_child()) {
        CHECK_EQUAL(run_child("layers_do_not_depend_on_threads_or_other_rows_and_are_near_float32"),
                    0);
        return;
    }
    set_num_threads(2, true);
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm, CellKind::gru})
        for (const bool train : {false, true}) {
            LayerSpec spec;
            spec.cell.kind = kind;
            spec.input_size = 37;
            spec.hidden_size = 70;
            const auto outputs = [&](Precision precision, int threads, int64_t first, int64_t n) {
                return layer_outputs(spec, precision, train, threads, first, n);
            };
            const auto all = outputs(Precision::bfloat16, 1, 0, 40);
            CHECK(same_bits(outputs(Precision::bfloat16, 2, 0, 40), all));
            const double error = relative_difference(all, outputs(Precision::own, 1, 0, 40));
            CHECK(error > 0);
            CHECK_NEAR(error, 0, 0.02);
            if (train) continue;
            const int64_t H = spec.hidden_size;
            for (const int64_t row : {0, 17, 39}) {
                const auto alone = outputs(Precision::bfloat16, 1, row, 1);
                for (int64_t t = 0; t < 4; ++t)
                    CHECK(std::memcmp(alone.data() + t * H, all.data() + (t * 40 + row) * H,
                                      size_t(H) * sizeof(float)) == 0);
            }
        }
}

TEST(a_stopped_call_keeps_no_tiles) {
    if (!has_amx()) return;
    if (!is_child()) {
        CHECK_EQUAL(run_child("a_stopped_call_keeps_no_tiles"), 0);
        return;
    }
    LayerSpec spec;
    spec.input_size = 16;
    spec.hidden_size = 64;
    const auto w =
        pack<float>(spec, ParameterSet<float>(spec).read_only(), false, 1, Precision::bfloat16);
    Sequences<float> in;
    in.steps = 500000;
    in.batch = 1;
    const std::vector<float> x(16, 0.5f);
    in.x = {x.data(), 0, 0};
    in.stop.ask = [](void*) { return true; };
    std::vector<float> y(size_t(in.steps * 64)), h(64), c(64);
    Buffer workspace(forward_workspace_bytes(spec, in, false, 1));
    CHECK_THROWS(forward<float>(*w, in, {y.data(), 64, 64}, h.data(), c.data(), nullptr,
                                workspace.data(), 1),
                 Stopped, "stopped");
    CHECK_EQUAL(tiles_in_use(), 0u);
}

TEST(a_process_that_may_not_have_tiles_goes_on_without) {
    const char* const name = "a_process_that_may_not_have_tiles_goes_on_without";
    if (!is_child()) {
        if (has_amx()) CHECK_EQUAL(run_child(name, forbid_tiles), 0);
        return;
    }
    CHECK(!has_amx_bf16() && !has_amx_int8());
    CHECK(bfloat16_instructions() != "amx" && int8_instructions() != "amx");
    int calls = 0;
    for_each_call([&](const char*) { ++calls; });
    for_each_linear([&](const char*) { ++calls; });
    CHECK(calls > 10);
}
#else
#include "test.h"
TEST(there_is_no_amx) {}
#endif
