/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A response from a mixture: what it takes to embed mpo.
 *
 *     sample my.yaml TEXT
 */
#include <stdio.h>

#include <mpo/mpo.h>

int main(int argc, char **argv)
{
    const double mu[] = {0.5, 0.2, 0.3}; /* of the configuration's three policies */
    struct mpo_session *session = NULL;
    const struct mpo_decode_event *event = NULL;
    char piece[512];
    int32_t row = 0;
    int32_t count = 1;
    if (argc != 3 ||
        mpo_session_open(&(struct mpo_session_spec){.config = argv[1]}, &session))
        return 1;
    struct mpo_decode *decode = mpo_session_decode(session);
    enum mpo_status status = mpo_decode_offer_text(decode, 0, argv[2], NULL);
    if (status == MPO_OK)
        status = mpo_decode_admit(
            decode, &(struct mpo_decode_row){.share = -1, .free_count = 12, .mu = mu},
            &row);
    while (status == MPO_OK && count > 0) {
        status = mpo_decode_step(decode, &event, &count);
        for (int32_t i = 0; status == MPO_OK && i < count; i++)
            if (mpo_policies_piece(mpo_session_policies(session), event[i].token,
                                   event[i].position == 0, piece, sizeof piece) >= 0)
                fputs(piece, stdout);
    }
    puts("");
    if (status != MPO_OK)
        fprintf(stderr, "%s\n", mpo_error_text());
    mpo_session_close(&session);
    return status == MPO_OK ? 0 : 1;
}
