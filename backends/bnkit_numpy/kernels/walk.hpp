// How the kernels walk a view (groups, rows, channels, inner): row by row (rows.hpp), in units, cut into parts.
//
// The unit of work is a channel of runs, a block of columns where the rows are few or their runs short, or all columns
// of a group. The results of a unit follow its sums, so that the second read finds in a cache what the first brought:
// a training forward moves 2 transfers of the tensor, a backward 3. A unit that is too large for that, or one of too
// few, is cut into runs of rows which the threads share: 3 and 5 transfers beyond the last-level cache, less what the
// second pass, which takes the parts backwards, still finds there. Results that would not stay in the cache are
// streamed past it.
//
// Cuts and orders of addition depend on the shape alone, so the bits do not depend on the threads.
//
// Tried and dropped: taking the sums of the next channel while the results of this one are written (memory reads and
// writes at once, but it lost to plain order), software prefetch of runs, narrow blocks of columns of tall matrices,
// sums of 32 rows of a few columns in registers (which reads memory by strides of a row), streamed rows from the last
// on, or two and four at a time.
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
constexpr index few_blocks = 4;           // too few for one a thread
constexpr index many_columns = 1024;      // whose last sums are worth sharing

template <typename Work> void in_parallel(index count, const Work& work, bool backwards = false) {
    const auto call = [](const void* context, index i) { (*static_cast<const Work*>(context))(i); };
    parallel_for(count, backwards, call, &work);
}

// Walks a view for a kernel K, which has
//   Storage, Arithmetic                    what elements are stored and computed in
//   lines                                  what an element's sums and results are made of
//   begin(channel, count)                  sets the first K::term_values of the lines, before their sums are taken
//   finish(channel, count, p, q)           is told the sums of each channel, and sets all K::map_values of its lines
//   at(row)                                the row's elements, with
//       term(values, tag, i)               what is summed of those at i, a Pair
//       map(values, tag, i, put)           which writes the results of those at i by put
//   fetch(i)                               begins to bring what term reads of the elements from i on
//   maps(), to_cache_line(i)               whether there are results; how far from i a cache line of them starts
// One of which only results are asked needs no term, finish and fetch. `tag` is of the type that holds the elements at
// i: a vector, or for the elements left over one of them.
template <typename K> class Walk {
    using A = typename K::Arithmetic;

  public:
    Walk(const Shape& shape, const Rows& rows, K& kernel, bool exact_tail, bool streamed)
        : frame_(shape, rows, kernel), add_(frame_), apply_(frame_, exact_tail, streamed) {}

    // The sums of all channels, and the results that follow from them.
    void reduce_and_map() const {
        const index total = frame_.shape.groups * frame_.elements, width = unit_width();
        const index units = units_of(width), parts = parts_of(width);
        if (total <= small_total || parts == 1) {
            const auto work = [&](index u) { whole(unit(u, width)); };
            if (total > small_total) return in_parallel(units, work);
            for (index u = 0; u < units; ++u) work(u);
        } else {
            for (index u = 0; u < units; ++u) cut(unit(u, width), parts);
        }
    }

    // The results alone.
    void map() const {
        const index total = frame_.shape.groups * frame_.elements, of_channels = frame_.shape.channels;
        frame_.kernel.begin(0, frame_.shape.groups * of_channels);
        const index count = frame_.rows.count;
        if (frame_.rows.runs) {  // as they lie in memory
            return in_parts(frame_.shape.groups * count * of_channels, total, [&](index from, index to) {
                for (index i = from, stop; i < to; i = stop) {
                    const index r = i / of_channels, group = r / count;
                    stop = smaller(to, (r + 1) * of_channels);
                    for (index c = i - r * of_channels; c < stop - r * of_channels; ++c) {
                        const Unit run{group, c, 1};
                        apply_(run, channels_of(run), r - group * count, r - group * count + 1);
                    }
                }
            });
        }
        const index width = frame_.rows.spread > 1 ? unit_width() : frame_.columns;
        in_parts(units_of(width) * count, total, [&](index from, index to) {
            for (index i = from, stop; i < to; i = stop) {
                stop = smaller(to, (i / count + 1) * count);
                map_rows(unit(i / count, width), i % count, i % count + (stop - i));
            }
        });
    }

  private:
    // Calls work(from, to) with parts of [0, count).
    template <typename Work> static void in_parts(index count, index elements, const Work& work) {
        const index parts = elements <= small_total ? 1 : larger(smaller(elements / piece, count), 1);
        const auto call = [&](index p) {
            work(p * count / parts, (p + 1) * count / parts);
            finish_streams();
        };
        if (parts == 1) return call(0);
        in_parallel(parts, call);
    }

    void map_rows(const Unit& unit, index from, index to) const {
        Scratch<A> own(own_values(unit));
        apply_(unit, columns_of(unit, own, K::map_values), from, to);
    }

    index units_of(index width) const { return frame_.shape.groups * ((frame_.columns + width - 1) / width); }

    Unit unit(index u, index width) const {
        const index blocks = (frame_.columns + width - 1) / width, first = u % blocks * width;
        return {u / blocks, first, smaller(width, frame_.columns - first)};
    }

    index unit_width() const {
        const Shape& shape = frame_.shape;
        const Rows& rows = frame_.rows;
        if (rows.runs) return 1;
        const bool small = shape.groups * frame_.elements <= small_total;
        if (small || (rows.count > few_rows && rows.spread == 1) || rows.fold > 1) return frame_.columns;
        const index step = rows.spread == 1 ? 64 : channels_to_line(rows.spread) * rows.spread;
        const index fitting = cached_block / larger(rows.count, 1) / step * step;
        const index eighth = (frame_.columns * smaller(shape.groups, 8) / 8 + step - 1) / step * step;
        const index width = larger(smaller(fitting, eighth), step);
        const bool few = shape.groups * frame_.columns < few_blocks * width;
        return few && rows.spread > 1 ? frame_.columns : width;
    }

    // Channels of `spread` columns that begin and end with cache lines.
    static index channels_to_line(index spread) {
        index channels = 64 / static_cast<index>(sizeof(typename K::Storage));
        while (channels > 1 && spread % 2 == 0) channels /= 2, spread /= 2;
        return channels;
    }

    // How many sums of a kind a unit has.
    index sums_of(const Unit& unit) const { return unit.width / frame_.rows.spread; }

    index parts_of(index width) const {
        const Shape& shape = frame_.shape;
        const Rows& rows = frame_.rows;
        const index elements = rows.count * (rows.runs ? rows.width : width);
        if (rows.runs && elements <= cached_channel && shape.groups * shape.channels >= few_channels) return 1;
        if (!rows.runs && width < frame_.columns) return 1;
        // each part of a matrix has sums for all columns, which must stay few beside the elements
        const index most = rows.runs ? rows.count : rows.count * rows.spread / 128;
        return larger(smaller(smaller(elements / piece, most), most_parts), 1);
    }

    void whole(const Unit& unit) const {
        const index count = sums_of(unit);
        Scratch<double> sums(2 * count);
        Scratch<A> own(own_values(unit));
        begin(unit);
        add_(unit, columns_of(unit, own, K::term_values), 0, frame_.rows.count, sums.data(), sums.data() + count);
        finish(unit, sums.data(), sums.data() + count);
        apply_(unit, columns_of(unit, own, K::map_values), 0, frame_.rows.count);
        finish_streams();
    }

    void cut(const Unit& unit, index parts) const {
        const index count = sums_of(unit), spread = frame_.rows.spread;
        const auto row = [&](index part) { return part * frame_.rows.count / parts; };
        Scratch<double> sums(parts * 2 * count);
        Scratch<A> own(own_values(unit));
        begin(unit);
        const Columns<A> terms = columns_of(unit, own, K::term_values);
        in_parallel(parts, [&](index p) {
            double* first = sums.data() + p * 2 * count;
            add_(unit, terms, row(p), row(p + 1), first, first + count);
        });
        const index shares = frame_.rows.fold > 1 ? 1 : (count + many_columns - 1) / many_columns;
        const auto end = [&](index share) {
            const index from = share * count / shares, to = (share + 1) * count / shares;
            double* first = sums.data();
            for (index p = 1; p < parts; ++p) {
                const double* more = sums.data() + p * 2 * count;
                for (index c = from; c < to; ++c) first[c] += more[c];
                for (index c = from; c < to; ++c) first[count + c] += more[count + c];
            }
            finish({unit.group, unit.first + from * spread, (to - from) * spread}, first + from, first + count + from);
        };
        if (shares == 1) end(0);
        else in_parallel(shares, end);
        const Columns<A> results = columns_of(unit, own, K::map_values);
        in_parallel(parts, [&](index p) {
            apply_(unit, results, row(p), row(p + 1));
            finish_streams();
        }, true);
    }

    void begin(const Unit& unit) const { frame_.kernel.begin(frame_.channel_of(unit), frame_.channels_of(unit)); }

    void finish(const Unit& unit, double* first, double* second) const {
        const index count = frame_.channels_of(unit);
        for (index c = count; c < sums_of(unit); ++c) {
            first[c % count] += first[c];
            second[c % count] += second[c];
        }
        frame_.kernel.finish(frame_.channel_of(unit), count, first, second);
    }

    // How many values the columns of a unit have of their own: none where they are the channels.
    index own_values(const Unit& unit) const {
        return frame_.rows.fold * frame_.rows.spread == 1 ? 0 : K::map_values * unit.width;
    }

    // The values of the unit's channels, where each is one column.
    Columns<A> channels_of(const Unit& unit) const {
        return {frame_.kernel.lines.of(0) + frame_.channel_of(unit), frame_.kernel.lines.count()};
    }

    // The first `values` values of the unit's columns, in `own` where one channel has several columns.
    Columns<A> columns_of(const Unit& unit, const Scratch<A>& own, int values) const {
        const auto& lines = frame_.kernel.lines;
        const index channel = frame_.channel_of(unit), count = frame_.channels_of(unit), spread = frame_.rows.spread;
        if (own_values(unit) == 0) return channels_of(unit);
        for (int m = 0; m < values; ++m) {
            const A* from = lines.of(m) + channel;
            A* to = own.data() + m * unit.width;
            for (index c = 0; c < count; ++c) {
                for (index i = 0; i < spread; ++i) to[c * spread + i] = from[c];
            }
            for (index c = count * spread; c < unit.width; ++c) to[c] = to[c - count];
        }
        return {own.data(), unit.width};
    }

    const Frame<K> frame_;
    const Adder<K> add_;
    const Mapper<K> apply_;
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
