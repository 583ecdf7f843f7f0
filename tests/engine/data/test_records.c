/* Every form of record becomes the conversation it stands for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/json.h"
#include "engine/data/corpus.h"
#include "engine/data/records.h"

/* "role:text" of each message, joined by "|"; "*" marks a trained one, "+" an input. */
static void show(const struct conversation *conversation, char *out, size_t size)
{
    static const char letters[] = "suat";
    size_t used = 0;
    out[0] = '\0';
    if (conversation->text != NULL) {
        snprintf(out, size, "%s", conversation->text);
        return;
    }
    for (size_t i = 0; i < conversation->count; i++) {
        const struct chat_message *m = &conversation->message[i];
        used += (size_t)snprintf(out + used, size - used, "%s%c%s:%.*s", i > 0 ? "|" : "",
                                 letters[m->role], m->trained ? "*" : "", (int)m->size, m->text);
        if (m->input_size > 0) {
            used +=
                (size_t)snprintf(out + used, size - used, "+%.*s", (int)m->input_size, m->input);
        }
    }
}

static const struct {
    const char *json;
    enum data_format format;
    const char *shown;
} good[] = {
    { "{\"text\":\"hello\"}", DATA_TEXT, "hello" },
    { "{\"content\":\"hello\",\"id\":1}", DATA_TEXT, "hello" },
    { "{\"instruction\":\"I\",\"output\":\"O\"}", DATA_ALPACA, "u:I|a*:O" },
    { "{\"instruction\":\"I\",\"input\":\"X\",\"output\":\"O\",\"text\":\"whole\"}", DATA_ALPACA,
      "u:I+X|a*:O" },
    { "{\"instruction\":\"I\",\"context\":\"C\",\"response\":\"R\"}", DATA_ALPACA, "u:I+C|a*:R" },
    { "{\"instruction\":\"I\",\"input\":null,\"output\":\"O\",\"system\":\"S\","
      "\"history\":[[\"q\",\"r\"]]}",
      DATA_ALPACA, "s:S|u:q|a*:r|u:I|a*:O" },
    { "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":"
      "\"U\"},{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"tool\",\"content\":\"T\"},"
      "{\"role\":\"model\",\"content\":\"B\"}]}",
      DATA_MESSAGES, "s:S|u:U|a*:A|t:T|a*:B" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
      "{\"type\":\"text\",\"value\":\"b\"}]},{\"role\":\"assistant\",\"content\":\"A\","
      "\"weight\":0},{\"role\":\"assistant\",\"content\":\"B\",\"train\":false},"
      "{\"role\":\"assistant\",\"content\":\"C\",\"loss_weight\":1.0}]}",
      DATA_MESSAGES, "u:ab|a:A|a:B|a*:C" },
    { "{\"conversations\":[{\"from\":\"human\",\"value\":\"H\"},{\"from\":\"gpt\",\"value\":"
      "\"G\"},{\"from\":\"observation\",\"value\":\"O\"},{\"from\":\"function_call\",\"value\":"
      "\"F\"}],\"system\":\"S\"}",
      DATA_SHAREGPT, "s:S|u:H|a*:G|t:O|a*:F" },
    { "{\"conversation\":[{\"from\":\"user\",\"value\":\"H\"},{\"from\":\"chatgpt\",\"value\":"
      "\"G\"}]}",
      DATA_SHAREGPT, "u:H|a*:G" },
    { "{\"conversations\":[{\"role\":\"user\",\"content\":\"H\"},{\"role\":\"assistant\","
      "\"content\":\"G\"}]}",
      DATA_MESSAGES, "u:H|a*:G" },
    { "{\"prompt\":\"P\",\"completion\":\"C\"}", DATA_COMPLETION, "u:P|a*:C" },
    { "{\"question\":\"P\",\"answer\":\"C\"}", DATA_COMPLETION, "u:P|a*:C" },
    { "{\"query\":\"P\",\"response\":\"C\"}", DATA_COMPLETION, "u:P|a*:C" },
    { "{\"input\":\"P\",\"output\":\"C\"}", DATA_COMPLETION, "u:P|a*:C" },
    { "{\"prompt\":[{\"role\":\"user\",\"content\":\"P\"},{\"role\":\"assistant\",\"content\":"
      "\"Q\"}],\"completion\":[{\"role\":\"assistant\",\"content\":\"C\"}]}",
      DATA_COMPLETION, "u:P|a:Q|a*:C" },
};

static void test_formats(void **state)
{
    (void)state;
    struct conversation conversation = { 0 };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct error err = { 0 };
        char reason[RECORDS_REASON_SIZE] = "";
        char shown[256];
        cJSON *row = json_parse(good[i].json, strlen(good[i].json), "test", 1, &err);
        assert_non_null(row);
        assert_int_equal(records_format_of(row), good[i].format);
        if (records_read(row, good[i].format, &conversation, reason) != 0) {
            fail_msg("%s: %s", good[i].json, reason);
        }
        show(&conversation, shown, sizeof(shown));
        assert_string_equal(shown, good[i].shown);
        cJSON_Delete(row);
    }
    conversation_free(&conversation);
}

static const struct {
    const char *json;
    enum data_format format;
    const char *words;
} bad[] = {
    { "[1]", DATA_TEXT, "not an object" },
    { "{\"txt\":1}", DATA_TEXT, "\"text\"" },
    { "{\"text\":\"\"}", DATA_TEXT, "empty" },
    { "{\"instruction\":\"I\"}", DATA_ALPACA, "\"output\"" },
    { "{\"output\":\"O\"}", DATA_ALPACA, "\"instruction\"" },
    { "{\"instruction\":\"I\",\"output\":\"\"}", DATA_ALPACA, "empty" },
    { "{\"instruction\":\"I\",\"output\":\"O\",\"input\":5}", DATA_ALPACA, "\"input\"" },
    { "{\"instruction\":\"I\",\"output\":\"O\",\"history\":[[\"a\"]]}", DATA_ALPACA, "history" },
    { "{\"messages\":7}", DATA_MESSAGES, "no list \"messages\"" },
    { "{\"messages\":[]}", DATA_MESSAGES, "no message of the assistant" },
    { "{\"messages\":[5]}", DATA_MESSAGES, "without \"role\"" },
    { "{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", DATA_MESSAGES, "king" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", DATA_MESSAGES, "not text" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", DATA_MESSAGES,
      "not text" },
    { "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]}]}", DATA_MESSAGES,
      "tool_calls" },
    { "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\",\"weight\":0}]}", DATA_MESSAGES,
      "left out" },
    { "{\"conversations\":[{\"from\":\"human\",\"value\":\"H\"}]}", DATA_SHAREGPT, "assistant" },
    { "{\"prompt\":\"P\"}", DATA_COMPLETION, "completion" },
    { "{\"prompt\":5,\"completion\":\"C\"}", DATA_COMPLETION, "not text" },
};

static void test_refusals(void **state)
{
    (void)state;
    struct conversation conversation = { 0 };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = { 0 };
        char reason[RECORDS_REASON_SIZE] = "";
        cJSON *row = json_parse(bad[i].json, strlen(bad[i].json), "test", 1, &err);
        assert_non_null(row);
        assert_int_equal(records_read(row, bad[i].format, &conversation, reason), -1);
        if (strstr(reason, bad[i].words) == NULL) {
            fail_msg("%s: '%s' does not say '%s'", bad[i].json, reason, bad[i].words);
        }
        cJSON_Delete(row);
    }
    conversation_free(&conversation);
}

static void assert_detected(const struct corpus *corpus, const char *text, enum data_format format)
{
    enum data_format found;
    struct error err = { 0 };
    assert_int_equal(records_detect(corpus_write(corpus, "x.jsonl", text), &found, &err), 0);
    assert_int_equal(found, format);
    assert_int_equal(err.code, ERROR_NONE);
}

static void assert_undetected(const struct corpus *corpus, const char *text, const char *words)
{
    enum data_format found;
    struct error err = { 0 };
    assert_int_equal(records_detect(corpus_write(corpus, "x.jsonl", text), &found, &err), -1);
    if (strstr(err.message, words) == NULL) {
        fail_msg("'%s' does not say '%s'", err.message, words);
    }
}

static void test_detection(void **state)
{
    const struct corpus *corpus = *state;
    assert_detected(corpus, "{\"text\":\"a\"}\n", DATA_TEXT);
    assert_detected(corpus, "nonsense\n{}\n{\"text\":\"a\"}\n", DATA_TEXT);
    assert_detected(corpus, "[{\"prompt\":\"a\",\"completion\":\"b\"}]", DATA_COMPLETION);
    assert_undetected(corpus, "{\"text\":\"a\"}\n\n{\"prompt\":\"a\",\"completion\":\"b\"}\n",
                      "line 1 is of the format text, line 3 of completion");
    assert_undetected(corpus, "{\"foo\":\"a\",\"bar\":1}\n", "\"foo\", \"bar\"");
    assert_undetected(corpus, "\n{\"chosen\":\"a\",\"rejected\":\"b\"}\n", "x.jsonl:2");
    assert_undetected(corpus, "\n\n", "no records");
    assert_undetected(corpus, "{\"text\":\"a\n", "x.jsonl: line 1, column 9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_detection),
    };
    return cmocka_run_group_tests(tests, corpus_set_up, corpus_tear_down);
}
