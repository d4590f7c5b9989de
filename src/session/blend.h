/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The policies that mixtures of adapters draw from.
 */
#pragma once

#include "parts.h"

/**
 * Describe them behind the policies of the configuration, as many as are hosted: their model
 * with the adapters of all, and how exponents become scales of these. An adapter that several
 * policies have is there once.
 *
 * Local; reads files only where two policies name different ones.
 *
 * @return MPO_ERR_DATA when they are not one model
 */
enum mpo_status mpo_session_describe_blends(struct mpo_session *session);

/**
 * Make one of a machine's blends the policy of a mixture, which empties its rows; nothing
 * where no policies are open. Local.
 *
 * @param index  0 .. machine.blends - 1
 * @param mu     [H] exponents of the policies of the configuration
 */
enum mpo_status mpo_session_set_blend(const struct mpo_session *session, int32_t index,
                                      const double *mu);
