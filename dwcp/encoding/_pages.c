/* The page stage in C: the names and the behaviour of pages_py.py, without the GIL. Each header has one idea:
 * _pages_blake3.h keys of pages, _pages_slab.h what is remembered, _pages_parse.h where the pages are,
 * _pages_tokens.h the encoder, _pages_decode.h the decoder. Here is only what Python sees. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little-endian machines only; the pure-Python twin serves others"
#endif

#include "_pages_blake3.h"
#include "_pages_slab.h"
#include "_pages_parse.h"
#include "_pages_tokens.h"
#include "_pages_decode.h"

static PyObject *Contents, *Counts, *Phases; /* of dwcp.encoding.tokens */

typedef struct {
    PyObject_HEAD
    Slab slab;
    Py_buffer pages;
    int taken, busy;
} MemoryObject;

typedef struct {
    PyObject_HEAD
    Visit visit;
    Py_buffer pages;
    PyObject *keys;
} BaseObject;

typedef struct {
    PyObject_HEAD
    Have have;
    PyObject *keys;
} HaveObject;

typedef struct {
    PyObject_HEAD
    Encoder encoder;
    MemoryObject *memory;
} EncoderObject;

typedef struct {
    PyObject_HEAD
    Decoder decoder;
    MemoryObject *memory;
} DecoderObject;

static PyTypeObject MemoryType, BaseType, HaveType, EncoderType, DecoderType;

/* Between these two the GIL may be released: one call at a time works on a memory. */
static int begin(MemoryObject *memory) {
    if (memory->busy) {
        PyErr_SetString(PyExc_RuntimeError, "two threads at once use one page memory; give each flow its own");
        return 0;
    }
    memory->busy = 1;
    return 1;
}

static PyObject *keys_of(const uint8_t *pages, size_t count) {
    PyObject *keys = PyBytes_FromStringAndSize(0, (Py_ssize_t)(count * KEY_BYTES));
    if (!keys) return 0;
    uint8_t *key = (uint8_t *)PyBytes_AS_STRING(keys);
    Py_BEGIN_ALLOW_THREADS
    for (size_t i = 0; i + 1 < count; i += 2)
        two_page_keys(pages + i * PAGE, pages + i * PAGE + PAGE, key + i * KEY_BYTES, key + (i + 1) * KEY_BYTES);
    if (count % 2) page_key(pages + (count - 1) * PAGE, key + (count - 1) * KEY_BYTES);
    Py_END_ALLOW_THREADS
    return keys;
}

static PyObject *page_keys(PyObject *self, PyObject *arg) {
    Py_buffer pages;
    if (PyObject_GetBuffer(arg, &pages, PyBUF_SIMPLE)) return 0;
    PyObject *keys = 0;
    if (pages.len % PAGE)
        PyErr_Format(PyExc_ValueError, "pages of %zd bytes are no multiple of %d", pages.len, PAGE);
    else
        keys = keys_of(pages.buf, (size_t)pages.len / PAGE);
    PyBuffer_Release(&pages);
    return keys;
}

/* ---- Memory */

static int Memory_init(MemoryObject *self, PyObject *args, PyObject *names) {
    unsigned slots;
    PyObject *slab;
    if (self->slab.names) {
        PyErr_SetString(PyExc_TypeError, "a memory is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "IO", &slots, &slab)) return -1;
    if (PyObject_GetBuffer(slab, &self->pages, PyBUF_WRITABLE)) return -1;
    if (slots > 1u << 28 || (size_t)self->pages.len < (size_t)slots * PAGE) {
        PyErr_Format(PyExc_ValueError, "a slab of %zd bytes has no room for %u pages", self->pages.len, slots);
        return -1;
    }
    if (!slab_make(&self->slab, slots, self->pages.buf)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static void Memory_dealloc(MemoryObject *self) {
    slab_free(&self->slab);
    if (self->pages.obj) PyBuffer_Release(&self->pages);
    Py_TYPE(self)->tp_free(self);
}

static int by_key(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return x[0] < y[0] ? -1 : x[0] > y[0];
}

/* (block, page, slot) of every address, in order, as bytes; NULL with an error set. */
static PyObject *places_of(const Map *map) {
    Bytes places = {0};
    uint64_t(*order)[2] = malloc(map->count * sizeof *order + 1);
    int well = order && bytes_grow(&places, (size_t)map->count * LEAF_PAGES * 12);
    if (well) {
        for (uint32_t i = 0; i < map->count; i++) {
            order[i][0] = map->leaf_keys[i] - 1;
            order[i][1] = i;
        }
        qsort(order, map->count, sizeof *order, by_key);
        for (uint32_t i = 0; i < map->count; i++) {
            const uint32_t *leaf = map->leaves[order[i][1]];
            for (uint32_t k = 0; k < LEAF_PAGES; k++) {
                if (!leaf[k]) continue;
                put_u32(&places, (uint32_t)(order[i][0] >> 28));
                put_u32(&places, (uint32_t)(order[i][0] & 0xFFFFFFF) * LEAF_PAGES + k);
                put_u32(&places, leaf[k] - 1);
            }
        }
    }
    PyObject *bytes = well ? PyBytes_FromStringAndSize((char *)places.p, (Py_ssize_t)places.size) : PyErr_NoMemory();
    free(order);
    free(places.p);
    return bytes;
}

static PyObject *Memory_contents(MemoryObject *self, PyObject *unused) {
    const Slab *slab = &self->slab;
    if (!begin(self)) return 0;
    PyObject *places = places_of(&slab->map), *names = PyTuple_New(slab->names_count), *contents = 0;
    for (uint32_t i = 0; names && i < slab->names_count; i++) {
        PyObject *name = PyBytes_FromStringAndSize((char *)slab->names[i].text, slab->names[i].size);
        if (name)
            PyTuple_SET_ITEM(names, i, name);
        else
            Py_CLEAR(names);
    }
    if (places && names) contents = PyObject_CallFunction(Contents, "OOI", names, places, slab->high);
    Py_XDECREF(places);
    Py_XDECREF(names);
    self->busy = 0;
    return contents;
}

static PyObject *Memory_keys(MemoryObject *self, PyObject *unused) {
    if (!begin(self)) return 0;
    PyObject *keys = keys_of(self->slab.pages, self->slab.high);
    self->busy = 0;
    return keys;
}

static PyObject *Memory_prefault(MemoryObject *self, PyObject *unused) {
    const Slab *slab = &self->slab;
    if (!begin(self)) return 0;
    int failed = 0;
    Py_BEGIN_ALLOW_THREADS
    for (size_t at = 0, size = (size_t)slab->slots * PAGE; at < size && !failed; at += 64 << 20)
        failed = madvise(slab->pages + at, size - at < 64 << 20 ? size - at : 64 << 20, POPULATE_WRITE) ? errno : 0;
    if (!failed && slab->slots) {
        madvise(slab->shares, (size_t)slab->slots * 4, POPULATE_WRITE);
        madvise(slab->map.keys, (slab->map.mask + 1) * 8, POPULATE_WRITE);
        madvise(slab->map.which, (slab->map.mask + 1) * 4, POPULATE_WRITE);
    }
    Py_END_ALLOW_THREADS
    self->busy = 0;
    if (failed && failed != EINVAL) { /* EINVAL: an older kernel; the pages are touched later */
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *Memory_used(MemoryObject *self, void *unused) {
    return PyLong_FromUnsignedLong(self->slab.high - self->slab.freed_count);
}

static PyObject *Memory_slots(MemoryObject *self, void *unused) { return PyLong_FromUnsignedLong(self->slab.slots); }

static PyMethodDef Memory_methods[] = {{"contents", (PyCFunction)Memory_contents, METH_NOARGS, 0},
                                       {"keys", (PyCFunction)Memory_keys, METH_NOARGS, 0},
                                       {"prefault", (PyCFunction)Memory_prefault, METH_NOARGS, 0},
                                       {0}};
static PyGetSetDef Memory_values[] = {{"used", (getter)Memory_used}, {"slots", (getter)Memory_slots}, {0}};

/* For an encoder's or decoder's making: the memory, taken for it; NULL with an error set. */
static MemoryObject *take_memory(PyObject *memory) {
    MemoryObject *taken = (MemoryObject *)memory;
    if (taken->taken || taken->busy || !taken->slab.names) {
        PyErr_SetString(PyExc_ValueError, "this memory serves another flow already; make one for each");
        return 0;
    }
    taken->taken = 1;
    Py_INCREF(memory);
    return taken;
}

/* ---- Base */

static int fill_visit(Visit *visit, PyObject *blocks, const uint32_t *places, size_t count) {
    visit->names_count = (uint32_t)PyTuple_GET_SIZE(blocks);
    visit->names = calloc(visit->names_count + 1, sizeof(Name));
    if (!visit->names || !map_make(&visit->map, (uint32_t)count)) {
        PyErr_NoMemory();
        return 0;
    }
    for (uint32_t i = 0; i < visit->names_count; i++) {
        char *text;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(blocks, i), &text, &size)) return 0;
        if (size > 255) {
            PyErr_SetString(PyExc_ValueError, "a block's name of more than 255 bytes");
            return 0;
        }
        visit->names[i].size = (uint8_t)size;
        memcpy(visit->names[i].text, text, (size_t)size);
    }
    for (size_t i = 0; i < count; i++) {
        if (places[3 * i] >= visit->names_count || places[3 * i] >= MAX_BLOCKS || places[3 * i + 2] >= visit->slots) {
            PyErr_SetString(PyExc_ValueError, "the visit names a block or a slot that it does not have");
            return 0;
        }
        *map_place(&visit->map, places[3 * i], places[3 * i + 1], 1) = places[3 * i + 2] + 1;
    }
    return 1;
}

static int Base_init(BaseObject *self, PyObject *args, PyObject *names) {
    PyObject *pages, *contents, *keys, *blocks = 0, *places = 0, *slots = 0, *root = 0;
    Visit *visit = &self->visit;
    int result = -1;
    if (self->keys) {
        PyErr_SetString(PyExc_TypeError, "a base is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOS", &pages, &contents, &keys)) return -1;
    if (PyObject_GetBuffer(pages, &self->pages, PyBUF_SIMPLE)) return -1;
    Py_INCREF(keys);
    self->keys = keys;
    blocks = PyObject_GetAttrString(contents, "blocks");
    places = PyObject_GetAttrString(contents, "places");
    slots = PyObject_GetAttrString(contents, "slots");
    root = PyObject_CallMethod(contents, "root", "O", keys);
    if (!blocks || !places || !slots || !root) goto end;
    size_t count = (size_t)PyLong_AsSize_t(slots);
    if (PyErr_Occurred()) goto end;
    if (!PyTuple_Check(blocks) || !PyBytes_Check(places) || !PyBytes_Check(root) || PyBytes_GET_SIZE(root) != KEY_BYTES ||
        PyBytes_GET_SIZE(places) % 12 || PyBytes_GET_SIZE(places) / 12 > 1 << 28 || count > 1 << 28 ||
        (size_t)self->pages.len < count * PAGE || (size_t)PyBytes_GET_SIZE(keys) != count * KEY_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the visit's parts do not fit one another");
        goto end;
    }
    visit->slots = (uint32_t)count;
    visit->pages = self->pages.buf;
    visit->keys = (uint8_t *)PyBytes_AS_STRING(keys);
    memcpy(visit->root, PyBytes_AS_STRING(root), KEY_BYTES);
    if (fill_visit(visit, blocks, (const uint32_t *)PyBytes_AS_STRING(places), (size_t)PyBytes_GET_SIZE(places) / 12))
        result = 0;
end:
    Py_XDECREF(blocks);
    Py_XDECREF(places);
    Py_XDECREF(slots);
    Py_XDECREF(root);
    return result;
}

static void Base_dealloc(BaseObject *self) {
    map_free(&self->visit.map);
    free(self->visit.names);
    Py_XDECREF(self->keys);
    if (self->pages.obj) PyBuffer_Release(&self->pages);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Base_slot(BaseObject *self, PyObject *args) {
    unsigned long long block, page;
    if (!PyArg_ParseTuple(args, "KK", &block, &page)) return 0;
    int there = self->visit.map.keys && block < self->visit.names_count && page <= MAX_PAGE_NUMBER;
    return PyLong_FromUnsignedLong(there ? map_get(&self->visit.map, (uint32_t)block, page) : NONE);
}

/* One wanted page of Base.supply or Have.check: what its key must be, or NULL. Copies the page in from a visit. */
static const uint8_t *wanted_key(const Visit *visit, const Have *have, uint32_t number, uint8_t *page) {
    if (have) return number < have->count ? have->keys + (size_t)number * KEY_BYTES : 0;
    if (number >= visit->slots) return 0;
    memcpy(page, visit_page(visit, number), PAGE);
    return visit_key(visit, number);
}

/* Looks at two pages at once; adds the places of bad ones to `bad`. 0: no memory. */
static int check_pages(const Visit *visit, const Have *have, const uint8_t *wanted, size_t count, uint8_t *pages, Bytes *bad) {
    uint32_t waiting[2], pending = 0;
    const uint8_t *right[2];
    uint8_t keys[2][KEY_BYTES];
    for (size_t i = 0; i <= count; i++) {
        if (i < count) {
            uint32_t number;
            memcpy(&number, wanted + 4 * i, 4);
            if (number == NONE) continue;
            right[pending] = wanted_key(visit, have, number, pages + i * PAGE);
            waiting[pending++] = (uint32_t)i;
        }
        if (pending == 2 || (i == count && pending)) {
            two_page_keys(pages + (size_t)waiting[0] * PAGE, pages + (size_t)waiting[pending - 1] * PAGE, keys[0], keys[1]);
            for (uint32_t k = 0; k < pending; k++) {
                if (right[k] && !memcmp(right[k], keys[k], KEY_BYTES)) continue;
                if (!bytes_grow(bad, 4)) return 0;
                put_u32(bad, waiting[k]);
            }
            pending = 0;
        }
    }
    return 1;
}

/* Base.supply and Have.check: places of bad pages among the wanted ones. */
static PyObject *bad_places(const Visit *visit, const Have *have, PyObject *args) {
    Py_buffer wanted, pages;
    if (!PyArg_ParseTuple(args, visit ? "y*w*" : "y*y*", &wanted, &pages)) return 0;
    size_t count = (size_t)wanted.len / 4;
    PyObject *result = 0;
    Bytes bad = {0};
    int well;
    if ((size_t)pages.len / PAGE < count) {
        PyErr_Format(PyExc_ValueError, "%zd bytes have no room for %zu pages", pages.len, count);
    } else {
        Py_BEGIN_ALLOW_THREADS
        well = check_pages(visit, have, wanted.buf, count, pages.buf, &bad);
        Py_END_ALLOW_THREADS
        result = well ? PyBytes_FromStringAndSize((char *)bad.p, (Py_ssize_t)bad.size) : PyErr_NoMemory();
    }
    PyBuffer_Release(&wanted);
    PyBuffer_Release(&pages);
    free(bad.p);
    return result;
}

static PyObject *Base_supply(BaseObject *self, PyObject *args) { return bad_places(&self->visit, 0, args); }

static PyMethodDef Base_methods[] = {
    {"slot", (PyCFunction)Base_slot, METH_VARARGS, 0}, {"supply", (PyCFunction)Base_supply, METH_VARARGS, 0}, {0}};

/* ---- Have */

static int Have_init(HaveObject *self, PyObject *args, PyObject *names) {
    PyObject *keys;
    if (self->keys) {
        PyErr_SetString(PyExc_TypeError, "a have-list is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "S", &keys)) return -1;
    if (PyBytes_GET_SIZE(keys) % KEY_BYTES || PyBytes_GET_SIZE(keys) / KEY_BYTES > 1 << 30) {
        PyErr_SetString(PyExc_ValueError, "a have-list is a whole number of keys of 16 bytes, and at most 2^30");
        return -1;
    }
    Py_INCREF(keys);
    self->keys = keys;
    int well;
    Py_BEGIN_ALLOW_THREADS
    well = have_make(&self->have, (uint8_t *)PyBytes_AS_STRING(keys), (uint32_t)(PyBytes_GET_SIZE(keys) / KEY_BYTES));
    Py_END_ALLOW_THREADS
    if (!well) PyErr_NoMemory();
    return well ? 0 : -1;
}

static void Have_dealloc(HaveObject *self) {
    have_free(&self->have);
    Py_XDECREF(self->keys);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Have_index(HaveObject *self, PyObject *args) {
    Py_buffer key;
    if (!PyArg_ParseTuple(args, "y*", &key)) return 0;
    uint32_t index = key.len == KEY_BYTES && self->have.count ? have_find(&self->have, key.buf) : NONE;
    PyBuffer_Release(&key);
    return PyLong_FromUnsignedLong(index);
}

static PyObject *Have_check(HaveObject *self, PyObject *args) { return bad_places(0, &self->have, args); }

static PyMethodDef Have_methods[] = {
    {"index", (PyCFunction)Have_index, METH_VARARGS, 0}, {"check", (PyCFunction)Have_check, METH_VARARGS, 0}, {0}};

/* ---- Encoder and Decoder */

static PyObject *counts_of(const Tally *tally, int lost) {
    const uint64_t *n = tally->by_op;
    unsigned long long zero = n[ZERO_RECORD] + n[ZERO_PAGE], delta = n[DELTA] + n[BASE_DELTA];
    unsigned long long fresh = n[FRESH] + n[SPLIT];
    unsigned long long all = zero + n[SAME] + n[COPY] + n[KNOWN] + n[BASE] + delta + fresh;
    return PyObject_CallFunction(Counts, "KKKKKKKKKi", all, zero, (unsigned long long)n[SAME],
                                 (unsigned long long)n[COPY], (unsigned long long)n[KNOWN], (unsigned long long)n[BASE],
                                 delta, fresh, (unsigned long long)n[LITERAL], lost);
}

/* The argument's visit or have-list: NULL for None. An error is set where it is something else. */
static void *optional(PyObject *object, PyTypeObject *type, size_t offset) {
    if (object == Py_None) return 0;
    if (!PyObject_TypeCheck(object, type)) {
        PyErr_Format(PyExc_TypeError, "expected %s or None, got %s", type->tp_name, Py_TYPE(object)->tp_name);
        return 0;
    }
    return (char *)object + offset;
}
#define OPTIONAL_BASE(object) optional(object, &BaseType, offsetof(BaseObject, visit))
#define OPTIONAL_HAVE(object) optional(object, &HaveType, offsetof(HaveObject, have))

static int Encoder_init(EncoderObject *self, PyObject *args, PyObject *names) {
    PyObject *memory;
    const char *grammar;
    if (self->memory) {
        PyErr_SetString(PyExc_TypeError, "an encoder is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!s", &MemoryType, &memory, &grammar)) return -1;
    int nbd = !strcmp(grammar, "nbd");
    if (!nbd && strcmp(grammar, "ram")) {
        PyErr_Format(PyExc_ValueError, "no grammar %s: ram or nbd", grammar);
        return -1;
    }
    if (!(self->memory = take_memory(memory))) return -1;
    self->encoder.slab = &self->memory->slab;
    self->encoder.base_block = NONE;
    if (!parser_make(&self->encoder.parser, nbd) || !seen_make(&self->encoder.seen, self->memory->slab.slots)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static void Encoder_dealloc(EncoderObject *self) {
    Encoder *e = &self->encoder;
    parser_free(&e->parser);
    seen_free(&e->seen);
    free(e->control.p);
    free(e->operands.p);
    free(e->refs.p);
    free(e->bases.p);
    Py_XDECREF(self->memory);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Encoder_encode(EncoderObject *self, PyObject *args) {
    Py_buffer raw, out;
    int flush;
    PyObject *base_object, *have_object, *result = 0;
    Encoder *e = &self->encoder;
    if (!self->memory || !e->parser.blocks) return PyErr_Format(PyExc_TypeError, "this encoder was not made");
    if (!PyArg_ParseTuple(args, "y*w*pOO", &raw, &out, &flush, &base_object, &have_object)) return 0;
    const Visit *base = OPTIONAL_BASE(base_object);
    const Have *have = PyErr_Occurred() ? 0 : OPTIONAL_HAVE(have_object);
    if (PyErr_Occurred()) goto end;
    if ((size_t)raw.len > 1u << 30 || (size_t)out.len < 2 * (size_t)raw.len + 2048) {
        PyErr_Format(PyExc_ValueError, "%zd bytes need room for %zd of tokens, not %zd", raw.len, 2 * raw.len + 2048, out.len);
        goto end;
    }
    if (!begin(self->memory)) goto end;
    if (!base || !e->cursor.has_root || memcmp(e->cursor.root, base->root, KEY_BYTES)) e->cursor.has_root = 0;
    if (base) memcpy(e->cursor.root, base->root, KEY_BYTES);
    e->base = base;
    e->have = have;
    find_base_block(e);
    size_t size;
    Py_BEGIN_ALLOW_THREADS
    size = encode(e, raw.buf, (size_t)raw.len, out.buf, flush);
    Py_END_ALLOW_THREADS
    e->base = 0;
    e->have = 0;
    self->memory->busy = 0;
    if (e->no_memory)
        PyErr_NoMemory();
    else
        result = Py_BuildValue("nny#y#", (Py_ssize_t)(size ? e->at : 0), (Py_ssize_t)size, e->refs.size ? (char *)e->refs.p : "",
                               (Py_ssize_t)e->refs.size, e->bases.size ? (char *)e->bases.p : "", (Py_ssize_t)e->bases.size);
end:
    PyBuffer_Release(&raw);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *Encoder_counts(EncoderObject *self, void *unused) {
    return counts_of(&self->encoder.tally, self->encoder.cursor.lost);
}

static PyObject *Encoder_phase(EncoderObject *self, void *unused) {
    return PySequence_GetItem(Phases, self->encoder.parser.phase);
}

static PyMethodDef Encoder_methods[] = {{"encode", (PyCFunction)Encoder_encode, METH_VARARGS, 0}, {0}};
static PyGetSetDef Encoder_values[] = {{"counts", (getter)Encoder_counts}, {"phase", (getter)Encoder_phase}, {0}};

static int Decoder_init(DecoderObject *self, PyObject *args, PyObject *names) {
    PyObject *memory;
    if (self->memory) {
        PyErr_SetString(PyExc_TypeError, "a decoder is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "O!", &MemoryType, &memory)) return -1;
    if (!(self->memory = take_memory(memory))) return -1;
    self->decoder.slab = &self->memory->slab;
    return 0;
}

static void Decoder_dealloc(DecoderObject *self) {
    free(self->decoder.refs.p);
    free(self->decoder.bases.p);
    Py_XDECREF(self->memory);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *Decoder_refs(DecoderObject *self, PyObject *args) {
    Py_buffer tokens;
    PyObject *base_object, *result = 0;
    Decoder *d = &self->decoder;
    if (!self->memory) return PyErr_Format(PyExc_TypeError, "this decoder was not made");
    if (!PyArg_ParseTuple(args, "y*O", &tokens, &base_object)) return 0;
    d->base = OPTIONAL_BASE(base_object);
    if (!PyErr_Occurred() && begin(self->memory)) {
        int well;
        Py_BEGIN_ALLOW_THREADS
        well = decoder_refs(d, tokens.buf, (size_t)tokens.len);
        Py_END_ALLOW_THREADS
        self->memory->busy = 0;
        if (well)
            result = Py_BuildValue("y#y#", (char *)d->refs.p, (Py_ssize_t)d->refs.size, (char *)d->bases.p,
                                   (Py_ssize_t)d->bases.size);
        else
            PyErr_SetString(PyExc_ValueError, d->error ? d->error : "no memory");
    }
    d->base = 0;
    PyBuffer_Release(&tokens);
    return result;
}

static PyObject *Decoder_decode(DecoderObject *self, PyObject *args) {
    Py_buffer tokens, supply, out;
    PyObject *base_object, *result = 0;
    Decoder *d = &self->decoder;
    if (!self->memory) return PyErr_Format(PyExc_TypeError, "this decoder was not made");
    if (!PyArg_ParseTuple(args, "y*y*w*O", &tokens, &supply, &out, &base_object)) return 0;
    d->base = OPTIONAL_BASE(base_object);
    if (!PyErr_Occurred() && begin(self->memory)) {
        int well;
        d->supply = supply.buf;
        d->supply_end = d->supply + supply.len;
        d->out = out.buf;
        d->out_end = d->out + out.len;
        Py_BEGIN_ALLOW_THREADS
        well = walk(d, tokens.buf, (size_t)tokens.len);
        Py_END_ALLOW_THREADS
        self->memory->busy = 0;
        if (well)
            result = PyLong_FromSsize_t(d->out - (uint8_t *)out.buf);
        else
            PyErr_SetString(PyExc_ValueError, d->error);
    }
    d->base = 0;
    PyBuffer_Release(&tokens);
    PyBuffer_Release(&supply);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *Decoder_counts(DecoderObject *self, void *unused) {
    return counts_of(&self->decoder.tally, self->decoder.cursor.lost);
}

static PyMethodDef Decoder_methods[] = {{"refs", (PyCFunction)Decoder_refs, METH_VARARGS, 0},
                                        {"decode", (PyCFunction)Decoder_decode, METH_VARARGS, 0},
                                        {0}};
static PyGetSetDef Decoder_values[] = {{"counts", (getter)Decoder_counts}, {0}};

/* ---- the module */

#define TYPE(Name)                                                                                                     \
    static PyTypeObject Name##Type = {PyVarObject_HEAD_INIT(0, 0).tp_name = "dwcp.encoding._pages." #Name,             \
                                      .tp_basicsize = sizeof(Name##Object),                                            \
                                      .tp_flags = Py_TPFLAGS_DEFAULT,                                                  \
                                      .tp_new = PyType_GenericNew,                                                     \
                                      .tp_init = (initproc)Name##_init,                                                \
                                      .tp_dealloc = (destructor)Name##_dealloc,                                        \
                                      .tp_methods = Name##_methods}
TYPE(Memory);
TYPE(Base);
TYPE(Have);
TYPE(Encoder);
TYPE(Decoder);

static PyMethodDef functions[] = {{"page_keys", page_keys, METH_O, 0}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_pages", "The page stage in C.", -1, functions};

PyMODINIT_FUNC PyInit__pages(void) {
    static struct {
        const char *name;
        PyTypeObject *type;
    } types[] = {{"Memory", &MemoryType}, {"Base", &BaseType}, {"Have", &HaveType}, {"Encoder", &EncoderType}, {"Decoder", &DecoderType}};
    MemoryType.tp_getset = Memory_values;
    EncoderType.tp_getset = Encoder_values;
    DecoderType.tp_getset = Decoder_values;
    PyObject *tokens = PyImport_ImportModule("dwcp.encoding.tokens");
    if (!tokens) return 0;
    Contents = PyObject_GetAttrString(tokens, "Contents");
    Counts = PyObject_GetAttrString(tokens, "Counts");
    Phases = PyObject_GetAttrString(tokens, "PHASES");
    Py_DECREF(tokens);
    PyObject *made = Contents && Counts && Phases ? PyModule_Create(&module) : 0;
    for (size_t i = 0; made && i < sizeof types / sizeof *types; i++)
        if (PyType_Ready(types[i].type) || PyModule_AddObjectRef(made, types[i].name, (PyObject *)types[i].type)) Py_CLEAR(made);
    return made;
}
