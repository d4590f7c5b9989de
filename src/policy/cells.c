/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counted references: each cell has the number of its successors. Releasing a row walks
 * back from its end and stops at the first cell that others hold.
 */
#include "cells.h"

#include <stdlib.h>

#include "base/memory.h"

enum mpo_status mpo_cells_open(struct mpo_cells *cells, int32_t row_count, int32_t capacity)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(capacity, &cells->cell);
    MPO_NEW(row_count, &cells->last);
    MPO_NEW(row_count, &cells->length);
    cells->row_count = row_count;
    cells->capacity = capacity;
    mpo_cells_clear(cells);
cleanup:
    return status;
}

void mpo_cells_close(struct mpo_cells *cells)
{
    free(cells->length);
    free(cells->last);
    free(cells->cell);
    *cells = (struct mpo_cells){0};
}

/* Cells from `fresh` on are not touched: memory that is not needed is never taken. */
void mpo_cells_clear(struct mpo_cells *cells)
{
    for (int32_t row = 0; row < cells->row_count; row++) {
        cells->last[row] = -1;
        cells->length[row] = 0;
    }
    cells->fresh = 0;
    cells->free_head = -1;
    cells->free_count = cells->capacity;
}

static int32_t allocate_cell(struct mpo_cells *cells)
{
    int32_t at = cells->free_head;
    if (at >= 0)
        cells->free_head = cells->cell[at].before;
    else
        at = cells->fresh++;
    cells->free_count--;
    return at;
}

static void let_go(struct mpo_cells *cells, int32_t at)
{
    while (at >= 0 && --cells->cell[at].holders == 0) {
        int32_t before = cells->cell[at].before;
        cells->cell[at].before = cells->free_head;
        cells->free_head = at;
        cells->free_count++;
        at = before;
    }
}

/* The row's hold on its last cell becomes the new cell's. */
void mpo_cells_append(struct mpo_cells *cells, int32_t row, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        int32_t at = allocate_cell(cells);
        cells->cell[at] = (struct mpo_cell){.before = cells->last[row], .holders = 1};
        cells->last[row] = at;
    }
    cells->length[row] += count;
}

void mpo_cells_cut(struct mpo_cells *cells, int32_t row, int32_t length)
{
    int32_t end = cells->last[row];
    int32_t kept = length > 0 ? end : -1;
    for (int32_t i = cells->length[row]; length > 0 && i > length; i--)
        kept = cells->cell[kept].before;
    if (kept >= 0)
        cells->cell[kept].holders++;
    let_go(cells, end);
    cells->last[row] = kept;
    cells->length[row] = length;
}

void mpo_cells_fork(struct mpo_cells *cells, int32_t from, int32_t to)
{
    if (from == to)
        return;
    mpo_cells_cut(cells, to, 0);
    cells->last[to] = cells->last[from];
    cells->length[to] = cells->length[from];
    if (cells->last[to] >= 0)
        cells->cell[cells->last[to]].holders++;
}
