/* Reading safetensors. The header is judged first as bytes, then as JSON, then as a map of the
 * file; only a file that passes all three is opened. */
#include "engine/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

/* All types the format has. Bits, because some are smaller than a byte. */
static const struct {
    const char *name;
    int bits;
    int dtype; /* enum dtype, or -1: known, not read */
} types[] = {
    { "F32", 32, DTYPE_F32 }, { "BF16", 16, DTYPE_BF16 },
    { "F16", 16, DTYPE_F16 }, { "I32", 32, DTYPE_I32 },
    { "U8", 8, DTYPE_U8 },    { "BOOL", 8, -1 },
    { "I8", 8, -1 },          { "I16", 16, DTYPE_I16 },
    { "U16", 16, -1 },        { "U32", 32, -1 },
    { "I64", 64, -1 },        { "U64", 64, -1 },
    { "F64", 64, -1 },        { "C64", 64, -1 },
    { "F8_E5M2", 8, -1 },     { "F8_E4M3", 8, -1 },
    { "F8_E8M0", 8, -1 },     { "F6_E2M3", 6, -1 },
    { "F6_E3M2", 6, -1 },     { "F4", 4, -1 },
};
enum { TYPES = sizeof types / sizeof types[0], PREFIX = 8, CHUNK = 1 << 18 };

/* A file being opened. */
struct opening {
    const char *path;
    int fd;
    int64_t size;
    int64_t header;
    struct error *err;
};

static int64_t little_endian(const unsigned char bytes[PREFIX])
{
    uint64_t value = 0;
    for (int i = PREFIX - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* What people have in place of a safetensors file, by its first bytes. */
static const struct {
    const char *start;
    size_t size;
    const char *what;
    const char *advice;
} lookalikes[] = {
    { "version https://git-lfs", 23, "a Git LFS pointer, not the file itself",
      "fetch the file: git lfs pull" },
    { "<!DOCTYPE", 9, "a web page", "download the file itself, not the page that shows it" },
    { "<!doctype", 9, "a web page", "download the file itself, not the page that shows it" },
    { "<html", 5, "a web page", "download the file itself, not the page that shows it" },
    { "<?xml", 5, "an XML document", "download again: the server sent something else" },
    { "GGUF", 4, "a GGUF file", "use the original model in safetensors form" },
    { "PK\x03\x04", 4, "a zip archive, as torch.save writes it",
      "convert it to safetensors: such files can run code and are not read" },
    { "\x89HDF", 4, "an HDF5 file", "use the model in safetensors form" },
    { "\x1f\x8b", 2, "compressed with gzip", "unpack it first" },
    { "{", 1, "a JSON text", "this is not a file of weights" },
};

/* Says what a file is that is no safetensors file; `why` where nothing is known. Always -1. */
static int refuse_kind(const struct opening *o, const char *why)
{
    char start[64] = "";
    size_t size = o->size < 64 ? (size_t)o->size : sizeof start;
    struct error ignored;
    if (file_read_at(o->fd, o->path, start, size, 0, &ignored) != 0) {
        size = 0;
    }
    for (size_t i = 0; i < sizeof lookalikes / sizeof lookalikes[0]; i++) {
        if (size >= lookalikes[i].size &&
            memcmp(start, lookalikes[i].start, lookalikes[i].size) == 0) {
            fail(o->err, ERROR_DATA, "%s is %s", text_show(o->path).text, lookalikes[i].what);
            return hint(o->err, "%s", lookalikes[i].advice);
        }
    }
    if (size >= 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) {
        fail(o->err, ERROR_DATA, "%s is a Python pickle", text_show(o->path).text);
        return hint(o->err, "convert it to safetensors: pickles can run code and are not read");
    }
    fail(o->err, ERROR_DATA, "%s is not a safetensors file: %s", text_show(o->path).text, why);
    return hint(o->err, "if it was downloaded, download it again");
}

/* Reads the length and the text of the header (malloc'd). */
static char *read_header(struct opening *o)
{
    unsigned char prefix[PREFIX] = { 0 };
    char why[160];
    if (o->size == 0) {
        fail(o->err, ERROR_DATA, "%s is empty", text_show(o->path).text);
        hint(o->err, "if it was downloaded, download it again");
        return NULL;
    }
    if (o->size < PREFIX + 2) {
        refuse_kind(o, "it is too short to hold a header");
        return NULL;
    }
    if (file_read_at(o->fd, o->path, prefix, PREFIX, 0, o->err) != 0) {
        return NULL;
    }
    o->header = little_endian(prefix);
    if (o->header < 2 || o->header > SAFETENSORS_HEADER_MAX) {
        snprintf(why, sizeof why, "the length of its header is %lld, allowed are 2 .. %d bytes",
                 (long long)o->header, SAFETENSORS_HEADER_MAX);
        refuse_kind(o, why);
        return NULL;
    }
    if (o->header > o->size - PREFIX) {
        snprintf(why, sizeof why, "its header has %lld bytes, but only %lld follow: it is cut off",
                 (long long)o->header, (long long)(o->size - PREFIX));
        refuse_kind(o, why);
        return NULL;
    }
    char *text = malloc((size_t)o->header);
    if (!text) {
        fail(o->err, ERROR_RUNTIME, "%s: out of memory for its header", text_show(o->path).text);
        return NULL;
    }
    if (file_read_at(o->fd, o->path, text, (size_t)o->header, PREFIX, o->err) != 0) {
        free(text);
        return NULL;
    }
    if (text[0] != '{') {
        refuse_kind(o, "its header does not start with {");
        free(text);
        return NULL;
    }
    return text;
}

/* All numbers of a header are counts: 2.0, 2e0 and -0 are what other readers disagree about, and
 * cJSON does not keep the spelling. The text is valid JSON by now. */
static int check_numbers(const struct opening *o, const char *text)
{
    bool inside = false;
    for (int64_t i = 0; i < o->header; i++) {
        char c = text[i];
        if (inside) {
            i += c == '\\';
            inside = c != '"';
        } else if (c == '"') {
            inside = true;
        } else if (c == '.' || c == '-' || c == 'E' ||
                   (c == 'e' && i > 0 && text[i - 1] >= '0' && text[i - 1] <= '9')) {
            return fail(o->err, ERROR_DATA,
                        "%s: header, byte %lld: numbers must be whole and not negative",
                        text_show(o->path).text, (long long)i);
        }
    }
    return 0;
}

static int refuse_tensor(const struct opening *o, const char *name, const char *what)
{
    return fail(o->err, ERROR_DATA, "%s: tensor \"%s\": %s", text_show(o->path).text,
                text_show(name).text, what);
}

/* A count in a list: a whole number below 2^53. */
static bool read_count(const cJSON *value, int64_t *out)
{
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0) || value->valuedouble >= 0x1p53) {
        return false;
    }
    *out = (int64_t)value->valuedouble;
    return true;
}

static int read_shape(const struct opening *o, const cJSON *shape,
                      struct safetensors_tensor *tensor)
{
    const cJSON *item;
    int rank = 0;
    tensor->elements = 1;
    if (!cJSON_IsArray(shape)) {
        return refuse_tensor(o, tensor->name, "\"shape\" must be a list of counts");
    }
    cJSON_ArrayForEach (item, shape) {
        int64_t dim = 0;
        if (!read_count(item, &dim)) {
            return refuse_tensor(o, tensor->name, "\"shape\" must hold counts below 2^53");
        }
        if (__builtin_mul_overflow(tensor->elements, dim, &tensor->elements)) {
            return refuse_tensor(o, tensor->name, "\"shape\" has more elements than 2^63");
        }
        if (rank < SAFETENSORS_RANK_MAX) {
            tensor->dim[rank] = dim;
        }
        rank++;
    }
    tensor->rank = rank;
    return 0;
}

static int read_type(const struct opening *o, const cJSON *type, struct safetensors_tensor *tensor)
{
    for (size_t i = 0; i < TYPES && cJSON_IsString(type); i++) {
        if (strcmp(type->valuestring, types[i].name) != 0) {
            continue;
        }
        int64_t bits = 0;
        if (__builtin_mul_overflow(tensor->elements, types[i].bits, &bits) || bits % 8 != 0) {
            return refuse_tensor(o, tensor->name, "its elements do not make whole bytes");
        }
        tensor->bytes = bits / 8;
        tensor->type = types[i].name;
        tensor->readable = types[i].dtype >= 0 && tensor->rank <= SAFETENSORS_RANK_MAX;
        tensor->dtype = types[i].dtype >= 0 ? (enum dtype)types[i].dtype : DTYPE_U8;
        return 0;
    }
    return fail(o->err, ERROR_DATA,
                "%s: tensor \"%s\": \"dtype\" is %s, known are F32, BF16, F16, I32, U8 and others "
                "of the format",
                text_show(o->path).text, text_show(tensor->name).text,
                cJSON_IsString(type) ? text_show(type->valuestring).text : "missing or no text");
}

static int read_offsets(const struct opening *o, const cJSON *offsets,
                        struct safetensors_tensor *tensor)
{
    int64_t begin = 0;
    int64_t end = 0;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !read_count(offsets->child, &begin) || !read_count(offsets->child->next, &end)) {
        return refuse_tensor(o, tensor->name, "\"data_offsets\" must be two counts");
    }
    if (end < begin || end - begin != tensor->bytes) {
        return fail(o->err, ERROR_DATA,
                    "%s: tensor \"%s\": \"data_offsets\" [%lld, %lld] do not fit the %lld bytes of "
                    "its shape",
                    text_show(o->path).text, text_show(tensor->name).text, (long long)begin,
                    (long long)end, (long long)tensor->bytes);
    }
    tensor->offset = begin; /* from the start of the data, for now */
    return 0;
}

static int read_tensor(const struct opening *o, const cJSON *item,
                       struct safetensors_tensor *tensor)
{
    tensor->name = xstrdup(item->string);
    if (!cJSON_IsObject(item)) {
        return refuse_tensor(o, tensor->name, "an object was expected");
    }
    const cJSON *key;
    cJSON_ArrayForEach (key, item) {
        if (strcmp(key->string, "dtype") != 0 && strcmp(key->string, "shape") != 0 &&
            strcmp(key->string, "data_offsets") != 0) {
            return fail(o->err, ERROR_DATA, "%s: tensor \"%s\": unknown key \"%s\"",
                        text_show(o->path).text, text_show(tensor->name).text,
                        text_show(key->string).text);
        }
    }
    if (read_shape(o, json_get(item, "shape"), tensor) != 0 ||
        read_type(o, json_get(item, "dtype"), tensor) != 0) {
        return -1;
    }
    return read_offsets(o, json_get(item, "data_offsets"), tensor);
}

static int check_metadata(const struct opening *o, const cJSON *metadata)
{
    const cJSON *item;
    bool good = cJSON_IsObject(metadata);
    cJSON_ArrayForEach (item, metadata) {
        good = good && cJSON_IsString(item);
    }
    return good ? 0
                : fail(o->err, ERROR_DATA, "%s: \"__metadata__\" must map texts to texts",
                       text_show(o->path).text);
}

static int compare_offsets(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a;
    const struct safetensors_tensor *y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    /* Empty ones stand before the one that starts where they do. */
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
    const struct safetensors_tensor *const *x = a;
    const struct safetensors_tensor *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Sorts by place and checks that the data is covered once, from its start to the end of the file.
 */
static int check_cover(const struct opening *o, struct safetensors *file)
{
    int64_t data = PREFIX + o->header;
    int64_t available = o->size - data;
    int64_t at = 0;
    qsort(file->tensor, file->count, sizeof *file->tensor, compare_offsets);
    for (size_t i = 0; i < file->count; i++) {
        struct safetensors_tensor *tensor = &file->tensor[i];
        if (tensor->offset != at) {
            return refuse_tensor(o, tensor->name,
                                 tensor->offset < at ? "its data overlap those of another one"
                                                     : "there is a hole before its data");
        }
        at += tensor->bytes; /* both below 2^53 */
        if (at > available) {
            fail(o->err, ERROR_DATA,
                 "%s: the data of tensor \"%s\" end at byte %lld, the file has %lld",
                 text_show(o->path).text, text_show(tensor->name).text, (long long)(data + at),
                 (long long)o->size);
            return hint(o->err, "the file is cut off: download or copy it again");
        }
        tensor->offset += data;
    }
    if (at != available) {
        fail(o->err, ERROR_DATA, "%s: %lld bytes follow the data of the last tensor",
             text_show(o->path).text, (long long)(available - at));
        return hint(o->err, "the file is damaged: download or copy it again");
    }
    return 0;
}

static int read_tensors(const struct opening *o, const cJSON *header, struct safetensors *file)
{
    size_t capacity = 0;
    const cJSON *item;
    cJSON_ArrayForEach (item, header) {
        capacity++;
    }
    file->tensor = calloc(capacity + 1, sizeof *file->tensor);
    file->by_name = calloc(capacity + 1, sizeof *file->by_name);
    if (!file->tensor || !file->by_name) {
        return fail(o->err, ERROR_RUNTIME, "%s: out of memory for the list of tensors",
                    text_show(o->path).text);
    }
    cJSON_ArrayForEach (item, header) {
        if (strcmp(item->string, "__metadata__") == 0) {
            if (check_metadata(o, item) != 0) {
                return -1;
            }
        } else if (read_tensor(o, item, &file->tensor[file->count++]) != 0) {
            return -1;
        }
    }
    if (check_cover(o, file) != 0) {
        return -1;
    }
    for (size_t i = 0; i < file->count; i++) {
        file->by_name[i] = &file->tensor[i];
    }
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_names);
    return 0;
}

/* The header, from bytes to `file`. */
static int open_header(struct opening *o, struct safetensors *file)
{
    char *text = read_header(o);
    if (!text) {
        return -1;
    }
    char *name = xasprintf("%s: header", o->path);
    cJSON *header = json_parse(text, (size_t)o->header, name, 1, o->err);
    int result = -1;
    if (header && check_numbers(o, text) == 0) {
        result = read_tensors(o, header, file);
    }
    cJSON_Delete(header);
    free(name);
    free(text);
    return result;
}

struct safetensors *safetensors_open(const char *path, struct error *err)
{
    struct opening o = { .path = path, .err = err };
    o.fd = file_open_read(path, &o.size, err);
    if (o.fd < 0) {
        return NULL;
    }
    struct safetensors *file = xcalloc(1, sizeof *file);
    file->fd = o.fd;
    file->path = xstrdup(path);
    if (open_header(&o, file) != 0) {
        safetensors_close(file);
        return NULL;
    }
    return file;
}

void safetensors_close(struct safetensors *file)
{
    if (!file) {
        return;
    }
    for (size_t i = 0; i < file->count; i++) {
        free(file->tensor[i].name);
    }
    file_ops()->close(file->fd);
    free(file->tensor);
    free(file->by_name);
    free(file->path);
    free(file);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    size_t low = 0;
    size_t high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(file->by_name[middle]->name, name);
        if (order == 0) {
            return file->by_name[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

float float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0) {
        /* Zero and subnormals: mantissa * 2^-24, exact in a float. */
        float value = (float)mantissa * 0x1p-24f;
        return float_from_bits(float_bits(value) | sign);
    }
    if (exponent == 31) {
        return float_from_bits(sign | 0x7f800000u | mantissa << 13);
    }
    return float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* `count` values at `from`, which need not be aligned, from one float type to another. */
static void convert(const unsigned char *from, enum dtype have, void *to, enum dtype want,
                    size_t count)
{
    float *wide = to;
    uint16_t *narrow = to;
    for (size_t i = 0; i < count; i++) {
        float value;
        uint16_t half;
        if (have == DTYPE_F32) {
            memcpy(&value, from + 4 * i, 4);
        } else {
            memcpy(&half, from + 2 * i, 2);
            value = have == DTYPE_BF16 ? bf16_to_float(half) : float_from_half(half);
        }
        if (want == DTYPE_F32) {
            wide[i] = value;
        } else {
            narrow[i] = bf16_from_float(value);
        }
    }
}

static bool is_float(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

static int read_converted(const struct safetensors *file, const struct safetensors_tensor *tensor,
                          int64_t offset, size_t count, void *out, enum dtype want,
                          struct error *err)
{
    size_t width = dtype_size(tensor->dtype);
    unsigned char *chunk = xmalloc(CHUNK);
    int result = 0;
    for (size_t done = 0; done < count && result == 0;) {
        size_t part = count - done < CHUNK / width ? count - done : CHUNK / width;
        result = file_read_at(file->fd, file->path, chunk, part * width,
                              offset + (int64_t)(done * width), err);
        if (result == 0) {
            convert(chunk, tensor->dtype, (char *)out + done * dtype_size(want), want, part);
            done += part;
        }
    }
    free(chunk);
    return result;
}

int safetensors_read_range(const struct safetensors *file, const struct safetensors_tensor *tensor,
                           int64_t first, int64_t count, void *out, enum dtype want,
                           struct error *err)
{
    if (first < 0 || count < 0 || first > tensor->elements || count > tensor->elements - first) {
        BUG("%lld values from %lld on of a tensor of %lld", (long long)count, (long long)first,
            (long long)tensor->elements);
    }
    bool same = tensor->readable && tensor->dtype == want;
    bool converts =
        tensor->readable && is_float(tensor->dtype) && (want == DTYPE_F32 || want == DTYPE_BF16);
    if (!same && !converts) {
        return fail(err, ERROR_DATA,
                    "%s: tensor \"%s\" has type %s and %d dimensions, it cannot be read as %s",
                    text_show(file->path).text, text_show(tensor->name).text, tensor->type,
                    tensor->rank, dtype_name(want));
    }
    int64_t offset = tensor->offset + first * (int64_t)dtype_size(tensor->dtype);
    if (same) {
        return file_read_at(file->fd, file->path, out, (size_t)count * dtype_size(want), offset,
                            err);
    }
    return read_converted(file, tensor, offset, (size_t)count, out, want, err);
}

int safetensors_read(const struct safetensors *file, const struct safetensors_tensor *tensor,
                     void *out, enum dtype want, struct error *err)
{
    return safetensors_read_range(file, tensor, 0, tensor->elements, out, want, err);
}
