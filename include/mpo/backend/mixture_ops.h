/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a device provides for the mixture, for those who add one: a device is one file and
 * one row of the registry (src/registry.def). The readable example is src/mixture/cpu.c.
 *
 * A device works on a slice of every row, whole blocks of the vocabulary. Everything
 * derived from block sums is the same for all slices. Its functions fail only where the
 * device does: what can be wrong with the figures is looked for once for all devices
 * (src/mixture/mixture.c), so a row of NaN must do no more than give NaN.
 *
 * Where a policy takes no part in a row (struct mpo_rows), its exponent is 0, its logits are
 * NULL and must not be read, and its normaliser is NaN. What is said of its figures there is
 * replaced by NaN, but no figure of the row itself may come of them.
 *
 * Arguments were checked: rows are combined ones, tokens are of the vocabulary, biases are
 * no NaN and below +inf. Calls about draws come after a sum or a combination, whose rows and
 * exponents are valid until then, and with no more draws than spec.row_capacity.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/mixture.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Figures of one block of one row, s as in src/mixture/cpu.c: doubles of a table [blocks,
 *  B, MPO_MIXTURE_SUMS_WIDTH(H)]. With top = -inf, where every token is masked, the others
 *  are not read. */
enum mpo_mixture_figure {
    MPO_MIXTURE_TOP,       /* M_b = max s */
    MPO_MIXTURE_SUM,       /* S_b = sum exp(s - M_b) */
    MPO_MIXTURE_END_SUM,   /* the same over the end tokens */
    MPO_MIXTURE_LOGIT_SUM, /* and on, [H] sum exp(s - M_b) x_h; NaN where not expected */
};
#define MPO_MIXTURE_SUMS_WIDTH(policy_count) ((size_t)(policy_count) + 3) /* doubles */

/** A question of the root to the rank that has a block, about one draw from it. */
struct mpo_mixture_question {
    enum mpo_mixture_kind kind; /* DRAWN: where the cumulative sum exceeds target; GREATEST:
                                   the first one with the block's greatest score */
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

/** The whole blocks first_block .. end_block - 1 of the vocabulary. */
struct mpo_mixture_slice {
    int32_t first_block;
    int32_t end_block;
};

/** A position of slices whose ranks talk from device to device. What is not said to be of all
 *  is of the root alone. */
struct mpo_mixture_team {
    struct mpo_exchange *exchange; /* of all: mpo_exchange_has_device_parts */
    int32_t rank;                  /* of all; 0: the root */
    int32_t size;                  /* of all: P */
    const int32_t *first_block;    /* of all: [P + 1] of each rank's slice */
    size_t *part;                  /* of all: [P + 1] to work with */
    const struct mpo_mixture_results *results;
    const struct mpo_mixture_draws *draws; /* without rules; of all: count */
    struct mpo_mixture_question *question; /* [count] out: about each draw */
    double *answers;                       /* [count, MPO_MIXTURE_ANSWER_WIDTH(H)] out */
};

struct mpo_mixture_ops {
    const char *device;
    enum mpo_status (*open)(const struct mpo_mixture_spec *spec, void **self);
    void (*close)(void *self); /* NULL-safe */
    /** Bytes of the device's memory that opening takes; NULL: none. */
    size_t (*bytes)(const struct mpo_mixture_spec *spec);
    /** Memory of the host from and to which the device copies without help of the processor,
     *  for the table of sums. Both NULL: any will do. */
    enum mpo_status (*take)(size_t bytes, void **out);
    void (*give_back)(void *memory); /* NULL-safe */
    /** NULL: rows are never on the device. */
    enum mpo_status (*place)(void *self, int32_t policy_index, int32_t row_count,
                             const float **logits);
    /** Round rows in the device's memory; NULL as place. */
    enum mpo_status (*round)(void *self, int32_t policy_index, int32_t row_count,
                             const float **logits);
    /** As mpo_mixture_normalise_part, of at least one row; a row that is refused has a
     *  normaliser that is not finite. */
    enum mpo_status (*normalise)(void *self, const struct mpo_mixture_part *part,
                                 const float *const *logits, double *log_norm);

    /** Combine whole rows, if the device does so faster; NULL: as one slice. With
     *  expectation NULL no row expects any. */
    enum mpo_status (*combine)(void *self, const struct mpo_rows *rows,
                               const struct mpo_mixture_exponents *exponents,
                               struct mpo_mixture_moments *moments, double *expectation);
    /** Answer all draws from whole rows, as mpo_mixture_draw. */
    enum mpo_status (*draw)(void *self, struct mpo_mixture_draws *draws);
    /** Both of one or more rows and draws, if the device does so faster; NULL: one after the
     *  other. */
    enum mpo_status (*combine_and_draw)(void *self, const struct mpo_rows *rows,
                                        const struct mpo_mixture_exponents *exponents,
                                        const struct mpo_mixture_results *results,
                                        struct mpo_mixture_draws *draws);

    /** The blocks of a slice, where rows->logits point. Sums go to a table [blocks of the slice, B, MPO_MIXTURE_SUMS_WIDTH(H)], or for NULL they
     *  stay for fold alone; the rows stay for scores and answer. */
    enum mpo_status (*sum)(void *self, const struct mpo_rows *rows,
                           const struct mpo_mixture_exponents *exponents,
                           struct mpo_mixture_slice slice, double *table);
    /** s of some blocks of a row, [blocks, MPO_ROWS_BLOCK] doubles, -inf where masked. A
     *  device with fold is asked for all blocks that were summed. */
    enum mpo_status (*scores)(void *self, int32_t row, int32_t first_block,
                              int32_t end_block, double *score);
    /** Answers [count, MPO_MIXTURE_ANSWER_WIDTH(H)] about blocks of the slice. A device with
     *  combine_and_draw_slices may be asked about others too, whose answers are not read. */
    enum mpo_status (*answer)(void *self, const struct mpo_mixture_question *question,
                              int32_t count, double *answers);

    /** Sum the blocks of a slice, at the root fold all and ask about the draws, answer about
     *  the slice, all without a host between them. Called on ranks that have a slice; NULL:
     *  sum, fold, ask and answer one after the other. */
    enum mpo_status (*combine_and_draw_slices)(
        void *self, const struct mpo_rows *rows,
        const struct mpo_mixture_exponents *exponents, const struct mpo_mixture_team *team);

    /** The root's work on slices, on devices that also do it for whole rows, so that both
     *  give the same bits. All three NULL: src/mixture/fold.c does it on the host. */

    /** Fold the blocks 0 .. end_block - 1 that were summed here last, whose rows begin with
     *  block 0, with the others, which the table has. */
    enum mpo_status (*fold)(void *self, int32_t end_block, const double *table,
                            struct mpo_mixture_moments *moments, double *expectation);
    /** Each draw as a question, rules aside. */
    enum mpo_status (*ask)(void *self, const struct mpo_mixture_draws *draws,
                           struct mpo_mixture_question *question);
    /** draws->token[draw] under its rule, from the scores [V] of all slices of its row; -1
     *  when the biases leave none. */
    enum mpo_status (*rule)(void *self, const struct mpo_mixture_draws *draws, int32_t draw,
                            const double *score);
};

#ifdef __cplusplus
}
#endif
