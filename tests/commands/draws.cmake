# SPDX-License-Identifier: Apache-2.0
# Responses that are drawn and scored, against their exact laws. Included by
# tests/CMakeLists.txt.

mpo_add_script_test("generate samples the mixture it is told to"
    generate_frequencies.py commands 300 1 ${binaries} ${work}/generate)
mpo_add_script_test("generate draws with the tilt that it is told, and score scores with it"
    generate_tilt.py commands 300 3 ${binaries} ${work}/generate_tilt)
mpo_add_script_test("exact draws are those of the mixture of whole responses"
    generate_exact.py commands 300 3 ${binaries} ${work}/generate_exact ${bigram_tool})
mpo_add_script_test("generate does what its options say"
    generate_options.py commands 300 3 ${binaries} ${work}/generate_options ${bigram_tool})
mpo_add_script_test("generate gives rows that finish to prompts that wait"
    generate_rows.py commands 600 6 ${binaries} ${work}/generate_rows ${bigram_tool})
mpo_add_script_test("score gives exact sums on every number of ranks"
    score.py commands 300 6 ${binaries} ${work}/score ${bigram_tool})
if(bigram_tool)
    mpo_add_script_test("score repeats what generate drew with models that round"
        score_drawn.py commands 300 3 ${binaries} ${work}/score_drawn ${bigram_tool})
    mpo_add_script_test("score repeats what generate drew in the demonstration"
        score_drawn.py "commands;long" 1800 1 ${binaries} ${work}/score_reviews ${bigram_tool}
        ${PROJECT_SOURCE_DIR}/configs/reviews.yaml
        ${CMAKE_BINARY_DIR}/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf)
endif()
