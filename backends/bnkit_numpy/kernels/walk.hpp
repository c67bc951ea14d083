// How the kernels walk a view (groups, rows, channels, inner): row by row (rows.hpp), in units, cut into parts.
//
// The unit of work is a channel of runs, a block of columns where the rows are few, or all columns of a group. The
// results of a unit follow its sums, so that the second read finds in a cache what the first brought: a training
// forward moves 2 transfers of the tensor, a backward 3. A unit that is too large for that, or one of too few, is cut
// into runs of rows which the threads share: 3 and 5 transfers beyond the last-level cache, less what the second pass,
// which takes the parts backwards, still finds there. Results that would not stay in the cache are streamed past it.
//
// Cuts and orders of addition depend on the shape alone, so the bits do not depend on the threads.
//
// Tried and dropped: taking the sums of the next channel while the results of this one are written (memory reads and
// writes at once, but it lost to plain order), software prefetch of runs, narrow blocks of columns of tall matrices,
// sums of 32 rows of a few columns in registers (strides of a row kept memory below half of its speed).
#pragma once

#include "results.hpp"
#include "sums.hpp"
#include "threads.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

constexpr index small_total = 1 << 15;    // elements of a tensor below which one thread is faster
constexpr index piece = 1 << 15;          // elements of a part at least
constexpr index most_parts = 64;
constexpr index cached_channel = 1 << 20; // elements of a channel that a thread's share of the last-level cache holds
constexpr index few_channels = 32;        // too few for one a thread
constexpr index few_rows = 256;           // a matrix with so few goes by blocks of columns
constexpr index cached_block = 1 << 16;   // elements of such a block
constexpr index many_columns = 1024;      // whose last sums are worth sharing

template <typename Work> void in_parallel(index count, const Work& work, bool backwards = false) {
    const auto call = [](const void* context, index i) { (*static_cast<const Work*>(context))(i); };
    parallel_for(count, backwards, call, &work);
}

// Walks a view for a kernel K, which has
//   Storage, Arithmetic                    what elements are stored and computed in
//   lines                                  what an element's sums and results are made of
//   begin(channel, line, count)            sets the first K::term_values of the lines, before their sums are taken
//   term(values, tag, row, i)              what is summed of the elements at i of the row, a Pair
//   finish(channel, line, count, p, q)     is told the sums of each channel, and sets all K::map_values of its lines
//   map(values, tag, row, i, put)          writes the results at i by put
//   fetch(i)                               begins to bring what term reads of the elements from i on
//   maps(), to_cache_line(i)               whether there are results; how far from i a cache line of them starts
// One of which only results are asked needs no term, finish and fetch. `tag` is of the type that holds the elements at
// i: a vector, or for the elements left over one of them.
template <typename K> class Walk {
    using A = typename K::Arithmetic;

  public:
    Walk(const Shape& shape, K& kernel, bool exact_tail, bool streamed)
        : frame_(shape, kernel), add_(frame_), apply_(frame_, exact_tail, streamed) {}

    // The sums of all channels, and the results that follow from them.
    void reduce_and_map() const {
        const index total = frame_.shape.groups * frame_.elements, width = unit_width();
        const index blocks = (frame_.lines + width - 1) / width, units = frame_.shape.groups * blocks;
        const index parts = parts_of(width);
        const auto unit = [&](index u) {
            const index first = u % blocks * width;
            return Unit{u / blocks, first, smaller(width, frame_.lines - first)};
        };
        if (total <= small_total || parts == 1) {
            const auto work = [&](index u) { whole(unit(u)); };
            if (total > small_total) return in_parallel(units, work);
            for (index u = 0; u < units; ++u) work(u);
        } else {
            for (index u = 0; u < units; ++u) cut(unit(u), parts);
        }
    }

    // The results alone.
    void map() const {
        const index of_group = frame_.rows.count * (frame_.rows.runs ? frame_.shape.channels : 1);
        const index count = frame_.shape.groups * of_group, total = frame_.shape.groups * frame_.elements;
        const index parts = total <= small_total ? 1 : larger(smaller(total / piece, count), 1);
        for (index g = 0; g < frame_.shape.groups; ++g) begin({g, 0, frame_.lines});
        const auto work = [&](index p) {
            const index end = (p + 1) * count / parts;
            for (index i = p * count / parts, more; i < end; i += more) {
                const index group = i / of_group, r = i % of_group, c = frame_.shape.channels;
                more = frame_.rows.runs ? 1 : smaller(of_group - r, end - i);
                if (frame_.rows.runs) apply_({group, r % c, 1}, r / c, r / c + 1);
                else apply_({group, 0, frame_.rows.width}, r, r + more);
            }
            finish_streams();
        };
        if (parts == 1) return work(0);
        in_parallel(parts, work);
    }

  private:
    index unit_width() const {
        const Shape& shape = frame_.shape;
        const Rows& rows = frame_.rows;
        if (rows.runs) return 1;
        const bool small = shape.groups * frame_.elements <= small_total;
        if (small || rows.count > few_rows || rows.fold > 1) return frame_.lines;
        const index fitting = cached_block / larger(rows.count, 1) / 64 * 64;
        const index eighth = (frame_.lines * smaller(shape.groups, 8) / 8 + 63) / 64 * 64;
        return larger(smaller(fitting, eighth), 64);
    }

    index parts_of(index width) const {
        const Shape& shape = frame_.shape;
        const Rows& rows = frame_.rows;
        const index elements = rows.count * (rows.runs ? rows.width : width);
        if (rows.runs && elements <= cached_channel && shape.groups * shape.channels >= few_channels) return 1;
        if (!rows.runs && width < frame_.lines) return 1;
        // each part of a matrix has sums for all columns, which must stay few beside the elements
        const index most = rows.runs ? rows.count : rows.count / 128;
        return larger(smaller(smaller(elements / piece, most), most_parts), 1);
    }

    void whole(const Unit& unit) const {
        Scratch<double> sums(2 * unit.width);
        begin(unit);
        add_(unit, 0, frame_.rows.count, sums.data(), sums.data() + unit.width);
        finish(unit, sums.data(), sums.data() + unit.width);
        apply_(unit, 0, frame_.rows.count);
        finish_streams();
    }

    void cut(const Unit& unit, index parts) const {
        const index width = unit.width;
        const auto row = [&](index part) { return part * frame_.rows.count / parts; };
        Scratch<double> sums(parts * 2 * width);
        begin(unit);
        in_parallel(parts, [&](index p) {
            double* own = sums.data() + p * 2 * width;
            add_(unit, row(p), row(p + 1), own, own + width);
        });
        const index shares = frame_.rows.fold > 1 ? 1 : (width + many_columns - 1) / many_columns;
        const auto end = [&](index share) {
            const index from = share * width / shares, to = (share + 1) * width / shares;
            double* first = sums.data();
            for (index p = 1; p < parts; ++p) {
                const double* more = sums.data() + p * 2 * width;
                for (index c = from; c < to; ++c) first[c] += more[c];
                for (index c = from; c < to; ++c) first[width + c] += more[width + c];
            }
            finish({unit.group, unit.first + from, to - from}, first + from, first + width + from);
        };
        if (shares == 1) end(0);
        else in_parallel(shares, end);
        in_parallel(parts, [&](index p) {
            apply_(unit, row(p), row(p + 1));
            finish_streams();
        }, true);
    }

    void begin(const Unit& unit) const {
        const index count = frame_.rows.fold > 1 ? frame_.shape.channels : unit.width;
        frame_.kernel.begin(unit.group * frame_.shape.channels + unit.first, frame_.line_of(unit), count);
        repeat(unit, K::term_values);
    }

    void finish(const Unit& unit, double* first, double* second) const {
        const index count = frame_.rows.fold > 1 ? frame_.shape.channels : unit.width;
        for (index c = count; c < unit.width; ++c) {
            first[c % count] += first[c];
            second[c % count] += second[c];
        }
        const index channel = unit.group * frame_.shape.channels + unit.first;
        frame_.kernel.finish(channel, frame_.line_of(unit), count, first, second);
        repeat(unit, K::map_values);
    }

    // The channels of folded rows come around again.
    void repeat(const Unit& unit, int values) const {
        if (frame_.rows.fold == 1) return;
        for (int m = 0; m < values; ++m) {
            A* line = frame_.kernel.lines.of(m) + frame_.line_of(unit);
            for (index c = frame_.shape.channels; c < frame_.rows.width; ++c) line[c] = line[c - frame_.shape.channels];
        }
    }

    const Frame<K> frame_;
    const Adder<K> add_;
    const Mapper<K> apply_;
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
