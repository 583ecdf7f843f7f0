/* What configurations of models for tests have in common: the members that say nothing of sizes. */
#ifndef WINDROW_TESTS_LLAMA_H
#define WINDROW_TESTS_LLAMA_H

#define LLAMA_REST                                                                                 \
    .family = "llama", .model_type = "llama", .rms_norm_eps = 1e-5, .rope_theta = 10000.0,         \
    .bos = -1, .eos = -1, .pad = -1, .dtype = DTYPE_F32

#endif
