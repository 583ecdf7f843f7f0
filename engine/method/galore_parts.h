/* What GaLore holds: shared by galore.c (the step), galore_refresh.c (choosing a basis) and
 * galore_state.c (saving and restoring). */
#ifndef WINDROW_ENGINE_METHOD_GALORE_PARTS_H
#define WINDROW_ENGINE_METHOD_GALORE_PARTS_H

#include "engine/method/method.h"

enum {
    GALORE_TILE = 1 << 20, /* elements of an update that exist at a time (at least a row) */
    GALORE_PROBES = 16,
};

/* `refreshed` of a matrix that never was, and of one whose rank changed since. */
enum { GALORE_NEVER = 0, GALORE_OTHER_RANK = -1 };

/* One matrix W (m, n). */
struct galore_part {
    const struct linear *linear;
    const struct linear_part *part;
    bool right; /* m >= n: the basis is on the inputs */
    int64_t small, large, rank;
    struct tensor basis;    /* (small, rank), of the model's dtype */
    struct tensor gradient; /* R (large, rank) */
    struct rule_state state;
    int32_t refreshed; /* the step that chose the basis, or GALORE_NEVER, GALORE_OTHER_RANK */
    bool refreshing;   /* this step chooses anew */
    void *before;      /* host: the basis that `refreshing` replaces; NULL in a plan */
    double energy;     /* captured, of the refresh being prepared */
    struct selection_report report;
};

struct galore {
    struct galore_part *part;
    int64_t part_count;
    int64_t *first_part; /* (linears + 1) */
    int64_t *reported;   /* parts that the latest refresh chose anew */
    int64_t reported_count;
    int64_t tile; /* GALORE_TILE; tests cut finer */
};

/* The columns of dy or x that belong to one side of a matrix. */
struct galore_operand {
    const struct tensor *tensor; /* (T, more) */
    int64_t first, columns;
};
/* ... to the side that the basis is on, and to the other. */
struct galore_operands {
    struct galore_operand small, large;
};
struct galore_operands galore_operands_of(const struct galore_part *part, const struct tensor *dy,
                                          const struct tensor *x);

/* thin (T, r) = operand basis. */
void galore_thin(struct backend *be, struct tensor *thin, const struct galore_operand *operand,
                 const struct tensor *basis);
/* wide (columns, r) = operand^T thin + beta wide. */
void galore_wide(struct backend *be, struct tensor *wide, const struct galore_operand *operand,
                 const struct tensor *thin, float beta);

/* A matrix in the workspace. */
struct tensor galore_scratch(struct memory *memory, const char *name, enum dtype dtype,
                             int64_t rows, int64_t columns);

/* Chooses a new basis from this micro-batch and keeps the old one on the host. */
void galore_refresh_part(struct method *method, struct pass *pass, struct galore_part *part,
                         const struct tensor *dy, const struct tensor *x);
/* Measures what the new basis captures; `gradient` is that of this micro-batch alone. */
void galore_measure_part(struct method *method, struct pass *pass, struct galore_part *part,
                         const struct tensor *dy, const struct tensor *x);
/* Takes it into use for good, or puts the old one back. */
void galore_commit_part(struct method *method, struct galore_part *part);
void galore_revert_part(struct method *method, struct galore_part *part);

void galore_visit(struct method *method, const struct state_visitor *visitor);
int galore_restore(struct method *method, const struct state_source *source, struct error *err);

#endif
