/* Convolution by way of the frequencies, forward and backward; see layers/spectral.py.
 *
 * Every step is a matrix product, done by the library that torch brings, on one thread each. A band,
 * one frequency of the vertical transform, is an item that a thread takes: its factors, their
 * products and what becomes of them stay with that thread, and threads that other programs hold up
 * hold up no others. What is summed over bands is kept apart, so that the result does not depend on
 * which thread took what.
 *
 * Maps are [pictures, height, width, channels]. After the vertical transform they are [pictures,
 * frequencies, 2, width, channels], real and imaginary parts.
 */
#include <stdlib.h>

#include "pool.h"

enum { ROWS = 101, AS_IS = 111, TURNED = 112 }; /* of CBLAS */

typedef void (*Products)(int layout, const int *turn_a, const int *turn_b, const int *m, const int *n,
                         const int *k, const float *alpha, const float **a, const int *lda,
                         const float **b, const int *ldb, const float *beta, float **c,
                         const int *ldc, int groups, const int *group_sizes);
typedef int (*Threads)(int);

typedef struct {
  int64_t pictures, groups, inputs, outputs; /* channels */
  int64_t height, width, out_height, out_width, taps, frequencies, most;
  const float *down_x, *down_g;                          /* [frequencies, 2, height] */
  const float *const *across_x, *const *across_g;        /* each [factors, 2 * width] */
  const float *const *kernels;                           /* each [factors, taps] */
  const int64_t *factors, *order;                        /* of each band; longest first */
  Products products;
  Threads threads_of_one;
  int threads;
} Spectral;

/* A matrix: where it begins, from one row to the next, and from one matrix to the next. */
typedef struct {
  const float *at;
  int64_t row, next;
  int turned;
} Matrix;

typedef struct {
  const Spectral *s;
  const float *x, *g, *weight, *bias; /* the weights transposed as [taps, groups, in, out] or back */
  float *down_x, *down_g, *rows, *y, *dx, *parts, *db;
  float *room;          /* of all threads */
  const float **places; /* pointers, of all threads */
  int64_t apart, places_apart;
} Told;

/* So many numbers, up to whole lines of the cache: what a product's last bits are may depend on where
 * its matrices begin. */
static int64_t lines(int64_t numbers) { return (numbers + 15) / 16 * 16; }
static int64_t room_in(const Spectral *s) { return lines(s->most * s->pictures * s->inputs); }
static int64_t room_out(const Spectral *s) { return lines(s->most * s->pictures * s->outputs); }

/* How many numbers one thread needs. */
int64_t spectral_room(const Spectral *s) {
  return room_in(s) + room_out(s) + lines(s->most * (s->inputs / s->groups) * s->outputs);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* `count` products [m, k] [k, n]. */
static void multiply(const Told *t, int who, int64_t count, int64_t m, int64_t n, int64_t k, Matrix a,
                     Matrix b, float *c, int64_t row, int64_t next) {
  const float **from_a = t->places + who * t->places_apart, **from_b = from_a + count;
  float **to = (float **)(from_b + count);
  for (int64_t i = 0; i < count; i++) {
    from_a[i] = a.at + i * a.next;
    from_b[i] = b.at + i * b.next;
    to[i] = c + i * next;
  }
  const int turn_a = a.turned ? TURNED : AS_IS, turn_b = b.turned ? TURNED : AS_IS;
  const int sizes[] = {(int)m, (int)n, (int)k}, rows[] = {(int)a.row, (int)b.row, (int)row};
  const int group = (int)count;
  const float one = 1, none = 0;
  t->s->products(ROWS, &turn_a, &turn_b, sizes, sizes + 1, sizes + 2, &one, from_a, rows, from_b,
                 rows + 1, &none, to, rows + 2, 1, &group);
}

/* The vertical transform of one picture, and back. */
static void down(const Told *t, int who, const float *matrix, int64_t height, int64_t line,
                 const float *maps, float *rows) {
  const int64_t both = 2 * t->s->frequencies;
  multiply(t, who, 1, both, line, height, (Matrix){matrix, height, 0, 0}, (Matrix){maps, line, 0, 0},
           rows, line, 0);
}
static void up(const Told *t, int who, const float *matrix, int64_t height, int64_t line,
               const float *rows, float *maps) {
  const int64_t both = 2 * t->s->frequencies;
  multiply(t, who, 1, height, line, both, (Matrix){matrix, height, 0, 1}, (Matrix){rows, line, 0, 0},
           maps, line, 0);
}

/* The factors [pictures, m, channels] of a band's rows, and back from products [m, pictures,
 * channels]. */
static void across(const Told *t, int who, const float *matrix, int64_t m, int64_t width,
                   int64_t channels, int64_t band, const float *rows, float *factors) {
  const int64_t two = 2 * width, size = two * channels;
  multiply(t, who, t->s->pictures, m, channels, two, (Matrix){matrix, two, 0, 0},
           (Matrix){rows + band * size, channels, t->s->frequencies * size, 0}, factors, channels,
           m * channels);
}
static void back(const Told *t, int who, const float *matrix, int64_t m, int64_t width,
                 int64_t channels, int64_t band, const float *products, float *rows) {
  const int64_t two = 2 * width, size = two * channels, pictures = t->s->pictures;
  multiply(t, who, pictures, two, channels, m, (Matrix){matrix, two, 0, 1},
           (Matrix){products, pictures * channels, channels, 0}, rows + band * size, channels,
           t->s->frequencies * size);
}

/* Products [m, pictures, to] of factors [pictures, m, from] and kernels [m, groups, from / groups,
 * to / groups]. */
static void mix(const Told *t, int who, int64_t m, int64_t from, int64_t to, const float *factors,
                const float *kernels, float *products) {
  const int64_t groups = t->s->groups, in = from / groups, out = to / groups;
  for (int64_t group = 0; group < groups; group++)
    multiply(t, who, m, t->s->pictures, out, in, (Matrix){factors + group * in, m * from, from, 0},
             (Matrix){kernels + group * in * out, out, groups * in * out, 0}, products + group * out,
             to, t->s->pictures * to);
}

/* The kernels' factors [m, weights / taps]. */
static void spread(const Told *t, int who, int64_t band, float *kernels) {
  const Spectral *s = t->s;
  const int64_t weights = s->inputs / s->groups * s->outputs;
  multiply(t, who, 1, s->factors[band], weights, s->taps,
           (Matrix){s->kernels[band], s->taps, 0, 0}, (Matrix){t->weight, weights, 0, 0}, kernels,
           weights, 0);
}

static void forward_down(void *told, int64_t picture, int who) {
  const Told *t = told;
  const Spectral *s = t->s;
  const int64_t line = s->width * s->inputs;
  down(t, who, s->down_x, s->height, line, t->x + picture * s->height * line,
       t->down_x + picture * 2 * s->frequencies * line);
}

static void forward_band(void *told, int64_t item, int who) {
  const Told *t = told;
  const Spectral *s = t->s;
  const int64_t band = s->order[item], m = s->factors[band];
  float *factors = t->room + who * t->apart, *products = factors + room_in(s);
  float *kernels = products + room_out(s);
  across(t, who, s->across_x[band], m, s->width, s->inputs, band, t->down_x, factors);
  spread(t, who, band, kernels);
  mix(t, who, m, s->inputs, s->outputs, factors, kernels, products);
  if (!band && t->bias) /* a constant is the frequency 0, whose factor of the gradient is its sum */
    for (int64_t picture = 0; picture < s->pictures; picture++)
      for (int64_t channel = 0; channel < s->outputs; channel++)
        products[picture * s->outputs + channel] += t->bias[channel];
  back(t, who, s->across_g[band], m, s->out_width, s->outputs, band, products, t->rows);
}

static void forward_up(void *told, int64_t picture, int who) {
  const Told *t = told;
  const Spectral *s = t->s;
  const int64_t line = s->out_width * s->outputs;
  up(t, who, s->down_g, s->out_height, line, t->rows + picture * 2 * s->frequencies * line,
     t->y + picture * s->out_height * line);
}

static void backward_down(void *told, int64_t picture, int who) {
  const Told *t = told;
  const Spectral *s = t->s;
  const int64_t line = s->out_width * s->outputs;
  down(t, who, s->down_g, s->out_height, line, t->g + picture * s->out_height * line,
       t->down_g + picture * 2 * s->frequencies * line);
  if (t->parts) forward_down(told, picture, who);
}

static void backward_band(void *told, int64_t item, int who) {
  const Told *t = told;
  const Spectral *s = t->s;
  const int64_t band = s->order[item], m = s->factors[band], pictures = s->pictures;
  const int64_t in = s->inputs / s->groups, out = s->outputs / s->groups, weights = in * s->outputs;
  float *factors = t->room + who * t->apart, *others = factors + room_out(s);
  float *kernels = others + room_in(s);
  across(t, who, s->across_g[band], m, s->out_width, s->outputs, band, t->down_g, factors);
  if (!band && t->db)
    for (int64_t picture = 0; picture < pictures; picture++)
      for (int64_t channel = 0; channel < s->outputs; channel++)
        t->db[channel] += factors[picture * m * s->outputs + channel];
  if (t->dx) {
    spread(t, who, band, kernels);
    mix(t, who, m, s->outputs, s->inputs, factors, kernels, others);
    back(t, who, s->across_x[band], m, s->width, s->inputs, band, others, t->rows);
  }
  if (t->parts) {
    across(t, who, s->across_x[band], m, s->width, s->inputs, band, t->down_x, others);
    for (int64_t group = 0; group < s->groups; group++)
      multiply(t, who, m, out, in, pictures,
               (Matrix){factors + group * out, m * s->outputs, s->outputs, 1},
               (Matrix){others + group * in, m * s->inputs, s->inputs, 0},
               kernels + group * in * out, in, weights);
    multiply(t, who, 1, s->taps, weights, m, (Matrix){s->kernels[band], s->taps, 0, 1},
             (Matrix){kernels, weights, 0, 0}, t->parts + band * s->taps * weights, weights, 0);
  }
}

static void backward_up(void *told, int64_t picture, int who) {
  const Told *t = told;
  const Spectral *s = t->s;
  const int64_t line = s->width * s->inputs;
  up(t, who, s->down_x, s->height, line, t->rows + picture * 2 * s->frequencies * line,
     t->dx + picture * s->height * line);
}

/* An item on one of the library's threads: a helper is a thread of its own each time. */
typedef struct {
  Work work;
  Told *told;
} Alone;

static void alone(void *both, int64_t item, int who) {
  const Alone *a = both;
  const int before = a->told->s->threads_of_one(1);
  a->work(a->told, item, who);
  a->told->s->threads_of_one(before);
}

static void share(Work work, Told *t, int64_t items) {
  share_work(alone, &(Alone){work, t}, items, t->s->threads);
}

static int have_places(Told *t) {
  const Spectral *s = t->s;
  t->apart = spectral_room(s);
  t->places_apart = 3 * larger(s->pictures, s->most);
  t->places = malloc(s->threads * t->places_apart * sizeof *t->places);
  return t->places != 0;
}

/* `down` and `rows` are room for the transformed input and output, `room` that of all threads. */
int spectral_forward(const float *x, const float *weight, const float *bias, float *y, float *down,
                     float *rows, float *room, const Spectral *s) {
  Told t = {.s = s, .x = x, .weight = weight, .bias = bias, .y = y,
            .down_x = down, .rows = rows, .room = room};
  if (!have_places(&t)) return 1;
  share(forward_down, &t, s->pictures);
  share(forward_band, &t, s->frequencies);
  share(forward_up, &t, s->pictures);
  free(t.places);
  return 0;
}

/* `parts` becomes the gradient by the weights, [frequencies, taps, outputs, inputs / groups], to be
 * summed over the first. `dx` and `rows`, `parts` and `down_x`, and `db` (zeros) may be missing. */
int spectral_backward(const float *x, const float *weight, const float *g, float *dx, float *parts,
                      float *db, float *down_x, float *down_g, float *rows, float *room,
                      const Spectral *s) {
  Told t = {.s = s, .x = x, .weight = weight, .g = g, .dx = dx, .parts = parts, .db = db,
            .down_x = down_x, .down_g = down_g, .rows = rows, .room = room};
  if (!have_places(&t)) return 1;
  share(backward_down, &t, s->pictures);
  share(backward_band, &t, s->frequencies);
  if (dx) share(backward_up, &t, s->pictures);
  free(t.places);
  return 0;
}
