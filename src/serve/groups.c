/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links and couriers, in the order of the groups.
 */
#include "groups.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "comm/star.h"

struct mpo_groups {
    int32_t rank;
    int32_t rank_count;
    int32_t group_size;
    int32_t link_count;           /* 0 at a rank that is no root */
    struct mpo_link **link;       /* [link_count] */
    struct mpo_courier **courier; /* [link_count] NULL for rank zero's own group */
    int *socket;                  /* [rank_count] of couriers that are not open yet */
};

static enum mpo_status make_groups(const struct mpo_comm *comm, struct mpo_groups **out)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(1, out);
    struct mpo_groups *groups = *out;
    bool is_root = mpo_comm_group_rank(comm) == 0;
    groups->rank = mpo_comm_rank(comm);
    groups->rank_count = mpo_comm_size(comm);
    groups->group_size = mpo_comm_group_size(comm);
    groups->link_count = groups->rank == 0 ? mpo_comm_group_count(comm) : is_root ? 1 : 0;
    MPO_NEW(groups->link_count, &groups->link);
    MPO_NEW(groups->link_count, &groups->courier);
    MPO_NEW(groups->rank_count, &groups->socket);
    for (int32_t rank = 0; rank < groups->rank_count; rank++)
        groups->socket[rank] = -1;
cleanup:
    return status;
}

static enum mpo_status open_links(struct mpo_groups *groups,
                                  const struct mpo_groups_spec *spec)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < groups->link_count; i++) {
        struct mpo_link_spec link = spec->link;
        bool is_far = groups->rank != 0;
        if (is_far)
            link.notify = mpo_courier_wake;
        if (is_far)
            link.argument = &groups->courier[i];
        link.asked = !is_far && i > 0 ? mpo_courier_wake : NULL;
        link.asked_argument = &groups->courier[i];
        MPO_TRY(mpo_link_open(&link, &groups->link[i]));
    }
cleanup:
    return status;
}

static enum mpo_status open_courier(struct mpo_groups *groups,
                                    const struct mpo_groups_spec *spec, int32_t index)
{
    bool is_near = groups->rank == 0;
    int32_t peer = is_near ? index * groups->group_size : 0;
    const struct mpo_courier_spec courier = {
        .socket = groups->socket[peer],
        .is_near = is_near,
        .peer = peer,
        .policy_count = spec->link.policy_count,
        .link = groups->link[index],
        .metrics = spec->metrics,
        .group = is_near ? index : 0,
        .alive_seconds = spec->alive_seconds,
        .patience_seconds = spec->patience_seconds,
        .lost = spec->lost,
        .argument = spec->argument,
    };
    groups->socket[peer] = -1;
    return mpo_courier_open(&courier, &groups->courier[index]);
}

static enum mpo_status open_couriers(struct mpo_groups *groups,
                                     const struct mpo_groups_spec *spec)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = groups->rank == 0 ? 1 : 0; i < groups->link_count; i++)
        MPO_TRY(open_courier(groups, spec, i));
cleanup:
    return status;
}

/* Collective over all ranks. */
static enum mpo_status connect_groups(struct mpo_groups *groups,
                                      const struct mpo_comm *comm)
{
    enum mpo_status status = MPO_OK;
    bool are_connected = false;
    if (mpo_comm_group_count(comm) == 1)
        return MPO_OK;
    int32_t hub = groups->link_count > 0 ? 0 : -1;
    MPO_TRY(mpo_star_open(comm, hub, groups->socket, &are_connected));
    MPO_CHECK(are_connected, MPO_ERR_PEER,
              "no sockets between the hosts of several groups (a firewall?); start one "
              "server for each group");
cleanup:
    return mpo_comm_agree(status);
}

enum mpo_status mpo_groups_open(const struct mpo_groups_spec *spec,
                                const struct mpo_comm *comm, struct mpo_groups **out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_comm_agree(make_groups(comm, out)));
    MPO_TRY(connect_groups(*out, comm));
    MPO_TRY(mpo_comm_agree(open_links(*out, spec)));
    MPO_TRY(mpo_comm_agree(open_couriers(*out, spec)));
cleanup:
    if (status != MPO_OK)
        mpo_groups_close(out);
    return status;
}

void mpo_groups_close(struct mpo_groups **groups)
{
    struct mpo_groups *self = *groups;
    if (self == NULL)
        return;
    for (int32_t i = 0; self->courier != NULL && i < self->link_count; i++)
        mpo_courier_close(&self->courier[i]);
    for (int32_t i = 0; self->link != NULL && i < self->link_count; i++)
        mpo_link_close(&self->link[i]);
    for (int32_t rank = 0; self->socket != NULL && rank < self->rank_count; rank++)
        if (self->socket[rank] >= 0)
            close(self->socket[rank]);
    free(self->socket);
    free(self->courier);
    free(self->link);
    free(self);
    *groups = NULL;
}

struct mpo_link *const *mpo_groups_links(const struct mpo_groups *groups)
{
    return groups->link;
}

void mpo_groups_report(void *argument, const char *text)
{
    struct mpo_groups *groups = argument;
    mpo_courier_report(groups->courier[0], text);
}

void mpo_groups_tell_stop(void *argument)
{
    struct mpo_groups *groups = argument;
    mpo_courier_wake(&groups->courier[0]);
}

void mpo_groups_end(struct mpo_groups *groups)
{
    for (int32_t i = 0; groups != NULL && i < groups->link_count; i++)
        if (groups->courier[i] != NULL)
            mpo_courier_end(groups->courier[i]);
}

void mpo_groups_finish(struct mpo_groups *groups)
{
    for (int32_t i = 0; i < groups->link_count; i++)
        if (groups->courier[i] != NULL)
            mpo_courier_finish(groups->courier[i]);
}
