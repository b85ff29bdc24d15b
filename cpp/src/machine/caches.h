// Every size of a cache and every threshold that the driver goes by, and what each was measured
// for. None of them changes a result: they decide only in which pieces, and by how many threads,
// the same chains of additions are computed.
//
// Several constants describe the same cache where each was measured with another loop:
// the weights that stay in the L2 cache have kInputWeightsL2Bytes, kFusedL2Bytes and
// kStepWeightsBytes. What the kernels go by (registers of a tile, bytes kept in the L1 cache) is in
// cpp/kernels.
#pragma once

#include <cstdint>

namespace lstmcore {

/// A cache line, and the widest register. All memory that the driver lays out is aligned to it.
constexpr int64_t kAlignment = 64;

// ---- Forward: the product of the input with W_ih ------------------------------------------------

/// Bytes of input product that are made at once, for some steps of all rows, so that they are still
/// in the L2 cache when the steps read them.
constexpr int64_t kInputChunkBytes = 256 * 1024;
/// Rows of it at most: small layers gain nothing from more, and the list of rows takes memory, too.
constexpr int64_t kInputChunkMostRows = 4096;
/// A W_ih of more bytes than this does not stay in the L2 cache, and is read again for each chunk.
constexpr int64_t kInputWeightsL2Bytes = 1 << 20;
/// Rows that a chunk then has at least: two rows of an LSTM of 1,024 units and 2,048 inputs became
/// 1.12 times as fast, 16 rows 1.09 times.
constexpr int64_t kInputChunkFarRows = 96;

// ---- Forward: whether a step makes the input product itself, see fuses_input() ------------------

/// Up to this size, the panels of W_ih and of W_hh that a tile reads stay in an L1 cache of 48 KB
/// together. A step then makes its input product itself if it has `kFusedRows` rows or more, which
/// saves writing it and reading it again (LSTM of 128 units, 32 rows: 1.11 times). Fewer rows are
/// better multiplied together with those of other steps.
constexpr int64_t kFusedPanelBytes = 40 * 1024;
constexpr int64_t kFusedRows = 4;
/// A panel of W_hh that is larger than the L1 cache is read from the L2 cache for every tile
/// anyway. A panel of W_ih beside it then costs nothing more (LSTM of 256 units, 128 rows: 1.05
/// times), if the L2 cache holds both matrices and there are rows enough.
constexpr int64_t kFusedL1Bytes = 48 * 1024;
constexpr int64_t kFusedL2Bytes = 2 << 20;
constexpr int64_t kFusedFarRows = 32;
/// A call of one step finds a part of both matrices in the L2 cache, where the last call has left
/// them (one row of an LSTM of 256 units: 1.31 times). From `kFusedRows` rows on only if both
/// matrices are not far larger than that cache.
constexpr int64_t kFusedStepBytes = 8 << 20;

// ---- Backward -----------------------------------------------------------------------------------

/// Bytes of dgates, the gradients of the gates, that are made at once, for some steps of all rows,
/// so that they are still in the L2 cache when dW is summed over them. Twice as much as forward's:
/// each chunk also costs a pass over all of dW.
constexpr int64_t kGradientChunkBytes = 512 * 1024;
/// Rows of a chunk at least, for the same reason.
constexpr int64_t kGradientChunkRows = 256;
/// The same where the gradients of W_ih and W_hh take more than `kGradientFarBytes` together, so
/// that every pass over them goes to memory.
constexpr int64_t kGradientChunkFarRows = 640;
constexpr int64_t kGradientFarBytes = 16 << 20;
/// The hardware prefetches a column if its rows are no more bytes apart than this. Longer rows are
/// copied into panels before sums run over them (LSTM of 256 units: 1.06 times).
constexpr int64_t kPrefetchedStride = 2048;

// ---- bfloat16 -----------------------------------------------------------------------------------

/// A matrix in bfloat16 of at most so many bytes as float32 is kept as that, and multiplied at its
/// speed. Half the bytes gain more only for one or a few rows, with weights from behind the caches.
constexpr int64_t kRoundedBytes = 8 << 20;
/// The same with registers of 512 bits, which widen more at once.
constexpr int64_t kRoundedBytesOf512 = 3 << 19;

// ---- Linear maps and streams --------------------------------------------------------------------

/// Rows of x and dy that a linear map takes at once, so that they stay in the L2 cache.
constexpr int64_t kLinearPieceRows = 256;
/// Bytes of weights of an attention that are made at once, so that they stay in the L2 cache.
constexpr int64_t kAttentionBytes = 256 * 1024;
/// Rows of an input product that a stream makes at once in process(): enough to read the weights
/// seldom, few enough that the buffers of a stream stay small.
constexpr int64_t kStreamChunkRows = 32;

// ---- Threads ------------------------------------------------------------------------------------

// Waking a thread takes some microseconds. The next five say how much work pays for one more.

/// Multiply-adds.
constexpr double kWorkOfThread = 1e6;
/// Bytes to pack.
constexpr double kPackedBytesOfThread = 256 * 1024;
/// Exponentials, as of a softmax.
constexpr double kExponentialsOfThread = 1 << 15;
/// Additions.
constexpr double kAdditionsOfThread = 1 << 16;
/// Pieces of an optimizer's arrays, see optim.cpp.
constexpr int64_t kUpdatePiecesOfThread = 8;

/// Multiply-adds that take as long as threads wait for each other at a barrier. Threads share the
/// units of a step that has at least as many (one row of an LSTM of 256 units, two threads: 1.8
/// times).
constexpr double kWorkOfBarrier = 32768;
/// Weights of more bytes than this do not stay in a core's L2 cache from step to step. Threads that
/// share the rows would each read all of them from the next cache or from memory, so threads share
/// the units (LSTM of 512 units, 2 rows, two threads against one: 2.2 times, where sharing the rows
/// gave 0.9).
constexpr double kStepWeightsBytes = 1.5 * 1024 * 1024;
/// They do so where there are fewer rows for each thread than this.
constexpr int64_t kSharedUnitsRowsOfThread = 16;
/// How often a waiting thread looks at a barrier before it gives its core away between two looks: a
/// few microseconds.
constexpr int kBarrierSpins = 512;

// ---- Memory -------------------------------------------------------------------------------------

/// Large buffers take whole huge pages: with pages of 4 KB, looking up addresses takes much of the
/// time of a walk along a column, and prefetching ends at every page.
constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kHugePagesFrom = 1 << 20;
/// Freed buffers that a thread keeps for the next call: as many as a step of training holds at
/// once.
constexpr int kKeptBuffers = 12;
/// Bytes that all threads keep together.
constexpr int64_t kKeptBufferBytes = 128 << 20;

}  // namespace lstmcore
