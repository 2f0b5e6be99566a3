/* LeNet's stage, forward and backward: a 5x5 convolution, a squashing function and the means of 2x2.
 *
 *   a[o] = squash(bias[o] + sum over i of weight[o][i] * x[i])       (no padding, step 1)
 *   y[o][r][c] = mean of a[o][2r..2r+1][2c..2c+1]
 *
 * In float32. LANES pictures are worked on at a time, the same number of each of them side by side
 * in a vector: maps of any width then fill whole vectors. Only those places are computed that a mean
 * reads. Each lot's sums for the weights are kept apart, so that the result does not depend on the
 * number of threads.
 */
#include "pool.h"
#include "vectors.h"

enum {
  SIDE = 5,
  TAPS = SIDE * SIDE,
  BLOCK = 4, /* places of a mean */
  MOST = 16, /* results whose gradients are held at once */
};

enum { RELU, TANH, SCALED_TANH, SIGMOID };

typedef struct {
  int64_t pictures, inputs, outputs, height, width;
  int squash, threads;
} Stage;

/* What follows from a stage: means a map, numbers of a picture, of its means, and of its results. */
typedef struct {
  int64_t rows, columns, size, means, results, lots;
} Sizes;

static Sizes sizes(const Stage *s) {
  Sizes z = {.rows = (s->height - SIDE + 1) / 2, .columns = (s->width - SIDE + 1) / 2};
  z.size = s->inputs * s->height * s->width;
  z.means = s->outputs * z.rows * z.columns;
  z.results = BLOCK * z.means;
  z.lots = (s->pictures + LANES - 1) / LANES;
  return z;
}

/* e^t for t from -80 to 0 is power * (1 + series), to the last bits, near 1 as well. */
typedef struct {
  Vector power, series;
} Exponential;

ALWAYS Exponential exponential(Vector t) {
  const Bits n = __builtin_convertvector(t * 1.44269504f - 0.5f, Bits); /* towards zero */
  const Vector doublings = __builtin_convertvector(n, Vector);
  const Vector r = (t - doublings * 0.693359375f) + doublings * 2.12194440e-4f; /* ln 2 in parts */
  const Vector series =
      r + r * r * (0.5f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f +
      r * (1 / 5040.0f))))));
  return (Exponential){(Vector)((n + 127) << 23), series};
}

ALWAYS Vector size_of(Vector x, float most) {
  const Vector size = (Vector)((Bits)x & 0x7fffffff);
  return choose(size > most, all(most), size); /* what is not a number stays so */
}
ALWAYS Vector with_sign_of(Vector x, Vector size) { return (Vector)((Bits)size | ((Bits)x & ~0x7fffffff)); }

/* -m / (2 + m), m = e^-2|x| - 1 */
ALWAYS Vector tanh_of(Vector x) {
  const Exponential e = exponential(-2.0f * size_of(x, 20.0f));
  const Vector m = e.power * e.series + (e.power - 1.0f);
  return with_sign_of(x, -m / (2.0f + m));
}

/* 1 / (1 + e^-x), and for x below 0 e^x / (1 + e^x) */
ALWAYS Vector sigmoid_of(Vector x) {
  const Exponential e = exponential(-size_of(x, 80.0f));
  const Vector power = e.power + e.power * e.series;
  return choose(x < 0.0f, power, all(1.0f)) / (1.0f + power);
}

ALWAYS Vector squash(int kind, Vector x) {
  switch (kind) {
    case RELU: return choose(x <= 0.0f, all(0.0f), x);
    case TANH: return tanh_of(x);
    case SCALED_TANH: return 1.7159f * tanh_of(x * (2 / 3.0f));
    default: return sigmoid_of(x);
  }
}

/* The derivative, of what came out. */
ALWAYS Vector slope(int kind, Vector a) {
  switch (kind) {
    case RELU: return choose(a > 0.0f, all(1.0f), all(0.0f));
    case TANH: return 1.0f - a * a;
    case SCALED_TANH: return (2 / 3.0f) * (1.7159f - a * a * (1 / 1.7159f));
    default: return a * (1.0f - a);
  }
}

/* Pictures of n numbers each, to one vector a number; lanes without a picture stay as they are. */
static void gather(const float *from, int64_t pictures, int64_t n, float *to) {
  int64_t done = 0;
  if (pictures == LANES)
    for (; done + LANES <= n; done += LANES) {
      Vector block[LANES];
      for (int lane = 0; lane < LANES; lane++) block[lane] = get(from + lane * n + done);
      transpose(block);
      for (int i = 0; i < LANES; i++) put(to + (done + i) * LANES, block[i]);
    }
  for (int64_t lane = 0; lane < pictures; lane++)
    for (int64_t i = done; i < n; i++) to[i * LANES + lane] = from[lane * n + i];
}
static void scatter(const float *from, int64_t pictures, int64_t n, float *to) {
  int64_t done = 0;
  if (pictures == LANES)
    for (; done + LANES <= n; done += LANES) {
      Vector block[LANES];
      for (int i = 0; i < LANES; i++) block[i] = get(from + (done + i) * LANES);
      transpose(block);
      for (int lane = 0; lane < LANES; lane++) put(to + lane * n + done, block[lane]);
    }
  for (int64_t lane = 0; lane < pictures; lane++)
    for (int64_t i = done; i < n; i++) to[lane * n + i] = from[i * LANES + lane];
}

/* n maps of results from all maps of the input, and their means. */
ALWAYS void convolve(const Stage *s, const Sizes *z, int kind, int n, const float *x,
                     const float *weight, const float *bias, float *a, float *y) {
  const int64_t line = s->width * LANES, map = s->height * line, maps = z->rows * z->columns;
  for (int64_t r = 0; r < z->rows; r++)
    for (int64_t c = 0; c < z->columns; c++) {
      const int64_t place = r * z->columns + c;
      Vector sums[4][BLOCK];
      for (int o = 0; o < n; o++)
        for (int b = 0; b < BLOCK; b++) sums[o][b] = all(bias ? bias[o] : 0.0f);
      const float *from = x + 2 * r * line + 2 * c * LANES;
      for (int64_t i = 0; i < s->inputs; i++)
        for (int ky = 0; ky < SIDE; ky++)
          for (int kx = 0; kx < SIDE; kx++) {
            const float *at = from + i * map + ky * line + kx * LANES;
            const float *w = weight + i * TAPS + ky * SIDE + kx;
            const Vector v[BLOCK] = {get(at), get(at + LANES), get(at + line), get(at + line + LANES)};
            for (int o = 0; o < n; o++)
              for (int b = 0; b < BLOCK; b++) sums[o][b] += v[b] * w[o * s->inputs * TAPS];
          }
      for (int o = 0; o < n; o++) {
        float *to = a + (o * maps + place) * BLOCK * LANES;
        Vector total = all(0.0f);
        for (int b = 0; b < BLOCK; b++) {
          const Vector result = squash(kind, sums[o][b]);
          put(to + b * LANES, result);
          total += result;
        }
        put(y + (o * maps + place) * LANES, 0.25f * total);
      }
    }
}

ALWAYS void forward_lot(const Stage *s, const Sizes *z, int kind, const float *x,
                        const float *weight, const float *bias, float *a, float *y) {
  const int64_t maps = z->rows * z->columns * LANES;
  for (int64_t o = 0; o < s->outputs; o += 4) {
    const float *w = weight + o * s->inputs * TAPS, *b = bias ? bias + o : bias;
    float *results = a + o * maps * BLOCK, *to = y + o * maps;
    switch (s->outputs - o) {
      case 1: convolve(s, z, kind, 1, x, w, b, results, to); break;
      case 2: convolve(s, z, kind, 2, x, w, b, results, to); break;
      case 3: convolve(s, z, kind, 3, x, w, b, results, to); break;
      default: convolve(s, z, kind, 4, x, w, b, results, to);
    }
  }
}

/* Gradients by the results, in maps of 2 rows x 2 columns: each mean's to its four places. */
ALWAYS void spread(const Stage *s, const Sizes *z, int kind, const float *g, const float *a,
                   float *d) {
  for (int64_t o = 0; o < s->outputs; o++)
    for (int64_t r = 0; r < z->rows; r++)
      for (int64_t c = 0; c < z->columns; c++, g += LANES, a += BLOCK * LANES) {
        const Vector quarter = 0.25f * get(g);
        float *to = d + (((o * z->rows + r) * 2) * z->columns + c) * 2 * LANES;
        for (int b = 0; b < BLOCK; b++)
          put(to + (b / 2 * 2 * z->columns + b % 2) * LANES,
              quarter * slope(kind, get(a + b * LANES)));
      }
}

/* Adds n results' part of the gradients by the input. */
ALWAYS void add_back(const Stage *s, const Sizes *z, int n, const float *d, const float *weight,
                     float *dx) {
  const int64_t line = s->width * LANES, map = s->height * line;
  const int64_t maps = z->rows * z->columns * BLOCK * LANES;
  for (int64_t r = 0; r < 2 * z->rows; r++)
    for (int64_t c = 0; c < 2 * z->columns; c++) {
      Vector by[MOST];
      for (int o = 0; o < n; o++) by[o] = get(d + o * maps + (r * 2 * z->columns + c) * LANES);
      for (int64_t i = 0; i < s->inputs; i++)
        for (int ky = 0; ky < SIDE; ky++) {
          float *to = dx + i * map + (r + ky) * line + c * LANES;
          const float *w = weight + (i * TAPS + ky * SIDE) * n;
          for (int kx = 0; kx < SIDE; kx++, w += n) {
            Vector even = get(to + kx * LANES), odd = all(0.0f);
            for (int o = 0; o + 1 < n; o += 2) even += by[o] * w[o], odd += by[o + 1] * w[o + 1];
            if (n % 2) even += by[n - 1] * w[n - 1];
            put(to + kx * LANES, even + odd);
          }
        }
    }
}

/* Gradients by one row of the kernels from one input map to n results. */
ALWAYS void correlate(const Stage *s, const Sizes *z, int n, const float *x, const float *d,
                      float *dw) {
  const int64_t maps = z->rows * z->columns * BLOCK * LANES;
  Vector sums[4][SIDE];
  for (int o = 0; o < n; o++)
    for (int kx = 0; kx < SIDE; kx++) sums[o][kx] = all(0.0f);
  for (int64_t r = 0; r < 2 * z->rows; r++) {
    const float *from = x + r * s->width * LANES, *by = d + r * 2 * z->columns * LANES;
    for (int64_t c = 0; c < 2 * z->columns; c++, from += LANES, by += LANES) {
      Vector values[SIDE];
      for (int kx = 0; kx < SIDE; kx++) values[kx] = get(from + kx * LANES);
      for (int o = 0; o < n; o++) {
        const Vector gradient = get(by + o * maps);
        for (int kx = 0; kx < SIDE; kx++) sums[o][kx] += values[kx] * gradient;
      }
    }
  }
  for (int first = 0; first < n * SIDE; first += LANES) {
    Vector some[LANES];
    for (int i = 0; i < LANES; i++) {
      const int which = first + i < n * SIDE ? first + i : 0;
      some[i] = sums[which / SIDE][which % SIDE];
    }
    const Vector found = sums_of(some);
    for (int i = 0; i < LANES && first + i < n * SIDE; i++)
      dw[(first + i) / SIDE * s->inputs * TAPS + (first + i) % SIDE] = found[i];
  }
}

static void weights_lot(const Stage *s, const Sizes *z, const float *x, const float *d, float *dw,
                        float *db) {
  const int64_t maps = z->rows * z->columns * BLOCK * LANES, line = s->width * LANES;
  for (int64_t o = 0; o < s->outputs; o += 4)
    for (int64_t i = 0; i < s->inputs; i++)
      for (int ky = 0; ky < SIDE; ky++) {
        const float *from = x + (i * s->height + ky) * line, *by = d + o * maps;
        float *to = dw + (o * s->inputs + i) * TAPS + ky * SIDE;
        switch (s->outputs - o) {
          case 1: correlate(s, z, 1, from, by, to); break;
          case 2: correlate(s, z, 2, from, by, to); break;
          case 3: correlate(s, z, 3, from, by, to); break;
          default: correlate(s, z, 4, from, by, to);
        }
      }
  for (int64_t o = 0; o < s->outputs; o++) {
    Vector sum = all(0.0f);
    for (int64_t p = 0; p < maps; p += LANES) sum += get(d + o * maps + p);
    db[o] = 0.0f;
    for (int lane = 0; lane < LANES; lane++) db[o] += sum[lane];
  }
}

/* `turned` has room for the weights of MOST results, the results innermost. */
static void input_lot(const Stage *s, const Sizes *z, const float *d, const float *weight,
                      float *turned, float *dx) {
  const int64_t maps = z->rows * z->columns * BLOCK * LANES, each = s->inputs * TAPS;
  memset(dx, 0, 4 * z->size * LANES);
  for (int64_t o = 0, n; o < s->outputs; o += n) {
    const int64_t left = s->outputs - o;
    n = left >= MOST ? MOST : left >= 6 ? 6 : left >= 2 ? 2 : 1;
    for (int64_t k = 0; k < each; k++)
      for (int64_t j = 0; j < n; j++) turned[k * n + j] = weight[(o + j) * each + k];
    switch (n) {
      case MOST: add_back(s, z, MOST, d + o * maps, turned, dx); break;
      case 6: add_back(s, z, 6, d + o * maps, turned, dx); break;
      case 2: add_back(s, z, 2, d + o * maps, turned, dx); break;
      default: add_back(s, z, 1, d + o * maps, turned, dx);
    }
  }
}

#define BY_SQUASH(CALL, ...)                                                                       \
  switch (s->squash) {                                                                             \
    case RELU: CALL(s, &z, RELU, __VA_ARGS__); break;                                              \
    case TANH: CALL(s, &z, TANH, __VA_ARGS__); break;                                              \
    case SCALED_TANH: CALL(s, &z, SCALED_TANH, __VA_ARGS__); break;                                \
    default: CALL(s, &z, SIGMOID, __VA_ARGS__);                                                    \
  }

/* How many numbers the results of all lots are. */
int64_t stage_results(const Stage *s) { return sizes(s).lots * sizes(s).results * LANES; }

/* What the items of a forward or a backward pass are told; one item is one lot. `room` is what each
 * thread has to work in. */
typedef struct {
  const Stage *s;
  Sizes z;
  const float *x, *weight, *bias, *g;
  float *a, *y, *dx, *dw, *db, *room;
  int64_t apart;
} Told;

static int64_t pictures_of(const Told *t, int64_t lot) {
  const int64_t left = t->s->pictures - lot * LANES;
  return left < LANES ? left : LANES;
}

static void forward_item(void *told, int64_t lot, int who) {
  const Told *t = told;
  const Stage *s = t->s;
  const Sizes z = t->z;
  const int64_t first = lot * LANES, pictures = pictures_of(t, lot);
  float *in = t->room + who * t->apart, *out = in + z.size * LANES;
  if (pictures < LANES) memset(in, 0, 4 * z.size * LANES);
  gather(t->x + first * z.size, pictures, z.size, in);
  BY_SQUASH(forward_lot, in, t->weight, t->bias, t->a + lot * z.results * LANES, out)
  scatter(out, pictures, z.means, t->y + first * z.means);
}

static void backward_item(void *told, int64_t lot, int who) {
  const Told *t = told;
  const Stage *s = t->s;
  const Sizes z = t->z;
  const int64_t first = lot * LANES, pictures = pictures_of(t, lot);
  float *in = t->room + who * t->apart, *back = in + z.size * LANES;
  float *by = back + z.size * LANES, *d = by + z.means * LANES, *turned = d + z.results * LANES;
  if (pictures < LANES) memset(in, 0, 4 * z.size * LANES), memset(by, 0, 4 * z.means * LANES);
  gather(t->x + first * z.size, pictures, z.size, in);
  gather(t->g + first * z.means, pictures, z.means, by);
  BY_SQUASH(spread, by, t->a + lot * z.results * LANES, d)
  weights_lot(s, &z, in, d, t->dw + lot * s->outputs * s->inputs * TAPS, t->db + lot * s->outputs);
  if (t->dx) {
    input_lot(s, &z, d, t->weight, turned, back);
    scatter(back, pictures, z.size, t->dx + first * z.size);
  }
}

static int run(Work item, Told *t, int64_t numbers) {
  t->apart = (numbers + LANES - 1) / LANES * LANES;
  const int threads = t->s->threads < t->z.lots ? t->s->threads : t->z.lots;
  t->room = take_as_it_is(threads * t->apart);
  if (!t->room) return 1;
  share_work(item, t, t->z.lots, threads);
  free(t->room);
  return 0;
}

/* x [pictures][inputs][height][width], a as `stage_results` says, y [pictures][outputs][..][..] */
int stage_forward(const float *x, const float *weight, const float *bias, float *a, float *y,
                  const Stage *s) {
  Told t = {.s = s, .z = sizes(s), .x = x, .weight = weight, .bias = bias, .a = a, .y = y};
  return run(forward_item, &t, (t.z.size + t.z.means) * LANES);
}

/* All lots' numbers, one after another, added up. */
static void add_up(const float *each, int64_t lots, int64_t n, float *sums) {
  memcpy(sums, each, 4 * n);
  for (int64_t lot = 1; lot < lots; lot++)
    for (int64_t i = 0; i < n; i++) sums[i] += each[lot * n + i];
}

/* dx may be null; dw [outputs][inputs][5][5] and db [outputs]. */
int stage_backward(const float *x, const float *weight, const float *a, const float *g, float *dx,
                   float *dw, float *db, const Stage *s) {
  Told t = {.s = s, .z = sizes(s), .x = x, .weight = weight, .a = (float *)a, .g = g, .dx = dx};
  const int64_t weights = s->outputs * s->inputs * TAPS;
  t.dw = take_as_it_is(t.z.lots * (weights + s->outputs));
  if (!t.dw) return 1;
  t.db = t.dw + t.z.lots * weights;
  const int64_t numbers = (2 * t.z.size + t.z.means + t.z.results) * LANES;
  const int failed = run(backward_item, &t, numbers + MOST * s->inputs * TAPS);
  if (!failed) {
    add_up(t.dw, t.z.lots, weights, dw);
    add_up(t.db, t.z.lots, s->outputs, db);
  }
  free(t.dw);
  return failed;
}
