/* Pages by slot, slots by address, and what is found by content. The rules are those of slab_py.py. */
#include <stdlib.h>
#include <sys/mman.h>

#define NONE 0xFFFFFFFFu
#define MAX_BLOCKS 1024
#define LEAF_PAGES 16
#define POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, Linux 5.14 */

typedef struct {
    uint8_t size;
    uint8_t text[255];
} Name;

INLINE int same_name(const Name *a, const uint8_t *text, size_t size) {
    return a->size == size && !memcmp(a->text, text, size);
}

/* Zeroed memory that takes no room before it is touched; NULL where there is none. */
static void *room(size_t size) {
    void *p = mmap(0, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? 0 : p;
}

static void no_room(void *p, size_t size) {
    if (p) munmap(p, size ? size : 1);
}

static size_t power_above(size_t n) {
    size_t p = 16;
    while (p < n) p <<= 1;
    return p;
}

/* Addresses: leaves of 16 page numbers, found by an open hash table that is never more than half full. */
typedef struct {
    uint64_t *keys; /* leaf's key + 1; 0: empty */
    uint32_t *which;
    size_t mask;
    uint32_t (*leaves)[LEAF_PAGES]; /* slot + 1 */
    uint64_t *leaf_keys;
    uint32_t count, limit;
    uint64_t last_key; /* of the leaf that was used last */
    uint32_t *last;
} Map;

INLINE uint64_t leaf_key(uint32_t block, uint64_t page) { return ((uint64_t)block << 28 | page / LEAF_PAGES) + 1; }

static int map_make(Map *map, uint32_t limit) {
    size_t size = power_above(2 * (size_t)limit);
    map->mask = size - 1;
    map->limit = limit;
    map->keys = room(size * 8);
    map->which = room(size * 4);
    map->leaves = room((size_t)limit * LEAF_PAGES * 4);
    map->leaf_keys = room((size_t)limit * 8);
    return map->keys && map->which && map->leaves && map->leaf_keys;
}

static void map_free(Map *map) {
    no_room(map->keys, (map->mask + 1) * 8);
    no_room(map->which, (map->mask + 1) * 4);
    no_room(map->leaves, (size_t)map->limit * LEAF_PAGES * 4);
    no_room(map->leaf_keys, (size_t)map->limit * 8);
}

/* Place of an address' slot + 1; NULL where it has no leaf (and none can be made). Not changed where `make` is 0. */
static uint32_t *map_place(Map *map, uint32_t block, uint64_t page, int make) {
    uint64_t key = leaf_key(block, page);
    if (key != map->last_key || !map->last) {
        size_t at = (size_t)((key * 0x9E3779B97F4A7C15ull) >> 20) & map->mask;
        while (map->keys[at] && map->keys[at] != key) at = (at + 1) & map->mask;
        if (!map->keys[at]) {
            if (!make || map->count == map->limit) return 0;
            map->keys[at] = key;
            map->which[at] = map->count;
            map->leaf_keys[map->count++] = key;
        }
        map->last_key = key;
        map->last = map->leaves[map->which[at]];
    }
    return map->last + page % LEAF_PAGES;
}

/* The same for a map that other threads read too. */
static uint32_t map_get(const Map *map, uint32_t block, uint64_t page) {
    uint64_t key = leaf_key(block, page);
    size_t at = (size_t)((key * 0x9E3779B97F4A7C15ull) >> 20) & map->mask;
    while (map->keys[at] && map->keys[at] != key) at = (at + 1) & map->mask;
    return map->keys[at] ? map->leaves[map->which[at]][page % LEAF_PAGES] - 1 : NONE;
}

typedef struct {
    uint32_t slots, high, freed_count;
    uint8_t *pages;
    uint32_t *shares, *freed;
    Map map;
    Name *names;
    uint32_t names_count;
} Slab;

static int slab_make(Slab *slab, uint32_t slots, uint8_t *pages) {
    slab->slots = slots;
    slab->pages = pages;
    slab->shares = room((size_t)slots * 4);
    slab->freed = room((size_t)slots * 4);
    slab->names = room(MAX_BLOCKS * sizeof(Name));
    return map_make(&slab->map, slots) && slab->shares && slab->freed && slab->names;
}

static void slab_free(Slab *slab) {
    no_room(slab->shares, (size_t)slab->slots * 4);
    no_room(slab->freed, (size_t)slab->slots * 4);
    no_room(slab->names, MAX_BLOCKS * sizeof(Name));
    map_free(&slab->map);
}

INLINE uint8_t *slab_page(const Slab *slab, uint32_t slot) { return slab->pages + (size_t)slot * PAGE; }

INLINE int slab_live(const Slab *slab, uint64_t slot) { return slot < slab->high && slab->shares[slot]; }

static uint32_t slab_slot(Slab *slab, uint32_t block, uint64_t page) {
    uint32_t *place = map_place(&slab->map, block, page, 0);
    return place ? *place - 1 : NONE;
}

static void slab_release(Slab *slab, uint32_t slot) {
    if (!--slab->shares[slot]) slab->freed[slab->freed_count++] = slot;
}

/* Slot for a new version of an address, to be written by the caller; NONE where there is no room. */
static uint32_t slab_store(Slab *slab, uint32_t block, uint64_t page) {
    uint32_t *place = map_place(&slab->map, block, page, 1), slot;
    if (!place) return NONE;
    if (*place) {
        if (slab->shares[*place - 1] == 1) return *place - 1;
        slab->shares[*place - 1]--;
    }
    if (slab->freed_count)
        slot = slab->freed[--slab->freed_count];
    else if (slab->high < slab->slots)
        slot = slab->high++;
    else {
        *place = 0;
        return NONE;
    }
    slab->shares[slot] = 1;
    *place = slot + 1;
    return slot;
}

static void slab_share(Slab *slab, uint32_t block, uint64_t page, uint32_t slot) {
    uint32_t *place = map_place(&slab->map, block, page, 1), old;
    if (!place) return;
    old = *place;
    slab->shares[slot]++;
    if (old) slab_release(slab, old - 1);
    *place = slot + 1;
}

static void slab_drop(Slab *slab, uint32_t block, uint64_t page) {
    uint32_t *place = map_place(&slab->map, block, page, 0);
    if (!place || !*place) return;
    slab_release(slab, *place - 1);
    *place = 0;
}

/* Slots by XXH3, at the encoder only: buckets of eight (hash's upper half, slot + 1). What it says is always checked, so
 * entries may be old, and may push each other out. */
typedef struct {
    uint64_t (*buckets)[8];
    size_t mask;
} Seen;

static int seen_make(Seen *seen, uint32_t slots) {
    size_t count = power_above(slots / 4);
    seen->mask = count - 1;
    seen->buckets = room(count * 64);
    return seen->buckets != 0;
}

static void seen_free(Seen *seen) { no_room(seen->buckets, (seen->mask + 1) * 64); }

static uint32_t seen_find(const Seen *seen, const Slab *slab, uint64_t hash, const uint8_t *page) {
    const uint64_t *bucket = seen->buckets[hash & seen->mask];
    for (int i = 0; i < 8; i++) {
        uint32_t slot = (uint32_t)bucket[i] - 1;
        if (bucket[i] && bucket[i] >> 32 == hash >> 32 && slab_live(slab, slot) &&
            !memcmp(slab_page(slab, slot), page, PAGE))
            return slot;
    }
    return NONE;
}

static void seen_put(Seen *seen, const Slab *slab, uint64_t hash, uint32_t slot) {
    uint64_t *bucket = seen->buckets[hash & seen->mask];
    int best = (int)(hash >> 29 & 7);
    for (int i = 7; i >= 0; i--)
        if (!bucket[i] || !slab_live(slab, (uint32_t)bucket[i] - 1)) best = i;
    for (int i = 0; i < 8; i++)
        if (bucket[i] && bucket[i] >> 32 == hash >> 32) best = i;
    bucket[best] = hash >> 32 << 32 | (slot + 1);
}

/* Positions in the have-list by key. Keys come from the peer: no search looks at more than FAR places. */
enum { FAR = 64 };

typedef struct {
    const uint8_t *keys;
    uint64_t *places; /* upper half of the key's second word, index + 1 */
    size_t mask;
    uint32_t count;
} Have;

static void have_words(const uint8_t *key, size_t mask, size_t *at, uint64_t *tag) {
    uint64_t first, second;
    memcpy(&first, key, 8);
    memcpy(&second, key + 8, 8);
    *at = (size_t)first & mask;
    *tag = second >> 32 << 32;
}

static uint32_t have_find(const Have *have, const uint8_t *key) {
    size_t at;
    uint64_t tag;
    have_words(key, have->mask, &at, &tag);
    for (int i = 0; i < FAR; i++, at = (at + 1) & have->mask) {
        uint64_t place = have->places[at];
        if (!place) return NONE;
        if (place >> 32 == tag >> 32 && !memcmp(have->keys + ((size_t)(uint32_t)place - 1) * KEY_BYTES, key, KEY_BYTES))
            return (uint32_t)place - 1;
    }
    return NONE;
}

static int have_make(Have *have, const uint8_t *keys, uint32_t count) {
    have->keys = keys;
    have->count = count;
    have->mask = power_above(2 * (size_t)count) - 1;
    have->places = room((have->mask + 1) * 8);
    if (!have->places) return 0;
    for (uint32_t index = 0; index < count; index++) {
        const uint8_t *key = keys + (size_t)index * KEY_BYTES;
        size_t at;
        uint64_t tag;
        have_words(key, have->mask, &at, &tag);
        for (int i = 0; i < FAR; i++, at = (at + 1) & have->mask) {
            uint64_t place = have->places[at];
            if (place && place >> 32 == tag >> 32 &&
                !memcmp(keys + ((size_t)(uint32_t)place - 1) * KEY_BYTES, key, KEY_BYTES))
                break;
            if (!place) {
                have->places[at] = tag | (index + 1);
                break;
            }
        }
    }
    return 1;
}

static void have_free(Have *have) { no_room(have->places, (have->mask + 1) * 8); }

/* An earlier visit, read only. */
typedef struct {
    const uint8_t *pages, *keys;
    uint32_t slots, names_count;
    uint8_t root[KEY_BYTES];
    Name *names;
    Map map;
} Visit;

static uint32_t visit_block(const Visit *visit, const Name *name) {
    for (uint32_t i = 0; i < visit->names_count; i++)
        if (same_name(visit->names + i, name->text, name->size)) return i;
    return NONE;
}

INLINE const uint8_t *visit_page(const Visit *visit, uint32_t slot) { return visit->pages + (size_t)slot * PAGE; }

INLINE const uint8_t *visit_key(const Visit *visit, uint32_t slot) { return visit->keys + (size_t)slot * KEY_BYTES; }
