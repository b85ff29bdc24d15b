// Memory for weights, tapes and workspaces: on cache lines, and large blocks on huge pages.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "arena.h"

namespace lstmcore {

/// An owned block of memory, not initialised. Throws std::bad_alloc.
///
/// Matrices are read panel by panel and gradients column by column, so with pages of 4 KiB much of
/// the time would go into looking up addresses, and prefetching ends at every page.
class Block {
public:
    Block() = default;
    explicit Block(int64_t bytes)
        : memory_(nullptr, Release{bytes < kHugeFrom ? kAlignment : kHugePage}), bytes_(bytes) {
        const int64_t alignment = memory_.get_deleter().alignment;
        // Whole huge pages, so that the last one is huge, too.
        if (alignment == kHugePage) bytes = round_up(bytes, kHugePage);
        memory_.reset(::operator new(bytes, std::align_val_t(alignment)));
#if defined(MADV_HUGEPAGE)
        if (alignment == kHugePage) madvise(memory_.get(), bytes, MADV_HUGEPAGE);
#endif
    }

    void* data() const { return memory_.get(); }
    int64_t bytes() const { return bytes_; }

private:
    static constexpr int64_t kHugePage = 2 << 20;
    static constexpr int64_t kHugeFrom = 1 << 20;

    struct Release {
        int64_t alignment;
        void operator()(void* memory) const {
            ::operator delete(memory, std::align_val_t(alignment));
        }
    };

    std::unique_ptr<void, Release> memory_{nullptr, Release{kAlignment}};
    int64_t bytes_ = 0;
};

}  // namespace lstmcore
