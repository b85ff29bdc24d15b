// Memory for weights, tapes and workspaces: on cache lines, and large blocks on huge pages.
#pragma once

#include <cstdint>
#include <utility>

namespace lstmcore {

/// An owned block of memory, not initialised. Throws std::bad_alloc.
///
/// Matrices are read panel by panel and gradients column by column, so with pages of 4 KiB much of
/// the time would go into looking up addresses, and prefetching ends at every page. The thread that
/// frees a large block keeps it for its next one, because a step of training would otherwise spend
/// up to a fifth of its time on being given the same pages again, cleared.
class Block {
public:
    static constexpr int64_t kKeptFrom = 64 * 1024;  ///< bytes of a large block

    Block() = default;
    explicit Block(int64_t bytes);
    Block(Block&& from) noexcept { swap(from); }
    Block& operator=(Block&& from) noexcept {
        swap(from);
        return *this;
    }
    ~Block();

    void* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

private:
    friend class FreeBlocks;

    void swap(Block& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        std::swap(capacity_, other.capacity_);
    }

    void* data_ = nullptr;
    int64_t bytes_ = 0;
    int64_t capacity_ = 0;
};

}  // namespace lstmcore
