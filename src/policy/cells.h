/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The cells of a policy's cache, counted: a tree of tokens. A row is the path from a root
 * to its last token; rows that were forked share the path up to where they part, and a cell
 * is free when no row goes through it. So what a decode needs can be compared with what is
 * left before an engine is asked, which may end the process.
 *
 * Appending costs the tokens, cutting those that are freed or passed, forking nothing.
 */
#pragma once

#include <stdint.h>

#include "mpo/status.h"

struct mpo_cell {
    int32_t before;  /* the token before it, -1 at a root; of a free cell: the next one */
    int32_t holders; /* cells right after it, and rows that end here */
};

/** Zero is one without rows. */
struct mpo_cells {
    struct mpo_cell *cell; /* [capacity] */
    int32_t *last;         /* [row_count] last cell of a row, -1 when it is empty */
    int32_t *length;       /* [row_count] tokens of a row */
    int32_t row_count;
    int32_t capacity;
    int32_t fresh;     /* cells from here on were never taken */
    int32_t free_head; /* of those that were freed, -1 for none */
    int32_t free_count;
};

enum mpo_status mpo_cells_open(struct mpo_cells *cells, int32_t row_count,
                               int32_t capacity);
void mpo_cells_close(struct mpo_cells *cells);

/** Every row is empty. Costs nothing. */
void mpo_cells_clear(struct mpo_cells *cells);

/** `count` tokens onto a row; there must be as many free. */
void mpo_cells_append(struct mpo_cells *cells, int32_t row, int32_t count);

/** A row keeps its first `length` tokens. */
void mpo_cells_cut(struct mpo_cells *cells, int32_t row, int32_t length);

/** Row `to` becomes row `from`. */
void mpo_cells_fork(struct mpo_cells *cells, int32_t from, int32_t to);
