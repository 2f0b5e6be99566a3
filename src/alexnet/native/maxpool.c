/* Max-pooling of maps whose channels lie side by side ([N, H, W, C] in memory), forward and back.
 *
 * Beside the largest number its place in the window is kept, in one byte: 0 at the window's upper
 * left, row by row. Of equals the first is taken, and what is not a number counts as the largest, as
 * in torch. Windows lie inside the map, but for the last of a row or column, which may be cut off.
 * Backward every place of the map adds up what the windows that took it hand down, in float32 and in
 * the order of the windows, so that the result does not depend on the number of threads.
 */
#include "vectors.h"

typedef struct {
  int64_t count, channels, height, width, out_height, out_width;
  int64_t size, stride;
  int threads;
} Pool;

ALWAYS Bits get_bytes(const uint8_t *from) {
#ifdef __AVX512F__
  return (Bits)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#else
  Bits wide;
  for (int i = 0; i < LANES; i++) wide[i] = from[i];
  return wide;
#endif
}
ALWAYS void put_bytes(uint8_t *to, Bits which) {
#ifdef __AVX512F__
  _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)which));
#else
  for (int i = 0; i < LANES; i++) to[i] = (uint8_t)which[i];
#endif
}

/* The largest of nine, and the first place that has it; false if one of them is not a number. */
ALWAYS int largest_of_nine(const Vector v[9], Vector *most, Bits *which) {
#ifdef __AVX512F__
#define MASK(A, B, HOW) _mm512_cmp_ps_mask((__m512)(A), (__m512)(B), HOW)
#define LARGER(LATER, EARLIER) (Vector)_mm512_max_ps((__m512)(LATER), (__m512)(EARLIER))
  __mmask16 none = MASK(v[8], v[8], _CMP_UNORD_Q);
  for (int i = 0; i < 8; i += 2) none |= MASK(v[i], v[i + 1], _CMP_UNORD_Q);
  if (__builtin_expect(none, 0)) return 0;
  const Vector last = LARGER(v[8], LARGER(LARGER(v[7], v[6]), LARGER(v[5], v[4])));
  *most = LARGER(last, LARGER(LARGER(v[3], v[2]), LARGER(v[1], v[0])));
  __m512i place = _mm512_set1_epi32(8);
  for (int i = 7; i >= 0; i--)
    place = _mm512_mask_mov_epi32(place, MASK(v[i], *most, _CMP_EQ_OQ), _mm512_set1_epi32(i));
  *which = (Bits)place;
  return 1;
#else
  (void)v, (void)most, (void)which;
  return 0;
#endif
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The first window that reaches place `at`, in one direction. */
static inline int64_t first_window(const Pool *p, int64_t at) {
  return at < p->size ? 0 : (at - p->size) / p->stride + 1;
}
/* The one after the last. */
static inline int64_t windows_end(const Pool *p, int64_t at, int64_t windows) {
  return least(at / p->stride + 1, windows);
}

#define KERNELS(NAME, T, GET, PUT)                                                                 \
  /* LANES channels of one window, whose upper left is at `x`: `rows` x `columns` of it are there */ \
  ALWAYS void window_##NAME(const T *x, T *y, uint8_t *index, int64_t rows, int64_t columns,       \
                            int64_t size, int64_t row, int64_t column) {                           \
    Vector most = GET(x), all_of_it[9] = {most};                                                   \
    Bits which = {0};                                                                              \
    const int nine = size == 3 && rows == 3 && columns == 3;                                       \
    if (nine)                                                                                      \
      for (int64_t i = 1; i < 9; i++) all_of_it[i] = GET(x + i / 3 * row + i % 3 * column);        \
    if (!nine || !largest_of_nine(all_of_it, &most, &which))                                       \
      for (int64_t i = 0; i < rows; i++)                                                           \
        for (int64_t j = i ? 0 : 1; j < columns; j++) {                                            \
          const Vector v = GET(x + i * row + j * column);                                          \
          const Bits larger = (v > most) | (v != v);                                               \
          most = choose(larger, v, most);                                                          \
          which = (larger & (int32_t)(i * size + j)) | (~larger & which);                          \
        }                                                                                          \
    PUT(y, most);                                                                                  \
    if (index) put_bytes(index, which);                                                            \
  }                                                                                                \
  ALWAYS void out_row_##NAME(const T *x, T *y, uint8_t *index, const Pool *p, int64_t number,      \
                             int64_t size) {                                                       \
    const int64_t channels = p->channels, row = p->width * channels;                               \
    const int64_t top = number % p->out_height * p->stride;                                        \
    const int64_t rows = least(size, p->height - top);                                             \
    x += (number / p->out_height * p->height + top) * row;                                         \
    const int64_t to = number * p->out_width * channels;                                           \
    for (int64_t ox = 0; ox < p->out_width; ox++) {                                                \
      const int64_t left = ox * p->stride, columns = least(size, p->width - left);                 \
      for (int64_t c = 0; c < channels; c += LANES) {                                              \
        const int64_t from = least(c, channels - LANES), at = to + ox * channels + from;           \
        const T *corner = x + left * channels + from;                                              \
        uint8_t *kept = index ? index + at : 0;                                                    \
        if (rows == size && columns == size)                                                       \
          window_##NAME(corner, y + at, kept, size, size, size, row, channels);                    \
        else window_##NAME(corner, y + at, kept, rows, columns, size, row, channels);              \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  void max_pool_forward_##NAME(const T *x, T *y, uint8_t *index, const Pool *p) {                  \
    const int64_t rows = p->count * p->out_height;                                                 \
    _Pragma("omp parallel for num_threads(p->threads) schedule(static)") for (int64_t r = 0;       \
                                                                              r < rows; r++) {     \
      if (p->size == 3) out_row_##NAME(x, y, index, p, r, 3);                                      \
      else out_row_##NAME(x, y, index, p, r, p->size);                                             \
    }                                                                                              \
  }                                                                                                \
  /* The gradient by one place, the windows `down` x `across` from `at` having it: in the first of \
   * them its number is `here`. */                                                                 \
  ALWAYS void place_back_##NAME(const T *g, const uint8_t *index, T *dx, const Pool *p, int64_t at, \
                                int32_t here, int64_t down, int64_t across) {                      \
    const int64_t channels = p->channels, row = p->out_width * channels;                           \
    const int32_t above = (int32_t)(p->stride * p->size), before = (int32_t)p->stride;             \
    for (int64_t c = 0; c < channels; c += LANES) {                                                \
      const int64_t lane = least(c, channels - LANES);                                             \
      Vector sum = {0};                                                                            \
      for (int64_t i = 0; i < down; i++)                                                           \
        for (int64_t j = 0; j < across; j++) {                                                     \
          const int64_t from = at + i * row + j * channels + lane;                                 \
          const Bits taken = get_bytes(index + from) == here - (int32_t)i * above - (int32_t)j * before; \
          sum += choose(taken, GET(g + from), all(0.0f));                                          \
        }                                                                                          \
      PUT(dx + lane, sum);                                                                         \
    }                                                                                              \
  }                                                                                                \
  static void row_back_##NAME(const T *g, const uint8_t *index, T *dx, const Pool *p,              \
                              int64_t number) {                                                    \
    const int64_t channels = p->channels, y = number % p->height;                                  \
    const int64_t top = first_window(p, y), down = windows_end(p, y, p->out_height) - top;         \
    const int64_t from = (number / p->height * p->out_height + top) * p->out_width;                \
    dx += number * p->width * channels;                                                            \
    for (int64_t x = 0; x < p->width; x++, dx += channels) {                                       \
      const int64_t left = first_window(p, x), across = windows_end(p, x, p->out_width) - left;    \
      const int64_t at = (from + left) * channels;                                                 \
      const int32_t here = (int32_t)((y - top * p->stride) * p->size + x - left * p->stride);      \
      if (down == 1 && across == 1) place_back_##NAME(g, index, dx, p, at, here, 1, 1);            \
      else if (down == 1 && across == 2) place_back_##NAME(g, index, dx, p, at, here, 1, 2);       \
      else if (down == 2 && across == 1) place_back_##NAME(g, index, dx, p, at, here, 2, 1);       \
      else if (down == 2 && across == 2) place_back_##NAME(g, index, dx, p, at, here, 2, 2);       \
      else place_back_##NAME(g, index, dx, p, at, here, down, across);                             \
    }                                                                                              \
  }                                                                                                \
  void max_pool_backward_##NAME(const T *g, const uint8_t *index, T *dx, const Pool *p) {          \
    const int64_t rows = p->count * p->height;                                                     \
    _Pragma("omp parallel for num_threads(p->threads) schedule(static)") for (int64_t r = 0;       \
                                                                              r < rows; r++)       \
      row_back_##NAME(g, index, dx, p, r);                                                         \
  }

KERNELS(float, float, get, put)
KERNELS(bf16, bf16, get_bf16, put_bf16)
