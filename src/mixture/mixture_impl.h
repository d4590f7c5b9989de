/**
 * What a device provides for the mixture. A new device is one file and one row of the
 * registry (src/registry.c).
 *
 * A device looks at logits; it sees a slice of every row, whole blocks of the vocabulary.
 * Everything that is made of block sums is the same for all slices.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "mpo/mixture.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Figures of one block of one row, s as in mixture/cpu.c: doubles of a table [blocks, B,
 *  MPO_MIXTURE_SUMS_WIDTH(H)]. With top = -inf, where every token is masked, nobody reads
 *  the others. */
enum mpo_mixture_figure {
    MPO_MIXTURE_TOP,       /* M_b = max s */
    MPO_MIXTURE_SUM,       /* S_b = sum exp(s - M_b) */
    MPO_MIXTURE_END_SUM,   /* the same over the end tokens */
    MPO_MIXTURE_LOGIT_SUM, /* and on, [H] sum exp(s - M_b) x_h */
};
#define MPO_MIXTURE_SUMS_WIDTH(policy_count) ((size_t)(policy_count) + 3) /* doubles */

enum mpo_mixture_kind {
    MPO_MIXTURE_GIVEN,    /* the token is known */
    MPO_MIXTURE_DRAWN,    /* the first one whose cumulative sum exceeds target */
    MPO_MIXTURE_GREATEST, /* the first one with the greatest score of the block */
};

/** What the root asks of the rank that has a block, about one draw from it. */
struct mpo_mixture_question {
    enum mpo_mixture_kind kind;
    int32_t draw;
    int32_t row;
    int32_t block;
    int32_t token;
    double block_top; /* M_b; not of a given token's */
    double scale;     /* exp(M_b - M): target is relative to the row's maximum M */
    double target;
};

/** An answer: the token, then its logit for each policy [H]. */
#define MPO_MIXTURE_ANSWER_WIDTH(policy_count) ((size_t)(policy_count) + 1) /* doubles */

struct mpo_mixture_ops {
    const char *device;
    enum mpo_status (*open)(const struct mpo_mixture_spec *spec, void **self);
    void (*close)(void *self); /* NULL-safe */
    /** Bytes of the device's memory that opening takes; NULL: none. */
    size_t (*bytes)(const struct mpo_mixture_spec *spec);
    void (*set)(void *self, const double *mu, double end_bias);
    /** NULL: rows are never on the device. */
    enum mpo_status (*place)(void *self, int32_t policy_index, int32_t row_count,
                             const float **logits);
    /** Round rows in the device's memory; NULL as place. */
    enum mpo_status (*round)(void *self, int32_t policy_index, int32_t row_count,
                             const float **logits);
    enum mpo_status (*normalise)(void *self, int32_t policy_index, int32_t row_count,
                                 const float *const *logits, double *log_norm);

    /** Whole rows, as a device may do them faster in one go; NULL: as one slice. */
    enum mpo_status (*combine)(void *self, const struct mpo_rows *rows,
                               struct mpo_mixture_moments *moments, double *expectation);
    /** Draw draws->token when draw is true, and score it. */
    enum mpo_status (*draw)(void *self, struct mpo_mixture_draws *draws, bool draw);

    /** Slices: the blocks first_block .. end_block - 1, where rows->logits point. Sums go
     *  to a table [blocks of the slice, B, MPO_MIXTURE_SUMS_WIDTH(H)], or for NULL they
     * stay for fold alone; the rows stay for scores and answer. */
    enum mpo_status (*sum)(void *self, const struct mpo_rows *rows, int32_t first_block,
                           int32_t end_block, double *table);
    /** s of a row's slice, [blocks of the slice, MPO_ROWS_BLOCK] doubles. */
    enum mpo_status (*scores)(void *self, int32_t row, int32_t first_block,
                              int32_t end_block, double *score);
    /** Answers [count, MPO_MIXTURE_ANSWER_WIDTH(H)] about blocks of the slice. */
    enum mpo_status (*answer)(void *self, const struct mpo_mixture_question *question,
                              int32_t count, double *answers);

    /** What the root does with slices, where the device does it for whole rows: then both
     *  end in the same bits. All three NULL: mixture/fold.c does it on the host. */

    /** Fold the blocks 0 .. end_block - 1 that were summed here last, whose rows begin with
     *  block 0, with the others, which the table has. */
    enum mpo_status (*fold)(void *self, int32_t end_block, const double *table,
                            struct mpo_mixture_moments *moments, double *expectation);
    /** The block of each draw first .. first + count - 1 from folded rows. */
    enum mpo_status (*ask)(void *self, const struct mpo_mixture_draws *draws, int32_t first,
                           int32_t count, struct mpo_mixture_question *question);
    /** Draw draws->token[draw] as filtered, from the scores [V] of all slices of its row.
     */
    enum mpo_status (*filter)(void *self, const struct mpo_mixture_draws *draws,
                              int32_t draw, const double *score);
};

extern const struct mpo_mixture_ops mpo_mixture_cpu_ops;
extern const struct mpo_mixture_ops mpo_mixture_cuda_ops;

/** The mixture of a device by name, NULL when this build has none. (registry.c) */
const struct mpo_mixture_ops *mpo_registry_mixture(const char *device);

/** Round one row as mpo_mixture_round says. Local; out must not overlap x. */
void mpo_mixture_round_row(const float *x, int32_t count, float *out);

/** Draw from exp(weight / temperature) as filtered. Local. Allocates nothing.
 *  @param weight  [count] s(v) less its maximum, -inf for masked tokens; overwritten
 *  @param heap    [count] room
 *  @return the token */
int32_t mpo_mixture_filter_draw(const struct mpo_mixture_filter *filter, double uniform,
                                double *weight, int32_t *heap, int32_t count);

#ifdef __cplusplus
}
#endif
