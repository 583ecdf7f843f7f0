/*
 * The manual of operations.
 *
 * Every operation takes tensors, returns nothing and latches errors in the backend (backend.h).
 * kernels/ops.c checks shapes, dtypes and ranges once for all backends, counts FLOPs and bytes, and
 * calls the backend's table (backend_ops.h), whose entries have the very same signatures.
 *
 * Letters: T tokens of a micro-batch (B rows of S tokens, T = B * S), C hidden size, H query heads,
 * K key/value heads, D head size, F feed-forward size, V vocabulary, M rows and N columns of a
 * weight matrix (M outputs, N inputs: y = x W^T), R selected rows or columns.
 *
 * Conventions
 *  - Outputs come first. Tensors are contiguous; a tensor of any rank is seen as (rows, columns)
 *    where columns is its last dimension, unless a shape is given.
 *  - "float" tensors are fp32 or bf16, in any mixture unless said otherwise. Values are converted
 *    to fp32, computed in fp32 (long sums in double on the cpu) and stored to nearest, except where
 *    a rounding is an argument.
 *  - "adds to" means y += result; otherwise the old contents of an output are not read.
 *  - An output may not overlap an input except where "in place" or "may alias" is said.
 *  - Every result is a pure function of the arguments: sums are taken in a fixed order whatever the
 *    number of threads; random numbers are keyed by (seed, purpose, tensor, step, element).
 *  - int32 inputs that index something are trusted on the device: the engine checks token ids,
 *    positions and the like on the host before upload.
 */
#ifndef WINDROW_KERNELS_OPS_H
#define WINDROW_KERNELS_OPS_H

#include "kernels/backend.h"
#include "kernels/quantize.h"
#include "kernels/random.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- elementwise ------------------------------------------------------------------------- */

/* Of any dtype. */
void op_zero(struct backend *be, struct tensor *y);

/* y = x, converting between fp32 and bf16 (to nearest); uint8 and int16 as they are. Same element
 * count. */
void op_copy(struct backend *be, struct tensor *y, const struct tensor *x);

/* y += x. Same element count. */
void op_add(struct backend *be, struct tensor *y, const struct tensor *x);

/* y *= s. */
void op_scale(struct backend *be, struct tensor *y, float s);

/* sum (1) fp32 = sum of x, adding to it if `accumulate`. */
void op_sum(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate);

/* sum (1) fp32 = sum of x^2, adding to it if `accumulate`. */
void op_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x,
                    bool accumulate);

/* Decides, on the device, what becomes of an optimizer step.
 *   norm = sqrt(sum_squares); control (3) fp32 = { factor, skip, norm } with
 *   factor = min(1, clip / (norm + 1e-6)), or 1 if clip is 0;
 *   skip = 1 if norm or the loss is not finite, else 0.
 * sum_squares (1), loss (1) fp32. The optimizer operations below obey `control`, so that no
 * answer has to come back to the host in the middle of a step. */
enum { CONTROL_FACTOR, CONTROL_SKIP, CONTROL_NORM, CONTROL_COUNT };
void op_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
             const struct tensor *loss, float clip);

/* ---- matrix product ---------------------------------------------------------------------- */

/* c (m, n) = op(a) op(b) + beta c, where op transposes if asked; beta is 0 or 1.
 *   transpose_a 0: a is (m, k); 1: a is (k, m).  transpose_b 0: b is (k, n); 1: b is (n, k).
 * a and b have one dtype; c is fp32 or bf16. Products are summed in fp32.
 * If `addend` is given (of c's shape and dtype), c = op(a) op(b) + addend, the sum being rounded
 * once; beta is 0 then. A residual connection is this, so that nothing is copied for it. If
 * a_columns > 0, only columns [a_first, a_first + a_columns) of `a` take part (before the
 * transposition): one matrix of a packed linear layer. FLOPs: 2 m n k. */
struct matmul {
    struct tensor *c;
    const struct tensor *a;
    const struct tensor *b;
    bool transpose_a;
    bool transpose_b;
    int64_t a_first;
    int64_t a_columns;
    float beta;
    const struct tensor *addend;
};
void op_matmul(struct backend *be, const struct matmul *args);

/* ---- captured columns -------------------------------------------------------------------- */

/* Some operations that produce the gradient of a linear layer's output can store columns of it a
 * second time, side by side: out (T, R) = result[:, index], index (R) int32, -1 gives zeros. That
 * is op_gather without its pass over the result: T R more elements written instead of T M read. The
 * values are those stored in the result, to the bit if out has its dtype. Such operations take a
 * pointer to this, NULL for nothing. */
struct capture {
    struct tensor *out;
    const struct tensor *index;
};

/* ---- normalisation ----------------------------------------------------------------------- */

/* RMSNorm (Zhang, Sennrich, "Root mean square layer normalization", NeurIPS 2019, eq. 4), per row:
 *   rstd = 1 / sqrt(mean(x^2) + eps);  y = x * rstd * weight.
 * y, x (T, C); weight (C); rstd (T) fp32. y may alias x. */
struct rmsnorm_forward {
    struct tensor *y;
    struct tensor *rstd;
    const struct tensor *x;
    const struct tensor *weight;
    float eps;
};
void op_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args);

/* With g = dy * weight:  dx += rstd * (g - x * rstd^2 * mean(g * x));  dweight += sum_t dy * x *
 * rstd. dx ADDS: it holds the gradient of the residual stream already. dweight may be NULL
 * (frozen). Columns of the new dx can be captured. */
struct rmsnorm_backward {
    struct tensor *dx;
    struct tensor *dweight;
    const struct tensor *dy;
    const struct tensor *x;
    const struct tensor *weight;
    const struct tensor *rstd;
    const struct capture *capture;
};
void op_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args);

/* ---- rotary position embedding ------------------------------------------------------------ */

/* In place on the first `heads` heads of each row of x (T, W), W >= heads * head_size (Su et al.,
 * "RoFormer", arXiv 2104.09864, eq. 34; half-split order: element i pairs with i + D/2):
 *   (a, b) -> (a cos - b sin, b cos + a sin), or with -sin if `inverse` (which is its backward).
 * table (P, D) fp32: row p holds D/2 cosines, then D/2 sines; positions (T) int32, 0 <= p < P.
 * Columns of the whole new row can be captured, those that are not rotated too. */
struct rope {
    struct tensor *x;
    const struct tensor *table;
    const struct tensor *positions;
    int64_t heads;
    int64_t head_size;
    bool inverse;
    const struct capture *capture;
};
void op_rope(struct backend *be, const struct rope *args);

/* ---- attention ------------------------------------------------------------------------------ */

/* A row of qkv (T, (H + 2K) D) holds H query heads, then K key heads, then K value heads. Query
 * head h reads key/value head h / (H / K) (grouped queries). */
struct attention_shape {
    int64_t batch;    /* B */
    int64_t sequence; /* S */
    int64_t heads;
    int64_t kv_heads;
    int64_t head_size;
    float scale; /* of the scores, usually 1 / sqrt(D) */
};

/* Causal softmax attention, in memory linear in S. Token s of a row attends to tokens
 * [starts, s] of the same row; starts (T) int32 holds the first token of its record, so packed
 * records do not see each other; NULL means 0 everywhere.
 * out (T, H D); lse (B, H, S) fp32: log of the sum of exponentials, kept for the backward.
 * FLOPs counted: 4 D per (query head, attended pair), for a causal triangle without records. */
struct attention_forward {
    struct tensor *out;
    struct tensor *lse;
    const struct tensor *qkv;
    const struct tensor *starts;
    struct attention_shape shape;
};
void op_attention_forward(struct backend *be, const struct attention_forward *args);

/* dqkv (T, (H + 2K) D) from dout, with everything of the forward; delta (B, H, S) fp32 is scratch
 * (row sums of dout * out: Dao, "FlashAttention-2", arXiv 2307.08691, section 2.3). */
struct attention_backward {
    struct tensor *dqkv;
    struct tensor *delta;
    const struct tensor *dout;
    const struct tensor *out;
    const struct tensor *lse;
    const struct tensor *qkv;
    const struct tensor *starts;
    struct attention_shape shape;
};
void op_attention_backward(struct backend *be, const struct attention_backward *args);

/* One new token per row: stores its keys and values at `position` of the caches, attends to
 * positions [0, position]. out (B, H D); qkv (B, (H + 2K) D); keys, values (B, P, K D), P >
 * position. shape.sequence is 1. */
struct attention_decode {
    struct tensor *out;
    struct tensor *keys;
    struct tensor *values;
    const struct tensor *qkv;
    int64_t position;
    struct attention_shape shape;
};
void op_attention_decode(struct backend *be, const struct attention_decode *args);

/* ---- feed-forward activation ----------------------------------------------------------------- */

/* SwiGLU (Shazeer, "GLU variants improve transformer", arXiv 2002.05202, eq. 6):
 *   y = silu(gate) * up, a row of gate_up (T, 2F) being F gates, then F ups. y (T, F). */
void op_swiglu_forward(struct backend *be, struct tensor *y, const struct tensor *gate_up);

/* dgate_up (T, 2F) from dy (T, F). dgate_up may alias gate_up. Columns of dgate_up can be captured.
 */
struct swiglu_backward {
    struct tensor *dgate_up;
    const struct tensor *dy;
    const struct tensor *gate_up;
    const struct capture *capture;
};
void op_swiglu_backward(struct backend *be, const struct swiglu_backward *args);

/* ---- embedding and loss ------------------------------------------------------------------------
 */

/* y (T, C) = table (V, C) [ids (T) int32]. */
void op_embedding_forward(struct backend *be, struct tensor *y, const struct tensor *table,
                          const struct tensor *ids);

/* dtable[ids[t]] += dy[t]. dtable adds: to its row the terms of a token are added in fp32, t
 * ascending, and the sum is stored once, so that bf16 loses nothing of a frequent token. */
void op_embedding_backward(struct backend *be, struct tensor *dtable, const struct tensor *dy,
                           const struct tensor *ids);

/* The distinct ones of ids (T) int32, 0 <= id < V, and where each is:
 *   index (R) int32: ids that occur, ascending, then -1 in unused slots; R >= min(T, V)
 *   slots (T) int32: index[slots[t]] = ids[t]
 * room (V) int32 is overwritten: the slot of each id that occurs, -1 for the others. With slots in
 * place of ids, op_embedding_backward sums into the R rows of a table of those that occur. */
struct distinct {
    struct tensor *index;
    struct tensor *slots;
    struct tensor *room;
    const struct tensor *ids;
};
void op_distinct(struct backend *be, const struct distinct *args);

/* Softmax cross-entropy of each row of logits (T, V) against targets (T) int32; a target of -1 is
 * not trained. losses (T) fp32: nats, 0 where not trained. If `gradient`, logits become their own
 * gradient in place: scale * factor * (softmax - onehot), 0 where not trained. factor (1) fp32 lies
 * on the device, where it can differ from one replay of a recorded step to the next; NULL: 1. */
struct cross_entropy {
    struct tensor *losses;
    struct tensor *logits;
    const struct tensor *targets;
    float scale;
    bool gradient;
    const struct tensor *factor;
};
void op_cross_entropy(struct backend *be, const struct cross_entropy *args);

/* ---- selection of rows or columns ---------------------------------------------------------------
 */

enum side {
    SIDE_ROWS,
    SIDE_COLUMNS
}; /* SIDE_ROWS: outputs of a linear layer, SIDE_COLUMNS: inputs */

/* norms fp32 = squared Euclidean norm of each row (M) or each column (N) of x (M, N). */
void op_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                      enum side side);

enum select_rule {
    SELECT_TOP,     /* the R largest norms; ties to the lower index */
    SELECT_NORM,    /* probability proportional to the norm */
    SELECT_NORM2,   /* ... to the squared norm */
    SELECT_UNIFORM, /* all alike */
    SELECT_WINNERS, /* the largest for certain, the others with probability proportional to the norm
                     */
};

/* Chooses at most R of M candidates by their squared norms (M) fp32.
 *   index (R) int32: chosen candidates in ascending order, `offset` added to each (the first row of
 *   the matrix in a packed weight), then -1 in unused slots.
 *   scale (R) fp32: rho of each slot (1 if not `unbiased`; 1 in unused slots).
 * SELECT_TOP: rho = 1 always.
 * With replacement: R independent draws from q; a candidate drawn c times takes one slot and, if
 *   unbiased, rho = sqrt(c / (R q)). E[P P^T G] = G (Frieze, Kannan, Vempala; grass paper, section
 *   on unbiased sampling): P holds the rho of the slots.
 * Without: exactly R distinct candidates by systematic sampling over a random order with inclusion
 *   probabilities pi = min(1, c q), sum pi = R (Madow 1949); if unbiased, rho = sqrt(1 / pi)
 *   (Horvitz, Thompson 1952). Candidates with q = 0 are taken only when too few others exist.
 * SELECT_WINNERS (Liu et al., "Winner-take-all column row sampling", arXiv 2305.15265, section 3):
 *   with q proportional to the norm, the W candidates with the largest q, of sum P, are taken for
 *   certain, rho = 1; R - W are drawn with replacement from the rest, rho = sqrt(c (1 - P) / ((R -
 *   W) q)). W minimises (1 - P)^2 / (R - W), which bounds the variance (the least such W; ties in q
 *   to the lower index). If no more than R candidates have q > 0, they are all taken, rho = 1.
 *   `replacement` says nothing.
 * If all norms are 0, or any is not finite, the choice is that of SELECT_UNIFORM (SELECT_TOP: NaN
 * counts as the largest).
 * Random numbers: key (purpose RANDOM_SELECT), element = draw number or candidate. */
struct select {
    struct tensor *index;
    struct tensor *scale;
    const struct tensor *norms;
    int64_t offset;
    enum select_rule rule;
    bool replacement;
    bool unbiased;
    struct random_key key;
};
void op_select(struct backend *be, const struct select *args);

/* ---- gather and scatter ------------------------------------------------------------------------
 */

/* y (R, N) = x (M, N)[index], or y (M, R) = x (M, N)[:, index]. An index of -1 gives zeros. x and y
 * may also both be int16 or uint8; of one dtype, elements are moved bit by bit. */
void op_gather(struct backend *be, struct tensor *y, const struct tensor *x,
               const struct tensor *index, enum side side);

/* x[index] = y, or x[:, index] = y; slots of index -1 are skipped. Indices are distinct. x and y
 * may also both be uint8. */
void op_scatter(struct backend *be, struct tensor *x, const struct tensor *y,
                const struct tensor *index, enum side side);

/* Multiplies row (SIDE_ROWS) or column (SIDE_COLUMNS) j of x by scale[j] fp32. */
void op_scale_side(struct backend *be, struct tensor *x, const struct tensor *scale,
                   enum side side);

/* ---- optimizer ----------------------------------------------------------------------------------
 */

/* AdamW (Kingma, Ba, arXiv 1412.6980, algorithm 1; Loshchilov, Hutter, arXiv 1711.05101,
 * algorithm 2), with g = control[FACTOR] * gradient and k = age + 1:
 *   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
 *   adam = (m / (1 - beta1^k)) / (sqrt(v / (1 - beta2^k)) + eps)
 *   w -= lr * (scale * rho * adam + weight_decay * w)          (the old w on the right)
 *   age = k
 * Does nothing at all if control[SKIP] is set.
 *
 * Dense (index NULL): gradient, m, v have the weight's shape; age is (1) int32; rho is 1.
 * Selected: weight (M, N); index (R) int32, distinct, -1 for unused slots, which are left alone;
 *   SIDE_ROWS: gradient, m, v (R, N), slot j is row index[j]; SIDE_COLUMNS: (M, R), slot j is
 *   column index[j]. age (R) int32: each slot has its own; rho (R) fp32 or NULL for 1. Only the
 *   selected rows or columns of the weight are read or written.
 * m and v are fp32 or bf16; bf16 moments are always rounded stochastically, since nearest rounding
 * freezes v at beta2 = 0.999 (methods study, section 11). A bf16 weight is rounded by `rounding`.
 * If `residue` (int16, in the gradient's shape; a bf16 weight only) is given, it holds what bf16
 * cannot: the weight that is updated is bf16_join(weight, residue) (kernels/dtype.h), to the bit
 * that of fp32, and is split again. `rounding` has no say then. Random numbers: key with purposes
 * RANDOM_ROUND_W, _M, _V; element = position in the weight, for moments position in m.
 * Eight bits: m and v may both be uint8 (quantize.h: m signed, v by its root), with m_absmax and
 * v_absmax as op_quantize describes them for `side` (also if dense). The step is computed from the
 * moments before they are quantised anew; a block whose magnitude is 0 holds zeros, so zeroed bytes
 * and magnitudes are moments of 0. */
struct adamw {
    struct tensor *weight;
    struct tensor *m;
    struct tensor *v;
    struct tensor *m_absmax; /* NULL unless m and v are uint8 */
    struct tensor *v_absmax;
    struct tensor *age;
    const struct tensor *gradient;
    const struct tensor *index;
    const struct tensor *rho;
    const struct tensor *control;
    struct tensor *residue;
    enum side side;
    float lr;
    float beta1;
    float beta2;
    float eps;
    float weight_decay;
    float scale;
    enum rounding rounding;
    struct random_key key; /* purpose is filled in by the operation */
};
void op_adamw(struct backend *be, const struct adamw *args);

/* Rows or columns that give up their residue: weight[index] = bf16_join(weight, residue) rounded
 * stochastically, once. Shapes as in struct adamw, index not NULL; slots of -1 are left alone.
 * residue is only read. Random numbers: key with purpose RANDOM_ROUND_W; element = position in the
 * weight. */
struct settle {
    struct tensor *weight;
    const struct tensor *residue;
    const struct tensor *index;
    enum side side;
    struct random_key key; /* purpose is filled in by the operation */
};
void op_settle(struct backend *be, const struct settle *args);

/* Plain gradient descent without a state, g = control[FACTOR] * gradient:
 *   w -= lr * (scale * rho * g + weight_decay * w);   age = age + 1
 * Dense or selected, skipped, rounded and keyed as in op_adamw. Dense, `rho` may be given with one
 * factor a row (SIDE_COLUMNS: a column) of the weight; where it is 0, the weight is then left
 * alone, decay and all. age may be NULL. */
struct sgd {
    struct tensor *weight;
    struct tensor *age;
    const struct tensor *gradient;
    const struct tensor *index;
    const struct tensor *rho;
    const struct tensor *control;
    enum side side;
    float lr;
    float weight_decay;
    float scale;
    enum rounding rounding;
    struct random_key key;
};
void op_sgd(struct backend *be, const struct sgd *args);

/* Factors that give rows (columns) a root mean square of 1, for the `rho` of a dense op_sgd:
 *   factors (M) fp32: 1 / sqrt(norms[i] / length), norms (M) fp32 as of op_squared_norms, length
 *   elements in each; 0 where the norm is 0 or not finite, and for the candidates in `index`
 *   (R) int32: index[j] - offset, -1 in unused slots. */
struct unit_factors {
    struct tensor *factors;
    const struct tensor *norms;
    const struct tensor *index;
    int64_t offset;
    int64_t length;
};
void op_unit_factors(struct backend *be, const struct unit_factors *args);

/* Trajectory-regularised Adam (TRAdam, IJCAI 2019, released code). Steps come in loops of
 * `interval`; i = age mod interval counts within one. At i = 0 the anchor becomes the weight. Then
 *   g = control[FACTOR] * gradient + 2 * pull * (w - anchor)        (at i = 0 the pull is 0)
 *   m, v, adam, age as in op_adamw;   lr_i = harmonic ? lr / (i + 1) : lr
 *   w -= lr_i * (scale * adam + weight_decay * w)
 * The released code divides lr by i + 1 (harmonic), takes pull = lambda / lr (the same at a
 * constant lr, infinite at lr = 0) and adds the decay to the gradient; here pull is a number of its
 * own and the decay is that of every other rule. Dense only: gradient, m, v (fp32 or bf16), anchor
 * (of the weight's dtype) have the weight's shape, age is (1). Skipped, rounded and keyed as in
 * op_adamw. */
struct tradam {
    struct tensor *weight;
    struct tensor *m;
    struct tensor *v;
    struct tensor *anchor;
    struct tensor *age;
    const struct tensor *gradient;
    const struct tensor *control;
    int64_t interval;
    float pull;
    bool harmonic;
    float lr;
    float beta1;
    float beta2;
    float eps;
    float weight_decay;
    float scale;
    enum rounding rounding;
    struct random_key key;
};
void op_tradam(struct backend *be, const struct tradam *args);

/* codes uint8 (M, N) = x (M, N), eight bits an element (quantize.h). Blocks are 256 neighbours of a
 * row (SIDE_ROWS: absmax (M, ceil(N / 256))) or of a column (SIDE_COLUMNS: (ceil(M / 256), N)); the
 * last one of each is shorter. absmax fp32: the largest magnitude (QUANTIZE_ROOT: its root). */
struct quantize {
    struct tensor *codes;
    struct tensor *absmax;
    const struct tensor *x;
    enum quantize_map map;
    enum side side;
};
void op_quantize(struct backend *be, const struct quantize *args);

/* x (M, N) = what op_quantize stored. */
struct dequantize {
    struct tensor *x;
    const struct tensor *codes;
    const struct tensor *absmax;
    enum quantize_map map;
    enum side side;
};
void op_dequantize(struct backend *be, const struct dequantize *args);

/* ---- subspaces ----------------------------------------------------------------------------------
 */

/* y (P, R) fp32, P >= R, gets orthonormal columns, in place: where its columns are independent, the
 * first j of the result span what the first j of y did (CholeskyQR2: Fukaya, Nakatsukasa,
 * Yanagisawa, Yamamoto, "CholeskyQR2: a simple and communication-avoiding algorithm", ScalA 2014).
 *   once:  S = y^T y;  y = y D L^-T  with D = diag(S)^-1/2 and L L^T = D S D
 * is done at least twice, and again until no pivot of L L^T is below 0.9. A column of which less
 * than 1e-3 (squared, of its length) is left after the columns before it is not divided by that
 * rest, which the next round does from a new product; one that is zero, not finite or of which less
 * than 1e-6 is left is replaced by random numbers (key; purpose RANDOM_FILL; element: position in
 * y, P R further in each round). So the result is orthonormal whatever y was. scratch (R + 2, R)
 * fp32. The host waits for the rounds. FLOPs counted: two rounds, 6 P R^2. */
struct orthonormalize {
    struct tensor *y;
    struct tensor *scratch;
    struct random_key key;
};
void op_orthonormalize(struct backend *be, const struct orthonormalize *args);

/* vectors (P, R) fp32: column j is the unit eigenvector of the j-th largest eigenvalue of the
 * symmetric matrix (P, P) fp32, its largest component (the first of equals) positive. If the matrix
 * is not finite, the first R unit vectors. In double: on a GPU cuSOLVER's Xsyevd (divide and
 * conquer), where the library is there and content with the scratch that is planned; else LAPACK
 * dsyevr on the host, which backend.host_solver and tally.host_solves tell. The two agree but for
 * rounding, and for the choice of a basis where eigenvalues are equal. Needs op_eigenvectors_built.
 * FLOPs counted: 4/3 P^3 + 2 P^2 R. */
void op_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix);
bool op_eigenvectors_built(void);

/* y = y^2, element by element. */
void op_square(struct backend *be, struct tensor *y);

/* w -= lr * (scale * step + weight_decay * w), the old w on the right; nothing at all if
 * control[SKIP] is set. weight (M, N); step (M, N) fp32. A bf16 weight is rounded once, by
 * `rounding`: random numbers from key with purpose RANDOM_ROUND_W, element = first + position, so
 * that a matrix may be done in blocks of rows. */
struct descend {
    struct tensor *weight;
    const struct tensor *step;
    const struct tensor *control;
    float lr;
    float scale;
    float weight_decay;
    enum rounding rounding;
    int64_t first;
    struct random_key key;
};
void op_descend(struct backend *be, const struct descend *args);

/* ---- random
 * ---------------------------------------------------------------------------------------- */

/* x = deviation * standard normal (Box-Muller on pairs of words). */
void op_random_normal(struct backend *be, struct tensor *x, float deviation, struct random_key key);

/* x = magnitude or -magnitude, each with probability 1/2: the lowest bit of word e for element e.
 */
void op_random_sign(struct backend *be, struct tensor *x, float magnitude, struct random_key key);

#ifdef __cplusplus
}
#endif

#endif
