// SPDX-License-Identifier: Apache-2.0
// What the kernels are given: plain pointers, sizes and strides. No torch.
#pragma once

#include <cstdint>

namespace common_kernels {

enum class Dtype : int32_t { float32, bfloat16, float16 };

// A tensor of up to four dimensions with strides in elements; no data stands for an argument left out.
struct Array {
  void* data = nullptr;
  int64_t strides[4] = {0, 0, 0, 0};
  Dtype dtype = Dtype::float32;
};

// out = softmax(scale q k + bias) v over the listed keys. One task is some queries of one head of one window;
// tasks of the same queries follow each other, head by head.
struct AttentionForward {
  int64_t num_windows, heads, num_queries, num_keys, head_dim, slots;
  float scale;
  Array q, k, v, bias;   // bias: (heads, N, M), float32
  const int32_t* index;  // (B, N, K) contiguous, below 0: unused
  Array out;             // (B, heads, N, head_dim)
  float* lse;            // (B, heads, N): base-2 log of the softmax denominator
  bool* is_out_of_range;  // set if a list names a key that there is not
  int64_t queries_per_task, tasks_per_head;  // more than one task a head: an even number of queries each
};

// Gradients. One task is one head of one window, or with a gradient of the bias one head of all windows: what a
// task adds up belongs to it alone, so sums have one order whatever the number of threads.
struct AttentionBackward {
  int64_t num_windows, heads, num_queries, num_keys, head_dim, slots;
  float scale;
  Array dout, q, k, v, out, bias;
  const int32_t* index;
  const float* lse;
  Array dq, dk, dv;
  float* dbias;  // (heads, N, M) of zeros, or null
};

// The keys of largest score, ascending. One task is some rows of one window.
struct Selection {
  int64_t num_windows, num_rows, num_keys, k;
  const float* scores;     // (B, R, N) contiguous
  const float* penalty;    // (B, N): the score becomes 2 * score - penalty, or null
  const int64_t* regions;  // (G, N) labels, or null
  int64_t num_groups, first_window, first_row;
  bool force_self;
  int32_t* index;  // (B, R, k)
  int64_t rows_per_task, tasks_per_window;
};

// Interleaved complex numbers: out = |x| s / |s| with s = (1 - w) x / |x| + w g / |g|. One task is some bins.
struct PhaseMix {
  const float *x, *guide;
  float* out;
  int64_t num_bins, bins_per_task;
  float weight, smallest_power, smallest_mean;
};

// One instruction set's versions; each runs the tasks [begin, end).
struct Kernels {
  const char* name;
  int32_t width;  // floats of a register
  void (*attention_forward)(const AttentionForward&, int64_t begin, int64_t end);
  void (*attention_backward)(const AttentionBackward&, int64_t begin, int64_t end);
  void (*select)(const Selection&, int64_t begin, int64_t end);
  void (*mix_phase)(const PhaseMix&, int64_t begin, int64_t end);
};

extern const Kernels kernels_generic;
#ifdef COMMON_KERNELS_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

}  // namespace common_kernels
