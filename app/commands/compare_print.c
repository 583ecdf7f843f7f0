/* The comparison as text with charts, Markdown, CSV and JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/commands/compare.h"
#include "app/commands/output.h"
#include "app/text.h"
#include "engine/base/json.h"

enum { COLUMNS = 15, DIFFERENCES_MAX = 64, CHART_WIDTH = 64, CHART_HEIGHT = 16 };

/* One number of a run, under the name it has in exports. */
struct column {
    const char *title; /* for people */
    const char *key;   /* in CSV and JSON: with its unit */
    double (*value)(const struct comparison_run *run);
    struct text_number (*text)(double value);
};

static double known(int64_t value)
{
    return value == EVENT_UNKNOWN ? (double)NAN : (double)value;
}

static double loss_equal_tokens(const struct comparison_run *run)
{
    return run->loss_equal_tokens;
}
static double loss_equal_seconds(const struct comparison_run *run)
{
    return run->loss_equal_seconds;
}
static double evaluation(const struct comparison_run *run)
{
    return (double)run->evaluation_loss;
}
static double perplexity(const struct comparison_run *run)
{
    return exp((double)run->evaluation_loss);
}
static double tokens_per_second(const struct comparison_run *run)
{
    return run->tokens_per_second;
}
static double step_ms(const struct comparison_run *run)
{
    return run->step_ms;
}
static double peak_bytes(const struct comparison_run *run)
{
    return (double)run->peak_total_bytes;
}
static double weights_bytes(const struct comparison_run *run)
{
    return (double)run->peak_bytes[MEMORY_WEIGHTS];
}
static double gradients_bytes(const struct comparison_run *run)
{
    return (double)run->peak_bytes[MEMORY_GRADIENTS];
}
static double optimizer_bytes(const struct comparison_run *run)
{
    return (double)run->peak_bytes[MEMORY_OPTIMIZER];
}
static double activations_bytes(const struct comparison_run *run)
{
    return (double)run->peak_bytes[MEMORY_ACTIVATIONS];
}
static double workspace_bytes(const struct comparison_run *run)
{
    return (double)run->peak_bytes[MEMORY_WORKSPACE];
}
static double checkpoint_bytes(const struct comparison_run *run)
{
    return known(run->checkpoint_bytes);
}
static double trained(const struct comparison_run *run)
{
    return known(run->trained_parameters);
}
static double steps(const struct comparison_run *run)
{
    return run->count > 0 ? (double)run->point[run->count - 1].step : 0.0;
}

static const struct column columns[COLUMNS] = {
    { "loss, =tokens", "loss_equal_tokens", loss_equal_tokens, text_loss },
    { "loss, =time", "loss_equal_time", loss_equal_seconds, text_loss },
    { "evaluation", "evaluation_loss", evaluation, text_loss },
    { "perplexity", "perplexity", perplexity, text_value },
    { "tokens/s", "tokens_per_second", tokens_per_second, text_count },
    { "peak", "peak_bytes", peak_bytes, text_bytes },
    { "weights", "weights_bytes", weights_bytes, text_bytes },
    { "gradients", "gradients_bytes", gradients_bytes, text_bytes },
    { "optimizer", "optimizer_bytes", optimizer_bytes, text_bytes },
    { "activations", "activations_bytes", activations_bytes, text_bytes },
    { "workspace", "workspace_bytes", workspace_bytes, text_bytes },
    { "checkpoint", "checkpoint_bytes", checkpoint_bytes, text_bytes },
    { "trained", "trained_parameters", trained, text_count },
    { "step ms", "step_ms", step_ms, text_value },
    { "steps", "steps", steps, text_count },
};
enum { QUALITY_COLUMNS = 6 }; /* the first table of the text form; the rest is the second */

/* The letter of a run in the chart. */
static char letter(size_t index)
{
    return (char)(index < 26 ? 'a' + (int)index : '?');
}

static struct text_number cell(const struct comparison_run *run, const struct column *column)
{
    double value = column->value(run);
    if (!isfinite(value)) {
        return (struct text_number){ "-" };
    }
    return column->text(value);
}

/* ---- text ----------------------------------------------------------------------------------- */

static void print_columns(const struct comparison *comparison, int first, int count)
{
    struct table table;
    const char *row[COLUMNS + 2] = { "", "run" };
    char align[COLUMNS + 3] = "ll";
    memset(align + 2, 'r', (size_t)count);
    align[2 + count] = '\0';
    table_open(&table, align);
    for (int c = 0; c < count; c++) {
        row[2 + c] = columns[first + c].title;
    }
    table_add(&table, row);
    for (size_t i = 0; i < comparison->count; i++) {
        const struct comparison_run *run = &comparison->run[i];
        char mark[2] = { letter(i), '\0' };
        struct text_number number[COLUMNS];
        row[0] = mark;
        row[1] = run->label;
        for (int c = 0; c < count; c++) {
            number[c] = cell(run, &columns[first + c]);
            row[2 + c] = number[c].text;
        }
        table_add(&table, row);
    }
    table_print(&table);
}

static void print_differences(const struct comparison *comparison)
{
    const char *key[DIFFERENCES_MAX];
    size_t count = comparison_differences(comparison, key, DIFFERENCES_MAX);
    count = count < DIFFERENCES_MAX ? count : DIFFERENCES_MAX;
    if (count == 0) {
        return;
    }
    output_data("\nsettings that differ\n");
    for (size_t k = 0; k < count; k++) {
        struct buffer line = { 0 };
        for (size_t i = 0; i < comparison->count; i++) {
            char *value = comparison_setting(&comparison->run[i], key[k]);
            buffer_printf(&line, "  %c %s", letter(i), value[0] != '\0' ? value : "(empty)");
            free(value);
        }
        output_data("  %-24s%s\n", key[k], line.text);
        buffer_free(&line);
    }
}

/* Mean losses of equal stretches of the axis; NaN where a run has no step. */
static void sample_curve(const struct comparison_run *run, enum comparison_axis axis, double end,
                         double curve[CHART_WIDTH])
{
    int count[CHART_WIDTH] = { 0 };
    for (int x = 0; x < CHART_WIDTH; x++) {
        curve[x] = 0.0;
    }
    for (size_t i = 0; i < run->count; i++) {
        double at = comparison_position(run, &run->point[i], axis) / end * CHART_WIDTH;
        if (!isfinite((double)run->point[i].loss) || !(at >= 0.0)) {
            continue;
        }
        int x = at >= CHART_WIDTH ? CHART_WIDTH - 1 : (int)at;
        curve[x] += (double)run->point[i].loss;
        count[x]++;
    }
    for (int x = 0; x < CHART_WIDTH; x++) {
        curve[x] = count[x] > 0 ? curve[x] / count[x] : (double)NAN;
    }
}

/* The first twentieth falls so steeply that it would flatten the rest: it may leave the chart. */
static void chart_range(double (*curve)[CHART_WIDTH], size_t count, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        for (int x = 0; x < CHART_WIDTH; x++) {
            double value = curve[i][x];
            if (isfinite(value)) {
                *low = fmin(*low, value);
                *high = x >= CHART_WIDTH / 20 ? fmax(*high, value) : *high;
            }
        }
    }
    if (!(*high > *low)) {
        *high = *low + 1.0;
    }
}

static void print_chart(const struct comparison *comparison, enum comparison_axis axis)
{
    static const char *const names[] = { "steps", "tokens", "seconds of training" };
    double end = 0.0;
    for (size_t i = 0; i < comparison->count; i++) {
        const struct comparison_run *run = &comparison->run[i];
        if (run->count > 0) {
            end = fmax(end, comparison_position(run, &run->point[run->count - 1], axis));
        }
    }
    if (!(end > 0.0)) {
        return;
    }
    double(*curve)[CHART_WIDTH] = xcalloc(comparison->count, sizeof *curve);
    for (size_t i = 0; i < comparison->count; i++) {
        sample_curve(&comparison->run[i], axis, end, curve[i]);
    }
    double low;
    double high;
    chart_range(curve, comparison->count, &low, &high);
    char grid[CHART_HEIGHT][CHART_WIDTH + 1];
    memset(grid, ' ', sizeof grid);
    for (size_t i = 0; i < comparison->count; i++) {
        for (int x = 0; x < CHART_WIDTH; x++) {
            double at = (high - curve[i][x]) / (high - low) * (CHART_HEIGHT - 1);
            if (isfinite(at) && at > -0.5 && at < CHART_HEIGHT - 0.5) {
                char *place = &grid[(int)(at + 0.5)][x];
                *place = *place == ' ' ? letter(i) : '*';
            }
        }
    }
    output_data("\nloss over %s (* where several meet)\n", names[axis]);
    for (int y = 0; y < CHART_HEIGHT; y++) {
        bool labelled = y == 0 || y == CHART_HEIGHT - 1 || y == CHART_HEIGHT / 2;
        double value = high - (high - low) * y / (CHART_HEIGHT - 1);
        int used = CHART_WIDTH;
        while (used > 0 && grid[y][used - 1] == ' ') {
            used--;
        }
        output_data("%8s |%.*s\n", labelled ? text_loss(value).text : "", used, grid[y]);
    }
    output_data("%8s +%.*s\n%8s  0%*s\n", "", CHART_WIDTH,
                "----------------------------------------------------------------", "",
                CHART_WIDTH - 1, text_count(end).text);
    free(curve);
}

/* "+0.124", or "unknown" where one of the two is. */
static struct text_number difference(double a, double b)
{
    struct text_number out = { "unknown" };
    if (isfinite(a - b)) {
        snprintf(out.text, sizeof out.text, "%+.3f", a - b);
    }
    return out;
}

/* What each run costs and gains against the first one, in words. */
static void print_against_first(const struct comparison *comparison)
{
    const struct comparison_run *first = &comparison->run[0];
    if (comparison->count < 2) {
        return;
    }
    output_data("\nagainst a %s\n", first->label);
    for (size_t i = 1; i < comparison->count; i++) {
        const struct comparison_run *run = &comparison->run[i];
        output_data("  %c %s: memory %s times (optimizer %s, activations %s), speed %s times, "
                    "loss %s at equal tokens, %s at equal time\n",
                    letter(i), run->label, text_value(peak_bytes(run) / peak_bytes(first)).text,
                    text_value(optimizer_bytes(run) / optimizer_bytes(first)).text,
                    text_value(activations_bytes(run) / activations_bytes(first)).text,
                    text_value(run->tokens_per_second / first->tokens_per_second).text,
                    difference(run->loss_equal_tokens, first->loss_equal_tokens).text,
                    difference(run->loss_equal_seconds, first->loss_equal_seconds).text);
    }
}

static void print_text(const struct comparison *comparison, enum comparison_axis axis)
{
    print_columns(comparison, 0, QUALITY_COLUMNS);
    output_data("\n");
    print_columns(comparison, QUALITY_COLUMNS, COLUMNS - QUALITY_COLUMNS);
    output_data("\nequal tokens: %s; equal time: %s of training. Losses are means over the last "
                "tenth before that.\n",
                text_count(comparison->equal_tokens).text,
                text_duration(comparison->equal_seconds).text);
    struct comparison_note note = comparison_fork_note(comparison, "abcdefghijklmnopqrstuvwxyz");
    if (note.text[0] != '\0') {
        output_data("time of forks: %s.\n", note.text);
    }
    print_against_first(comparison);
    print_differences(comparison);
    print_chart(comparison, axis);
}

/* ---- Markdown, CSV, JSON --------------------------------------------------------------------- */

static void print_markdown(const struct comparison *comparison)
{
    output_data("| run |");
    for (int c = 0; c < COLUMNS; c++) {
        output_data(" %s |", columns[c].title);
    }
    output_data("\n|---|");
    for (int c = 0; c < COLUMNS; c++) {
        output_data("--:|");
    }
    output_data("\n");
    for (size_t i = 0; i < comparison->count; i++) {
        output_data("| %s |", comparison->run[i].label);
        for (int c = 0; c < COLUMNS; c++) {
            output_data(" %s |", cell(&comparison->run[i], &columns[c]).text);
        }
        output_data("\n");
    }
}

/* A field of CSV (RFC 4180). */
static void print_field(const char *text)
{
    struct buffer out = { 0 };
    for (const char *c = text; *c != '\0'; c++) {
        buffer_printf(&out, *c == '"' ? "\"\"" : "%c", *c);
    }
    output_data("\"%s\"", out.text != NULL ? out.text : "");
    buffer_free(&out);
}

static void print_csv(const struct comparison *comparison)
{
    output_data("run");
    for (int c = 0; c < COLUMNS; c++) {
        output_data(",%s", columns[c].key);
    }
    output_data("\n");
    for (size_t i = 0; i < comparison->count; i++) {
        print_field(comparison->run[i].label);
        for (int c = 0; c < COLUMNS; c++) {
            double value = columns[c].value(&comparison->run[i]);
            if (isfinite(value)) {
                output_data(",%.9g", value);
            } else {
                output_data(",");
            }
        }
        output_data("\n");
    }
}

/* The loss curve thinned to at most as many points as a chart shows. */
static void add_curve(cJSON *item, const struct comparison_run *run)
{
    cJSON *curve = json_add_array(item, "curve");
    size_t stride = run->count / 512 + 1;
    for (size_t i = 0; i < run->count; i += stride) {
        cJSON *point = json_append_object(curve);
        json_add_number(point, "step", (double)run->point[i].step);
        json_add_number(point, "tokens", run->point[i].tokens);
        json_add_number(point, "seconds",
                        comparison_position(run, &run->point[i], COMPARISON_SECONDS));
        json_add_number(point, "loss", (double)run->point[i].loss);
    }
}

static void print_json(const struct comparison *comparison)
{
    const char *key[DIFFERENCES_MAX];
    size_t count = comparison_differences(comparison, key, DIFFERENCES_MAX);
    cJSON *root = cJSON_CreateObject();
    json_add_number(root, "equal_tokens", comparison->equal_tokens);
    json_add_number(root, "equal_seconds", comparison->equal_seconds);
    cJSON *runs = json_add_array(root, "runs");
    for (size_t i = 0; i < comparison->count; i++) {
        const struct comparison_run *run = &comparison->run[i];
        cJSON *item = json_append_object(runs);
        json_add_text(item, "run", run->label);
        json_add_text(item, "path", run->path);
        if (run->parent != NULL) {
            json_add_text(item, "forked_from", run->parent);
            json_add_number(item, "fork_step", (double)run->fork_step);
            json_add_number(item, "begin_seconds", run->begin_seconds);
        }
        json_add_text(item, "status", run_status_names[run->status]);
        json_add_text(item, "method", run->method);
        for (int c = 0; c < COLUMNS; c++) {
            json_add_number(item, columns[c].key, columns[c].value(run));
        }
        cJSON *settings = json_add_object(item, "settings");
        for (size_t k = 0; k < count && k < DIFFERENCES_MAX; k++) {
            char *value = comparison_setting(run, key[k]);
            json_add_text(settings, key[k], value);
            free(value);
        }
        add_curve(item, run);
    }
    output_json(root);
}

void compare_print(const struct comparison *comparison, enum compare_format format,
                   enum comparison_axis axis)
{
    switch (format) {
    case COMPARE_TEXT:
        print_text(comparison, axis);
        break;
    case COMPARE_MARKDOWN:
        print_markdown(comparison);
        break;
    case COMPARE_CSV:
        print_csv(comparison);
        break;
    case COMPARE_JSON:
        print_json(comparison);
        break;
    }
}
