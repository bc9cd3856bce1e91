// What the kernels share: bfloat16 in vectors of 16, and an exponential.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace {

using Half = uint16_t;  // the bits of a bfloat16
using Word = uint32_t;  // two of them

struct Buffer {  // aligned scratch memory
  explicit Buffer(size_t bytes)
      : data(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {}
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  template <typename T> T* as(size_t offset = 0) { return reinterpret_cast<T*>(data) + offset; }
  void* data;
};

// Scratch memory that a thread keeps for its next call: new pages cost more than the work in them.
class Held {
 public:
  explicit Held(size_t bytes) {
    auto best = pool().end();
    for (auto block = pool().begin(); block != pool().end(); ++block)
      if (block->second >= bytes && (best == pool().end() || block->second < best->second))
        best = block;
    if (best != pool().end()) {
      block_ = *best;
      pool().erase(best);
    } else {
      const size_t rounded = (bytes + bytes / 8 + 63) / 64 * 64;  // samples differ in length
      block_ = {std::aligned_alloc(64, rounded), rounded};
    }
  }
  ~Held() {
    pool().push_back(block_);
    if (pool().size() > 8) {
      auto least = std::min_element(pool().begin(), pool().end(), [](auto& one, auto& other) {
        return one.second < other.second;
      });
      std::free(least->first);
      pool().erase(least);
    }
  }
  Held(const Held&) = delete;
  template <typename T> T* as(size_t offset = 0) {
    return reinterpret_cast<T*>(block_.first) + offset;
  }

 private:
  static std::vector<std::pair<void*, size_t>>& pool() {
    static thread_local std::vector<std::pair<void*, size_t>> blocks;
    return blocks;
  }
  std::pair<void*, size_t> block_;
};

inline float to_float(Half bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline void store_half(Half* to, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(values));
}

inline __m512 load_half(const Half* from) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

inline __m256i round_half(__m512 values) {
  return (__m256i)_mm512_cvtneps_pbh(values);
}

// exp(x) for x <= 0: 2^n times a polynomial of degree 5 on [-0.5, 0.5] ln 2. NaN stays NaN, which
// the order of the operands of max decides.
inline __m512 exp_negative(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(8.3333333e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1666667e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666667e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// Rounded to bfloat16 and back, as a tensor in between would be.
inline __m512 rounded(__m512 values) {
  __m512i wide = _mm512_cvtepu16_epi32(round_half(values));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

inline __m512 sigmoid(__m512 x) {
  __m512 one = _mm512_set1_ps(1.0f);
  __m512 e = exp_negative(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
  __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_div_ps(_mm512_mask_blend_ps(negative, one, e), _mm512_add_ps(one, e));
}

}  // namespace
