/* Decodes the files that are named, from memory of just their size; tells how many there were and how
 * many of them were decoded. */
#include "resize.h"
#include <stdio.h>

int jpeg_head(const uint8_t *data, int64_t size, int64_t *told);
int jpeg_pixels(const uint8_t *data, int64_t size, uint8_t *pixels, int64_t height, int64_t width);
int jpeg_region(const uint8_t *data, int64_t size, uint8_t *out, const Region *r);

enum { ROWS = 3, COLUMNS = 20, BLOCKS = 2, AT_ONCE = 16 };

/* The corner that is furthest from the first pixel, each place one pixel. */
static void corner(const uint8_t *data, int64_t size, int64_t height, int64_t width) {
#ifdef REGIONS
  const int64_t x = width > COLUMNS ? width - COLUMNS : 0;
  int32_t starts[BLOCKS], tops[ROWS], heights[ROWS];
  uint8_t picks[BLOCKS][2 * AT_ONCE];
  int16_t weights[BLOCKS][2 * AT_ONCE], column_weights[ROWS][2];
  for (int b = 0; b < BLOCKS; b++) {
    starts[b] = 3 * (x + (b && width - x > AT_ONCE ? AT_ONCE : 0));
    for (int i = 0; i < 2 * AT_ONCE; i++) {
      const int64_t left = width - 1 - starts[b] / 3, wanted = i / 2;
      picks[b][i] = 3 * (wanted < left ? wanted : left);
      weights[b][i] = i % 2 ? 0 : 64;
    }
  }
  for (int y = 0; y < ROWS; y++) {
    tops[y] = height > ROWS ? height - ROWS + y : 0;
    heights[y] = 1;
    column_weights[y][0] = 64, column_weights[y][1] = 0;
  }
  const Region region = {
      height, width, ROWS, COLUMNS, tops[0], tops[ROWS - 1] + 1, x, width, 1, 1, 6, 6,
      starts, picks[0], weights[0], tops, heights, column_weights[0],
  };
  uint8_t *out = malloc(3 * ROWS * COLUMNS);
  jpeg_region(data, size, out, &region);
  free(out);
#endif
}

int main(int count, char **names) {
  int decoded = 0;
  for (int i = 1; i < count; i++) {
    FILE *file = fopen(names[i], "rb");
    fseek(file, 0, SEEK_END);
    const int64_t size = ftell(file);
    uint8_t *data = malloc(size);
    rewind(file);
    if (fread(data, 1, size, file) != (size_t)size) return 1;
    fclose(file);
    int64_t told[3];
    if (!jpeg_head(data, size, told) && told[0] * told[1] < 1 << 22) {
      uint8_t *pixels = malloc(told[0] * told[1] * 3);
      decoded += !jpeg_pixels(data, size, pixels, told[0], told[1]);
      free(pixels);
      corner(data, size, told[0], told[1]);
    }
    free(data);
  }
  printf("%d %d\n", count - 1, decoded);
  return 0;
}
