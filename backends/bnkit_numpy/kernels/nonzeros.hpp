// Lists the nonzero elements of a submatrix, row by row.
#pragma once

#include "simd.hpp"

namespace bnkit {
namespace BNKIT_LEVEL {

// A submatrix in memory; `step` elements lie between the starts of two rows.
template <typename A> struct Submatrix {
    const A* first;
    index rows, columns, step;
};

#if defined(__GNUC__) && defined(__AVX512F__) && defined(__AVX512VL__)
#define BNKIT_COMPRESSES

// Writes the nonzero lanes of v, and first + their lane numbers, each as a vector whose rest is arbitrary; returns
// their number.
inline int put_nonzeros(Vector<float> v, int first, float* values, int* places) {
    const auto which = _mm512_cmp_ps_mask(bit_cast<__m512>(v), __m512{}, _CMP_NEQ_UQ);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(which, bit_cast<__m512>(v)));
    _mm512_storeu_si512(places, _mm512_maskz_compress_epi32(which, _mm512_add_epi32(lane, _mm512_set1_epi32(first))));
    return __builtin_popcount(which);
}

inline int put_nonzeros(Vector<double> v, int first, double* values, int* places) {
    const auto which = _mm512_cmp_pd_mask(bit_cast<__m512d>(v), __m512d{}, _CMP_NEQ_UQ);
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
    _mm512_storeu_pd(values, _mm512_maskz_compress_pd(which, bit_cast<__m512d>(v)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(places), _mm256_maskz_compress_epi32(which, lane));
    return __builtin_popcount(which);
}

#elif defined(__GNUC__) && defined(__AVX2__)
#define BNKIT_COMPRESSES

// The lane numbers of each subset of 8 lanes, one byte each, in ascending order.
struct LaneLists {
    std::uint64_t of[256];
    constexpr LaneLists() : of() {
        for (int set = 0; set < 256; ++set) {
            for (int lane = 7; lane >= 0; --lane) {
                if (set >> lane & 1) of[set] = of[set] << 8 | static_cast<std::uint64_t>(lane);
            }
        }
    }
};
constexpr LaneLists lane_lists;

inline __m256i lanes_in(unsigned set) {
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(lane_lists.of[set])));
}

inline int put_nonzeros(Vector<float> v, int first, float* values, int* places) {
    const auto nonzero = _mm256_cmp_ps(bit_cast<__m256>(v), __m256{}, _CMP_NEQ_UQ);
    const auto set = static_cast<unsigned>(_mm256_movemask_ps(nonzero));
    const __m256i lanes = lanes_in(set);
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(bit_cast<__m256>(v), lanes));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(places), _mm256_add_epi32(lanes, _mm256_set1_epi32(first)));
    return __builtin_popcount(set);
}

inline int put_nonzeros(Vector<double> v, int first, double* values, int* places) {
    const auto nonzero = _mm256_cmp_pd(bit_cast<__m256d>(v), __m256d{}, _CMP_NEQ_UQ);
    const auto halves = static_cast<unsigned>(_mm256_movemask_ps(bit_cast<__m256>(nonzero)));  // two bits for each lane
    const auto set = static_cast<unsigned>(_mm256_movemask_pd(nonzero));
    const __m256 moved = _mm256_permutevar8x32_ps(bit_cast<__m256>(v), lanes_in(halves));
    const __m128i lanes = _mm256_castsi256_si128(lanes_in(set));
    _mm256_storeu_ps(reinterpret_cast<float*>(values), moved);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(places), _mm_add_epi32(lanes, _mm_set1_epi32(first)));
    return __builtin_popcount(set);
}
#endif

// Row i has the value values[k] in column places[k], for starts[i] <= k < starts[i + 1].
template <typename A> class Nonzeros {
  public:
    // For submatrices of at most this many rows and elements.
    Nonzeros(index rows, index elements) : starts_(rows + 2), places_(elements), values_(elements) {}

    const int* starts() const { return starts_.data(); }
    const int* places() const { return places_.data(); }
    const A* values() const { return values_.data(); }

    void list(const Submatrix<A>& a) {
        int k = 0;
        for (index i = 0; i < a.rows; ++i) {
            starts_.data()[i] = k;
            k = add_row(a.first + i * a.step, static_cast<int>(a.columns), k);
        }
        starts_.data()[a.rows] = k;
    }

    // The transpose of `other`, which lists `others_rows` rows; the transpose has `rows`.
    void list_transposed(const Nonzeros& other, index others_rows, index rows) {
        int* const next = starts_.data() + 1;  // the place of row i's next element; at the end, the start of row i + 1
        const int* const from = other.starts();
        for (index i = -1; i <= rows; ++i) next[i] = 0;
        for (int k = 0; k < from[others_rows]; ++k) ++next[other.places()[k] + 1];
        for (index i = 1; i <= rows; ++i) next[i] += next[i - 1];
        for (index j = 0; j < others_rows; ++j) {
            for (int k = from[j]; k < from[j + 1]; ++k) {
                const int to = next[other.places()[k]]++;
                places_.data()[to] = static_cast<int>(j);
                values_.data()[to] = other.values()[k];
            }
        }
    }

  private:
    // Writes every element, but advances only past nonzero ones: a branch would be mispredicted. There is room for all
    // elements, and so for a whole vector.
    int add_row(const A* row, int columns, int k) {
        int i = 0;
#if defined(BNKIT_COMPRESSES)
        constexpr int width = lanes<Vector<A>>();
        for (; i + width <= columns; i += width) {
            k += put_nonzeros(load<Vector<A>>(row + i), i, values_.data() + k, places_.data() + k);
        }
#endif
        for (; i < columns; ++i) {
            values_.data()[k] = row[i];
            places_.data()[k] = i;
            k += row[i] != 0;
        }
        return k;
    }

    Scratch<int> starts_, places_;
    Scratch<A> values_;
};

}  // namespace BNKIT_LEVEL
}  // namespace bnkit
