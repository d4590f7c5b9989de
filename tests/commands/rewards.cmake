# SPDX-License-Identifier: Apache-2.0
# Rewards that a program measures.

mpo_add_script_test("a fit of rewards finds the exact equaliser of bigram policies"
    fit_rewards.py commands 300 3 ${binaries} ${work}/fit_rewards --seeds 6)
mpo_add_script_test("a fit of rewards finds the exact equaliser for many seeds"
    fit_rewards.py long 1800 3 ${binaries} ${work}/fit_rewards_long --seeds 20)
mpo_add_script_test("a reward program that ends, lies or stalls ends the fit well"
    reward_faults.py commands 300 2 ${binaries} ${work}/reward_faults)
mpo_add_script_test("refit predicts rewards at other weights"
    refit_rewards.py commands 120 1 ${binaries} ${work}/refit_rewards)
mpo_add_script_test("evaluate measures rewards of what is served"
    evaluate_rewards.py commands 240 3 ${binaries} ${work}/evaluate_rewards)
