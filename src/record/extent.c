/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large a record gets. Data sets grow by whole chunks, so the bytes of N rows are known
 * from the lists that declare them. All else, names, the configuration and HDF5's own pages,
 * is one figure, a little below the smallest record seen.
 */
#include "record_impl.h"

#define SKELETON_BYTES ((uint64_t)66 << 10)
#define INDEX_BYTES    1024 /* of the chunks of a data set of /responses */
#define BYTES_F64      8
#define BYTES_I64      8
#define BYTES_I32      4
#define BYTES_U8       1

static uint64_t grown_bytes(uint64_t rows, uint64_t chunk_rows, uint64_t row_bytes)
{
    return (rows + chunk_rows - 1) / chunk_rows * chunk_rows * row_bytes;
}

/* Fields of the trajectory; `rewards` is there for a reward program alone. */
static uint64_t field_bytes(const struct mpo_record_extent *extent)
{
    const uint64_t SCALAR = 1;
    const uint64_t OBJECTIVE = (uint64_t)extent->objective_count;
    uint64_t row = BYTES_I64; /* step */
#define MPO_FIELD(path, member, type, shape, units, long_name)                             \
    row += BYTES_##type * (shape);
#include "mpo/record.def"
#undef MPO_FIELD
    if (!extent->has_rewards)
        row -= BYTES_F64 * OBJECTIVE;
    (void)SCALAR;
    return grown_bytes((uint64_t)extent->steps, MPO_RECORD_FIELD_CHUNK_ROWS, row);
}

/* Rows of a data set of /responses. */
static uint64_t response_rows(const struct mpo_record_extent *extent, int data_set)
{
    uint64_t responses = (uint64_t)(extent->steps * extent->step_responses);
    switch (data_set) {
    case MPO_RECORD_RESPONSE_token:
        return responses * (uint64_t)extent->response_tokens;
    case MPO_RECORD_RESPONSE_text:
        return responses * (uint64_t)extent->response_bytes;
    case MPO_RECORD_RESPONSE_control:
    case MPO_RECORD_RESPONSE_reward:
        return extent->has_rewards ? responses : 0;
    default:
        return responses;
    }
}

static uint64_t response_bytes(const struct mpo_record_extent *extent)
{
    const uint64_t width[] = {1, (uint64_t)extent->policy_count,
                              (uint64_t)extent->objective_count};
    enum { COLUMNS_0, COLUMNS_H, COLUMNS_K };
    uint64_t bytes = 0;
#define ADD_BYTES(name, type, columns, chunk_rows, units, long_name)                       \
    bytes += grown_bytes(response_rows(extent, MPO_RECORD_RESPONSE_##name), chunk_rows,    \
                         BYTES_##type * width[COLUMNS_##columns]);
    MPO_RECORD_RESPONSE_LIST(ADD_BYTES)
#undef ADD_BYTES
    return bytes;
}

uint64_t mpo_record_bytes(const struct mpo_record_extent *extent)
{
    const uint64_t index = extent->step_responses > 0 ? INDEX_BYTES : 0;
    return SKELETON_BYTES + field_bytes(extent) + response_bytes(extent) +
           index * MPO_RECORD_RESPONSE_COUNT;
}
