// Layers that touch each value once: RMS normalisation, the SwiGLU product, and cross-entropy.
//
// One pass over memory forwards and one backwards, where eager PyTorch takes several and keeps what
// lies between them. Intermediate values are rounded where transformers' own layers round them.
// Rows have a length that is a multiple of 16, but for cross-entropy's vocabulary.
#include "simd.h"

extern "C" {

// y = weight * round(x / rms(x)); `inverse` (rows) keeps 1 / rms for the way back.
void rms_norm_forward(const Half* x, const Half* weight, Half* y, float* inverse, int64_t rows,
                      int64_t size, float epsilon) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const Half* from = x + row * size;
    __m512 squares = _mm512_setzero_ps();
    for (int64_t d = 0; d < size; d += 16) {
      __m512 value = load_half(from + d);
      squares = _mm512_fmadd_ps(value, value, squares);
    }
    float scale = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / size + epsilon);
    inverse[row] = scale;
    for (int64_t d = 0; d < size; d += 16) {
      __m512 value = rounded(_mm512_mul_ps(load_half(from + d), _mm512_set1_ps(scale)));
      store_half(y + row * size + d, _mm512_mul_ps(load_half(weight + d), value));
    }
  }
}

// dx = (g - x' mean(g x')) / rms with g = grad * weight and x' = x / rms; the weight is frozen.
void rms_norm_backward(const Half* grad, const Half* x, const Half* weight, const float* inverse,
                       Half* dx, int64_t rows, int64_t size) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const Half *from = x + row * size, *change = grad + row * size;
    __m512 scale = _mm512_set1_ps(inverse[row]), dots = _mm512_setzero_ps();
    for (int64_t d = 0; d < size; d += 16) {
      __m512 g = _mm512_mul_ps(load_half(change + d), load_half(weight + d));
      dots = _mm512_fmadd_ps(g, _mm512_mul_ps(load_half(from + d), scale), dots);
    }
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(dots) / size);
    for (int64_t d = 0; d < size; d += 16) {
      __m512 g = _mm512_mul_ps(load_half(change + d), load_half(weight + d));
      __m512 unit = _mm512_mul_ps(load_half(from + d), scale);
      store_half(dx + row * size + d, _mm512_mul_ps(_mm512_fnmadd_ps(unit, mean, g), scale));
    }
  }
}

// y = round(silu(gate)) * up, over `count` values, a multiple of 16.
void swiglu_forward(const Half* gate, const Half* up, Half* y, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += 16) {
    __m512 g = load_half(gate + i);
    __m512 active = rounded(_mm512_mul_ps(g, sigmoid(g)));
    store_half(y + i, _mm512_mul_ps(active, load_half(up + i)));
  }
}

void swiglu_backward(const Half* grad, const Half* gate, const Half* up, Half* dgate, Half* dup,
                     int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i += 16) {
    __m512 change = load_half(grad + i), g = load_half(gate + i);
    __m512 s = sigmoid(g), one = _mm512_set1_ps(1.0f);
    store_half(dup + i, _mm512_mul_ps(change, rounded(_mm512_mul_ps(g, s))));
    __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(g, _mm512_sub_ps(one, s), one));
    store_half(dgate + i, _mm512_mul_ps(_mm512_mul_ps(change, load_half(up + i)), slope));
  }
}

// losses[row] = log sum exp(logits) - logits[target]; the logits (rows, size) become the gradient
// of the sum of the losses, softmax - onehot.
void cross_entropy(Half* logits, const int64_t* targets, float* losses, int64_t rows,
                   int64_t size) {
#pragma omp parallel for schedule(dynamic, 4)
  for (int64_t row = 0; row < rows; ++row) {
    Half* at = logits + row * size;
    const int64_t whole = size / 16 * 16;
    __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    for (int64_t d = 0; d < whole; d += 16) most = _mm512_max_ps(most, load_half(at + d));
    float top = _mm512_reduce_max_ps(most);
    for (int64_t d = whole; d < size; ++d) top = std::max(top, to_float(at[d]));
    __m512 sums = _mm512_setzero_ps();
    for (int64_t d = 0; d < whole; d += 16)
      sums = _mm512_add_ps(sums, exp_negative(_mm512_sub_ps(load_half(at + d), _mm512_set1_ps(top))));
    float total = _mm512_reduce_add_ps(sums);
    for (int64_t d = whole; d < size; ++d) total += std::exp(to_float(at[d]) - top);
    const int64_t target = targets[row];
    losses[row] = std::log(total) + top - to_float(at[target]);
    const float share = std::exp(to_float(at[target]) - top) / total;
    __m512 inverse = _mm512_set1_ps(1.0f / total);
    for (int64_t d = 0; d < whole; d += 16) {
      __m512 e = exp_negative(_mm512_sub_ps(load_half(at + d), _mm512_set1_ps(top)));
      store_half(at + d, _mm512_mul_ps(e, inverse));
    }
    for (int64_t d = whole; d < size; ++d) {
      __m512 e = _mm512_set1_ps(std::exp(to_float(at[d]) - top) / total);
      Half lanes[16];
      store_half(lanes, e);
      at[d] = lanes[0];
    }
    Half lanes[16];
    store_half(lanes, _mm512_set1_ps(share - 1.0f));
    at[target] = lanes[0];
  }
}

}  // extern "C"
