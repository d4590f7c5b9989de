/*
 * The mixture: argument checks and the choice of a device.
 *
 * The devices' functions fail only where the device does. What can be wrong with the
 * figures (a NaN, a row with no finite logit) is looked for here, once for all devices.
 */
#include "mixture_impl.h"

#include <math.h>
#include <stdlib.h>

#include "mpo/device.h"
#include "mpo/memory.h"

struct mpo_mixture {
    const struct mpo_mixture_ops *ops;
    void *self;
    int32_t policy_count;
    int32_t row_capacity;
    int32_t row_count; /* rows combined last */
};

enum mpo_status mpo_mixture_open(const struct mpo_mixture_spec *spec,
                                 struct mpo_mixture **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture *mixture = NULL;
    const struct mpo_mixture_ops *ops = mpo_registry_mixture(spec->device);
    MPO_CHECK(ops != NULL, MPO_ERR_DEVICE, "this build has no %s mixture; it has: %s",
              spec->device, mpo_device_built());
    MPO_CHECK(spec->masked_count < spec->vocab_size, MPO_ERR_DATA,
              "all %d tokens of the vocabulary are masked", spec->vocab_size);
    MPO_NEW(1, &mixture);
    mixture->ops = ops;
    mixture->policy_count = spec->policy_count;
    mixture->row_capacity = spec->row_capacity;
    MPO_TRY(ops->open(spec, &mixture->self));
cleanup:
    if (status != MPO_OK)
        mpo_mixture_close(&mixture);
    *out = mixture;
    return status;
}

void mpo_mixture_close(struct mpo_mixture **mixture)
{
    if (*mixture == NULL)
        return;
    (*mixture)->ops->close((*mixture)->self);
    free(*mixture);
    *mixture = NULL;
}

enum mpo_status mpo_mixture_normalise(struct mpo_mixture *mixture, int32_t policy_index,
                                      int32_t row_count, const float *const *logits,
                                      double *log_norm)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(row_count <= mixture->row_capacity, MPO_ERR_INTERNAL,
              "%d rows to normalise, room for %d", row_count, mixture->row_capacity);
    mixture->row_count = 0; /* a device may use the same memory for both */
    MPO_TRY(
        mixture->ops->normalise(mixture->self, policy_index, row_count, logits, log_norm));
    for (int32_t row = 0; row < row_count; row++)
        MPO_CHECK(
            isfinite(log_norm[row]), MPO_ERR_DATA,
            "policy %d: the logits of row %d have no finite normaliser (%g); the model "
            "or its file is damaged",
            policy_index, row, log_norm[row]);
cleanup:
    return status;
}

void mpo_mixture_set(struct mpo_mixture *mixture, const double *mu, double end_bias)
{
    mixture->ops->set(mixture->self, mu, end_bias);
}

enum mpo_status mpo_mixture_combine(struct mpo_mixture *mixture,
                                    const struct mpo_rows *rows,
                                    struct mpo_mixture_moments *moments,
                                    double *expectation)
{
    enum mpo_status status = MPO_OK;
    int32_t policy_count = mixture->policy_count;
    MPO_CHECK(rows->row_count <= mixture->row_capacity, MPO_ERR_INTERNAL,
              "a mixture of %d rows, room for %d", rows->row_count, mixture->row_capacity);
    mixture->row_count = rows->row_count;
    MPO_TRY(mixture->ops->combine(mixture->self, rows, moments, expectation));
    for (int32_t row = 0; row < rows->row_count; row++) {
        bool finite = isfinite(moments[row].log_z) && isfinite(moments[row].entropy);
        for (int32_t h = 0; h < policy_count; h++)
            finite = finite && isfinite(expectation[row * policy_count + h]);
        MPO_CHECK(
            finite, MPO_ERR_DATA,
            "the mixture of row %d is not finite (log Z %g): a policy gives some token "
            "an infinite logit; every policy needs full support",
            row, moments[row].log_z);
    }
cleanup:
    return status;
}

static enum mpo_status draw_or_score(struct mpo_mixture *mixture,
                                     struct mpo_mixture_draws *draws, bool draw)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < draws->count; i++)
        MPO_CHECK(draws->row[i] >= 0 && draws->row[i] < mixture->row_count,
                  MPO_ERR_INTERNAL, "a draw from row %d of %d combined rows", draws->row[i],
                  mixture->row_count);
    MPO_TRY(mixture->ops->draw(mixture->self, draws, draw));
cleanup:
    return status;
}

enum mpo_status mpo_mixture_draw(struct mpo_mixture *mixture,
                                 struct mpo_mixture_draws *draws)
{
    return draw_or_score(mixture, draws, true);
}

enum mpo_status mpo_mixture_score(struct mpo_mixture *mixture,
                                  struct mpo_mixture_draws *draws)
{
    return draw_or_score(mixture, draws, false);
}
