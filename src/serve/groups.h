/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The groups of a server: rank zero's links to all of them, and what carries those of the
 * others.
 *
 *     rank zero     a link a group: its own group's engine has the first, couriers the others
 *     other roots   one link, whose engine is theirs, and a courier
 *     other ranks   nothing
 */
#pragma once

#include "courier.h"
#include "mpo/comm.h"

struct mpo_groups_spec {
    struct mpo_link_spec link;   /* rank zero's; elsewhere its counts alone */
    struct mpo_metrics *metrics; /* of a root; borrowed */
    double alive_seconds;        /* between two signs of life of couriers */
    double patience_seconds;     /* without any; 0: for ever */
    void (*lost)(void *argument, const char *text); /* as of a courier */
    void *argument;
};

struct mpo_groups;

/**
 * Collective over all ranks.
 *
 * @return MPO_ERR_MEMORY; MPO_ERR_PEER when there are several groups and no sockets between
 *         their hosts
 */
enum mpo_status mpo_groups_open(const struct mpo_groups_spec *spec,
                                const struct mpo_comm *comm, struct mpo_groups **out);
void mpo_groups_close(struct mpo_groups **groups);

/** [group_count] at rank zero, [1] at another root; borrowed. */
struct mpo_link *const *mpo_groups_links(const struct mpo_groups *groups);

/** Another root than rank zero: tell rank zero why the job fails. Any thread. */
void mpo_groups_report(void *groups, const char *text);

/** The engine of this root has ended: pass its last events on, or at rank zero wait for those
 *  of all others. */
void mpo_groups_finish(struct mpo_groups *groups);

/** Another root than rank zero: have rank zero told of the signal to stop that came to this
 *  group; for mpo_stop_tell. */
void mpo_groups_tell_stop(void *groups);

/** End all couriers at once: from then on nothing is reported as lost, and what mpo_groups_open
 *  borrowed may be closed. The links stay. NULL-safe. */
void mpo_groups_end(struct mpo_groups *groups);
