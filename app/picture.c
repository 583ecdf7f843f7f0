/* Writes the current screen into a file. */
#include "app/picture.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/canvas_write.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

enum { TRIES = 1000 };

static bool is_svg(const char *name)
{
    size_t length = strlen(name);
    return length >= 4 && strcmp(name + length - 4, ".svg") == 0;
}

/* "windrow-20261121-1141-grass-layers-412", of characters that no shell minds. */
static char *make_name(const struct workbench *workbench)
{
    struct buffer name = { 0 };
    if (workbench->mode == MODE_LAUNCHER) {
        buffer_printf(&name, "windrow-%s", workbench->launcher.form.open ? "form" : "launcher");
    } else {
        int64_t at = workbench_at(workbench);
        buffer_printf(&name, "windrow-%s-%s-%" PRId64, workbench->run_name,
                      screen_names[workbench->screen], at > 0 ? at : workbench->history.step);
    }
    for (char *c = name.text; *c; c++) {
        bool plain = isalnum((unsigned char)*c) || *c == '.' || *c == '_';
        *c = plain ? (char)tolower((unsigned char)*c) : '-';
    }
    return name.text;
}

/* A new file; -1 with errno EEXIST where there is one of that name, links included. */
static int create(const char *path)
{
    return file_ops()->open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
}

/* Opens a new file under `name`, or under a name that is made up; `path` becomes its own. */
static int open_new(const struct workbench *workbench, const char *name, char **path,
                    struct error *err)
{
    *path = NULL;
    if (name[0]) {
        int fd = create(name);
        if (fd < 0 && errno == EEXIST) {
            fail(err, ERROR_USAGE, "%s exists and is not written over", text_show(name).text);
            hint(err, "give it another name");
        } else if (fd < 0) {
            fail(err, ERROR_USAGE, "%s cannot be written: %s", text_show(name).text,
                 strerror(errno));
        }
        *path = fd < 0 ? NULL : xstrdup(name);
        return fd;
    }
    char *made = make_name(workbench);
    int fd = -1;
    for (int i = 1; fd < 0 && i <= TRIES; i++) {
        free(*path);
        *path = i == 1 ? xasprintf("%s.svg", made) : xasprintf("%s-%d.svg", made, i);
        fd = create(*path);
        if (fd < 0 && errno != EEXIST) {
            break;
        }
    }
    if (fd < 0) {
        fail(err, ERROR_RUNTIME, "%s cannot be written here: %s", *path, strerror(errno));
        hint(err, ":snapshot FILE writes it elsewhere");
        free(*path);
        *path = NULL;
    }
    free(made);
    return fd;
}

static void draw(const struct workbench *workbench, bool svg, struct buffer *out)
{
    struct canvas canvas;
    canvas_open(&canvas, workbench->width, workbench->height, workbench->glyphs);
    workbench_draw(workbench, &canvas);
    if (svg) {
        canvas_write_svg(&canvas, true, out);
    } else {
        canvas_write_text(&canvas, out);
    }
    canvas_close(&canvas);
}

/* Where it lies, seen from the root. */
static char *whole_path(char *path)
{
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (!here) {
        return path;
    }
    char *whole = path_join(here, path);
    free(here);
    free(path);
    return whole;
}

char *picture_save(const struct workbench *workbench, const char *name, struct error *err)
{
    char *path;
    struct buffer out = { 0 };
    int fd = open_new(workbench, name, &path, err);
    if (fd < 0) {
        return NULL;
    }
    draw(workbench, !name[0] || is_svg(name), &out);
    int result = file_write_all(fd, path, out.text, out.size, err);
    if (file_ops()->close(fd) != 0 && result == 0) {
        result = fail(err, ERROR_RUNTIME, "%s: %s", path, strerror(errno));
    }
    buffer_free(&out);
    if (result != 0) {
        file_ops()->unlink(path); /* half a picture is none */
        free(path);
        return NULL;
    }
    return whole_path(path);
}
