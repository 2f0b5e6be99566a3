/* A region of a resized picture: bytes, antialiased, as torch and Pillow do it.
 *
 * Both weigh in whole numbers of 16 bits: first along the rows, which gives bytes again, then along
 * the columns (torch: aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h, after Pillow-SIMD). The
 * same sums in the same order give the same bytes; here they leave the colors in planes of their own
 * and compute no more than the region. Processors that cannot pick bytes from two vectors at once
 * (AVX-512 VBMI) are better served by torch's.
 */
#include "resize.h"

#ifdef REGIONS
enum { COLORS = 3, AT_ONCE = 16 };

/* 64 bytes of which `left` are there. */
ALWAYS __m512i some(const uint8_t *from, int64_t left) {
  if (left >= 64) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi8(left > 0 ? ((uint64_t)1 << left) - 1 : 0, from);
}

static int64_t stride_of(const Region *r) { return (r->columns + AT_ONCE - 1) / AT_ONCE * AT_ONCE; }

static int64_t plane_of(const Region *r) { return (r->last_row - r->first_row) * stride_of(r); }

uint8_t *region_room(const Region *r) {
  return malloc(COLORS * plane_of(r) + stride_of(r) + 2 * AT_ONCE); /* read beyond, and not used */
}

void region_row(const Region *r, const uint8_t *row, int64_t left, int64_t y, uint8_t *room) {
  const int64_t plane = plane_of(r);
  const int32_t *starts = r->starts;
  const uint8_t *picks = r->picks;
  const int16_t *weights = r->row_weights;
  uint8_t *to = room + (y - r->first_row) * stride_of(r);
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

/* 32 columns at once. Of an odd number of rows the one behind the last is read, and weighs 0. */
static void along_columns(const uint8_t *from, uint8_t *to, int64_t stride, int64_t columns,
                          const int16_t *weights, int64_t count, int bits) {
  const __m512i half = _mm512_set1_epi32(1 << (bits - 1));
  const __m128i shift = _mm_cvtsi32_si128(bits);
  for (int64_t x = 0; x < columns; x += 2 * AT_ONCE) {
    __m512i low = half, high = half; /* halves of each 128 bits, which packing puts together again */
    for (int64_t k = 0; k < count; k += 2) {
      const uint8_t *row = from + k * stride + x;
      int32_t pair;
      memcpy(&pair, weights + k, sizeof pair);
      const __m512i weight = _mm512_set1_epi32(pair);
      const __m512i a = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)row));
      const __m512i b = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(row + stride)));
      low = _mm512_add_epi32(low, _mm512_madd_epi16(_mm512_unpacklo_epi16(a, b), weight));
      high = _mm512_add_epi32(high, _mm512_madd_epi16(_mm512_unpackhi_epi16(a, b), weight));
    }
    low = _mm512_sra_epi32(low, shift), high = _mm512_sra_epi32(high, shift);
    const int64_t left = columns - x;
    const __mmask32 there = left >= 2 * AT_ONCE ? ~0u : (1u << left) - 1;
    _mm512_mask_cvtusepi16_storeu_epi8(to + x, there, _mm512_packus_epi32(low, high));
  }
}

void region_columns(const Region *r, const uint8_t *room, uint8_t *out) {
  const int64_t stride = stride_of(r), plane = plane_of(r);
  for (int c = 0; c < COLORS; c++)
    for (int64_t y = 0; y < r->rows; y++)
      along_columns(room + c * plane + (r->tops[y] - r->first_row) * stride,
                    out + (c * r->rows + y) * r->columns, stride, r->columns,
                    r->column_weights + 2 * r->column_pairs * y, r->heights[y], r->column_bits);
}

int resize_region(const uint8_t *pixels, uint8_t *out, const Region *r) {
  const int64_t whole = r->height * r->width * COLORS;
  uint8_t *room = region_room(r);
  if (!room) return 1;
  for (int64_t y = r->first_row; y < r->last_row; y++) {
    const int64_t at = y * r->width * COLORS;
    region_row(r, pixels + at, whole - at, y, room);
  }
  region_columns(r, room, out);
  free(room);
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
