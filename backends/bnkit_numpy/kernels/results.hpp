// The results of a unit's elements, of some of its rows.
#pragma once

#include "frame.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

// exact_tail: the kernel's map must see no element twice, since it packs bits or writes over its source. streamed: the
// results are written past the cache.
template <typename K> class Mapper {
    using A = typename K::Arithmetic;
    using V = Vector<A>;
    static constexpr int step = lanes<V>();
    // Elements of 16 bytes, which streamed rows have a whole number of, and of a cache line.
    static constexpr int sixteen_bytes = 16 / static_cast<int>(sizeof(typename K::Storage));
    static constexpr int cache_line = 4 * sixteen_bytes;
    using Part = VectorN<A, step == 1 ? 1 : sixteen_bytes>;
    static constexpr int part = lanes<Part>();

  public:
    Mapper(const Frame<K>& frame, bool exact_tail, bool streamed)
        : frame_(frame), exact_tail_(exact_tail), streamed_(streamed) {}

    void operator()(const Unit& unit, index from, index to) const {
        if (!frame_.kernel.maps()) return;
        if (frame_.rows.runs) {
            const auto& lines = frame_.kernel.lines;
            const index line = frame_.line_of(unit);
            const auto vector = values_of_channel<V, K::map_values>(lines, line);
            const auto few = values_of_channel<Part, K::map_values>(lines, line);
            const auto value = values_of_channel<A, K::map_values>(lines, line);
            const auto of = [&](auto tag, index) {
                if constexpr (sizeof tag == sizeof(V)) return vector;
                else if constexpr (sizeof tag == sizeof(A)) return value;
                else return few;
            };
            for (index r = from; r < to; ++r) map_row(frame_.row_of(unit, r), frame_.rows.width, of);
            return;
        }
        const auto of = [&](auto tag, index i) {
            return values_of_columns<decltype(tag), K::map_values>(frame_.kernel.lines, frame_.line_of(unit) + i);
        };
        if (streamed_) {
            for (index r = from; r < to; ++r) map_row(frame_.row_of(unit, r), frame_.length(unit, r), of);
            return;
        }
        constexpr index high = 16;  // rows whose results are made together
        for (index r = from; r < to; r += high) {
            const index stop = smaller(r + high, to);
            const index same = frame_.length(unit, stop - 1) == unit.width ? stop : stop - 1;
            map_tiles(unit, r, same, unit.width);
            if (same < stop) map_tiles(unit, same, stop, frame_.length(unit, same));
        }
    }

  private:
    template <typename Of> void map_row(const Row& row, index width, const Of& of) const {
        index i = 0;
        if (streamed_ && frame_.rows.runs) {
            // Whole cache lines of the first result are streamed; the ends, which other channels complete, are not.
            const auto vector = of(V{}, 0);  // a run has one for all its elements: in registers, whatever is stored
            const auto few = of(Part{}, 0);
            const index head = smaller(frame_.kernel.to_cache_line(row.start), width);
            for (; i + part <= head; i += part) frame_.kernel.map(few, Part{}, row, i, Cached{});
            for (; i + cache_line <= width; i += cache_line) {
                for (index v = i; v < i + cache_line; v += step) frame_.kernel.map(vector, V{}, row, v, Streamed{});
            }
            for (; i + part <= width; i += part) frame_.kernel.map(few, Part{}, row, i, Cached{});
        } else if (streamed_) {  // the next row goes on where this one ends
            for (; i + step <= width; i += step) frame_.kernel.map(of(V{}, i), V{}, row, i, Streamed{});
            for (; i + part <= width; i += part) frame_.kernel.map(of(Part{}, i), Part{}, row, i, Streamed{});
        } else {
            for (; i + step <= width; i += step) frame_.kernel.map(of(V{}, i), V{}, row, i, Cached{});
            if (i < width && width >= step && !exact_tail_) {
                return frame_.kernel.map(of(V{}, width - step), V{}, row, width - step, Cached{});
            }
        }
        for (; i < width; ++i) frame_.kernel.map(of(A{}, i), A{}, row, i, Cached{});
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
            const index line = frame_.line_of(unit) + c + n * lanes<Tag>();
            values[n] = values_of_columns<Tag, K::map_values>(frame_.kernel.lines, line);
        }
        for (index r = from; r < to; ++r) {
            const Row row = frame_.row_of(unit, r);
            for (int n = 0; n < N; ++n) frame_.kernel.map(values[n], Tag{}, row, c + n * lanes<Tag>(), Cached{});
        }
    }

    const Frame<K>& frame_;
    const bool exact_tail_, streamed_;
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
