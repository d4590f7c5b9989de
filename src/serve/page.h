/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The page: the files of src/serve/page, which are built into the program.
 */
#pragma once

#include <stddef.h>

/** Files of the page, in the order of page.def: MPO_PAGE_FILE_index_html, ... */
enum mpo_page_name {
#define MPO_PAGE(path, name, type) MPO_PAGE_FILE_##name,
#include "page.def"
#undef MPO_PAGE
    MPO_PAGE_FILE_COUNT
};

struct mpo_page_file {
    const char *content_type;
    const char *bytes; /* [count] */
    size_t count;
};

extern const struct mpo_page_file mpo_page_files[MPO_PAGE_FILE_COUNT];
