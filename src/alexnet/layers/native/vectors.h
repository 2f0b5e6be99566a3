/* Vectors of float32 as wide as the processor's, by the compiler's own extension (gcc and clang). */
#ifndef VECTORS_H
#define VECTORS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALWAYS static inline __attribute__((always_inline))

enum {
#if defined(__AVX512F__)
  LANES = 16,
#elif defined(__AVX__)
  LANES = 8,
#else
  LANES = 4,
#endif
  LINE = 64, /* bytes that a cache fetches at once */
};

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Bits __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

ALWAYS Vector get(const float *from) { return *(const Anywhere *)from; }
ALWAYS void put(float *to, Vector v) { *(Anywhere *)to = v; }
ALWAYS Vector all(float v) { return v - (Vector){0}; }
ALWAYS Vector choose(Bits which, Vector a, Vector b) {
  return (Vector)((which & (Bits)a) | (~which & (Bits)b));
}

static inline int64_t whole(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* Room for n numbers and a vector more, all zero; null where there is no memory. */
static inline float *take(int64_t n) {
  const int64_t bytes = (4 * (n + LANES) + LINE - 1) / LINE * LINE;
  float *taken = aligned_alloc(LINE, bytes);
  return taken ? memset(taken, 0, bytes) : taken;
}

#endif
