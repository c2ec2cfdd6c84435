/* Tokens of docs/dwcp-pages.md: the encoder's ladder, and the decoder. The rules are those of pages_py.py and walk.py. */
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { LITERAL, BLOCK, ZERO_RECORD, ZERO_PAGE, SAME, DELTA, COPY, KNOWN, BASE, BASE_DELTA, FRESH, SPLIT, ROOT, SYNC, START };
enum { BARE = 0x10, JUMP = 0x20, RUN = 0x40 };
enum { HEADER = 12, VERSION = 1, DELTA_LIMIT = 1400, DELTA_RUNS = DELTA_LIMIT / 12 + 1, PAGE_WORD = 0x28, ZERO_WORD = 0x22 };
static const uint8_t magic[4] = {'P', 'T', 0, VERSION};

typedef struct {
    uint8_t *p;
    size_t size, room;
} Bytes;

/* Room for `more` bytes; 0 when there is no memory. */
static int bytes_grow(Bytes *b, size_t more) {
    if (b->room - b->size >= more) return 1;
    size_t room = 2 * (b->size + more) + 4096;
    uint8_t *p = realloc(b->p, room);
    if (!p) return 0;
    b->p = p;
    b->room = room;
    return 1;
}

INLINE void put_byte(Bytes *b, uint8_t byte) { b->p[b->size++] = byte; }

INLINE void put_number(Bytes *b, uint64_t value) {
    for (; value > 127; value >>= 7) put_byte(b, (uint8_t)(value & 127) | 128);
    put_byte(b, (uint8_t)value);
}

INLINE void put_u32(Bytes *b, uint32_t value) {
    memcpy(b->p + b->size, &value, 4);
    b->size += 4;
}

INLINE uint64_t zigzag(int64_t value) { return value >= 0 ? (uint64_t)value << 1 : ((uint64_t)-value << 1) - 1; }
INLINE int64_t unzigzag(uint64_t value) { return value & 1 ? -(int64_t)((value + 1) >> 1) : (int64_t)(value >> 1); }

typedef struct {
    uint32_t block;
    int64_t next, copied, known;
    uint8_t root[KEY_BYTES];
    int has_root, started, lost;
} Cursor;

typedef struct {
    uint64_t by_op[16]; /* pages; LITERAL: bytes */
} Tally;

typedef struct {
    Slab *slab;
    Parser parser;
    Cursor cursor;
    Tally tally;
    Seen seen;
    const Visit *base;
    const Have *have;
    uint32_t base_block;
    const uint8_t *ahead; /* a page whose key was computed beside that of the one before it */
    uint8_t ahead_key[KEY_BYTES];
    uint8_t carry[HEAD_BYTES];
    size_t carried;
    /* of one call */
    const uint8_t *raw;
    size_t end, at, literal_from;
    uint8_t *out;
    size_t data;
    Bytes control, operands, refs, bases;
    int run_op, run_bare;
    uint64_t run_page, run_count; /* count 0: no run */
    int no_memory;
} Encoder;

static void end_run(Encoder *e) {
    if (!e->run_count) return;
    int64_t jump = (int64_t)e->run_page - e->cursor.next;
    e->tally.by_op[e->run_op] += e->run_count;
    put_byte(&e->control, (uint8_t)(e->run_op | (e->run_bare ? BARE : 0) | (jump ? JUMP : 0) | (e->run_count > 1 ? RUN : 0)));
    if (jump) put_number(&e->control, zigzag(jump));
    if (e->run_count > 1) put_number(&e->control, e->run_count - 2);
    e->cursor.next = (int64_t)(e->run_page + e->run_count);
    e->run_count = 0;
}

static void put_data(Encoder *e, const uint8_t *p, size_t size) {
    if (size) memcpy(e->out + e->data, p, size);
    e->data += size;
}

static void end_literal(Encoder *e) {
    size_t size = e->at - e->literal_from;
    if (!size) return;
    end_run(e);
    put_byte(&e->control, LITERAL);
    put_number(&e->control, size);
    put_data(e, e->raw + e->literal_from, size);
    e->tally.by_op[LITERAL] += size;
    e->literal_from = e->at;
}

static void find_base_block(Encoder *e) {
    e->base_block = NONE;
    if (e->base && e->cursor.block < e->slab->names_count)
        e->base_block = visit_block(e->base, e->slab->names + e->cursor.block);
}

static void enter_block(Encoder *e) {
    Block *block = e->parser.blocks + e->parser.block;
    Slab *slab = e->slab;
    if (block->id == e->cursor.block && block->id != NONE) return;
    end_run(e);
    put_byte(&e->control, BLOCK);
    if (block->id == NONE) {
        block->id = slab->names_count;
        slab->names[slab->names_count++] = block->name;
        put_number(&e->control, block->id);
        put_number(&e->control, block->name.size);
        memcpy(e->control.p + e->control.size, block->name.text, block->name.size);
        e->control.size += block->name.size;
    } else
        put_number(&e->control, block->id);
    e->cursor.block = block->id;
    find_base_block(e);
}

/* Says what the page is: one more of the run, or the first of the next. */
static void open_page(Encoder *e, int op, int bare, uint64_t page) {
    if (e->run_count && e->run_op == op && e->run_bare == bare && e->run_page + e->run_count == page) {
        e->run_count++;
        return;
    }
    end_run(e);
    e->run_op = op;
    e->run_bare = bare;
    e->run_page = page;
    e->run_count = 1;
}

/* Ends what came before the page; makes room for all that one page may add. */
static int before_page(Encoder *e) {
    if (!bytes_grow(&e->control, 512) || !bytes_grow(&e->operands, 2048) || !bytes_grow(&e->refs, 4) ||
        !bytes_grow(&e->bases, 4)) {
        e->no_memory = 1;
        return 0;
    }
    end_literal(e);
    enter_block(e);
    return 1;
}

typedef struct {
    uint16_t first[DELTA_RUNS], past[DELTA_RUNS];
    int count;
} Delta;

/* Words in which two pages differ; 0 where that is too much. No runs: the pages are equal. */
static int find_delta(Delta *delta, const uint8_t *before, const uint8_t *after) {
    uint64_t a[8], b[8];
    int runs = 0, cost = 0, past = -1;
    for (int line = 0; line < 512; line += 8) {
        memcpy(a, before + line * 8, 64);
        memcpy(b, after + line * 8, 64);
        uint64_t differs = 0;
        for (int i = 0; i < 8; i++) differs |= a[i] ^ b[i];
        if (!differs) continue;
        for (int i = 0; i < 8; i++) {
            if (a[i] == b[i]) continue;
            cost += line + i == past ? 8 : 12;
            if (cost > DELTA_LIMIT) return 0;
            if (line + i != past) delta->first[runs++] = (uint16_t)(line + i);
            past = line + i + 1;
            delta->past[runs - 1] = (uint16_t)past;
        }
    }
    delta->count = runs;
    return 1;
}

static void put_delta(Encoder *e, const Delta *delta, const uint8_t *page) {
    int at = 0;
    put_number(&e->operands, (uint64_t)delta->count);
    for (int i = 0; i < delta->count; i++) {
        put_number(&e->operands, (uint64_t)(delta->first[i] - at));
        put_number(&e->operands, (uint64_t)(delta->past[i] - delta->first[i] - 1));
        put_data(e, page + delta->first[i] * 8, (size_t)(delta->past[i] - delta->first[i]) * 8);
        at = delta->past[i];
    }
}

static uint32_t store_page(Slab *slab, uint32_t block, uint64_t number, const uint8_t *page) {
    uint32_t slot = slab_store(slab, block, number);
    if (slot != NONE) memcpy(slab_page(slab, slot), page, PAGE);
    return slot;
}

static void refer(Encoder *e, const uint8_t *page, uint32_t slot) {
    put_u32(&e->refs, (uint32_t)(page - e->raw));
    put_u32(&e->bases, slot);
}

/* The key of a page, at the price of two: `next`, if not NULL, is likely to be asked for next. */
static void key_of(Encoder *e, const uint8_t *page, const uint8_t *next, uint8_t *key) {
    if (page == e->ahead) {
        memcpy(key, e->ahead_key, KEY_BYTES);
        e->ahead = 0;
        return;
    }
    two_page_keys(page, next ? next : page, key, e->ahead_key);
    e->ahead = next;
}

static const uint8_t *next_in_base(const Encoder *e, uint64_t number) {
    uint32_t slot = number < MAX_PAGE_NUMBER ? map_get(&e->base->map, e->base_block, number + 1) : NONE;
    return slot == NONE ? 0 : visit_page(e->base, slot);
}

static const uint8_t *next_in_raw(const Encoder *e, int bare, const uint8_t *page) {
    size_t at = (size_t)(page - e->raw) + PAGE;
    if (bare) return e->parser.payload >= 2 * PAGE && at + PAGE <= e->end ? e->raw + at : 0;
    return at + 8 + PAGE <= e->end && be64(e->raw + at) % PAGE == PAGE_WORD ? e->raw + at + 8 : 0;
}

static int try_base(Encoder *e, int bare, uint64_t number, const uint8_t *page) {
    uint32_t slot = e->base_block == NONE ? NONE : map_get(&e->base->map, e->base_block, number);
    uint8_t key[KEY_BYTES];
    Delta delta;
    if (slot == NONE || !find_delta(&delta, visit_page(e->base, slot), page)) return 0;
    key_of(e, visit_page(e->base, slot), next_in_base(e, number), key);
    if (memcmp(key, visit_key(e->base, slot), KEY_BYTES)) return 0;
    if (!e->cursor.has_root) {
        end_run(e);
        put_byte(&e->control, ROOT);
        memcpy(e->control.p + e->control.size, e->base->root, KEY_BYTES);
        e->control.size += KEY_BYTES;
        e->cursor.has_root = 1;
    }
    open_page(e, delta.count ? BASE_DELTA : BASE, bare, number);
    if (delta.count) put_delta(e, &delta, page);
    refer(e, page, slot);
    slot = store_page(e->slab, e->cursor.block, number, page);
    if (!delta.count && slot != NONE) seen_put(&e->seen, e->slab, XXH3_64bits(page, PAGE), slot);
    return 1;
}

/* The ladder, cheapest first. */
static void climb(Encoder *e, int bare, uint64_t number, const uint8_t *page) {
    Slab *slab = e->slab;
    uint32_t block = e->cursor.block, slot = slab_slot(slab, block, number);
    Delta delta;
    if (slot != NONE && find_delta(&delta, slab_page(slab, slot), page)) {
        open_page(e, delta.count ? DELTA : SAME, bare, number);
        if (delta.count) {
            put_delta(e, &delta, page);
            store_page(slab, block, number, page);
        }
        return;
    }
    if (e->base && try_base(e, bare, number, page)) return;
    uint64_t hash = XXH3_64bits(page, PAGE);
    slot = seen_find(&e->seen, slab, hash, page);
    if (slot != NONE) {
        open_page(e, COPY, bare, number);
        put_number(&e->operands, zigzag((int64_t)slot - e->cursor.copied));
        e->cursor.copied = (int64_t)slot + 1;
        slab_share(slab, block, number, slot);
        return;
    }
    uint32_t index = NONE;
    if (e->have && e->have->count) {
        uint8_t key[KEY_BYTES];
        key_of(e, page, next_in_raw(e, bare, page), key);
        index = have_find(e->have, key);
    }
    if (index != NONE) {
        open_page(e, KNOWN, bare, number);
        put_number(&e->operands, zigzag((int64_t)index - e->cursor.known));
        e->cursor.known = (int64_t)index + 1;
        refer(e, page, NONE);
    } else {
        open_page(e, FRESH, bare, number);
        put_data(e, page, PAGE);
    }
    slot = store_page(slab, block, number, page);
    if (slot != NONE) seen_put(&e->seen, slab, hash, slot);
}

static int is_zero(const uint8_t *page) {
    uint64_t word;
    memcpy(&word, page, 8);
    return !word && !memcmp(page, page + 8, PAGE - 8);
}

static void take_zero(Encoder *e, int op, int bare, uint64_t number, size_t size) {
    open_page(e, op, bare, number);
    slab_drop(e->slab, e->cursor.block, number);
    e->at += size;
    e->literal_from = e->at;
}

static void take_page(Encoder *e, int bare, uint64_t number, size_t header) {
    const uint8_t *page = e->raw + e->at + header;
    if (is_zero(page)) {
        take_zero(e, ZERO_PAGE, bare, number, header + PAGE);
        return;
    }
    climb(e, bare, number, page);
    e->at += header + PAGE;
    e->literal_from = e->at;
}

/* Records that continue in the same block; whether there was any. */
static int take_records(Encoder *e) {
    size_t first = e->at;
    while (e->at + 9 <= e->end) {
        uint64_t word = be64(e->raw + e->at), number = word / PAGE;
        uint32_t flags = word % PAGE;
        if (number >= e->parser.pages_in_block) break;
        if (flags == PAGE_WORD) {
            if (e->at + 8 + PAGE > e->end || !before_page(e)) break;
            take_page(e, 0, number, 8);
        } else if (flags == ZERO_WORD && !e->raw[e->at + 8] && before_page(e))
            take_zero(e, ZERO_RECORD, 0, number, 9);
        else
            break;
    }
    return e->at > first;
}

static int take_due(Encoder *e, int flush) {
    size_t left = e->end - e->at;
    if (e->parser.due == DUE_FILL) {
        if (!e->raw[e->at] && before_page(e))
            take_zero(e, ZERO_RECORD, 1, e->parser.page, 1);
        else
            e->at++;
        parser_done(&e->parser);
        return 1;
    }
    if (left < PAGE && !flush) return 0;
    int fits = before_page(e);
    if (left >= PAGE && fits) {
        take_page(e, 1, e->parser.page, 0);
        parser_done(&e->parser);
        return 1;
    }
    if (fits) {
        open_page(e, SPLIT, 1, e->parser.page);
        slab_drop(e->slab, e->cursor.block, e->parser.page);
    }
    size_t take = left < PAGE ? left : PAGE;
    e->at += take;
    parser_done(&e->parser);
    /* Not while more is due: the rest of this page comes first. */
    e->parser.skip = PAGE - take;
    return 1;
}

/* Goes on with a head whose first bytes have been sent; what is left of it goes as a literal too. */
static int take_carried(Encoder *e) {
    uint8_t joined[2 * HEAD_BYTES];
    size_t more = e->end - e->at < HEAD_BYTES ? e->end - e->at : HEAD_BYTES, place = 0;
    memcpy(joined, e->carry, e->carried);
    memcpy(joined + e->carried, e->raw + e->at, more);
    while (place < e->carried) {
        ssize_t taken = step(&e->parser, joined + place, e->carried + more - place);
        if (!taken) {
            memmove(e->carry, e->carry + place, e->carried - place);
            e->carried -= place;
            return 0;
        }
        place += (size_t)taken;
    }
    e->at += place - e->carried;
    e->carried = 0;
    return 1;
}

static void parse(Encoder *e, int flush) {
    while (e->at < e->end && !e->no_memory) {
        int more;
        if (e->carried)
            more = take_carried(e);
        else if (e->parser.due && !e->parser.skip)
            more = take_due(e, flush);
        else if (e->parser.at == AT_RECORD && !e->parser.skip && take_records(e))
            more = 1;
        else {
            ssize_t taken = step(&e->parser, e->raw + e->at, e->end - e->at);
            e->at += (size_t)taken;
            more = taken > 0;
        }
        if (more) continue;
        if (!flush) return;
        if (e->carried + (e->end - e->at) > HEAD_BYTES) { /* no head is as long as that */
            e->no_memory = 1;
            return;
        }
        memcpy(e->carry + e->carried, e->raw + e->at, e->end - e->at);
        e->carried += e->end - e->at;
        e->at = e->end;
    }
}

/* Tokens of raw[:e->at] in `out`; their size, 0 when nothing was consumed or there is no memory. */
static size_t encode(Encoder *e, const uint8_t *raw, size_t size, uint8_t *out, int flush) {
    e->raw = raw;
    e->end = size;
    e->at = e->literal_from = 0;
    e->out = out;
    e->ahead = 0;
    e->data = HEADER;
    e->control.size = e->operands.size = e->refs.size = e->bases.size = 0;
    e->run_count = 0;
    e->no_memory = !bytes_grow(&e->control, 64);
    if (!e->no_memory && !e->cursor.started && size) {
        put_byte(&e->control, START);
        put_number(&e->control, VERSION);
        put_number(&e->control, e->slab->slots);
    }
    parse(e, flush);
    if (e->no_memory || !bytes_grow(&e->control, 64)) {
        e->no_memory = 1;
        return 0;
    }
    if (!e->at) return 0;
    e->cursor.started = 1;
    end_literal(e);
    end_run(e);
    if (e->parser.lost != e->cursor.lost) {
        e->cursor.lost = e->parser.lost;
        put_byte(&e->control, SYNC);
        put_byte(&e->control, (uint8_t)e->cursor.lost);
    }
    uint32_t lengths[2] = {__builtin_bswap32((uint32_t)e->control.size), __builtin_bswap32((uint32_t)e->operands.size)};
    memcpy(out, magic, 4);
    memcpy(out + 4, lengths, 8);
    put_data(e, e->control.p, e->control.size);
    put_data(e, e->operands.p, e->operands.size);
    return e->data;
}
