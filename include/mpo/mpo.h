/* SPDX-License-Identifier: Apache-2.0 */
/**
 * mpo: mix language models that were each aligned to one objective into one policy.
 *
 *     prompts -> policy -> exchange -> mixture -> decode
 *     which x    log pi_k  [K,B,V]     q, log Z   rows, y
 *             -> rollout -> estimator -> descent -> record
 *                per step   F, g         lambda     HDF5
 *
 * The tour of the code starts here: one header per stage in this order, one folder of the
 * same name under src/. src/fit/fit.c has the one function that runs them all.
 *
 * Letters, as in the paper (MPO, ICML 2025) and src/README.md:
 *   K  objectives, index k      H  hosted policies (K, or K + 1 with a reference), index h
 *   x  prompt   y  response   v  token   V  vocabulary size   L  response tokens at most
 *   m  responses per prompt, index j    B  rows of a batch      l  weights (lambda)
 *   pi policy   q  proposal   mu  its exponents   b  its end tilt   w  importance weight
 *   F  objective   g  its gradient   eta  step size   W  ranks, in R groups of P
 */
#pragma once

#include "mpo/prompts.h"
#include "mpo/placement.h"
#include "mpo/policy.h"
#include "mpo/texts.h"
#include "mpo/rows.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "mpo/decode.h"
#include "mpo/rollout.h"
#include "mpo/exponents.h"
#include "mpo/rewards.h"
#include "mpo/estimator.h"
#include "mpo/descent.h"
#include "mpo/record.h"
#include "mpo/fit.h"

#include "mpo/comm.h"
#include "mpo/config.h"
#include "mpo/device.h"
#include "mpo/report.h"
#include "mpo/rng.h"
#include "mpo/session.h"
#include "mpo/status.h"
#include "mpo/survey.h"
#include "mpo/timing.h"
#include "mpo/version.h"
