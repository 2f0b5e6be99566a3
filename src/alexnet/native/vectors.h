/* Vectors of float32 as wide as the processor's, by the compiler's own extension (gcc and clang). */
#ifndef VECTORS_H
#define VECTORS_H
#ifdef __AVX512F__
#include <immintrin.h>
#endif
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

typedef uint16_t bf16;
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Bits __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

ALWAYS Vector get(const float *from) { return *(const Anywhere *)from; }
ALWAYS void put(float *to, Vector v) { *(Anywhere *)to = v; }
ALWAYS Vector all(float v) { return v - (Vector){0}; }
ALWAYS Vector choose(Bits which, Vector a, Vector b) {
  return (Vector)((which & (Bits)a) | (~which & (Bits)b));
}

ALWAYS Vector get_bf16(const bf16 *from) {
#ifdef __AVX512F__
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
  return (Vector)_mm512_slli_epi32(wide, 16);
#else
  Bits wide;
  for (int i = 0; i < LANES; i++) wide[i] = (int32_t)((uint32_t)from[i] << 16);
  return (Vector)wide;
#endif
}
ALWAYS void put_bf16(bf16 *to, Vector v) { /* to the nearest, halves to even */
  const Bits bits = (Bits)v, rounded = bits + 0x7fff + (bits >> 16 & 1);
  const Bits chosen = (Bits)choose(v == v, (Vector)rounded, (Vector)(bits | 0x400000)) >> 16;
#ifdef __AVX512F__
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)chosen));
#else
  for (int i = 0; i < LANES; i++) to[i] = (bf16)chosen[i];
#endif
}

/* The lower, and the upper, halves of two vectors, their numbers in turn. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, (Bits){__VA_ARGS__})
#endif
#if defined(__AVX512F__)
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
#define LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOWER 0, 4, 1, 5
#define UPPER 2, 6, 3, 7
#endif
ALWAYS Vector lower(Vector a, Vector b) { return SHUFFLE(a, b, LOWER); }
ALWAYS Vector upper(Vector a, Vector b) { return SHUFFLE(a, b, UPPER); }

/* Rows become columns: each step moves the highest bit of the row's number to the lowest place of the
 * column's, whose highest becomes the row's lowest. */
ALWAYS void transpose(Vector v[LANES]) {
  for (int step = 1; step < LANES; step *= 2) {
    Vector turned[LANES];
    for (int i = 0; i < LANES / 2; i++) {
      turned[2 * i] = lower(v[i], v[i + LANES / 2]);
      turned[2 * i + 1] = upper(v[i], v[i + LANES / 2]);
    }
    for (int i = 0; i < LANES; i++) v[i] = turned[i];
  }
}

/* The sums of LANES vectors, in order. */
ALWAYS Vector sums_of(Vector v[LANES]) {
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] = lower(v[i], v[i + half]) + upper(v[i], v[i + half]);
  return v[0];
}

static inline int64_t whole(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* Room for n numbers and a vector more; null where there is no memory. */
static inline float *take_as_it_is(int64_t n) {
  return aligned_alloc(LINE, (4 * (n + LANES) + LINE - 1) / LINE * LINE);
}

/* The same, all zero. */
static inline float *take(int64_t n) {
  float *taken = take_as_it_is(n);
  return taken ? memset(taken, 0, 4 * (n + LANES)) : taken;
}

#endif
