/* The lab guest's workload: shows that a virtual machine lived on, unharmed, wherever it runs.
 *
 *   workload FILL_MIB DIRTY_MIB_PER_SECOND CHECK [DISK]
 *
 * One process, one thread, a clock of 20 ms ticks. Every line is one write(2), so lines never mix:
 *
 *   FILLED <mib> MiB from <disk or generator> up <s>    the work area is ready
 *   DIGEST <hex>                             of the region that nothing ever writes to
 *   HB <n> <boot id> pid <pid> up <s>        each 100 ms, n counts up by one for ever
 *   CHECK <pass> pages <n> ok digest <hex>   a whole walk found every page as expected
 *   CHECK BAD page <i>                       a page is not what was last written to it
 *
 * The work area holds real bytes (read from DISK) or compressible pseudo-random ones. Its first sixteenth is never
 * written again; in the rest, 64 bytes of random pages change at the asked rate. `expected` has the sum of every page
 * and follows each write, so a page that went stale, missing or elsewhere on its way to another host is found by the
 * next walk. The sum is linear in the page's words: a write updates it without reading the page. Walk and dirtying go
 * in slices of a few pages with a look at the clock between them, so that the heartbeat is never kept waiting. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, TICK_MS = 20, BEAT_MS = 100, SLICE_MS = 8, MIN_MIB = 8 };
enum { WALK_PAGES = 16 * 256 * TICK_MS / 1000 }; /* the walk reads 16 MiB/s */

static uint64_t *area, *expected, pages, frozen; /* pages [0, frozen) are never written after the fill */
static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  return seed ^= seed << 17;
}

/* Odd, hence invertible: a change of one word always changes the sum; different for each place, so a swap does too. */
static uint64_t weight(uint64_t i) { return 2 * i * 0x9e3779b97f4a7c15ull + 0xc2b2ae3d27d4eb4full; }

static uint64_t sum(const uint64_t *page) {
  uint64_t total = 0, w = weight(0);
  for (int i = 0; i < WORDS; i++, w += 2 * 0x9e3779b97f4a7c15ull) total += page[i] * w;
  return total;
}

static uint64_t mix(uint64_t digest, uint64_t value) { return (digest ^ value) * 0x100000001b3ull; } /* FNV-1a */

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static void say(const char *line, int length) {
  if (write(STDOUT_FILENO, line, length) != length) _exit(3);
}
#define SAY(...)                                         \
  do {                                                   \
    char line[160];                                      \
    say(line, snprintf(line, sizeof line, __VA_ARGS__)); \
  } while (0)

static void die(const char *what) {
  SAY("FAILED %s\n", what);
  _exit(2);
}

/* A quarter noise, the rest words of a small vocabulary: compresses about 3:1, as program files do. */
static void generate(void) {
  uint64_t vocabulary[64];
  for (int i = 0; i < 64; i++) vocabulary[i] = rnd();
  for (uint64_t i = 0; i < pages * WORDS; i++) {
    uint64_t r = rnd();
    area[i] = (r >> 8) % 4 ? vocabulary[r % 64] : r;
  }
}

/* O_DIRECT, so that no second copy stays in the page cache. */
static int read_disk(const char *disk) {
  int fd = open(disk, O_RDONLY | O_DIRECT);
  if (fd < 0) return 0;
  for (uint64_t done = 0; done < pages * PAGE;) {
    uint64_t rest = pages * PAGE - done;
    ssize_t n = read(fd, (char *)area + done, rest < 1 << 20 ? rest : 1 << 20);
    if (n <= 0) die("the content disk is smaller than the fill, or cannot be read");
    done += n;
  }
  close(fd);
  return 1;
}

/* Write 64 bytes at a random place of a random page, and account for them. */
static void dirty_one(void) {
  static uint64_t count;
  uint64_t page = frozen + rnd() % (pages - frozen), first = rnd() % (WORDS / 8) * 8, change = 0;
  uint64_t *at = area + page * WORDS + first;
  for (int i = 0; i < 8; i++) {
    change += (++count - at[i]) * weight(first + i);
    at[i] = count;
  }
  expected[page] += change;
}

/* Check the next page; at the end of a walk say how it went. */
static void check_one(void) {
  static uint64_t at, pass, bad, digest;
  uint64_t found = sum(area + at * WORDS);
  if (found != expected[at]) {
    bad++;
    SAY("CHECK BAD page %lu\n", at);
    expected[at] = found; /* say it once */
  }
  if (at < frozen) digest = mix(digest, found);
  if (++at < pages) return;
  if (!bad) SAY("CHECK %lu pages %lu ok digest %016lx\n", pass, pages, digest);
  at = bad = digest = 0;
  pass++;
}

int main(int argc, char **argv) {
  if (argc < 4) die("use: workload FILL_MIB DIRTY_MIB_PER_SECOND CHECK [DISK]");
  uint64_t mib = strtoull(argv[1], 0, 10), check = strtoull(argv[3], 0, 10);
  double dirty = strtod(argv[2], 0), owed = 0;
  pages = (mib < MIN_MIB ? MIN_MIB : mib) * 256;
  frozen = pages / 16;
  area = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  expected = mmap(0, pages * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED || expected == MAP_FAILED) die("out of memory: boot with more memory or less fill");

  int from_disk = argc > 4 && read_disk(argv[4]);
  if (!from_disk) generate();
  SAY("FILLED %lu MiB from %s up %.2f\n", pages / 256, from_disk ? argv[4] : "generator", now_ms() / 1e3);
  uint64_t digest = 0;
  for (uint64_t i = 0; i < pages; i++) {
    expected[i] = sum(area + i * WORDS);
    if (i < frozen) digest = mix(digest, expected[i]);
  }
  SAY("DIGEST %016lx\n", digest);

  char boot_id[40] = {0};
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
  if (fd < 0 || read(fd, boot_id, 36) != 36) die("/proc/sys/kernel/random/boot_id cannot be read");
  close(fd);
  uint64_t beat = 0, next_beat = now_ms(), tick = next_beat;
  for (;;) {
    uint64_t start = now_ms();
    if (start >= next_beat) {
      SAY("HB %lu %s pid %d up %.2f\n", beat++, boot_id, getpid(), start / 1e3);
      next_beat += BEAT_MS;
      if (next_beat <= start) next_beat = start + BEAT_MS; /* after a pause: no burst of late beats */
    }
    owed += dirty * 256 * TICK_MS / 1000;
    if (owed > 10 * dirty * 256 * TICK_MS / 1000) owed = 10 * dirty * 256 * TICK_MS / 1000;
    for (int i = 0; owed >= 1; owed--, i++) {
      dirty_one();
      if (i % 16 == 15 && now_ms() - start >= SLICE_MS) break;
    }
    for (int i = 0; check && i < WALK_PAGES && now_ms() - start < 2 * SLICE_MS; i++) check_one();
    tick += TICK_MS;
    if (tick + 1000 < start) tick = start;
    struct timespec until = {tick / 1000, tick % 1000 * 1000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
  }
}
