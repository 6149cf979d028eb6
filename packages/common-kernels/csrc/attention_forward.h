// SPDX-License-Identifier: Apache-2.0
// Softmax attention over listed keys, two queries at a time, rows gathered from one head's keys and values.
#pragma once

#include "lists.h"
#include "rows.h"

namespace {

using common_kernels::AttentionForward;

// out[u][c] += sum over keys [begin, end) of the list of weights[u][t] * values[keys[t]][c].
template <int kQueries, int kRegisters>
inline void weigh_rows(
    const float* weights, int64_t stride, const float* values, int64_t padded, const int32_t* keys,
    int64_t begin, int64_t end, float* out) {
  // enough independent sums to hide the latency of a multiply-add
  constexpr int kUnroll = kQueries * kRegisters >= 8 ? 1 : kQueries * kRegisters >= 4 ? 2 : 4;
  Floats total[kUnroll][kQueries][kRegisters] = {};
  int64_t t = begin;
  for (; t + kUnroll <= end; t += kUnroll) {
    for (int n = 0; n < kUnroll; ++n) {
      const float* row = values + keys[t + n] * padded;
      Floats weight[kQueries];
      for (int u = 0; u < kQueries; ++u) weight[u] = splat(weights[u * stride + t + n]);
      for (int c = 0; c < kRegisters; ++c) {
        const Floats x = load(row + c * kWidth);
        for (int u = 0; u < kQueries; ++u) total[n][u][c] += weight[u] * x;
      }
    }
  }
  for (; t < end; ++t) {
    const float* row = values + keys[t] * padded;
    for (int u = 0; u < kQueries; ++u) {
      for (int c = 0; c < kRegisters; ++c) {
        total[0][u][c] += splat(weights[u * stride + t]) * load(row + c * kWidth);
      }
    }
  }
  for (int u = 0; u < kQueries; ++u) {
    for (int c = 0; c < kRegisters; ++c) {
      Floats all = total[0][u][c];
      for (int n = 1; n < kUnroll; ++n) all += total[n][u][c];
      float* target = out + u * padded + c * kWidth;
      store(target, load(target) + all);
    }
  }
}

// The same for all channels, kBlock registers at a time.
template <int kQueries, int kBlock>
inline void weigh_all(
    const float* weights, int64_t stride, const float* values, int64_t padded, const int32_t* keys,
    int64_t begin, int64_t end, float* out) {
  int64_t c = 0;
  for (; c + kBlock * kWidth <= padded; c += kBlock * kWidth) {
    weigh_rows<kQueries, kBlock>(weights, stride, values + c, padded, keys, begin, end, out + c);
  }
  for (; c < padded; c += kWidth) {
    weigh_rows<kQueries, 1>(weights, stride, values + c, padded, keys, begin, end, out + c);
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

// What one thread needs for one head. Rows and logits are of two queries.
struct ForwardScratch {
  int64_t padded, stride;  // floats of a row, and of the logits of a query
  const float *keys, *values;
  float *queries, *out, *logits;
};

template <int kRegisters>
void attend_rows(
    const AttentionForward& a, int64_t b, int64_t h, int64_t first, int64_t last, const PairedLists& lists,
    const ForwardScratch& s) {
  constexpr int kBlock = kRegisters > 0 && kRegisters <= 4 ? kRegisters : 4;
  const Floats factor = splat(a.scale * kLog2E);
  for (int64_t i = first; i < last; i += 2) {
    const int members = last - i < 2 ? 1 : 2;
    const int64_t common = lists.common(i), shared = common / kWidth * kWidth;
    for (int u = 0; u < members; ++u) {
      float* query = s.queries + u * s.padded;
      read_row(a.q, place(a.q, b, h, i + u), a.head_dim, query, s.padded);
      for (int64_t c = 0; c < s.padded; c += kWidth) {
        store(query + c, load(query + c) * factor);
        store(s.out + u * s.padded + c, Floats{});
      }
    }
    for (int64_t t = 0; t < shared; t += kWidth) {
      Floats logits[2];
      dot_each<2, kRegisters>(s.queries, s.keys, s.padded, lists.keys(i) + t, logits);
      for (int u = 0; u < 2; ++u) store(s.logits + u * s.stride + t, logits[u]);
    }
    float total[2] = {0, 0}, largest[2] = {0, 0};
    for (int u = 0; u < members; ++u) {
      const int64_t n = lists.length(i + u);
      const int32_t* keys = lists.keys(i + u);
      float* logits = s.logits + u * s.stride;
      for (int64_t t = shared; t < n; t += kWidth) {
        Floats logit;
        dot_each<1, kRegisters>(s.queries + u * s.padded, s.keys, s.padded, keys + t, &logit);
        store(logits + t, logit);
      }
      if (a.bias.data) add_bias(a.bias, h, i + u, keys, n, logits);
      if (n > 0) total[u] = exponentiate(logits, n, largest[u]);
    }
    if (common) {
      weigh_all<2, kBlock>(s.logits, s.stride, s.values, s.padded, lists.keys(i), 0, common, s.out);
    }
    for (int u = 0; u < members; ++u) {
      float* out = s.out + u * s.padded;
      const float* weights = s.logits + u * s.stride;
      weigh_all<1, kBlock>(
          weights, s.stride, s.values, s.padded, lists.keys(i + u), common, lists.length(i + u), out);
      const bool is_empty = total[u] == 0;
      if (is_empty) {
        for (int64_t c = 0; c < s.padded; ++c) out[c] = 0;
      }
      const int64_t row = (b * a.heads + h) * a.num_queries + i + u;
      a.lse[row] = is_empty ? -kInfinity : largest[u] + __builtin_log2f(total[u]);
      write_row(a.out, place(a.out, b, h, i + u), a.head_dim, out, is_empty ? 0.0f : 1.0f / total[u]);
    }
  }
}

// Channels of all heads from which the search for common keys pays.
constexpr int64_t kLeastToShare = 128;

void attention_forward(const AttentionForward& a, int64_t begin, int64_t end) {
  const int64_t padded = round_up(a.head_dim, kWidth), slots = round_up(a.slots, kWidth);
  const int64_t row_bytes = 4 * padded, all_bytes = row_bytes * a.num_keys;
  const Buffer packed_keys(is_ready(a.k, a.head_dim, padded) ? 0 : all_bytes);
  const Buffer packed_values(is_ready(a.v, a.head_dim, padded) ? 0 : all_bytes);
  const Buffer queries(2 * row_bytes), out(2 * row_bytes), logits(2 * 4 * slots);
  const bool shares = a.heads * a.head_dim >= kLeastToShare;
  PairedLists lists(a.slots, a.num_keys, least(a.queries_per_task, a.num_queries), shares);
  ForwardScratch s{padded, slots, nullptr, nullptr, queries.floats(), out.floats(), logits.floats()};
  int64_t current_head = -1, current_lists = -1;
  for (int64_t task = begin; task < end; ++task) {
    // the heads of some queries follow each other: they have the lists in common
    const int64_t h = task % a.heads, part = task / a.heads;
    const int64_t b = part / a.tasks_per_head, head = b * a.heads + h;
    const int64_t first = part % a.tasks_per_head * a.queries_per_task;
    const int64_t last = least(a.num_queries, first + a.queries_per_task);
    if (part != current_lists) {
      if (!lists.read(a.index + b * a.num_queries * a.slots, first, last)) *a.is_out_of_range = true;
      current_lists = part;
    }
    if (head != current_head) {
      s.keys = dense_rows(a.k, b, h, a.num_keys, a.head_dim, padded, packed_keys.floats());
      s.values = dense_rows(a.v, b, h, a.num_keys, a.head_dim, padded, packed_values.floats());
      current_head = head;
    }
    const auto run = padded == kWidth       ? attend_rows<1>
                     : padded == 2 * kWidth ? attend_rows<2>
                     : padded == 4 * kWidth ? attend_rows<4>
                     : padded == 8 * kWidth ? attend_rows<8>
                                            : attend_rows<0>;
    run(a, b, h, first, last, lists, s);
  }
}

}  // namespace
