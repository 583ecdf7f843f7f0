/*
 * Writing a Hugging Face model directory, or an adapter directory of peft.
 *
 * Everything is written and synced in a directory beside the target, which then takes its name: the
 * target is there whole or not at all.
 */
#ifndef WINDROW_ENGINE_MODEL_EXPORT_H
#define WINDROW_ENGINE_MODEL_EXPORT_H

#include "engine/model/config.h"
#include "engine/model/safetensors.h"

struct model_export {
    const char *target; /* must not exist, or be an empty directory */
    const struct model_config *config;

    /* The weights, in the order of the file, under their Hugging Face names. */
    const struct safetensors_entry *entry;
    size_t entry_count;
    /* Puts elements [first, first + count) of entry `index` into `out`, in the entry's dtype. Asked
     * in order, at most 1 MiB at a time. */
    int (*read)(void *context, size_t index, int64_t first, int64_t count, void *out,
                struct error *err);
    void *context;

    /* If not NULL, the directory is an adapter: this goes to adapter_config.json and the tensors to
     * adapter_model.safetensors; nothing else is written. */
    const cJSON *adapter;

    /* generation_config.json and the tokenizer's files are copied from here byte for byte. May be
     * NULL or "". */
    const char *source_directory;
    /* Where the tokenizer's files lie if not there: NULL means there, "" that they are not copied.
     */
    const char *tokenizer_directory;
    /* Written as tokenizer.model if nothing was copied, with a small tokenizer_config.json. May be
     * NULL. The pieces may be NULL: then the tokenizer has none. */
    const void *tokenizer_bytes;
    size_t tokenizer_size;
    const char *bos_piece;
    const char *eos_piece;
    const char *unk_piece;
};

/* The tokenizer_config.json that goes with tokenizer_bytes: from the pieces and the model's length.
 */
cJSON *model_export_tokenizer_config(const struct model_export *args);

int model_export(const struct model_export *args, struct error *err);

#endif
