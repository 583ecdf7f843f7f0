/* Answers of the terminal among the keys. */
#include "app/answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/keymap.h"

enum { ESC = 27, BEL = 7 };
enum verdict { VERDICT_MORE, VERDICT_KEYS, VERDICT_DROP, VERDICT_WHOLE };

static void give(struct answers *answers, uint32_t key)
{
    if (answers->key_count < 2 * ANSWER_SIZE) {
        answers->key[answers->key_count++] = key;
    }
}

/* Held codes 2 to the end (without it) as text; false if some are no ASCII. */
static void inner_text(const struct answers *answers, int end, char out[ANSWER_SIZE])
{
    int size = 0;
    for (int i = 2; i < end; i++) {
        out[size++] = (char)(answers->held[i] & 0x7f);
    }
    out[size] = '\0';
}

/* ESC [ parameters, intermediates, final. */
static enum verdict control_sequence(const struct answers *answers)
{
    if (answers->count == 2) {
        return VERDICT_MORE;
    }
    uint32_t last = answers->held[answers->count - 1];
    if (last >= 0x40 && last <= 0x7e) {
        /* The Linux console sends ESC [ [ A for F1. */
        return answers->count == 3 && last == '[' ? VERDICT_MORE : VERDICT_WHOLE;
    }
    if (last < 0x20 || last > 0x7e || answers->too_long) {
        return answers->count == 3 ? VERDICT_KEYS : VERDICT_DROP;
    }
    return VERDICT_MORE;
}

/* ESC ] number ; text ST. Anything else that follows ESC ] was typed. */
static enum verdict system_command(const struct answers *answers)
{
    if (answers->count == 2) {
        return VERDICT_MORE;
    }
    uint32_t last = answers->held[answers->count - 1];
    if (answers->count == 3) {
        return last >= '0' && last <= '9' ? VERDICT_MORE : VERDICT_KEYS;
    }
    if (last == BEL || (last == '\\' && answers->held[answers->count - 2] == ESC)) {
        return VERDICT_WHOLE;
    }
    if (answers->held[answers->count - 2] == ESC) {
        return VERDICT_DROP;
    }
    return last == ESC || (last >= 0x20 && last <= 0x7e) ? VERDICT_MORE : VERDICT_DROP;
}

static enum verdict judge(const struct answers *answers)
{
    if (answers->count == 1) {
        return VERDICT_MORE;
    }
    if (answers->held[1] == 'O') {
        /* ESC O final: an arrow, Home, End or F1 that came in pieces. */
        uint32_t last = answers->held[answers->count - 1];
        return answers->count == 2                                      ? VERDICT_MORE
               : last < 0x80 && memchr("ABCDHFP", (int)last, 7) != NULL ? VERDICT_WHOLE
                                                                        : VERDICT_KEYS;
    }
    return answers->held[1] == '['   ? control_sequence(answers)
           : answers->held[1] == ']' ? system_command(answers)
                                     : VERDICT_KEYS;
}

/* ---- what a whole one means -------------------------------------------------------------------
 */

/* One to four hexadecimal digits as a part of 1; moves on past them and one '/'. */
static bool take_part(const char **text, double *part)
{
    char *end;
    if (strspn(*text, "0123456789abcdefABCDEF") == 0) {
        return false;
    }
    unsigned long value = strtoul(*text, &end, 16);
    long digits = end - *text;
    if (digits < 1 || digits > 4) {
        return false;
    }
    *part = (double)value / (double)((1ul << (4 * digits)) - 1);
    *text = *end == '/' ? end + 1 : end;
    return true;
}

static void read_ground(const char *text, struct answer *answer)
{
    answer->kind = ANSWER_OTHER;
    if (strncmp(text, "11;rgb", 6) != 0) {
        return;
    }
    text = strchr(text, ':');
    if (!text) {
        return;
    }
    text++;
    if (take_part(&text, &answer->red) && take_part(&text, &answer->green) &&
        take_part(&text, &answer->blue)) {
        answer->kind = ANSWER_GROUND;
    }
}

/* "<0;10;5" */
static void read_mouse(const char *text, uint32_t final, struct answer *answer)
{
    long number[3] = { 0 };
    const char *rest = text + 1;
    for (int i = 0; i < 3; i++) {
        char *end;
        number[i] = strtol(rest, &end, 10);
        if (end == rest || number[i] < 0 || number[i] > 4096) {
            answer->kind = ANSWER_OTHER;
            return;
        }
        rest = *end == ';' ? end + 1 : end;
    }
    answer->kind = ANSWER_MOUSE;
    answer->button = final != 'M'      ? MOUSE_NOTHING
                     : number[0] == 0  ? MOUSE_CLICK
                     : number[0] == 64 ? MOUSE_WHEEL_UP
                     : number[0] == 65 ? MOUSE_WHEEL_DOWN
                                       : MOUSE_NOTHING;
    answer->x = number[1] > 0 ? (int)number[1] - 1 : 0;
    answer->y = number[2] > 0 ? (int)number[2] - 1 : 0;
}

/* Keys that ncurses would have known had they come in one piece. */
static uint32_t key_of(const char *text, uint32_t final)
{
    static const struct {
        const char *text;
        uint32_t final;
        uint32_t key;
    } keys[] = {
        { "", 'A', INPUT_UP },       { "", 'B', INPUT_DOWN },       { "", 'C', INPUT_RIGHT },
        { "", 'D', INPUT_LEFT },     { "", 'H', INPUT_HOME },       { "", 'F', INPUT_END },
        { "", 'Z', INPUT_BACK_TAB }, { "1", '~', INPUT_HOME },      { "4", '~', INPUT_END },
        { "5", '~', INPUT_PAGE_UP }, { "6", '~', INPUT_PAGE_DOWN }, { "7", '~', INPUT_HOME },
        { "8", '~', INPUT_END },     { "3", '~', INPUT_DELETE },    { "11", '~', INPUT_F1 },
        { "[", 'A', INPUT_F1 },
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].final == final && strcmp(keys[i].text, text) == 0) {
            return keys[i].key;
        }
    }
    return 0;
}

static void read_whole(struct answers *answers, struct answer *answer)
{
    char text[ANSWER_SIZE];
    uint32_t final = answers->held[answers->count - 1];
    answer->kind = ANSWER_OTHER;
    if (answers->held[1] == ']') {
        inner_text(answers, answers->count - (final == BEL ? 1 : 2), text);
        read_ground(text, answer);
        return;
    }
    inner_text(answers, answers->count - 1, text);
    uint32_t key = answers->held[1] == 'O' && final == 'P' ? INPUT_F1 : key_of(text, final);
    if (key != 0) {
        give(answers, key);
    } else if (final == 'n' && (strcmp(text, "0") == 0 || strcmp(text, "3") == 0)) {
        answer->kind = ANSWER_READY;
    } else if (text[0] == '<' && (final == 'M' || final == 'm')) {
        read_mouse(text, final, answer);
    }
}

/* ---- the stream ---------------------------------------------------------------------------------
 */

static void drop(struct answers *answers)
{
    answers->count = 0;
    answers->too_long = false;
}

void answer_take(struct answers *answers, uint32_t code, struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    if (answers->count == 0 && code != ESC) {
        give(answers, code);
        return;
    }
    if (answers->count == ANSWER_SIZE) {
        /* Only the end is still of interest. */
        answers->held[ANSWER_SIZE - 2] = answers->held[ANSWER_SIZE - 1];
        answers->count--;
        answers->too_long = true;
    }
    answers->held[answers->count++] = code;
    enum verdict verdict = judge(answers);
    if (verdict == VERDICT_MORE) {
        return;
    }
    if (verdict == VERDICT_KEYS) {
        int count = answers->count;
        drop(answers);
        for (int i = 0; i < count; i++) {
            if (i == count - 1 && code == ESC) {
                answers->held[answers->count++] = code;
            } else {
                give(answers, answers->held[i]);
            }
        }
        return;
    }
    answer->kind = ANSWER_OTHER;
    if (verdict == VERDICT_WHOLE && !answers->too_long) {
        read_whole(answers, answer);
    }
    /* A new one may have begun where this one was cut off. */
    bool cut = verdict == VERDICT_DROP && answers->held[answers->count - 2] == ESC;
    drop(answers);
    if (cut) {
        answers->held[answers->count++] = ESC;
        answer_take(answers, code, answer);
    } else if (verdict == VERDICT_DROP && code == ESC) {
        answers->held[answers->count++] = ESC;
    }
}

void answer_take_key(struct answers *answers, uint32_t key)
{
    answer_give_up(answers);
    give(answers, key);
}

uint32_t answer_key(struct answers *answers)
{
    if (answers->key_count == 0) {
        return 0;
    }
    uint32_t key = answers->key[0];
    answers->key_count--;
    memmove(answers->key, answers->key + 1, (size_t)answers->key_count * sizeof(answers->key[0]));
    return key;
}

double answer_held_until(const struct answers *answers, bool owed)
{
    if (answers->count == 0) {
        return INFINITY;
    }
    if (answers->count > 2) {
        return answers->taken_at + 1;
    }
    return answers->taken_at + (owed ? 0.3 : 0);
}

void answer_give_up(struct answers *answers)
{
    /* ESC, ESC [ and ESC ] can be typed; more than that is the beginning of an answer. */
    for (int i = 0; answers->count <= 2 && i < answers->count; i++) {
        give(answers, answers->held[i]);
    }
    drop(answers);
}
