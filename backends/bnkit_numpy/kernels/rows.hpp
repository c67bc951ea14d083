// The rows in which a view is walked: runs of one channel's elements, or rows of columns.
#pragma once

#include "batch_norm.hpp"

namespace bnkit {

// Where inner is large (NCHW), a row is a run of `inner` elements of one channel. Where it is 1 (NHWC and matrices), a
// row is the elements of all channels, `fold` rows of the view at a time where these are narrow: a column c of it is of
// channel c % channels, and the last row of a group may be shorter. Where inner is small (the last stages of an NCHW
// network), a row is the runs of all channels, each `spread` columns wide: column c is of channel c / spread. Short
// runs one by one are far apart in memory.
struct Rows {
    bool runs;
    index fold, spread;
    index count;        // of a group; of runs, those of one channel
    index width, last;  // elements of a row, and of a group's last one
};

static inline Rows runs_of(const Shape& s) { return {true, 1, 1, s.rows, s.inner, s.inner}; }

static inline Rows rows_of(const Shape& s) {
    constexpr index short_run = 512, several = 16;
    if (s.inner > 1 && s.inner < short_run && s.rows >= several) {
        return {false, 1, s.inner, s.rows, s.channels * s.inner, s.channels * s.inner};
    }
    if (s.inner > 1) return runs_of(s);
    constexpr index whole = 16, least = 64;  // a row is whole vectors at every level, and not too few of them
    index fold = 1;
    if (s.channels > 0 && s.channels < least && s.rows > 1) {
        while (fold * s.channels % whole != 0) fold *= 2;
        while (fold * s.channels < least) fold *= 2;
    }
    const index count = (s.rows + fold - 1) / fold;
    return {false, fold, 1, count, fold * s.channels, (s.rows - (count - 1) * fold) * s.channels};
}

static inline index bytes_of_bits(index n) { return (n + 7) / 8; }

// The bytes that `active` takes for a view of this shape.
static inline index active_bytes(const Shape& s) {
    const Rows rows = rows_of(s);
    return s.groups * rows.count * (rows.runs ? s.channels : 1) * bytes_of_bits(rows.width);
}

}  // namespace bnkit
