// Which freed buffers a thread keeps, and which of them it is given again.
#include <cstdint>
#include <cstring>
#include <thread>

#include "lstmcore/memory.h"
#include "test.h"

using namespace lstmcore;

namespace {

constexpr int64_t kKilo = 1024, kMega = 1024 * kKilo;

void* address_of_new(int64_t bytes) {
    const Buffer buffer(bytes);
    return buffer.data();
}

/// Calls f() in a thread that has not kept anything yet.
template <class F>
void in_new_thread(F f) {
    std::thread(std::move(f)).join();
}

}  // namespace

TEST(a_thread_gets_the_block_back_that_it_freed) {
    for (const int64_t bytes : {100 * kKilo, 900 * kKilo, 3 * kMega, 100 * kMega})
        in_new_thread([bytes] {
            void* first = address_of_new(bytes);
            CHECK(address_of_new(bytes) == first);
            CHECK(address_of_new(bytes * 3 / 4) == first);
            CHECK(address_of_new(bytes / 5) != first);  // which would waste the rest
            const Buffer taken(bytes), other(bytes);
            CHECK(taken.data() == first);
            CHECK(other.data() != first);
        });
}

TEST(the_smallest_that_is_large_enough_is_given) {
    in_new_thread([] {
        void* addresses[3];
        {
            const Buffer large(6 * kMega), small(2 * kMega), middle(4 * kMega);
            addresses[0] = large.data();
            addresses[1] = small.data();
            addresses[2] = middle.data();
        }
        const Buffer small(2 * kMega), middle(3 * kMega), large(4 * kMega);
        CHECK(small.data() == addresses[1]);
        CHECK(middle.data() == addresses[2]);
        CHECK(large.data() == addresses[0]);
    });
}

TEST(the_oldest_make_room) {
    in_new_thread([] {
        void* last = nullptr;
        for (int64_t i = 1; i <= 20; ++i) last = address_of_new(i * 31 * kMega / 20);
        CHECK(address_of_new(31 * kMega) == last);
    });
}

TEST(blocks_hold_what_is_written_whoever_frees_them) {
    for (int i = 0; i < 100; ++i) {
        const int64_t bytes = 70 * kKilo * (i % 7 + 1);
        Buffer buffer(bytes);
        std::memset(buffer.data(), i, bytes);
        CHECK_EQUAL(buffer.bytes(), bytes);
        in_new_thread([moved = std::move(buffer), bytes, i]() mutable {
            const Buffer freed_here(std::move(moved));
            const auto* data = static_cast<const char*>(freed_here.data());
            CHECK(data[0] == char(i) && data[bytes - 1] == char(i));
        });
    }
}
