/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Which mpo this is.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/** The version of the library, e.g. "0.1.0". Local. */
const char *mpo_version(void);

/** The commit that it was built from, "unknown" without a checkout. Local. */
const char *mpo_version_commit(void);

#ifdef __cplusplus
}
#endif
