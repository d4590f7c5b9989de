/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of the page as bytes, so that the server opens no file by a client's name and is
 * one file to install.
 */
#include "page.h"

#include "page_bytes.h"

const struct mpo_page_file mpo_page_files[MPO_PAGE_FILE_COUNT] = {
#define MPO_PAGE(path, name, type)                                                         \
    [MPO_PAGE_FILE_##name] = {type, (const char *)page_##name, sizeof page_##name},
#include "page.def"
#undef MPO_PAGE
};
