/*
 * Every touch of the file system that matters goes through this table, so that tests can make
 * disks full, writes short and power fail. file_io is the real one; tests install their own.
 */
#ifndef WINDROW_ENGINE_BASE_FILE_H
#define WINDROW_ENGINE_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "engine/base/error.h"

/* The calls that can be made to fail. Same meaning, return value and errno as the C library's. */
struct file_ops {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*write)(int fd, const void *bytes, size_t size);
    ssize_t (*pread)(int fd, void *bytes, size_t size, off_t offset);
    ssize_t (*pwrite)(int fd, const void *bytes, size_t size,
                      off_t offset); /* NULL: the real one */
    int (*fsync)(int fd);
    int (*close)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*mkdir)(const char *path, mode_t mode);
    int (*unlink)(const char *path);
    int (*rmdir)(const char *path);
    int64_t (*free_bytes)(const char *path); /* NULL: the real one */
};

/* The table in use. Set it once, before threads start; NULL restores the real one. */
void file_install_ops(const struct file_ops *ops);
const struct file_ops *file_ops(void);
/* Whether no test has replaced it. */
bool file_ops_are_real(void);
/* Writes at an offset through the table. */
ssize_t file_pwrite(int fd, const void *bytes, size_t size, off_t offset);

/* Reads a whole regular file of at most `limit` bytes. The result is NUL-terminated after `size`
 * bytes; free it with free(). NULL with an error that names the path: not there, not a regular
 * file (directories, fifos and devices are refused without blocking), larger than the limit. */
char *file_read_all(const char *path, size_t limit, size_t *size, struct error *err);

/* Opens a regular file for reading. The descriptor, or -1. `size` may be NULL. */
int file_open_read(const char *path, int64_t *size, struct error *err);

/* Reads exactly `size` bytes at `offset`; a short file is an error that names `path`. */
int file_read_at(int fd, const char *path, void *bytes, size_t size, int64_t offset,
                 struct error *err);

/* Writes all, going on after short writes and EINTR. */
int file_write_all(int fd, const char *path, const void *bytes, size_t size, struct error *err);

/* Writes `path` whole or not at all: temporary file beside it, fsync, rename, fsync of the
 * directory. Mode 0600. */
int file_replace(const char *path, const void *bytes, size_t size, struct error *err);

/* fsync of a directory. */
int file_sync_directory(const char *path, struct error *err);

/* mkdir -p with mode 0700 for every directory made. */
int file_make_directories(const char *path, struct error *err);

/* Removes a directory and everything in it; symbolic links are removed, never followed. */
int file_remove_tree(const char *path, struct error *err);

/* Copies a regular file byte for byte (0600, fsync). */
int file_copy(const char *from, const char *to, struct error *err);

/* Bytes free for us on the file system of `path`; -1 if unknown. */
int64_t file_free_bytes(const char *path);

bool file_exists(const char *path);
bool file_is_directory(const char *path);

/* "a/b", newly allocated (xmalloc). */
char *path_join(const char *a, const char *b);
/* The part after the last slash; points into `path`. */
const char *path_base(const char *path);

#endif
