// The sums of a unit's channels over some of its rows.
#pragma once

#include "frame.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

// Additions to a float before the sum goes on in double. The squares of data on a coarse grid (a mean of 1e4 in
// float32) all round the same way once a sum is large: at 128 the variance came out 5e-7 too small.
constexpr int short_sum = 32;

template <typename K> class Adder {
    using A = typename K::Arithmetic;
    using V = Vector<A>;
    static constexpr int step = lanes<V>();

  public:
    explicit Adder(const Frame<K>& frame) : frame_(frame) {}

    // Sets first and second to the sums over the rows [from, to).
    void operator()(const Unit& unit, index from, index to, double* first, double* second) const {
        for (index c = 0; c < unit.width; ++c) first[c] = second[c] = 0;
        if (frame_.rows.runs) return add_runs(unit, from, to, *first, *second);
        Scratch<A> short_sums(2 * unit.width);
        for (index r = from; r < to; r += short_sum) {
            const index stop = smaller(r + short_sum, to);
            const index same = frame_.length(unit, stop - 1) == unit.width ? stop : stop - 1;
            add_columns(unit, r, same, unit.width, short_sums.data(), first, second);
            if (same < stop) add_columns(unit, same, stop, frame_.length(unit, same), short_sums.data(), first, second);
        }
    }

  private:
    // A few rows at a time over all columns, so that memory is read as it lies, into short sums that stay in the cache.
    void add_columns(const Unit& unit, index from, index to, index width, A* sums, double* first,
                     double* second) const {
        A *p = sums, *q = sums + width;
        for (index c = 0; c < 2 * width; ++c) p[c] = 0;
        constexpr index high = 8;
        for (index r = from; r < to; r += high) {
            const index stop = smaller(r + high, to);
            index c = 0;
            for (; c + 4 * step <= width; c += 4 * step) add_tile<V, 4>(unit, r, stop, c, 0, p, q);
            for (; c + step <= width; c += step) add_tile<V, 1>(unit, r, stop, c, 0, p, q);
            if (c < width && width >= step) {
                add_tile<V, 1>(unit, r, stop, width - step, static_cast<int>(c - (width - step)), p, q);
            } else {
                for (; c < width; ++c) add_tile<A, 1>(unit, r, stop, c, 0, p, q);
            }
        }
        for (index c = 0; c < width; ++c) first[c] += static_cast<double>(p[c]);
        for (index c = 0; c < width; ++c) second[c] += static_cast<double>(q[c]);
    }

    // N vectors of columns from c on; the first `known` columns were added before.
    template <typename Tag, int N>
    void add_tile(const Unit& unit, index from, index to, index c, int known, A* first, A* second) const {
        constexpr int wide = lanes<Tag>();
        Values<Tag, K::term_values> values[N];
        Tag p[N] = {}, q[N] = {};
        for (int n = 0; n < N; ++n) {
            const index line = frame_.line_of(unit) + c + n * wide;
            values[n] = values_of_columns<Tag, K::term_values>(frame_.kernel.lines, line);
        }
        // The order of the tiles hides from the processor that memory is read on and on, so it is asked for as it lies.
        const bool far = unit.width > N * wide;
        const index next = frame_.row_of(unit, to + (to - from)).start + c * (to - from);
        for (index r = from; r < to; ++r) {
            const Row row = frame_.row_of(unit, r);
            for (int n = 0; far && n < N; ++n) frame_.kernel.fetch(next + ((r - from) * N + n) * wide);
            for (int n = 0; n < N; ++n) {
                const Pair<Tag> term = frame_.kernel.term(values[n], Tag{}, row, c + n * wide);
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

    void add_runs(const Unit& unit, index from, index to, double& first, double& second) const {
        constexpr index longest = 4 * step * (short_sum - 1);  // elements of a row that are added before the sums go on
        const auto values = values_of_channel<V, K::term_values>(frame_.kernel.lines, frame_.line_of(unit));
        const auto value = values_of_channel<A, K::term_values>(frame_.kernel.lines, frame_.line_of(unit));
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
            const Row row = frame_.row_of(unit, r);
            for (index i = 0; i < frame_.rows.width;) {
                const index stop = smaller(i + longest, frame_.rows.width);
                const int more = static_cast<int>((stop - i) / (4 * step)) + 1;
                if (additions + more > short_sum) flush();
                additions += more;
                for (; i + 4 * step <= stop; i += 4 * step) {  // four sums hide the latency of an addition
                    add(0, frame_.kernel.term(values, V{}, row, i));
                    add(1, frame_.kernel.term(values, V{}, row, i + step));
                    add(2, frame_.kernel.term(values, V{}, row, i + 2 * step));
                    add(3, frame_.kernel.term(values, V{}, row, i + 3 * step));
                }
                if (i + step <= stop) add(0, frame_.kernel.term(values, V{}, row, i)), i += step;
                if (i + step <= stop) add(1, frame_.kernel.term(values, V{}, row, i)), i += step;
                if (i + step <= stop) add(2, frame_.kernel.term(values, V{}, row, i)), i += step;
                if (i < stop && stop >= step) {
                    const Pair<V> term = frame_.kernel.term(values, V{}, row, stop - step);
                    const int known = static_cast<int>(i - (stop - step));
                    add(3, {without_first(term.first, known), without_first(term.second, known)});
                    i = stop;
                }
                for (; i < stop; ++i) {
                    const Pair<A> term = frame_.kernel.term(value, A{}, row, i);
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

    const Frame<K>& frame_;
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
