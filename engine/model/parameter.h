/* What a model is made of: named tensors with a role. */
#ifndef WINDROW_ENGINE_MODEL_PARAMETER_H
#define WINDROW_ENGINE_MODEL_PARAMETER_H

#include <stdbool.h>

#include "kernels/tensor.h"

enum parameter_role {
    PARAMETER_EMBEDDING, /* (V, C), also the head of a tied model */
    PARAMETER_HEAD,      /* (V, C) */
    PARAMETER_NORM,      /* (C) */
    PARAMETER_MATRIX,    /* of a linear layer of a block: (M, N) */
};

struct parameter {
    char name[96]; /* as in Hugging Face files: "model.layers.0.self_attn.q_proj.weight" */
    enum parameter_role role;
    int rank;
    int64_t dim[2];
    uint32_t id;         /* number in the model; keys random numbers */
    bool frozen;         /* it stays as it is: no gradient, no state, no decay */
    bool idle;           /* the method does nothing here; under lora a frozen matrix may not be */
    struct tensor value; /* matrices: a view of rows of their packed layer */
};

static inline int64_t parameter_count(const struct parameter *p)
{
    return p->dim[0] * (p->rank == 2 ? p->dim[1] : 1);
}

/* Decoupled weight decay acts on matrices, embedding and head, not on norms. */
static inline int parameter_decays(const struct parameter *p)
{
    return p->role != PARAMETER_NORM;
}

#endif
