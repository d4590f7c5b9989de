/*
 * The table of sub-commands.
 */
#include "commands.h"

#include <stddef.h>
#include <string.h>

const struct mpo_command mpo_commands[] = {
    {"fit", "find the weights; write the record", "CONFIG [--section.key=value ...]",
     mpo_command_fit, true},
    {"generate", "sample responses from the mixture",
     "CONFIG [--weights RECORD|NUMBERS|uniform|NAME] [--prompt TEXT] [--n N] [...]",
     mpo_command_generate, true},
    {"score", "log-probabilities of given responses, under every policy and the mixture",
     "CONFIG --input FILE.jsonl [--weights RECORD|NUMBERS|uniform|NAME] [--pairs] [...]",
     mpo_command_score, true},
    {"evaluate", "F, gap and divergences at given weights, with intervals",
     "CONFIG [--weights RECORD|NUMBERS|uniform|NAME] [--against W;W] [...]",
     mpo_command_evaluate, true},
    {"inspect", "print or plot a record",
     "RECORD [--format=summary|tsv|json] [--series NAME,NAME] [--plot FILE.svg]\n"
     "       mpo inspect RECORD --follow [--series NAME,NAME]\n"
     "       mpo inspect RECORD --responses N [--format=json]\n"
     "       mpo inspect --compare RECORD RECORD\n"
     "       mpo inspect --schema",
     mpo_command_inspect, false},
    {"recover", "repair the record of a run that was killed, on a copy",
     "RECORD [--output FILE.h5]", mpo_command_recover, false},
    {"refit", "fit again from a record's responses, with no model",
     "RECORD [--descent.step_rule=RULE] [--descent.step_constant=C] [--descent.steps=N]\n"
     "                        [--descent.initial=W,W] [--objectives a,b] [--min a=0.1]\n"
     "                        [--max a=0.6] [--min-ess E] [--output FILE]\n"
     "                        [--frontier[=N] [--plot FILE.svg]]",
     mpo_command_refit, false},
    {"help", "print help, for one command, or the reference configuration",
     "[COMMAND | --reference]", mpo_command_help, false},
    {"version", "print versions and what was built in", "", mpo_command_version, false},
    {NULL, NULL, NULL, NULL, false},
};

const struct mpo_command *mpo_command_find(const char *name)
{
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}
