/*
 * The table of rotations: cosines and sines of position * frequency.
 *
 * inv_freq[i] = theta^(-2i/D) (Su et al., arXiv 2104.09864, section 3.2.2); `linear` scaling
 * divides it by factor; `llama3` scaling divides long wavelengths by factor, keeps short ones and
 * blends between (the rope_scaling "llama3" of Hugging Face configurations).
 */
#ifndef WINDROW_ENGINE_MODEL_ROPE_TABLE_H
#define WINDROW_ENGINE_MODEL_ROPE_TABLE_H

#include "engine/model/config.h"
#include "kernels/backend.h"

/* Angular frequency of pair i (0 .. head_size / 2 - 1). */
double rope_frequency(const struct model_config *config, int64_t i);

/* Fills table (P, D) fp32: D/2 cosines, then D/2 sines a row. On the null backend it stays empty.
 */
void rope_table_upload(const struct model_config *config, struct backend *be, struct tensor *table);

#endif
