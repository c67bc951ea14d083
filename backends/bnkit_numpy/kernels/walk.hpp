// How the kernels walk a tensor (groups, rows, channels, inner): in units, cut into pieces for the threads.
//
// The unit of work is a channel where inner > 1 (NCHW), whose rows are runs of `inner` elements, and a block of
// adjacent channels where inner is 1 (NHWC and matrices). The result of a unit follows its sums, so that the second
// read finds in the cache what the first brought: a training forward moves 2 transfers of the tensor, a backward 3.
// A unit that would not fit is cut into runs of rows, which the threads share: 3 and 5 beyond the last-level cache.
// Cuts and orders depend on the shape alone, so the bits do not depend on the threads.
#pragma once

#include "batch_norm.hpp"
#include "simd.hpp"
#include "threads.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {
namespace {

constexpr index small_total = 1 << 15;  // elements of a tensor below which one thread is faster
constexpr index cached = 1 << 17;       // elements of a unit that the second pass finds in the L2 cache
constexpr index piece = 1 << 15;        // elements of a run of rows
// Short sums in T: the squares of data on a coarse grid (a mean of 1e4 in float32) all round the same way once a sum is
// large, which at 8192 elements made the variance 5e-7 too small.
constexpr index run_flush = 1024;       // elements of runs summed in T before the sums go to double
constexpr index column_flush = 16;      // rows of columns summed in T

struct Sums {
    double first = 0, second = 0;
};

template <typename Work> void in_parallel(index count, const Work& work) {
    const auto call = [](const void* context, index i) { (*static_cast<const Work*>(context))(i); };
    parallel_for(count, call, &work);
}

// How a value a channel meets a vector of elements: one for all of a run, or one for each column.
struct OfRun {
    template <typename V, typename T> static V get(V, const T* values, index c) { return V{} + values[c]; }
};
struct OfColumns {
    template <typename V, typename T> static V get(V, const T* values, index c) { return load<V>(values + c); }
};

struct Unit {
    index base, channel, width;  // the first element, the first channel among all groups, the channels
};

// Walks the units of a tensor. Term(access, tag, i, channel) returns what is summed of the elements at i, a pair;
// Finish(channel, sums) is told of each channel; Map(access, tag, i, channel) then writes the results at i.
template <typename T, typename Term, typename Finish, typename Map> class Walk {
  public:
    Walk(const Shape& shape, Term term, Finish finish, Map map)
        : shape_(shape), stride_(shape.channels * shape.inner), runs_(shape.inner > 1),
          term_(term), finish_(finish), map_(map) {}

    void operator()() const {
        const index total = shape_.groups * shape_.rows * stride_;
        const index width = runs_ ? 1 : block_width(total);
        const index blocks = (shape_.channels + width - 1) / width, units = shape_.groups * blocks;
        const auto unit = [&](index u) {
            const index group = u / blocks, c = u % blocks * width;
            return Unit{group * shape_.rows * stride_ + c * shape_.inner, group * shape_.channels + c,
                        smaller(width, shape_.channels - c)};
        };
        const index each = shape_.rows * shape_.inner * width;
        if (total <= small_total) {
            for (index u = 0; u < units; ++u) whole(unit(u));
        } else if (each <= cached) {
            in_parallel(units, [&](index u) { whole(unit(u)); });
        } else {
            for (index u = 0; u < units; ++u) cut(unit(u), each);
        }
    }

  private:
    // Blocks whose rows stay in the cache and that are at least 8, in whole cache lines; of tall matrices, wide ones.
    index block_width(index total) const {
        const index fitting = cached / larger(shape_.rows, 1) / 16 * 16;
        if (total <= small_total) return larger(shape_.channels, 1);
        if (fitting < 64) return smaller(shape_.channels, 1024);
        const index eighth = (shape_.channels / 8 + 15) / 16 * 16;
        return larger(smaller(fitting, larger(eighth, 64)), 1);
    }

    void whole(const Unit& unit) const {
        Scratch<Sums> sums(unit.width);
        add(unit, 0, shape_.rows, sums.data());
        for (index c = 0; c < unit.width; ++c) finish_(unit.channel + c, sums[c]);
        apply(unit, 0, shape_.rows);
    }

    void cut(const Unit& unit, index elements) const {
        const index parts = larger(smaller(elements / piece, shape_.rows), 1);
        const auto row = [&](index part) { return part * shape_.rows / parts; };
        Scratch<Sums> sums(parts * unit.width);
        in_parallel(parts, [&](index p) { add(unit, row(p), row(p + 1), &sums[p * unit.width]); });
        for (index c = 0; c < unit.width; ++c) {
            Sums together;
            for (index p = 0; p < parts; ++p) {
                together.first += sums[p * unit.width + c].first;
                together.second += sums[p * unit.width + c].second;
            }
            finish_(unit.channel + c, together);
        }
        // backwards, for the last rows are still in the cache
        in_parallel(parts, [&](index p) { apply(unit, row(parts - 1 - p), row(parts - p)); });
    }

    void add(const Unit& unit, index from, index to, Sums* sums) const {
        if (runs_) return add_runs(unit, from, to, *sums);
        constexpr index step = lanes<Vector<T>, T>();
        index c = 0;
        for (; c + 4 * step <= unit.width; c += 4 * step) add_columns<Vector<T>, 4>(unit, c, from, to, sums + c);
        for (; c + step <= unit.width; c += step) add_columns<Vector<T>, 1>(unit, c, from, to, sums + c);
        for (; c < unit.width; ++c) add_columns<T, 1>(unit, c, from, to, sums + c);
    }

    void add_runs(const Unit& unit, index from, index to, Sums& sums) const {
        using V = Vector<T>;
        V first[4] = {}, second[4] = {};
        T first_left = 0, second_left = 0;
        index added = 0;
        const auto flush = [&] {
            for (int i = 0; i < 4; ++i) {
                sums.first += sum_lanes<T>(first[i]);
                sums.second += sum_lanes<T>(second[i]);
                first[i] = second[i] = V{};
            }
            sums.first += first_left;
            sums.second += second_left;
            first_left = second_left = 0;
            added = 0;
        };
        for (index r = from; r < to; ++r) {
            for (index start = 0; start < shape_.inner; start += run_flush) {
                const index n = smaller(run_flush, shape_.inner - start), base = unit.base + r * stride_ + start;
                for_vectors<T>(n, [&](auto tag, index i, int slot) {
                    const auto [p, q] = term_(OfRun{}, tag, base + i, unit.channel);
                    if constexpr (sizeof tag == sizeof(T)) {
                        first_left += p;
                        second_left += q;
                    } else {
                        first[slot] += p;
                        second[slot] += q;
                    }
                    (void)slot;
                });
                if ((added += n) >= run_flush) flush();
            }
        }
        flush();
    }

    template <typename V, int N> void add_columns(const Unit& unit, index c, index from, index to, Sums* sums) const {
        constexpr index step = lanes<V, T>();
        for (index start = from; start < to; start += column_flush) {
            V first[N] = {}, second[N] = {};
            for (index r = start; r < smaller(start + column_flush, to); ++r) {
                for (int n = 0; n < N; ++n) {
                    const index column = c + n * step;
                    const index place = unit.base + r * stride_ + column;
                    const auto [p, q] = term_(OfColumns{}, V{}, place, unit.channel + column);
                    first[n] += p;
                    second[n] += q;
                }
            }
            for (int n = 0; n < N; ++n) {
                T p[step], q[step];
                store(p, first[n]);
                store(q, second[n]);
                for (index lane = 0; lane < step; ++lane) {
                    sums[n * step + lane].first += p[lane];
                    sums[n * step + lane].second += q[lane];
                }
            }
        }
    }

    void apply(const Unit& unit, index from, index to) const {
        for (index r = to - 1; r >= from; --r) {
            const index base = unit.base + r * stride_;
            if (runs_) {
                for_vectors<T>(shape_.inner, [&](auto tag, index i, int) {
                    map_(OfRun{}, tag, base + i, unit.channel);
                });
            } else {
                for_vectors<T>(unit.width, [&](auto tag, index i, int) {
                    map_(OfColumns{}, tag, base + i, unit.channel + i);
                });
            }
        }
    }

    Shape shape_;
    index stride_;
    bool runs_;
    Term term_;
    Finish finish_;
    Map map_;
};

template <typename T, typename Term, typename Finish, typename Map>
void walk(const Shape& shape, Term term, Finish finish, Map map) {
    Walk<T, Term, Finish, Map>(shape, term, finish, map)();
}

// Map over all elements, where nothing has to be summed first.
template <typename T, typename Map> void each_element(const Shape& s, Map map) {
    const index rows = s.groups * s.rows, stride = s.channels * s.inner, total = rows * stride;
    const index parts = total <= small_total ? 1 : larger(smaller(total / piece, rows), 1);
    const auto part = [&](index p) {
        for (index r = p * rows / parts; r < (p + 1) * rows / parts; ++r) {
            const index channel = r / s.rows * s.channels;
            if (s.inner == 1) {
                for_vectors<T>(stride, [&](auto tag, index i, int) {
                    map(OfColumns{}, tag, r * stride + i, channel + i);
                });
                continue;
            }
            for (index c = 0; c < s.channels; ++c) {
                const index base = r * stride + c * s.inner;
                for_vectors<T>(s.inner, [&](auto tag, index i, int) { map(OfRun{}, tag, base + i, channel + c); });
            }
        }
    };
    if (parts == 1) return part(0);
    in_parallel(parts, part);
}

}  // namespace
}  // namespace BNKIT_LEVEL
}  // namespace bnkit
