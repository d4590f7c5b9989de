/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ends of a communicator say to each other, by MPI:
 *
 *     message        envelope and data in one message, whose tag only this communicator
 *                    has; the receiver compares the envelope with what it asked for
 *     meeting        messages without data, to the first rank and back
 *     connecting     one without data to and from a rank, before the first with data
 *
 * Calls go through PMPI_, for tests that count MPI's or make them fail.
 */
#include "calls.h"
#include "nccl_comm.h"
#include "streams.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>

using namespace hostsim;

namespace
{
const char *const kind_names[] = {"a greeting", "a welcome", "a connection", "a message"};

/* Every figure that both ends must agree on. */
struct envelope {
    int64_t kind;
    int64_t count;
    int64_t type;
};

struct last_look {
    ~last_look()
    {
        if (!alive.empty())
            fputs("hostsim: NCCL: a communicator was neither destroyed nor aborted\n",
                  stderr);
    }
} whole_program;
} // namespace

std::set<std::shared_ptr<ncclComm>> hostsim::alive;

void hostsim::die(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    /* In one piece: other ranks speak at the same time. */
    std::string line = std::string("hostsim: NCCL: ") + text + "\n";
    fputs(line.c_str(), stderr);
    abort();
}

std::shared_ptr<ncclComm> hostsim::find(ncclComm_t comm, const char *call)
{
    for (auto &one : alive)
        if (one.get() == comm)
            return one;
    die("%s of a communicator that is none, or none any more", call);
}

size_t hostsim::size_of(ncclDataType_t type)
{
    if (type == ncclInt8)
        return 1;
    if (type == ncclBfloat16)
        return 2;
    if (type != ncclInt32 && type != ncclFloat)
        die("a type that is not modelled: %d", (int)type);
    return 4;
}

int hostsim::world_rank()
{
    int rank = 0;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

/* ---- messages ---- */

static envelope seal(kind what, const operation *call)
{
    if (call == nullptr)
        return envelope{what, 0, 0};
    return envelope{what, (int64_t)call->count, call->type};
}

void ncclComm::send(kind what, int to_world, const operation *call, const void *data,
                    size_t bytes)
{
    envelope head = seal(what, call);
    sent.push_back(outgoing{std::vector<char>(sizeof head + bytes), MPI_REQUEST_NULL});
    outgoing &last = sent.back();
    memcpy(last.bytes.data(), &head, sizeof head);
    if (bytes > 0)
        memcpy(last.bytes.data() + sizeof head, data, bytes);
    PMPI_Issend(last.bytes.data(), (int)last.bytes.size(), MPI_BYTE, to_world, tag,
                MPI_COMM_WORLD, &last.request);
}

/* False while nothing has come; what came must be what was asked for. */
bool ncclComm::receive(kind what, int from_world, const operation *call, void *data,
                       size_t bytes)
{
    MPI_Status from;
    int arrived = 0;
    int length = 0;
    envelope head = {};
    PMPI_Iprobe(from_world, tag, MPI_COMM_WORLD, &arrived, &from);
    if (!arrived)
        return false;
    PMPI_Get_count(&from, MPI_BYTE, &length);
    std::vector<char> message((size_t)length);
    PMPI_Recv(message.data(), length, MPI_BYTE, from.MPI_SOURCE, tag, MPI_COMM_WORLD,
              MPI_STATUS_IGNORE);
    memcpy(&head, message.data(), sizeof head);
    envelope own = seal(what, call);
    if (memcmp(&head, &own, sizeof head) != 0)
        die("rank %d of the job waits for %s of %lld (type %lld) from %d, which has %s of "
            "%lld (type %lld)",
            world_rank(), kind_names[own.kind], (long long)own.count, (long long)own.type,
            from.MPI_SOURCE, kind_names[head.kind], (long long)head.count,
            (long long)head.type);
    if (bytes > 0)
        memcpy(data, message.data() + sizeof head, bytes);
    return true;
}

/* Whether every message found its receiver. */
bool ncclComm::all_sent()
{
    for (auto one = sent.begin(); one != sent.end();) {
        int done = 0;
        PMPI_Test(&one->request, &done, MPI_STATUS_IGNORE);
        one = done ? sent.erase(one) : ++one;
    }
    return sent.empty();
}

/* ---- the meeting ---- */

static bool same_device(const greeting &one, const greeting &other)
{
    return one.rank != other.rank && one.device == other.device &&
           strcmp(one.host, other.host) == 0;
}

void ncclComm::greet()
{
    greeting own = {rank, size, world_rank(), hostsim::physical(device), {}};
    int length = 0;
    const char *host_id = getenv("NCCL_HOSTID");
    PMPI_Get_processor_name(own.host, &length);
    if (host_id != nullptr) /* as NCCL's own: ranks are where they say */
        snprintf(own.host, sizeof own.host, "%s", host_id);
    if (own.world == first_world)
        greetings.push_back(own);
    else
        send(HELLO, first_world, nullptr, &own, sizeof own);
}

/* The first rank hears all, and tells everybody who is there: bad when two have one device,
 * which NCCL finds out too. */
void ncclComm::poll_meeting()
{
    std::vector<int> table((size_t)size + 1);
    size_t bytes = table.size() * sizeof table[0];
    bool is_first = world_rank() == first_world;
    greeting other = {};
    if (!is_first && !receive(WELCOME, first_world, nullptr, table.data(), bytes))
        return;
    while (is_first && greetings.size() < (size_t)size) {
        if (!receive(HELLO, MPI_ANY_SOURCE, nullptr, &other, sizeof other))
            return;
        if (other.size != size || other.rank < 0 || other.rank >= size)
            die("rank %d of %d joins a communicator of %d", other.rank, other.size, size);
        greetings.push_back(other);
    }
    for (auto &one : greetings) {
        table[(size_t)one.rank] = one.world;
        for (auto &two : greetings) {
            if (one.rank == two.rank && one.world != two.world)
                die("two ranks join as rank %d of %d", one.rank, size);
            table[(size_t)size] |= same_device(one, two);
        }
    }
    for (auto &one : greetings)
        if (one.world != first_world)
            send(WELCOME, one.world, nullptr, table.data(), bytes);
    error = table.back() ? ncclInvalidUsage : error;
    table.pop_back();
    world = table;
    is_ready = true;
}

/* Whether all ranks are there that what was asked has the first message with. */
bool ncclComm::poll_connections()
{
    for (auto &call : asked) {
        if (!connected.insert({call.peer, call.sends}).second)
            continue;
        hostsim::calls.connections++;
        awaited.push_back(world[(size_t)call.peer]);
        send(CONNECT, world[(size_t)call.peer], nullptr, nullptr, 0);
    }
    for (auto peer = awaited.begin(); peer != awaited.end();)
        peer = receive(CONNECT, *peer, nullptr, nullptr, 0) ? awaited.erase(peer) : ++peer;
    return all_sent() && awaited.empty();
}

/* ---- work on streams ---- */

namespace
{
/* What one group of calls moves, as one piece of work. */
struct transfer {
    std::shared_ptr<ncclComm> comm;
    std::vector<operation> left; /* receives that wait */

    void start(const operation &call)
    {
        size_t bytes = call.count * size_of(call.type);
        if (call.sends)
            comm->send(call.what, comm->world[(size_t)call.peer], &call, call.from, bytes);
        else
            left.push_back(call);
    }

    /* Messages of one peer in the order in which they were asked for. */
    bool advance()
    {
        std::set<int> waiting;
        for (auto call = left.begin(); call != left.end();) {
            bool come = waiting.count(call->peer) == 0 &&
                        comm->receive(call->what, comm->world[(size_t)call->peer], &*call,
                                      call->to, call->count * size_of(call->type));
            if (!come)
                waiting.insert(call->peer);
            call = come ? left.erase(call) : ++call;
        }
        return comm->all_sent() && left.empty();
    }
};
} // namespace

/* Put what was asked onto its stream. */
void ncclComm::launch()
{
    auto work = std::make_shared<transfer>();
    auto calls = std::make_shared<std::vector<operation>>(asked);
    work->comm = find(this, "a launch");
    hostsim::enqueue_until(asked[0].stream, [=] {
        ncclComm *comm = work->comm.get();
        if (comm->aborted)
            return true;
        if (comm->stuck || comm->error != ncclSuccess)
            return false;
        for (auto &call : *calls)
            work->start(call);
        calls->clear();
        return work->advance();
    });
    asked.clear();
}
