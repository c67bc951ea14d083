// Writes the results of a unit's elements, for some of its rows.
#pragma once

#include "frame.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

template <typename R> class Mapper {
    using A = Wide<typename R::Storage>;
    using V = Vector<A>;
    static constexpr int step = lanes<V>();
    // Elements of 16 bytes, which streamed rows have a whole number of, and of a cache line.
    static constexpr int sixteen_bytes = 16 / static_cast<int>(sizeof(typename R::Storage));
    static constexpr int cache_line = 4 * sixteen_bytes;
    using Part = VectorN<A, step == 1 ? 1 : sixteen_bytes>;
    static constexpr int part = lanes<Part>();

  public:
    Mapper(const Frame& frame, const R& results) : frame_(frame), results_(results) {}

    // Writes the results of the rows [from, to) of a unit.
    void operator()(const Unit& unit, const Columns<A>& columns, index from, index to) const {
        const Plan& plan = frame_.plan;
        if (plan.rows.runs) return map_runs(unit, columns, from, to);
        if (plan.streamed) return map_streamed_columns(unit, columns, from, to);
        for (index r = from; r < to; r += rows_of_results) {
            const index stop = smaller(r + rows_of_results, to);
            const index same = frame_.length(unit, stop - 1) == unit.width ? stop : stop - 1;
            map_tiles(unit, columns, r, same, unit.width);
            if (same < stop) map_tiles(unit, columns, same, stop, frame_.length(unit, same));
        }
    }

  private:
    void map_runs(const Unit& unit, const Columns<A>& columns, index from, index to) const {
        const auto vector = values_of_run<V, R::values>(columns);
        const auto few = values_of_run<Part, R::values>(columns);
        const auto value = values_of_run<A, R::values>(columns);
        const auto of = [&](auto tag, index) {
            if constexpr (sizeof tag == sizeof(V)) return vector;
            else if constexpr (sizeof tag == sizeof(A)) return value;
            else return few;
        };
        // From the last on: the sums have just read that.
        for (index r = to; r-- > from;) map_row(frame_.row_of(unit, r), frame_.plan.rows.width, of);
    }

    // As memory lies, row after row. The values of a row that a few vectors make up stay in registers.
    void map_streamed_columns(const Unit& unit, const Columns<A>& columns, index from, index to) const {
        const auto of = [&](auto tag, index i) { return values_at<decltype(tag), R::values>(columns, i); };
        const index whole = from < to && frame_.length(unit, to - 1) < unit.width ? to - 1 : to;
        index r = from;
        if (unit.width == 4 * step) map_tile<V, 4, Streamed>(unit, columns, from, whole, 0), r = whole;
        if (unit.width == 6 * step) map_tile<V, 6, Streamed>(unit, columns, from, whole, 0), r = whole;
        for (; r < to; ++r) map_row(frame_.row_of(unit, r), frame_.length(unit, r), of);
    }

    template <typename Of> BNKIT_INLINE void map_row(const Row& row, index width, const Of& of) const {
        const auto elements = results_.at(row);
        index i = 0;
        if (frame_.plan.streamed && frame_.plan.rows.runs) {
            // Whole cache lines of the first result are streamed; the ends, which other channels complete, are not.
            const auto vector = of(V{}, 0);  // a run has one for all its elements: in registers, whatever is stored
            const auto few = of(Part{}, 0);
            const index head = smaller(elements_to_cache_line(elements.out()), width);
            for (; i + part <= head; i += part) elements.map(few, Part{}, i, Cached{});
            for (; i + cache_line <= width; i += cache_line) {
                for (index v = i; v < i + cache_line; v += step) elements.map(vector, V{}, v, Streamed{});
            }
            for (; i + part <= width; i += part) elements.map(few, Part{}, i, Cached{});
        } else if (frame_.plan.streamed) {  // the next row goes on where this one ends
            for (; i + step <= width; i += step) elements.map(of(V{}, i), V{}, i, Streamed{});
            for (; i + part <= width; i += part) elements.map(of(Part{}, i), Part{}, i, Streamed{});
        } else {
            for (; i + step <= width; i += step) elements.map(of(V{}, i), V{}, i, Cached{});
            if (i < width && width >= step && !frame_.plan.exact_tail) {
                return elements.map(of(V{}, width - step), V{}, width - step, Cached{});
            }
        }
        for (; i < width; ++i) elements.map(of(A{}, i), A{}, i, Cached{});
    }

    // The values of a few columns stay in registers for the rows.
    void map_tiles(const Unit& unit, const Columns<A>& columns, index from, index to, index width) const {
        constexpr int wide = vector_bytes == 64 ? 4 : 2;
        index c = 0;
        for (; c + wide * step <= width; c += wide * step) map_tile<V, wide>(unit, columns, from, to, c);
        if (c + 2 * step <= width) map_tile<V, 2>(unit, columns, from, to, c), c += 2 * step;
        for (; c + step <= width; c += step) map_tile<V, 1>(unit, columns, from, to, c);
        if (c < width && width >= step && !frame_.plan.exact_tail) return map_tile<V, 1>(unit, columns, from, to, width - step);
        for (; c < width; ++c) map_tile<A, 1>(unit, columns, from, to, c);
    }

    template <typename Tag, int N, typename Put = Cached>
    void map_tile(const Unit& unit, const Columns<A>& columns, index from, index to, index c) const {
        Values<Tag, R::values> values[N];
        for (int n = 0; n < N; ++n) values[n] = values_at<Tag, R::values>(columns, c + n * lanes<Tag>());
        const Row stride = frame_.stride;
        Row row = frame_.row_of(unit, from);
        for (index r = from; r < to; ++r, row += stride) {
            const auto elements = results_.at(row);
            for (int n = 0; n < N; ++n) elements.map(values[n], Tag{}, c + n * lanes<Tag>(), Put{});
        }
    }

    template <typename S> static index elements_to_cache_line(const S* p) {
        return static_cast<index>((64 - reinterpret_cast<std::uintptr_t>(p) % 64) % 64 / sizeof(S));
    }

    const Frame& frame_;
    const R& results_;
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
