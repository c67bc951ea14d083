// A block's part of a tile, kept on the chip between two passes: the first `held` vectors of each array in registers of
// their thread, the others in the dynamic shared memory of the launch.
//
// A thread reads only the vectors that it stored, so no barrier is needed.
#pragma once

#include "tile.cuh"

namespace bnkit {

// Loads of each array that a thread has in flight to shared memory: 32 KB for a block, or up to 16 KB of elements.
template <int V, int arrays> constexpr int filling = (V == 1 ? 16 : 8) / arrays;

// Blocks with a store for which a multiprocessor has registers. With single elements two, since one block has too few
// bytes in flight; but with doubles the compiler would spill.
template <typename T, int V> constexpr int resident = V == 1 && sizeof(T) < sizeof(double) ? 2 : 1;

// The type by which a vector is copied.
template <typename T, int V> struct Word {
    using type = uint4;
};
template <typename T> struct Word<T, 1> {
    using type = T;
};

template <typename T, int V, bool runs, int arrays, int held> class Store {
  public:
    using Vectors = Vector<T, V>[arrays];  // 0 if the thread has no elements

    // Reads the whole part.
    __device__ __forceinline__ Store(const Tile<V, runs>& tile, const T* const (&from)[arrays], bool aligned)
        : tile_(tile), aligned_(aligned) {
        steps_ = static_cast<int>((tile.last - tile.first + blockDim.y - 1) / blockDim.y);
        Cursor<V, runs> cursor(tile);
        const auto read = [&](int step, Vectors& to) {
#pragma unroll
            for (int a = 0; a < arrays; ++a) {
                to[a] = {};
                if (tile.has(tile.first, step)) to[a] = load<T, V>(from[a] + cursor.element, aligned);
            }
            cursor.advance();
        };
#pragma unroll
        for (int i = 0; i < held; ++i) read(i, held_[i]);
        constexpr int size = filling<V, arrays>;
#pragma unroll 1
        for (int start = held; start < steps_; start += size) {
            Vector<T, V> batch[size][arrays];
#pragma unroll
            for (int u = 0; u < size; ++u) read(start + u, batch[u]);
#pragma unroll
            for (int u = 0; u < size; ++u) {
                if (start + u >= steps_) break;
#pragma unroll
                for (int a = 0; a < arrays; ++a) put(place(start + u, a), batch[u][a]);
            }
        }
    }

    // Calls use(step, vectors, vector of `along`, element) for each step in order, in all threads of the warp. along:
    // another array to read, or null.
    template <typename Use> __device__ __forceinline__ void for_each(const T* along, Use use) const {
        Cursor<V, runs> cursor(tile_);
        constexpr int size = in_flight<V>;
        static_assert(held % size == 0, "registers are walked in whole batches");
        Vector<T, V> others[size];
        index elements[size];
        // Before the uses, which store: the compiler does not move a load before a store.
        const auto read_others = [&](int start) {
#pragma unroll
            for (int u = 0; u < size; ++u) {
                others[u] = {};
                elements[u] = cursor.element;
                if (along && tile_.has(tile_.first, start + u)) others[u] = load<T, V>(along + elements[u], aligned_);
                cursor.advance();
            }
        };
#pragma unroll
        for (int i = 0; i < held; ++i) {
            if (i % size == 0) read_others(i);
            use(i, held_[i], others[i % size], elements[i % size]);
        }
#pragma unroll 1
        for (int start = held; start < steps_; start += size) {
            read_others(start);
#pragma unroll
            for (int u = 0; u < size; ++u) {
                if (start + u >= steps_) break;
                Vector<T, V> stored[arrays];
#pragma unroll
                for (int a = 0; a < arrays; ++a) stored[a] = get(place(start + u, a));
                use(start + u, stored, others[u], elements[u]);
            }
        }
    }

  private:
    using Kept = typename Word<T, V>::type;

    // Neighbouring threads have neighbouring vectors.
    __device__ static Kept* place(int step, int array) {
        extern __shared__ uint4 bytes[];
        return reinterpret_cast<Kept*>(bytes) + ((step - held) * arrays + array) * threads + thread_number();
    }

    __device__ static void put(Kept* to, const Vector<T, V>& a) {
        Kept word;
        memcpy(&word, &a, sizeof(a));
        *to = word;
    }

    __device__ static Vector<T, V> get(const Kept* from) {
        const Kept word = *from;
        Vector<T, V> a;
        memcpy(&a, &word, sizeof(a));
        return a;
    }

    const Tile<V, runs>& tile_;
    Vector<T, V> held_[held][arrays];
    bool aligned_;
    int steps_;
};

}  // namespace bnkit
