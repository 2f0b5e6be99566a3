/* Local response normalization, forward and backward (Krizhevsky et al. 2012, section 3.3).
 *
 *   s[i] = k + factor * sum of x[j]^2 for j from i-below to i+above       y[i] = x[i] * s[i]^-beta
 *   dx[j] = g[j] * s[j]^-beta
 *           - 2 * factor * beta * x[j] * sum of g[i] x[i] s[i]^(-beta-1) for i whose window has j
 *
 * A tensor is BLOCKS blocks of CHANNELS x PLACES numbers: rows of channels where PLACES is 1
 * (channels last), maps one after another where it is not. The towers' groups are blocks of their
 * own. With `rectify`, x stands for max(x, 0). Numbers are float32 or bfloat16; the arithmetic is float32. Every element is computed alone,
 * so that the result does not depend on the number of threads.
 *
 * A piece of some thousand numbers is widened into a buffer that stays in the fastest cache, several
 * rows at a time, each followed by as many channels of zeros as a window reaches: windows then need
 * no cases, and whole vectors go over the rows' ends.
 */
#include <math.h>

#include "vectors.h"

enum {
  ROOM = 1280, /* numbers that rows are gathered up to: five buffers fill 25 KB */
  TILE = 64,   /* places of maps that are worked on at a time */
};

typedef struct {
  int64_t blocks, channels, places;
  int64_t below, above;
  float factor, beta, k;
  int rectify, threads;
} Shape;

/* How a tensor is cut into pieces of `rows` blocks (one, of `tile` places, where it is maps); a
 * buffer of `room` numbers holds one behind `lead` zeros. */
typedef struct {
  int64_t rows, tile, tiles, pieces, size, lead, room;
} Cut;

/* A piece: `runs` runs of `length` numbers, `from` apart in the tensor and `to` in a buffer. */
typedef struct {
  int64_t at, runs, length, from, to, step, numbers;
} Piece;

static inline float from_float(float v) { return v; }
static inline float to_float(float v) { return v; }
static inline float from_bf16(bf16 v) {
  uint32_t bits = (uint32_t)v << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
static inline bf16 to_bf16(float f) { /* to the nearest, halves to even */
  uint32_t bits;
  memcpy(&bits, &f, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (bf16)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}


ALWAYS Vector newton(Vector x, Vector root) { return root * (1.5f - 0.5f * x * root * root); }

/* x^-1/2 to the last bit or two: an estimate and Newton's steps, which take a fraction of the time
 * of a root and a division. */
ALWAYS Vector inverse_root(Vector x) {
#ifdef __AVX512F__
  const Vector estimate = (Vector)_mm512_rsqrt14_ps((__m512)x), root = newton(x, estimate);
  /* no number for 0 and infinity, whose estimates are exact */
  const __mmask16 none = _mm512_cmp_ps_mask((__m512)root, (__m512)root, _CMP_UNORD_Q);
  return (Vector)_mm512_mask_mov_ps((__m512)root, none, (__m512)estimate);
#else
  const Bits usual = (x > 0.0f) & (x < INFINITY);
  const Vector estimate = (Vector)(0x5f375a86 - ((Bits)x >> 1));
  const Vector root = newton(x, newton(x, newton(x, estimate)));
  const Bits infinite = (Bits)all(INFINITY);
  const Bits otherwise = ((x == 0.0f) & infinite) | ((x != x) & (Bits)x); /* infinity's is 0 */
  return choose(usual, root, (Vector)otherwise);
#endif
}

/* The lesser; `most` where x is not a number. */
ALWAYS Vector at_most(Vector x, Vector most) {
#ifdef __AVX512F__
  return (Vector)_mm512_min_ps((__m512)x, (__m512)most);
#else
  return choose(x < most, x, most);
#endif
}

/* max(x, 0); what is not a number stays so */
ALWAYS Vector rectified(Vector x) {
#ifdef __AVX512F__
  return (Vector)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
#else
  return choose(x <= 0.0f, all(0.0f), x);
#endif
}

/* s^-beta, and 1/s; the paper's beta is 3/4 */
ALWAYS Vector to_minus_beta(Vector s, float beta, Vector *inverse) {
  if (beta == 0.75f) {
    const Vector root = inverse_root(s), fourth = inverse_root(root);
    *inverse = root * root;
    return *inverse * at_most(fourth, all(1e19f)); /* infinity's is 0, not 0 times infinity */
  }
  Vector power;
  for (int i = 0; i < LANES; i++) power[i] = powf(s[i], -beta);
  *inverse = 1.0f / s;
  return power;
}

/* in[0] + in[step] + ... + in[(size - 1) * step] */
ALWAYS Vector window(const float *in, int64_t size, int64_t step) {
  if (size == 5)
    return get(in) + get(in + step) + get(in + 2 * step) + get(in + 3 * step) + get(in + 4 * step);
  Vector sum = get(in);
  for (int64_t o = 1; o < size; o++) sum += get(in + o * step);
  return sum;
}

static Cut cut(const Shape *p) {
  Cut c = {.size = p->below + p->above + 1};
  c.tile = p->places < TILE ? p->places : TILE;
  c.tiles = (p->places + TILE - 1) / TILE;
  c.rows = p->places == 1 ? ROOM / (p->channels + c.size) : 1;
  if (c.rows < 1) c.rows = 1;
  c.pieces = p->places == 1 ? (p->blocks + c.rows - 1) / c.rows : p->blocks * c.tiles;
  c.lead = (c.size * c.tile + 2 * LANES) / LANES * LANES;
  c.room = c.rows * (p->channels + c.size) * c.tile + 2 * c.lead;
  return c;
}

static Piece piece(const Shape *p, const Cut *c, int64_t number) {
  if (p->places == 1) {
    const int64_t first = number * c->rows, left = p->blocks - first;
    const int64_t rows = left < c->rows ? left : c->rows, apart = p->channels + c->size - 1;
    return (Piece){first * p->channels, rows, p->channels, p->channels, apart, 1, rows * apart};
  }
  const int64_t first = number % c->tiles * c->tile, left = p->places - first;
  const int64_t width = left < c->tile ? left : c->tile;
  const int64_t at = number / c->tiles * p->channels * p->places + first;
  return (Piece){at, p->channels, width, p->places, width, width, p->channels * width};
}

/* Squares of the piece, behind `lead` zeros and before as many as a window reaches. */
static inline void square(const Shape *p, const Cut *c, const Piece *q, float *v, float *to) {
  if (p->rectify)
    for (int64_t i = 0; i < q->numbers; i += LANES) put(v + i, rectified(get(v + i)));
  for (int64_t i = 0; i < q->numbers; i += LANES) put(to + i, get(v + i) * get(v + i));
  if (p->places > 1) memset(to + q->numbers, 0, 4 * (c->size - 1) * q->step);
}

/* The two passes are compiled once for the paper's window of 5 and power of 3/4, and once for any. */
ALWAYS void forward_of(const Shape *p, const Piece *q, int64_t size, float beta, const float *v,
                       const float *squares, float *out) {
  const float factor = p->factor, k = p->k, *first = squares - p->below * q->step;
  for (int64_t i = 0; i < q->numbers; i += LANES) {
    Vector inverse, sum = k + factor * window(first + i, size, q->step);
    put(out + i, get(v + i) * to_minus_beta(sum, beta, &inverse));
  }
}

ALWAYS void backward_of(const Shape *p, const Piece *q, int64_t size, float beta, const float *v,
                        const float *g, const float *squares, float *ratios, float *out) {
  const float factor = p->factor, k = p->k, *first = squares - p->below * q->step;
  for (int64_t i = 0; i < q->numbers; i += LANES) {
    Vector inverse, sum = k + factor * window(first + i, size, q->step);
    const Vector direct = get(g + i) * to_minus_beta(sum, beta, &inverse);
    put(out + i, direct);
    /* Zeros have none; with k = 0 the gap behind a row would have infinitely large ones. */
    put(ratios + i, choose(get(v + i) == 0.0f, all(0.0f), direct * get(v + i) * inverse));
  }
  if (p->places > 1) memset(ratios + q->numbers, 0, 4 * (size - 1) * q->step);
  const float twice = -2.0f * factor * p->beta, *opposite = ratios - p->above * q->step;
  for (int64_t i = 0; i < q->numbers; i += LANES)
    put(out + i, get(out + i) + twice * get(v + i) * window(opposite + i, size, q->step));
  if (p->rectify)
    for (int64_t i = 0; i < q->numbers; i += LANES)
      put(out + i, choose(get(v + i) <= 0.0f, all(0.0f), get(out + i)));
}

static void forward(const Shape *p, const Cut *c, const Piece *q, float *v, float *squares,
                    float *out) {
  square(p, c, q, v, squares);
  if (c->size == 5 && p->beta == 0.75f) forward_of(p, q, 5, 0.75f, v, squares, out);
  else forward_of(p, q, c->size, p->beta, v, squares, out);
}

static void backward(const Shape *p, const Cut *c, const Piece *q, float *v, const float *g,
                     float *squares, float *ratios, float *out) {
  square(p, c, q, v, squares);
  if (c->size == 5 && p->beta == 0.75f) backward_of(p, q, 5, 0.75f, v, g, squares, ratios, out);
  else backward_of(p, q, c->size, p->beta, v, g, squares, ratios, out);
}

#ifdef __AVX512F__
/* The paper's window and power on rows of whole vectors, which need no buffer: what a window reaches
 * is in the vectors before and after. */
ALWAYS int in_vectors(const Shape *p) {
  return p->places == 1 && p->channels % LANES == 0 && p->beta == 0.75f && p->below == 2 &&
         p->above == 2;
}

/* x[i-2] + ... + x[i+2] */
#define SLID(A, B, COUNT) (Vector)_mm512_alignr_epi32((__m512i)(B), (__m512i)(A), COUNT)
ALWAYS Vector five(Vector before, Vector here, Vector after) {
  return SLID(before, here, 14) + SLID(before, here, 15) + here + SLID(here, after, 1) +
         SLID(here, after, 2);
}

ALWAYS Vector usable(Vector x, const Shape *p) { return p->rectify ? rectified(x) : x; }

/* To the nearest, halves to even; denormals, which a training takes for zero, become zero. */
ALWAYS void round_to(bf16 *to, Vector v) {
#ifdef __AVX512BF16__
  _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  put_bf16(to, v);
#endif
}

#define ROWS(NAME, T, GET, PUT)                                                                    \
  ALWAYS void forward_row_##NAME(const T *x, T *y, const Shape *p) {                               \
    const Vector k = all(p->k), factor = all(p->factor);                                           \
    Vector before = {0}, here = usable(GET(x), p), square = here * here;                           \
    for (int64_t c = 0; c < p->channels; c += LANES) {                                             \
      const int more = c + LANES < p->channels;                                                    \
      const Vector next = more ? usable(GET(x + c + LANES), p) : all(0.0f), after = next * next;   \
      Vector inverse;                                                                              \
      PUT(y + c, here * to_minus_beta(k + factor * five(before, square, after), 0.75f, &inverse)); \
      before = square, square = after, here = next;                                                \
    }                                                                                              \
  }                                                                                                \
  /* A vector's gradient is known once the ratios of the next are. */                              \
  ALWAYS void backward_row_##NAME(const T *x, const T *g, T *dx, const Shape *p) {                 \
    const Vector k = all(p->k), factor = all(p->factor), none = {0};                               \
    const Vector twice = -2.0f * factor * p->beta;                                                 \
    Vector before = none, here = usable(GET(x), p), square = here * here;                          \
    Vector ratios_before = none, last_ratios = none, last = none, last_direct = none;              \
    for (int64_t c = 0; c <= p->channels; c += LANES) {                                            \
      const int more = c + LANES < p->channels;                                                    \
      Vector ratios = none, direct = none, next = none, after = none;                              \
      if (c < p->channels) {                                                                       \
        if (more) next = usable(GET(x + c + LANES), p), after = next * next;                       \
        Vector inverse;                                                                            \
        direct = to_minus_beta(k + factor * five(before, square, after), 0.75f, &inverse);         \
        direct *= GET(g + c);                                                                      \
        ratios = choose(here == 0.0f, none, direct * here * inverse); /* as below */               \
      }                                                                                            \
      if (c) {                                                                                     \
        const Vector out = last_direct + twice * last * five(ratios_before, last_ratios, ratios);  \
        PUT(dx + c - LANES, p->rectify ? choose(last <= 0.0f, none, out) : out);                   \
      }                                                                                            \
      before = square, square = after, last = here, here = next;                                   \
      ratios_before = last_ratios, last_ratios = ratios, last_direct = direct;                     \
    }                                                                                              \
  }                                                                                                \
  static void forward_rows_##NAME(const T *x, T *y, const Shape *shape) {                          \
    const Shape p = *shape;                                                                        \
    _Pragma("omp parallel for num_threads(p.threads) schedule(static)") for (int64_t r = 0;        \
                                                                             r < p.blocks; r++)    \
      forward_row_##NAME(x + r * p.channels, y + r * p.channels, &p);                              \
  }                                                                                                \
  static void backward_rows_##NAME(const T *x, const T *g, T *dx, const Shape *shape) {            \
    const Shape p = *shape;                                                                        \
    _Pragma("omp parallel for num_threads(p.threads) schedule(static)") for (int64_t r = 0;        \
                                                                             r < p.blocks; r++) {  \
      const int64_t at = r * p.channels;                                                           \
      backward_row_##NAME(x + at, g + at, dx + at, &p);                                            \
    }                                                                                              \
  }
#else /* the compiler leaves these calls out */
ALWAYS int in_vectors(const Shape *p) { return (void)p, 0; }
#define ROWS(NAME, T, GET, PUT)                                                                    \
  static void forward_rows_##NAME(const T *x, T *y, const Shape *p) { (void)x, (void)y, (void)p; } \
  static void backward_rows_##NAME(const T *x, const T *g, T *dx, const Shape *p) {                \
    (void)x, (void)g, (void)dx, (void)p;                                                           \
  }
#endif

ROWS(float, float, get, put)
ROWS(bf16, bf16, get_bf16, round_to)

#define KERNELS(NAME, T, LOAD, STORE)                                                              \
  static inline void load_##NAME(const T *restrict from, float *restrict to, const Piece *p) {     \
    from += p->at;                                                                                 \
    for (int64_t r = 0; r < p->runs; r++, from += p->from, to += p->to)                            \
      for (int64_t i = 0; i < p->length; i++) to[i] = LOAD(from[i]);                               \
  }                                                                                                \
  static inline void store_##NAME(const float *restrict from, T *restrict to, const Piece *p) {    \
    to += p->at;                                                                                   \
    for (int64_t r = 0; r < p->runs; r++, from += p->to, to += p->from)                            \
      for (int64_t i = 0; i < p->length; i++) to[i] = STORE(from[i]);                              \
  }                                                                                                \
  int lrn_forward_##NAME(const T *x, T *y, const Shape *shape) {                                   \
    if (in_vectors(shape)) return forward_rows_##NAME(x, y, shape), 0;                             \
    const Shape p = *shape;                                                                        \
    const Cut c = cut(shape);                                                                      \
    int failed = 0;                                                                                \
    _Pragma("omp parallel num_threads(p.threads)") {                                               \
      float *v = take(c.room), *squares = take(c.room), *out = take(c.room);                                   \
      if (!v || !squares || !out) failed = 1;                                                      \
      else {                                                                                       \
        _Pragma("omp for schedule(static)") for (int64_t t = 0; t < c.pieces; t++) {               \
          const Piece q = piece(&p, &c, t);                                                        \
          load_##NAME(x, v, &q);                                                                   \
          forward(&p, &c, &q, v, squares + c.lead, out);                                           \
          store_##NAME(out, y, &q);                                                                \
        }                                                                                          \
      }                                                                                            \
      free(v), free(squares), free(out);                                                           \
    }                                                                                              \
    return failed;                                                                                 \
  }                                                                                                \
  int lrn_backward_##NAME(const T *x, const T *g, T *dx, const Shape *shape) {                     \
    if (in_vectors(shape)) return backward_rows_##NAME(x, g, dx, shape), 0;                        \
    const Shape p = *shape;                                                                        \
    const Cut c = cut(shape);                                                                      \
    int failed = 0;                                                                                \
    _Pragma("omp parallel num_threads(p.threads)") {                                               \
      float *v = take(c.room), *d = take(c.room), *squares = take(c.room), *ratios = take(c.room), *out = take(c.room);\
      if (!v || !d || !squares || !ratios || !out) failed = 1;                                     \
      else {                                                                                       \
        _Pragma("omp for schedule(static)") for (int64_t t = 0; t < c.pieces; t++) {               \
          const Piece q = piece(&p, &c, t);                                                        \
          load_##NAME(x, v, &q);                                                                   \
          load_##NAME(g, d, &q);                                                                   \
          backward(&p, &c, &q, v, d, squares + c.lead, ratios + c.lead, out);                      \
          store_##NAME(out, dx, &q);                                                               \
        }                                                                                          \
      }                                                                                            \
      free(v), free(d), free(squares), free(ratios), free(out);                                    \
    }                                                                                              \
    return failed;                                                                                 \
  }

KERNELS(float, float, to_float, from_float)
KERNELS(bf16, bf16, from_bf16, to_bf16)
