/* Allocation that ends the program when memory is out, and a growing string. */
#include "engine/base/xalloc.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/error.h"

static void (*last_act)(void);

void xalloc_install_handler(void (*handler)(void))
{
    last_act = handler;
}

static void out_of_memory(size_t size) __attribute__((noreturn));

static void out_of_memory(size_t size)
{
    char text[96];
    if (last_act) {
        last_act();
    }
    int length =
        snprintf(text, sizeof text, "windrow: out of memory (%zu bytes asked for)\n", size);
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0) {
        _exit(ERROR_RUNTIME);
    }
    _exit(ERROR_RUNTIME);
}

void *xmalloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (!p) {
        out_of_memory(size);
    }
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p) {
        out_of_memory(size && count > SIZE_MAX / size ? SIZE_MAX : count * size);
    }
    return p;
}

void *xrealloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (!p) {
        out_of_memory(size);
    }
    return p;
}

char *xstrdup(const char *text)
{
    return xstrndup(text, strlen(text));
}

char *xstrndup(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    char *copy = xmalloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

static char *format_new(size_t *size, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

static char *format_new(size_t *size, const char *format, va_list arguments)
{
    char *text = NULL;
    int length = vasprintf(&text, format, arguments);
    if (length < 0) {
        out_of_memory(strlen(format));
    }
    *size = (size_t)length;
    return text;
}

char *xasprintf(const char *format, ...)
{
    size_t size;
    va_list arguments;
    va_start(arguments, format);
    char *text = format_new(&size, format, arguments);
    va_end(arguments);
    return text;
}

void buffer_append(struct buffer *b, const void *bytes, size_t size)
{
    if (size > SIZE_MAX / 2 - b->size) {
        out_of_memory(size);
    }
    if (b->size + size + 1 > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < b->size + size + 1) {
            capacity *= 2;
        }
        b->text = xrealloc(b->text, capacity);
        b->capacity = capacity;
    }
    if (size > 0) {
        memcpy(b->text + b->size, bytes, size);
    }
    b->size += size;
    b->text[b->size] = '\0';
}

void buffer_printf(struct buffer *b, const char *format, ...)
{
    size_t size;
    va_list arguments;
    va_start(arguments, format);
    char *text = format_new(&size, format, arguments);
    va_end(arguments);
    buffer_append(b, text, size);
    free(text);
}

void buffer_free(struct buffer *b)
{
    free(b->text);
    *b = (struct buffer){ 0 };
}
