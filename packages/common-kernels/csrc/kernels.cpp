// SPDX-License-Identifier: Apache-2.0
// All kernels for one instruction set: compiled once for each, with its flags and COMMON_KERNELS_TABLE.
#include "kernels.h"

#include "attention_backward.h"
#include "attention_forward.h"
#include "phase.h"
#include "select.h"

#define COMMON_KERNELS_TEXT_(x) #x
#define COMMON_KERNELS_TEXT(x) COMMON_KERNELS_TEXT_(x)

namespace common_kernels {

extern const Kernels COMMON_KERNELS_TABLE = {
    COMMON_KERNELS_TEXT(COMMON_KERNELS_NAME), kWidth, attention_forward, attention_backward, select_rows,
    mix_phase};

}  // namespace common_kernels
