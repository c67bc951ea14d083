// The division of an op into tasks. All of it is decided here, from the shape, before a kernel starts. It is the CPU's
// counterpart of bnkit_cupy/plan.py.
//
// A plan does not depend on the SIMD level or, except for products, on the number of threads. It fixes the order of the
// additions, so the bits of a result do not depend on them either. (A product adds up each row separately.)
#pragma once

#include "batch_norm.hpp"

namespace bnkit {

// The division of a view into rows.
//
// If inner is large (NCHW), a row is a run of `inner` elements of one channel. If inner is 1 (NHWC and matrices), a row
// holds the elements of all channels, of `fold` rows of the view if these are narrow: column c belongs to channel
// c % channels, and the last row of a group may be shorter. If inner is small (the last stages of an NCHW network), a
// row holds the runs of all channels, each `spread` columns wide: column c belongs to channel c / spread. Single short
// runs of one channel would be far from each other in memory.
struct Rows {
    bool runs;
    index fold, spread;
    index count;        // rows of a group; for runs, of one channel
    index width, last;  // elements of a row, and of the last row of a group
};

Rows rows_of(const Shape& shape);

static inline index bytes_of_bits(index n) { return (n + 7) / 8; }

// The size of `active` in bytes for a view of this shape.
index active_bytes(const Shape& shape);

// The properties of a batch-norm op that decide its plan.
struct Pass {
    Shape shape;
    index itemsize;  // bytes of a stored element
    bool sums;       // the op adds up the channels
    int tensors;     // tensors like x that the results read and write; 0 without results
    bool bits;       // the results include the bits of a ReLU
    bool in_place;   // the results overwrite their input
    bool aligned;    // results start at a multiple of 16 bytes, all at the same offset in a cache line
};

// A unit of work is a channel of runs, a block of columns if the rows are not many or their runs are short, or all
// columns of a group. The results of a unit follow its sums and read from the cache: a training forward makes 2
// transfers of the tensor, a backward 3. If a unit exceeds the cache, or there are not enough units, it is divided into
// parts, which are ranges of rows for the threads: beyond the last-level cache 3 and 5 transfers. The second pass
// visits the parts in reverse, and so reads the last ones from the cache.
struct Plan {
    Shape shape;
    Rows rows;
    index elements, columns;  // of a group; a channel of runs is one column
    index width, units;       // columns of a unit, fewer in the last unit of a group; units of all groups
    index parts;              // tasks: of one unit if there are sums, else of all rows
    index shares;             // tasks that finish the sums of a divided unit
    bool parallel_units;      // each unit is a task
    bool streamed;            // the results bypass the caches
    bool exact_tail;          // the results must not visit an element twice
};

Plan plan_of(const Pass& pass);

// Rows to add up before the next columns; fewer of long rows, so that they are near in memory.
static inline index rows_of_sums(index width) { return width <= 512 ? 32 : 8; }
constexpr index rows_of_results = 16;  // rows of results to compute before the next columns

// The elements of an optimizer's arrays in one task.
index optimizer_task(index size);

// The number of tasks of a softmax.
index softmax_tasks(index rows, index classes);

// The tasks of a product: `groups` of replicas times `ranges` of rows.
struct ProductPlan {
    index groups, ranges;
};

ProductPlan plan_of_product(index replicas, bool shared, index rows, index threads);

// Whether a product is large enough that a search for zeros can pay.
bool is_worth_a_search(index rows, index inner, index columns);

}  // namespace bnkit
