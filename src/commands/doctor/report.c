/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output of doctor: tables of ranks and policies, then the findings. Equal texts are
 * printed once with their ranks; a check without problems is one "ok" line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor_impl.h"
#include "commands/report/output.h"
#include "commands/report/prompt.h"

#define LINE_COLUMNS    100
#define FINDING_INDENT  20
#define RANK_LIST_BYTES 128

static const char *check_name(int32_t check)
{
    static const char *const names[] = {
#define CHECK_NAME(name) #name,
        DOCTOR_CHECK_LIST(CHECK_NAME)
#undef CHECK_NAME
    };
    return names[check];
}

static const char *level_name(int32_t level)
{
    return level == DOCTOR_PROBLEM ? "problem" : level == DOCTOR_WARNING ? "warning" : "ok";
}

/* ---- which findings are worth a line ---- */

static bool same_text(const struct doctor_finding *a, const struct doctor_finding *b)
{
    return a->check == b->check && a->level == b->level &&
           strcmp(a->failure.text, b->failure.text) == 0;
}

/* The worst level of a check, over all ranks. */
static int32_t worst_level(const struct doctor *doctor, int32_t check)
{
    int32_t worst = DOCTOR_NONE;
    for (int32_t i = 0; i < doctor->all_count; i++)
        if (doctor->all[i].check == check && doctor->all[i].level > worst)
            worst = doctor->all[i].level;
    return worst;
}

/* An "ok" is left out if the check has a worse finding, and so is a repeated text. */
static bool is_shown(const struct doctor *doctor, int32_t index)
{
    const struct doctor_finding *finding = &doctor->all[index];
    if (finding->level == DOCTOR_OK && worst_level(doctor, finding->check) > DOCTOR_OK)
        return false;
    for (int32_t i = 0; i < index; i++)
        if (same_text(&doctor->all[i], finding))
            return false;
    return true;
}

static int32_t count_problems(const struct doctor *doctor)
{
    int32_t count = 0;
    for (int32_t i = 0; i < doctor->all_count; i++)
        count += doctor->all[i].level == DOCTOR_PROBLEM && is_shown(doctor, i);
    return count;
}

/* ---- text ---- */

static void format_bytes(uint64_t bytes, char text[16])
{
    static const char units[] = "BKMGTPE";
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1000.0 && units[unit + 1] != '\0'; unit++)
        value /= 1024.0;
    snprintf(text, 16, unit == 0 || value >= 100.0 ? "%.0f%c" : "%.1f%c", value,
             units[unit]);
}

static void print_bytes(uint64_t bytes)
{
    char text[16] = "";
    format_bytes(bytes, text);
    printf(" %8s", text);
}

static void print_ranks(const struct doctor *doctor)
{
    printf("%4s %-12s %5s %6s %7s %-6s %8s %8s %8s %8s %8s %8s\n", "rank", "host", "local",
           "cores", "threads", "device", "program", "weights", "cache", "work", "exchange",
           "free");
    for (int32_t r = 0; r < mpo_comm_size(doctor->session->comm); r++) {
        const struct doctor_rank *rank = &doctor->rank[r];
        const struct mpo_needs *needs = &rank->needs;
        printf("%4d %-12.12s %5d %6d %7d %-6.6s", rank->rank, rank->host.name,
               rank->local_rank, rank->host.usable_core_count, rank->thread_count,
               rank->device);
        print_bytes(needs->program_bytes);
        print_bytes(needs->weights_bytes);
        print_bytes(needs->cache_bytes);
        print_bytes(needs->work_bytes);
        print_bytes(needs->exchange_bytes);
        print_bytes(rank->host.memory_free_bytes);
        printf("\n");
    }
}

/* What ranks need of their devices, where they have memory of their own. */
static void print_devices(const struct doctor *doctor)
{
    int32_t shown = 0;
    for (int32_t r = 0; r < mpo_comm_size(doctor->session->comm); r++) {
        const struct doctor_rank *rank = &doctor->rank[r];
        if (rank->device_bytes == 0)
            continue;
        if (shown++ == 0)
            printf("\n%4s %-12s %-6s %5s %8s %8s %9s %8s %8s\n", "rank", "host", "device",
                   "index", "policies", "rows", "libraries", "needed", "free");
        printf("%4d %-12.12s %-6.6s %5d", rank->rank, rank->host.name, rank->device,
               rank->device_index);
        print_bytes(rank->device_bytes - rank->device_rows_bytes -
                    rank->device_library_bytes);
        print_bytes(rank->device_rows_bytes);
        printf(" "); /* under a wider heading */
        print_bytes(rank->device_library_bytes);
        print_bytes(rank->device_bytes);
        print_bytes(rank->device_free_bytes);
        printf("\n");
    }
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static void print_policy(const struct doctor *doctor, int32_t rank,
                         const struct mpo_policy_survey *policy)
{
    const struct mpo_policy_spec *configured = &doctor->session->hosted[policy->policy];
    const struct mpo_policy_need *need = &policy->need;
    char vocabulary[MPO_TEXT_HASH_BYTES];
    printf("%4d %-16.16s %-28.28s", rank, configured->name, base_name(configured->model));
    if (policy->load.status != MPO_OK) {
        printf(" -\n");
        return;
    }
    print_bytes(need->model_bytes + need->adapter_bytes);
    mpo_text_hash(policy->vocab_hash, vocabulary);
    printf(" %7d %7d %7d %s\n", need->longest_prompt_tokens, need->context_tokens,
           need->trained_tokens, vocabulary);
}

static void print_policies(const struct doctor *doctor)
{
    const struct mpo_policy_survey *next = doctor->policy;
    printf("\n%4s %-16s %-28s %8s %7s %7s %7s %s\n", "rank", "policy", "model", "size",
           "longest", "context", "trained", "vocabulary");
    for (int32_t r = 0; r < mpo_comm_size(doctor->session->comm); r++)
        for (int32_t i = 0; i < doctor->rank[r].policy_count; i++)
            print_policy(doctor, r, next++);
    printf("\n%s\n\n", doctor->rank[0].versions);
}

static bool is_same_prompt(const struct doctor_prompt *a, const struct doctor_prompt *b)
{
    return a->token_count == b->token_count && strcmp(a->text, b->text) == 0;
}

/* Each text once, under the names of the policies that get it. */
static void print_prompts(const struct doctor *doctor)
{
    const struct mpo_config_policies *policies = doctor->config->policies;
    for (int32_t i = 0; i < doctor->config->policy_count && !doctor->serves; i++) {
        const struct doctor_prompt *prompt = &doctor->prompt[i];
        bool shown = prompt->token_count == 0;
        for (int32_t j = 0; j < i; j++)
            shown = shown || is_same_prompt(&doctor->prompt[j], prompt);
        if (shown)
            continue;
        printf("prompt 0 for %s", policies[prompt->policy].name);
        for (int32_t j = i + 1; j < doctor->config->policy_count; j++)
            if (is_same_prompt(&doctor->prompt[j], prompt))
                printf(", %s", policies[doctor->prompt[j].policy].name);
        printf(": %d tokens, %d of them special\n", prompt->token_count,
               prompt->special_count);
        prompt_view_print(prompt->text);
        printf("\n");
    }
}

/* "rank 0, 2: " before a text that not all ranks have. */
static void list_ranks(const struct doctor *doctor, int32_t first,
                       char list[RANK_LIST_BYTES])
{
    const struct doctor_finding *finding = &doctor->all[first];
    size_t length = (size_t)snprintf(list, RANK_LIST_BYTES, "rank");
    int32_t count = 0;
    int32_t last = -1;
    for (int32_t i = first; i < doctor->all_count; i++) {
        if (!same_text(&doctor->all[i], finding) || doctor->all[i].rank == last)
            continue;
        last = doctor->all[i].rank;
        if (length < RANK_LIST_BYTES - 24)
            length += (size_t)snprintf(list + length, RANK_LIST_BYTES - length, "%s %d",
                                       count > 0 ? "," : "", last);
        count++;
    }
    snprintf(list + length, RANK_LIST_BYTES - length, ": ");
    if (count == mpo_comm_size(doctor->session->comm) || finding->rank == DOCTOR_JOB ||
        finding->level == DOCTOR_OK)
        list[0] = '\0';
}

static void print_finding(const struct doctor *doctor, int32_t index)
{
    const struct doctor_finding *finding = &doctor->all[index];
    char list[RANK_LIST_BYTES] = "";
    list_ranks(doctor, index, list);
    printf("%-8s %-10s %s", level_name(finding->level), check_name(finding->check), list);
    mpo_text_wrap(stdout, finding->failure.text, FINDING_INDENT + (int32_t)strlen(list),
                  FINDING_INDENT, LINE_COLUMNS);
    printf("\n");
}

static void print_text(const struct doctor *doctor, enum mpo_status verdict)
{
    int32_t problems = count_problems(doctor);
    print_ranks(doctor);
    print_devices(doctor);
    print_policies(doctor);
    print_prompts(doctor);
    for (int32_t i = 0; i < doctor->all_count; i++)
        if (is_shown(doctor, i))
            print_finding(doctor, i);
    if (problems > 0)
        printf("\n"
               "%d problem%s: %s would exit with code %d\n",
               problems, mpo_text_plural(problems), doctor->serves ? "serve" : "fit",
               mpo_status_exit_code(verdict));
    else
        printf("\n%s\n", doctor->serves ? "serve would start" : "fit would run");
}

/* ---- JSON ---- */

static void set_bytes(json_t *object, const char *name, uint64_t bytes)
{
    json_object_set_new(
        object, name, bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)bytes));
}

static void set_integer(json_t *object, const char *name, int64_t value)
{
    json_object_set_new(object, name, json_integer(value));
}

static void set_text(json_t *object, const char *name, const char *text)
{
    json_object_set_new(object, name, output_text(text));
}

/* Null where it is not known. */
static json_t *make_prompt(const struct doctor_prompt *prompt)
{
    json_t *object = json_object();
    if (prompt->token_count == 0) {
        json_decref(object);
        return json_null();
    }
    set_integer(object, "token_count", prompt->token_count);
    set_integer(object, "special_count", prompt->special_count);
    set_text(object, "text", prompt->text);
    return object;
}

/* One as a text, several as a list. */
static void set_adapters(json_t *object, const struct mpo_policy_spec *policy)
{
    if (policy->more_count == 0) {
        set_text(object, "lora", policy->lora);
        return;
    }
    json_t *list = json_array();
    json_array_append_new(list, output_text(policy->lora));
    for (int32_t i = 0; i < policy->more_count; i++)
        json_array_append_new(list, output_text(policy->more[i].path));
    json_object_set_new(object, "lora", list);
}

static json_t *make_policy(const struct doctor *doctor,
                           const struct mpo_policy_survey *policy)
{
    json_t *object = json_object();
    const struct mpo_policy_spec *configured = &doctor->session->hosted[policy->policy];
    const struct mpo_policy_need *need = &policy->need;
    char hash[MPO_TEXT_HASH_BYTES];
    mpo_text_hash(policy->vocab_hash, hash);
    set_text(object, "name", configured->name);
    set_text(object, "model", configured->model);
    set_adapters(object, configured);
    json_object_set_new(object, "readable", json_boolean(policy->load.status == MPO_OK));
    set_text(object, "vocabulary", policy->load.status == MPO_OK ? hash : "");
    set_integer(object, "vocabulary_size", need->vocab_size);
    set_bytes(object, "model_bytes", need->model_bytes);
    set_bytes(object, "adapter_bytes", need->adapter_bytes);
    set_bytes(object, "cache_bytes", need->cache_bytes);
    set_bytes(object, "work_bytes", need->work_bytes);
    set_integer(object, "longest_prompt_tokens", need->longest_prompt_tokens);
    set_integer(object, "context_tokens", need->context_tokens);
    set_integer(object, "trained_tokens", need->trained_tokens);
    json_object_set_new(object, "prompt",
                        make_prompt(&doctor->prompt[policy - doctor->policy]));
    return object;
}

static json_t *make_needs(const struct mpo_needs *needs)
{
    json_t *object = json_object();
    set_bytes(object, "program_bytes", needs->program_bytes);
    set_bytes(object, "weights_bytes", needs->weights_bytes);
    set_bytes(object, "cache_bytes", needs->cache_bytes);
    set_bytes(object, "work_bytes", needs->work_bytes);
    set_bytes(object, "exchange_bytes", needs->exchange_bytes);
    set_bytes(object, "total_bytes", mpo_needs_total(needs));
    return object;
}

static json_t *make_rank(const struct doctor *doctor, const struct doctor_rank *rank,
                         const struct mpo_policy_survey *policies)
{
    json_t *object = json_object();
    json_t *list = json_array();
    for (int32_t i = 0; i < rank->policy_count; i++)
        json_array_append_new(list, make_policy(doctor, &policies[i]));
    set_integer(object, "rank", rank->rank);
    set_text(object, "host", rank->host.name);
    set_integer(object, "local_rank", rank->local_rank);
    set_integer(object, "cores", rank->host.core_count);
    set_integer(object, "usable_cores", rank->host.usable_core_count);
    set_integer(object, "threads", rank->thread_count);
    set_text(object, "device", rank->device);
    set_integer(object, "device_index", rank->device_index);
    if (rank->gpu_uuid[0] != '\0')
        set_text(object, "gpu_uuid", rank->gpu_uuid);
    else
        json_object_set_new(object, "gpu_uuid", json_null());
    json_object_set_new(object, "needs", make_needs(&rank->needs));
    set_bytes(object, "device_bytes", rank->device_bytes);
    set_bytes(object, "device_rows_bytes", rank->device_rows_bytes);
    set_bytes(object, "device_library_bytes", rank->device_library_bytes);
    set_bytes(object, "device_free_bytes", rank->device_free_bytes);
    set_bytes(object, "memory_free_bytes", rank->host.memory_free_bytes);
    set_text(object, "memory_limit", rank->host.memory_limit);
    set_text(object, "versions", rank->versions);
    json_object_set_new(object, "policies", list);
    return object;
}

static json_t *make_finding(const struct doctor *doctor, int32_t index)
{
    json_t *object = json_object();
    json_t *ranks = json_array();
    const struct doctor_finding *finding = &doctor->all[index];
    for (int32_t i = index; i < doctor->all_count; i++)
        if (same_text(&doctor->all[i], finding) && finding->rank != DOCTOR_JOB)
            json_array_append_new(ranks, json_integer(doctor->all[i].rank));
    set_text(object, "check", check_name(finding->check));
    set_text(object, "level", level_name(finding->level));
    set_text(object, "text", finding->failure.text);
    set_integer(object, "exit_code", mpo_status_exit_code(finding->failure.status));
    json_object_set_new(object, "ranks", ranks);
    return object;
}

static enum mpo_status print_json(const struct doctor *doctor, enum mpo_status verdict)
{
    json_t *root = json_object();
    json_t *ranks = json_array();
    json_t *checks = json_array();
    const struct mpo_policy_survey *next = doctor->policy;
    for (int32_t r = 0; r < mpo_comm_size(doctor->session->comm); r++) {
        json_array_append_new(ranks, make_rank(doctor, &doctor->rank[r], next));
        next += doctor->rank[r].policy_count;
    }
    for (int32_t i = 0; i < doctor->all_count; i++)
        if (is_shown(doctor, i))
            json_array_append_new(checks, make_finding(doctor, i));
    set_integer(root, "exit_code", mpo_status_exit_code(verdict));
    set_integer(root, "problems", count_problems(doctor));
    json_object_set_new(root, "ranks", ranks);
    json_object_set_new(root, "checks", checks);
    return output_json(root);
}

enum mpo_status doctor_report(const struct doctor *doctor, enum mpo_status verdict)
{
    enum mpo_status status = MPO_OK;
    if (doctor->config->doctor.format == MPO_REPORT_JSON)
        MPO_TRY(print_json(doctor, verdict));
    else
        print_text(doctor, verdict);
    MPO_TRY(output_flush());
cleanup:
    return status;
}
