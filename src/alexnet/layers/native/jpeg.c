/* Baseline JPEG in color (ITU T.81), as libjpeg-turbo decodes it, bit for bit, in half of the time.
 *
 * What is unusual or in any way damaged is refused, and left to libjpeg-turbo and its judgement:
 * only a whole scan of 8-bit Huffman codes with Y, Cb and Cr in it, 4:4:4, 4:2:2 or 4:2:0, is
 * decoded. Half of the time of a photograph are the codes: most of them are looked up together with
 * the bits of the number that follows (Dolzhenko's idea, also of stb_image), in a scan that has been
 * freed of its stuffing before. Transform and upsampling are those of jidctint.c and jdsample.c
 * ("fancy", a triangle), where no sum leaves 16 bits, which libjpeg-turbo's own code depends on.
 */
#include "resize.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

enum {
  COLORS = 3, SIDE = 8, AREA = 64, TABLES = 4,
  LOOK = 11,      /* bits that are looked up */
  MOST_BITS = 16, /* of a code */
  BLOCKS = 6,     /* of a unit (MCU) */
  LONGEST = 27,   /* bits of a code and its number */
  SLACK = BLOCKS * AREA * LONGEST / 8 + 16, /* bytes that are read at most before the end is noticed */
  NO_MORE = 128,  /* skipped by the end of a block */
  STRIPS = 2,
};

enum { DONE = 0, REFUSED = 1, NO_MEMORY = 2 };

typedef uint32_t Whole __attribute__((vector_size(4 * (LANES > 8 ? 16 : 8))));
typedef int32_t Signed __attribute__((vector_size(sizeof(Whole))));
enum { TOGETHER = sizeof(Whole) / 4 / SIDE }; /* blocks that are transformed */

/* What the next LOOK bits begin with, a code and its number or two of both, in bits from
 *    0  how many bits to drop (6)
 *    6  whether there is more than these LOOK bits to the first (1)
 *    8  coefficients to skip (8)
 *   16  how many further the coefficient after it, or after the second, is (8)
 *   32  the first number, or how many bits of it follow the code (16)
 *   48  the second number, or the first again (16)
 */
typedef struct {
  uint64_t entries[1 << LOOK];
  uint8_t firsts[1 << LOOK];      /* bits of the first alone */
  uint32_t limits[MOST_BITS + 1]; /* of 16 bits, the least that belong to a longer code */
  int32_t offsets[MOST_BITS + 1];
  uint8_t told[17 + 256];         /* the segment that this was made of */
  int of_ac, usable;
} Codes;
enum { MORE = 64 };

typedef struct {
  int across, down; /* blocks of a unit */
  int scale, direct, running;
  int64_t width, height, stride; /* of the plane, without what fills its last blocks */
  uint8_t *strips[STRIPS];       /* the rows of a unit, in turn */
  int last;
} Plane;

typedef struct {
  int64_t height, width, exif; /* read by the caller, with `start` and `interval` */
  int64_t start, interval;
  Plane planes[COLORS];
  const Codes *codes[2][2];
  uint16_t scales[TABLES][AREA];
  int scaled[TABLES], framed, ids[COLORS];
} Picture;

typedef struct {
  uint64_t bits; /* the next ones first */
  uint32_t count;
  const uint8_t *at, *end;
} Stream;

static const uint8_t ORDER[AREA] = { /* T.81, figure 5 */
   0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
  58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

/* --- Segments ------------------------------------------------------------------------------- */

static int64_t two_bytes(const uint8_t *from) { return from[0] << 8 | from[1]; }

static int number_of(uint32_t bits, int size) { /* T.81, figure F.12 */
  return size && bits < 1u << (size - 1) ? (int)bits - (1 << size) + 1 : (int)bits;
}

static uint64_t entry_of(int number, int skip, int bits) {
  const uint64_t low = (uint16_t)number;
  return low << 48 | low << 32 | (uint32_t)((skip + 1) << 16 | skip << 8 | bits);
}

static int skip_of(const Codes *codes, int symbol) {
  return !codes->of_ac ? 0 : symbol ? symbol >> 4 : NO_MORE;
}

static int make_codes(Codes *codes, const uint8_t *counts, int of_ac) { /* T.81, C.2 */
  const uint8_t *symbols = counts + 17;
  uint64_t *singles = malloc(sizeof codes->entries);
  uint32_t code = 0;
  if (!singles) return NO_MEMORY;
  for (int i = 0; i < 1 << LOOK; i++) singles[i] = MORE;
  codes->of_ac = of_ac;
  codes->usable = 1;
  for (int length = 1, next = 0; length <= MOST_BITS; length++, code <<= 1) {
    codes->offsets[length] = next - (int)code;
    for (int i = 0; i < counts[length]; i++, next++, code++) {
      const int symbol = symbols[next], size = symbol & 15, left = LOOK - length;
      const int skip = skip_of(codes, symbol);
      if (code >> length) codes->usable = 0;
      if (of_ac ? size > 10 || (!size && symbol % 0xf0) : symbol > 11) codes->usable = 0;
      if (!codes->usable || left < 0) continue;
      for (uint32_t bits = 0; bits < 1u << left; bits++)
        singles[code << left | bits] =
            size > left ? entry_of(size, skip, MORE | length)
                        : entry_of(number_of(bits >> (left - size), size), skip, length + size);
    }
    codes->limits[length] = code << (MOST_BITS - length);
  }
  for (uint32_t bits = 0; bits < 1 << LOOK; bits++) {
    const uint64_t entry = codes->entries[bits] = singles[bits];
    const int first = codes->firsts[bits] = entry & 63;
    const uint64_t other = singles[bits << first & ((1 << LOOK) - 1)];
    const int both = first + (int)(other & 63);
    if (!of_ac || both > LOOK || ((entry | other) & MORE) || (entry >> 8 & 255) == NO_MORE) continue;
    codes->entries[bits] = (entry & 0xffffffffffff) + (other & 0xffff000000ff003f);
  }
  free(singles);
  return DONE;
}

/* A thread keeps the tables it has made: most pictures have the same. */
static int read_codes(Picture *p, const uint8_t *from, const uint8_t *end) { /* T.81, B.2.4.2 */
  static _Thread_local Codes kept[2][2];
  while (from < end) {
    if (end - from < 17 || (from[0] & 0xee)) return REFUSED;
    const int of_ac = from[0] >> 4;
    Codes *codes = &kept[of_ac][from[0] & 1];
    int64_t length = 17;
    for (int i = 1; i <= MOST_BITS; i++) length += from[i];
    if (length > (int64_t)sizeof codes->told || end - from < length) return REFUSED;
    if (memcmp(codes->told, from, length)) {
      memset(codes->told, 0, sizeof codes->told);
      if (make_codes(codes, from, of_ac)) return NO_MEMORY;
      memcpy(codes->told, from, length);
    }
    if (!codes->usable) return REFUSED;
    p->codes[of_ac][from[0] & 1] = codes;
    from += length;
  }
  return DONE;
}

static int read_scales(Picture *p, const uint8_t *from, const uint8_t *end) { /* T.81, B.2.4.1 */
  for (; from < end; from += 1 + AREA) {
    if (end - from < 1 + AREA || from[0] >= TABLES) return REFUSED;
    for (int k = 0; k < AREA; k++) p->scales[from[0]][ORDER[k]] = from[1 + k];
    p->scaled[from[0]] = 1;
  }
  return DONE;
}

static int read_frame(Picture *p, const uint8_t *from, const uint8_t *end) { /* T.81, B.2.2 */
  if (p->framed || end - from != 6 + 3 * COLORS || from[0] != 8 || from[5] != COLORS) return REFUSED;
  p->height = two_bytes(from + 1);
  p->width = two_bytes(from + 3);
  if (!p->height || !p->width) return REFUSED;
  for (int c = 0; c < COLORS; c++) {
    const uint8_t *told = from + 6 + 3 * c;
    Plane *plane = &p->planes[c];
    p->ids[c] = told[0];
    plane->across = told[1] >> 4;
    plane->down = told[1] & 15;
    plane->scale = told[2];
    if (told[0] != c + 1 || told[2] >= TABLES) return REFUSED; /* 1, 2, 3: Y, Cb, Cr */
    if (c && (plane->across != 1 || plane->down != 1)) return REFUSED;
  }
  const int across = p->planes[0].across, down = p->planes[0].down;
  if (across < 1 || across > 2 || down < 1 || down > across) return REFUSED;
  const int64_t units = (p->width + SIDE * across - 1) / (SIDE * across);
  for (int c = 0; c < COLORS; c++) {
    Plane *plane = &p->planes[c];
    plane->width = c ? (p->width + across - 1) / across : p->width;
    plane->height = c ? (p->height + down - 1) / down : p->height;
    plane->stride = units * SIDE * plane->across;
  }
  if (across > 1 && p->planes[1].width < 3) return REFUSED; /* libjpeg repeats so few */
  p->framed = 1;
  return DONE;
}

static int read_scan(Picture *p, const uint8_t *from, const uint8_t *end) { /* T.81, B.2.3 */
  static const uint8_t whole_blocks[] = {0, AREA - 1, 0};
  if (!p->framed || end - from != 4 + 2 * COLORS || from[0] != COLORS) return REFUSED;
  for (int c = 0; c < COLORS; c++) {
    const int id = from[1 + 2 * c], chosen = from[2 + 2 * c];
    Plane *plane = &p->planes[c];
    if (id != p->ids[c] || (chosen & 0xee)) return REFUSED;
    plane->direct = chosen >> 4;
    plane->running = chosen & 1;
    if (!p->codes[0][plane->direct] || !p->codes[1][plane->running]) return REFUSED;
    if (!p->scaled[plane->scale]) return REFUSED;
  }
  return memcmp(from + 1 + 2 * COLORS, whole_blocks, 3) ? REFUSED : DONE;
}

/* What comes before the scan; `tables`, whether those of codes are wanted too. */
static int read_head(Picture *p, const uint8_t *data, int64_t size) {
  int64_t place = 2;
  if (size < 4 || data[0] != 0xff || data[1] != 0xd8) return REFUSED;
  for (;;) {
    if (size - place < 4 || data[place] != 0xff) return REFUSED;
    const int marker = data[place + 1];
    const int64_t length = two_bytes(data + place + 2);
    const uint8_t *from = data + place + 4, *end = data + place + 2 + length;
    if (length < 2 || size - place - 2 < length) return REFUSED;
    int came = DONE;
    if (marker == 0xc0) {
      came = read_frame(p, from, end);
    } else if (marker == 0xc4) {
      came = read_codes(p, from, end);
    } else if (marker == 0xdb) {
      came = read_scales(p, from, end);
    } else if (marker == 0xdd) {
      if (length != 4) return REFUSED;
      p->interval = two_bytes(from);
    } else if (marker == 0xe1) {
      if (length >= 8 && !memcmp(from, "Exif\0", 6)) p->exif = 1;
    } else if (marker == 0xee) { /* Adobe's tells of other colors */
      if (length >= 7 && !memcmp(from, "Adobe", 5) && (length < 14 || from[11] != 1)) return REFUSED;
    } else if (marker == 0xda) {
      p->start = place + 2 + length;
      return read_scan(p, from, end);
    } else if ((marker & 0xf0) != 0xe0 && marker != 0xfe) {
      return REFUSED;
    }
    if (came) return came;
    place += 2 + length;
  }
}

/* --- The scan ------------------------------------------------------------------------------- */

/* Bytes up to the next marker, without stuffing, into `to`; null where there is no marker. */
static const uint8_t *unstuff(const uint8_t *from, const uint8_t *end, uint8_t **to) {
  for (;;) {
    const uint8_t *found = memchr(from, 0xff, end - from);
    if (!found || end - found < 2) return NULL;
    memcpy(*to, from, found - from);
    *to += found - from;
    if (found[1]) return found;
    *(*to)++ = 0xff;
    from = found + 2;
  }
}

/* An entry of one number for bits of which the table does not hold all; 0 where no code is like them. */
static uint64_t longer(const Codes *codes, uint64_t bits, uint64_t entry) {
  int length = entry & 63, size = entry >> 32 & 15, skip = entry >> 8 & 255;
  if (!length) {
    const uint32_t next = (uint32_t)(bits >> (64 - MOST_BITS));
    length = LOOK + 1;
    while (length <= MOST_BITS && next >= codes->limits[length]) length++;
    if (length > MOST_BITS) return 0;
    const int place = codes->offsets[length] + (int)(next >> (MOST_BITS - length));
    const int symbol = codes->told[17 + place];
    skip = skip_of(codes, symbol);
    size = symbol & 15;
  }
  return entry_of(number_of(bits << length >> 1 >> (63 - size), size), skip, length + size);
}

/* A block of each unit (MCU). */
typedef struct {
  const Codes *direct, *running;
  const uint16_t *scales;
  int *last;
  uint8_t *strips[STRIPS]; /* where it lies in the first unit */
  int64_t step, stride;    /* from unit to unit, and from row to row */
} Slot;

typedef struct {
  int16_t blocks[(BLOCKS + 1) * AREA]; /* what lies behind a block may be written before the next */
  uint8_t order[2 * NO_MORE];          /* ORDER, and what lies behind the block */
  Slot slots[BLOCKS + 1];
  int count; /* of slots */
  Whole beyond;
} Work;

/* At least 56 bits at hand. Their number are the lower 6 bits of `count`; what is above them means
 * nothing, so that they need no mask. */
#define REFILL                                       \
  memcpy(&next, at, 8);                              \
  bits |= __builtin_bswap64(next) >> (count & 63);   \
  at += ~count >> 3 & 7;                             \
  count |= 56;

#define READ_CODE(CODES)                                               \
  held = bits;                                                         \
  entry = (CODES)->entries[held >> (64 - LOOK)];                       \
  if (__builtin_expect(entry & MORE, 0)) {                             \
    if (!(entry = longer(CODES, held, entry))) return REFUSED;         \
    bits = held << (entry & 63);                                       \
    count -= (uint32_t)entry;                                          \
    REFILL                                                             \
  } else {                                                             \
    bits = held << (entry & 63);                                       \
    count -= (uint32_t)entry;                                          \
  }

#define READ_COEFFICIENTS                                              \
  READ_CODE(running)                                                   \
  first = k + (uint8_t)(entry >> 8);                                   \
  k += (uint8_t)(entry >> 16);                                         \
  block[order[first]] = (int16_t)(entry >> 32);                        \
  block[order[k - 1]] = (int16_t)(entry >> 48);                        \
  if (k >= AREA) break;

/* The coefficients of a block. */
ALWAYS int read_block(Stream *s, const Slot *slot, const uint8_t *order, int16_t *block) {
  const Codes *running = slot->running;
  uint64_t bits = s->bits, next, entry, held;
  const uint8_t *at = s->at;
  uint32_t count = s->count;
  int64_t k = 1, first;
  memset(block, 0, AREA * sizeof *block);
  REFILL
  READ_CODE(slot->direct)
  const int sum = *slot->last += (int16_t)(entry >> 32);
  block[0] = (int16_t)sum;
  for (;;) { /* what is looked up has LOOK bits at most: of 56 there is enough for four */
    READ_COEFFICIENTS
    READ_COEFFICIENTS
    READ_COEFFICIENTS
    READ_COEFFICIENTS
    REFILL
  }
  if (first == AREA - 1 && k > AREA) { /* the second is of the next block */
    const int alone = running->firsts[held >> (64 - LOOK)];
    bits = held << alone;
    count += (uint32_t)entry - alone;
    k = AREA;
  }
  *s = (Stream){bits, count & 63, at, s->end};
  if (sum < -(1 << 14) || sum >= 1 << 14) return REFUSED;
  return k == AREA || (k > NO_MORE && (first < AREA || first > NO_MORE)) ? DONE : REFUSED;
}

/* --- The transform (jidctint.c: Loeffler, Ligtenberg and Moschytz, 1989) --------------------- */

#if defined(__AVX512F__)
#define LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27
#define HIGH_HALVES 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31
#else
#define LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#endif
#if defined(__clang__)
#define MIX(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define MIX(A, B, ...) __builtin_shuffle(A, B, (Signed){__VA_ARGS__})
#endif

ALWAYS void turn(Whole v[SIDE]) { /* rows become columns, in each block */
  for (int step = 0; step < 3; step++) {
    Whole turned[SIDE];
    for (int i = 0; i < SIDE / 2; i++) {
      turned[2 * i] = MIX(v[i], v[i + SIDE / 2], LOW_HALVES);
      turned[2 * i + 1] = MIX(v[i], v[i + SIDE / 2], HIGH_HALVES);
    }
    for (int i = 0; i < SIDE; i++) v[i] = turned[i];
  }
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
  Whole v;
  for (int x = 0; x < SIDE; x++)
    v[x] = (uint32_t)(blocks[0][SIDE * y + x] * (int32_t)scales[0][SIDE * y + x]);
  return v;
}
ALWAYS void put_row(Whole v, uint8_t *to[TOGETHER], const int64_t strides[TOGETHER], int y) {
  for (int x = 0; x < SIDE; x++) to[0][y * strides[0] + x] = a_byte((int32_t)v[x] + 128);
}
#endif

/* Some blocks become pixels. Sums beyond 14 bits and their sign, which no picture has that was one,
 * are noted in `beyond`. */
static void transform(const int16_t *blocks[TOGETHER], const uint16_t *scales[TOGETHER],
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
  for (int64_t x = 0; x < width; x++) {
    const uint16_t most = 3 * sums[x];
    const uint16_t left = (uint16_t)(most + sums[x - 1] + first) >> bits;
    const uint16_t right = (uint16_t)(most + sums[x + 1] + second) >> bits;
    to[x] = left | right << 8;
  }
}

static const uint8_t *wide_row(const Picture *p, int c, int64_t y, uint16_t *restrict sums,
                               uint16_t *restrict to) {
  const Plane *plane = &p->planes[c];
  const int64_t width = plane->width;
  if (p->planes[0].across == 1) return row_of(plane, y);
  if (p->planes[0].down == 1) {
    const uint8_t *from = row_of(plane, y);
    for (int64_t x = 0; x < width; x++) sums[x] = from[x];
    doubled(sums, width, 2, 1, 2, to);
  } else {
    const uint8_t *near = row_of(plane, y / 2), *far = row_of(plane, y / 2 + (y % 2 ? 1 : -1));
    for (int64_t x = 0; x < width; x++) sums[x] = 3 * near[x] + far[x];
    doubled(sums, width, 4, 8, 7, to);
  }
  return (const uint8_t *)to;
}

/* jdcolor.c: ITU-R BT.601, in whole numbers of 16 bits. */
static void colored(const uint8_t *restrict luma, const uint8_t *restrict blue,
                    const uint8_t *restrict red, int64_t width, uint8_t *restrict planes,
                    int64_t room, uint8_t *restrict to) {
  uint8_t *restrict r = planes, *restrict g = planes + room, *restrict b = planes + 2 * room;
  for (int64_t x = 0; x < width; x++) {
    const int32_t y = luma[x], cb = blue[x] - 128, cr = red[x] - 128;
    r[x] = a_byte(y + ((91881 * cr + 32768) >> 16));
    g[x] = a_byte(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
    b[x] = a_byte(y + ((116130 * cb + 32768) >> 16));
  }
  for (int64_t x = 0; x < width; x++) {
    to[3 * x] = r[x];
    to[3 * x + 1] = g[x];
    to[3 * x + 2] = b[x];
  }
}


/* --- The whole ------------------------------------------------------------------------------- */

static void lay_out(Picture *p, Work *work) {
  for (int c = 0; c < COLORS; c++) {
    Plane *plane = &p->planes[c];
    for (int y = 0; y < plane->down; y++)
      for (int x = 0; x < plane->across; x++) {
        const int64_t place = SIDE * (y * plane->stride + x);
        work->slots[work->count++] = (Slot){
            p->codes[0][plane->direct], p->codes[1][plane->running], p->scales[plane->scale],
            &plane->last, {plane->strips[0] + place, plane->strips[1] + place},
            SIDE * plane->across, plane->stride};
      }
  }
}

/* One unit, the `x`th of its row, into the planes' strips if it is wanted. */
static int read_unit(Stream *stream, Work *work, int64_t x, int strip, int wanted) {
  const int16_t *blocks[BLOCKS + TOGETHER];
  const uint16_t *scales[BLOCKS + TOGETHER];
  uint8_t *to[BLOCKS + TOGETHER];
  int64_t strides[BLOCKS + TOGETHER];
  const int count = work->count;
  for (int i = 0; i < count; i++)
    if (read_block(stream, &work->slots[i], work->order, work->blocks + i * AREA)) return REFUSED;
  if (stream->at - stream->end > 8) return REFUSED;
  if (!wanted) return DONE;
  for (int i = 0; i < count + TOGETHER - 1; i++) { /* the last one twice, so that none is missing */
    const int n = i < count ? i : count - 1;
    const Slot *slot = &work->slots[n];
    blocks[i] = work->blocks + n * AREA;
    scales[i] = slot->scales;
    to[i] = slot->strips[strip] + x * slot->step;
    strides[i] = slot->stride;
  }
  for (int i = 0; i < count; i += TOGETHER)
    transform(blocks + i, scales + i, to + i, strides + i, &work->beyond);
  return DONE;
}

/* Fewer than 8 bits are left, and none are missing. */
static int used_up(const Stream *s) {
  const int64_t left = 8 * (s->end - s->at) + s->count;
  return left >= 0 && left < 8;
}

/* Where the rows of pixels go: one after another, or into a region that is resized. */
typedef struct {
  uint8_t *pixels, *row, *room;
  const Region *region;
} Goal;

enum { AROUND = 4 }; /* pixels that an upsampled one depends on, at most so far away */

static int is_wanted(const Picture *p, const Goal *goal, int64_t m, int64_t x) {
  const Region *r = goal->region;
  const int64_t wide = SIDE * p->planes[0].across, high = SIDE * p->planes[0].down;
  return !r || ((m + 1) * high > r->first_row - AROUND && m * high < r->last_row + AROUND &&
                (x + 1) * wide > r->first_column - AROUND && x * wide < r->last_column + AROUND);
}

static void put_pixels(const Picture *p, const Goal *goal, int64_t y, uint16_t *lines) {
  const Region *r = goal->region;
  const int64_t room = p->planes[0].stride;
  if (r && (y < r->first_row || y >= r->last_row)) return;
  uint16_t *sums = lines + LINE, *wide = sums + room;
  const uint8_t *luma = row_of(&p->planes[0], y);
  const uint8_t *blue = wide_row(p, 1, y, sums, wide), *red = wide_row(p, 2, y, sums, wide + room);
  const int64_t first = r ? r->first_column : 0, last = r ? r->last_column : p->width;
  uint8_t *to = r ? goal->row : goal->pixels + y * p->width * COLORS;
  colored(luma + first, blue + first, red + first, last - first, (uint8_t *)(wide + 2 * room), room,
          to + first * COLORS);
#ifdef REGIONS
  if (r) region_row(r, to, last * COLORS, y, goal->room);
#endif
}

static int decode_scan(Picture *p, const uint8_t *from, const uint8_t *end, const Goal *goal,
                       uint8_t *plain, uint16_t *lines, Work *work) {
  const int across = p->planes[0].across, down = p->planes[0].down;
  const int64_t in_row = p->planes[0].stride / SIDE / across, high = SIDE * down;
  const int64_t unit_rows = (p->height + high - 1) / high;
  Stream stream = {0};
  int64_t left = 0, restarts = 0, done = 0;
  for (int64_t m = 0; m < unit_rows; m++) {
    for (int64_t x = 0; x < in_row; x++, left--) {
      if (!left) { /* T.81, E.1.4 */
        if (m || x) {
          if (!used_up(&stream) || from[1] != (0xd0 | (restarts++ & 7))) return REFUSED;
          from += 2;
        }
        uint8_t *to = plain;
        if (!(from = unstuff(from, end, &to))) return REFUSED;
        memset(to, 0, SLACK);
        stream = (Stream){.at = plain, .end = to};
        for (int c = 0; c < COLORS; c++) p->planes[c].last = 0;
        left = p->interval ? p->interval : unit_rows * in_row;
      }
      if (read_unit(&stream, work, x, m % STRIPS, is_wanted(p, goal, m, x))) return REFUSED;
    }
    /* The last row of chroma that is halved needs the next one. */
    const int64_t next = m + 1 < unit_rows ? (m + 1) * high - (down - 1) : p->height;
    for (; done < next; done++) put_pixels(p, goal, done, lines);
  }
  int beyond = 0;
  for (int i = 0; i < TOGETHER * SIDE; i++) beyond |= (work->beyond[i] & ~0x7fffu) != 0;
  return !beyond && used_up(&stream) && from[1] == 0xd9 ? DONE : REFUSED;
}

/* Height, width, and whether there is EXIF, if this is a JPEG that is decoded here. */
int jpeg_head(const uint8_t *data, int64_t size, int64_t *told) {
  Picture p = {0};
  const int came = read_head(&p, data, size);
  told[0] = p.height, told[1] = p.width, told[2] = p.exif;
  return came;
}

static int decode(Picture *p, const uint8_t *data, int64_t size, Goal *goal) {
  int64_t strips[COLORS], all_strips = 0;
  for (int c = 0; c < COLORS; c++) {
    strips[c] = SIDE * p->planes[c].down * p->planes[c].stride;
    all_strips += STRIPS * strips[c];
  }
  /* Lines: sums, two of chroma and two bytes for each of three colors, and around the sums. */
  const int64_t lines = 2 * (2 * LINE + 5 * p->planes[0].stride), row = COLORS * p->width + LINE;
  uint8_t *plain = malloc(size - p->start + SLACK), *rows = malloc(lines + all_strips + row);
  Work *work = aligned_alloc(LINE, (sizeof *work + LINE - 1) / LINE * LINE);
  int came = NO_MEMORY;
  if (plain && rows && work) {
    uint8_t *strip = rows + lines;
    for (int c = 0; c < COLORS; c++)
      for (int s = 0; s < STRIPS; s++, strip += strips[c]) p->planes[c].strips[s] = strip;
    goal->row = strip;
    memset(work, 0, sizeof *work);
    memset(work->order, AREA, sizeof work->order);
    memcpy(work->order, ORDER, AREA);
    lay_out(p, work);
    came = decode_scan(p, data + p->start, data + size, goal, plain, (uint16_t *)rows, work);
  }
  free(plain);
  free(rows);
  free(work);
  return came;
}

/* Into `pixels`, [height, width, 3] in RGB; what is there means nothing where this is refused. */
int jpeg_pixels(const uint8_t *data, int64_t size, uint8_t *pixels, int64_t height, int64_t width) {
  Picture p = {0};
  const int came = read_head(&p, data, size);
  if (came) return came;
  if (p.height != height || p.width != width) return REFUSED;
  return decode(&p, data, size, &(Goal){.pixels = pixels});
}

#ifdef REGIONS
/* A region of the picture resized, into `out`, [3, rows, columns]. */
int jpeg_region(const uint8_t *data, int64_t size, uint8_t *out, const Region *r) {
  Picture p = {0};
  Goal goal = {.region = r};
  int came = read_head(&p, data, size);
  if (came) return came;
  if (p.height != r->height || p.width != r->width) return REFUSED;
  if (!(goal.room = region_room(r))) return NO_MEMORY;
  came = decode(&p, data, size, &goal);
  if (came == DONE) region_columns(r, goal.room, out);
  free(goal.room);
  return came;
}
#endif
#endif
