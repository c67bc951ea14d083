// How an op is cut into work. Every such decision is made here, from the shape, before a kernel starts; the kernels
// execute the plan. It is the CPU's counterpart of bnkit_cupy/plan.py.
//
// A plan knows neither the SIMD level nor, except for products, the number of threads. The cuts fix the order of the
// additions, so the bits of a result depend on neither. (A product adds up each row by itself, whatever the cuts.)
#pragma once

#include "batch_norm.hpp"

namespace bnkit {

// The rows in which a view is walked.
//
// Where inner is large (NCHW), a row is a run of `inner` elements of one channel. Where it is 1 (NHWC and matrices), a
// row holds the elements of all channels, and `fold` rows of the view at a time where these are narrow: its column c
// belongs to channel c % channels, and the last row of a group may be shorter. Where inner is small (the last stages of
// an NCHW network), a row holds the runs of all channels, each `spread` columns wide: column c belongs to channel
// c / spread. Taken one by one, such short runs would be far from each other in memory.
struct Rows {
    bool runs;
    index fold, spread;
    index count;        // of a group; of runs, those of one channel
    index width, last;  // elements of a row, and of a group's last one
};

Rows rows_of(const Shape& shape);

static inline index bytes_of_bits(index n) { return (n + 7) / 8; }

// The bytes that `active` takes for a view of this shape.
index active_bytes(const Shape& shape);

// What the plan of a batch-norm op depends on.
struct Pass {
    Shape shape;
    index itemsize;  // bytes of an element as it is stored
    bool sums;       // the channels' sums are taken
    int tensors;     // of the shape of x that the results read and write; 0 where there are no results
    bool bits;       // the results include the bits of a ReLU
    bool in_place;   // the results overwrite what they are computed from
    bool aligned;    // all results start at 16 bytes, and at the same place of a cache line
};

// The unit of work is a channel of runs, a block of columns where the rows are few or their runs short, or all columns
// of a group. The results of a unit follow its sums, so that their read finds in a cache what the sums brought there: a
// training forward moves 2 transfers of the tensor, a backward 3. A unit that is too large for a cache, or one of too
// few units, is cut into parts, which are runs of rows that the threads share: 3 and 5 transfers beyond the last-level
// cache, less what the second pass, which takes the parts backwards, still finds there.
struct Plan {
    Shape shape;
    Rows rows;
    index elements, columns;  // of a group; a channel of runs counts as one column
    index width, units;       // columns of a unit (the last one of a group may have fewer), and the units of all groups
    index parts;              // tasks: of one unit where sums are taken, else of the rows of all units
    index shares;             // tasks which finish the sums of a unit that was cut
    bool parallel_units;      // each unit is a task
    bool streamed;            // the results are written past the caches
    bool exact_tail;          // the results must see no element twice
};

Plan plan_of(const Pass& pass);

// Rows whose terms are added before the next columns' are: of long rows few, so that they are near in memory.
static inline index rows_of_sums(index width) { return width <= 512 ? 32 : 8; }
constexpr index rows_of_results = 16;  // rows whose results are computed before the next columns' are

// The elements of an optimizer's arrays that one task moves.
index optimizer_task(index size);

// The tasks of a softmax of so many rows.
index softmax_tasks(index rows, index classes);

// The tasks of a product: `groups` of replicas times `pieces` of the rows.
struct ProductPlan {
    index groups, pieces;
};

ProductPlan plan_of_product(index replicas, bool shared, index rows, index threads);

// Whether a product is so large that a search for zeros can save more than it costs.
bool is_worth_a_search(index rows, index inner, index columns);

}  // namespace bnkit
