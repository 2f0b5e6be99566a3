/* What is not an operation, on the threads of operations.
 *
 * After an operation OpenMP's threads look out for the next one for milliseconds and keep their
 * processors busy with it. Threads of one's own would share these with them; a region has them at
 * once. */
void on_threads(void (*work)(void), int threads) {
  _Pragma("omp parallel num_threads(threads)") work();
}
