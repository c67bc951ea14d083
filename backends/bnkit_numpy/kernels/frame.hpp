// The places of a plan's rows and units in memory, and the coefficients of the channels.
#pragma once

#include "plan.hpp"
#include "simd.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

struct Unit {
    index group, first, width;  // width: columns from the group's `first`, or 1 for a channel of runs
};

// A row: its first element, and the byte where its bits start.
struct Row {
    index start, bits;

    Row& operator+=(const Row& by) {
        start += by.start;
        bits += by.bits;
        return *this;
    }
};

struct Frame {
    const Plan plan;
    const Row stride;  // from one row of a unit to the next

    explicit Frame(const Plan& p)
        : plan(p), stride{p.rows.runs ? p.shape.channels * p.shape.inner : p.rows.width,
                          bytes_of_bits(p.rows.width) * (p.rows.runs ? p.shape.channels : 1)} {}

    Unit unit(index u) const {
        const index blocks = (plan.columns + plan.width - 1) / plan.width, first = u % blocks * plan.width;
        return {u / blocks, first, smaller(plan.width, plan.columns - first)};
    }

    // A unit's first channel, counted through all groups; its number of channels; and its number of sums of each kind.
    index channel_of(const Unit& unit) const {
        return unit.group * plan.shape.channels + unit.first / plan.rows.spread;
    }
    index channels_of(const Unit& unit) const { return unit.width / plan.rows.fold / plan.rows.spread; }
    index sums_of(const Unit& unit) const { return unit.width / plan.rows.spread; }

    // Whether each column of a unit is a channel.
    bool columns_are_channels() const { return plan.rows.fold * plan.rows.spread == 1; }

    Row row_of(const Unit& unit, index r) const {
        const Rows& rows = plan.rows;
        return {unit.group * plan.elements + unit.first * (rows.runs ? rows.width : 1) + r * stride.start,
                (unit.group * rows.count + r) * stride.bits +
                    (rows.runs ? unit.first * bytes_of_bits(rows.width) : unit.first / 8)};
    }

    // The number of elements of row r in the unit.
    index length(const Unit& unit, index r) const {
        const Rows& rows = plan.rows;
        return rows.runs ? rows.width : smaller(unit.width, (r + 1 < rows.count ? rows.width : rows.last) - unit.first);
    }

    // The first row of a part of a unit.
    index first_row(index part) const { return part * plan.rows.count / plan.parts; }
};

// The coefficients of an element, in the order in which they are stored.
enum { K, SCALE, SHIFT, SLOPE, OFFSET };

// The coefficients of all channels of all groups: one line each for K, SCALE, …, with one value for each channel.
template <typename A> class Lines {
  public:
    Lines(int lines, index channels) : values_(lines * channels), channels_(channels) {}

    A* of(int line) { return values_.data() + line * channels_; }
    const A* of(int line) const { return values_.data() + line * channels_; }
    index channels() const { return channels_; }

  private:
    Scratch<A> values_;
    index channels_;
};

// The coefficients of a unit's columns: value m of column c is values[m * stride + c].
template <typename A> struct Columns {
    const A* values;
    index stride;
};

// The first `count` coefficients of a unit's columns: the lines, or copies of them if a channel has several columns.
template <typename A> class ColumnsOf {
  public:
    ColumnsOf(const Frame& frame, const Lines<A>& lines, const Unit& unit, int count)
        : copies_(frame.columns_are_channels() ? 0 : count * unit.width),
          columns_{lines.of(0) + frame.channel_of(unit), lines.channels()} {
        if (frame.columns_are_channels()) return;
        const index channels = frame.channels_of(unit), spread = frame.plan.rows.spread;
        for (int m = 0; m < count; ++m) {
            const A* from = columns_.values + m * columns_.stride;
            A* to = copies_.data() + m * unit.width;
            for (index c = 0; c < channels; ++c) {
                for (index i = 0; i < spread; ++i) to[c * spread + i] = from[c];
            }
            for (index c = channels * spread; c < unit.width; ++c) to[c] = to[c - channels];
        }
        columns_ = {copies_.data(), unit.width};
    }

    operator const Columns<A>&() const { return columns_; }

  private:
    Scratch<A> copies_;
    Columns<A> columns_;
};

template <typename V, int M> struct Values {
    V of[M];
};

template <typename V, int M, typename A> BNKIT_INLINE Values<V, M> values_at(const Columns<A>& columns, index c) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = load<V>(columns.values + m * columns.stride + c);
    return values;
}

// The values of a run, whose elements all belong to one channel.
template <typename V, int M, typename A> BNKIT_INLINE Values<V, M> values_of_run(const Columns<A>& columns) {
    Values<V, M> values;
    for (int m = 0; m < M; ++m) values.of[m] = V{} + columns.values[m * columns.stride];
    return values;
}

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
