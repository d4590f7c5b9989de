/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL over MPI, for communicators that block: a call waits where ranks join, and a group of
 * calls where it has the first message between two ranks, until both are there. It is
 * stricter than NCCL: what NCCL would answer by wrong data or by a crash ends the program
 * with a word, namely ranks that meet and do not ask for the same (messages of other lengths,
 * types or kinds), ranks that join twice, memory that is not the communicator's device's,
 * streams of another device, use after the end, destruction, an abort inside a group of
 * calls. A message leaves only when its receiver is there.
 *
 * What never comes (a message that nobody sends or receives) is waited for as NCCL does: the
 * program's own deadline must say so.
 *
 *     HOSTSIM_NCCL_FAIL=rank:n:kind    the n-th call of the rank, questions not counted:
 *         call     answers ncclUnhandledCudaError
 *         async    is accepted, and ncclCommGetAsyncError answers ncclRemoteError
 *         hang     is accepted, and nothing comes of it
 *         kill, stop    the process gets SIGKILL, SIGSTOP
 *
 * Not modelled: reductions, a rank that sends to itself, several devices in one process.
 */
#include "calls.h"
#include "nccl_comm.h"
#include "streams.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

using namespace hostsim;

namespace
{
const int TAG_FIRST = 20000; /* mpo's own are small */
const int TAG_COUNT = 12000; /* MPI promises tags up to 32767 */
const struct timespec PAUSE = {0, 100000};

int group_depth;
ncclComm *group_comm;

enum fault { NONE, CALL, ASYNC, HANG };

/* Whether this call, or the first with a communicator after it, is to go wrong. */
fault next_call(const char *name, bool has_comm)
{
    static long count;
    static bool done;
    const char *text = getenv("HOSTSIM_NCCL_FAIL");
    long at = 0;
    char kind[8] = "";
    count++;
    if (text == nullptr || done || !hostsim::fault_of_rank(&text) ||
        sscanf(text, "%ld:%7s", &at, kind) != 2 || count < at)
        return NONE;
    fault found = strcmp(kind, "call") == 0    ? CALL
                  : strcmp(kind, "async") == 0 ? ASYNC
                                               : HANG;
    if (found != CALL && !has_comm)
        return NONE;
    done = true;
    fprintf(stderr, "hostsim: fault in %s: %s\n", name, kind);
    if (strcmp(kind, "kill") == 0)
        raise(SIGKILL);
    if (strcmp(kind, "stop") == 0)
        raise(SIGSTOP);
    return found;
}

/* What a fault makes of a communicator, and what its call answers. */
ncclResult_t suffer(ncclComm *comm, fault wrong)
{
    comm->stuck = comm->stuck || wrong == HANG;
    if (wrong == ASYNC)
        comm->error = ncclRemoteError;
    if (wrong != CALL)
        return ncclSuccess;
    comm->told = true;
    return comm->error = ncclUnhandledCudaError;
}

/* Checks of one call of an operation, and what it answers unless it is to go on. */
bool accept(ncclComm_t pointer, const char *name, operation &call, ncclResult_t *answer)
{
    auto comm = find(pointer, name);
    fault wrong = next_call(name, true);
    const void *own = call.sends ? call.from : call.to;
    if (comm->told)
        die("%s after an error", name);
    if (call.peer < 0 || call.peer >= comm->size ||
        (call.what == MESSAGE && call.peer == comm->rank))
        die("%s with rank %d of %d", name, call.peer, comm->size);
    if (hostsim::device_of(own, call.count * size_of(call.type)) != comm->device)
        die("%s of memory that is not of the communicator's device", name);
    if (hostsim::device_of(call.stream) != comm->device)
        die("%s on a stream of another device", name);
    *answer = suffer(comm.get(), wrong);
    return *answer == ncclSuccess;
}

/* Until a condition holds, as a call of NCCL waits; for ever where nothing comes of it. */
template <class F> void block_until(ncclComm *comm, F holds)
{
    while (comm->stuck || !holds())
        nanosleep(&PAUSE, nullptr);
}

ncclResult_t add_message(ncclComm_t comm, const char *name, operation call)
{
    ncclResult_t answer = ncclSuccess;
    if (group_depth == 0)
        die("%s outside of a group is not modelled", name);
    if (!accept(comm, name, call, &answer))
        return answer;
    if (group_comm != nullptr && group_comm != comm)
        die("%s: one group of calls on two communicators is not modelled", name);
    if (group_comm != nullptr && comm->asked[0].stream != call.stream)
        die("%s: one group of calls on two streams is not modelled", name);
    group_comm = comm;
    comm->asked.push_back(call);
    return answer;
}
} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
    *version = 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int made;
    if (next_call("ncclGetUniqueId", false) == CALL)
        return ncclUnhandledCudaError;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "hostsim %d %d", world_rank(), made++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    int first = 0;
    int made = 0;
    int device = 0;
    *out = nullptr;
    if (config->magic != HOSTSIM_NCCL_MAGIC || config->blocking != 1)
        die("only communicators that block are modelled");
    if (sscanf(id.internal, "hostsim %d %d", &first, &made) != 2)
        die("the id is none of ncclGetUniqueId's");
    fault wrong = next_call("ncclCommInitRankConfig", true);
    if (wrong == CALL || cudaGetDevice(&device) != cudaSuccess)
        return ncclUnhandledCudaError;
    auto comm = std::make_shared<ncclComm>();
    comm->rank = rank;
    comm->size = size;
    comm->device = device;
    comm->first_world = first;
    comm->tag = TAG_FIRST + (31 * first + made) % TAG_COUNT;
    suffer(comm.get(), wrong);
    alive.insert(comm);
    if (wrong == NONE)
        comm->greet();
    block_until(comm.get(), [&] {
        if (comm->error == ncclSuccess)
            comm->poll_meeting();
        return comm->is_ready || comm->error != ncclSuccess;
    });
    comm->told = comm->error != ncclSuccess;
    *out = comm.get();
    return comm->error;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t pointer, ncclResult_t *error)
{
    auto comm = find(pointer, "ncclCommGetAsyncError");
    comm->told = comm->error != ncclSuccess;
    *error = comm->error;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t pointer)
{
    find(pointer, "ncclCommDestroy");
    die("ncclCommDestroy waits for the other ranks: only ncclCommAbort does not");
}

/* What MPI still holds of it is left to MPI. */
ncclResult_t ncclCommAbort(ncclComm_t pointer)
{
    static auto *left = new std::list<std::shared_ptr<ncclComm>>;
    auto comm = find(pointer, "ncclCommAbort");
    if (group_depth > 0)
        die("ncclCommAbort inside a group of calls waits for the group's end");
    comm->aborted = true;
    left->push_back(comm);
    alive.erase(comm);
    fputs("hostsim: a communicator was aborted\n", stderr);
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    if (next_call("ncclGroupStart", false) == CALL)
        return ncclUnhandledCudaError;
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    ncclComm *comm = group_comm;
    if (group_depth == 0)
        die("a group of calls ends that did not begin");
    group_depth--;
    group_comm = nullptr;
    hostsim::calls.groups++;
    if (comm != nullptr && comm->told) /* a call of the group failed */
        return comm->error;
    fault wrong = next_call("ncclGroupEnd", comm != nullptr);
    if (comm == nullptr)
        return wrong == CALL ? ncclUnhandledCudaError : ncclSuccess;
    if (suffer(comm, wrong) != ncclSuccess)
        return comm->error;
    if (comm->error == ncclSuccess && !comm->stuck)
        block_until(comm, [=] { return comm->poll_connections(); });
    comm->launch();
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add_message(comm, "ncclSend",
                       operation{MESSAGE, true, from, nullptr, count, type, peer, stream});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return add_message(comm, "ncclRecv",
                       operation{MESSAGE, false, nullptr, to, count, type, peer, stream});
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {
        "no error",
        "unhandled cuda error",
        "unhandled system error",
        "internal error",
        "invalid argument",
        "invalid usage",
        "remote process exited or there was a network error",
        "NCCL operation in progress"};
    return texts[result];
}

const char *ncclGetLastError(ncclComm_t comm)
{
    if (comm != nullptr)
        find(comm, "ncclGetLastError");
    return "";
}
}
