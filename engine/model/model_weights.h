/* Whether weights belong to a configuration: asked before any memory is taken for them. */
#ifndef WINDROW_ENGINE_MODEL_MODEL_WEIGHTS_H
#define WINDROW_ENGINE_MODEL_MODEL_WEIGHTS_H

#include "engine/model/model.h"
#include "engine/model/weights.h"

/* 0 if the source holds every tensor of the model in its shape, and no other (a head stored beside
 * a tied embedding is the embedding again); else ERROR_DATA naming file, tensor and shapes. */
int model_check_weights(const struct model_config *config, const struct weights_source *source,
                        struct error *err);

#endif
