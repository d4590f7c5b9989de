/* SPDX-License-Identifier: Apache-2.0 */
/**
 * GET /openapi.json: what every endpoint takes and answers, for tools.
 */
#pragma once

#include "serve_impl.h"

/** The description (OpenAPI 3.1), made of fields.def and the catalog's bounds; it does not
 *  change while the server runs. Owned by the caller; NULL without memory. Local. */
char *mpo_serve_openapi_json(const struct mpo_serve_catalog *catalog);
