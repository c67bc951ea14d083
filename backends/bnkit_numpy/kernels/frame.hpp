// What a walk knows of a view: its rows and where they start, and what its channels give to their elements.
#pragma once

#include "rows.hpp"
#include "simd.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

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

  private:
    Scratch<A> values_;
    index count_;
};

template <typename V, int M> struct Values {
    V of[M];
};

template <typename V, int M, typename Lines> BNKIT_INLINE Values<V, M> values_of_columns(const Lines& lines, index line) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = load<V>(lines.of(m) + line);
    return values;
}

template <typename V, int M, typename Lines> BNKIT_INLINE Values<V, M> values_of_channel(const Lines& lines, index line) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = V{} + lines.of(m)[line];
    return values;
}

// A view as the kernel K walks it.
template <typename K> struct Frame {
    const Shape& shape;
    const Rows rows;
    K& kernel;
    const index elements, lines;  // of a group

    Frame(const Shape& s, K& k)
        : shape(s), rows(rows_of(s)), kernel(k), elements(s.rows * s.channels * s.inner),
          lines(rows.runs ? s.channels : rows.width) {}

    index line_of(const Unit& unit) const { return unit.group * lines + unit.first; }

    Row row_of(const Unit& unit, index r) const {
        if (rows.runs) {
            const index run = (unit.group * shape.rows + r) * shape.channels + unit.first;
            return {run * rows.width, run * bytes_of_bits(rows.width)};
        }
        return {unit.group * elements + r * rows.width + unit.first,
                (unit.group * rows.count + r) * bytes_of_bits(rows.width) + unit.first / 8};
    }

    // How many elements of row r the unit has.
    index length(const Unit& unit, index r) const {
        return rows.runs ? rows.width : smaller(unit.width, (r + 1 < rows.count ? rows.width : rows.last) - unit.first);
    }
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
