/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler: one fiber a CUDA thread, kept from block to block.
 *
 * Fibers change places by _setjmp and _longjmp, which take 20 ns; swapcontext, which the
 * sanitizers understand, takes twenty times as long because it saves the signal mask. This
 * file itself is never instrumented for TSan: it tells TSan what orders accesses (barriers
 * and the ends of a block) and what does not (shuffles).
 */
#include "cuda_runtime.h"
#include "cudart.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#ifdef HOSTSIM_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace hostsim
{
dim3 block_size;
dim3 block_place;
char *dynamic_shared;

namespace
{
const size_t STACK_BYTES = 32 << 10; /* ASan clears the shadow of a stack it enters */
const int THREAD_MAX = 1024;

enum fiber_state { READY, AT_BARRIER, IN_WARP, DONE };

struct fiber {
    fiber_state state;
    uint3 place;
    int index;
    uint64_t received; /* of the last warp operation */
    ucontext_t context;
    jmp_buf jump;
    bool started;
    void *tsan;
};

/* A warp operation that waits for the lanes of its mask. */
struct meeting {
    warp_operation operation;
    uint32_t mask;
    uint32_t arrived;
    uint64_t value[32];
    int source[32];
};

std::vector<fiber> fibers;
std::vector<std::vector<meeting>> meetings; /* [warp] those under way */
fiber scheduler;                            /* the test's own stack */
fiber *current;
const std::function<void()> *kernel_body;
const char *kernel_name;
int thread_count;
int done_count;
int barrier_count;
int barrier_line;
uint32_t random_state;
uint64_t read_count;
char start_sync, barrier_sync, end_sync; /* addresses that TSan orders by */

[[noreturn]] void die(const char *what, int number)
{
    fprintf(stderr, "hostsim: %s, block %u,%u: %s (%d)\n", kernel_name, block_place.x,
            block_place.y, what, number);
    abort();
}

#ifdef HOSTSIM_TSAN
void release(char *address)
{
    __tsan_release(address);
}
void acquire(char *address)
{
    __tsan_acquire(address);
}
void enter_tsan(void *tsan_fiber)
{
    __tsan_switch_to_fiber(tsan_fiber, 1);
}
void *make_tsan()
{
    return __tsan_create_fiber(0);
}
void *this_tsan()
{
    return __tsan_get_current_fiber();
}
#else
void release(char *)
{
}
void acquire(char *)
{
}
void enter_tsan(void *)
{
}
void *make_tsan()
{
    return nullptr;
}
void *this_tsan()
{
    return nullptr;
}
#endif

uint32_t random_below(uint32_t bound)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)random_state * bound >> 32);
}

template <class T> void shuffle(std::vector<T> &list)
{
    for (size_t i = list.size(); i > 1; i--)
        std::swap(list[i - 1], list[random_below((uint32_t)i)]);
}

/* ---- changing places ---- */

void leave()
{
    enter_tsan(scheduler.tsan);
#ifdef HOSTSIM_SANITIZED
    swapcontext(&current->context, &scheduler.context);
#else
    if (_setjmp(current->jump) == 0)
        _longjmp(scheduler.jump, 1);
#endif
}

void resume(fiber *next)
{
    current = next;
    enter_tsan(next->tsan);
#ifdef HOSTSIM_SANITIZED
    swapcontext(&scheduler.context, &next->context);
#else
    if (_setjmp(scheduler.jump) != 0)
        return;
    if (next->started)
        _longjmp(next->jump, 1);
    next->started = true;
    setcontext(&next->context);
#endif
}

/* A fiber's whole life: one kernel thread after another. */
void live()
{
    for (;;) {
        acquire(&start_sync);
        (*kernel_body)();
        release(&end_sync);
        current->state = DONE;
        done_count++;
        leave();
    }
}

void make_fibers()
{
    void *stacks = mmap(nullptr, THREAD_MAX * STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const char *seed = getenv("HOSTSIM_SEED");
    random_state = seed == nullptr ? 1u : (uint32_t)atoi(seed);
    fibers.resize(THREAD_MAX);
    for (int i = 0; i < THREAD_MAX; i++) {
        fiber *fresh = &fibers[(size_t)i];
        fresh->index = i;
        getcontext(&fresh->context);
        fresh->context.uc_stack.ss_sp = (char *)stacks + (size_t)i * STACK_BYTES;
        fresh->context.uc_stack.ss_size = STACK_BYTES;
        fresh->context.uc_link = nullptr;
        makecontext(&fresh->context, live, 0);
    }
}

/* ---- one block ---- */

void start_block()
{
    done_count = 0;
    barrier_count = 0;
    meetings.assign((size_t)(thread_count + 31) / 32, {});
    for (int i = 0; i < thread_count; i++) {
        fiber *thread = &fibers[(size_t)i];
        unsigned index = (unsigned)i;
        thread->place = uint3{index % block_size.x, index / block_size.x % block_size.y,
                              index / (block_size.x * block_size.y)};
        thread->state = READY;
        if (thread->tsan == nullptr)
            thread->tsan = make_tsan();
    }
    release(&start_sync);
}

void run_block(std::vector<int> &order)
{
    start_block();
    while (done_count < thread_count) {
        bool progress = false;
        shuffle(order);
        for (int index : order)
            if (fibers[(size_t)index].state == READY) {
                progress = true;
                resume(&fibers[(size_t)index]);
            }
        if (!progress && barrier_count > 0)
            die("some threads wait at a barrier that others never reach; line",
                barrier_line);
        if (!progress)
            die("lanes wait for others of their mask; threads done", done_count);
    }
    acquire(&end_sync);
}

void wake(fiber_state state, int first, int count)
{
    for (int i = first; i < first + count && i < thread_count; i++)
        if (fibers[(size_t)i].state == state)
            fibers[(size_t)i].state = READY;
}
} // namespace

uint3 thread_place()
{
    return current->place;
}

void note_reads(int count)
{
    read_count += (uint64_t)count;
}

void barrier(int line)
{
    if (barrier_count > 0 && barrier_line != line)
        die("threads wait at different barriers; line", line);
    barrier_line = line;
    current->state = AT_BARRIER;
    release(&barrier_sync);
    if (++barrier_count == thread_count) {
        barrier_count = 0;
        wake(AT_BARRIER, 0, thread_count);
    }
    leave();
    acquire(&barrier_sync);
}

namespace
{
/* The meeting of a mask in a warp, a new one when there is none. */
size_t find_meeting(std::vector<meeting> &warp, warp_operation operation, uint32_t mask)
{
    for (size_t i = 0; i < warp.size(); i++)
        if (warp[i].mask == mask) {
            if (warp[i].operation != operation)
                die("lanes of one mask are at different operations", (int)operation);
            return i;
        }
    warp.push_back(meeting{operation, mask, 0, {}, {}});
    return warp.size() - 1;
}

/* All lanes are there: give each what it asked for. */
void hold_meeting(const meeting &met, int first)
{
    for (int lane = 0; lane < 32; lane++) {
        if (!(met.mask >> lane & 1u))
            continue;
        if (met.source[lane] < 0 || met.source[lane] > 31 ||
            !(met.mask >> met.source[lane] & 1u))
            die("a shuffle reads from a lane outside its mask", met.source[lane]);
        fiber *thread = &fibers[(size_t)(first + lane)];
        thread->received = met.value[met.source[lane]];
        thread->state = READY;
    }
}
} // namespace

uint64_t warp_meet(warp_operation operation, uint32_t mask, uint64_t value, int source)
{
    std::vector<meeting> &warp = meetings[(size_t)current->index / 32];
    int lane = current->index % 32;
    if (!(mask >> lane & 1u))
        die("a lane calls an operation whose mask leaves it out", lane);
    size_t index = find_meeting(warp, operation, mask);
    warp[index].value[lane] = value;
    warp[index].source[lane] = source;
    warp[index].arrived |= 1u << lane;
    current->state = IN_WARP;
    if (warp[index].arrived == mask) {
        hold_meeting(warp[index], current->index - lane);
        warp.erase(warp.begin() + (ptrdiff_t)index);
    }
    leave();
    return current->received;
}

void run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
              const std::function<void()> &body)
{
    if (fibers.empty())
        make_fibers();
    kernel_name = kernel;
    kernel_body = &body;
    block_size = block;
    thread_count = (int)(block.x * block.y * block.z);
    scheduler.tsan = this_tsan();
    std::vector<unsigned> places(grid.x * grid.y * grid.z);
    std::vector<int> order((size_t)thread_count);
    for (size_t i = 0; i < places.size(); i++)
        places[i] = (unsigned)i;
    for (size_t i = 0; i < order.size(); i++)
        order[i] = (int)i;
    shuffle(places);
    for (unsigned place : places) {
        block_place =
            dim3(place % grid.x, place / grid.x % grid.y, place / (grid.x * grid.y));
        dynamic_shared = (char *)malloc(shared_bytes > 0 ? shared_bytes : 1);
        memset(dynamic_shared, 0xff, shared_bytes);
        run_block(order);
        free(dynamic_shared);
    }
}
} // namespace hostsim

extern "C" uint64_t cudart_take_reads(void)
{
    return std::exchange(hostsim::read_count, 0);
}
