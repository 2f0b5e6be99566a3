/* Baseline JPEG in color (ITU T.81), as libjpeg-turbo decodes it, byte for byte, in two thirds of the
 * time.
 *
 * What is unusual or in any way damaged is refused, and left to libjpeg-turbo and its judgement: only
 * one whole scan of 8-bit Huffman codes with Y, Cb and Cr in it, 4:4:4, 4:2:2 or 4:2:0, is decoded.
 * Half of the time of a photograph are the codes. They are looked up together with the number that
 * follows (as in stb_image), and with a second code and its number where all four are short, in a
 * scan that was freed of its stuffing before.
 */
#include "jpeg.h"

#ifdef __AVX2__

enum {
  BLOCKS = 6,   /* of a unit (MCU), at most */
  LONGEST = 27, /* bits of a code and its number */
  SLACK = BLOCKS * AREA * LONGEST / 8 + 16, /* bytes that are read at most before the end is noticed */
};

typedef struct {
  uint64_t bits; /* the next ones first */
  uint32_t count;
  const uint8_t *at, *end;
} Stream;

/* A block of each unit (MCU). */
typedef struct {
  const Codes *direct, *running;
  const uint16_t *scales;
  int *last;
  uint8_t *strips[STRIPS]; /* where it lies in the first unit */
  int64_t step, stride;    /* from unit to unit, and from row to row */
} Slot;

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
    REFILL                                                             \
    if (!(entry = jpeg_longer(CODES, bits, entry))) return REFUSED;         \
    bits <<= entry & 63;                                               \
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
  block[jpeg_order[first]] = (int16_t)(entry >> 32);                        \
  block[jpeg_order[k - 1]] = (int16_t)(entry >> 48);                        \
  if (k >= AREA) break;

/* The coefficients of a block; `level` tells that there are none but the first. */
ALWAYS int read_block(Stream *s, const Slot *slot, int16_t *block, int *level) {
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
  *level = k == 1 + NO_MORE + 1;
  if (sum < -(1 << 14) || sum >= 1 << 14) return REFUSED;
  return k == AREA || (k > NO_MORE && (first < AREA || first > NO_MORE)) ? DONE : REFUSED;
}

typedef struct {
  int16_t blocks[(BLOCKS + 1) * AREA]; /* what lies behind a block may be written before the next */
  Slot slots[BLOCKS];
  int count; /* of slots */
  Whole beyond;
} Work;

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
  int level[BLOCKS + TOGETHER];
  const int count = work->count;
  for (int i = 0; i < count; i++)
    if (read_block(stream, &work->slots[i], work->blocks + i * AREA, &level[i]))
      return REFUSED;
  if (stream->at - stream->end > 8) return REFUSED;
  if (!wanted) return DONE;
  for (int i = 0; i < count + TOGETHER - 1; i++) { /* the last one twice, so that none is missing */
    const int n = i < count ? i : count - 1;
    const Slot *slot = &work->slots[n];
    blocks[i] = work->blocks + n * AREA;
    scales[i] = slot->scales;
    to[i] = slot->strips[strip] + x * slot->step;
    strides[i] = slot->stride;
    level[i] = level[n];
  }
  for (int i = 0; i < count; i += TOGETHER) {
    int all_level = 1;
    for (int b = i; b < i + TOGETHER; b++) all_level &= level[b];
    if (!all_level) jpeg_transform(blocks + i, scales + i, to + i, strides + i, &work->beyond);
    else
      for (int b = i; b < i + TOGETHER; b++)
        if (jpeg_fill(blocks[b][0] * scales[b][0], to[b], strides[b])) return REFUSED;
  }
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

static void pass_on(const Picture *p, const Goal *goal, int64_t y, void *lines) {
  const Region *r = goal->region;
  if (!r) {
    jpeg_row(p, y, 0, p->width, lines, goal->pixels + y * p->width * COLORS);
    return;
  }
#ifdef REGIONS
  if (y < r->first_row || y >= r->last_row) return;
  jpeg_row(p, y, r->first_column, r->last_column, lines, goal->row + r->first_column * COLORS);
  region_row(r, goal->row, r->last_column * COLORS, y, goal->room);
#endif
}

static int decode_scan(Picture *p, const uint8_t *from, const uint8_t *end, const Goal *goal,
                       uint8_t *plain, void *lines, Work *work) {
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
    for (; done < next; done++) pass_on(p, goal, done, lines);
  }
  int beyond = 0;
  for (int i = 0; i < TOGETHER * SIDE; i++) beyond |= (work->beyond[i] & ~0x7fffu) != 0;
  return !beyond && used_up(&stream) && from[1] == 0xd9 ? DONE : REFUSED;
}

/* Height, width, and whether there is EXIF, if this is a JPEG that is decoded here. */
int jpeg_head(const uint8_t *data, int64_t size, int64_t *told) {
  Picture p = {0};
  const int came = jpeg_read_head(&p, data, size);
  told[0] = p.height, told[1] = p.width, told[2] = p.exif;
  return came;
}

static int decode(Picture *p, const uint8_t *data, int64_t size, Goal *goal) {
  int64_t strips[COLORS], all_strips = 0;
  for (int c = 0; c < COLORS; c++) {
    strips[c] = SIDE * p->planes[c].down * p->planes[c].stride;
    all_strips += STRIPS * strips[c];
  }
  const int64_t lines = jpeg_lines(p), row = COLORS * p->width + JPEG_BATCH;
  uint8_t *plain = malloc(size - p->start + SLACK), *rows = malloc(lines + all_strips + row);
  Work *work = aligned_alloc(LINE, (sizeof *work + LINE - 1) / LINE * LINE);
  int came = NO_MEMORY;
  if (plain && rows && work) {
    uint8_t *strip = rows + lines;
    for (int c = 0; c < COLORS; c++)
      for (int s = 0; s < STRIPS; s++, strip += strips[c]) p->planes[c].strips[s] = strip;
    goal->row = strip;
    memset(work, 0, sizeof *work);
    lay_out(p, work);
    came = decode_scan(p, data + p->start, data + size, goal, plain, rows, work);
  }
  free(plain);
  free(rows);
  free(work);
  return came;
}

/* Into `pixels`, [height, width, 3] in RGB; what is there means nothing where this is refused. */
int jpeg_pixels(const uint8_t *data, int64_t size, uint8_t *pixels, int64_t height, int64_t width) {
  Picture p = {0};
  const int came = jpeg_read_head(&p, data, size);
  if (came) return came;
  if (p.height != height || p.width != width) return REFUSED;
  return decode(&p, data, size, &(Goal){.pixels = pixels});
}

#ifdef REGIONS
/* A region of the picture resized, into `out`, [3, rows, columns]. */
int jpeg_region(const uint8_t *data, int64_t size, uint8_t *out, const Region *r) {
  Picture p = {0};
  Goal goal = {.region = r};
  int came = jpeg_read_head(&p, data, size);
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
