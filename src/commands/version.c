/* SPDX-License-Identifier: Apache-2.0 */
/*
 * version: versions and built-in features of the program.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "build_info.h"
#include "commands.h"
#include "mpo/device.h"
#include "mpo/exchange.h"
#include "mpo/policy.h"
#include "mpo/record.h"
#include "commands/report/output.h"

/* Names match the record's attributes where it has them; lists are separated by spaces. */
struct fact {
    const char *name;
    const char *text;
    bool is_list;
};

/* ["cpu", "cuda"] of "cpu cuda" */
static json_t *make_list(const char *words)
{
    json_t *list = json_array();
    while (*words != '\0') {
        size_t bytes = strcspn(words, " ");
        json_array_append_new(list, json_stringn(words, bytes));
        words += bytes + strspn(words + bytes, " ");
    }
    return list;
}

/* "self shared mpi" */
static void list_transports(char *text, size_t bytes)
{
    size_t used = 0;
    const char *name = NULL;
    for (int32_t i = 0; (name = mpo_exchange_transport_built(i)) != NULL; i++)
        if (used < bytes)
            used +=
                (size_t)snprintf(text + used, bytes - used, "%s%s", i > 0 ? " " : "", name);
}

static enum mpo_status print_json(const struct fact *facts, size_t count)
{
    json_t *root = json_object();
    for (size_t i = 0; i < count; i++)
        json_object_set_new(root, facts[i].name,
                            facts[i].is_list ? make_list(facts[i].text)
                                             : output_text(facts[i].text));
    return output_json(root);
}

enum mpo_status mpo_command_version(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_arguments arguments = {0};
    struct mpo_config *config = NULL;
    char mpi[256] = "";
    char cuda[64] = "";
    char nccl[64] = "";
    char transports[64] = "";
    mpo_comm_library_version(mpi, sizeof mpi);
    mpo_device_library_version(cuda, sizeof cuda);
    mpo_exchange_library_version(nccl, sizeof nccl);
    list_transports(transports, sizeof transports);
    const struct fact facts[] = {
        {"version", MPO_VERSION, false},
        {"git_commit", MPO_GIT_COMMIT, false},
        {"compiler", MPO_COMPILER, false},
        {"mpi", mpi, false},
        {"cuda", cuda, false},
        {"nccl", nccl, false},
        {"hdf5", mpo_record_library_version(), false},
        {"llama", mpo_policy_engine_version(), false},
        {"devices", mpo_device_built(), true},
        {"transports", transports, true},
        {"policies", mpo_policy_kinds_built(), true},
        {"sanitizers", MPO_SANITIZERS, true},
    };
    const size_t count = sizeof facts / sizeof facts[0];
    MPO_TRY(mpo_command_read_flags("version", argc, argv, &arguments, &config));
    MPO_CHECK(arguments.count == 0, MPO_ERR_USAGE,
              "expected no argument, found '%s'; see mpo help version", arguments.text[0]);
    if (config->version.format == MPO_REPORT_JSON) {
        MPO_TRY(print_json(facts, count));
    } else {
        printf("mpo %s (%s)\n", MPO_VERSION, MPO_GIT_COMMIT);
        for (size_t i = 2; i < count; i++)
            printf("%-11s %s\n", facts[i].name, *facts[i].text ? facts[i].text : "none");
    }
cleanup:
    mpo_config_close(&config);
    return status;
}
