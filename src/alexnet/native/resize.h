/* A region of a resized picture, row by row (resize.c). */
#ifndef RESIZE_H
#define RESIZE_H
#include "vectors.h"

#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
#define REGIONS
#endif

/* `pairs` pairs of weights for each place, the second of an odd number being 0. Along a row, for 16
 * places together: where the first of their pixels is, and for each pair of weights the 32 bytes to
 * pick from there on. `tops` and `heights`, [rows], tell what a row of the region is made of. */
typedef struct {
  int64_t height, width;              /* of the picture, [height, width, 3] */
  int64_t rows, columns;              /* of the region; the tables have a multiple of 16 columns */
  int64_t first_row, last_row;        /* of the picture, that the region needs */
  int64_t first_column, last_column;
  int64_t row_pairs, column_pairs;
  int64_t row_bits, column_bits;      /* of the weights behind the point */
  const int32_t *starts;
  const uint8_t *picks;
  const int16_t *row_weights;
  const int32_t *tops, *heights;
  const int16_t *column_weights;
} Region;

/* Room for rows that are resized and columns that are not; null where there is no memory. */
uint8_t *region_room(const Region *r);
/* The `y`th row of the picture, of whose pixels `left` bytes can be read. */
void region_row(const Region *r, const uint8_t *row, int64_t left, int64_t y, uint8_t *room);
/* What is between becomes the region, [3, rows, columns]. */
void region_columns(const Region *r, const uint8_t *room, uint8_t *out);

#endif
