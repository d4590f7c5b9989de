# SPDX-License-Identifier: Apache-2.0
# What happens to a program that is at work: output that nobody takes, limits, signals, a
# terminal that obeys what it is shown, a record that others harm. Included by
# tests/CMakeLists.txt.

mpo_add_script_test("output that nobody takes and limits of the process end as they should"
    output.py commands 300 1 ${binaries} ${work}/output)
set_tests_properties("output that nobody takes and limits of the process end as they should"
    PROPERTIES ENVIRONMENT "${MPO_TEST_ENVIRONMENT};PYTHONDONTWRITEBYTECODE=1")
mpo_add_script_test("what misleads is refused, and other spellings are taken"
    refusals.py commands 300 1 ${binaries} ${work}/refusals)
mpo_add_script_test("control characters are shown on a terminal and raw in a pipe"
    escapes.py commands 120 1 ${binaries} ${work}/escapes)
mpo_add_script_test("the first signal is answered at once and obeyed soon"
    stopping.py commands 300 2 ${binaries} ${work}/stopping)
mpo_add_script_test("fit sees that its record was removed, cut or written over"
    lost_record.py commands 600 2 ${binaries} ${work}/lost_record)
if(NOT MPO_SANITIZE)
    mpo_add_script_test("a record is written where nobody else writes, with locks or without"
        record_paths.py commands 600 2 ${binaries} ${work}/record_paths
        $<TARGET_FILE:mpo_lock_fault> $<TARGET_FILE:mpo_memory_fault> $<TARGET_FILE:mpo_rank_fault>)
endif()
