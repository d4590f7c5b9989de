# SPDX-License-Identifier: Apache-2.0
# Fits of policies whose answer is known.
mpo_add_script_test("fit gives the same bytes on every number of ranks"
    fit_ranks.py commands 300 6 ${binaries} ${work}/fit_ranks)
mpo_add_script_test("fit gives the same bytes for many objectives"
    fit_many.py commands 300 6 ${binaries} ${work}/fit_many)
mpo_add_script_test("fit finds the exact optimum of bigram policies"
    fit_exact.py commands 300 1 ${binaries} ${work}/fit_exact)
mpo_add_script_test("a served fit finds the exact equaliser of bigram policies"
    fit_served.py commands 300 6 ${binaries} ${work}/fit_served)
mpo_add_script_test("fit finds the exact optimum for many seeds"
    fit_exact.py long 1800 1 ${binaries} ${work}/fit_exact_long --seeds 40)
mpo_add_script_test("a served fit knows how balanced its output is"
    fit_imbalance.py commands 300 3 ${binaries} ${work}/fit_imbalance)
mpo_add_script_test("fits follow the descent with exact gradients"
    fit_averages.py commands 300 1 $<TARGET_FILE:mpo> ${work}/fit_averages)
mpo_add_script_test("fits follow the descent with exact gradients in many worlds"
    fit_averages.py long 3600 1 $<TARGET_FILE:mpo> ${work}/fit_averages_long --long)
mpo_add_script_test("a served fit comes to the exact equaliser for many seeds"
    fit_served.py long 1800 6 ${binaries} ${work}/fit_served_long --seeds 40)
mpo_add_script_test("a served fit stops when it is balanced for many seeds"
    fit_imbalance.py long 1800 3 ${binaries} ${work}/fit_imbalance_long --seeds 60)
mpo_add_script_test("a whole fit tilts its ends as the exact mixture of responses asks for"
    fit_tilt.py commands 300 6 ${binaries} ${work}/fit_tilt)
mpo_add_script_test("F that drawn ends do not certify is unknown everywhere"
    certify.py commands 300 1 ${binaries} ${work}/certify)
