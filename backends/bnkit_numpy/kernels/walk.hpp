// The passes over a plan: sums, results, or both, unit by unit. A unit is one task, or its parts are the tasks.
//
// A pass uses three types.
//   Channels  lines; begin(channel, count) sets the values for the terms; finish(channel, count, first, second)
//             receives the channels' sums and sets the values for the results
//   Terms     Storage; `values`, the number of channel values that a term needs; at(row), the terms of a row;
//             term(values, tag, i), a Pair of summands; fetch(i), a prefetch of the elements at i
//   Results   Storage; `values`; at(row); map(values, tag, i, put) writes the results at i by put; out(), the address
//             of the row's first result
// The type of `tag` is that of the elements at i: a vector, or one element at the end of a row.
//
// Tried and dropped: software prefetch of runs; sums of 32 rows of some columns in registers, which reads memory with
// the stride of a row; streamed rows in reverse order, or two and four at a time.
#pragma once

#include "results.hpp"
#include "sums.hpp"
#include "threads.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

template <typename Work> void for_each_unit(const Frame& frame, const Work& work) {
    const auto call = [&](index u) { work(frame.unit(u)); };
    if (frame.plan.parallel_units) return in_parallel(frame.plan.units, call);
    for (index u = 0; u < frame.plan.units; ++u) call(u);
}

// Adds up the columns of each channel, and passes the sums to the channels.
template <typename Channels>
void finish(const Frame& frame, Channels& channels, const Unit& unit, double* first, double* second) {
    const index count = frame.channels_of(unit);
    for (index c = count; c < frame.sums_of(unit); ++c) {
        first[c % count] += first[c];
        second[c % count] += second[c];
    }
    channels.finish(frame.channel_of(unit), count, first, second);
}

template <typename Channels, typename T>
void sum_unit(const Frame& frame, Channels& channels, const Adder<T>& add, const Unit& unit) {
    const Plan& plan = frame.plan;
    const index count = frame.sums_of(unit), spread = plan.rows.spread;
    Scratch<double> sums(plan.parts * 2 * count);
    channels.begin(frame.channel_of(unit), frame.channels_of(unit));
    const ColumnsOf columns(frame, channels.lines, unit, T::values);
    in_parallel(plan.parts, [&](index p) {
        double* first = sums.data() + p * 2 * count;
        add(unit, columns, frame.first_row(p), frame.first_row(p + 1), first, first + count);
    });
    in_parallel(plan.shares, [&](index share) {
        const index from = share * count / plan.shares, to = (share + 1) * count / plan.shares;
        double* first = sums.data();
        for (index p = 1; p < plan.parts; ++p) {
            const double* more = sums.data() + p * 2 * count;
            for (index c = from; c < to; ++c) first[c] += more[c];
            for (index c = from; c < to; ++c) first[count + c] += more[count + c];
        }
        const Unit finished{unit.group, unit.first + from * spread, (to - from) * spread};
        finish(frame, channels, finished, first + from, first + count + from);
    });
}

template <typename A, typename R>
void map_unit(const Frame& frame, const Lines<A>& lines, const Mapper<R>& map, const Unit& unit) {
    const ColumnsOf columns(frame, lines, unit, R::values);
    const auto work = [&](index p) {
        map(unit, columns, frame.first_row(p), frame.first_row(p + 1));
        finish_streams();
    };
    in_parallel(frame.plan.parts, work, true);
}

// The sums of all channels.
template <typename Channels, typename T> void reduce(const Plan& plan, Channels& channels, const T& terms) {
    const Frame frame(plan);
    const Adder<T> add(frame, terms);
    for_each_unit(frame, [&](const Unit& unit) { sum_unit(frame, channels, add, unit); });
}

// The sums of all channels, and the results that follow from them.
template <typename Channels, typename T, typename R>
void reduce_and_map(const Plan& plan, Channels& channels, const T& terms, const R& results) {
    const Frame frame(plan);
    const Adder<T> add(frame, terms);
    const Mapper<R> map(frame, results);
    for_each_unit(frame, [&](const Unit& unit) {
        sum_unit(frame, channels, add, unit);
        map_unit(frame, channels.lines, map, unit);
    });
}

// The results alone, row by row: runs in the order of memory, columns unit by unit.
template <typename A, typename R> void map(const Plan& plan, const Lines<A>& lines, const R& results) {
    const Frame frame(plan);
    const Mapper<R> map(frame, results);
    const index count = plan.rows.count, channels = plan.shape.channels, steps = plan.units * count;
    in_parallel(plan.parts, [&](index p) {
        const index from = p * steps / plan.parts, to = (p + 1) * steps / plan.parts;
        for (index i = from, stop; i < to && plan.rows.runs; i = stop) {
            const index r = i / channels, group = r / count;
            stop = smaller(to, (r + 1) * channels);
            for (index c = i - r * channels; c < stop - r * channels; ++c) {
                const Unit run{group, c, 1};
                map(run, ColumnsOf(frame, lines, run, R::values), r - group * count, r - group * count + 1);
            }
        }
        for (index i = from, stop; i < to && !plan.rows.runs; i = stop) {
            const Unit unit = frame.unit(i / count);
            stop = smaller(to, (i / count + 1) * count);
            map(unit, ColumnsOf(frame, lines, unit, R::values), i % count, i % count + (stop - i));
        }
        finish_streams();
    });
}

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
