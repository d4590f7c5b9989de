/* SPDX-License-Identifier: Apache-2.0 */
#include "calls.h"

struct hostsim_calls hostsim::calls;

extern "C" struct hostsim_calls hostsim_take_calls(void)
{
    struct hostsim_calls taken = hostsim::calls;
    hostsim::calls = {};
    return taken;
}
