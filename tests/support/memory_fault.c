/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LD_PRELOAD: memory that runs out at one allocation of the program's own.
 *
 *     MEMORY_FAULT_AT=N    the N-th allocation that the program itself asks for fails
 *     MEMORY_FAULT_AT=end  none fails; how many there were is said when the program ends
 *     MEMORY_FAULT_RANK=R  only on rank R of an Open MPI job (default: on every rank)
 *
 * The program's own are the calls that return into its executable: libllama, HDF5 and MPI
 * have their own allocations, which are theirs to check. A line on standard error says that
 * the fault happened, so that a run without it is known to have had fewer allocations.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uintptr_t program_begin;
static uintptr_t program_end;
static long fault_at; /* 0: never */
static bool counts_only;
static atomic_long allocation_count;

/* The executable is the first object. */
static int keep_program(struct dl_phdr_info *info, size_t bytes, void *unused)
{
    (void)bytes;
    (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_X) == 0)
            continue;
        program_begin = info->dlpi_addr + segment->p_vaddr;
        program_end = program_begin + segment->p_memsz;
    }
    return 1;
}

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("MEMORY_FAULT_AT");
    const char *rank = getenv("MEMORY_FAULT_RANK");
    const char *own = getenv("OMPI_COMM_WORLD_RANK");
    dl_iterate_phdr(keep_program, NULL);
    if (at == NULL || (rank != NULL && (own == NULL || strcmp(rank, own) != 0)))
        return;
    counts_only = strcmp(at, "end") == 0;
    fault_at = counts_only ? -1 : strtol(at, NULL, 10);
}

__attribute__((destructor)) static void end(void)
{
    if (counts_only)
        fprintf(stderr, "memory_fault: %ld allocations\n", (long)allocation_count);
}

/* True when this call must fail. */
static bool fails(const void *caller)
{
    static const char said[] = "memory_fault: here\n";
    const uintptr_t address = (uintptr_t)caller;
    if (fault_at == 0 || address < program_begin || address >= program_end ||
        atomic_fetch_add(&allocation_count, 1) + 1 != fault_at)
        return false;
    if (write(STDERR_FILENO, said, sizeof said - 1) < 0)
        abort();
    errno = ENOMEM;
    return true;
}

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);

/* glibc's own names: dlsym allocates, so it cannot find malloc. */
void *malloc(size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, bytes);
}

void *reallocarray(void *old, size_t count, size_t bytes)
{
    size_t product = 0;
    if (__builtin_mul_overflow(count, bytes, &product)) {
        errno = ENOMEM;
        return NULL;
    }
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, product);
}

char *strdup(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}
