/*
 * Makes presets/tokenizers/stories.model from the texts in presets/data with the project's own
 * tokenizer_train. Not part of the tests: run by hand after the texts have changed.
 *
 *     cmake --build build --target tokenizer
 *     cc -std=gnu11 -I. tests/reference/train_tokenizer.c build/tokenizer/libtokenizer.a \
 *         -lsentencepiece -lsentencepiece_train -lcjson -lstdc++ -lm -o /tmp/train_tokenizer
 *     /tmp/train_tokenizer presets/data/stories.txt presets/data/instruct.jsonl 1024 \
 *         presets/tokenizers/stories.model
 *
 * Texts are the lines of the first file, and instruction, input and output of every object in the
 * second, each followed by the fixed words of the alpaca template, so that these get pieces too.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tokenizer.h"

struct texts {
    char **text;
    size_t count;
    size_t capacity;
};

static const char *const template_words[] = {
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.",
    "### Instruction:",
    "### Input:",
    "### Response:",
};

static void add(struct texts *texts, const char *text)
{
    if (texts->count == texts->capacity) {
        texts->capacity = texts->capacity ? 2 * texts->capacity : 1024;
        texts->text = realloc(texts->text, texts->capacity * sizeof *texts->text);
    }
    char *copy = texts->text ? strdup(text) : NULL;
    if (!copy) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    texts->text[texts->count++] = copy;
}

static void add_record(struct texts *texts, const char *line)
{
    static const char *const keys[] = { "instruction", "input", "output" };
    cJSON *json = cJSON_Parse(line);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, keys[i]);
        if (cJSON_IsString(value) && value->valuestring[0]) {
            add(texts, value->valuestring);
        }
    }
    for (size_t i = 0; i < sizeof template_words / sizeof template_words[0]; i++) {
        add(texts, template_words[i]);
    }
    cJSON_Delete(json);
}

static bool read_lines(const char *path, bool records, struct texts *texts)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return false;
    }
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (records) {
            add_record(texts, line);
        } else if (line[0] && strcmp(line, "<|endoftext|>") != 0) {
            add(texts, line);
        }
    }
    free(line);
    fclose(file);
    return true;
}

int main(int argc, char **argv)
{
    struct texts texts = { 0 };
    if (argc != 5 || !read_lines(argv[1], false, &texts) || !read_lines(argv[2], true, &texts)) {
        fprintf(stderr, "usage: train_tokenizer TEXT RECORDS PIECES MODEL\n");
        return 2;
    }
    char why[256] = "";
    size_t size = 0;
    void *model = tokenizer_train((const char *const *)texts.text, texts.count,
                                  (int32_t)strtol(argv[3], NULL, 10), &size, why, sizeof why);
    FILE *file = model ? fopen(argv[4], "wb") : NULL;
    if (!file || fwrite(model, 1, size, file) != size || fclose(file) != 0) {
        fprintf(stderr, "%s: %s\n", argv[4], model ? "cannot be written" : why);
        return 1;
    }
    printf("%s: %zu bytes from %zu texts\n", argv[4], size, texts.count);
    free(model);
    for (size_t i = 0; i < texts.count; i++) {
        free(texts.text[i]);
    }
    free(texts.text);
    return 0;
}
