/*
 * Small host allocations that end the program when memory is out (after the terminal was restored:
 * the app installs a handler). Everything sized by user data (files, tensors, data sets) uses
 * malloc and returns an error instead.
 */
#ifndef WINDROW_ENGINE_BASE_XALLOC_H
#define WINDROW_ENGINE_BASE_XALLOC_H

#include <stdarg.h>
#include <stddef.h>

/* Called once before the message and the end, to give the terminal back. NULL: nothing. */
void xalloc_install_handler(void (*handler)(void));

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t size);
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t size);
/* printf into a new string. */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A growing string: text is always NUL-terminated, and never NULL after the first append. */
struct buffer {
    char *text;
    size_t size;
    size_t capacity;
};
void buffer_append(struct buffer *b, const void *bytes, size_t size);
void buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_free(struct buffer *b);

#endif
