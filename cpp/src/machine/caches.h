// Every size of a cache and every threshold that the driver goes by, and what each was measured
// for. None of them changes a result: they decide only in which pieces, and by how many threads,
// the same chains of additions are computed.
//
// Two values for one cache stand here side by side where they were measured with different loops.
// What the kernels go by (registers of a tile, bytes kept in the L1 cache) is in cpp/kernels.
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
/// A W_ih of more bytes does not stay in the L2 cache, and is read anew for each chunk. A chunk
/// then has so many rows at least: two rows of an LSTM of 1,024 units and 2,048 inputs became 1.12
/// times as fast, 16 rows 1.09 times.
constexpr int64_t kInputWeightsL2Bytes = 1 << 20;
constexpr int64_t kInputChunkFarRows = 96;

// ---- Forward: whether a step makes the input product itself, see fuses_input() ------------------

/// Both panels of a tile, of W_ih and W_hh, stay in an L1 cache of 48 KB up to this size. From
/// `kFusedRows` rows on it is faster then not to write the input product and read it again (LSTM of
/// 128 units, 32 rows: 1.11 times); fewer rows are better multiplied with those of other steps.
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
/// Rows of it at least, for the same reason; and where the gradients of both matrices take more
/// than `kGradientFarBytes`, so that every pass over them goes to memory.
constexpr int64_t kGradientChunkRows = 256;
constexpr int64_t kGradientChunkFarRows = 640;
constexpr int64_t kGradientFarBytes = 16 << 20;
/// The prefetching of the hardware follows a column from row to row over so many bytes. Rows that
/// are longer are copied into panels before sums run over them (LSTM of 256 units: 1.06 times).
constexpr int64_t kPrefetchedStride = 2048;

// ---- Linear maps and streams --------------------------------------------------------------------

/// Rows of x and dy that a linear map takes at once, so that they stay in the L2 cache.
constexpr int64_t kLinearPieceRows = 256;
/// Rows of an input product that a stream makes at once in process(): enough to read the weights
/// seldom, few enough that the buffers of a stream stay small.
constexpr int64_t kStreamChunkRows = 32;

// ---- Threads ------------------------------------------------------------------------------------

/// Waking a thread takes some microseconds. It is worth that for so many multiply-adds,
constexpr double kWorkOfThread = 1e6;
/// bytes to pack,
constexpr double kPackedBytesOfThread = 256 * 1024;
/// numbers of which exponentials are taken, as in a softmax,
constexpr double kExponentialsOfThread = 1 << 15;
/// numbers that are only added, or pieces of an optimizer's arrays (see optim.cpp).
constexpr double kAdditionsOfThread = 1 << 16;
constexpr int64_t kUpdatePiecesOfThread = 8;

/// Multiply-adds of a step that take as long as it takes the threads to wait for each other. From
/// there on they share the units of a step (one row of an LSTM of 256 units, two threads: 1.8
/// times).
constexpr double kWorkOfBarrier = 32768;
/// Weights of a step that a core's cache does not hold. Threads that shared the rows would each
/// read all of them from far away, so they share the units (LSTM of 512 units, 2 rows, two threads
/// against one: 2.2 times, where sharing the rows gave 0.9), up to so many rows a thread.
constexpr double kStepWeightsBytes = 1.5 * 1024 * 1024;
constexpr int64_t kSharedUnitsRowsOfThread = 16;
/// Looks at a barrier before each further look gives the core away: a few microseconds.
constexpr int kBarrierSpins = 512;

// ---- Memory -------------------------------------------------------------------------------------

/// Large buffers take whole huge pages: with pages of 4 KB, looking up addresses takes much of the
/// time of a walk along a column, and prefetching ends at every page.
constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kHugePagesFrom = 1 << 20;
/// Freed buffers that a thread keeps, as many as a step of training holds at once, and the bytes
/// that all threads keep together.
constexpr int kKeptBuffers = 12;
constexpr int64_t kKeptBytes = 128 << 20;

}  // namespace lstmcore
