/* Boundaries of content-defined chunks: the C twin of chunks_py.py, which says what they are. Same results, bit by bit.
 *
 * split(data, gear, sizes, inside, final) -> list of lengths, holes negative. The table and the sizes come from the
 * caller at each call, so that there is nothing here to keep in step. Works without the GIL; `data` is only read.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define WINDOW 64 /* bytes that a 64-bit gear hash remembers */

typedef struct {
    uint64_t gear[256];
    Py_ssize_t least, normal, most, hole;
    uint64_t strict, loose; /* a hash below it cuts: before the normal size, and after it */
} Rules;

static Py_ssize_t cut(const Rules *rules, const uint8_t *at, Py_ssize_t length)
{
    if (length <= rules->least)
        return length;
    Py_ssize_t stop = length < rules->most ? length : rules->most;
    Py_ssize_t normal = stop < rules->normal ? stop : rules->normal;
    Py_ssize_t i = rules->least - WINDOW;
    uint64_t hash = 0;
    for (; i < rules->least - 1; i++)
        hash = (hash << 1) + rules->gear[at[i]];
    for (; i < normal; i++) {
        hash = (hash << 1) + rules->gear[at[i]];
        if (hash < rules->strict)
            return i + 1;
    }
    for (; i < stop; i++) {
        hash = (hash << 1) + rules->gear[at[i]];
        if (hash < rules->loose)
            return i + 1;
    }
    return stop;
}

/* The number of zero bytes at `at`. */
static Py_ssize_t zeros(const uint8_t *at, Py_ssize_t length)
{
    Py_ssize_t i = 0;
    uint64_t word;
    for (; i + 8 <= length; i += 8) {
        memcpy(&word, at + i, 8);
        if (word)
            break;
    }
    while (i < length && !at[i])
        i++;
    return i;
}

/* Where the first run of at least `hole` zeros begins, at or after `from`; `length` if there is none. Looks at one byte
 * of `hole` where there are no zeros: a run cannot hide between two bytes that far apart. */
static Py_ssize_t next_hole(const Rules *rules, const uint8_t *data, Py_ssize_t from, Py_ssize_t length)
{
    Py_ssize_t probe = from + rules->hole - 1;
    while (probe < length) {
        if (data[probe]) {
            from = probe + 1;
        } else {
            Py_ssize_t begin = probe;
            while (begin > from && !data[begin - 1])
                begin--;
            Py_ssize_t run = probe - begin + zeros(data + probe, length - probe);
            if (run >= rules->hole)
                return begin;
            from = begin + run;
        }
        probe = from + rules->hole - 1;
    }
    return length;
}

/* Lengths go to `out`, which has room for `room` of them; the number written, or -1 if there was no room. */
static Py_ssize_t split_into(const Rules *rules, const uint8_t *data, Py_ssize_t length, int inside, int final,
                             int64_t *out, Py_ssize_t room)
{
    Py_ssize_t place = 0, count = 0, hole = -1;
    if (inside && (place = zeros(data, length)))
        out[count++] = -(int64_t)place;
    while (place < length && (final || length - place >= rules->most + rules->hole)) {
        Py_ssize_t size;
        if (count == room)
            return -1;
        if (hole < place)
            hole = next_hole(rules, data, place, length);
        if (hole == place) {
            size = zeros(data + place, length - place);
            out[count++] = -(int64_t)size;
        } else {
            size = cut(rules, data + place, hole - place);
            out[count++] = size;
        }
        place += size;
    }
    return count;
}

static PyObject *split(PyObject *self, PyObject *args)
{
    Py_buffer data, gear;
    Rules rules;
    unsigned long long strict, loose;
    int inside, final;
    PyObject *result = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*(nnnnKK)pp", &data, &gear, &rules.least, &rules.normal, &rules.most, &rules.hole,
                          &strict, &loose, &inside, &final))
        return NULL;
    rules.strict = strict;
    rules.loose = loose;
    if (gear.len != (Py_ssize_t)sizeof rules.gear || rules.least < WINDOW || rules.normal < rules.least ||
        rules.most < rules.normal || rules.hole < 1 || rules.most > ((Py_ssize_t)1 << 40) ||
        rules.hole > ((Py_ssize_t)1 << 40)) {
        PyErr_SetString(PyExc_ValueError, "a gear table of 2048 bytes and 64 <= least <= normal <= most, hole >= 1 wanted");
        goto done;
    }
    const uint8_t *bytes = gear.buf;
    for (int i = 0; i < 256; i++) {
        rules.gear[i] = 0;
        for (int k = 7; k >= 0; k--)
            rules.gear[i] = rules.gear[i] << 8 | bytes[i * 8 + k];
    }
    /* A hole takes at least `hole` bytes and has one chunk shorter than `least` before it, so this many at most: */
    Py_ssize_t smaller = rules.least < rules.hole ? rules.least : rules.hole;
    Py_ssize_t room = 2 * (data.len / smaller) + 4;
    int64_t *out = PyMem_RawMalloc((size_t)room * sizeof *out);
    if (!out) {
        PyErr_NoMemory();
        goto done;
    }
    Py_ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = split_into(&rules, data.buf, data.len, inside, final, out, room);
    Py_END_ALLOW_THREADS
    if (count < 0)
        PyErr_SetString(PyExc_SystemError, "more chunks than there can be");
    else
        result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *size = PyLong_FromLongLong(out[i]);
        if (!size)
            Py_CLEAR(result);
        else
            PyList_SET_ITEM(result, i, size);
    }
    PyMem_RawFree(out);
done:
    PyBuffer_Release(&gear);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"split", split, METH_VARARGS,
     "split(data, gear, (least, normal, most, hole, strict, loose), inside, final) -> lengths, holes negative"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "dwcp.encoding._chunks", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__chunks(void) { return PyModule_Create(&module); }
