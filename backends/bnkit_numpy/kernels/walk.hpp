// How the kernels walk a view (groups, rows, channels, inner): row by row (rows.hpp), in units, cut into parts.
//
// The unit of work is a channel of runs, a block of columns where the rows are few, or all columns of a group. The
// results of a unit follow its sums, so that the second read finds in a cache what the first brought: a training forward
// moves 2 transfers of the tensor, a backward 3. A unit that is too large for that, or one of too few, is cut into runs
// of rows which the threads share: 3 and 5 transfers beyond the last-level cache, less what the second pass, which goes
// backwards, still finds there. Results that would not stay in the cache are streamed past it.
//
// Cuts and orders of addition depend on the shape alone, so the bits do not depend on the threads.
//
// Tried and dropped: taking the sums of the next channel while the results of this one are written (memory reads and
// writes at once, but it lost to plain order), software prefetch of runs, narrow blocks of columns of tall matrices,
// sums of 32 rows of a few columns in registers (strides of a row kept memory at 16 of 33 GB/s).
#pragma once

#include "rows.hpp"
#include "simd.hpp"
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
constexpr index many_columns = 1024;      // whose ends are worth sharing
// Additions to a float before the sum goes on in double. The squares of data on a coarse grid (a mean of 1e4 in float32)
// all round the same way once a sum is large: at 128 the variance came out 5e-7 too small.
constexpr int short_sum = 32;

struct Unit {
    index group, first, width;  // width: columns, or 1 for a channel of runs, from the group's `first` on
};

// A row as the kernels see it: its first element, and the byte where its bits start.
struct Row {
    index start, bits;
};

// What a channel gives to each of its elements: M values a line, a line a column of the rows or a channel of runs.
template <typename A, int M> class Lines {
  public:
    explicit Lines(index count) : values_(M * count), count_(count) {}

    A* of(int m) { return values_.data() + m * count_; }
    const A* of(int m) const { return values_.data() + m * count_; }
    index count() const { return count_; }

  private:
    Scratch<A> values_;
    index count_;
};

template <typename V, int M> struct Values {
    V of[M];
};

template <typename V, int M, typename Lines> inline Values<V, M> values_of_columns(const Lines& lines, index line) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = load<V>(lines.of(m) + line);
    return values;
}

template <typename V, int M, typename Lines> inline Values<V, M> values_of_channel(const Lines& lines, index line) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = V{} + lines.of(m)[line];
    return values;
}

template <typename Work> void in_parallel(index count, const Work& work, bool backwards = false) {
    const auto call = [](const void* context, index i) { (*static_cast<const Work*>(context))(i); };
    parallel_for(count, backwards, call, &work);
}

// Walks a view for a kernel K, which has
//   lines                                  what an element's sums and results are made of
//   begin(channel, line, count)            sets the first K::term_values of the lines, before their sums are taken
//   term(values, tag, row, i)              what is summed of the elements at i of the row, a Pair
//   finish(channel, line, count, p, q)     is told the sums of each channel, and sets all K::map_values of its lines
//   map(values, tag, row, i, put)          writes the results at i by put
//   maps(), to_cache_line(i)               whether there are results, and elements from i on to where a cache line starts
// exact_tail: map must see no element twice, since it packs bits or writes over its source. `tag` is of the type that holds the elements at i: a vector, or for the elements left over one of them.
template <typename K> class Walk {
    using A = typename K::Arithmetic;
    using V = Vector<A>;
    using Lines = decltype(K::lines);
    static constexpr int step = lanes<V>();
    // Elements of 16 bytes, which streamed rows have a whole number of, and of a cache line.
    static constexpr int block = 16 / static_cast<int>(sizeof(typename K::Storage)), line = 4 * block;
    using Block = VectorN<A, step == 1 ? 1 : block>;

  public:
    Walk(const Shape& shape, K& kernel, bool exact_tail, bool streamed)
        : shape_(shape), rows_(rows_of(shape)), kernel_(kernel), exact_tail_(exact_tail), streamed_(streamed),
          group_(shape.rows * shape.channels * shape.inner), lines_(rows_.runs ? shape.channels : rows_.width) {}

    // The sums of all channels, and the results that follow from them.
    void reduce_and_map() const {
        const index total = shape_.groups * group_, width = unit_width();
        const index blocks = (lines_ + width - 1) / width, units = shape_.groups * blocks, parts = parts_of(width);
        const auto unit = [&](index u) {
            const index first = u % blocks * width;
            return Unit{u / blocks, first, smaller(width, lines_ - first)};
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
        const index of_group = rows_.count * (rows_.runs ? shape_.channels : 1), count = shape_.groups * of_group;
        const index total = shape_.groups * group_;
        const index parts = total <= small_total ? 1 : larger(smaller(total / piece, count), 1);
        for (index g = 0; g < shape_.groups; ++g) begin({g, 0, lines_});
        const auto work = [&](index p) {
            for (index i = p * count / parts; i < (p + 1) * count / parts; ++i) {
                const index group = i / of_group, r = i % of_group;
                if (rows_.runs) {
                    apply({group, r % shape_.channels, 1}, r / shape_.channels, r / shape_.channels + 1);
                } else {
                    apply({group, 0, rows_.width}, r, r + 1);
                }
            }
            finish_streams();
        };
        if (parts == 1) return work(0);
        in_parallel(parts, work);
    }

  private:
    index unit_width() const {
        if (rows_.runs) return 1;
        if (shape_.groups * group_ <= small_total || rows_.count > few_rows || rows_.fold > 1) return larger(lines_, 1);
        const index fitting = cached_block / larger(rows_.count, 1) / 64 * 64;
        const index eighth = (lines_ * smaller(shape_.groups, 8) / 8 + 63) / 64 * 64;
        return larger(smaller(fitting, eighth), 64);
    }

    index parts_of(index width) const {
        const index elements = rows_.count * (rows_.runs ? rows_.width : width);
        if (rows_.runs && elements <= cached_channel && shape_.groups * shape_.channels >= few_channels) return 1;
        if (!rows_.runs && width < lines_) return 1;
        // each part of a matrix has sums for all columns, which must stay few beside the elements
        const index most = rows_.runs ? rows_.count : rows_.count / 128;
        return larger(smaller(smaller(elements / piece, most), most_parts), 1);
    }

    void whole(const Unit& unit) const {
        Scratch<double> sums(2 * unit.width);
        begin(unit);
        add(unit, 0, rows_.count, sums.data(), sums.data() + unit.width);
        finish(unit, sums.data(), sums.data() + unit.width);
        apply(unit, 0, rows_.count);
        finish_streams();
    }

    void cut(const Unit& unit, index parts) const {
        const index width = unit.width;
        const auto row = [&](index part) { return part * rows_.count / parts; };
        Scratch<double> sums(parts * 2 * width);
        begin(unit);
        in_parallel(parts, [&](index p) {
            double* own = sums.data() + p * 2 * width;
            add(unit, row(p), row(p + 1), own, own + width);
        });
        const index shares = rows_.fold > 1 ? 1 : (width + many_columns - 1) / many_columns;
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
            apply(unit, row(p), row(p + 1));
            finish_streams();
        }, true);
    }

    index line_of(const Unit& unit) const { return unit.group * lines_ + unit.first; }

    void begin(const Unit& unit) const {
        const index count = rows_.fold > 1 ? shape_.channels : unit.width;
        kernel_.begin(unit.group * shape_.channels + unit.first, line_of(unit), count);
        repeat(unit, K::term_values);
    }

    void finish(const Unit& unit, double* first, double* second) const {
        const index count = rows_.fold > 1 ? shape_.channels : unit.width;
        for (index c = count; c < unit.width; ++c) {
            first[c % count] += first[c];
            second[c % count] += second[c];
        }
        kernel_.finish(unit.group * shape_.channels + unit.first, line_of(unit), count, first, second);
        repeat(unit, K::map_values);
    }

    // The channels of folded rows come around again.
    void repeat(const Unit& unit, int values) const {
        if (rows_.fold == 1) return;
        for (int m = 0; m < values; ++m) {
            A* line = kernel_.lines.of(m) + line_of(unit);
            for (index c = shape_.channels; c < rows_.width; ++c) line[c] = line[c - shape_.channels];
        }
    }

    Row row_of(const Unit& unit, index r) const {
        if (rows_.runs) {
            const index run = (unit.group * shape_.rows + r) * shape_.channels + unit.first;
            return {run * rows_.width, run * bytes_of_bits(rows_.width)};
        }
        return {unit.group * group_ + r * rows_.width + unit.first,
                (unit.group * rows_.count + r) * bytes_of_bits(rows_.width) + unit.first / 8};
    }

    // How many elements of row r the unit has.
    index length(const Unit& unit, index r) const {
        return rows_.runs ? rows_.width : smaller(unit.width, (r + 1 < rows_.count ? rows_.width : rows_.last) - unit.first);
    }

    // Sets first and second to the sums over the rows [from, to).
    void add(const Unit& unit, index from, index to, double* first, double* second) const {
        for (index c = 0; c < unit.width; ++c) first[c] = second[c] = 0;
        if (rows_.runs) return add_runs(unit, from, to, *first, *second);
        for (index r = from; r < to; r += short_sum) {
            const index stop = smaller(r + short_sum, to), same = length(unit, stop - 1) == unit.width ? stop : stop - 1;
            add_columns(unit, r, same, unit.width, first, second);
            if (same < stop) add_columns(unit, same, stop, length(unit, same), first, second);
        }
    }

    // A few rows at a time over all columns, so that memory is read as it lies, into short sums that stay in the cache.
    void add_columns(const Unit& unit, index from, index to, index width, double* first, double* second) const {
        Scratch<A> sums(2 * width);
        A *p = sums.data(), *q = sums.data() + width;
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
            values[n] = values_of_columns<Tag, K::term_values>(kernel_.lines, line_of(unit) + c + n * wide);
        }
        // The order of the tiles hides from the processor that memory is read on and on, so it is asked for as it lies.
        const bool far = unit.width > N * wide;
        const index next = row_of(unit, to + (to - from)).start + c * (to - from);
        for (index r = from; r < to; ++r) {
            const Row row = row_of(unit, r);
            for (int n = 0; far && n < N; ++n) kernel_.fetch(next + ((r - from) * N + n) * wide);
            for (int n = 0; n < N; ++n) {
                const Pair<Tag> term = kernel_.term(values[n], Tag{}, row, c + n * wide);
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
        const auto values = values_of_channel<V, K::term_values>(kernel_.lines, line_of(unit));
        const auto value = values_of_channel<A, K::term_values>(kernel_.lines, line_of(unit));
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
            const Row row = row_of(unit, r);
            for (index i = 0; i < rows_.width;) {
                const index stop = smaller(i + longest, rows_.width);
                const int more = static_cast<int>((stop - i) / (4 * step)) + 1;
                if (additions + more > short_sum) flush();
                additions += more;
                for (; i + 4 * step <= stop; i += 4 * step) {  // four sums hide the latency of an addition
                    add(0, kernel_.term(values, V{}, row, i));
                    add(1, kernel_.term(values, V{}, row, i + step));
                    add(2, kernel_.term(values, V{}, row, i + 2 * step));
                    add(3, kernel_.term(values, V{}, row, i + 3 * step));
                }
                if (i + step <= stop) add(0, kernel_.term(values, V{}, row, i)), i += step;
                if (i + step <= stop) add(1, kernel_.term(values, V{}, row, i)), i += step;
                if (i + step <= stop) add(2, kernel_.term(values, V{}, row, i)), i += step;
                if (i < stop && stop >= step) {
                    const Pair<V> term = kernel_.term(values, V{}, row, stop - step);
                    const int known = static_cast<int>(i - (stop - step));
                    add(3, {without_first(term.first, known), without_first(term.second, known)});
                    i = stop;
                }
                for (; i < stop; ++i) {
                    const Pair<A> term = kernel_.term(value, A{}, row, i);
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

    void apply(const Unit& unit, index from, index to) const {
        if (!kernel_.maps()) return;
        if (rows_.runs) {
            const Lines& lines = kernel_.lines;
            const index line = line_of(unit);
            const auto vector = values_of_channel<V, K::map_values>(lines, line);
            const auto block = values_of_channel<Block, K::map_values>(lines, line);
            const auto value = values_of_channel<A, K::map_values>(lines, line);
            const auto of = [&](auto tag, index) {
                if constexpr (sizeof tag == sizeof(V)) return vector;
                else if constexpr (sizeof tag == sizeof(A)) return value;
                else return block;
            };
            for (index r = from; r < to; ++r) map_row(row_of(unit, r), rows_.width, of);
            return;
        }
        const auto of = [&](auto tag, index i) {
            return values_of_columns<decltype(tag), K::map_values>(kernel_.lines, line_of(unit) + i);
        };
        if (streamed_) {
            for (index r = from; r < to; ++r) map_row(row_of(unit, r), length(unit, r), of);
            return;
        }
        constexpr index high = 16;  // rows whose results are made together
        for (index r = from; r < to; r += high) {
            const index stop = smaller(r + high, to), same = length(unit, stop - 1) == unit.width ? stop : stop - 1;
            map_tiles(unit, r, same, unit.width);
            if (same < stop) map_tiles(unit, same, stop, length(unit, same));
        }
    }

    template <typename Of> void map_row(const Row& row, index width, const Of& of) const {
        index i = 0;
        if (streamed_ && rows_.runs) {
            // Whole cache lines are streamed; the ends, which other channels complete, go through the cache.
            const index head = smaller(kernel_.to_cache_line(row.start), width);
            for (; i + block <= head; i += block) kernel_.map(of(Block{}, i), Block{}, row, i, Cached{});
            for (; i + line <= width; i += line) {
                for (index v = 0; v < line; v += step) kernel_.map(of(V{}, i + v), V{}, row, i + v, Streamed{});
            }
            for (; i + block <= width; i += block) kernel_.map(of(Block{}, i), Block{}, row, i, Cached{});
        } else if (streamed_) {  // the next row goes on where this one ends
            for (; i + step <= width; i += step) kernel_.map(of(V{}, i), V{}, row, i, Streamed{});
            for (; i + block <= width; i += block) kernel_.map(of(Block{}, i), Block{}, row, i, Streamed{});
        } else {
            for (; i + step <= width; i += step) kernel_.map(of(V{}, i), V{}, row, i, Cached{});
            if (i < width && width >= step && !exact_tail_) {
                return kernel_.map(of(V{}, width - step), V{}, row, width - step, Cached{});
            }
        }
        for (; i < width; ++i) kernel_.map(of(A{}, i), A{}, row, i, Cached{});
    }

    // The values of a few columns stay in registers for the rows.
    void map_tiles(const Unit& unit, index from, index to, index width) const {
        constexpr int wide = vector_bytes == 64 ? 4 : 2;
        index c = 0;
        for (; c + wide * step <= width; c += wide * step) map_tile<V, wide>(unit, from, to, c);
        for (; c + step <= width; c += step) map_tile<V, 1>(unit, from, to, c);
        if (c < width && width >= step && !exact_tail_) return map_tile<V, 1>(unit, from, to, width - step);
        for (; c < width; ++c) map_tile<A, 1>(unit, from, to, c);
    }

    template <typename Tag, int N> void map_tile(const Unit& unit, index from, index to, index c) const {
        Values<Tag, K::map_values> values[N];
        for (int n = 0; n < N; ++n) {
            values[n] = values_of_columns<Tag, K::map_values>(kernel_.lines, line_of(unit) + c + n * lanes<Tag>());
        }
        for (index r = from; r < to; ++r) {
            const Row row = row_of(unit, r);
            for (int n = 0; n < N; ++n) kernel_.map(values[n], Tag{}, row, c + n * lanes<Tag>(), Cached{});
        }
    }

    const Shape& shape_;
    const Rows rows_;
    K& kernel_;
    const bool exact_tail_, streamed_;
    const index group_, lines_;  // elements and lines of a group
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
