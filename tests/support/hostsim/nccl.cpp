/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL over MPI, for communicators that do not block. It is stricter than NCCL: what NCCL
 * would answer by wrong data or by a crash ends the program with a word, namely ranks that
 * meet and do not ask for the same (messages of other lengths, types or kinds), ranks that
 * join twice, memory that is not the communicator's device's, streams of another device, a
 * call while one before it is still under way, use after the end, destruction after an
 * error, an abort inside a group of calls. What was asked is on the stream only when
 * ncclCommGetAsyncError has said so, and a message leaves only when its receiver is there.
 *
 * What never comes (a message that nobody sends or receives, collectives in another order)
 * is waited for as NCCL does: the program's own deadline must say so.
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

using namespace hostsim;

namespace
{
const int TAG_FIRST = 20000; /* mpo's own are small */
const int TAG_COUNT = 12000; /* MPI promises tags up to 32767 */
const int POLLS = 2;         /* questions until what was asked is on the stream */

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
    if (comm->state != ncclComm::READY)
        die("%s while something asked before is under way", name);
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

ncclResult_t ask(ncclComm_t comm)
{
    comm->state = ncclComm::ASKED;
    comm->polls = POLLS;
    return ncclInProgress;
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
    if (config->magic != HOSTSIM_NCCL_MAGIC || config->blocking != 0)
        die("only communicators that do not block are modelled");
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
    *out = comm.get();
    if (wrong == NONE)
        comm->greet();
    return ncclInProgress;
}

/* The only call that makes anything go on beside the streams. */
ncclResult_t ncclCommGetAsyncError(ncclComm_t pointer, ncclResult_t *error)
{
    auto comm = find(pointer, "ncclCommGetAsyncError");
    bool goes_on = !comm->stuck && comm->error == ncclSuccess;
    if (comm->state == ncclComm::MEETING && goes_on)
        comm->poll_meeting();
    else if (comm->state == ncclComm::ENDING && goes_on)
        comm->poll_end();
    else if (comm->state == ncclComm::ASKED && comm->polls-- == 0)
        comm->launch();
    comm->told = comm->error != ncclSuccess;
    bool under_way = comm->state != ncclComm::READY && comm->state != ncclComm::ENDED;
    *error = comm->error != ncclSuccess ? comm->error
             : under_way                ? ncclInProgress
                                        : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t pointer)
{
    auto comm = find(pointer, "ncclCommFinalize");
    fault wrong = next_call("ncclCommFinalize", true);
    if (comm->state != ncclComm::READY || comm->told)
        die("ncclCommFinalize of a communicator that is at work, or after an error");
    if (suffer(comm.get(), wrong) != ncclSuccess)
        return comm->error;
    comm->state = ncclComm::ENDING;
    for (int peer = 0; peer < comm->size && wrong == NONE; peer++) {
        if (peer == comm->rank)
            continue;
        comm->awaited.insert(comm->world[(size_t)peer]);
        comm->send(END, comm->world[(size_t)peer], nullptr, nullptr, 0);
    }
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t pointer)
{
    auto comm = find(pointer, "ncclCommDestroy");
    if (comm->state != ncclComm::ENDED || comm->error != ncclSuccess)
        die("ncclCommDestroy of a communicator that was not finalised, or after an error: "
            "only ncclCommAbort does not wait");
    alive.erase(comm);
    return ncclSuccess;
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
    return suffer(comm, wrong) == ncclSuccess ? ask(comm) : comm->error;
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
