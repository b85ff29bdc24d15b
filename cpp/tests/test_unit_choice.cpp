// Which instructions are chosen for low precision: once, and by how long they take.
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "memory/unit_choice.h"
#include "test.h"

using namespace lstmcore;

TEST(a_choice_is_made_once) {
    ChosenOnce<int> chosen;
    std::atomic<int> made{0};
    std::vector<int> seen(8, -1);
    std::vector<std::thread> threads;
    for (int& mine : seen) threads.emplace_back([&] { mine = chosen.get([&] { return ++made; }); });
    for (std::thread& thread : threads) thread.join();
    for (const int mine : seen) CHECK_EQUAL(mine, seen[0]);
    const int before = made;
    CHECK_EQUAL(chosen.get([&] { return ++made; }), seen[0]);
    CHECK_EQUAL(made.load(), before);
}

TEST(what_throws_chooses_nothing) {
    ChosenOnce<int> chosen;
    CHECK_THROWS(chosen.get([]() -> int { throw std::invalid_argument("a name"); }),
                 std::invalid_argument, "a name");
    CHECK_EQUAL(chosen.get([] { return 3; }), 3);
}

TEST(the_faster_one_is_faster_with_many_rows_and_not_slower_with_one) {
    // Times of unit 0 and unit 1, with many rows and with one.
    const auto chosen = [](int many, int one) {
        return is_faster(0, 1, [&](int unit, int64_t rows) {
            return std::chrono::nanoseconds(unit == 1 ? 1000 : rows == 1 ? one : many);
        });
    };
    CHECK(chosen(300, 800));
    CHECK(chosen(300, 1100));
    CHECK(!chosen(300, 1400));
    CHECK(!chosen(900, 300));
}

TEST(the_shortest_time_is_one_that_was_taken) {
    int runs = 0;
    const auto time = shortest_time([&] { ++runs; });
    CHECK(runs > 1);
    CHECK(time.count() >= 0);
}
