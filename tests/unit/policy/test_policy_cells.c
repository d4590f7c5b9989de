/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The count of cells against rows that are written out: cells in use are the distinct ones
 * of all rows.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "policy/cells.h"
#include "runner.h"

enum { ROWS = 5, CELLS = 40, MOVES = 20000 };

/* A row as the names of its cells; a name is never given twice. */
struct plain {
    int32_t name[ROWS][CELLS];
    int32_t length[ROWS];
    int32_t named;
};

static int32_t used_cells(const struct plain *plain)
{
    int32_t used = 0;
    for (int32_t row = 0; row < ROWS; row++)
        for (int32_t i = 0; i < plain->length[row]; i++) {
            bool is_new = true;
            for (int32_t other = 0; other < row; other++)
                is_new = is_new && (i >= plain->length[other] ||
                                    plain->name[other][i] != plain->name[row][i]);
            used += is_new;
        }
    return used;
}

static void cells_in_use_are_the_distinct_ones_of_all_rows(void **state)
{
    (void)state;
    struct mpo_cells cells = {0};
    struct plain plain = {0};
    uint64_t drawn = 0;
    assert_ok(mpo_cells_open(&cells, ROWS, CELLS));
    for (int32_t move = 0; move < MOVES; move++) {
        int32_t row = (int32_t)(runner_uniform(5, drawn++) * ROWS);
        int32_t other = (int32_t)(runner_uniform(5, drawn++) * ROWS);
        double kind = runner_uniform(5, drawn++);
        double share = runner_uniform(5, drawn++);
        if (kind < 0.5) {
            int32_t count = (int32_t)(share * 9.0);
            if (count > cells.free_count)
                count = cells.free_count;
            for (int32_t i = 0; i < count; i++)
                plain.name[row][plain.length[row]++] = ++plain.named;
            mpo_cells_append(&cells, row, count);
        } else if (kind < 0.8) {
            plain.length[row] = (int32_t)(share * (plain.length[row] + 1));
            mpo_cells_cut(&cells, row, plain.length[row]);
        } else if (kind < 0.999) {
            memcpy(plain.name[other], plain.name[row], sizeof plain.name[row]);
            plain.length[other] = plain.length[row];
            mpo_cells_fork(&cells, row, other);
        } else {
            memset(plain.length, 0, sizeof plain.length);
            mpo_cells_clear(&cells);
        }
        assert_int_equal(cells.free_count, CELLS - used_cells(&plain));
        assert_memory_equal(cells.length, plain.length, sizeof plain.length);
    }
    for (int32_t row = 0; row < ROWS; row++)
        mpo_cells_cut(&cells, row, 0);
    assert_int_equal(cells.free_count, CELLS);
    mpo_cells_append(&cells, 0, CELLS);
    assert_int_equal(cells.free_count, 0);
    mpo_cells_close(&cells);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_in_use_are_the_distinct_ones_of_all_rows),
    };
    return run_cases("policy_cells", tests);
}
