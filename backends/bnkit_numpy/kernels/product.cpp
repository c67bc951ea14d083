// Products that skip the zeros of `a`. A task lists the nonzero elements of a block of `a`, and adds up each row of y
// in registers, over rows of b that it has packed into the cache. One task computes a row of y, with its terms in
// order, so the bits do not depend on the threads or on other rows.
//
// A task has at most 256 rows of y and some replicas. It reads its rows of `a` once, or once for each replica with
// another a. It reads b once and packs it. It writes y once, and reads and writes it again for each further 128 columns
// of `a`. The predecessor is BLAS's product, which also multiplies the zeros: on one core it took 1.5 to 3.2 times as
// long in the first layer of a network for MNIST (bench/test_products.py; bench/results/NOTES.md).

#include "product.hpp"

#include "nonzeros.hpp"
#include "plan.hpp"
#include "threads.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

constexpr double sparse = 0.35;     // the largest share of nonzeros in `a`: at 0.4 some shapes gained nothing
constexpr index looked_at = 16;     // rows of `a` that are sampled for this share
constexpr index depth = 128;        // rows of b that are packed together
constexpr int most_vectors = 14;    // sums that stay in registers

template <typename A> constexpr index lanes_of() { return lanes<Vector<A>>(); }

// Copies a submatrix, at least one vector wide, to aligned rows; returns whether it is finite.
template <typename A> bool pack(const Submatrix<A>& from, A* to, index step) {
    using V = Vector<A>;
    constexpr index width = lanes_of<A>();
    V wrong{};  // 0, or NaN
    for (index i = 0; i < from.rows; ++i, to += step) {
        const A* row = from.first + i * from.step;
        for (index j = 0; j < from.columns; j += width) {
            const index at = smaller(j, from.columns - width);
            const V v = load<V>(row + at);
            store(to + at, v);
            wrong += v * A{0};
        }
    }
    A lane[width];
    store(lane, wrong);
    bool finite = true;
    for (A each : lane) finite &= each == 0;
    return finite;
}

// Adds the products of row i of `a` with the rows of b to the n columns of row i of y, or sets y to them (`alone`). The
// last of the N vectors ends with the row, and may overlap its predecessor.
template <int N, typename A>
void add_rows(const Nonzeros<A>& a, index rows, const A* b, index step, A* y, index y_step, index n, bool alone) {
    using V = Vector<A>;
    constexpr index width = lanes_of<A>();
    const int *const starts = a.starts(), *const places = a.places();
    const A* const values = a.values();
    const index last = n - width;
    for (index i = 0; i < rows; ++i, y += y_step) {
        V sum[N];
        for (int j = 0; j < N; ++j) sum[j] = alone ? V{} : load<V>(y + (j < N - 1 ? j * width : last));
        for (int k = starts[i]; k < starts[i + 1]; ++k) {
            const A* const row = b + places[k] * step;
            const V value = V{} + values[k];
            for (int j = 0; j < N - 1; ++j) sum[j] += value * load<V>(row + j * width);
            sum[N - 1] += value * load<V>(row + last);
        }
        for (int j = 0; j < N; ++j) store(y + (j < N - 1 ? j * width : last), sum[j]);
    }
}

template <int N, typename... Arguments> void add_rows_by(index vectors, const Arguments&... arguments) {
    if constexpr (N > 1) {
        if (vectors < N) return add_rows_by<N - 1>(vectors, arguments...);
    }
    add_rows<N>(arguments...);
}

// A range of rows of y, for a range of replicas.
template <typename A> class Task {
  public:
    Task(const Product<A>& call, index rows)
        : call_(call), tiles_((call.columns + widest - 1) / widest), step_(packed_step(call.columns, tiles_)),
          depth_(smaller(depth, call.inner)), of_memory_(call.transposed ? depth_ : rows, rows * depth_),
          of_a_(rows, call.transposed ? rows * depth_ : 0), packed_(depth_ * step_ + lanes_of<A>()) {}

    // Computes rows [first, stop) of the replicas [from, to) for which good[replica * goods] is true, and sets it to
    // false if b is not finite.
    void operator()(index first, index stop, index from, index to, bool* good, index goods) {
        for (index group = from; group < (call_.shared ? from + 1 : to); ++group) {
            const index end = call_.shared ? to : group + 1;
            for (index k = 0; k < call_.inner; k += depth_) {
                bool any = false;
                for (index r = group; r < end; ++r) any |= good[r * goods];
                if (!any) break;
                const index deep = smaller(depth_, call_.inner - k);
                const Nonzeros<A>& listed = list(group, first, stop - first, k, deep);
                for (index r = group; r < end; ++r) {
                    if (good[r * goods]) good[r * goods] = add(listed, r, first, stop - first, k, deep);
                }
            }
        }
    }

  private:
    static constexpr index widest = most_vectors * lanes_of<A>();

    // Whole vectors, so that all rows are aligned like the first.
    static index packed_step(index columns, index tiles) {
        const index width = lanes_of<A>();
        return ((columns + tiles - 1) / tiles + width - 1) / width * width;
    }

    const Nonzeros<A>& list(index replica, index first, index rows, index k, index deep) {
        const A* const a = call_.a + (call_.shared ? 0 : replica * call_.rows * call_.inner);
        if (!call_.transposed) {
            of_memory_.list({a + first * call_.inner + k, rows, deep, call_.inner});
            return of_memory_;
        }
        of_memory_.list({a + k * call_.rows + first, deep, rows, call_.rows});
        of_a_.list_transposed(of_memory_, deep, rows);
        return of_a_;
    }

    bool add(const Nonzeros<A>& listed, index replica, index first, index rows, index k, index deep) {
        const A* const b = call_.b + (replica * call_.inner + k) * call_.columns;
        A* const y = call_.y + (replica * call_.rows + first) * call_.columns;
        A* const packed = aligned();
        for (index tile = 0; tile < tiles_; ++tile) {
            const index left = tile * call_.columns / tiles_, n = (tile + 1) * call_.columns / tiles_ - left;
            if (!pack<A>({b + left, deep, n, call_.columns}, packed, step_)) return false;
            const index vectors = (n + lanes_of<A>() - 1) / lanes_of<A>();
            add_rows_by<most_vectors>(vectors, listed, rows, packed, step_, y + left, call_.columns, n, k == 0);
        }
        return true;
    }

    A* aligned() const {
        const auto over = reinterpret_cast<std::uintptr_t>(packed_.data()) % vector_bytes;
        return packed_.data() + (over ? (vector_bytes - over) / sizeof(A) : 0);
    }

    const Product<A>& call_;
    const index tiles_, step_, depth_;
    Nonzeros<A> of_memory_, of_a_;
    Scratch<A> packed_;
};

// Whether `a` is sparse, by a sample of its rows.
template <typename A> bool is_sparse(const A* a, index rows, index columns) {
    const index looks = smaller(rows, looked_at);
    index others = 0;
    for (index i = 0; i < looks; ++i) {
        const A* const row = a + i * rows / looks * columns;
        int nonzeros = 0;
        for (index j = 0; j < columns; ++j) nonzeros += row[j] != 0;
        others += nonzeros;
    }
    return static_cast<double>(others) <= sparse * static_cast<double>(looks * columns);
}

// The decision is made for each replica separately, so that its bits do not depend on other replicas.
template <typename A> void product(const Product<A>& call) {
    bool any = false;
    for (index r = 0; r < call.replicas; ++r) {
        const bool wide = call.columns >= lanes_of<A>(), known = call.shared && r > 0;
        const index rows = call.transposed ? call.inner : call.rows, columns = call.transposed ? call.rows : call.inner;
        call.done[r] = known ? call.done[0] : wide && is_sparse(call.a + r * rows * columns, rows, columns);
        any |= call.done[r];
    }
    if (!any) return;
    const auto [groups, ranges] = plan_of_product(call.replicas, call.shared, call.rows, get_threads());
    Scratch<bool> good(call.replicas * ranges);
    for (index i = 0; i < call.replicas * ranges; ++i) good.data()[i] = call.done[i / ranges];
    const auto work = [&, groups = groups, ranges = ranges](index task) {
        const index range = task % ranges, group = task / ranges;
        const index first = range * call.rows / ranges, stop = (range + 1) * call.rows / ranges;
        const index from = group * call.replicas / groups, to = (group + 1) * call.replicas / groups;
        Task<A>(call, stop - first)(first, stop, from, to, good.data() + range, ranges);
    };
    in_parallel(groups * ranges, work);
    for (index i = 0; i < call.replicas * ranges; ++i) call.done[i / ranges] &= good.data()[i];
}

}  // namespace

const Products products = {&product<float>, &product<double>};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
