/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LD_PRELOAD: a rank that is killed or stopped at a chosen moment.
 *
 *     MPO_FAULT="RANK PHASE COUNT SIGNAL"    "2 exchange 40 9": rank 2, 40th call, SIGKILL
 *
 * A phase is the calls that only it makes:
 *     load      a policy's table is opened
 *     exchange  rows or their arrival are announced to other ranks (barrier, send, receive)
 *     record    something is written to the record
 *     finish    the meeting of all ranks before they end
 *     end       MPI_Finalize
 * The signal goes to the process itself just before the call, so the moment is exact.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char phase[16];
    int rank;
    int count;
    int signal;
} fault;

static int call_count;

__attribute__((constructor)) static void read_fault(void)
{
    const char *text = getenv("MPO_FAULT");
    const char *rank = getenv("PMIX_RANK"); /* mpirun and srun --mpi=pmix both set it */
    if (text == NULL || rank == NULL)
        return;
    int fields = sscanf(text, "%d %15s %d %d", &fault.rank, fault.phase, &fault.count,
                        &fault.signal);
    if (fields != 4) {
        fprintf(stderr, "MPO_FAULT=%s: expected RANK PHASE COUNT SIGNAL\n", text);
        abort();
    }
    if (strtol(rank, NULL, 10) != fault.rank)
        fault.phase[0] = '\0';
}

static void reach(const char *phase)
{
    if (strcmp(phase, fault.phase) == 0 && ++call_count == fault.count)
        kill(getpid(), fault.signal);
}

FILE *fopen(const char *path, const char *mode)
{
    FILE *(*next)(const char *, const char *) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "fopen");
    size_t length = strlen(path);
    if (length > 6 && strcmp(path + length - 6, ".table") == 0)
        reach("load");
    return next(path, mode);
}

ssize_t pwrite(int descriptor, const void *data, size_t bytes, off_t offset)
{
    ssize_t (*next)(int, const void *, size_t, off_t) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "pwrite");
    reach("record");
    return next(descriptor, data, bytes, offset);
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request *request)
{
    char name[MPI_MAX_OBJECT_NAME] = "";
    int length = 0;
    PMPI_Comm_get_name(comm, name, &length);
    reach(strcmp(name, "mpo world") == 0 ? "finish" : "exchange");
    return PMPI_Ibarrier(comm, request);
}

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag,
              MPI_Comm comm, MPI_Request *request)
{
    reach("exchange");
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
              MPI_Request *request)
{
    reach("exchange");
    return PMPI_Irecv(data, count, type, from, tag, comm, request);
}

int MPI_Finalize(void)
{
    reach("end");
    return PMPI_Finalize();
}
