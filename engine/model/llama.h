/* The LLaMA family: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al.,
 * arXiv 2302.13971, section 2.2; grouped queries: Ainslie et al., arXiv 2305.13245). */
#ifndef WINDROW_ENGINE_MODEL_LLAMA_H
#define WINDROW_ENGINE_MODEL_LLAMA_H

#include "engine/model/model.h"

extern const struct family_ops llama_family;

#endif
