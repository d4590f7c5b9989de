/**
 * What a device provides for the mixture. A new device is one file and one row of the
 * registry (src/device/registry.c).
 *
 * A device looks at logits; it sees a slice of every row, whole blocks of the vocabulary.
 * Everything that is made of block sums (mixture_fold.c) is the same for all devices and
 * slices.
 */
#pragma once

#include <stdbool.h>

#include "mpo/mixture.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_mixture_question; /* mixture_fold.h */

struct mpo_mixture_ops {
    const char *device;
    enum mpo_status (*open)(const struct mpo_mixture_spec *spec, void **self);
    void (*close)(void *self); /* NULL-safe */
    void (*set)(void *self, const double *mu, double end_bias);
    enum mpo_status (*normalise)(void *self, int32_t policy_index, int32_t row_count,
                                 const float *const *logits, double *log_norm);

    /** Whole rows, as a device may do them faster in one go; NULL: as one slice. */
    enum mpo_status (*combine)(void *self, const struct mpo_rows *rows,
                               struct mpo_mixture_moments *moments, double *expectation);
    /** Draw draws->token when draw is true, and score it. */
    enum mpo_status (*draw)(void *self, struct mpo_mixture_draws *draws, bool draw);

    /** Slices: the blocks first_block .. end_block - 1, where rows->logits point. Sums go
     *  to a table [blocks of the slice, B] of struct mpo_mixture_sums; the rows stay for
     * the two calls below. All three may be NULL in a device that has the two above: no
     * other rank gets a slice then. */
    enum mpo_status (*sum)(void *self, const struct mpo_rows *rows, int32_t first_block,
                           int32_t end_block, double *table);
    /** s of a row's slice, [blocks of the slice, MPO_MIXTURE_BLOCK] doubles. */
    enum mpo_status (*scores)(void *self, int32_t row, int32_t first_block,
                              int32_t end_block, double *score);
    /** Answers [count] of struct mpo_mixture_answer, about blocks of the slice. */
    enum mpo_status (*answer)(void *self, const struct mpo_mixture_question *question,
                              int32_t count, double *answers);
};

extern const struct mpo_mixture_ops mpo_mixture_cpu_ops;
extern const struct mpo_mixture_ops mpo_mixture_cuda_ops;

/** The mixture of a device by name, NULL when this build has none. (registry.c) */
const struct mpo_mixture_ops *mpo_registry_mixture(const char *device);

/** Draw from exp(weight / temperature) as filtered. Local. Allocates nothing.
 *  @param weight  [count] s(v) less its maximum, -inf for masked tokens; overwritten
 *  @param heap    [count] room
 *  @return the token */
int32_t mpo_mixture_filter_draw(const struct mpo_mixture_filter *filter, double uniform,
                                double *weight, int32_t *heap, int32_t count);

#ifdef __cplusplus
}
#endif
