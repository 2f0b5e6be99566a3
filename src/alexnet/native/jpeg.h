/* Baseline JPEG: what its parts (jpeg*.c) have in common. */
#ifndef JPEG_H
#define JPEG_H
#include "resize.h"

#ifdef __AVX2__
#include <immintrin.h>

enum {
  COLORS = 3, SIDE = 8, AREA = 64, TABLES = 4,
  LOOK = 11,      /* bits that are looked up */
  MOST_BITS = 16, /* of a code */
  NO_MORE = 128,  /* coefficients that the end of a block skips */
  STRIPS = 2,     /* rows of units that are kept */
};

enum { DONE = 0, REFUSED = 1, NO_MEMORY = 2 };

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
  int across, down; /* blocks of a unit (MCU) */
  int scale, direct, running; /* which tables */
  int64_t width, height, stride; /* of the plane; the stride has what fills its last blocks */
  uint8_t *strips[STRIPS];       /* rows of units, in turn */
  int last;                      /* level of the block before */
} Plane;

typedef struct {
  int64_t height, width, exif; /* the last is whether there is any */
  int64_t start, interval;     /* where the scan begins; units between restarts, if any */
  Plane planes[COLORS];
  const Codes *codes[2][2];    /* of levels and of waves */
  uint16_t scales[TABLES][AREA];
  int scaled[TABLES], framed, ids[COLORS];
} Picture;

/* Where coefficients lie in a block, in the order they are stored; behind the last, behind it. */
extern const uint8_t jpeg_order[2 * NO_MORE];

/* jpeg_head.c: what comes before the scan. */
int jpeg_read_head(Picture *p, const uint8_t *data, int64_t size);
/* An entry of one number for bits that `entry` does not hold all of; 0 where no code is like them. */
uint64_t jpeg_longer(const Codes *codes, uint64_t bits, uint64_t entry);

/* jpeg_planes.c: blocks become pixels, some together. Sums beyond 14 bits and their sign, which no
 * picture has that was one, are noted. */
typedef uint32_t Whole __attribute__((vector_size(4 * SIDE * (LANES > 8 ? 2 : 1))));
enum { TOGETHER = sizeof(Whole) / 4 / SIDE };
void jpeg_transform(const int16_t *blocks[TOGETHER], const uint16_t *scales[TOGETHER],
                    uint8_t *to[TOGETHER], const int64_t strides[TOGETHER], Whole *beyond);
/* What that makes of a block that is one level. */
int jpeg_fill(int level, uint8_t *to, int64_t stride);

/* Pixels `first` to `last` of a row, in RGB. It works in `jpeg_lines` bytes, and reads what lies up to
 * JPEG_BATCH bytes behind the strips. */
enum { JPEG_BATCH = 64 };
int64_t jpeg_lines(const Picture *p);
void jpeg_row(const Picture *p, int64_t y, int64_t first, int64_t last, void *lines, uint8_t *to);
#endif
#endif
