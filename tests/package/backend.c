/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether policies of GGUF models can compute on a kind of device.
 *
 *     backend DEVICE
 */
#include <stdio.h>

#include <mpo/mpo.h>

int main(int argc, char **argv)
{
    const struct mpo_policy_spec policy = {
        .name = "p", .kind = "llama", .model = "p.gguf", .temperature = 1.0};
    if (argc != 2)
        return 1;
    enum mpo_status status = mpo_policies_check_device(&policy, 1, argv[1]);
    fprintf(stderr, "%s\n", status == MPO_OK ? "yes" : mpo_error_text());
    return mpo_status_exit_code(status);
}
