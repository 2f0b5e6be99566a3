/* Many files become squares that a network reads, on OpenMP's threads, without Python in between. */
#include "jpeg.h"

#if defined(REGIONS) && !defined(_WIN32)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
  const char *path; /* of a file, or null: then `data` are its bytes */
  const uint8_t *data;
  int64_t size;
  int64_t height, width, exif;
  const Region *region; /* null where none is made */
  uint8_t *out;
  int64_t came; /* DONE, or something else */
} Square;

enum {
  LARGEST = 4 << 20, /* bytes of a file that is read here */
  AT_ONCE = 64 << 20 /* of all that are held */
};

int jpeg_head(const uint8_t *data, int64_t size, int64_t *told);
int jpeg_region(const uint8_t *data, int64_t size, uint8_t *out, const Region *r);

static uint8_t *bytes_of(int file, int64_t size) {
  uint8_t start[2];
  if (pread(file, start, 2, 0) != 2 || start[0] != 0xff || start[1] != 0xd8) return NULL;
  uint8_t *bytes = malloc(size);
  for (int64_t have = 0; bytes && have < size;) {
    const ssize_t more = read(file, bytes + have, size - have);
    if (more <= 0) {
      free(bytes);
      return NULL;
    }
    have += more;
  }
  return bytes;
}

static void open_square(Square *s) {
  int64_t told[3] = {0};
  s->came = REFUSED;
  if (!s->size) return;
  if (s->path) {
    const int file = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    if (file < 0) return;
    if (!fstat(file, &status) && S_ISREG(status.st_mode) && status.st_size == s->size)
      s->data = bytes_of(file, s->size);
    close(file);
  }
  if (s->data) s->came = jpeg_head(s->data, s->size, told);
  s->height = told[0], s->width = told[1], s->exif = told[2];
}

/* Read as many of the files as may be held at once, and tell how many these are; of each the size that
 * it has when it is a JPEG that is decoded here. */
int64_t open_squares(Square *squares, int64_t count, int threads) {
  int64_t opened = 0, held = 0;
  for (; opened < count; opened++) {
    Square *s = &squares[opened];
    struct stat status;
    if (!s->path) continue;
    s->size = !stat(s->path, &status) && S_ISREG(status.st_mode) ? status.st_size : 0;
    if (s->size > LARGEST) s->size = 0;
    if ((held += s->size) > AT_ONCE) break;
  }
  _Pragma("omp parallel for schedule(dynamic) num_threads(threads)")
  for (int64_t i = 0; i < opened; i++) open_square(&squares[i]);
  return opened;
}

/* Make those that have a region, and forget what was read. */
void make_squares(Square *squares, int64_t count, int threads) {
  _Pragma("omp parallel for schedule(dynamic) num_threads(threads)")
  for (int64_t i = 0; i < count; i++) {
    Square *s = &squares[i];
    if (!s->region) s->came = REFUSED;
    if (s->came == DONE) s->came = jpeg_region(s->data, s->size, s->out, s->region);
    if (s->path) free((void *)s->data);
  }
}
#endif
