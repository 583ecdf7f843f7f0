/* The current screen in a file: text or SVG, under a name that is given or made, never over
 * another file. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/canvas_write.h"
#include "app/picture.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "recording.h"

static const struct recording recorded = { .steps = 412, .total = 600, .layers = 6 };
static char folder[] = "/tmp/windrow-picture-XXXXXX";

static char *content(const char *path)
{
    struct error err = { 0 };
    size_t size = 0;
    char *text = file_read_all(path, 1 << 20, &size, &err);
    assert_non_null(text);
    return text;
}

static void it_is_what_the_screen_shows(void **state)
{
    (void)state;
    struct workbench workbench;
    struct canvas canvas;
    struct buffer text = { 0 };
    struct buffer svg = { 0 };
    struct error err = { 0 };
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    resize(&workbench, 100, 30);
    canvas_open(&canvas, 100, 30, workbench.glyphs);
    workbench_draw(&workbench, &canvas);
    canvas_write_text(&canvas, &text);
    canvas_write_svg(&canvas, true, &svg);
    char *one = picture_save(&workbench, "screen.txt", &err);
    char *two = picture_save(&workbench, "screen.svg", &err);
    assert_non_null(one);
    assert_non_null(two);
    char *wanted = path_join(folder, "screen.txt");
    assert_string_equal(one, wanted);
    char *got = content(one);
    assert_string_equal(got, text.text);
    free(got);
    got = content(two);
    assert_string_equal(got, svg.text);
    assert_non_null(strstr(got, "</svg>"));
    free(got);
    free(wanted);
    free(one);
    free(two);
    buffer_free(&text);
    buffer_free(&svg);
    canvas_close(&canvas);
    workbench_close(&workbench);
}

static void nothing_is_written_over(void **state)
{
    (void)state;
    struct workbench workbench;
    struct error err = { 0 };
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    assert_int_equal(file_replace("mine.txt", "mine", 4, &err), 0);
    assert_int_equal(symlink("nowhere", "link.txt"), 0);
    assert_null(picture_save(&workbench, "mine.txt", &err));
    assert_non_null(strstr(err.message, "exists"));
    assert_null(picture_save(&workbench, "link.txt", &err));
    assert_null(picture_save(&workbench, "no/such/folder.txt", &err));
    assert_non_null(strstr(err.message, "no/such/folder.txt"));
    char *text = content("mine.txt");
    assert_string_equal(text, "mine");
    free(text);
    char *first = picture_save(&workbench, "", &err);
    char *second = picture_save(&workbench, "", &err);
    char *third = picture_save(&workbench, "", &err);
    assert_non_null(strstr(first, "-run-412.svg"));
    assert_non_null(strstr(second, "-run-412-2.svg"));
    assert_non_null(strstr(third, "-run-412-3.svg"));
    free(first);
    free(second);
    free(third);
    workbench_close(&workbench);
}

/* A run may be called anything; its name becomes one that stays in the folder. */
static void names_are_tame(void **state)
{
    (void)state;
    struct workbench workbench;
    struct error err = { 0 };
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    snprintf(workbench.run_name, sizeof(workbench.run_name), "../a b/\033[2J$(x)");
    workbench_travel(&workbench, 100);
    workbench.screen = SCREEN_LAYERS;
    char *path = picture_save(&workbench, "", &err);
    assert_non_null(path);
    assert_string_equal(path_base(path), "windrow-..-a-b---2j--x--layers-100.svg");
    free(path);
    workbench_close(&workbench);
}

static ssize_t no_room(int fd, const void *bytes, size_t size)
{
    (void)fd;
    (void)bytes;
    (void)size;
    errno = ENOSPC;
    return -1;
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct workbench workbench;
    struct error err = { 0 };
    struct file_ops full = *file_ops();
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    full.write = no_room;
    file_install_ops(&full);
    assert_null(picture_save(&workbench, "full.txt", &err));
    file_install_ops(NULL);
    assert_false(file_exists("full.txt"));
    assert_non_null(strstr(err.message, "full.txt"));
    workbench_close(&workbench);
}

static void wants_file(struct workbench *workbench, const char *name)
{
    struct effect effect = { 0 };
    while (workbench_effect(workbench, &effect) && effect.kind != EFFECT_SNAPSHOT) {
    }
    assert_int_equal(effect.kind, EFFECT_SNAPSHOT);
    assert_string_equal(effect.text, name);
}

static void the_key_and_the_command_ask_for_it(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    press(&workbench, 'P');
    wants_file(&workbench, "");
    recording_feed(&workbench, &recorded);
    for (int i = 0; i < SCREEN_COUNT; i++) {
        press(&workbench, (uint32_t)('1' + i));
        press(&workbench, 'P');
        wants_file(&workbench, "");
    }
    press(&workbench, '?');
    press(&workbench, 'P');
    wants_file(&workbench, "");
    assert_int_equal(workbench.overlay, OVERLAY_HELP);
    press(&workbench, INPUT_ESCAPE);
    press(&workbench, ':');
    for (const char *c = "snapshot a b.svg"; *c; c++) {
        press(&workbench, (uint32_t)*c);
    }
    press(&workbench, INPUT_ENTER);
    wants_file(&workbench, "a b.svg");
    workbench_close(&workbench);
}

static int enter(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chdir(folder) != 0;
}

static int leave(void **state)
{
    (void)state;
    struct error err = { 0 };
    return file_remove_tree(folder, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_the_screen_shows),
        cmocka_unit_test(nothing_is_written_over),
        cmocka_unit_test(names_are_tame),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(the_key_and_the_command_ask_for_it),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
