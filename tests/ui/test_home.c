/* The launcher's form, its previews and its catalog: editing, saving, hostile files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/catalog.h"
#include "app/preview.h"
#include "app/settings.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "recording.h"

static char home[] = "/tmp/windrow-home-XXXXXX";

static int open_home(void **state)
{
    (void)state;
    return mkdtemp(home) == NULL || setenv("XDG_CONFIG_HOME", home, 1) != 0 ||
           setenv("HF_HOME", home, 1) != 0 ||
           setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1) != 0;
}

static int close_home(void **state)
{
    (void)state;
    struct error err = { 0 };
    return file_remove_tree(home, &err);
}

static char *write_file(const char *name, const char *bytes, size_t size)
{
    struct error err = { 0 };
    char *path = path_join(home, name);
    if (file_replace(path, bytes, size, &err) != 0) {
        fail_msg("%s", err.message);
    }
    return path;
}

/* ---- the catalog and the form -----------------------------------------------------------------
 */

static void open_catalog(struct catalog *catalog, int choice[LAUNCHER_LISTS])
{
    struct error err = { 0 };
    if (catalog_open(catalog, "stories", &err) != 0) {
        fail_msg("%s", err.message);
    }
    memset(choice, 0, sizeof(int) * LAUNCHER_LISTS);
    choice[LAUNCHER_METHOD] = catalog->first_method;
}

static const struct form_row *row_of(const struct form_facts *facts, const char *key)
{
    for (int i = 0; i < facts->count; i++) {
        if (strcmp(facts->row[i].field->key, key) == 0) {
            return &facts->row[i];
        }
    }
    fail_msg("no row %s", key);
    return NULL;
}

static int method_of(const struct catalog *catalog, const char *name)
{
    const struct catalog_list *list = &catalog->list[LAUNCHER_METHOD];
    for (int i = 0; i < list->count; i++) {
        if (strcmp(list->entry[i].name, name) == 0) {
            return i;
        }
    }
    fail_msg("no method %s", name);
    return -1;
}

/* Each value says where it came from, and the command line is that of the differences. */
static void test_sources(void **state)
{
    (void)state;
    struct catalog catalog;
    struct form_facts facts;
    struct error err = { 0 };
    int choice[LAUNCHER_LISTS];
    open_catalog(&catalog, choice);
    catalog_form(&catalog, choice, &facts);
    assert_string_equal(facts.command, "windrow train stories");
    assert_int_equal(row_of(&facts, "data.train")->source, FORM_RECIPE);
    assert_int_equal(row_of(&facts, "optimizer.beta1")->source, FORM_DEFAULT);
    form_facts_free(&facts);

    choice[LAUNCHER_METHOD] = method_of(&catalog, "full-int8");
    assert_int_equal(catalog_override(&catalog, "train.clip=1", &err), 0);
    assert_int_equal(catalog_override(&catalog, "method.rank=9", &err), 0);
    assert_int_equal(catalog_override_all(&catalog, "batch.micro=2 batch.accumulate=3", &err), 0);
    catalog_form(&catalog, choice, &facts);
    assert_int_equal(row_of(&facts, "optimizer.state")->source, FORM_PRESET);
    assert_int_equal(row_of(&facts, "train.clip")->source, FORM_YOU);
    assert_string_equal(row_of(&facts, "method.rank")->value, "9");
    assert_non_null(strstr(facts.command, " method.rank=9"));
    assert_non_null(strstr(facts.command, " batch.micro=2 batch.accumulate=3"));
    assert_non_null(strstr(facts.command, " optimizer.state=int8"));
    assert_null(strstr(facts.command, "beta1"));
    form_facts_free(&facts);

    catalog_reset(&catalog, "method.rank");
    catalog_form(&catalog, choice, &facts);
    assert_int_not_equal(row_of(&facts, "method.rank")->source, FORM_YOU);
    form_facts_free(&facts);
    assert_int_not_equal(catalog_override(&catalog, "method.rnak=9", &err), 0);
    assert_non_null(strstr(err.hint, "method.rank"));
    catalog_close(&catalog);
}

/* A saved choice is a preset of the user's, with its own model and data, here and the next time. */
static void test_saving(void **state)
{
    (void)state;
    struct catalog catalog;
    struct recipe before;
    struct recipe after;
    struct error err = { 0 };
    int choice[LAUNCHER_LISTS];
    recipe_init(&before);
    recipe_init(&after);
    open_catalog(&catalog, choice);
    choice[LAUNCHER_MODEL] = 1;
    choice[LAUNCHER_DATA] = 1;
    choice[LAUNCHER_METHOD] = method_of(&catalog, "full");
    assert_int_equal(catalog_override(&catalog, "data.sequence_length=96", &err), 0);
    assert_int_equal(catalog_recipe(&catalog, choice, &before, &err), 0);
    assert_int_equal(catalog_save(&catalog, choice, "a/b is no name", &err), -1);
    int place = catalog_save(&catalog, choice, "mine  Short rows for a first look.", &err);
    if (place < 0) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(catalog.override_count, 0);
    const struct catalog_entry *entry = &catalog.list[LAUNCHER_METHOD].entry[place];
    assert_string_equal(entry->about, "Short rows for a first look.");
    assert_string_equal(entry->note, "yours");
    assert_int_equal(entry->model, 1);
    assert_int_equal(entry->data, 1);
    catalog_close(&catalog);

    open_catalog(&catalog, choice);
    choice[LAUNCHER_METHOD] = method_of(&catalog, "mine");
    entry = &catalog.list[LAUNCHER_METHOD].entry[choice[LAUNCHER_METHOD]];
    choice[LAUNCHER_MODEL] = entry->model;
    choice[LAUNCHER_DATA] = entry->data;
    assert_int_equal(catalog_recipe(&catalog, choice, &after, &err), 0);
    struct form_facts facts;
    catalog_form(&catalog, choice, &facts);
    assert_string_equal(facts.command, "windrow train mine");
    form_facts_free(&facts);
    char *words = recipe_words(&after, &before);
    assert_string_equal(words, "");
    free(words);
    /* Another model under the same preset is another recipe. */
    choice[LAUNCHER_MODEL] = entry->model == 0 ? 1 : 0;
    assert_int_equal(catalog_recipe(&catalog, choice, &after, &err), 0);
    assert_int_equal(after.data_sequence_length, 96);
    words = recipe_words(&after, &before);
    assert_non_null(strstr(words, "model."));
    free(words);
    recipe_free(&before);
    recipe_free(&after);
    catalog_close(&catalog);
}

static void type(struct workbench *workbench, const char *text)
{
    press(workbench, 'u' & 0x1f);
    for (; *text; text++) {
        press(workbench, (uint32_t)(unsigned char)*text);
    }
    press(workbench, INPUT_ENTER);
}

static void give_form(struct workbench *workbench, const struct catalog *catalog,
                      const int choice[LAUNCHER_LISTS])
{
    struct form_facts facts;
    catalog_form(catalog, choice, &facts);
    struct workbench_event event = { .kind = WORKBENCH_FORM, .form = &facts };
    workbench_event(workbench, &event);
}

static void take_override(struct workbench *workbench, const char *text)
{
    struct effect effect = { 0 };
    do {
        assert_true(workbench_effect(workbench, &effect));
    } while (effect.kind == EFFECT_PLAN || effect.kind == EFFECT_PREVIEW ||
             effect.kind == EFFECT_FORM);
    assert_int_equal(effect.kind, EFFECT_OVERRIDE);
    assert_string_equal(effect.text, text);
}

static void find_row(struct workbench *workbench, const char *words)
{
    press(workbench, '/');
    press(workbench, 'u' & 0x1f);
    for (; *words; words++) {
        press(workbench, (uint32_t)(unsigned char)*words);
    }
    press(workbench, INPUT_ENTER);
}

/* Search, typing, refusals that keep the field open, and steps to the next value. */
static void test_editing(void **state)
{
    (void)state;
    struct catalog catalog;
    struct workbench workbench;
    struct effect effect;
    int choice[LAUNCHER_LISTS];
    const struct form_row *row;
    open_catalog(&catalog, choice);
    workbench_open(&workbench);
    catalog_show(&catalog, &workbench.launcher);
    press(&workbench, 'e');
    assert_true(workbench.launcher.form.open);
    give_form(&workbench, &catalog, choice);
    const struct form *form = &workbench.launcher.form;
    int all = form_shown(form, 0, NULL);
    for (int i = 0; recipe_fields[i].key; i++) {
        form_shown(form, i, &row);
        assert_ptr_equal(row->field, &recipe_fields[i]);
    }
    find_row(&workbench, "METHOD.rank most");
    assert_int_equal(form_shown(form, 0, NULL), 0);
    find_row(&workbench, "method.rank learn");
    assert_int_equal(form_shown(form, 0, &row), 1);
    press(&workbench, INPUT_ENTER);
    assert_int_equal(workbench.overlay, OVERLAY_FIELD);
    type(&workbench, "0");
    assert_int_equal(workbench.overlay, OVERLAY_FIELD);
    assert_non_null(strstr(form->error, "method.rank"));
    type(&workbench, "33");
    assert_int_equal(workbench.overlay, OVERLAY_NONE);
    take_override(&workbench, "method.rank=33");
    find_row(&workbench, "data.shuffle");
    press(&workbench, INPUT_RIGHT);
    take_override(&workbench, "data.shuffle=false");
    find_row(&workbench, "activation.recompute");
    press(&workbench, INPUT_RIGHT);
    take_override(&workbench, "activation.recompute=norms");
    find_row(&workbench, "schedule.name");
    form_shown(form, 0, &row);
    press(&workbench, INPUT_LEFT);
    while (workbench_effect(&workbench, &effect) && effect.kind != EFFECT_OVERRIDE) {
    }
    assert_true(strncmp(effect.text, "schedule.name=", 14) == 0 &&
                strcmp(effect.text + 14, row->value) != 0);
    press(&workbench, INPUT_ESCAPE); /* first the filter goes, then the form */
    assert_int_equal(form_shown(form, 0, NULL), all);
    press(&workbench, INPUT_ESCAPE);
    assert_false(form->open);
    workbench_close(&workbench);
    catalog_close(&catalog);
}

/* Every row of the table can be stepped up and down to its ends without leaving its range. */
static void test_steps(void **state)
{
    (void)state;
    struct catalog catalog;
    struct workbench workbench;
    int choice[LAUNCHER_LISTS];
    open_catalog(&catalog, choice);
    workbench_open(&workbench);
    catalog_show(&catalog, &workbench.launcher);
    press(&workbench, 'e');
    for (int i = 0; recipe_fields[i].key; i++) {
        for (int k = 0; k < 12; k++) {
            struct effect effect;
            struct error err = { 0 };
            give_form(&workbench, &catalog, choice);
            workbench.launcher.form.cursor = i;
            press(&workbench, k < 5 ? INPUT_LEFT : INPUT_RIGHT);
            assert_string_equal(workbench.launcher.form.error, "");
            while (workbench_effect(&workbench, &effect)) {
                if (effect.kind == EFFECT_OVERRIDE &&
                    catalog_override(&catalog, effect.text, &err) != 0) {
                    fail_msg("%s: %s", effect.text, err.message);
                }
            }
        }
        catalog_reset(&catalog, NULL);
    }
    workbench_close(&workbench);
    catalog_close(&catalog);
}

/* ---- previews ---------------------------------------------------------------------------------
 */

static void preview_of(const char *path, const char *format, struct launcher_preview *out)
{
    struct recipe recipe;
    struct error err = { 0 };
    recipe_init(&recipe);
    assert_int_equal(recipe_find(&recipe, "stories", &err), 0);
    char *train = xasprintf("data.train=%s", path);
    char *word = xasprintf("data.format=%s", format);
    assert_int_equal(recipe_set(&recipe, train, &err), 0);
    assert_int_equal(recipe_set(&recipe, word, &err), 0);
    memset(out, 0, sizeof(*out));
    preview_make(&recipe, out);
    assert_true(out->ok || out->message[0]);
    assert_true(out->text_size < sizeof(out->text));
    assert_true(!out->ok || text_is_utf8(out->text, out->text_size, NULL));
    free(train);
    free(word);
    recipe_free(&recipe);
}

static void draw_preview(const struct launcher_preview *preview)
{
    struct workbench workbench;
    struct canvas canvas;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    workbench.launcher.pane = LAUNCHER_DATA;
    workbench.launcher.preview = xmalloc(sizeof(*preview));
    *workbench.launcher.preview = *preview;
    for (int width = 60; width < 210; width += 37) {
        canvas_open(&canvas, width, width / 3, (enum glyph_set)(width % GLYPHS_COUNT));
        resize(&workbench, width, width / 3);
        workbench_draw(&workbench, &canvas);
        for (int i = 0; i < canvas.width * canvas.height; i++) {
            assert_true(canvas.cell[i].code >= 0x20 && canvas.cell[i].code != 0x7f);
        }
        canvas_close(&canvas);
    }
    workbench_close(&workbench);
}

/* The answer is trained, the instruction is not, and the format was found. */
static void test_preview(void **state)
{
    (void)state;
    struct launcher_preview preview;
    preview_of(SOURCE_ROOT "/presets/data/instruct.jsonl", "auto", &preview);
    assert_true(preview.ok);
    assert_string_not_equal(preview.template_name, "");
    assert_true(preview.rows > 0 && preview.sample_trained > 0 &&
                preview.sample_trained < preview.sample_tokens);
    size_t trained = 0;
    for (size_t i = 0; i < preview.text_size; i++) {
        trained += preview.trained[i];
    }
    assert_true(trained > 0 && trained < preview.text_size);
    draw_preview(&preview);
    preview_of(SOURCE_ROOT "/presets/data/stories.txt", "auto", &preview);
    if (!preview.ok || preview.read_bytes > preview.total_bytes) {
        fail_msg("%s (%lld of %lld bytes)", preview.message, (long long)preview.read_bytes,
                 (long long)preview.total_bytes);
    }
    assert_string_equal(preview.format, "text");
    assert_string_equal(preview.template_name, "");
    draw_preview(&preview);
}

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *bytes;
        size_t size;
    } files[] = {
        { "empty.txt", "", 0 },
        { "empty.jsonl", "", 0 },
        { "nul.txt", "a\0b", 3 },
        { "latin.txt", "caf\xe9 caf\xe9", 9 },
        { "bytes.jsonl", "\xff\xfe{\x00}\x01", 6 },
        { "deep.jsonl", "[[[[[[[[[[[[[[[[[[[[[[", 22 },
        { "torn.jsonl", "{\"instruction\":\"a\",\"output\":\"b", 30 },
        { "odd.jsonl", "{\"messages\":[{\"role\":7}]}\n{\"messages\":null}\n", 45 },
        { "escape.jsonl",
          "{\"instruction\":\"\\u001b[2J\\u202e\",\"output\":\"\\u0007 \\ud83c\\udf3e "
          "e\\u0301\"}\n",
          73 },
    };
    struct launcher_preview preview;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char *path = write_file(files[i].name, files[i].bytes, files[i].size);
        preview_of(path, "auto", &preview);
        draw_preview(&preview);
        free(path);
    }
    preview_of("/nonexistent/file.txt", "auto", &preview);
    assert_false(preview.ok);
    preview_of("/dev/zero", "auto", &preview);
    assert_false(preview.ok);
    preview_of(home, "auto", &preview); /* a directory of all these */
    draw_preview(&preview);
    srand(5);
    for (int round = 0; round < 20; round++) {
        char bytes[600];
        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (char)(round % 2 ? rand() : "{}[]\",:\\ntu01\n a"[rand() % 16]);
        }
        char *path = write_file(round % 3 ? "random.jsonl" : "random.txt", bytes, sizeof(bytes));
        preview_of(path, round % 5 ? "auto" : "alpaca", &preview);
        draw_preview(&preview);
        free(path);
    }
}

/* ---- the configuration ------------------------------------------------------------------------
 */

static void test_settings(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *warning; /* "" for none */
        int glyphs;
    } files[] = {
        { "{}", "", 0 },
        { "{\"glyphs\":\"ascii\",\"smoothing\":\"none\",\"axis\":\"linear\"}", "", 1 },
        { "{\"glyps\":\"ascii\"}", "did you mean glyphs", 0 },
        { "{\"glyphs\":\"tiny\",\"recipe\":3}", "glyphs", 0 },
        { "{\"glyphs\":7,\"zzz\":1,\"yyy\":2}", "and 2 more", 0 },
        { "{\"glyphs\":", "config", 0 },
        { "[1,2]", "object", 0 },
        { "", "config", 0 },
        { "\xff\x1b[2J", "config", 0 },
        { "{\"glyphs\":{\"a\":[null]},\"recipe\":null}", "glyphs", 0 },
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct settings settings;
        char warning[256];
        char *path = write_file("config.json", files[i].text, strlen(files[i].text));
        settings_load(&settings, path, warning, sizeof(warning));
        if ((files[i].warning[0] == '\0') != (warning[0] == '\0') ||
            !strstr(warning, files[i].warning)) {
            fail_msg("%s: \"%s\"", files[i].text, warning);
        }
        assert_null(strchr(warning, '\x1b'));
        assert_int_equal(settings.glyphs, files[i].glyphs);
        assert_non_null(settings.recipe);
        struct workbench workbench;
        workbench_open(&workbench);
        settings_apply(&settings, &workbench);
        assert_int_equal(workbench.linear, i == 1);
        assert_int_equal(workbench.smoothing, i == 1 ? 2 : 0);
        workbench_close(&workbench);
        settings_free(&settings);
        free(path);
    }
    struct settings settings;
    char warning[64];
    settings_load(&settings, "/nonexistent/config.json", warning, sizeof(warning));
    assert_string_equal(warning, "");
    settings_free(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),  cmocka_unit_test(test_saving),
        cmocka_unit_test(test_editing),  cmocka_unit_test(test_steps),
        cmocka_unit_test(test_preview),  cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, open_home, close_home);
}
