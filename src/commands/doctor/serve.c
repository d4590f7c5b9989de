/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What serve opens beside the policies: the port with its keys and certificate, and the
 * models that requests can name. They are opened as serve does it, and closed again.
 */
#include "doctor_impl.h"

#include <stdio.h>

#include "serve/metrics.h"
#include "serve/models.h"
#include "serve/server.h"
#include "serve/size.h"

void doctor_examine_server(struct doctor *doctor)
{
    struct mpo_server *server = NULL;
    if (mpo_comm_job_rank() != 0)
        return;
    enum mpo_status status = mpo_server_open(doctor->config, &server);
    if (status != MPO_OK)
        doctor_note(doctor, DOCTOR_server, DOCTOR_PROBLEM, status, "%s", mpo_error_text());
    else
        doctor_note(doctor, DOCTOR_server, DOCTOR_OK, MPO_OK, "%s is free%s",
                    mpo_server_url(server),
                    doctor->config->serve.key_file[0] != '\0' ? ", and keys can be read"
                                                              : "");
    mpo_server_close(&server);
}

static void praise_models(struct doctor *doctor, const struct mpo_serve_catalog *catalog)
{
    char list[256] = "";
    size_t length = 0;
    for (int32_t i = 0; i < catalog->model_count && length < sizeof list; i++)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s",
                                   i > 0 ? ", " : "", catalog->model[i].name);
    doctor_note(doctor, DOCTOR_models, DOCTOR_OK, MPO_OK, "%s%s", list,
                length < sizeof list ? "" : " ...");
}

enum mpo_status doctor_examine_models(struct doctor *doctor)
{
    struct mpo_serve_catalog catalog = {0};
    struct mpo_metrics *metrics = NULL;
    enum mpo_status status = mpo_serve_models_open(doctor->session, &catalog);
    doctor->speaks_for_job = true;
    if (status == MPO_OK && mpo_comm_job_rank() == 0)
        status = mpo_metrics_open(&catalog, doctor->config->serve.metrics_prefix,
                                  mpo_comm_job_size(), 1, &metrics);
    if (mpo_comm_job_rank() == 0) {
        if (status != MPO_OK)
            doctor_note(doctor, DOCTOR_models, DOCTOR_PROBLEM, status, "%s",
                        mpo_error_text());
        else
            praise_models(doctor, &catalog);
    }
    doctor->speaks_for_job = false;
    mpo_metrics_close(&metrics);
    mpo_serve_models_close(&catalog);
    return mpo_comm_agree(MPO_OK);
}

void doctor_praise_context(struct doctor *doctor)
{
    const struct mpo_session_machine *machine = &doctor->session->size.machine;
    int32_t wanted = mpo_serve_size(doctor->config).machine.context_tokens;
    int32_t longest = machine->context_tokens;
    int32_t groups = mpo_comm_group_count(doctor->session->comm);
    char sum[64] = "";
    for (int32_t i = 0; i < doctor->policy_count; i++) {
        int32_t trained = doctor->policy[i].need.trained_tokens;
        longest = trained > 0 && trained < longest ? trained : longest;
    }
    if (groups > 1)
        snprintf(sum, sizeof sum, " in each of %d groups, %d rows in all", groups,
                 groups * machine->row_capacity);
    doctor_note(
        doctor, DOCTOR_context,
        machine->context_tokens < wanted ? DOCTOR_WARNING : DOCTOR_OK, MPO_OK,
        "%d rows share %d tokens (serve.context)%s%s; a prompt and its response have "
        "%d at most",
        machine->row_capacity, machine->context_tokens, sum,
        machine->context_tokens < wanted ? ", less than 2048 each, because memory "
                                           "is short"
                                         : "",
        longest);
}
