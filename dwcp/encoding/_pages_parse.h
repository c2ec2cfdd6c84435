/* Where the pages are in a stream. The rules are those of stream.py. */

enum { NEED_MORE = 0, DOUBT = -1, HEAD_BYTES = 1024 };
enum { DUE_NOTHING, DUE_PAGE, DUE_FILL };
enum { PRECOPY, POSTCOPY, DEVICE_STATE, FINAL };
enum {
    AT_MAGIC,
    AT_SECTION,
    AT_RECORD,
    AT_BLOCK_LIST,
    AT_BLOCK_EXTRA,
    AT_FOOTER,
    AT_DEVICE,
    AT_DOUBT,
    AT_REST,
    AT_NBD_FLAGS,
    AT_NBD_OPTIONS,
    AT_NBD_STARTED,
    AT_NBD_REQUESTS,
};
enum { PAGE_FLAG = 0x08, ZERO_FLAG = 0x02, LIST_FLAG = 0x04, EOS_FLAG = 0x10, CONTINUE_FLAG = 0x20, XBZRLE_FLAG = 0x40 };
#define MAX_PAGE_NUMBER 0xFFFFFFFFull

typedef struct {
    Name name;
    uint64_t pages;
    uint32_t id; /* in the slab's names, NONE before it is used */
} Block;

typedef struct {
    int at, due, lost, phase, has_ram;
    uint64_t skip, page, pages_in_block, unlisted, offset, payload;
    uint32_t section, ram, count;
    int block; /* place in `blocks`, -1: none */
    Block *blocks;
} Parser;

static int parser_make(Parser *p, int nbd) {
    p->blocks = room(MAX_BLOCKS * sizeof(Block));
    if (!p->blocks) return 0;
    p->block = -1;
    if (nbd) {
        p->at = AT_NBD_FLAGS;
        p->block = 0;
        p->count = 1;
        p->blocks[0].name.size = 4;
        p->blocks[0].id = NONE;
        memcpy(p->blocks[0].name.text, "disk", 4);
    }
    return 1;
}

static void parser_free(Parser *p) { no_room(p->blocks, MAX_BLOCKS * sizeof(Block)); }

INLINE uint64_t be64(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return __builtin_bswap64(word);
}

INLINE uint32_t be32(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    return __builtin_bswap32(word);
}

INLINE uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }

static ssize_t doubt(Parser *p) {
    p->lost = 1;
    p->at = AT_DOUBT;
    return DOUBT;
}

static int find_block(const Parser *p, const uint8_t *text, size_t size) {
    for (uint32_t i = 0; i < p->count; i++)
        if (same_name(&p->blocks[i].name, text, size)) return (int)i;
    return -1;
}

static ssize_t step_section(Parser *p, const uint8_t *b, size_t left) {
    static const uint8_t ram_start[12] = {3, 'r', 'a', 'm', 0, 0, 0, 0, 0, 0, 0, 4};
    uint8_t kind = b[0];
    if (kind == 0) {
        p->at = AT_REST;
        return 1;
    }
    if (left < 5) return NEED_MORE;
    uint32_t number = be32(b + 1);
    if (kind == 6 || kind == 7) {
        p->skip = number;
        return 5;
    }
    if (kind == 8) {
        uint32_t command = be16(b + 1);
        if (command < 1 || command > 15) return doubt(p);
        if (command == 4 || command == 5 || command == 7) p->phase = POSTCOPY;
        if (command != 7) {
            p->skip = be16(b + 3);
            return 5;
        }
        if (left < 9) return NEED_MORE;
        p->skip = be32(b + 5);
        return 9;
    }
    if (kind == 2 || kind == 3) {
        p->section = number;
        p->at = AT_DEVICE;
        if (p->has_ram && number == p->ram) {
            if (kind == 3 && p->phase == PRECOPY) p->phase = FINAL;
            p->at = AT_RECORD;
        }
        return 5;
    }
    if (kind == 5 && !p->has_ram) {
        p->at = AT_DEVICE;
        return 1;
    }
    if (kind != 1 && kind != 4) return doubt(p);
    if (left < 6 || left < 14u + b[5]) return NEED_MORE;
    p->section = number;
    p->at = AT_DEVICE;
    if (kind == 1 && b[5] == 3 && !memcmp(b + 5, ram_start, 12)) {
        p->ram = number;
        p->has_ram = 1;
        p->at = AT_RECORD;
    } else if (kind == 4 && p->phase != POSTCOPY)
        p->phase = DEVICE_STATE;
    return 14 + b[5];
}

static ssize_t step_record(Parser *p, const uint8_t *b, size_t left) {
    if (left < 8) return NEED_MORE;
    uint64_t word = be64(b), page = word / PAGE, pages = p->pages_in_block;
    uint32_t flags = word % PAGE, kind = flags & ~(uint32_t)CONTINUE_FLAG;
    size_t size = 8;
    int block = p->block;
    if (flags == EOS_FLAG) {
        if (page) return doubt(p);
        if (p->phase == FINAL) p->phase = DEVICE_STATE;
        p->at = AT_FOOTER;
        return 8;
    }
    if (flags == LIST_FLAG) {
        if (p->count) return doubt(p);
        p->unlisted = page * PAGE;
        p->at = page ? AT_BLOCK_LIST : AT_RECORD;
        return 8;
    }
    if (flags == 0x80 || flags == 0x200) return 8;
    if (kind != PAGE_FLAG && kind != ZERO_FLAG && kind != XBZRLE_FLAG) return doubt(p);
    if (!(flags & CONTINUE_FLAG)) {
        if (left < 9 || left < 9u + b[8]) return NEED_MORE;
        size = 9u + b[8];
        block = find_block(p, b + 9, b[8]);
        pages = block < 0 ? 0 : p->blocks[block].pages;
    }
    if (page >= pages) return doubt(p);
    if (kind == XBZRLE_FLAG) {
        if (left < size + 3) return NEED_MORE;
        if (b[size] != 1 || be16(b + size + 1) > PAGE) return doubt(p);
        p->skip = be16(b + size + 1);
        size += 3;
    } else
        p->due = kind == PAGE_FLAG ? DUE_PAGE : DUE_FILL;
    p->block = block;
    p->pages_in_block = pages;
    p->page = page;
    return (ssize_t)size;
}

static ssize_t step_block_list(Parser *p, const uint8_t *b, size_t left) {
    size_t size = 9u + b[0];
    if (left < size) return NEED_MORE;
    uint64_t length = be64(b + size - 8);
    int fits = b[0] > 0 && length <= p->unlisted && length % PAGE == 0 && length / PAGE <= MAX_PAGE_NUMBER &&
               p->count < MAX_BLOCKS && find_block(p, b + 1, b[0]) < 0;
    for (size_t i = 1; fits && i <= b[0]; i++) fits = b[i] >= 33 && b[i] <= 126;
    if (!fits) return doubt(p);
    Block *block = p->blocks + p->count++;
    block->name.size = b[0];
    memcpy(block->name.text, b + 1, b[0]);
    block->pages = length / PAGE;
    block->id = NONE;
    p->unlisted -= length;
    p->at = AT_BLOCK_EXTRA;
    return (ssize_t)size;
}

/* Whether RAM goes on at `b`, where a footer or a start may be: 1 yes, 0 no, -1: more bytes are needed to say. */
static int certain(const Parser *p, const uint8_t *b, size_t left) {
    static const uint8_t ram_start[12] = {3, 'r', 'a', 'm', 0, 0, 0, 0, 0, 0, 0, 4};
    if (!p->has_ram) {
        size_t size = left < 5 ? 0 : left - 5 < 12 ? left - 5 : 12;
        if (size && memcmp(b + 5, ram_start, size)) return 0;
        return size == 12 ? 1 : -1;
    }
    uint8_t part[5] = {left > 5 && b[5] == 3 ? 3 : 2, p->ram >> 24, p->ram >> 16 & 255, p->ram >> 8 & 255, p->ram & 255};
    size_t size = left < 5 ? 0 : left - 5 < 5 ? left - 5 : 5;
    if (size && memcmp(b + 5, part, size)) return 0;
    if (left < 18) return -1;
    uint64_t word = be64(b + 10), page = word / PAGE;
    uint32_t flags = word % PAGE;
    if (flags == PAGE_FLAG || flags == ZERO_FLAG) {
        if (left < 19 || left < 19u + b[18]) return -1;
        int block = find_block(p, b + 19, b[18]);
        return block >= 0 && page < p->blocks[block].pages;
    }
    if (flags == (PAGE_FLAG | CONTINUE_FLAG) || flags == (ZERO_FLAG | CONTINUE_FLAG)) return page < p->pages_in_block;
    return word == EOS_FLAG;
}

static ssize_t step(Parser *p, const uint8_t *b, size_t left);

static ssize_t step_search(Parser *p, const uint8_t *b, size_t left) {
    if (!p->has_ram && p->at == AT_DOUBT) {
        p->at = AT_REST;
        return (ssize_t)left;
    }
    const uint8_t *place = b, *end = b + left;
    int wanted = p->has_ram ? 0x7E : 0x01;
    while (place < end && (place = memchr(place, wanted, (size_t)(end - place)))) {
        int verdict = certain(p, place, (size_t)(end - place));
        if (verdict < 0) return place - b;
        if (verdict) {
            p->lost = 0;
            p->at = AT_SECTION;
            if (p->has_ram) return place - b + 5;
            return place > b ? place - b : step(p, b, left);
        }
        place++;
    }
    return (ssize_t)left;
}

/* A whole block of the disk at a multiple of its size is a page. */
static void nbd_look(Parser *p) {
    if (p->payload >= PAGE && p->offset % PAGE == 0 && p->offset / PAGE <= MAX_PAGE_NUMBER) {
        p->due = DUE_PAGE;
        p->page = p->offset / PAGE;
    }
}

static uint64_t nbd_edge(Parser *p) {
    uint64_t edge = p->payload;
    if (p->offset / PAGE <= MAX_PAGE_NUMBER) {
        uint64_t to_block = -p->offset % PAGE;
        if (to_block && to_block < edge) edge = to_block;
    }
    p->offset += edge;
    p->payload -= edge;
    return edge;
}

static ssize_t step_nbd(Parser *p, const uint8_t *b, size_t left) {
    if (p->at == AT_NBD_FLAGS) {
        if (left < 4) return NEED_MORE;
        p->at = AT_NBD_OPTIONS;
        return 4;
    }
    if (left < 16) return NEED_MORE;
    if (p->at != AT_NBD_REQUESTS && be64(b) == 0x49484156454F5054ull) {
        uint32_t option = be32(b + 8);
        if (option == 1 || option == 7) p->at = AT_NBD_STARTED;
        p->skip = be32(b + 12);
        return 16;
    }
    size_t size = be32(b) == 0x25609513 ? 28 : be32(b) == 0x21E41C71 ? 32 : 0;
    if (p->at == AT_NBD_OPTIONS || !size) {
        p->lost = 1;
        p->at = AT_REST;
        return (ssize_t)left;
    }
    if (left < size) return NEED_MORE;
    p->at = AT_NBD_REQUESTS;
    uint64_t length = size == 28 ? be32(b + 24) : be64(b + 24);
    if (be16(b + 6) == 1) {
        p->offset = be64(b + 16);
        p->payload = length;
        nbd_look(p);
    } else if (size == 32 && be16(b + 4) & 0x20)
        p->skip = length;
    return (ssize_t)size;
}

/* Bytes of structure at `b`; 0: more are needed to say. Not to be called while something is due. */
static ssize_t step(Parser *p, const uint8_t *b, size_t left) {
    ssize_t taken;
    if (p->payload && !p->skip) p->skip = nbd_edge(p);
    if (p->skip) {
        size_t take = p->skip < left ? (size_t)p->skip : left;
        p->skip -= take;
        if (!p->skip) nbd_look(p);
        return (ssize_t)take;
    }
    switch (p->at) {
    case AT_MAGIC:
        if (left < 8) return NEED_MORE;
        if (!memcmp(b, "QEVM\0\0\0\3", 8)) {
            p->at = AT_SECTION;
            return 8;
        }
        p->lost = 1;
        p->at = AT_REST;
        return (ssize_t)left;
    case AT_RECORD:
        taken = step_record(p, b, left);
        break;
    case AT_SECTION:
        taken = step_section(p, b, left);
        break;
    case AT_FOOTER:
        if (b[0] != 0x7E) { /* older machine types have none */
            p->at = AT_SECTION;
            return step(p, b, left);
        }
        if (left < 5) return NEED_MORE;
        if (be32(b + 1) == p->section) {
            p->at = AT_SECTION;
            return 5;
        }
        taken = doubt(p);
        break;
    case AT_BLOCK_LIST:
        taken = step_block_list(p, b, left);
        break;
    case AT_BLOCK_EXTRA: {
        if (left < 8) return NEED_MORE;
        uint64_t word = be64(b);
        p->at = p->unlisted ? AT_BLOCK_LIST : AT_RECORD;
        if (word > PAGE && word < 1ull << 48 && !(word & (word - 1))) return 8;
        return step(p, b, left);
    }
    case AT_DEVICE:
    case AT_DOUBT:
        return step_search(p, b, left);
    case AT_REST:
        return (ssize_t)left;
    default:
        return step_nbd(p, b, left);
    }
    return taken == DOUBT ? step_search(p, b, left) : taken;
}

/* What was due has been taken. */
static void parser_done(Parser *p) {
    p->due = DUE_NOTHING;
    if (p->payload) {
        p->offset += PAGE;
        p->payload -= PAGE;
        nbd_look(p);
    }
}
