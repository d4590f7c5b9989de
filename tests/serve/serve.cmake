# SPDX-License-Identifier: Apache-2.0
# The server as clients meet it. Scripts of pages skip where no browser is installed.
if(NOT MPO_HTTP)
    return()
endif()
mpo_count_allocations(test_answer_memory)
mpo_count_allocations(test_http_memory)
target_link_libraries(test_http_memory PRIVATE PkgConfig::LIBEVENT)
target_link_libraries(test_http_tls PRIVATE OpenSSL::SSL)
mpo_add_script_test("answers of serve are those of generate, whole or in pieces"
    ../serve/answers.py commands 300 1 ${binaries} ${work}/answers ${PROJECT_SOURCE_DIR})
mpo_add_sweep_test("a server ends as it should by signals and by lost ranks"
    ../serve/ending.py commands 600 2 ${binaries} ${work}/ending ${PROJECT_SOURCE_DIR})
mpo_add_sweep_test("groups of a server answer as one, and end together"
    ../serve/replicas.py commands 600 2 ${binaries} ${work}/replicas ${PROJECT_SOURCE_DIR})
mpo_add_script_test("groups of a server have one waiting line, and keys their shares of all"
    ../serve/line.py commands 300 2 ${binaries} ${work}/line ${PROJECT_SOURCE_DIR})
if(bigram_tool)
    mpo_add_script_test("groups of a server with models give the bytes of one"
        ../serve/models.py commands 300 4 ${binaries} ${work}/serve_models ${bigram_tool})
endif()
mpo_add_script_test("the page of serve draws, shows and copies what is exact"
    ../serve/page.py commands 600 2 ${binaries} ${work}/page ${PROJECT_SOURCE_DIR})
mpo_add_script_test("the page of serve says what to do, and is for everybody"
    ../serve/page_faults.py commands 600 2 ${binaries} ${work}/page_faults ${PROJECT_SOURCE_DIR})
mpo_add_script_test("what a server draws has the frequencies of the closed form"
    ../serve/frequencies.py commands 300 1 ${binaries} ${work}/frequencies ${PROJECT_SOURCE_DIR})
mpo_add_script_test("clients that leave a server leave nothing behind"
    ../serve/leaving.py commands 300 3 ${binaries} ${work}/leaving ${PROJECT_SOURCE_DIR})
mpo_add_script_test("prompts that begin alike are fed once, and nothing else changes"
    ../serve/reuse.py commands 300 3 ${binaries} ${work}/reuse ${PROJECT_SOURCE_DIR})
mpo_add_script_test("streams go on while chats become tokens, and nothing else changes"
    ../serve/encoding.py commands 300 3 ${binaries} ${work}/encoding ${PROJECT_SOURCE_DIR})
mpo_add_script_test("doctor --serve and serve agree on what would fail"
    ../serve/doctor.py commands 300 2 ${binaries} ${work}/serve_doctor ${PROJECT_SOURCE_DIR}
    ${bigram_tool})
mpo_add_script_test("servers behind nginx and HAProxy stream, and one drains unnoticed"
    ../serve/proxies.py commands 300 3 ${binaries} ${work}/proxies ${PROJECT_SOURCE_DIR})
mpo_add_script_test("slow and many clients leave a server as it was"
    ../serve/hostile.py commands 300 3 ${binaries} ${work}/hostile ${PROJECT_SOURCE_DIR})
mpo_add_script_test("an hour of mixed traffic leaves a server as it was"
    ../serve/hostile.py "commands;long" 5400 3 ${binaries} ${work}/hostile_long ${PROJECT_SOURCE_DIR} 3600)
# The following skip without launch/setup.sh --clients.
mpo_add_script_test("lm-evaluation-harness finds the exact figures of bigram policies"
    ../serve/harness.py commands 600 2 ${binaries} ${work}/harness ${PROJECT_SOURCE_DIR}
    ${bigram_tool})
mpo_add_script_test("clients made for OpenAI's service are served, and README's lines work"
    ../serve/openai_clients.py commands 300 2 ${binaries} ${work}/openai ${PROJECT_SOURCE_DIR})
mpo_add_script_test("schemathesis finds nothing that /openapi.json does not say"
    ../serve/schema.py commands 300 1 ${binaries} ${work}/schema ${PROJECT_SOURCE_DIR})
