#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Break the CUDA variant on purpose, one edit at a time: some test must notice.

usage: mutants.py SOURCE_FOLDER WORK_FOLDER [PATH|FIRST-LAST]
       mutants.py SOURCE_FOLDER --check    whether each edit still has its place

Each mutant of a kernel is tried on the plain build (values), then with ASan and UBSan, then
with TSan, until one notices. One of the exchange or of slices is tried on three ranks too, of
which first the calls are counted (calls, ranks), one of the exchange also with calls of NCCL
that fail (faults). The table at the end says which. PATH leaves only the mutants of files whose
path has it, such as src/exchange; FIRST-LAST, such as 84-105, leaves those of the list from one
place to another. Set MPO_MUTANT_SECONDS where a test may take longer than 300 s.
"""
import os
import re
import shutil
import subprocess
import sys

SOURCE, WORK = [os.path.abspath(path) for path in sys.argv[1:3]]
ONLY = sys.argv[3] if len(sys.argv) > 3 else ""
PLACES = re.fullmatch(r"(\d+)-(\d+)", ONLY)
TREE = os.path.join(WORK, "tree")
BUILD = os.path.join(WORK, "build")
RANKS = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
         "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMP_WAIT_POLICY": "passive"}
SIMULATED = os.path.join(BUILD, "tests", "hostsim")

KERNELS = "src/mixture/cuda/kernels.cuh"
DRAWS = "src/mixture/cuda/draw_kernels.cuh"
SLICES = "src/mixture/cuda/slice_kernels.cuh"
FILTERS = "src/mixture/cuda/filter_kernels.cuh"
SELECTION = "src/mixture/cuda/select_kernels.cuh"
ROUNDING = "src/mixture/cuda/round_kernels.cuh"
MEMORY = "src/mixture/cuda/memory.cuh"
LAUNCHES = "src/mixture/cuda/draws.cuh"
HOST = "src/mixture/cuda/cuda.cu"
NCCL = "src/exchange/nccl.c"
PARTS = "src/exchange/nccl_parts.c"
MESSAGES = "src/exchange/pack_kernels.cuh"
COMM = "src/comm/collective.c"

# Of the exchange; of the mixture it is the same three for all files.
MIXTURE_TESTS = ["test_mixture_cuda", "test_mixture_select", "test_rounding_cuda",
                 "test_mixture_slices"]
KERNEL_TESTS = {NCCL: [], PARTS: [], COMM: [], MESSAGES: ["test_exchange_cuda"]}
# What devices do with slices among themselves needs several.
ON_RANKS = [*KERNEL_TESTS, SLICES, HOST]

# What is broken, in which file, the text that stands there once, and what takes its place.
MUTANTS = [
    ("nothing", KERNELS, "/* ---- reductions ---- */", "/* ---- the reductions ---- */"),
    ("no barrier before block sums are added", KERNELS,
     "    __syncthreads();\n    double *figures =", "    double *figures ="),
    ("no barrier in the maximum", KERNELS,
     "    __syncthreads();\n    value = part[0];", "    value = part[0];"),
    ("a kernel does not ask for its shared memory", MEMORY,
     "cudaFuncAttributeMaxDynamicSharedMemorySize, wanted)",
     "cudaFuncAttributeMaxDynamicSharedMemorySize, 0)"),
    ("no barrier before scales are used", KERNELS,
     "    __syncthreads();\n    int32_t stride =", "    int32_t stride ="),
    ("no barrier before the lowest is used again", KERNELS,
     "    int32_t found = lowest;\n    __syncthreads();", "    int32_t found = lowest;"),
    ("no barrier before the token is read", DRAWS,
     "    __syncthreads();\n    return token;", "    return token;"),
    ("a barrier that one thread meets", KERNELS,
     "    if (threadIdx.x == 0)\n        lowest = INT32_MAX;\n    __syncthreads();",
     "    if (threadIdx.x == 0) {\n        lowest = INT32_MAX;\n        __syncthreads();\n    }"),
    ("the last load reads past a row", KERNELS,
     "token + MIXTURE_TOKENS <= vocab_size &&", "token < vocab_size &&"),
    ("wide loads at any address", KERNELS,
     "(uintptr_t)(row + token) % sizeof(float4) == 0", "row != NULL"),
    ("half of a warp's sum", KERNELS,
     "for (int distance = 16; distance > 0; distance /= 2)\n        value += ",
     "for (int distance = 8; distance > 0; distance /= 2)\n        value += "),
    ("too little shared memory for the sums", KERNELS,
     "((size_t)((policy_count) + 2) * MIXTURE_THREADS", "((size_t)((policy_count) + 1) * MIXTURE_THREADS"),
    ("rows and policies change places", KERNELS,
     "return view->row[(size_t)h * (size_t)view->row_count + (size_t)row];",
     "return view->row[(size_t)row * (size_t)view->policy_count + (size_t)h];"),
    ("greedy takes a thread's last tie", DRAWS,
     "for (int i = MIXTURE_TOKENS - 1; i >= 0; i--)\n        if (score[i] == top)",
     "for (int i = 0; i < MIXTURE_TOKENS; i++)\n        if (score[i] == top)"),
    ("expectations without the temperature", KERNELS,
     "/ sum * view->inverse_temperature[h] -", "/ sum -"),
    ("scores without the end tilt", DRAWS,
     "flags & MIXTURE_ENDS ? row_end_bias(view, row) : 0.0", "0.0"),
    ("figures are added up before they are there", DRAWS,
     "    __syncthreads();\n    if (threadIdx.x > 0)\n        return;", "    if (threadIdx.x > 0)\n        return;"),
    ("figures of all draws go to the first", DRAWS,
     "draws->log_policy + (size_t)blockIdx.x * (size_t)view->policy_count;", "draws->log_policy;"),
    ("a search is cleared while others read it", SELECTION,
     "    __syncthreads();\n    for (int32_t i = (int32_t)threadIdx.x; i < MIXTURE_BINS;",
     "    for (int32_t i = (int32_t)threadIdx.x; i < MIXTURE_BINS;"),
    ("amounts are added before bins are empty", SELECTION,
     "        search->count = 0;\n    }\n    __syncthreads();", "        search->count = 0;\n    }"),
    ("bins are read before all have added", SELECTION,
     "(unsigned long long)farthest);\n    }\n    __syncthreads();",
     "(unsigned long long)farthest);\n    }"),
    ("no barrier in the sum of the bins", SELECTION,
     "    __syncthreads();\n    sum = 0;", "    sum = 0;"),
    ("a bin is read before it is found", SELECTION,
     "    __syncthreads();\n    return search->found;", "    return search->found;"),
    ("a listed cut is read before it is found", SELECTION,
     "    __syncthreads();\n    return search->cut;", "    return search->cut;"),
    ("ties are counted before all are marked", SELECTION,
     "                });\n    __syncthreads();", "                });"),
    ("the last tie is not kept", SELECTION, "token <= cut->token", "token < cut->token"),
    ("all ties are kept", SELECTION, "token <= cut->token", "cut->token >= 0"),
    ("equals of a list are in the order in which they came", SELECTION,
     "search->token[i] < token", "i < place"),
    ("a list that is too long is taken for whole", SELECTION,
     "search->count <= MIXTURE_LISTED)", "search->count <= 2 * MIXTURE_LISTED)"),
    ("a list is longer than its place", SELECTION,
     "place < MIXTURE_LISTED", "place < 4 * MIXTURE_LISTED"),
    ("top_p of all tokens, not of top_k's", SELECTION, "from.by_mass = stage == 1;",
     "from.by_mass = stage == 1;\n        from.cut = {0, INT32_MAX};"),
    ("the bins before are forgotten", SELECTION, "        target -= bin.before;\n", ""),
    ("neighbours of other bins are added up", SELECTION, "its != bin && amount > 0", "amount > ~0ull - 1"),
    ("one tie too many", SELECTION, "(target + one - 1) / one", "target / one + 1"),
    ("ties of the stretches before count again", SELECTION, "wanted - stretch.before", "wanted"),
    ("stretches are counted from their own first", SELECTION, "first + place.index}", "place.index}"),
    ("a search reads past its row", SELECTION, "v + i * MIXTURE_THREADS < last ?",
     "v + i * MIXTURE_THREADS <= last ?"),
    ("the last bin ends where the others do", SELECTION, "bin == MIXTURE_BINS - 1 || ", ""),
    ("where nothing lies is searched too", SELECTION,
     "first > search->nearest ? first : search->nearest", "first"),
    ("a row is read once more", SELECTION,
     "        sum_bins(search, search->amount);\n    }",
     "        search_range(search, from, &range, true);\n        sum_bins(search, search->amount);\n    }"),
    ("no filter is a filter too", SELECTION, "filter->top_p < 1.0 :", "filter->top_p < 2.0 :"),
    ("every slot draws for the first row", FILTERS,
     "token_scores(&view, draws.row[ruled->draw], block", "token_scores(&view, draws.row[0], block"),
    ("moments are read before they are there", HOST,
     "    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));\n    take_figures(",
     "    take_figures("),
    ("draws are read before they are there", LAUNCHES,
     "    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));\n    memcpy(draws->token,",
     "    memcpy(draws->token,"),
    ("figures come back without the draws' last", LAUNCHES,
     "fetch_span(cuda, cuda->host.token, cuda->host.log_policy + figures)",
     "fetch_span(cuda, cuda->host.token, cuda->host.log_policy)"),
    ("a chain draws from the rows before", HOST,
     "    MPO_TRY(launch_rows(cuda, &cuda->view));\n    MPO_TRY(launch_draws(", "    MPO_TRY(launch_draws("),
    ("a chain takes the draws before", HOST,
     "send_span(cuda, cuda->host.row, note_draws(cuda, draws))", "send_span(cuda, cuda->host.row, cuda->host.expects + rows->row_count)"),
    ("the host reads the device's memory", HOST,
     "memcpy(moments, cuda->host.moments,", "memcpy(moments, cuda->device.moments,"),
    ("a block's weights are not the row's", DRAWS, "score[i] *= question->scale;", "score[i] *= 1.0;"),
    ("a block is inverted as if it were the first", DRAWS,
     "question.target = target - place.before;", "question.target = target;"),
    ("answers are about the first row", SLICES, "own.row)[token]", "0)[token]"),
    ("scores are the first row's", SLICES,
     "token_scores(&view, row, (int32_t)blockIdx.x", "token_scores(&view, 0, (int32_t)blockIdx.x"),
    ("filters do not look at scores of slices", FILTERS,
     "score[i] = token + i < view.vocab_size ? slot[token + i] : -INFINITY;",
     "score[i] = token + i < view.vocab_size ? 0.0 : -INFINITY;"),
    ("slices have the flags of the first", MEMORY, "cuda->flags + first;", "cuda->flags;"),
    ("answers count tokens from the slice's first", SLICES,
     "(double)(token + first_block * MPO_ROWS_BLOCK);", "(double)token;"),
    ("questions count blocks from the vocabulary's first", SLICES,
     "own.block -= first_block;", "own.block -= 0;"),
    ("questions about other slices are answered", SLICES,
     "    if (own.block < 0 || own.block >= view.block_count)\n        return; /* the whole group */\n", ""),
    ("sums stay where they were made", HOST, "    MPO_TRY(gather_sums(cuda, team));\n", ""),
    ("sums of slices lie as if each were the first", HOST,
     "sums_count(cuda, team->first_block[rank]) *", "sums_count(cuda, rank > 0) *"),
    ("a position of slices is not waited for", HOST,
     "    MPO_TRY(mpo_exchange_device_wait(team->exchange, cuda->stream));\n", ""),
    ("answers are those of the root", HOST,
     "        while (team->first_block[rank + 1] <= team->question[i].block)\n            rank++;\n", ""),
    ("the last answers stay on the device", HOST,
     "(char *)cuda->host.answers + team->part[team->size]", "(char *)cuda->host.answers + team->part[1]"),
    ("slices are asked before they are folded", HOST,
     "        MPO_TRY(launch_rows(cuda, &whole));\n        MPO_TRY(launch_ask(cuda, count));",
     "        MPO_TRY(launch_ask(cuda, count));\n        MPO_TRY(launch_rows(cuda, &whole));"),
    ("parts of all ranks come to the same place", PARTS,
     "(char *)table->memory + table->start[rank], bytes", "(char *)table->memory, bytes"),
    ("a part is sent from where the root has it", PARTS,
     "ncclSend(table->memory, bytes,", "ncclSend((char *)table->memory + table->start[rank], bytes,"),
    ("questions go to ranks that have no slice", PARTS,
     "        if (mpo_exchange_slice_of(exchange, rank).count == 0)\n            continue;\n", ""),
    ("questions are waited for on the rows' stream", PARTS,
     "ncclRecv(memory, bytes, ncclInt8, 0, self->comm, stream)",
     "ncclRecv(memory, bytes, ncclInt8, 0, self->comm, self->stream)"),
    ("what is awaited is the rows' stream", PARTS,
     "mpo_nccl_wait(exchange->self, stream);",
     "mpo_nccl_wait(exchange->self, stream == NULL ? stream : ((struct nccl *)exchange->self)->stream);"),
    ("the other slices' sums are left out", HOST, "if (others > 0)", "if (others == SIZE_MAX)"),
    ("the other slices' sums take the root's place", HOST,
     "cuda->sums.table + own, table + own", "cuda->sums.table, table + own"),
    ("sums of a slice are read before they are there", HOST,
     "cuda->stream));\n    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));\ncleanup:\n    return status;\n}\n\n"
     "static enum mpo_status cuda_fold(",
     "cuda->stream));\ncleanup:\n    return status;\n}\n\nstatic enum mpo_status cuda_fold("),
    ("rows have the exponents of the first", KERNELS,
     "view->mu[(size_t)row * (size_t)view->policy_count + (size_t)h]", "view->mu[(size_t)h]"),
    ("rows have the tilt of the first", KERNELS, "0.0 : view->end_bias[row]", "0.0 : view->end_bias[0]"),
    ("rows expect what the first expects", KERNELS, "view->expects[row] != 0", "view->expects[0] != 0"),
    ("sums that nobody wants are left as they are", KERNELS,
     "        figures[MPO_MIXTURE_LOGIT_SUM + h] = NAN;", "        (void)h;"),
    ("entropies that nobody wants are numbers", KERNELS,
     "expects ? log_z - row_end_bias(view, row) * end_probability : NAN",
     "log_z - row_end_bias(view, row) * end_probability"),
    ("expectations without the policies that have no exponent", KERNELS,
     "if (mu == 0.0 && slot == NULL)", "if (mu == 0.0)"),
    ("policies without an exponent have a say", KERNELS,
     "        if (policy_mu(view, h, row) != 0.0)\n", ""),
    ("policies without an exponent have a say in figures", DRAWS,
     "mu != 0.0 ? mu * log_policy[h] : 0.0", "mu * log_policy[h]"),
    ("rows that failed are drawn from", DRAWS, "!is_finite(sums->moments[row].log_z)", "row < 0"),
    ("given tokens are written again", DRAWS,
     "threadIdx.x == 0 && draws.kind[blockIdx.x] != MPO_MIXTURE_GIVEN", "threadIdx.x == 0"),
    ("given tokens are in the first block", DRAWS,
     "question.block = question.token / MPO_ROWS_BLOCK;", "question.block = 0;"),
    ("draws have the uniform of the first", DRAWS, "draws->uniform[blockIdx.x]", "draws->uniform[0]"),
    ("draws are of the first one's kind", DRAWS, "= draws->kind[blockIdx.x]", "= draws->kind[0]"),
    ("rules have the biases of the first", FILTERS, "filter.bias + ruled->first_bias;", "filter.bias;"),
    ("a bias is the score", FILTERS, "score[i] += bias[j].value;", "score[i] = bias[j].value;"),
    ("the last bias is left out", FILTERS, "j < ruled->bias_count;", "j + 1 < ruled->bias_count;"),
    ("weights are relative to each thread's blocks", FILTERS,
     "    top = group_max(top);\n    if (blockIdx.x == 0", "    if (blockIdx.x == 0"),
    ("slots are all the first", FILTERS, "(size_t)slot * (size_t)view->vocab_size;", "0 * (size_t)slot;"),
    ("where no token is left one is drawn", FILTERS,
     "!is_finite(filter.top[blockIdx.x]) || draws.kind", "draws.kind"),
    ("greatest scores are weights", FILTERS,
     "!is_finite(top) || draws.kind[ruled->draw] != MPO_MIXTURE_DRAWN", "!is_finite(top)"),
    ("the greatest under a rule is a thread's last tie", FILTERS,
     "v < view.vocab_size && best == INT32_MAX;", "v < view.vocab_size;"),
    ("tokens under a rule are drawn again", FILTERS, "    draws->kind[draw] = MPO_MIXTURE_GIVEN;\n", ""),
    ("uniforms under a rule are the first draws'", FILTERS,
     "draws->uniform[ruled->draw]", "draws->uniform[blockIdx.x]"),
    ("the mailbox is filled before it was read", LAUNCHES,
     "            MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));\n", "            continue;\n"),
    ("a round's biases begin with the first", LAUNCHES,
     "ruled->first_bias = round->bias_count;", "ruled->first_bias = 0;"),
    ("draws under rules end with a round", LAUNCHES, "while (draws->rule", "if (draws->rule"),
    ("biases go where others are", LAUNCHES, "> cuda->vocab_size)", "> INT32_MAX - 1)"),
    ("uniforms are not sent", LAUNCHES, "if (draws->uniform != NULL)\n        memcpy(cuda->host.uniform",
     "if (draws->uniform == NULL)\n        memcpy(cuda->host.uniform"),
    ("only the first row's exponents are sent", HOST,
     "memcpy(cuda->host.mu, exponents->mu, count * sizeof(double));",
     "memcpy(cuda->host.mu, exponents->mu, sizeof(double) * (size_t)cuda->policy_count);"),
    ("where no token is left there is the last one", HOST, "    draws->token[draw] = -1;", "   "),
    ("nothing", NCCL, "/* ---- life ---- */", "/* ---- the life ---- */"),
    ("ranks connect at their first position", NCCL,
     "    status = greet_ranks(exchange);\n", "    (void)greet_ranks;\n"),
    ("a rank that joins has no alarm", NCCL,
     "    mpo_comm_alarm_set(\"ncclCommInitRankConfig\", NCCL_ADVICE);\n", ""),
    ("a rank that connects has no alarm", NCCL,
     "    mpo_comm_alarm_set(\"the first group of NCCL's calls\", NCCL_ADVICE);\n", ""),
    ("a communicator that does not block", NCCL, "config.blocking = 1;", "config.blocking = 0;"),
    ("rows are not waited for", NCCL,
     "    MPO_TRY(unpack_rows(exchange));\n    MPO_TRY(mpo_nccl_wait(self, self->stream));\n",
     "    MPO_TRY(unpack_rows(exchange));\n"),
    ("a receiver expects a float less", NCCL,
     "ncclRecv(*room, received,", "ncclRecv(*room, received - 1,"),
    ("a sender calls floats integers", NCCL, "sent, type, rank,", "sent, ncclInt32, rank,"),
    ("a rank sends to itself", NCCL, "        if (rank != exchange->rank)\n            MPO_TRY(send",
     "        if (rank >= 0)\n            MPO_TRY(send"),
    ("messages outside of a group", NCCL, "    MPO_TRY_NCCL(self, ncclGroupStart());\n", ""),
    ("slices are packed as if a rank sent its own", NCCL,
     "(own.first < slice.first ? own.count : 0)", "0"),
    ("rows that lie apart are sent as one message", NCCL,
     "are = logits[i] == logits[i - 1] + vocab_size;", "are = logits[i] != NULL;"),
    ("slices of rows are sent as they lie", NCCL, "(rows == 1 || are_whole);", "(rows >= 1 || are_whole);"),
    ("a slice is sent from its row's beginning", NCCL,
     "return logits[0] + mpo_exchange_slice_of(exchange, rank).first;", "return logits[0];"),
    ("every message lands where the first does", NCCL, "        *room += received * token;\n", ""),
    ("the last span of a message is copied past its end", MESSAGES,
     "if (token < (size_t)pack.count)\n            to[token] = from[token];",
     "to[token] = from[token];"),
    ("the communicator is forgotten", NCCL,
     "    abort_comm(self);\n    cudaFree", "    cudaFree"),
    ("destroyed in place of aborted", NCCL, "    ncclCommAbort(self->comm);",
     "    ncclCommDestroy(self->comm);"),
    ("aborted inside a group", NCCL, "    if (self->in_group)\n        ncclGroupEnd();\n", ""),
    ("used after the abort", NCCL, "    mpo_comm_alarm_clear();\n    self->comm = NULL;\n",
     "    mpo_comm_alarm_clear();\n"),
    ("not aborted after an error", NCCL, "    abort_comm(self);\n    MPO_FAIL(status_of",
     "    MPO_FAIL(status_of"),
    ("errors that come later are not looked at", NCCL,
     "    if (state != ncclSuccess)\n"
     "        MPO_TRY(mpo_nccl_fail(self, state, \"an earlier call\"));\n", ""),
    ("an error of this rank is a peer's", NCCL,
     "                                                                  : MPO_ERR_DEVICE;",
     "                                                                  : MPO_ERR_PEER;"),
    ("who cannot join leaves the others in NCCL", COMM,
     "status = all.is_complete ? own : mpo_comm_fail(own);", "status = own;"),
    ("ties round up", ROUNDING, "0x7fffu + (bits >> 16 & 1u)", "0x8000u"),
    ("ties round down", ROUNDING, "0x7fffu + (bits >> 16 & 1u)", "0x7fffu"),
    ("rounding forgets to round", ROUNDING, "bits += 0x7fffu + (bits >> 16 & 1u);", ""),
    ("a NaN is rounded away", ROUNDING, "value != value ? 0x7fc00000u : bits", "bits"),
    ("masked rows lose their mask", ROUNDING,
     "top > (double)MPO_MASKED_LOGIT ? (float)top + 0.0f : 0.0f", "(float)top + 0.0f"),
    ("tokens less their own block's greatest", ROUNDING,
     "top = fmax(top, block_top[block]);\n    top = group_max(top);",
     "top = block == (int32_t)blockIdx.x ? block_top[block] : top;\n    top = group_max(top);"),
    ("the greatest of a block's first tokens", ROUNDING,
     "top = fmaxf(top, logit_of(&view, row, strided_token(i)));",
     "top = fmaxf(top, logit_of(&view, row, strided_token(0)));"),
    ("the greatest of masked tokens too", ROUNDING,
     "top = fmaxf(top, logit_of(&view, row, strided_token(i)));",
     "top = fmaxf(top, row[strided_token(i)]);"),
    ("masked tokens are rounded as the model left them", ROUNDING,
     "to_bf16(logit_of(&view, row, strided_token(i)) - taken)",
     "to_bf16(row[strided_token(i)] - taken)"),
    ("masked tokens are as the model left them", KERNELS,
     "flags & MIXTURE_MASKED ? MPO_MASKED_LOGIT : logit;", "flags == ~0u ? MPO_MASKED_LOGIT : logit;"),
    ("masked tokens are scored as the model left them", DRAWS,
     "(double)known_logit(policy_row(view, h, row)[token], flags);",
     "(double)policy_row(view, h, row)[token];"),
    ("masked tokens are answered as the model left them", SLICES,
     "(double)known_logit(policy_row(&view, h, own.row)[token], flags);",
     "(double)policy_row(&view, h, own.row)[token];"),
    ("the greatest reads past a row", ROUNDING,
     "    for (int32_t i = 0; i < MIXTURE_TOKENS; i++)\n        if (strided_token(i) < view.vocab_size)\n"
     "            top =", "    for (int32_t i = 0; i < MIXTURE_TOKENS; i++)\n            top ="),
    ("rounded rows go to the first policy's place", HOST,
     "view.rounded = cuda->copied + first * cuda->row_stride;", "view.rounded = cuda->copied;"),
    ("rounded rows are rows without a stride", HOST,
     "view.stride = cuda->row_stride;", "view.stride = (size_t)cuda->vocab_size;"),
    ("rounded rows are used before they are there", HOST,
     "        logits[row] = view.rounded + (size_t)row * cuda->row_stride;\n"
     "    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream)); /* other streams read them next */\n",
     "        logits[row] = view.rounded + (size_t)row * cuda->row_stride;\n"),
    ("a slice is packed from its row's beginning", MESSAGES,
     "(float *)pack.packed + (size_t)blockIdx.x * (size_t)pack.count;",
     "(float *)pack.packed + (size_t)blockIdx.x * (size_t)pack.count;\n    from -= pack.first;"),
    ("a slice of halves is packed from its row's beginning", MESSAGES,
     "(uint16_t *)pack.packed + (size_t)blockIdx.x * (size_t)pack.count;",
     "(uint16_t *)pack.packed + (size_t)blockIdx.x * (size_t)pack.count;\n    from -= pack.first;"),
    ("the lower halves are packed", MESSAGES, "__float_as_uint(from[token]) >> 16", "__float_as_uint(from[token])"),
    ("halves are unpacked to the lower bits", MESSAGES, "(uint32_t)unpack.packed[token] << 16",
     "(uint32_t)unpack.packed[token]"),
    ("a span packs one token too many", MESSAGES,
     "if (token < (size_t)pack.count)\n            to[token] = (uint16_t)",
     "if (token <= (size_t)pack.count)\n            to[token] = (uint16_t)"),
    ("unpacking leaves a span's last tokens out", MESSAGES,
     "exchange_token(blockIdx.x, i);\n        if (token < unpack.count)",
     "exchange_token(blockIdx.x, i);\n        if (token + 1 < unpack.count)"),
]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def prepare():
    shutil.rmtree(WORK, ignore_errors=True)
    for folder in ("src", "include", "tests"):
        shutil.copytree(os.path.join(SOURCE, folder), os.path.join(TREE, folder))
    shutil.copy(os.path.join(SOURCE, "CMakeLists.txt"), TREE)
    subprocess.run(["cmake", "-S", TREE, "-B", BUILD, "-G", "Ninja", "-DMPO_LLAMA=OFF",
                    "-DMPO_HTTP=OFF"],
                   check=True, stdout=subprocess.DEVNULL)


def build(program):
    subprocess.run(["cmake", "--build", BUILD, "--target", program], check=True,
                   stdout=subprocess.DEVNULL)
    return os.path.join(SIMULATED, program)


def fails(*command, **settings):
    """Whether a test does not pass. A broken search may never end: timeout(1) makes that a
    failure too."""
    ran = subprocess.run(["timeout", os.environ.get("MPO_MUTANT_SECONDS", "300"), *command], env={**os.environ, **settings},
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, check=False)
    return ran.returncode != 0


def kernels_fail(tests, variant):
    return any(fails(build(f"{test}_{variant}"), "small",
                     TSAN_OPTIONS="halt_on_error=1 exitcode=66") for test in tests)


def ranks_fail(test):
    return fails("mpirun", "-n", "3", build(test), HOSTSIM_DEVICES="3",
                 MPO_TEST_DEVICE="cuda", **RANKS)


def faults_fail():
    return fails(sys.executable, os.path.join(SOURCE, "tests", "hostsim", "device_faults.py"),
                 build("mpo_hostsim_plain"), "mpirun", os.path.join(WORK, "faults"), "nccl",
                 **RANKS)


def notices(path):
    """(name, whether it fails) of every test of what a file belongs to, as they are run."""
    tests = KERNEL_TESTS.get(path, MIXTURE_TESTS)
    yield "values", kernels_fail(tests, "plain")
    if path in ON_RANKS:
        yield "calls", ranks_fail("test_call_budget_plain")
    for variant in ("asan", "tsan"):
        yield variant, kernels_fail(tests, variant)
    if path in ON_RANKS:
        yield "ranks", ranks_fail("test_patterns_plain")
    if path in KERNEL_TESTS:
        yield "faults", faults_fail()


def chosen():
    """The mutants that the command line leaves, in the order of the list."""
    if PLACES:
        return MUTANTS[int(PLACES[1]) - 1:int(PLACES[2])]
    return [mutant for mutant in MUTANTS if ONLY in mutant[1]]


def try_mutant(path, old, new):
    original = read(os.path.join(TREE, path))
    if original.count(old) != 1:
        sys.exit(f"{path}: expected once, found {original.count(old)} times: {old!r}")
    write(os.path.join(TREE, path), original.replace(old, new))
    noticed = next((name for name, failed in notices(path) if failed), "nobody")
    write(os.path.join(TREE, path), original)
    return noticed


def check():
    """Edits whose text does not stand in its file once."""
    lost = [f"{path}: {what}" for what, path, old, _ in MUTANTS
            if read(os.path.join(SOURCE, path)).count(old) != 1]
    if lost:
        sys.exit("\n".join(["the code has changed where mutants edit it:", *lost]))


def main():
    if sys.argv[2] == "--check":
        check()
        return
    prepare()
    survivors = []
    for what, path, old, new in chosen():
        noticed = try_mutant(path, old, new)
        print(f"{noticed:8} {what}", flush=True)
        if (noticed == "nobody") != (what == "nothing"):
            survivors.append(what)
    if survivors:
        sys.exit(f"wrong: {survivors}")


main()
