#include "lstmcore/attention.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernel_table.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "memory/arena.h"
#include "memory/pack.h"

namespace lstmcore {
namespace {

/// Queries that are taken at once, at most.
constexpr int64_t kMostQueries = 64;
constexpr int kVectors = 4;

/// What one head has of the steps of a row.
template <class T>
struct HeadRows {
    T* data;
    int64_t stride;

    HeadRows(const AttentionShape& shape, T* array, int64_t steps, int64_t size, int64_t b,
             int64_t head)
        : data(array + (shape.batch_first ? b * steps : b) * shape.heads * size + head * size),
          stride((shape.batch_first ? 1 : shape.B) * shape.heads * size) {}

    T* at(int64_t step) const { return data + step * stride; }
};

/// The arithmetic of one thread, in a room of its own.
template <class T>
class Worker {
public:
    Worker(const AttentionShape& shape, const AttentionInputs<T>& inputs)
        : kernels_(kernel_table().of<T>()), shape_(shape), inputs_(inputs) {
        const int64_t bytes = size_product(shape.S, sizeof(T));
        queries_ =
            std::clamp(kAttentionBytes / std::max(bytes, int64_t(1)), int64_t(8), kMostQueries);
        // A register at a time is read where there may be less.
        stride_ = round_up(shape.S, kernels_.lanes);
    }

    void lay_out_forward(Arena& arena) {
        const int64_t heads = shape_.heads;
        lay_out(arena);
        keys_ = arena.take<T>(size_product(heads, shape_.size, stride_));
        values_ = arena.take<T>(
            size_product(heads, round_up(shape_.value_size, kernels_.lanes), shape_.S));
        query_ = arena.take<T>(size_product(queries_, shape_.size));
    }
    void lay_out_backward(Arena& arena) {
        lay_out(arena);
        keys_ = arena.take<T>(size_product(round_up(shape_.size, kernels_.lanes), shape_.S));
        values_ = arena.take<T>(size_product(shape_.value_size, stride_));
        query_ = arena.take<T>(size_product(queries_, shape_.size));
        dy_ = arena.take<T>(size_product(queries_, shape_.value_size));
        dkey_ = arena.take<T>(size_product(shape_.S, shape_.size));
        dvalue_ = arena.take<T>(size_product(shape_.S, shape_.value_size));
    }

    /// Queries [first, last) of those of all rows, one row after the other.
    void forward(int64_t first, int64_t last, T* y, T* weights, T* mean) noexcept {
        clear();
        while (first < last) {
            const int64_t b = first / shape_.T, start = b * shape_.T;
            const int64_t end = std::min(last, start + shape_.T);
            for (int64_t head = 0; head < shape_.heads; ++head) pack_head(b, head);
            for (; first < end; first += queries_) {
                const int64_t n = std::min(queries_, end - first), t = first - start;
                if (mean) std::fill_n(mean + first * shape_.S, n * shape_.S, T(0));
                for (int64_t head = 0; head < shape_.heads; ++head) {
                    const int64_t place = (b * shape_.heads + head) * shape_.T + t;
                    T* const own = weights ? weights + place * shape_.S : scores_;
                    attend(b, head, t, n, own, y);
                    if (mean)
                        kernels_.column_sum(
                            {own, 0, nullptr, 0, mean + first * shape_.S, 1, n * shape_.S});
                }
                if (mean && shape_.heads > 1)
                    kernels_.scale(T(1) / T(shape_.heads), mean + first * shape_.S, n * shape_.S);
            }
            first = end;
        }
    }

    /// Pairs [first, last) of a row and a head.
    void backward(int64_t first, int64_t last, const T* weights, const T* dy,
                  const AttentionGradients<T>& gradients) noexcept {
        clear();
        for (; first < last; ++first) {
            const int64_t b = first / shape_.heads, head = first % shape_.heads;
            differentiate(b, head, weights + first * shape_.T * shape_.S, dy, gradients);
        }
    }

private:
    void lay_out(Arena& arena) {
        const int64_t longest = std::max({shape_.S, shape_.size, shape_.value_size});
        zeros_ = arena.take<T>(longest);
        zeros_count_ = longest;
        scores_ = arena.take<T>(size_product(queries_, stride_));
        kept_ = arena.take<T>(size_product(queries_, stride_));
    }
    void clear() noexcept { std::fill_n(zeros_, zeros_count_, T(0)); }

    int64_t keys_of(int64_t b) const { return shape_.lengths ? shape_.lengths[b] : shape_.S; }
    /// Those that query t looks at.
    int64_t keys_of(int64_t b, int64_t t) const {
        return shape_.causal ? std::min(keys_of(b), t + 1) : keys_of(b);
    }

    /// The matrix (size, count) whose columns are these rows.
    Packed<T> pack_columns(HeadRows<const T> from, int64_t size, int64_t count, T* to) const {
        const int64_t N = round_up(count, kernels_.lanes), width = kVectors * kernels_.lanes;
        const T* rows[kVectors * kAlignment / int64_t(sizeof(T))];
        for (int64_t first = 0; first < N; first += width) {
            const int64_t columns = std::min(width, N - first);
            for (int64_t i = 0; i < columns; ++i)  // those behind the last are not used
                rows[i] = from.at(std::min(first + i, count - 1));
            kernels_.transpose(rows, size, columns, to + first * size);
        }
        return packed(size, N, to);
    }
    /// The matrix (count, size) of these rows.
    Packed<T> pack_rows(HeadRows<const T> from, int64_t size, int64_t count, T* to) const {
        const int64_t N = round_up(size, kernels_.lanes), full = kVectors * kernels_.lanes;
        for (int64_t first = 0; first < N; first += full) {
            const int64_t width = std::min(full, N - first), own = std::min(width, size - first);
            T* out = to + first * count;
            for (int64_t k = 0; k < count; ++k, out += width) {
                copy_numbers(out, from.at(k) + first, own);
                std::fill(out + own, out + width, T(0));
            }
        }
        return packed(count, N, to);
    }
    static Packed<T> packed(int64_t K, int64_t N, const T* data) {
        Packed<T> matrix;
        matrix.data = data;
        matrix.K = K;
        matrix.N = N;
        matrix.vectors = kVectors;
        return matrix;
    }

    /// out = a w for n rows.
    template <class RowOf, class OutOf>
    void multiply(const Packed<T>& w, int64_t columns, int64_t n, RowOf a, OutOf out) const {
        ProductRow<T> rows[kMostQueries];
        for (int64_t i = 0; i < n; ++i) rows[i] = {a(i), zeros_, out(i)};
        kernels_.product(w, columns, rows, n);
    }

    HeadRows<const T> keys(int64_t b, int64_t head) const {
        return {shape_, inputs_.key, shape_.S, shape_.size, b, head};
    }
    HeadRows<const T> values(int64_t b, int64_t head) const {
        return {shape_, inputs_.value, shape_.S, shape_.value_size, b, head};
    }
    HeadRows<const T> queries(int64_t b, int64_t head) const {
        return {shape_, inputs_.query, shape_.T, shape_.size, b, head};
    }

    void pack_head(int64_t b, int64_t head) noexcept {
        const int64_t count = keys_of(b);
        pack_columns(keys(b, head), shape_.size, count, keys_ + head * shape_.size * stride_);
        pack_rows(values(b, head), shape_.value_size, count,
                  values_ + head * round_up(shape_.value_size, kernels_.lanes) * shape_.S);
    }

    /// Queries t .. t + n - 1 of a row and head: their weights, and y.
    void attend(int64_t b, int64_t head, int64_t t, int64_t n, T* weights, T* y) noexcept {
        const int64_t count = keys_of(b), S = shape_.S, size = shape_.size;
        const int64_t N = round_up(count, kernels_.lanes);
        const int64_t value_N = round_up(shape_.value_size, kernels_.lanes);
        const HeadRows<const T> query = queries(b, head);
        for (int64_t i = 0; i < n; ++i)
            for (int64_t e = 0; e < size; ++e)
                query_[i * size + e] = query.at(t + i)[e] * inputs_.scale;
        multiply(
            packed(size, N, keys_ + head * size * stride_), count, n,
            [&](int64_t i) { return query_ + i * size; },
            [&](int64_t i) { return weights + i * S; });
        for (int64_t i = 0; i < n; ++i) {
            T* const row = weights + i * S;
            const int64_t own = keys_of(b, t + i);
            if (own > 0) kernels_.softmax(row, row, own, T(1));
            std::fill(row + own, row + S, T(0));
        }
        if (inputs_.kept) keep(b, head, t, n, weights);
        const T* const factors = inputs_.kept ? kept_ : weights;
        const int64_t stride = inputs_.kept ? stride_ : S;
        const HeadRows<T> out(shape_, y, shape_.T, shape_.value_size, b, head);
        multiply(
            packed(count, value_N, values_ + head * value_N * S), shape_.value_size, n,
            [&](int64_t i) { return factors + i * stride; },
            [&](int64_t i) { return out.at(t + i); });
    }

    /// The factors of dropout of a query's weights, or null.
    const T* dropout(int64_t b, int64_t head, int64_t t) const {
        const int64_t query = (b * shape_.heads + head) * shape_.T + t;
        return inputs_.kept ? inputs_.kept + query * shape_.S : nullptr;
    }
    /// Copies the weights of queries t .. t + n - 1 to kept_, with dropout.
    void keep(int64_t b, int64_t head, int64_t t, int64_t n, const T* weights) const noexcept {
        for (int64_t i = 0; i < n; ++i) {
            T* const to = std::copy_n(weights + i * shape_.S, shape_.S, kept_ + i * stride_);
            drop(b, head, t + i, to - shape_.S);
        }
    }
    void drop(int64_t b, int64_t head, int64_t t, T* row) const noexcept {
        const T* const factors = dropout(b, head, t);
        for (int64_t s = 0; factors && s < keys_of(b); ++s) row[s] *= factors[s];
    }

    void differentiate(int64_t b, int64_t head, const T* weights, const T* dy,
                       const AttentionGradients<T>& gradients) noexcept {
        const int64_t count = keys_of(b), S = shape_.S;
        const int64_t size = shape_.size, value_size = shape_.value_size;
        const HeadRows<const T> query = queries(b, head);
        const HeadRows<const T> dout(shape_, dy, shape_.T, value_size, b, head);
        const HeadRows<T> dquery(shape_, gradients.query, shape_.T, size, b, head);
        const Packed<T> key = pack_rows(keys(b, head), size, count, keys_);
        const Packed<T> value = pack_columns(values(b, head), value_size, count, values_);
        std::fill_n(dkey_, count * size, T(0));
        std::fill_n(dvalue_, count * value_size, T(0));
        for (int64_t t = 0; t < shape_.T; t += queries_) {
            const int64_t n = std::min(queries_, shape_.T - t);
            const T* const own = weights + t * S;
            for (int64_t i = 0; i < n; ++i) {
                copy_numbers(query_ + i * size, query.at(t + i), size);
                copy_numbers(dy_ + i * value_size, dout.at(t + i), value_size);
            }
            keep(b, head, t, n, own);
            kernels_.outer(
                {{dy_, value_size, n}, 0, {kept_, stride_, n}, dvalue_, n, value_size, count});
            multiply(
                value, count, n, [&](int64_t i) { return dy_ + i * value_size; },
                [&](int64_t i) { return scores_ + i * stride_; });
            for (int64_t i = 0; i < n; ++i) {
                T* const row = scores_ + i * stride_;
                drop(b, head, t + i, row);
                const int64_t mine = keys_of(b, t + i);
                kernels_.softmax_backward(row, own + i * S, row, mine, inputs_.scale);
                std::fill(row + mine, row + count, T(0));
            }
            kernels_.outer({{query_, size, n}, 0, {scores_, stride_, n}, dkey_, n, size, count});
            multiply(
                key, size, n, [&](int64_t i) { return scores_ + i * stride_; },
                [&](int64_t i) { return dquery.at(t + i); });
        }
        write({shape_, gradients.key, S, size, b, head}, size, count, dkey_);
        write({shape_, gradients.value, S, value_size, b, head}, value_size, count, dvalue_);
    }

    /// The rows of a gradient, `count` of which are there, which are the columns of `from`.
    void write(HeadRows<T> to, int64_t size, int64_t count, const T* from) const noexcept {
        constexpr int64_t kColumns = 8;  // whose lines stay in the L1 cache together
        for (int64_t first = 0; first < size; first += kColumns)
            for (int64_t s = 0, last = std::min(first + kColumns, size); s < count; ++s)
                for (int64_t e = first; e < last; ++e) to.at(s)[e] = from[e * count + s];
        for (int64_t s = count; s < shape_.S; ++s) std::fill_n(to.at(s), size, T(0));
    }

    const Kernels<T>& kernels_;
    const AttentionShape& shape_;
    const AttentionInputs<T>& inputs_;
    int64_t queries_, stride_, zeros_count_ = 0;
    T *zeros_ = nullptr, *scores_ = nullptr, *kept_ = nullptr;
    T *keys_ = nullptr, *values_ = nullptr;  ///< packed
    T *query_ = nullptr, *dy_ = nullptr, *dkey_ = nullptr, *dvalue_ = nullptr;
};

void check(const AttentionShape& shape) {
    const auto at_least = [](int64_t least, int64_t size, const char* name) {
        if (size < least)
            throw std::invalid_argument(std::string(name) + " is " + std::to_string(size) +
                                        ", expected at least " + std::to_string(least));
    };
    at_least(0, shape.B, "B");
    at_least(0, shape.T, "T");
    at_least(0, shape.S, "S");
    at_least(1, shape.heads, "heads");
    at_least(0, shape.size, "size");
    at_least(0, shape.value_size, "value_size");
    for (int64_t b = 0; shape.lengths && b < shape.B; ++b)
        if (shape.lengths[b] < 0 || shape.lengths[b] > shape.S)
            throw std::invalid_argument("lengths: expected 0 .. S");
}

/// Shares `count` things among threads: calls run(worker, first, last).
template <class T, class LayOut, class Run>
void share(char letter, const AttentionShape& shape, const AttentionInputs<T>& inputs,
           int64_t count, int num_threads, LayOut lay_out, Run run) {
    const double pairs = double(shape.B) * double(shape.heads) * double(shape.T) * double(shape.S);
    // The exponential of a weight counts as some multiply-adds.
    const double work = pairs * double(shape.size + shape.value_size + 16);
    const double useful = std::min(1 + work / kWorkOfThread, double(std::max(count, int64_t(1))));
    const int team_size = int(std::min(double(num_threads), useful));
    Worker<T> worker(shape, inputs);
    Arena counting(nullptr);
    (worker.*lay_out)(counting);
    const Buffer memory(size_product(counting.used(), team_size));
    const CallKind kind({letter, shape.B, shape.T, shape.S, shape.heads, shape.size, sizeof(T)});
    run_fast_team(kind, team_size, [&](Team& team) noexcept {
        const FlushDenormals mode;
        Worker<T> own = worker;
        Arena arena(static_cast<char*>(memory.data()) + team.rank * counting.used());
        (own.*lay_out)(arena);
        run(own, count * team.rank / team.size, count * (team.rank + 1) / team.size);
    });
}

}  // namespace

template <class T>
void attention(const AttentionShape& shape, const AttentionInputs<T>& inputs, T* y, T* weights,
               T* mean, int num_threads) {
    check(shape);
    share('a', shape, inputs, shape.B * shape.T, num_threads, &Worker<T>::lay_out_forward,
          [&](Worker<T>& worker, int64_t first, int64_t last) noexcept {
              worker.forward(first, last, y, weights, mean);
          });
}

template <class T>
void attention_backward(const AttentionShape& shape, const AttentionInputs<T>& inputs,
                        const T* weights, const T* dy, const AttentionGradients<T>& gradients,
                        int num_threads) {
    check(shape);
    share('A', shape, inputs, shape.B * shape.heads, num_threads, &Worker<T>::lay_out_backward,
          [&](Worker<T>& worker, int64_t first, int64_t last) noexcept {
              worker.backward(first, last, weights, dy, gradients);
          });
}

#define LSTMCORE_INSTANTIATE(T)                                                                  \
    template void attention(const AttentionShape&, const AttentionInputs<T>&, T*, T*, T*, int);  \
    template void attention_backward(const AttentionShape&, const AttentionInputs<T>&, const T*, \
                                     const T*, const AttentionGradients<T>&, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
