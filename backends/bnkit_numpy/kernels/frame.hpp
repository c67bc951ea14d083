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

    Row& operator+=(const Row& by) {
        start += by.start;
        bits += by.bits;
        return *this;
    }
};

// What the channels of all groups give to their elements: M values each, a line of them a value.
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

// The same for the columns of a unit: value m of column c lies at values[m * stride + c].
template <typename A> struct Columns {
    const A* values;
    index stride;
};

template <typename V, int M> struct Values {
    V of[M];
};

template <typename V, int M, typename A> BNKIT_INLINE Values<V, M> values_at(const Columns<A>& columns, index c) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = load<V>(columns.values + m * columns.stride + c);
    return values;
}

// Those of a run, all of whose elements are of the one channel.
template <typename V, int M, typename A> BNKIT_INLINE Values<V, M> values_of_run(const Columns<A>& columns) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = V{} + columns.values[m * columns.stride];
    return values;
}

// A view as the kernel K walks it.
template <typename K> struct Frame {
    const Shape& shape;
    const Rows rows;
    K& kernel;
    const index elements, columns;  // of a group; a channel of runs is one column
    const Row stride;               // from a row of a unit to the next

    Frame(const Shape& s, const Rows& r, K& k)
        : shape(s), rows(r), kernel(k), elements(s.rows * s.channels * s.inner),
          columns(rows.runs ? s.channels : rows.width),
          stride{rows.runs ? s.channels * s.inner : rows.width,
                 bytes_of_bits(rows.width) * (rows.runs ? s.channels : 1)} {}

    index channel_of(const Unit& unit) const { return unit.group * shape.channels + unit.first / rows.spread; }

    index channels_of(const Unit& unit) const { return unit.width / rows.fold / rows.spread; }

    Row row_of(const Unit& unit, index r) const {
        return {unit.group * elements + unit.first * (rows.runs ? rows.width : 1) + r * stride.start,
                (unit.group * rows.count + r) * stride.bits +
                    (rows.runs ? unit.first * bytes_of_bits(rows.width) : unit.first / 8)};
    }

    // How many elements of row r the unit has.
    index length(const Unit& unit, index r) const {
        return rows.runs ? rows.width : smaller(unit.width, (r + 1 < rows.count ? rows.width : rows.last) - unit.first);
    }
};

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
