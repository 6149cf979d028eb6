// SPDX-License-Identifier: Apache-2.0
// Softmax attention over listed keys, one query at a time, rows gathered from one head's keys and values.
#pragma once

#include "rows.h"

namespace {

using common_kernels::AttentionForward;

// out[c] = sum over the listed keys of weights[t] * values[keys[t]][c], for kRegisters registers of channels.
template <int kRegisters>
inline void weigh_rows(
    const float* weights, const float* values, int64_t padded, const int32_t* keys, int64_t n, float* out) {
  // enough independent sums to hide the latency of a multiply-add
  constexpr int kUnroll = kRegisters >= 4 ? 2 : 4;
  Floats total[kUnroll][kRegisters] = {};
  int64_t t = 0;
  for (; t + kUnroll <= n; t += kUnroll) {
    for (int u = 0; u < kUnroll; ++u) {
      const float* row = values + keys[t + u] * padded;
      const Floats weight = splat(weights[t + u]);
      for (int c = 0; c < kRegisters; ++c) total[u][c] += weight * load(row + c * kWidth);
    }
  }
  for (; t < n; ++t) {
    const float* row = values + keys[t] * padded;
    for (int c = 0; c < kRegisters; ++c) total[0][c] += splat(weights[t]) * load(row + c * kWidth);
  }
  for (int c = 0; c < kRegisters; ++c) {
    Floats all = total[0][c];
    for (int u = 1; u < kUnroll; ++u) all += total[u][c];
    store(out + c * kWidth, all);
  }
}

// Turn base-2 logits into weights that are not yet divided by their sum; return the sum and the largest logit.
inline float exponentiate(float* logits, int64_t n, float& largest) {
  for (int64_t t = n; t % kWidth; ++t) logits[t] = -kInfinity;
  Floats most = load(logits);
  for (int64_t t = kWidth; t < n; t += kWidth) {
    const Floats x = load(logits + t);
    most = x > most ? x : most;
  }
  largest = maximum(most);
  // a row of minus infinities has no weight anywhere; a NaN among them stays one below
  const Floats shift = splat(largest == -kInfinity ? 0.0f : largest);
  Floats total{};
  for (int64_t t = 0; t < n; t += kWidth) {
    const Floats weight = exp2(load(logits + t) - shift);
    store(logits + t, weight);
    total += weight;
  }
  return sum(total);
}

template <int kRegisters>
void attend_rows(
    const AttentionForward& a, int64_t b, int64_t h, int64_t first, int64_t last, const float* key_rows,
    const float* value_rows, int64_t padded, float* query, float* out, float* logits, int32_t* keys) {
  constexpr int kBlock = kRegisters > 0 && kRegisters <= 4 ? kRegisters : 4;
  for (int64_t i = first; i < last; ++i) {
    const int64_t row = (b * a.heads + h) * a.num_queries + i;
    const int64_t n = read_list(a.index + (b * a.num_queries + i) * a.slots, a.slots, a.num_keys, keys);
    if (n < 0) *a.is_out_of_range = true;
    float total = 0, largest = 0;
    if (n > 0) {
      read_row(a.q, place(a.q, b, h, i), a.head_dim, query, padded);
      const Floats factor = splat(a.scale * kLog2E);
      for (int64_t c = 0; c < padded; c += kWidth) store(query + c, load(query + c) * factor);
      for (int64_t t = 0; t < n; t += kWidth) {
        store(logits + t, dot_each<kRegisters>(query, key_rows, padded, keys + t));
      }
      if (a.bias.data) add_bias(a.bias, h, i, keys, n, logits);
      total = exponentiate(logits, n, largest);
      int64_t c = 0;
      for (; c + kBlock * kWidth <= padded; c += kBlock * kWidth) {
        weigh_rows<kBlock>(logits, value_rows + c, padded, keys, n, out + c);
      }
      for (; c < padded; c += kWidth) weigh_rows<1>(logits, value_rows + c, padded, keys, n, out + c);
    }
    a.lse[row] = total == 0 ? -kInfinity : largest + __builtin_log2f(total);
    if (total == 0) {
      for (int64_t c = 0; c < padded; ++c) out[c] = 0;
    }
    write_row(a.out, place(a.out, b, h, i), a.head_dim, out, total == 0 ? 0.0f : 1.0f / total);
  }
}

void attention_forward(const AttentionForward& a, int64_t begin, int64_t end) {
  const int64_t padded = round_up(a.head_dim, kWidth), slots = round_up(a.slots, kWidth);
  const int64_t row_bytes = 4 * padded, all_bytes = row_bytes * a.num_keys;
  const Buffer packed_keys(is_ready(a.k, a.head_dim, padded) ? 0 : all_bytes);
  const Buffer packed_values(is_ready(a.v, a.head_dim, padded) ? 0 : all_bytes);
  const Buffer query(row_bytes), out(row_bytes), logits(4 * slots), keys(4 * slots);
  const float *key_rows = nullptr, *value_rows = nullptr;
  int64_t current = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t head = task / a.tasks_per_head, b = head / a.heads, h = head % a.heads;
    const int64_t first = task % a.tasks_per_head * a.queries_per_task;
    const int64_t last = least(a.num_queries, first + a.queries_per_task);
    if (head != current) {
      key_rows = dense_rows(a.k, b, h, a.num_keys, a.head_dim, padded, packed_keys.floats());
      value_rows = dense_rows(a.v, b, h, a.num_keys, a.head_dim, padded, packed_values.floats());
      current = head;
    }
    const auto run = padded == kWidth       ? attend_rows<1>
                     : padded == 2 * kWidth ? attend_rows<2>
                     : padded == 4 * kWidth ? attend_rows<4>
                     : padded == 8 * kWidth ? attend_rows<8>
                                            : attend_rows<0>;
    run(a, b, h, first, last, key_rows, value_rows, padded, query.floats(), out.floats(), logits.floats(),
        keys.ints());
  }
}

}  // namespace
