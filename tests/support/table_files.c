/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Table files for tests. Probabilities are printed with 17 digits, so that the policy that
 * reads them back has the very doubles of the exact recursion.
 */
#include "table_files.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner.h"

void table_folder_make(char path[TABLE_PATH_BYTES])
{
    const char *parent = getenv("TMPDIR");
    snprintf(path, TABLE_PATH_BYTES, "%s/mpo-test-XXXXXX",
             parent != NULL ? parent : "/tmp");
    assert_non_null(mkdtemp(path));
}

void table_folder_remove(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return;
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char file[2 * TABLE_PATH_BYTES];
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(file);
    }
    closedir(folder);
    rmdir(path);
}

static FILE *open_in(const char *folder, const char *name, char path[TABLE_PATH_BYTES])
{
    int length = snprintf(path, TABLE_PATH_BYTES, "%s/%s", folder, name);
    assert_in_range(length, 1, TABLE_PATH_BYTES - 1);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    return file;
}

void table_write_text(const char *folder, const char *name, const char *text,
                      char path[TABLE_PATH_BYTES])
{
    FILE *file = open_in(folder, name, path);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void print_name(FILE *file, int32_t token, int32_t vocab_size)
{
    if (token == vocab_size)
        fputs("<s>", file);
    else if (token == vocab_size - 1)
        fputs("</s>", file);
    else
        fputc('a' + token, file);
}

void table_write(const char *folder, const char *name, const double *probability,
                 int32_t vocab_size, char path[TABLE_PATH_BYTES])
{
    assert_in_range(vocab_size, 2, 26);
    FILE *file = open_in(folder, name, path);
    fputs("# bigram probabilities of a test\nmpo-table 1\ntokens", file);
    for (int32_t v = 0; v < vocab_size; v++) {
        fputc(' ', file);
        print_name(file, v, vocab_size);
    }
    fputc('\n', file);
    for (int32_t s = 0; s <= vocab_size; s++) {
        fputs("row ", file);
        print_name(file, s, vocab_size);
        for (int32_t v = 0; v < vocab_size; v++)
            fprintf(file, " %.17g", probability[s * vocab_size + v]);
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
}

void table_probability(const struct bigram *bigram, int32_t policy, int32_t vocab_size,
                       double *probability)
{
    for (int32_t s = 0; s <= vocab_size; s++)
        for (int32_t v = 0; v < vocab_size; v++)
            probability[s * vocab_size + v] = exp(bigram_log_policy(bigram, policy, s, v));
}

void table_folder_make_two(char path[TABLE_PATH_BYTES])
{
    static const double up[] = {0.6, 0.2, 0.2, 0.6, 0.2, 0.2, 0.6, 0.2, 0.2, 0.6, 0.2, 0.2};
    static const double down[] = {0.1, 0.5, 0.4, 0.1, 0.5, 0.4,
                                  0.1, 0.5, 0.4, 0.1, 0.5, 0.4};
    char table[TABLE_PATH_BYTES];
    table_folder_make(path);
    table_write(path, "up.table", up, 3, table);
    table_write(path, "down.table", down, 3, table);
}
