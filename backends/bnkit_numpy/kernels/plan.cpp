// Tried and dropped: to add up the next channel while the results of this one are written, which was slower than one
// after the other; narrow blocks of columns for tall matrices.

#include "plan.hpp"

#include <algorithm>

namespace bnkit {
namespace {

constexpr index kib = 1 << 10, mib = 1 << 20;

// Elements.
constexpr index one_thread = 32 * kib;     // a tensor up to this size is faster on one thread
constexpr index least_part = 32 * kib;
constexpr index cached_channel = 1 * mib;  // fits into a thread's share of the last-level cache
constexpr index cached_block = 64 * kib;   // a block of columns that fits into the second-level cache
constexpr index short_run = 512;
constexpr index narrow_row = 64;
constexpr index whole_vectors = 16;        // a row of a multiple of this is whole vectors at every level

// Counts.
constexpr index most_parts = 64;
constexpr index least_channels = 32;       // fewer leave a thread idle
constexpr index least_blocks = 4;
constexpr index most_block_rows = 256;     // up to this many rows a matrix is divided into blocks of columns
constexpr index spread_rows = 16;          // from this many rows on, the short runs of all channels form one row
constexpr index elements_to_sum = 128;     // the least elements of a column for each partial sum
constexpr index many_columns = 1024;       // the columns whose sums one task finishes

// Bytes. Results and their inputs up to this size are expected in the last-level cache. A larger limit would suit
// larger caches, but most machines have 32 MiB for several cores, and other processes soon take a quarter.
constexpr index last_level_cache = 24 * mib;
constexpr index cache_line = 64, streamed_store = 16;

constexpr index one_thread_steps = 32 * kib, optimizer_range = 16 * kib;
constexpr index one_thread_logits = 2 * kib, most_softmax_tasks = 64;
constexpr index most_product_rows = 256;   // of a task
constexpr index least_product_rows = 16;   // each task packs the second factor for itself
constexpr index least_product = 1 * mib;   // multiplications

index divided_up(index a, index b) { return (a + b - 1) / b; }

Rows runs_of(const Shape& s) { return {true, 1, 1, s.rows, s.inner, s.inner}; }

index unit_width(const Plan& plan, index itemsize) {
    const Shape& shape = plan.shape;
    const Rows& rows = plan.rows;
    if (rows.runs) return 1;
    const bool tall = rows.count > most_block_rows && rows.spread == 1;
    if (shape.groups * plan.elements <= one_thread || tall || rows.fold > 1) return plan.columns;
    index step = 64;
    if (rows.spread > 1) {  // whole cache lines of columns, of whole channels
        index channels = cache_line / itemsize;
        for (index spread = rows.spread; channels > 1 && spread % 2 == 0; spread /= 2) channels /= 2;
        step = channels * rows.spread;
    }
    const index fitting = cached_block / std::max<index>(rows.count, 1) / step * step;
    const index eighth = divided_up(plan.columns * std::min<index>(shape.groups, 8) / 8, step) * step;
    const index width = std::max(std::min(fitting, eighth), step);
    const bool few = shape.groups * plan.columns < least_blocks * width;
    return few && rows.spread > 1 ? plan.columns : width;
}

index parts_of_unit(const Plan& plan) {
    const Shape& shape = plan.shape;
    const Rows& rows = plan.rows;
    const index elements = rows.count * (rows.runs ? rows.width : plan.width);
    if (shape.groups * plan.elements <= one_thread) return 1;
    if (rows.runs && elements <= cached_channel && shape.groups * shape.channels >= least_channels) return 1;
    if (!rows.runs && plan.width < plan.columns) return 1;
    const index most = rows.runs ? rows.count : rows.count * rows.spread / elements_to_sum;
    return std::max<index>(std::min({elements / least_part, most, most_parts}), 1);
}

}  // namespace

Rows rows_of(const Shape& s) {
    if (s.inner > 1 && s.inner < short_run && s.rows >= spread_rows) {
        return {false, 1, s.inner, s.rows, s.channels * s.inner, s.channels * s.inner};
    }
    if (s.inner > 1) return runs_of(s);
    index fold = 1;
    if (s.channels > 0 && s.channels < narrow_row && s.rows > 1) {
        while (fold * s.channels % whole_vectors != 0) fold *= 2;
        while (fold * s.channels < narrow_row) fold *= 2;
    }
    const index count = divided_up(s.rows, fold);
    return {false, fold, 1, count, fold * s.channels, (s.rows - (count - 1) * fold) * s.channels};
}

index active_bytes(const Shape& s) {
    const Rows rows = rows_of(s);
    return s.groups * rows.count * (rows.runs ? s.channels : 1) * bytes_of_bits(rows.width);
}

Plan plan_of(const Pass& pass) {
    const Shape& shape = pass.shape;
    Plan plan{};
    plan.shape = shape;
    // Without sums, runs are read in the order of memory, however short. But the layout of the bits is that of
    // training, for the backward.
    plan.rows = !pass.sums && !pass.bits && shape.inner > 1 ? runs_of(shape) : rows_of(shape);
    plan.elements = shape.rows * shape.channels * shape.inner;
    plan.columns = plan.rows.runs ? shape.channels : plan.rows.width;
    const index total = shape.groups * plan.elements;
    const bool whole_rows = !pass.sums && !plan.rows.runs && plan.rows.spread == 1;
    plan.width = whole_rows ? plan.columns : unit_width(plan, pass.itemsize);
    plan.units = plan.columns > 0 ? shape.groups * divided_up(plan.columns, plan.width) : 0;
    plan.shares = 1;
    if (pass.sums) {
        plan.parts = parts_of_unit(plan);
        plan.parallel_units = plan.parts == 1 && total > one_thread;
        const index count = plan.width / plan.rows.spread;
        if (plan.parts > 1 && plan.rows.fold == 1) plan.shares = std::max<index>(divided_up(count, many_columns), 1);
    } else if (total <= one_thread) {
        plan.parts = 1;
    } else {
        plan.parts = std::max<index>(std::min(total / least_part, plan.units * plan.rows.count), 1);
    }
    plan.streamed = total * pass.tensors * pass.itemsize > last_level_cache && pass.aligned &&
                    plan.rows.width * pass.itemsize % streamed_store == 0;
    plan.exact_tail = pass.bits || pass.in_place;
    return plan;
}

index optimizer_task(index size) { return size <= one_thread_steps ? size : optimizer_range; }

index softmax_tasks(index rows, index classes) {
    return rows * classes <= one_thread_logits ? 1 : std::min(rows, most_softmax_tasks);
}

ProductPlan plan_of_product(index replicas, bool shared, index rows, index threads) {
    const index groups = shared ? std::min(threads, replicas) : replicas;
    const index for_all_threads = std::min(rows / least_product_rows, divided_up(threads, groups));
    return {groups, std::max(divided_up(rows, most_product_rows), for_all_threads)};
}

bool is_worth_a_search(index rows, index inner, index columns) { return rows * inner * columns >= least_product; }

}  // namespace bnkit
