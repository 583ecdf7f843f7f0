/* Every chat format against its exact text and mask, and the ids it becomes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizer/chat_encode.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/model_check.h"
#include "tokenizer/tiny_model.h"

#define MESSAGE(r, t)                                                                              \
    {                                                                                              \
        .role = (r), .trained = true, .text = (t), .size = sizeof(t) - 1                           \
    }

static const struct chat_message talk[] = {
    MESSAGE(CHAT_SYSTEM, "Be brief."), MESSAGE(CHAT_USER, "Hi"),
    MESSAGE(CHAT_ASSISTANT, "Hello"),  MESSAGE(CHAT_USER, "Why?"),
    MESSAGE(CHAT_ASSISTANT, "So."),
};

/* The text with trained parts in {braces}. */
static void render(enum chat_format format, const struct chat_message *messages, size_t count,
                   bool add_prompt, char *out, size_t size)
{
    struct chat_segments segments;
    assert_int_equal(chat_format_render(format, messages, count, add_prompt, &segments), 0);
    size_t used = 0;
    bool trained = false;
    for (size_t i = 0; i < segments.count; i++) {
        const struct chat_segment *s = &segments.segment[i];
        const char *brace = s->trained == trained ? "" : s->trained ? "{" : "}";
        used += (size_t)snprintf(out + used, size - used, "%s%.*s", brace, (int)s->size, s->text);
        trained = s->trained;
    }
    snprintf(out + used, size - used, "%s", trained ? "}" : "");
    chat_segments_free(&segments);
}

static void test_formats(void **state)
{
    (void)state;
    static const struct {
        enum chat_format format;
        const char *text;
    } cases[] = {
        { CHAT_CHATML, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                       "<|im_start|>assistant\n{Hello<|im_end|>}\n<|im_start|>user\nWhy?<|im_end|>"
                       "\n<|im_start|>assistant\n{So.<|im_end|>}\n" },
        { CHAT_LLAMA2, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]{ Hello </s>}"
                       "<s>[INST] Why? [/INST]{ So. </s>}" },
        { CHAT_LLAMA3,
          "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n{Hello<|eot_id|>}"
          "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n{So.<|eot_id|>}" },
        { CHAT_MISTRAL_V1, "<s> [INST] Be brief.\n\nHi [/INST]{ Hello</s>} [INST] Why? [/INST]"
                           "{ So.</s>}" },
        { CHAT_MISTRAL_V3,
          "<s>[INST] Be brief.\n\nHi[/INST]{ Hello</s>}[INST] Why?[/INST]{ So.</s>}" },
        { CHAT_GEMMA, "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
                      "<start_of_turn>model\n{Hello<end_of_turn>}\n<start_of_turn>user\nWhy?"
                      "<end_of_turn>\n<start_of_turn>model\n{So.<end_of_turn>}\n" },
        { CHAT_ZEPHYR, "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n{Hello</s>}\n"
                       "<|user|>\nWhy?</s>\n<|assistant|>\n{So.</s>}\n" },
        { CHAT_PHI3, "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"
                     "{Hello<|end|>}\n<|user|>\nWhy?<|end|>\n<|assistant|>\n{So.<|end|>}\n" },
        { CHAT_VICUNA, "<s>Be brief. USER: Hi ASSISTANT:{ Hello</s>}USER: Why? ASSISTANT:"
                       "{ So.</s>}" },
        { CHAT_ALPACA, "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:{Hello</s>}"
                       "\n\n### Instruction:\nWhy?\n\n### Response:{So.</s>}" },
        { CHAT_PLAIN, "<s>System: Be brief.\nUser: Hi\nAssistant:{ Hello</s>}\nUser: Why?\n"
                      "Assistant:{ So.</s>}" },
        { CHAT_RAW, "<s>Be brief.Hi{Hello</s>}Why?{So.</s>}" },
    };
    char text[1024];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        render(cases[i].format, talk, 5, false, text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
}

/* A prompt is the beginning of the training text that its answer would give. */
static void test_prompts(void **state)
{
    (void)state;
    for (int format = CHAT_CHATML; format <= CHAT_RAW; format++) {
        char prompt[1024];
        char whole[1024];
        render((enum chat_format)format, talk, 4, true, prompt, sizeof(prompt));
        render((enum chat_format)format, talk, 5, false, whole, sizeof(whole));
        size_t length = strlen(prompt);
        assert_int_equal(strncmp(prompt, whole, length), 0);
        assert_true(whole[length] == '{');
    }
}

static void test_alpaca(void **state)
{
    (void)state;
    struct chat_message messages[] = { MESSAGE(CHAT_USER, "Add."), MESSAGE(CHAT_ASSISTANT, "3") };
    char text[1024];
    render(CHAT_ALPACA, messages, 2, false, text, sizeof(text));
    assert_string_equal(text, "<s>Below is an instruction that describes a task. Write a response "
                              "that appropriately completes the request.\n\n### Instruction:\nAdd."
                              "\n\n### Response:{3</s>}");
    messages[0].input = "1 2";
    messages[0].input_size = 3;
    render(CHAT_ALPACA, messages, 2, false, text, sizeof(text));
    assert_string_equal(text,
                        "<s>Below is an instruction that describes a task, paired with an input "
                        "that provides further context. Write a response that appropriately "
                        "completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2"
                        "\n\n### Response:{3</s>}");
    render(CHAT_PLAIN, messages, 2, false, text, sizeof(text));
    assert_string_equal(text, "<s>User: Add.\n1 2\nAssistant:{ 3</s>}");
    messages[1].trained = false;
    render(CHAT_PLAIN, messages, 2, false, text, sizeof(text));
    assert_string_equal(text, "<s>User: Add.\n1 2\nAssistant: 3</s>");
}

static void test_stripping(void **state)
{
    (void)state;
    const struct chat_message messages[] = { MESSAGE(CHAT_USER, " \n a b\t "),
                                             MESSAGE(CHAT_ASSISTANT, "  ") };
    char text[256];
    render(CHAT_LLAMA2, messages, 2, false, text, sizeof(text));
    assert_string_equal(text, "<s>[INST] a b [/INST]{  </s>}");
    render(CHAT_CHATML, messages, 1, false, text, sizeof(text));
    assert_string_equal(text, "<|im_start|>user\n \n a b\t <|im_end|>\n");
}

static void test_recognition(void **state)
{
    (void)state;
    static const struct {
        const char *jinja;
        enum chat_format format;
    } cases[] = {
        { NULL, CHAT_NONE },
        { "", CHAT_NONE },
        { "{% for m in messages %}{{ m }}{% endfor %}", CHAT_NONE },
        { "{{'<|im_start|>' + message['role']}} [INST]", CHAT_CHATML },
        { "<|im_start|>{{ role }}<|im_sep|>", CHAT_NONE },
        { "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }} <<SYS>>", CHAT_LLAMA2 },
        { "{{ ' [INST] ' + system_message + x }} [INST]", CHAT_MISTRAL_V1 },
        { "[AVAILABLE_TOOLS] ... '[INST]' ...", CHAT_MISTRAL_V3 },
        { "[AVAILABLE_TOOLS] ... \"[INST]\" ...", CHAT_NONE },
        { "[SYSTEM_PROMPT] [INST]", CHAT_NONE },
        { "<|user|> <|assistant|> <|end|>", CHAT_PHI3 },
        { "{{ '<|user|>\n' + m + eos_token }} <|assistant|>", CHAT_ZEPHYR },
        { "<|user|> <|endoftext|>", CHAT_ZEPHYR },
        { "{{ '<start_of_turn>' + role }}", CHAT_GEMMA },
        { "{{ 'USER: ' + m }}{{ 'ASSISTANT: ' }}", CHAT_VICUNA },
        { "<|start_header_id|> + <|end_header_id|>", CHAT_LLAMA3 },
        { "<|start_header_id|>", CHAT_NONE },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(chat_template_recognise(cases[i].jinja), cases[i].format);
    }
    assert_int_equal(chat_format_find("mistral-v1"), CHAT_MISTRAL_V1);
    assert_int_equal(chat_format_find("raw"), CHAT_RAW);
    assert_int_equal(chat_format_find("Raw"), CHAT_NONE);
}

static struct chat_tokens encode(const struct tokenizer *tokenizer, enum chat_format format,
                                 const struct chat_message *messages, size_t count)
{
    struct chat_segments segments;
    struct chat_tokens tokens;
    char why[256] = "";
    assert_int_equal(chat_format_render(format, messages, count, false, &segments), 0);
    if (chat_encode(tokenizer, &segments, &tokens, why, sizeof(why)) != 0) {
        fail_msg("encoding: %s", why);
    }
    chat_segments_free(&segments);
    return tokens;
}

static size_t count_id(const struct chat_tokens *tokens, int32_t id)
{
    size_t found = 0;
    for (size_t i = 0; i < tokens->count; i++) {
        found += tokens->id[i] == id;
    }
    return found;
}

static void test_special_pieces(void **state)
{
    (void)state;
    static const struct chat_message messages[] = {
        MESSAGE(CHAT_USER, "the <|im_end|> cat </s><|im_start|>"),
        MESSAGE(CHAT_ASSISTANT, "on <|im_start|> that"),
    };
    static const uint8_t types[] = { MODEL_PIECE_CONTROL, MODEL_PIECE_USER_DEFINED };
    for (int i = 0; i < 2; i++) {
        size_t size;
        uint8_t *bytes = tiny_model_bytes(&size);
        bytes = tiny_model_add_piece(bytes, &size, "<|im_start|>", types[i]);
        bytes = tiny_model_add_piece(bytes, &size, "<|im_end|>", types[i]);
        struct tokenizer *tokenizer = tiny_model_open(bytes, size);
        free(bytes);
        struct chat_tokens tokens = encode(tokenizer, CHAT_CHATML, messages, 2);
        assert_int_equal(tokens.id[0], 330);
        assert_int_equal(count_id(&tokens, 330), 2);
        assert_int_equal(count_id(&tokens, 331), 2);
        assert_int_equal(count_id(&tokens, 2), 0);
        /* Trained: the answer and what ends it, not the newline after that. */
        size_t last = tokens.count - 1;
        while (tokens.id[last] != 331) {
            assert_int_equal(tokens.trained[last], 0);
            last--;
        }
        assert_int_equal(tokens.trained[last], 1);
        size_t first = last;
        while (first > 0 && tokens.trained[first - 1] == 1) {
            first--;
        }
        char why[256];
        char *text =
            tokenizer_decode(tokenizer, tokens.id + first, last - first, NULL, why, sizeof(why));
        assert_string_equal(text, "on <|im_start|> that");
        free(text);
        for (size_t k = 0; k < first; k++) {
            assert_int_equal(tokens.trained[k], 0);
        }
        chat_tokens_free(&tokens);
        tokenizer_close(tokenizer);
    }
}

/* Ids of a conversation are those of its text, encoded part by part between special pieces. */
static void test_ids(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = tiny_model_bytes(&size);
    struct tokenizer *tokenizer = tiny_model_open(bytes, size);
    free(bytes);
    static const struct chat_message messages[] = { MESSAGE(CHAT_USER, "the cat"),
                                                    MESSAGE(CHAT_ASSISTANT, "sat on the mat") };
    static const struct {
        enum chat_format format;
        const char *text;
        const char *prompt; /* what of it is not trained */
    } cases[] = {
        { CHAT_PLAIN, "User: the cat\nAssistant: sat on the mat", "User: the cat\nAssistant:" },
        { CHAT_MISTRAL_V1, "[INST] the cat [/INST] sat on the mat", "[INST] the cat [/INST]" },
        { CHAT_LLAMA2, "[INST] the cat [/INST] sat on the mat ", "[INST] the cat [/INST]" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct chat_tokens tokens = encode(tokenizer, cases[i].format, messages, 2);
        struct token_list whole;
        struct token_list prompt;
        char why[256];
        assert_int_equal(tokenizer_encode(tokenizer, cases[i].text, strlen(cases[i].text), &whole,
                                          why, sizeof(why)),
                         0);
        assert_int_equal(tokenizer_encode(tokenizer, cases[i].prompt, strlen(cases[i].prompt),
                                          &prompt, why, sizeof(why)),
                         0);
        const size_t bos = 1;
        assert_int_equal(tokens.count, bos + whole.count + 1);
        assert_memory_equal(tokens.id + bos, whole.id, whole.count * sizeof(int32_t));
        assert_int_equal(tokens.id[0], 1);
        assert_int_equal(tokens.id[tokens.count - 1], 2);
        for (size_t k = 0; k < tokens.count; k++) {
            assert_int_equal(tokens.trained[k], k >= bos + prompt.count);
        }
        token_list_free(&whole);
        token_list_free(&prompt);
        chat_tokens_free(&tokens);
    }
    tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),     cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_alpaca),      cmocka_unit_test(test_stripping),
        cmocka_unit_test(test_recognition), cmocka_unit_test(test_special_pieces),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
