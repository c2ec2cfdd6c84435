/* The decoder: nothing in the tokens is believed. The rules are those of walk.py and pages_py.py. */

typedef struct {
    Slab *slab;
    Cursor cursor;
    Tally tally;
    const Visit *base;
    uint32_t base_block;
    /* of one call */
    const uint8_t *control, *control_end, *operand, *operand_end, *data, *data_end, *supply, *supply_end;
    uint8_t *out, *out_end;
    const char *error;
    Bytes refs, bases;
    int dry; /* only what must be supplied is wanted: no page is looked at, nothing changes */
} Decoder;

#define FAIL(text)                                                                                                     \
    do {                                                                                                               \
        d->error = text;                                                                                               \
        return 0;                                                                                                      \
    } while (0)

static int get_number(Decoder *d, const uint8_t **p, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (int shift = 0; *p < end && shift < 42; shift += 7) {
        uint8_t byte = *(*p)++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return 1;
    }
    FAIL("a number does not end");
}

static int control_number(Decoder *d, uint64_t *value) { return get_number(d, &d->control, d->control_end, value); }
static int operand(Decoder *d, uint64_t *value) { return get_number(d, &d->operand, d->operand_end, value); }

static const uint8_t *take_data(Decoder *d, uint64_t size) {
    if (size > (uint64_t)(d->data_end - d->data)) FAIL("the data ends too early");
    d->data += size;
    return d->data - size;
}

/* A place for `size` raw bytes. */
static uint8_t *take_out(Decoder *d, uint64_t size) {
    if (size > (uint64_t)(d->out_end - d->out)) FAIL("the tokens stand for more raw bytes than there is room for");
    d->out += size;
    return d->out - size;
}

static const uint8_t *take_supply(Decoder *d) {
    if (d->supply_end - d->supply < PAGE) FAIL("fewer pages were supplied than the tokens ask for");
    d->supply += PAGE;
    return d->supply - PAGE;
}

/* A slot or an index: `last` is where a run would go on. */
static int take_place(Decoder *d, int64_t *last, uint64_t limit, uint32_t *place) {
    uint64_t value;
    if (!operand(d, &value)) return 0;
    int64_t found = *last + unzigzag(value);
    if (found < 0 || (uint64_t)found >= limit) FAIL("a slot or an index that does not exist");
    *last = found + 1;
    *place = (uint32_t)found;
    return 1;
}

/* Reads a delta, and writes its words over `page` unless that is NULL. */
static int take_delta(Decoder *d, uint8_t *page) {
    uint64_t runs, skip, count, at = 0;
    if (!operand(d, &runs)) return 0;
    if (runs < 1 || runs > 256) FAIL("a delta of no run or of too many");
    while (runs--) {
        if (!operand(d, &skip) || !operand(d, &count)) return 0;
        if (skip > 511 || count > 511 || at + skip + count + 1 > 512) FAIL("a delta leaves its page");
        const uint8_t *words = take_data(d, (count + 1) * 8);
        if (!words) return 0;
        if (page) memcpy(page + (at + skip) * 8, words, (count + 1) * 8);
        at += skip + count + 1;
    }
    return 1;
}

static int take_base_slot(Decoder *d, uint64_t number, uint32_t *slot) {
    if (!d->base || !d->cursor.has_root || memcmp(d->cursor.root, d->base->root, KEY_BYTES))
        FAIL("the encoder has a base that we have not");
    *slot = d->base_block == NONE ? NONE : map_get(&d->base->map, d->base_block, number);
    if (*slot == NONE) FAIL("a page of the base that it does not have");
    return 1;
}

static int want(Decoder *d, uint32_t index, uint32_t slot) {
    if (!bytes_grow(&d->refs, 4) || !bytes_grow(&d->bases, 4)) FAIL("no memory");
    put_u32(&d->refs, index);
    put_u32(&d->bases, slot);
    return 1;
}

static int dry_page(Decoder *d, int op, uint64_t number) {
    uint32_t place;
    switch (op) {
    case DELTA:
        return take_delta(d, 0);
    case COPY:
        return take_place(d, &d->cursor.copied, d->slab->slots, &place);
    case KNOWN:
        return take_place(d, &d->cursor.known, NONE, &place) && want(d, place, NONE);
    default:
        if (!take_base_slot(d, number, &place) || !want(d, NONE, place)) return 0;
        return op == BASE || take_delta(d, 0);
    }
}

static int wet_page(Decoder *d, int op, int bare, uint64_t number) {
    Slab *slab = d->slab;
    uint32_t block = d->cursor.block, slot;
    const uint8_t *page;
    uint8_t *out;
    if (op == SPLIT) {
        slab_drop(slab, block, number);
        return 1;
    }
    if (!bare) {
        if (!(out = take_out(d, 8))) return 0;
        uint64_t word = __builtin_bswap64(number * PAGE | (op == ZERO_RECORD ? ZERO_WORD : PAGE_WORD));
        memcpy(out, &word, 8);
    }
    if (!(out = take_out(d, op == ZERO_RECORD ? 1 : PAGE))) return 0;
    switch (op) {
    case ZERO_RECORD:
    case ZERO_PAGE:
        memset(out, 0, op == ZERO_RECORD ? 1 : PAGE);
        slab_drop(slab, block, number);
        return 1;
    case SAME:
    case DELTA:
        if ((slot = slab_slot(slab, block, number)) == NONE) FAIL("a page like one that was never sent");
        page = slab_page(slab, slot);
        break;
    case COPY:
        if (!take_place(d, &d->cursor.copied, slab->slots, &slot)) return 0;
        if (!slab_live(slab, slot)) FAIL("a copy of an empty slot");
        page = slab_page(slab, slot);
        slab_share(slab, block, number, slot);
        break;
    case FRESH:
        page = take_data(d, PAGE);
        break;
    case KNOWN:
        page = take_place(d, &d->cursor.known, NONE, &slot) ? take_supply(d) : 0;
        break;
    default:
        page = take_base_slot(d, number, &slot) ? take_supply(d) : 0;
    }
    if (!page) return 0;
    memcpy(out, page, PAGE);
    if ((op == DELTA || op == BASE_DELTA) && !take_delta(d, out)) return 0;
    if (op != SAME && op != COPY) store_page(slab, block, number, out);
    return 1;
}

static int take_run(Decoder *d, uint8_t byte, int op) {
    uint64_t value, count = 1;
    int64_t number = d->cursor.next;
    if (byte & 0x80 || (op == SPLIT && byte & RUN)) FAIL("a control byte has flags that it cannot have");
    if (d->cursor.block >= d->slab->names_count) FAIL("a page before any block");
    if (byte & JUMP) {
        if (!control_number(d, &value)) return 0;
        number += unzigzag(value);
    }
    if (byte & RUN) {
        if (!control_number(d, &count)) return 0;
        count += 2;
    }
    if (number < 0 || (uint64_t)number + count - 1 > MAX_PAGE_NUMBER) FAIL("a page number out of range");
    d->cursor.next = number + (int64_t)count;
    if (!d->dry) {
        for (uint64_t i = 0; i < count; i++)
            if (!wet_page(d, op, byte & BARE, (uint64_t)number + i)) return 0;
        d->tally.by_op[op] += count;
        return 1;
    }
    if (op == FRESH) return take_data(d, count * PAGE) != 0;
    if (op == ZERO_RECORD || op == ZERO_PAGE || op == SAME || op == SPLIT) return 1;
    for (uint64_t i = 0; i < count; i++)
        if (!dry_page(d, op, (uint64_t)number + i)) return 0;
    return 1;
}

static void find_decoder_base_block(Decoder *d) {
    d->base_block = NONE;
    if (d->base && d->cursor.block < d->slab->names_count)
        d->base_block = visit_block(d->base, d->slab->names + d->cursor.block);
}

static int take_block(Decoder *d) {
    Slab *slab = d->slab;
    uint64_t id, size;
    if (!control_number(d, &id)) return 0;
    if (id > slab->names_count || id == MAX_BLOCKS) FAIL("a block that was not named");
    d->cursor.block = (uint32_t)id;
    if (id == slab->names_count) {
        if (!control_number(d, &size)) return 0;
        if (size < 1 || size > 255 || size > (uint64_t)(d->control_end - d->control)) FAIL("a block's name of a wrong length");
        slab->names[id].size = (uint8_t)size;
        memcpy(slab->names[id].text, d->control, size);
        slab->names_count++;
        d->control += size;
    }
    find_decoder_base_block(d);
    return 1;
}

static int take_state(Decoder *d, int op) {
    uint64_t value;
    switch (op) {
    case BLOCK:
        return take_block(d);
    case ROOT:
        if (d->control_end - d->control < KEY_BYTES) FAIL("the control bytes end too early");
        memcpy(d->cursor.root, d->control, KEY_BYTES);
        d->cursor.has_root = 1;
        d->control += KEY_BYTES;
        return 1;
    case SYNC:
        if (!control_number(d, &value)) return 0;
        d->cursor.lost = value != 0;
        return 1;
    case START:
        if (!control_number(d, &value)) return 0;
        if (value != VERSION) FAIL("tokens of another version");
        if (!control_number(d, &value)) return 0;
        if (value != d->slab->slots) FAIL("the encoder has another number of slots");
        d->cursor.started = 1;
        return 1;
    default:
        FAIL("a control byte that is not defined");
    }
}

/* Whether all went well; else `error` says why not. */
static int walk(Decoder *d, const uint8_t *tokens, size_t size) {
    if (size < HEADER || memcmp(tokens, magic, 4)) FAIL("this is no batch of tokens, or one of another version");
    uint64_t control = be32(tokens + 4), operands = be32(tokens + 8);
    if (control + operands > size - HEADER) FAIL("the parts are longer than the tokens");
    d->operand_end = tokens + size;
    d->operand = d->control_end = d->operand_end - operands;
    d->control = d->data_end = d->control_end - control;
    d->data = tokens + HEADER;
    find_decoder_base_block(d);
    while (d->control < d->control_end) {
        uint8_t byte = *d->control++;
        int op = byte & 15;
        if (op >= ZERO_RECORD && op <= SPLIT) {
            if (!d->cursor.started) FAIL("tokens that do not begin with a start");
            if (!take_run(d, byte, op)) return 0;
        } else if (byte != op) {
            FAIL("a control byte has flags that it cannot have");
        } else if (op == LITERAL) {
            uint64_t count;
            const uint8_t *data;
            uint8_t *out;
            if (!d->cursor.started) FAIL("tokens that do not begin with a start");
            if (!control_number(d, &count)) return 0;
            if (!count) FAIL("a length of zero");
            if (!(data = take_data(d, count))) return 0;
            if (d->dry) continue;
            if (!(out = take_out(d, count))) return 0;
            memcpy(out, data, count);
            d->tally.by_op[LITERAL] += count;
        } else if (!take_state(d, op))
            return 0;
    }
    if (d->data != d->data_end || d->operand != d->operand_end) FAIL("data or operands are left over");
    if (!d->dry && d->supply != d->supply_end) FAIL("more pages were supplied than the tokens ask for");
    return 1;
}

/* What must be supplied, into `refs` and `bases`; the decoder stays as it was. */
static int decoder_refs(Decoder *d, const uint8_t *tokens, size_t size) {
    Cursor cursor = d->cursor;
    uint32_t names = d->slab->names_count;
    d->refs.size = d->bases.size = 0;
    d->dry = 1;
    int well = bytes_grow(&d->refs, 4) && bytes_grow(&d->bases, 4) && walk(d, tokens, size);
    d->dry = 0;
    d->cursor = cursor;
    d->slab->names_count = names;
    return well;
}
