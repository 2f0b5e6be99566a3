/* Before a JPEG's scan: its size and kind, and its tables (ITU T.81, annexes B and C).
 *
 * Whatever the rest does not expect is refused here.
 */
#include "jpeg.h"

#ifdef __AVX2__

const uint8_t jpeg_order[2 * NO_MORE] = { /* T.81, figure 5 */
   0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
  58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
  [AREA ... 2 * NO_MORE - 1] = AREA,
};

enum { LONGEST_SIDE = 65500 }; /* of libjpeg */

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
      if (of_ac ? size > 10 || (!size && symbol % 0xf0) : symbol > 11) codes->usable = 0;
      if (code >> length) codes->usable = 0;
      if (!codes->usable || left < 0) continue;
      for (uint32_t bits = 0; bits < 1u << left; bits++)
        singles[code << left | bits] =
            size > left ? entry_of(size, skip, MORE | length)
                        : entry_of(number_of(bits >> (left - size), size), skip, length + size);
    }
    if (code >> length) codes->usable = 0; /* none may be all ones */
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

uint64_t jpeg_longer(const Codes *codes, uint64_t bits, uint64_t entry) {
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
    for (int k = 0; k < AREA; k++) p->scales[from[0]][jpeg_order[k]] = from[1 + k];
    p->scaled[from[0]] = 1;
  }
  return DONE;
}

static int read_frame(Picture *p, const uint8_t *from, const uint8_t *end) { /* T.81, B.2.2 */
  if (p->framed || end - from != 6 + 3 * COLORS || from[0] != 8 || from[5] != COLORS) return REFUSED;
  p->height = two_bytes(from + 1);
  p->width = two_bytes(from + 3);
  if (!p->height || !p->width || p->height > LONGEST_SIDE || p->width > LONGEST_SIDE) return REFUSED;
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

int jpeg_read_head(Picture *p, const uint8_t *data, int64_t size) {
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
#endif
