/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The page: three files in src/serve/page that are built into the program.
 */
#pragma once

#include <stddef.h>

struct mpo_page_file {
    const char *content_type;
    const char *bytes; /* [count] */
    size_t count;
};

/** index.html, page.js, page.css */
extern const struct mpo_page_file mpo_page_files[3];
