// What a block keeps of its part of a tile between two looks at it: the first `held` vectors of each array in the
// registers of the thread that owns them, the others in shared memory, as long as the launch made it for them.
//
// A thread comes back to its own vectors only, so nothing waits for what others have stored.
#pragma once

#include "tile.cuh"

namespace bnkit {

// Vectors of each array that a thread has under way to shared memory: of a block 32 KB, of single elements up to 16.
template <int V, int arrays> constexpr int filling = (V == 1 ? 16 : 8) / arrays;

// Blocks of a kernel with a store that a multiprocessor has registers for: with single elements two, since one alone
// has few bytes under way; with doubles the compiler would spill.
template <typename T, int V> constexpr int resident = V == 1 && sizeof(T) < sizeof(double) ? 2 : 1;

// What a vector is moved as.
template <typename T, int V> struct Word {
    using type = uint4;
};
template <typename T> struct Word<T, 1> {
    using type = T;
};

template <typename T, int V, bool runs, int arrays, int held> class Store {
  public:
    using Vectors = Vector<T, V>[arrays];  // 0 where the thread has no elements

    // Reads all of the part.
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

    // Calls use(step, vectors, vector of `along`, element) in the order of steps, in all threads of the warp; `along`
    // is one more array to read, or null.
    template <typename Use> __device__ __forceinline__ void for_each(const T* along, Use use) const {
        Cursor<V, runs> cursor(tile_);
        constexpr int size = in_flight<V>;
        static_assert(held % size == 0, "registers are walked in whole batches");
        Vector<T, V> others[size];
        index elements[size];
        // Ahead of the uses, which store: the compiler moves no load before a store.
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
                Vector<T, V> own[arrays];
#pragma unroll
                for (int a = 0; a < arrays; ++a) own[a] = get(place(start + u, a));
                use(start + u, own, others[u], elements[u]);
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
