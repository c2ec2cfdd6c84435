/* BLAKE3 of pages of exactly 4096 bytes, two at a time: four chunks of each in eight lanes of a vector, then the parents.
 * One page alone takes as long as two, since each step waits for the one before. */
#include <stdint.h>
#include <string.h>

#define PAGE 4096
#define KEY_BYTES 16

#pragma GCC diagnostic ignored "-Wpsabi" /* all is inlined: no call passes a vector */
typedef uint32_t v4 __attribute__((vector_size(16)));
typedef uint32_t v8 __attribute__((vector_size(32)));

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EVERY_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EVERY_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT_NODE = 8 };

static const uint32_t blake3_iv[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
static const uint8_t blake3_order[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13}};

#define SPLAT(x) ((v8){x, x, x, x, x, x, x, x})
#define ROTATE(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define MIX(a, b, c, d, x, y)                                                                                          \
    do {                                                                                                               \
        a += b + (x);                                                                                                  \
        d = ROTATE(d ^ a, 16);                                                                                         \
        c += d;                                                                                                        \
        b = ROTATE(b ^ c, 12);                                                                                         \
        a += b + (y);                                                                                                  \
        d = ROTATE(d ^ a, 8);                                                                                          \
        c += d;                                                                                                        \
        b = ROTATE(b ^ c, 7);                                                                                          \
    } while (0)

/* Eight compressions at once: `h` becomes the next chaining value of each lane. */
INLINE void compress(v8 h[8], const v8 m[16], v8 counter, uint32_t flags) {
    v8 v[16];
    for (int i = 0; i < 8; i++) v[i] = h[i];
    for (int i = 0; i < 4; i++) v[8 + i] = SPLAT(blake3_iv[i]);
    v[12] = counter;
    v[13] = SPLAT(0);
    v[14] = SPLAT(64);
    v[15] = SPLAT(flags);
#pragma GCC unroll 7
    for (int r = 0; r < 7; r++) {
        const uint8_t *s = blake3_order[r];
        MIX(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
        MIX(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
        MIX(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
        MIX(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
        MIX(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
        MIX(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
        MIX(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
        MIX(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) h[i] = v[i] ^ v[i + 8];
}

/* Four words of one page in the lower half, four of the other in the upper. */
INLINE v8 beside(const uint8_t *a, const uint8_t *b) {
    v4 low, high;
    memcpy(&low, a, 16);
    memcpy(&high, b, 16);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}

/* Four words of four chunks, turned so that a vector has one word of each chunk; in both halves. */
INLINE void turn(v8 out[4], v8 a, v8 b, v8 c, v8 d) {
    v8 ab = __builtin_shuffle(a, b, (v8){0, 8, 1, 9, 4, 12, 5, 13});
    v8 cd = __builtin_shuffle(c, d, (v8){0, 8, 1, 9, 4, 12, 5, 13});
    v8 ef = __builtin_shuffle(a, b, (v8){2, 10, 3, 11, 6, 14, 7, 15});
    v8 gh = __builtin_shuffle(c, d, (v8){2, 10, 3, 11, 6, 14, 7, 15});
    out[0] = __builtin_shuffle(ab, cd, (v8){0, 1, 8, 9, 4, 5, 12, 13});
    out[1] = __builtin_shuffle(ab, cd, (v8){2, 3, 10, 11, 6, 7, 14, 15});
    out[2] = __builtin_shuffle(ef, gh, (v8){0, 1, 8, 9, 4, 5, 12, 13});
    out[3] = __builtin_shuffle(ef, gh, (v8){2, 3, 10, 11, 6, 7, 14, 15});
}

/* Keys of the pages at `a` and at `b`, 16 bytes each. */
FOR_EVERY_CPU static void two_page_keys(const uint8_t *a, const uint8_t *b, uint8_t *key_a, uint8_t *key_b) {
    v8 h[8], m[16];
    for (int i = 0; i < 8; i++) h[i] = SPLAT(blake3_iv[i]);
    for (int block = 0; block < 16; block++) {
        for (int k = 0; k < 4; k++) {
            int at = 64 * block + 16 * k;
            turn(m + 4 * k, beside(a + at, b + at), beside(a + 1024 + at, b + 1024 + at),
                 beside(a + 2048 + at, b + 2048 + at), beside(a + 3072 + at, b + 3072 + at));
        }
        compress(h, m, (v8){0, 1, 2, 3, 0, 1, 2, 3}, (block == 0 ? CHUNK_START : 0) | (block == 15 ? CHUNK_END : 0));
    }
    /* The parents of chunks 0, 1 and 2, 3 of each page move to lanes 0..3, then the roots to lanes 0 and 1. */
    for (int level = 0; level < 2; level++) {
        for (int i = 0; i < 8; i++) {
            m[i] = __builtin_shuffle(h[i], (v8){0, 2, 4, 6, 0, 2, 4, 6});
            m[i + 8] = __builtin_shuffle(h[i], (v8){1, 3, 5, 7, 1, 3, 5, 7});
            h[i] = SPLAT(blake3_iv[i]);
        }
        compress(h, m, SPLAT(0), level ? PARENT | ROOT_NODE : PARENT);
    }
    for (int i = 0; i < 4; i++) {
        uint32_t word_a = h[i][0], word_b = h[i][1];
        memcpy(key_a + 4 * i, &word_a, 4);
        memcpy(key_b + 4 * i, &word_b, 4);
    }
}

static void page_key(const uint8_t *page, uint8_t key[KEY_BYTES]) {
    uint8_t again[KEY_BYTES];
    two_page_keys(page, page, key, again);
}
