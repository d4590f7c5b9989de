/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A communicator of the stand-in for NCCL: what travels between its ends, and what is left
 * to do on streams. nccl.cpp has NCCL's own calls.
 */
#pragma once

#include "nccl.h"

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include <list>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace hostsim
{
enum kind { HELLO, WELCOME, CONNECT, MESSAGE };

/* What HELLO and WELCOME carry. */
struct greeting {
    int rank;
    int size;
    int world;
    int device; /* of those of the host, as a bus would number it */
    char host[MPI_MAX_PROCESSOR_NAME];
};

struct operation {
    kind what;
    bool sends;
    const void *from;
    void *to;
    size_t count;
    ncclDataType_t type;
    int peer;
    cudaStream_t stream;
};

struct outgoing {
    std::vector<char> bytes;
    MPI_Request request;
};

/** Say what is wrong and end the program. */
[[noreturn]] void die(const char *format, ...);

size_t size_of(ncclDataType_t type);
int world_rank();
} // namespace hostsim

/* One end of a communicator. Streams hold it too, so that what is left on them is void once
 * it was aborted. */
struct ncclComm {
    bool is_ready; /* all ranks have met */
    int rank;
    int size;
    int device;
    int tag;
    int first_world;        /* whom all greet */
    std::vector<int> world; /* [size] ranks of the job */
    ncclResult_t error;
    bool told; /* of the error */
    bool stuck;
    bool aborted;
    std::vector<hostsim::operation> asked;
    std::vector<hostsim::greeting> greetings; /* of those who came, at the first rank */
    std::list<hostsim::outgoing> sent;
    std::set<std::pair<int, bool>>
        connected;          /* ranks that were sent to, or received from */
    std::list<int> awaited; /* ranks that are yet to connect */

    void send(hostsim::kind what, int to_world, const hostsim::operation *call,
              const void *data, size_t bytes);
    bool receive(hostsim::kind what, int from_world, const hostsim::operation *call,
                 void *data, size_t bytes);
    bool all_sent();
    void greet();
    void poll_meeting();
    bool poll_connections();
    void launch();
};

namespace hostsim
{
/** Communicators that were made, and neither destroyed nor aborted. */
extern std::set<std::shared_ptr<ncclComm>> alive;

/** One of them; the program ends when it is none. */
std::shared_ptr<ncclComm> find(ncclComm_t comm, const char *call);
} // namespace hostsim
