/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says where libllama cuts texts otherwise than a model's tokenizer, for
 * tests/templates/cuts.py:
 *
 *     cuts_tool ENDINGS < TEXTS
 *
 * Each line is a text, in which a line end is written \1 and a return \2. Prints for each
 * where the first text that is cut otherwise begins and how many bytes it has, or -1 0.
 * ENDINGS 1 is a tokenizer whose words end after 's and the like.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/llama/llama_impl.h"

int main(int argc, char **argv)
{
    bool has_endings = argc == 2 && strcmp(argv[1], "1") == 0;
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t length = 0; (length = getline(&line, &capacity, stdin)) > 0;) {
        const char *found = NULL;
        if (line[length - 1] == '\n')
            line[length - 1] = '\0';
        for (char *at = line; *at != '\0'; at++)
            *at = *at == '\1' ? '\n' : *at == '\2' ? '\r' : *at;
        const size_t bytes = mpo_llama_find_cut(line, has_endings, &found);
        printf("%td %zu\n", found != NULL ? found - line : -1, bytes);
    }
    free(line);
    return 0;
}
