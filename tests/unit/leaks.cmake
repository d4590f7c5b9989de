# SPDX-License-Identifier: Apache-2.0
# What is left behind on purpose is no leak: the exchange of a job that has failed, which is
# freed by all ranks or by none, what Open MPI keeps of the sessions of the catalog, and values
# that a hostile template ties into a circle.
foreach(name "fit" "catalog" "policy llama jinja")
    if(TEST ${name})
        set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0")
    endif()
endforeach()
