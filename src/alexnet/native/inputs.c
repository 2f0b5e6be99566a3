/* Pictures in bytes become a network's input: cut, mirrored, scaled, laid out, in one pass.
 *
 *   out[n][c][y][x] = pixels[n][c][top[n] + y][left[n] + x'] * scale[c] + shift[n][c]
 *
 * where x' is x, or crop - 1 - x where the picture is mirrored. Pixels are [N, C, side, side]; the
 * result is [N, C, crop, crop], or [N, crop, crop, C] in memory with `channels_last`.
 */
#include <omp.h>

#include "vectors.h"

typedef uint16_t bf16;
typedef struct {
  int64_t count, channels, side, crop;
  int channels_last, threads;
} Pictures;

static inline float to_float(float v) { return v; }
static inline bf16 to_bf16(float f) { /* to the nearest, halves to even; all are finite */
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#define KERNELS(NAME, T, STORE)                                                                    \
  static inline void line_##NAME(const uint8_t *restrict from, T *restrict to, int64_t n,          \
                                 int mirrored, float a, float b) {                                 \
    if (mirrored)                                                                                  \
      for (int64_t x = 0; x < n; x++) to[x] = STORE(from[n - 1 - x] * a + b);                      \
    else                                                                                           \
      for (int64_t x = 0; x < n; x++) to[x] = STORE(from[x] * a + b);                              \
  }                                                                                                \
  static inline void interleave_##NAME(const T *restrict one, const T *restrict two,               \
                                       const T *restrict three, T *restrict to, int64_t n) {       \
    for (int64_t x = 0; x < n; x++)                                                                \
      to[3 * x] = one[x], to[3 * x + 1] = two[x], to[3 * x + 2] = three[x];                        \
  }                                                                                                \
  int inputs_##NAME(const uint8_t *pixels, const int64_t *left, const int64_t *top,                \
                    const uint8_t *mirrored, const float *scale, const float *shift, T *out,       \
                    const Pictures *p) {                                                           \
    const int64_t lines = p->count * p->crop, channels = p->channels, crop = p->crop;              \
    const int64_t room = channels * crop;                                                          \
    T *buffers = malloc(p->threads * room * sizeof(T));                                            \
    if (!buffers) return 1;                                                                        \
    _Pragma("omp parallel num_threads(p->threads)") {                                              \
      T *line = buffers + omp_get_thread_num() * room;                                             \
      _Pragma("omp for schedule(static)") for (int64_t l = 0; l < lines; l++) {                    \
        const int64_t n = l / crop, y = l % crop;                                                  \
        for (int64_t c = 0; c < channels; c++) {                                                   \
          const int64_t row = (n * channels + c) * p->side + top[n] + y;                           \
          T *to = p->channels_last ? line + c * crop : out + ((n * channels + c) * crop + y) * crop; \
          line_##NAME(pixels + row * p->side + left[n], to, crop, mirrored[n], scale[c],           \
                      shift[n * channels + c]);                                                    \
        }                                                                                          \
        if (!p->channels_last) continue;                                                           \
        T *to = out + l * room;                                                                    \
        if (channels == 3) interleave_##NAME(line, line + crop, line + 2 * crop, to, crop);        \
        else                                                                                       \
          for (int64_t x = 0; x < crop; x++)                                                       \
            for (int64_t c = 0; c < channels; c++) to[x * channels + c] = line[c * crop + x];      \
      }                                                                                            \
    }                                                                                              \
    free(buffers);                                                                                 \
    return 0;                                                                                      \
  }

KERNELS(float, float, to_float)
KERNELS(bf16, bf16, to_bf16)

/* For each color and each pair of colors the sum of values and of products over all pixels of a
 * batch [count, channels, plane]: exact. `products` is [channels, channels]. */
void color_sums(const uint8_t *pixels, int64_t count, int64_t channels, int64_t plane,
                int64_t *sums, int64_t *products) {
  enum { MOST = 1 << 15 }; /* pixels whose products 32 bits can hold */
  for (int64_t n = 0; n < count; n++, pixels += channels * plane)
    for (int64_t i = 0; i < channels; i++)
      for (int64_t j = i; j < channels; j++)
        for (int64_t first = 0; first < plane; first += MOST) {
          const int64_t size = plane - first < MOST ? plane - first : MOST;
          const uint8_t *a = pixels + i * plane + first, *b = pixels + j * plane + first;
          uint32_t product = 0, sum = 0;
          for (int64_t p = 0; p < size; p++) product += (uint32_t)a[p] * b[p], sum += a[p];
          products[i * channels + j] += product;
          if (i != j) products[j * channels + i] += product;
          else sums[i] += sum;
        }
}
