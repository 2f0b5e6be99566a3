/* Local response normalization, forward and backward (Krizhevsky et al. 2012, section 3.3).
 *
 *   s[i] = k + factor * sum of x[j]^2 for j from i-below to i+above       y[i] = x[i] * s[i]^-beta
 *   dx[j] = g[j] * s[j]^-beta
 *           - 2 * factor * beta * x[j] * sum of g[i] x[i] s[i]^(-beta-1) for i whose window has j
 *
 * A tensor is BLOCKS blocks of CHANNELS x PLACES numbers: rows of channels where PLACES is 1
 * (channels last), maps one after another where it is not. The towers' groups are blocks of their
 * own. Numbers are float32 or bfloat16; the arithmetic is float32. Every element is computed alone,
 * so that the result does not depend on the number of threads.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILE 64 /* places that are worked on at a time */
#define LINE 64 /* bytes */

typedef uint16_t bf16;
typedef struct {
  int64_t blocks, channels, places;
  int64_t below, above;
  float factor, beta, k;
  int threads;
} Shape;

static inline float from_float(float v) { return v; }
static inline float to_float(float v) { return v; }
static inline float from_bf16(bf16 v) {
  uint32_t bits = (uint32_t)v << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static inline bf16 to_bf16(float f) { /* to the nearest, halves to even */
  uint32_t bits;
  memcpy(&bits, &f, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (bf16)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* s^-beta; the paper's beta is 3/4, two roots and a division */
static inline void to_minus_beta(const float *s, float *out, int64_t n, float beta) {
  if (beta == 0.75f) {
    for (int64_t i = 0; i < n; i++) {
      float r = 1.0f / sqrtf(s[i]);
      out[i] = r * sqrtf(r);
    }
  } else if (beta == 0.5f) {
    for (int64_t i = 0; i < n; i++) out[i] = 1.0f / sqrtf(s[i]);
  } else {
    for (int64_t i = 0; i < n; i++) out[i] = powf(s[i], -beta);
  }
}

/* out[i] = start + factor * (in[i] + ... + in[i+size-1]), i < n, elements `step` apart */
static inline void windows(const float *restrict in, float *restrict out, int64_t n, int64_t size,
                           int64_t step, float factor, float start) {
  if (size == 5) {
    for (int64_t i = 0; i < n; i++)
      out[i] = start + factor * (in[i] + in[i + step] + in[i + 2 * step] + in[i + 3 * step] +
                                 in[i + 4 * step]);
    return;
  }
  for (int64_t i = 0; i < n; i++) out[i] = in[i];
  for (int64_t o = 1; o < size; o++)
    for (int64_t i = 0; i < n; i++) out[i] += in[i + o * step];
  for (int64_t i = 0; i < n; i++) out[i] = start + factor * out[i];
}

static float *take(int64_t floats) { return aligned_alloc(LINE, (floats * 4 + LINE) / LINE * LINE); }

/* A tile is CHANNELS x w numbers, w apart from each other channel. `padded` has `size - 1` channels
 * of zeros around them, so that windows need no cases. */
#define KERNELS(NAME, T, LOAD, STORE)                                                              \
  static inline void load_##NAME(const T *restrict from, float *restrict to, int64_t c, int64_t w, \
                                 int64_t stride) {                                                 \
    if (w == stride) {                                                                             \
      for (int64_t i = 0; i < c * w; i++) to[i] = LOAD(from[i]);                                   \
      return;                                                                                      \
    }                                                                                              \
    for (int64_t j = 0; j < c; j++)                                                                \
      for (int64_t i = 0; i < w; i++) to[j * w + i] = LOAD(from[j * stride + i]);                  \
  }                                                                                                \
  static inline void store_##NAME(const float *restrict from, T *restrict to, int64_t c,           \
                                  int64_t w, int64_t stride) {                                     \
    if (w == stride) {                                                                             \
      for (int64_t i = 0; i < c * w; i++) to[i] = STORE(from[i]);                                  \
      return;                                                                                      \
    }                                                                                              \
    for (int64_t j = 0; j < c; j++)                                                                \
      for (int64_t i = 0; i < w; i++) to[j * stride + i] = STORE(from[j * w + i]);                 \
  }                                                                                                \
  int lrn_forward_##NAME(const T *x, T *y, const Shape *shape) {                                   \
    const Shape p = *shape;                                                                        \
    const int64_t size = p.below + p.above + 1, tiles = (p.places + TILE - 1) / TILE;              \
    const int64_t most = p.places < TILE ? p.places : TILE, c = p.channels;                        \
    int failed = 0;                                                                                \
    _Pragma("omp parallel num_threads(p.threads)") {                                               \
      float *v = take(c * most), *padded = take((c + size) * most), *f = take(c * most);           \
      if (!v || !padded || !f) failed = 1;                                                         \
      else {                                                                                       \
        int64_t cleared = -1;                                                                      \
        _Pragma("omp for schedule(static)") for (int64_t t = 0; t < p.blocks * tiles; t++) {       \
          const int64_t first = (t % tiles) * TILE;                                                \
          const int64_t w = p.places - first < TILE ? p.places - first : TILE;                     \
          const int64_t at = (t / tiles) * c * p.places + first, n = c * w;                        \
          if (cleared != w) memset(padded, 0, (c + size) * w * 4), cleared = w;                    \
          load_##NAME(x + at, v, c, w, p.places);                                                  \
          float *squares = padded + p.below * w;                                                   \
          for (int64_t i = 0; i < n; i++) squares[i] = v[i] * v[i];                                \
          windows(padded, f, n, size, w, p.factor, p.k);                                           \
          to_minus_beta(f, f, n, p.beta);                                                          \
          for (int64_t i = 0; i < n; i++) v[i] *= f[i];                                            \
          store_##NAME(v, y + at, c, w, p.places);                                                 \
        }                                                                                          \
      }                                                                                            \
      free(v), free(padded), free(f);                                                              \
    }                                                                                              \
    return failed;                                                                                 \
  }                                                                                                \
  int lrn_backward_##NAME(const T *x, const T *g, T *dx, const Shape *shape) {                     \
    const Shape p = *shape;                                                                        \
    const int64_t size = p.below + p.above + 1, tiles = (p.places + TILE - 1) / TILE;              \
    const int64_t most = p.places < TILE ? p.places : TILE, c = p.channels;                        \
    const float twice = -2.0f * p.factor * p.beta;                                                 \
    int failed = 0;                                                                                \
    _Pragma("omp parallel num_threads(p.threads)") {                                               \
      float *v = take(c * most), *padded = take((c + size) * most), *f = take(c * most);           \
      float *s = take(c * most), *d = take(c * most);                                              \
      if (!v || !padded || !f || !s || !d) failed = 1;                                             \
      else {                                                                                       \
        _Pragma("omp for schedule(static)") for (int64_t t = 0; t < p.blocks * tiles; t++) {       \
          const int64_t first = (t % tiles) * TILE;                                                \
          const int64_t w = p.places - first < TILE ? p.places - first : TILE;                     \
          const int64_t at = (t / tiles) * c * p.places + first, n = c * w;                        \
          load_##NAME(x + at, v, c, w, p.places);                                                  \
          load_##NAME(g + at, d, c, w, p.places);                                                  \
          memset(padded, 0, p.below * w * 4);                                                      \
          memset(padded + p.below * w + n, 0, p.above * w * 4);                                    \
          float *inner = padded + p.below * w;                                                     \
          for (int64_t i = 0; i < n; i++) inner[i] = v[i] * v[i];                                  \
          windows(padded, s, n, size, w, p.factor, p.k);                                           \
          to_minus_beta(s, f, n, p.beta);                                                          \
          memset(padded, 0, p.above * w * 4);                                                      \
          memset(padded + p.above * w + n, 0, p.below * w * 4);                                    \
          inner = padded + p.above * w;                                                            \
          for (int64_t i = 0; i < n; i++) inner[i] = d[i] * v[i] * f[i] / s[i];                    \
          windows(padded, s, n, size, w, twice, 0.0f);                                             \
          for (int64_t i = 0; i < n; i++) d[i] = d[i] * f[i] + v[i] * s[i];                        \
          store_##NAME(d, dx + at, c, w, p.places);                                                \
        }                                                                                          \
      }                                                                                            \
      free(v), free(padded), free(f), free(s), free(d);                                            \
    }                                                                                              \
    return failed;                                                                                 \
  }

KERNELS(float, float, to_float, from_float)
KERNELS(bf16, bf16, from_bf16, to_bf16)
