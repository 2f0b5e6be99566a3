/* Blocks of a JPEG become planes, and those pixels, as libjpeg-turbo does it by default.
 *
 * The transform is jidctint.c's (Loeffler, Ligtenberg and Moschytz, 1989), the upsampling jdsample.c's
 * ("fancy"), the colors are jdcolor.c's, all in whole numbers: so the bytes are the same, as long as
 * no sum leaves the 16 bits that libjpeg-turbo's own vectors keep it in.
 */
#include "jpeg.h"

#ifdef __AVX2__

typedef int32_t Signed __attribute__((vector_size(sizeof(Whole))));

ALWAYS void turn(Whole v[SIDE]) { /* rows become columns, in each block */
#ifdef __AVX512F__
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
  for (int step = 0; step < 3; step++) {
    Whole turned[SIDE];
    for (int i = 0; i < SIDE / 2; i++) {
      const __m512i a = (__m512i)v[i], b = (__m512i)v[i + SIDE / 2];
      turned[2 * i] = (Whole)_mm512_permutex2var_epi32(a, low, b);
      turned[2 * i + 1] = (Whole)_mm512_permutex2var_epi32(a, high, b);
    }
    for (int i = 0; i < SIDE; i++) v[i] = turned[i];
  }
#else
  __m256i pairs[SIDE], fours[SIDE];
  for (int i = 0; i < SIDE; i += 2) {
    pairs[i] = _mm256_unpacklo_epi32((__m256i)v[i], (__m256i)v[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_epi32((__m256i)v[i], (__m256i)v[i + 1]);
  }
  for (int i = 0; i < SIDE; i += 4)
    for (int j = 0; j < 2; j++) {
      fours[i + 2 * j] = _mm256_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
      fours[i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
    }
  for (int i = 0; i < SIDE / 2; i++) {
    v[i] = (Whole)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
    v[i + 4] = (Whole)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
  }
#endif
}

ALWAYS uint8_t a_byte(int32_t v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

ALWAYS Whole shifted(Whole v, int bits) { return (Whole)((Signed)v >> bits); }

ALWAYS void one_way(Whole v[SIDE], int bits) { /* constants of 13 bits */
  const Whole half = (Whole){0} + (1u << (bits - 1));
  const Whole z1 = (v[2] + v[6]) * 4433u;
  const Whole even2 = z1 - v[6] * 15137u, even3 = z1 + v[2] * 6270u;
  const Whole even0 = ((v[0] + v[4]) << 13) + half, even1 = ((v[0] - v[4]) << 13) + half;
  const Whole a0 = even0 + even3, a3 = even0 - even3, a1 = even1 + even2, a2 = even1 - even2;
  const Whole both = (v[7] + v[3] + v[5] + v[1]) * 9633u;
  const Whole z3 = both - (v[7] + v[3]) * 16069u, z4 = both - (v[5] + v[1]) * 3196u;
  const Whole y1 = (v[7] + v[1]) * 7373u, y2 = (v[5] + v[3]) * 20995u;
  const Whole odd0 = v[7] * 2446u - y1 + z3, odd1 = v[5] * 16819u - y2 + z4;
  const Whole odd2 = v[3] * 25172u - y2 + z3, odd3 = v[1] * 12299u - y1 + z4;
  v[0] = shifted(a0 + odd3, bits), v[7] = shifted(a0 - odd3, bits);
  v[1] = shifted(a1 + odd2, bits), v[6] = shifted(a1 - odd2, bits);
  v[2] = shifted(a2 + odd1, bits), v[5] = shifted(a2 - odd1, bits);
  v[3] = shifted(a3 + odd0, bits), v[4] = shifted(a3 - odd0, bits);
}

#if defined(__AVX512F__)
ALWAYS __m256i two_rows(const void *a, const void *b) {
  const __m128i first = _mm_loadu_si128(a);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), _mm_loadu_si128(b), 1);
}
ALWAYS Whole scaled_row(const int16_t *blocks[TOGETHER], const uint16_t *scales[TOGETHER], int y) {
  const __m256i row = two_rows(blocks[0] + SIDE * y, blocks[1] + SIDE * y);
  const __m256i by = two_rows(scales[0] + SIDE * y, scales[1] + SIDE * y);
  return (Whole)_mm512_mullo_epi32(_mm512_cvtepi16_epi32(row), _mm512_cvtepu16_epi32(by));
}
ALWAYS void put_row(Whole v, uint8_t *to[TOGETHER], const int64_t strides[TOGETHER], int y) {
  const __m512i seen = _mm512_max_epi32((__m512i)(v + 128), _mm512_setzero_si512());
  const __m128i bytes = _mm512_cvtusepi32_epi8(seen);
  _mm_storel_epi64((__m128i *)(to[0] + y * strides[0]), bytes);
  _mm_storeh_pd((double *)(to[1] + y * strides[1]), _mm_castsi128_pd(bytes));
}
#else
ALWAYS Whole scaled_row(const int16_t *blocks[TOGETHER], const uint16_t *scales[TOGETHER], int y) {
  const __m128i row = _mm_loadu_si128((const __m128i *)(blocks[0] + SIDE * y));
  const __m128i by = _mm_loadu_si128((const __m128i *)(scales[0] + SIDE * y));
  return (Whole)_mm256_mullo_epi32(_mm256_cvtepi16_epi32(row), _mm256_cvtepu16_epi32(by));
}
ALWAYS void put_row(Whole v, uint8_t *to[TOGETHER], const int64_t strides[TOGETHER], int y) {
  const __m256i seen = (__m256i)(v + 128);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(seen), _mm256_extracti128_si256(seen, 1));
  _mm_storel_epi64((__m128i *)(to[0] + y * strides[0]), _mm_packus_epi16(words, words));
}
#endif

void jpeg_transform(const int16_t *blocks[TOGETHER], const uint16_t *scales[TOGETHER],
                    uint8_t *to[TOGETHER], const int64_t strides[TOGETHER], Whole *beyond) {
  const Whole middle = (Whole){0} + (1u << 14);
  Whole v[SIDE], noted = *beyond;
  for (int y = 0; y < SIDE; y++) {
    v[y] = scaled_row(blocks, scales, y);
    noted |= v[y] + middle;
  }
  one_way(v, 11);
  for (int y = 0; y < SIDE; y++) noted |= v[y] + middle;
  turn(v);
  one_way(v, 18);
  turn(v);
  *beyond = noted;
  for (int y = 0; y < SIDE; y++) put_row(v[y], to, strides, y);
}

int jpeg_fill(int level, uint8_t *to, int64_t stride) {
  const int byte = a_byte(((level + 4) >> 3) + 128);
  for (int y = 0; y < SIDE; y++) memset(to + y * stride, byte, SIDE);
  return level >= -(1 << 12) && level < 1 << 12 ? DONE : REFUSED;
}

/* --- Planes become pixels -------------------------------------------------------------------- */

static const uint8_t *row_of(const Plane *plane, int64_t y) {
  y = y < 0 ? 0 : y < plane->height ? y : plane->height - 1;
  const int64_t rows = SIDE * plane->down;
  return plane->strips[y / rows % STRIPS] + y % rows * plane->stride;
}

/* Each number becomes two: 3/4 of it and 1/4 of its neighbour (jdsample.c). `sums` has a number
 * before the first and room for one after the last. */
static void doubled(uint16_t *restrict sums, int64_t width, int bits, int first, int second,
                    uint16_t *restrict to) {
  sums[-1] = sums[0];
  sums[width] = sums[width - 1];
  for (int64_t x = 0; x < width; x += JPEG_BATCH)
    for (int64_t i = x; i < x + JPEG_BATCH; i++) {
      const uint16_t most = 3 * sums[i];
      const uint16_t left = (uint16_t)(most + sums[i - 1] + first) >> bits;
      const uint16_t right = (uint16_t)(most + sums[i + 1] + second) >> bits;
      to[i] = left | right << 8;
    }
}

/* A row of chroma as wide as the picture; what is beyond its end, up to a batch, means nothing. */
static const uint8_t *wide_row(const Picture *p, int c, int64_t y, uint16_t *restrict sums,
                               uint16_t *restrict to) {
  const Plane *plane = &p->planes[c];
  const int64_t width = plane->width;
  if (p->planes[0].across == 1) return row_of(plane, y);
  const int halved = p->planes[0].down == 2;
  const uint8_t *near = row_of(plane, halved ? y / 2 : y);
  const uint8_t *far = row_of(plane, y / 2 + (y % 2 ? 1 : -1));
  for (int64_t x = 0; x < width; x += JPEG_BATCH)
    if (halved)
      for (int64_t i = x; i < x + JPEG_BATCH; i++) sums[i] = 3 * near[i] + far[i];
    else
      for (int64_t i = x; i < x + JPEG_BATCH; i++) sums[i] = near[i];
  if (halved) doubled(sums, width, 4, 8, 7, to);
  else doubled(sums, width, 2, 1, 2, to);
  return (const uint8_t *)to;
}

/* jdcolor.c: ITU-R BT.601, in whole numbers of 16 bits. Up to a batch beyond `width`. */
static void colored(const uint8_t *restrict luma, const uint8_t *restrict blue,
                    const uint8_t *restrict red, int64_t width, uint8_t *restrict r,
                    uint8_t *restrict g, uint8_t *restrict b) {
  for (int64_t x = 0; x < width; x += JPEG_BATCH)
    for (int64_t i = x; i < x + JPEG_BATCH; i++) {
      const int32_t y = luma[i], cb = blue[i] - 128, cr = red[i] - 128;
      r[i] = a_byte(y + ((91881 * cr + 32768) >> 16));
      g[i] = a_byte(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
      b[i] = a_byte(y + ((116130 * cb + 32768) >> 16));
    }
}

#ifdef REGIONS
/* For bytes of three planes in turn: places in the first two, and which are of the third. */
static uint8_t picks[COLORS][JPEG_BATCH];
static uint64_t thirds[COLORS];

__attribute__((constructor)) static void make_picks(void) {
  for (int i = 0; i < COLORS * JPEG_BATCH; i++) {
    picks[i / JPEG_BATCH][i % JPEG_BATCH] = i / COLORS | (i % COLORS == 1) << 6;
    thirds[i / JPEG_BATCH] |= (uint64_t)(i % COLORS == 2) << i % JPEG_BATCH;
  }
}
#endif

static void in_turn(const uint8_t *r, const uint8_t *g, const uint8_t *b, int64_t width, uint8_t *to) {
  int64_t x = 0;
#ifdef REGIONS
  for (; x < width; x += JPEG_BATCH)
    for (int i = 0; i < COLORS; i++) {
      const __m512i pick = _mm512_loadu_si512(picks[i]), rs = _mm512_loadu_si512(r + x);
      const __m512i two = _mm512_permutex2var_epi8(rs, pick, _mm512_loadu_si512(g + x));
      const __m512i bs = _mm512_loadu_si512(b + x);
      const int64_t at = COLORS * x + i * JPEG_BATCH, left = COLORS * width - at;
      const __mmask64 there = left >= JPEG_BATCH ? ~0ull : left > 0 ? (1ull << left) - 1 : 0;
      const __m512i all = _mm512_mask_permutexvar_epi8(two, thirds[i], pick, bs);
      _mm512_mask_storeu_epi8(to + at, there, all);
    }
#endif
  for (; x < width; x++) {
    to[COLORS * x] = r[x];
    to[COLORS * x + 1] = g[x];
    to[COLORS * x + 2] = b[x];
  }
}

/* Numbers in a line of any kind: a row of the picture, and a batch. */
static int64_t room_of(const Picture *p) { return (p->planes[0].stride / JPEG_BATCH + 1) * JPEG_BATCH; }

/* Sums, two rows of chroma and the bytes of three colors, and a number before the sums. */
int64_t jpeg_lines(const Picture *p) { return 2 * (LINE + 5 * room_of(p)); }

void jpeg_row(const Picture *p, int64_t y, int64_t first, int64_t last, void *lines, uint8_t *to) {
  const int64_t room = room_of(p);
  uint16_t *sums = (uint16_t *)lines + LINE, *wide = sums + room;
  uint8_t *r = (uint8_t *)(wide + 2 * room), *g = r + room, *b = g + room;
  const uint8_t *luma = row_of(&p->planes[0], y);
  const uint8_t *blue = wide_row(p, 1, y, sums, wide), *red = wide_row(p, 2, y, sums, wide + room);
  colored(luma + first, blue + first, red + first, last - first, r, g, b);
  in_turn(r, g, b, last - first, to);
}
#endif
