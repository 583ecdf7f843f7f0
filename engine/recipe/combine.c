/* The table of combinations that are refused: see combine.h. */
#include "engine/recipe/combine.h"

#include <string.h>

#include "kernels/dtype.h"

struct combination {
    bool (*refuses)(const struct recipe *recipe);
    const char *why;
    const char *hint;
};

static bool is(const char *value, const char *name)
{
    return strcmp(value, name) == 0;
}

static bool tradam_selected(const struct recipe *r)
{
    return is(r->optimizer_name, "tradam") &&
           (is(r->method_name, "grass") || is(r->method_name, "galore"));
}

static bool tradam_int8(const struct recipe *r)
{
    return is(r->optimizer_name, "tradam") && r->optimizer_state == STATE_INT8;
}

static bool rad_recomputed(const struct recipe *r)
{
    return is(r->activation_sample, "rad") && !is(r->activation_recompute, "none");
}

static bool nothing_sampled(const struct recipe *r)
{
    return !is(r->activation_sample, "none") && r->activation_keep <= 0.0;
}

static bool cudnn(const struct recipe *r)
{
    return is(r->kernel_attention, "cudnn");
}

static bool cudnn_elsewhere(const struct recipe *r)
{
    return cudnn(r) && strncmp(r->device, "cuda", 4) != 0;
}

static bool cudnn_deterministic(const struct recipe *r)
{
    return cudnn(r) && r->train_deterministic;
}

static bool cudnn_fp32(const struct recipe *r)
{
    return cudnn(r) && r->precision_weights != DTYPE_BF16;
}

static bool cudnn_tail(const struct recipe *r)
{
    return cudnn(r) && r->data_sequence_length % 128 != 0;
}

static bool keeps_columns(const struct recipe *r)
{
    return is(r->method_name, "grass") && r->method_inputs == METHOD_INPUTS_COLUMNS;
}

static bool columns_of_rows(const struct recipe *r)
{
    return keeps_columns(r) && r->method_side != METHOD_SIDE_IN;
}

static bool columns_sampled(const struct recipe *r)
{
    return keeps_columns(r) && !is(r->activation_sample, "none");
}

static bool columns_recomputed(const struct recipe *r)
{
    return keeps_columns(r) && !is(r->activation_recompute, "none");
}

static bool tradam_lazy(const struct recipe *r)
{
    return is(r->optimizer_name, "tradam") && r->method_embedding == METHOD_EMBEDDING_ROWS;
}

static bool exact_without_rows(const struct recipe *r)
{
    return r->method_exact_rows && !is(r->method_name, "grass");
}

static bool exact_fp32(const struct recipe *r)
{
    return r->method_exact_rows && r->precision_weights != DTYPE_BF16;
}

static bool exact_rule(const struct recipe *r)
{
    return r->method_exact_rows && !is(r->optimizer_name, "adamw");
}

static const struct combination combinations[] = {
    { rad_recomputed,
      "activation.sample=rad does not go with activation.recompute: rad thins out what is kept, "
      "recomputing keeps nothing of it, and together they would only add noise to the gradient",
      "use activation.recompute=none, or activation.sample=wta-crs, which also saves FLOPs" },
    { nothing_sampled, "activation.keep=0 leaves activation.sample nothing to keep",
      "set activation.keep to the share that is kept, for example 0.3" },
    { cudnn_elsewhere,
      "kernel.attention=cudnn needs device=cuda: cuDNN runs on NVIDIA devices alone",
      "use kernel.attention=auto" },
    { cudnn_deterministic,
      "kernel.attention=cudnn does not go with train.deterministic=true: its backward adds in any "
      "order",
      "use kernel.attention=auto, which keeps to what repeats, or train.deterministic=false" },
    { cudnn_fp32,
      "kernel.attention=cudnn does not go with precision.weights=fp32: its kernels take bf16 alone",
      "use precision.weights=bf16, or kernel.attention=auto" },
    { cudnn_tail,
      "kernel.attention=cudnn needs a data.sequence_length that is a multiple of 128: with others "
      "some of its versions have given wrong gradients",
      "round data.sequence_length, or use kernel.attention=auto" },
    { exact_without_rows,
      "method.exact_rows=true goes with method.name=grass only: other methods select no rows",
      "leave method.exact_rows at false, or use precision.rounding=stochastic" },
    { exact_fp32,
      "method.exact_rows=true does not go with precision.weights=fp32, where every row is exact",
      "use precision.weights=bf16, or leave method.exact_rows at false" },
    { exact_rule,
      "method.exact_rows=true goes with optimizer.name=adamw only: no other update reads what bf16 "
      "weights cannot hold",
      "use optimizer.name=adamw, or precision.rounding=stochastic" },
    { tradam_selected,
      "optimizer.name=tradam does not go with method.name=grass or galore: the pull towards the "
      "anchor has to be added to the full gradient before it is compressed, and that takes an "
      "anchor as large as the weights, which defeats the method",
      "use optimizer.name=adamw, or method.name=full" },
    { tradam_int8,
      "optimizer.state=int8 does not go with optimizer.name=tradam: its anchor is as large as the "
      "weights, and eight bits for the moments beside it would save little",
      "use optimizer.state=bf16, or optimizer.name=adamw" },
    { tradam_lazy,
      "optimizer.name=tradam does not go with method.embedding=rows: its anchors are taken "
      "together "
      "every few steps, and rows that did not occur would be pulled towards older ones",
      "use method.embedding=dense, or optimizer.name=adamw" },
    { columns_of_rows,
      "method.inputs=columns goes only with method.side=in: the gradient of selected rows wants "
      "all "
      "columns of the inputs",
      "set method.side=in, or method.inputs=whole" },
    { columns_sampled,
      "method.inputs=columns does not go with activation.sample: both replace the same inputs",
      "use activation.sample=none, or method.inputs=whole" },
    { columns_recomputed,
      "method.inputs=columns does not go with activation.recompute: recomputing keeps nothing of "
      "these inputs, so there is nothing to thin out",
      "use activation.recompute=none, or method.inputs=whole, which then takes less memory" },
};

int combine_check(const struct recipe *recipe, struct error *err)
{
    for (size_t i = 0; i < sizeof combinations / sizeof combinations[0]; i++) {
        if (combinations[i].refuses(recipe)) {
            fail(err, ERROR_USAGE, "%s", combinations[i].why);
            return hint(err, "%s", combinations[i].hint);
        }
    }
    return 0;
}

const char *combine_sentence(size_t index)
{
    return index < sizeof combinations / sizeof combinations[0] ? combinations[index].why : NULL;
}
