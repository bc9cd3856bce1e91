// Training kernels for processors with AVX512-bf16: causal attention, forwards and backwards.
//
// PyTorch's own attention for the CPU does without this processor's bfloat16 products. The
// algorithm is FlashAttention-2 (Dao 2023): scores are computed block by block, never kept, and
// computed again backwards. Products are of bfloat16 with float32 sums, the softmax is float32.
//
// Every product is C += A B over pairs of bfloat16 along the reduction, the unit of vdpbf16ps.
// A pair is one 32-bit word. "Pairs" of a matrix (rows x columns) are packed as
//   down:    word (row / 2, column) holds rows 2i and 2i + 1    (reduction over rows)
//   across:  panels of 64 rows; word (column / 2, row) holds columns 2i and 2i + 1
#include <omp.h>

#include <vector>

#include "simd.h"

namespace {

constexpr int BLOCK = 64;  // queries, and keys, a block

// C[4 rows][16 WIDE] (+)= A B. A's word (row, k) is at a[row * a_row + k * a_step].
template <int WIDE>
inline void micro(const Word* a, int a_row, int a_step, const Word* b, int b_step, float* c,
                  int c_row, int steps, bool add) {
  __m512 sum[4][WIDE];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < WIDE; ++j)
      sum[i][j] = add ? _mm512_loadu_ps(c + i * c_row + 16 * j) : _mm512_setzero_ps();
  for (int k = 0; k < steps; ++k) {
    __m512bh right[WIDE];
    for (int j = 0; j < WIDE; ++j)
      right[j] = (__m512bh)_mm512_loadu_si512(b + static_cast<size_t>(k) * b_step + 16 * j);
    for (int i = 0; i < 4; ++i) {
      __m512bh left =
          (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i * a_row + static_cast<size_t>(k) * a_step]));
      for (int j = 0; j < WIDE; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
    }
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < WIDE; ++j) _mm512_storeu_ps(c + i * c_row + 16 * j, sum[i][j]);
}

// C[BLOCK][columns] (+)= A B with columns a multiple of 32.
inline void product(const Word* a, int a_row, int a_step, const Word* b, int b_step, float* c,
                    int c_row, int columns, int steps, bool add) {
  int j = 0;
  for (; j + 64 <= columns; j += 64)
    for (int i = 0; i < BLOCK; i += 4)
      micro<4>(a + i * a_row, a_row, a_step, b + j, b_step, c + i * c_row + j, c_row, steps, add);
  for (; j < columns; j += 32)
    for (int i = 0; i < BLOCK; i += 4)
      micro<2>(a + i * a_row, a_row, a_step, b + j, b_step, c + i * c_row + j, c_row, steps, add);
}

// Rows beyond `length` are zero. `stride` is between rows, in elements.
void pack_down(const Half* from, int64_t stride, int length, int padded, int size, Word* to) {
  for (int i = 0; i < padded / 2; ++i) {
    const Half* first = from + 2 * i * stride;
    Word* row = to + static_cast<size_t>(i) * size;
    if (2 * i + 1 < length)
      for (int d = 0; d < size; ++d) row[d] = first[d] | static_cast<Word>(first[stride + d]) << 16;
    else if (2 * i < length)
      for (int d = 0; d < size; ++d) row[d] = first[d];
    else
      std::memset(row, 0, sizeof(Word) * size);
  }
}

void pack_across(const Half* from, int64_t stride, int length, int padded, int size, Word* to) {
  for (int panel = 0; panel < padded / BLOCK; ++panel) {
    Word* words = to + static_cast<size_t>(panel) * BLOCK * (size / 2);
    for (int r = 0; r < BLOCK; ++r) {
      int row = panel * BLOCK + r;
      if (row < length) {
        const Half* source = from + row * stride;
        for (int d = 0; d < size / 2; ++d) std::memcpy(words + d * BLOCK + r, source + 2 * d, 4);
      } else {
        for (int d = 0; d < size / 2; ++d) words[d * BLOCK + r] = 0;
      }
    }
  }
}

// Rows of `from` as they are, without gaps and with zeros behind the last.
void pack_rows(const Half* from, int64_t stride, int length, int padded, int size, Half* to) {
  for (int row = 0; row < padded; ++row) {
    if (row < length)
      std::memcpy(to + static_cast<size_t>(row) * size, from + row * stride, 2 * size);
    else
      std::memset(to + static_cast<size_t>(row) * size, 0, 2 * size);
  }
}

struct View {  // (batch, heads, length, size), the last dimension without gaps
  Half* data;
  int64_t batch, head, row;
  Half* at(int b, int h) const { return data + b * batch + h * head; }
};

// Keys a query of row `row` of a block on the diagonal may see: itself and those before.
inline __mmask16 visible(int row, int first_column) {
  int count = row + 1 - first_column;
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

}  // namespace

extern "C" {

struct Shape {
  int32_t batch, heads, key_heads, length, size;
  float scale;
};

struct Strides {
  int64_t batch, head, row;
};

// output: (batch, heads, length, size) by its strides; lse: (batch, heads, padded length) float32.
void attention_forward(const Shape* shape, Half* q, const Strides* qs, Half* k, const Strides* ks,
                       Half* v, const Strides* vs, Half* output, const Strides* os, float* lse) {
  const int length = shape->length, size = shape->size, heads = shape->heads;
  const int groups = heads / shape->key_heads;
  const int blocks = (length + BLOCK - 1) / BLOCK, padded = blocks * BLOCK;
  const size_t plane = static_cast<size_t>(padded) * size / 2;  // words of a packed head
  const int key_planes = shape->batch * shape->key_heads;
  Held packed(2 * sizeof(Word) * plane * key_planes);
  View Q{q, qs->batch, qs->head, qs->row}, K{k, ks->batch, ks->head, ks->row},
      V{v, vs->batch, vs->head, vs->row}, O{output, os->batch, os->head, os->row};
#pragma omp parallel
  {
#pragma omp for schedule(dynamic)
    for (int n = 0; n < 2 * key_planes; ++n) {
      int b = n / 2 / shape->key_heads, h = n / 2 % shape->key_heads;
      if (n % 2)
        pack_down(V.at(b, h), V.row, length, padded, size, packed.as<Word>(n * plane));
      else
        pack_across(K.at(b, h), K.row, length, padded, size, packed.as<Word>(n * plane));
    }
    Buffer scratch(sizeof(float) * BLOCK * (BLOCK + size + 2) + 2 * BLOCK * (BLOCK + size));
    float* scores = scratch.as<float>();
    float* sum = scores + BLOCK * BLOCK;
    float* top = sum + BLOCK * size;
    float* total = top + BLOCK;
    Half* p = reinterpret_cast<Half*>(total + BLOCK);
    Half* rows = p + BLOCK * BLOCK;
    // The longest blocks first, so that the threads end together.
#pragma omp for schedule(dynamic) collapse(1)
    for (int n = 0; n < blocks * shape->batch * heads; ++n) {
      const int i = blocks - 1 - n / (shape->batch * heads);
      const int b = n % (shape->batch * heads) / heads, h = n % heads;
      const size_t plane_of = static_cast<size_t>(b * shape->key_heads + h / groups) * 2;
      const Word* keys = packed.as<Word>(plane_of * plane);
      const Word* values = packed.as<Word>((plane_of + 1) * plane);
      pack_rows(Q.at(b, h) + static_cast<int64_t>(i) * BLOCK * Q.row, Q.row,
                std::min(BLOCK, length - i * BLOCK), BLOCK, size, rows);
      std::memset(sum, 0, sizeof(float) * BLOCK * size);
      std::fill(top, top + BLOCK, -std::numeric_limits<float>::infinity());
      std::fill(total, total + BLOCK, 0.0f);
      for (int j = 0; j <= i; ++j) {
        product(reinterpret_cast<Word*>(rows), size / 2, 1,
                keys + static_cast<size_t>(j) * BLOCK * (size / 2), BLOCK, scores, BLOCK, BLOCK,
                size / 2, false);
        for (int r = 0; r < BLOCK; ++r) {
          float* row = scores + r * BLOCK;
          __m512 s[4];
          __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
          for (int c = 0; c < 4; ++c) {
            s[c] = _mm512_mul_ps(_mm512_loadu_ps(row + 16 * c), _mm512_set1_ps(shape->scale));
            if (i == j)
              s[c] = _mm512_mask_blend_ps(visible(r, 16 * c),
                                          _mm512_set1_ps(-std::numeric_limits<float>::infinity()),
                                          s[c]);
            most = _mm512_max_ps(most, s[c]);
          }
          float before = top[r], now = std::max(before, _mm512_reduce_max_ps(most));
          __m512 sums = _mm512_setzero_ps();
          for (int c = 0; c < 4; ++c) {
            __m512 e = exp_negative(_mm512_sub_ps(s[c], _mm512_set1_ps(now)));
            if (i == j) e = _mm512_maskz_mov_ps(visible(r, 16 * c), e);
            sums = _mm512_add_ps(sums, e);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + r * BLOCK + 16 * c), round_half(e));
          }
          float shrink = now == before ? 1.0f : std::exp(before - now);
          total[r] = total[r] * shrink + _mm512_reduce_add_ps(sums);
          top[r] = now;
          if (shrink != 1.0f)
            for (int d = 0; d < size; d += 16)
              _mm512_storeu_ps(sum + r * size + d,
                               _mm512_mul_ps(_mm512_loadu_ps(sum + r * size + d),
                                             _mm512_set1_ps(shrink)));
        }
        product(reinterpret_cast<Word*>(p), BLOCK / 2, 1,
                values + static_cast<size_t>(j) * (BLOCK / 2) * size, size, sum, size, size,
                BLOCK / 2, true);
      }
      for (int r = 0; r < std::min(BLOCK, length - i * BLOCK); ++r) {
        int row = i * BLOCK + r;
        Half* to = O.at(b, h) + static_cast<int64_t>(row) * O.row;
        __m512 inverse = _mm512_set1_ps(1.0f / total[r]);
        for (int d = 0; d < size; d += 16)
          _mm256_storeu_si256(
              reinterpret_cast<__m256i*>(to + d),
              round_half(_mm512_mul_ps(_mm512_loadu_ps(sum + r * size + d), inverse)));
        lse[(static_cast<size_t>(b) * heads + h) * padded + row] = top[r] + std::log(total[r]);
      }
    }
  }
}

// Gradients of queries, keys and values; dq, dk, dv by their strides.
void attention_backward(const Shape* shape, Half* q, const Strides* qs, Half* k, const Strides* ks,
                        Half* v, const Strides* vs, Half* output, const Strides* os,
                        const float* lse, Half* grad, const Strides* gs, Half* dq,
                        const Strides* dqs, Half* dk, const Strides* dks, Half* dv,
                        const Strides* dvs) {
  const int length = shape->length, size = shape->size, heads = shape->heads;
  const int groups = heads / shape->key_heads;
  const int blocks = (length + BLOCK - 1) / BLOCK, padded = blocks * BLOCK;
  const size_t plane = static_cast<size_t>(padded) * size;  // elements of a head
  const int key_planes = shape->batch * shape->key_heads, planes = shape->batch * heads;
  View Q{q, qs->batch, qs->head, qs->row}, K{k, ks->batch, ks->head, ks->row},
      V{v, vs->batch, vs->head, vs->row}, O{output, os->batch, os->head, os->row},
      G{grad, gs->batch, gs->head, gs->row}, DQ{dq, dqs->batch, dqs->head, dqs->row},
      DK{dk, dks->batch, dks->head, dks->row}, DV{dv, dvs->batch, dvs->head, dvs->row};
  // Keys across, values across, keys down; queries and gradients, down and in rows.
  Held key_packs(2 * plane * key_planes * 3), query_packs(2 * plane * planes * 4);
  Held deltas(sizeof(float) * padded * planes);
  // Each head's keys in parts of equal work, so that few heads keep many threads busy.
  const int parts = std::min(blocks, std::max(1, (4 * omp_get_max_threads() + planes - 1) / planes));
  Held query_sums(sizeof(float) * plane * planes * parts);
  Held key_sums(sizeof(float) * plane * planes), value_sums(sizeof(float) * plane * planes);
  std::vector<int> begin(parts + 1, 0);
  for (int part = 1; part < parts; ++part)  // key block j is met by blocks - j query blocks
    begin[part] = blocks - static_cast<int>(blocks * std::sqrt(1.0 - double(part) / parts) + 0.5);
  begin[parts] = blocks;
#pragma omp parallel
  {
#pragma omp for schedule(dynamic)
    for (int n = 0; n < 3 * key_planes; ++n) {
      int b = n / 3 / shape->key_heads, h = n / 3 % shape->key_heads;
      Word* to = key_packs.as<Word>(n * plane / 2);
      if (n % 3 == 0) pack_across(K.at(b, h), K.row, length, padded, size, to);
      if (n % 3 == 1) pack_across(V.at(b, h), V.row, length, padded, size, to);
      if (n % 3 == 2) pack_down(K.at(b, h), K.row, length, padded, size, to);
    }
#pragma omp for schedule(dynamic)
    for (int n = 0; n < planes; ++n) {
      int b = n / heads, h = n % heads;
      Word* to = query_packs.as<Word>(static_cast<size_t>(n) * 4 * plane / 2);
      pack_rows(Q.at(b, h), Q.row, length, padded, size, reinterpret_cast<Half*>(to));
      pack_rows(G.at(b, h), G.row, length, padded, size, reinterpret_cast<Half*>(to + plane / 2));
      pack_down(Q.at(b, h), Q.row, length, padded, size, to + plane);
      pack_down(G.at(b, h), G.row, length, padded, size, to + 3 * plane / 2);
      float* delta = deltas.as<float>(static_cast<size_t>(n) * padded);
      for (int row = 0; row < padded; ++row) {
        __m512 dots = _mm512_setzero_ps();
        if (row < length)
          for (int d = 0; d < size; d += 16)
            dots = _mm512_fmadd_ps(load_half(O.at(b, h) + row * O.row + d),
                                   load_half(G.at(b, h) + row * G.row + d), dots);
        delta[row] = _mm512_reduce_add_ps(dots);
      }
    }
    Buffer scratch(sizeof(float) * BLOCK * BLOCK * 2 + 2 * BLOCK * BLOCK * 3);
    float* scores = scratch.as<float>();
    float* changes = scores + BLOCK * BLOCK;
    Word* p_down = reinterpret_cast<Word*>(changes + BLOCK * BLOCK);
    Word* d_down = p_down + BLOCK * BLOCK / 2;
    Half* d_rows = reinterpret_cast<Half*>(d_down + BLOCK * BLOCK / 2);
#pragma omp for schedule(dynamic)
    for (int n = 0; n < planes * parts; ++n) {
      const int at = n % planes, part = n / planes, b = at / heads, h = at % heads;
      const size_t key_plane = static_cast<size_t>(b * shape->key_heads + h / groups) * 3;
      const Word* k_across = key_packs.as<Word>(key_plane * plane / 2);
      const Word* v_across = k_across + plane / 2;
      const Word* k_down = v_across + plane / 2;
      const Word* q_rows = query_packs.as<Word>(static_cast<size_t>(at) * 4 * plane / 2);
      const Word* g_rows = q_rows + plane / 2;
      const Word* q_down = g_rows + plane / 2;
      const Word* g_down = q_down + plane / 2;
      const float* shift = lse + static_cast<size_t>(at) * padded;
      const float* delta = deltas.as<float>(static_cast<size_t>(at) * padded);
      float* query_sum = query_sums.as<float>((static_cast<size_t>(part) * planes + at) * plane);
      float* key_sum = key_sums.as<float>(static_cast<size_t>(at) * plane);
      float* value_sum = value_sums.as<float>(static_cast<size_t>(at) * plane);
      std::memset(query_sum, 0, sizeof(float) * plane);
      for (int j = begin[part]; j < begin[part + 1]; ++j) {
        float* dk_block = key_sum + static_cast<size_t>(j) * BLOCK * size;
        float* dv_block = value_sum + static_cast<size_t>(j) * BLOCK * size;
        for (int i = j; i < blocks; ++i) {
          const size_t block = static_cast<size_t>(i) * BLOCK * (size / 2);
          const size_t key_block = static_cast<size_t>(j) * BLOCK * (size / 2);
          product(q_rows + block, size / 2, 1, k_across + key_block, BLOCK, scores, BLOCK, BLOCK,
                  size / 2, false);
          product(g_rows + block, size / 2, 1, v_across + key_block, BLOCK, changes, BLOCK, BLOCK,
                  size / 2, false);
          for (int r = 0; r < BLOCK; r += 2) {
            for (int c = 0; c < BLOCK; c += 16) {
              __m256i pair_p[2], pair_d[2];
              for (int e = 0; e < 2; ++e) {
                int row = i * BLOCK + r + e;
                __m512 s = _mm512_mul_ps(_mm512_loadu_ps(scores + (r + e) * BLOCK + c),
                                         _mm512_set1_ps(shape->scale));
                __m512 weight = exp_negative(_mm512_min_ps(
                    _mm512_setzero_ps(),
                    _mm512_sub_ps(s, _mm512_set1_ps(row < length ? shift[row] : 0.0f))));
                __mmask16 mask = row >= length ? 0 : i == j ? visible(r + e, c) : 0xffff;
                weight = _mm512_maskz_mov_ps(mask, weight);
                __m512 change = _mm512_mul_ps(
                    weight, _mm512_sub_ps(_mm512_loadu_ps(changes + (r + e) * BLOCK + c),
                                          _mm512_set1_ps(delta[row])));
                pair_p[e] = round_half(weight);
                pair_d[e] = round_half(_mm512_mul_ps(change, _mm512_set1_ps(shape->scale)));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(d_rows + (r + e) * BLOCK + c),
                                    pair_d[e]);
              }
              _mm512_storeu_si512(
                  p_down + (r / 2) * BLOCK + c,
                  _mm512_or_si512(_mm512_cvtepu16_epi32(pair_p[0]),
                                  _mm512_slli_epi32(_mm512_cvtepu16_epi32(pair_p[1]), 16)));
              _mm512_storeu_si512(
                  d_down + (r / 2) * BLOCK + c,
                  _mm512_or_si512(_mm512_cvtepu16_epi32(pair_d[0]),
                                  _mm512_slli_epi32(_mm512_cvtepu16_epi32(pair_d[1]), 16)));
            }
          }
          product(p_down, 1, BLOCK, g_down + block, size, dv_block, size, size, BLOCK / 2, i > j);
          product(d_down, 1, BLOCK, q_down + block, size, dk_block, size, size, BLOCK / 2, i > j);
          product(reinterpret_cast<Word*>(d_rows), BLOCK / 2, 1, k_down + key_block, size,
                  query_sum + static_cast<size_t>(i) * BLOCK * size, size, size, BLOCK / 2, true);
        }
      }
    }
#pragma omp for schedule(static) collapse(2)
    for (int at = 0; at < planes; ++at)
      for (int row = 0; row < length; ++row)
        for (int d = 0; d < size; d += 16) {
          __m512 sum = _mm512_setzero_ps();
          for (int part = 0; part < parts; ++part)
            sum = _mm512_add_ps(sum, _mm512_loadu_ps(query_sums.as<float>(
                                         (static_cast<size_t>(part) * planes + at) * plane +
                                         static_cast<size_t>(row) * size + d)));
          Half* to = DQ.at(at / heads, at % heads) + row * DQ.row + d;
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), round_half(sum));
        }
#pragma omp for schedule(static) collapse(2)
    for (int at = 0; at < key_planes; ++at)
      for (int row = 0; row < length; ++row)
        for (int d = 0; d < size; d += 16) {
          int b = at / shape->key_heads, h = at % shape->key_heads;
          __m512 keys = _mm512_setzero_ps(), values = _mm512_setzero_ps();
          for (int g = 0; g < groups; ++g) {
            size_t from = static_cast<size_t>(b * heads + h * groups + g) * plane +
                          static_cast<size_t>(row) * size + d;
            keys = _mm512_add_ps(keys, _mm512_loadu_ps(key_sums.as<float>(from)));
            values = _mm512_add_ps(values, _mm512_loadu_ps(value_sums.as<float>(from)));
          }
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(DK.at(b, h) + row * DK.row + d),
                              round_half(keys));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(DV.at(b, h) + row * DV.row + d),
                              round_half(values));
        }
  }
}

}  // extern "C"
