// The rows in which a view is walked: runs of one channel's elements, or rows of columns.
#pragma once

#include "batch_norm.hpp"

namespace bnkit {

// Where inner > 1 (NCHW), a row is a run of `inner` elements of one channel. Where inner is 1 (NHWC and matrices), it
// is the elements of all channels, `fold` rows of the view at a time where these are narrow: a column c of it is of
// channel c % channels, and the last row of a group may be shorter.
struct Rows {
    bool runs;
    index fold;
    index count;       // of a group; of runs, those of one channel
    index width, last;  // elements of a row, and of a group's last one
};

static inline Rows rows_of(const Shape& s) {
    if (s.inner > 1) return {true, 1, s.rows, s.inner, s.inner};
    constexpr index whole = 16, least = 64;  // a row is whole vectors at every level, and not too few of them
    index fold = 1;
    if (s.channels > 0 && s.channels < least && s.rows > 1) {
        while (fold * s.channels % whole != 0) fold *= 2;
        while (fold * s.channels < least) fold *= 2;
    }
    const index count = (s.rows + fold - 1) / fold;
    return {false, fold, count, fold * s.channels, (s.rows - (count - 1) * fold) * s.channels};
}

static inline index bytes_of_bits(index n) { return (n + 7) / 8; }

// The bytes that `active` takes for a view of this shape.
static inline index active_bytes(const Shape& s) {
    const Rows rows = rows_of(s);
    return s.groups * rows.count * (rows.runs ? s.channels : 1) * bytes_of_bits(rows.width);
}

}  // namespace bnkit
