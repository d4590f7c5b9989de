/* SPDX-License-Identifier: Apache-2.0 */
/**
 * How large a session `serve` opens: for serve itself, for doctor and for launch.
 */
#pragma once

#include "mpo/config.h"
#include "mpo/session.h"

/** Rows, context and prefill by the options, automatic ones filled in. Local. */
struct mpo_session_size mpo_serve_size(const struct mpo_config *config);
