/* A recipe as small as it gets, for tests that train. */
#include "app/tiny.h"

#include <stdlib.h>

#include "app/program.h"
#include "engine/base/xalloc.h"

/* A text with few words, long enough for some windows. */
static char *write_text(void)
{
    static const char *const who[] = { "the cat", "a dog", "my bird", "the old man", "a child" };
    static const char *const does[] = { "sees", "likes", "follows", "finds" };
    struct buffer text = { 0 };
    for (int i = 0; i < 600; i++) {
        buffer_printf(&text, "%s %s %s and %s %s.%s", who[i % 5], does[i % 4], who[(i * 3 + 1) % 5],
                      does[(i / 3) % 4], who[(i / 7) % 5], i % 6 == 5 ? "\n" : " ");
        if (i % 60 == 59) {
            buffer_printf(&text, "<|endoftext|>\n");
        }
    }
    char *path = program_file("text.txt", text.text);
    buffer_free(&text);
    return path;
}

char *tiny_recipe(int steps)
{
    char *text = write_text();
    char *json = xasprintf(
        "{\"intent\": \"as small as it gets\","
        " \"model\": {\"preset\": \"llama-micro\"}, \"tokenizer\": {\"vocab\": 320},"
        " \"data\": {\"train\": \"%s\", \"validation\": \"0.1\", \"sequence_length\": 32},"
        " \"method\": {\"name\": \"grass\", \"rank\": 16, \"interval\": 4},"
        " \"optimizer\": {\"lr\": 0.003}, \"batch\": {\"micro\": 4},"
        " \"train\": {\"steps\": %d, \"save_every\": 4, \"eval_every\": 4}}\n",
        text, steps);
    char *path = program_file("tiny.json", json);
    free(json);
    free(text);
    return path;
}
