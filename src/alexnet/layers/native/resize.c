/* A region of a resized picture: bytes, antialiased, as torch and Pillow do it.
 *
 * Both weigh in whole numbers of 16 bits: first along the rows, which gives bytes again, then along
 * the columns (torch: aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h, after Pillow-SIMD). The
 * same sums in the same order give the same bytes; here they leave the colors in planes of their own
 * and compute no more than the region. Processors that cannot pick bytes from two vectors at once
 * (AVX-512 VBMI) are better served by torch's.
 */
#include "vectors.h"

#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
#include <immintrin.h>

enum { COLORS = 3, AT_ONCE = 16 };

/* `pairs` pairs of weights for each place, the second of an odd number being 0. Along a row, for
 * AT_ONCE places together: where the first of their pixels is, and for each pair of weights the 32
 * bytes to pick from there on. */
typedef struct {
  int64_t height, width;        /* of the picture, [height, width, 3] */
  int64_t rows, columns;        /* of the region; columns are a multiple of AT_ONCE in the tables */
  int64_t first_row, last_row;  /* rows of the picture that the region needs */
  int64_t row_pairs, column_pairs;
  int row_bits, column_bits;    /* of the weights behind the point */
} Region;

/* 64 bytes of which `left` are there. */
ALWAYS __m512i some(const uint8_t *from, int64_t left) {
  if (left >= 64) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi8(left > 0 ? ((uint64_t)1 << left) - 1 : 0, from);
}

static void along_row(const uint8_t *row, int64_t left, uint8_t *to, int64_t plane,
                      const int32_t *starts, const uint8_t *picks, const int16_t *weights,
                      const Region *r) {
  const __m512i half = _mm512_set1_epi32(1 << (r->row_bits - 1));
  const __m128i bits = _mm_cvtsi32_si128(r->row_bits);
  for (int64_t x = 0; x < r->columns; x += AT_ONCE) {
    const uint8_t *from = row + *starts;
    const __m512i near = some(from, left - *starts), far = some(from + 64, left - *starts - 64);
    __m512i sums[COLORS] = {half, half, half};
    starts++;
    for (int64_t p = 0; p < r->row_pairs; p++, picks += 2 * AT_ONCE, weights += 2 * AT_ONCE) {
      const __m512i weight = _mm512_loadu_si512(weights);
      const __m256i pick = _mm256_loadu_si256((const __m256i *)picks);
      for (int c = 0; c < COLORS; c++) {
        const __m256i place = _mm256_add_epi8(pick, _mm256_set1_epi8((char)c));
        const __m512i found = _mm512_permutex2var_epi8(near, _mm512_castsi256_si512(place), far);
        const __m512i pixels = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(found));
        sums[c] = _mm512_add_epi32(sums[c], _mm512_madd_epi16(pixels, weight));
      }
    }
    for (int c = 0; c < COLORS; c++) {
      const __m512i whole = _mm512_max_epi32(_mm512_sra_epi32(sums[c], bits), _mm512_setzero_si512());
      _mm_storeu_si128((__m128i *)(to + c * plane + x), _mm512_cvtusepi32_epi8(whole));
    }
  }
}

static void along_columns(const uint8_t *from, uint8_t *to, int64_t stride, int64_t columns,
                          const int16_t *weights, int64_t count, int bits) {
  for (int64_t x = 0; x < columns; x += AT_ONCE) {
    __m512i sum = _mm512_set1_epi32(1 << (bits - 1));
    for (int64_t k = 0; k < count; k++) {
      const __m128i pixels = _mm_loadu_si128((const __m128i *)(from + k * stride + x));
      const __m512i weight = _mm512_set1_epi32(weights[k]);
      sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(_mm512_cvtepu8_epi32(pixels), weight));
    }
    sum = _mm512_max_epi32(_mm512_sra_epi32(sum, _mm_cvtsi32_si128(bits)), _mm512_setzero_si512());
    const int64_t left = columns - x;
    const __mmask16 there = left >= AT_ONCE ? 0xffff : (__mmask16)((1 << left) - 1);
    _mm512_mask_cvtusepi32_storeu_epi8(to + x, there, sum);
  }
}

/* `tops` and `heights`, `[rows]`, tell which rows of the picture a row of the region is made of. */
int resize_region(const uint8_t *pixels, uint8_t *out, const int32_t *starts, const uint8_t *picks,
                  const int16_t *row_weights, const int32_t *tops, const int32_t *heights,
                  const int16_t *column_weights, const Region *r) {
  const int64_t stride = (r->columns + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
  const int64_t plane = (r->last_row - r->first_row) * stride, whole = r->height * r->width * COLORS;
  uint8_t *between = malloc(COLORS * plane);
  if (!between) return 1;
  for (int64_t y = r->first_row; y < r->last_row; y++) {
    const int64_t at = y * r->width * COLORS;
    along_row(pixels + at, whole - at, between + (y - r->first_row) * stride, plane, starts, picks,
              row_weights, r);
  }
  for (int c = 0; c < COLORS; c++)
    for (int64_t y = 0; y < r->rows; y++)
      along_columns(between + c * plane + (tops[y] - r->first_row) * stride,
                    out + (c * r->rows + y) * r->columns, stride, r->columns,
                    column_weights + 2 * r->column_pairs * y, heights[y], r->column_bits);
  free(between);
  return 0;
}
#endif

/* The planes of color of a region whose rows are `stride` bytes apart, without resizing. */
void planes_of_color(const uint8_t *pixels, uint8_t *restrict out, int64_t rows, int64_t columns,
                     int64_t stride) {
  const int64_t plane = rows * columns;
  for (int64_t y = 0; y < rows; y++, pixels += stride, out += columns)
    for (int64_t x = 0; x < columns; x++)
      for (int c = 0; c < 3; c++) out[c * plane + x] = pixels[3 * x + c];
}
