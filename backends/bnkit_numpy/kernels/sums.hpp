// The sums of a unit's channels over a range of its rows.
#pragma once

#include "frame.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

// Additions in float before the sum continues in double. The squares of data on a coarse grid (a mean of 1e4 in
// float32) all round in the same direction if a sum is large: with 128 additions the variance was 5e-7 too small.
constexpr int short_sum = 32;

template <typename T> class Adder {
    using A = Wide<typename T::Storage>;
    using V = Vector<A>;
    static constexpr int step = lanes<V>();

  public:
    Adder(const Frame& frame, const T& terms) : frame_(frame), terms_(terms) {}

    // Sets first and second to the sums over the rows [from, to), one for each column or for each `spread` columns.
    void operator()(const Unit& unit, const Columns<A>& columns, index from, index to, double* first,
                    double* second) const {
        for (index c = 0; c < unit.width / frame_.plan.rows.spread; ++c) first[c] = second[c] = 0;
        if (frame_.plan.rows.runs) return add_runs(unit, columns, from, to, *first, *second);
        Scratch<A> short_sums(2 * unit.width);
        for (index r = from; r < to; r += short_sum) {
            const index stop = smaller(r + short_sum, to);
            const index same = frame_.length(unit, stop - 1) == unit.width ? stop : stop - 1;
            add_columns(unit, columns, r, same, unit.width, short_sums.data(), first, second);
            const index last = frame_.length(unit, stop - 1);
            if (same < stop) add_columns(unit, columns, same, stop, last, short_sums.data(), first, second);
        }
    }

  private:
    // Adds up tiles of rows over all columns, so that memory is read in order, into short sums that stay in the cache.
    void add_columns(const Unit& unit, const Columns<A>& columns, index from, index to, index width, A* sums,
                     double* first, double* second) const {
        A *p = sums, *q = sums + width;
        for (index c = 0; c < 2 * width; ++c) p[c] = 0;
        const index high = rows_of_sums(width);  // rows of a tile
        for (index r = from; r < to; r += high) {
            const index stop = smaller(r + high, to);
            index c = 0;
            if (width == 6 * step) add_tile<V, 6>(unit, columns, r, stop, 0, 0, p, q), c = width;
            for (; c + 4 * step <= width; c += 4 * step) add_tile<V, 4>(unit, columns, r, stop, c, 0, p, q);
            if (c + 2 * step <= width) add_tile<V, 2>(unit, columns, r, stop, c, 0, p, q), c += 2 * step;
            for (; c + step <= width; c += step) add_tile<V, 1>(unit, columns, r, stop, c, 0, p, q);
            if (c < width && width >= step) {
                add_tile<V, 1>(unit, columns, r, stop, width - step, static_cast<int>(c - (width - step)), p, q);
            } else {
                for (; c < width; ++c) add_tile<A, 1>(unit, columns, r, stop, c, 0, p, q);
            }
        }
        const index spread = frame_.plan.rows.spread;
        for (index c = 0; spread > 1 && c < width / spread; ++c) {
            first[c] += sum<V>(p + c * spread, spread);
            second[c] += sum<V>(q + c * spread, spread);
        }
        if (spread > 1) return;
        for (index c = 0; c < width; ++c) first[c] += static_cast<double>(p[c]);
        for (index c = 0; c < width; ++c) second[c] += static_cast<double>(q[c]);
    }

    // Adds N vectors of columns from c on. The first `known` columns are already added.
    template <typename Tag, int N>
    void add_tile(const Unit& unit, const Columns<A>& columns, index from, index to, index c, int known, A* first,
                  A* second) const {
        constexpr int wide = lanes<Tag>();
        Values<Tag, T::values> values[N];
        Tag p[N] = {}, q[N] = {};
        for (int n = 0; n < N; ++n) values[n] = values_at<Tag, T::values>(columns, c + n * wide);
        // The processor does not recognize the order of the tiles, so the next elements in memory are prefetched; for a
        // block of columns, those of the next rows.
        const bool far = unit.width > N * wide, block = unit.width < frame_.plan.rows.width;
        const index ahead = to - from, step_ahead = block ? frame_.plan.rows.width : N * wide;
        const index next = frame_.row_of(unit, block ? to : to + ahead).start + (block ? c : c * ahead);
        const Row stride = frame_.stride;
        Row row = frame_.row_of(unit, from);
        for (index r = from; r < to; ++r, row += stride) {
            const auto elements = terms_.at(row);
            for (int n = 0; far && n < N; ++n) terms_.fetch(next + (r - from) * step_ahead + n * wide);
            for (int n = 0; n < N; ++n) {
                const Pair<Tag> term = elements.term(values[n], Tag{}, c + n * wide);
                p[n] += term.first;
                q[n] += term.second;
            }
        }
        for (int n = 0; n < N; ++n) {
            A *to_first = first + c + n * wide, *to_second = second + c + n * wide;
            store(to_first, load<Tag>(to_first) + (known ? without_first(p[n], known) : p[n]));
            store(to_second, load<Tag>(to_second) + (known ? without_first(q[n], known) : q[n]));
        }
    }

    void add_runs(const Unit& unit, const Columns<A>& columns, index from, index to, double& first,
                  double& second) const {
        constexpr index longest = 4 * step * (short_sum - 1);  // elements of a row before the sums continue in double
        const auto values = values_of_run<V, T::values>(columns);
        const auto value = values_of_run<A, T::values>(columns);
        V p[4] = {}, q[4] = {};
        double wide_p[step] = {}, wide_q[step] = {};
        int additions = 0;
        const auto add = [&](int slot, const Pair<V>& term) {
            p[slot] += term.first;
            q[slot] += term.second;
        };
        const auto flush = [&] {
            add_lanes(wide_p, (p[0] + p[1]) + (p[2] + p[3]));
            add_lanes(wide_q, (q[0] + q[1]) + (q[2] + q[3]));
            for (int slot = 0; slot < 4; ++slot) p[slot] = q[slot] = V{};
            additions = 0;
        };
        for (index r = from; r < to; ++r) {
            const auto elements = terms_.at(frame_.row_of(unit, r));
            for (index i = 0; i < frame_.plan.rows.width;) {
                const index stop = smaller(i + longest, frame_.plan.rows.width);
                const int more = static_cast<int>((stop - i) / (4 * step)) + 1;
                if (additions + more > short_sum) flush();
                additions += more;
                for (; i + 4 * step <= stop; i += 4 * step) {  // four sums hide the latency of an addition
                    add(0, elements.term(values, V{}, i));
                    add(1, elements.term(values, V{}, i + step));
                    add(2, elements.term(values, V{}, i + 2 * step));
                    add(3, elements.term(values, V{}, i + 3 * step));
                }
                if (i + step <= stop) add(0, elements.term(values, V{}, i)), i += step;
                if (i + step <= stop) add(1, elements.term(values, V{}, i)), i += step;
                if (i + step <= stop) add(2, elements.term(values, V{}, i)), i += step;
                if (i < stop && stop >= step) {
                    const Pair<V> term = elements.term(values, V{}, stop - step);
                    const int known = static_cast<int>(i - (stop - step));
                    add(3, {without_first(term.first, known), without_first(term.second, known)});
                    i = stop;
                }
                for (; i < stop; ++i) {
                    const Pair<A> term = elements.term(value, A{}, i);
                    first += term.first;
                    second += term.second;
                }
            }
        }
        flush();
        for (int lane = 0; lane < step; ++lane) {
            first += wide_p[lane];
            second += wide_q[lane];
        }
    }

    const Frame& frame_;
    const T& terms_;
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
