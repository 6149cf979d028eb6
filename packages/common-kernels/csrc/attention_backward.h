// SPDX-License-Identifier: Apache-2.0
// Gradients of attention over listed keys; the weights are computed again from the stored denominators.
#pragma once

#include "attention_forward.h"

namespace {

using common_kernels::AttentionBackward;

// What one thread needs for one head. Rows are of two queries, the numbers of pairs of one register.
struct BackwardScratch {
  int64_t padded;
  const float *keys, *values;   // dense rows
  float *dkeys, *dvalues;       // sums, dense rows
  float *queries, *scaled, *dout, *dqueries, *out;
  float lse[2], delta[2];
  float weights[2 * kWidth], slopes[2 * kWidth];
};

// target[keys[r]] += sum over the queries of factors[u][r] * rows[u].
template <int kQueries, int kRegisters>
inline void scatter_rows(
    const float* factors, const float* rows, int64_t padded, const int32_t* keys, int64_t n, float* target) {
  const int64_t width = kRegisters > 0 ? kRegisters * kWidth : padded;
  for (int64_t r = 0; r < n; ++r) {
    float* sums = target + keys[r] * padded;
    Floats factor[kQueries];
    for (int u = 0; u < kQueries; ++u) factor[u] = splat(factors[u * kWidth + r]);
    for (int64_t c = 0; c < width; c += kWidth) {
      Floats x = load(sums + c);
      for (int u = 0; u < kQueries; ++u) x += factor[u] * load(rows + u * padded + c);
      store(sums + c, x);
    }
  }
}

// Query i + u and those after it against some keys that all of them list, at most one register of them.
template <int kQueries, int kRegisters>
inline void differentiate_block(
    const AttentionBackward& a, int64_t h, int64_t i, int u, const int32_t* keys, int64_t n,
    BackwardScratch& s) {
  constexpr int kBlock = kRegisters > 0 && kRegisters <= 4 ? kRegisters : 4;
  const int64_t padded = s.padded, row = u * padded;
  Floats logits[kQueries], products[kQueries];
  dot_each<kQueries, kRegisters>(s.scaled + row, s.keys, padded, keys, logits);
  dot_each<kQueries, kRegisters>(s.dout + row, s.values, padded, keys, products);
  for (int m = 0; m < kQueries; ++m) {
    float *weights = s.weights + m * kWidth, *slopes = s.slopes + m * kWidth;
    store(weights, logits[m]);
    if (a.bias.data) add_bias(a.bias, h, i + u + m, keys, n, weights);
    const Floats weight = exp2(load(weights) - s.lse[u + m]);
    store(weights, weight);
    const Floats slope = weight * (products[m] - s.delta[u + m]);
    store(slopes, slope);
    if (a.dbias) {
      float* dbias = a.dbias + (h * a.num_queries + i + u + m) * a.num_keys;
      for (int64_t r = 0; r < n; ++r) dbias[keys[r]] += slopes[r];
    }
    store(slopes, slope * a.scale);
  }
  weigh_all<kQueries, kBlock>(s.slopes, kWidth, s.keys, padded, keys, 0, n, s.dqueries + row);
  scatter_rows<kQueries, kRegisters>(s.slopes, s.queries + row, padded, keys, n, s.dkeys);
  scatter_rows<kQueries, kRegisters>(s.weights, s.dout + row, padded, keys, n, s.dvalues);
}

// Read what belongs to query i into the rows u. Return whether it has any weight.
inline bool read_query(
    const AttentionBackward& a, int64_t b, int64_t h, int64_t i, int u, BackwardScratch& s) {
  const int64_t padded = s.padded, row = u * padded;
  s.lse[u] = a.lse[(b * a.heads + h) * a.num_queries + i];
  s.delta[u] = 0;
  read_row(a.q, place(a.q, b, h, i), a.head_dim, s.queries + row, padded);
  read_row(a.dout, place(a.dout, b, h, i), a.head_dim, s.dout + row, padded);
  read_row(a.out, place(a.out, b, h, i), a.head_dim, s.out + row, padded);
  for (int64_t c = row; c < row + padded; ++c) {
    s.delta[u] += s.out[c] * s.dout[c];
    s.scaled[c] = s.queries[c] * (a.scale * kLog2E);
    s.dqueries[c] = 0;
  }
  return s.lse[u] != -kInfinity;
}

template <int kRegisters>
void differentiate_rows(
    const AttentionBackward& a, int64_t b, int64_t h, int64_t first, int64_t last, const PairedLists& lists,
    BackwardScratch& s) {
  for (int64_t i = first; i < last; i += 2) {
    const int members = last - i < 2 ? 1 : 2;
    bool has_weight[2] = {false, false};
    for (int u = 0; u < members; ++u) has_weight[u] = read_query(a, b, h, i + u, u, s);
    const int64_t shared = has_weight[0] && has_weight[1] ? lists.common(i) / kWidth * kWidth : 0;
    for (int64_t t = 0; t < shared; t += kWidth) {
      // not the constant that it is: unrolled for it, some compilers warn of loops that never run
      const int64_t used = least(shared - t, kWidth);
      differentiate_block<2, kRegisters>(a, h, i, 0, lists.keys(i) + t, used, s);
    }
    for (int u = 0; u < members; ++u) {
      const int64_t n = has_weight[u] ? lists.length(i + u) : 0;
      for (int64_t t = shared; t < n; t += kWidth) {
        const int64_t used = least(n - t, kWidth);
        differentiate_block<1, kRegisters>(a, h, i, u, lists.keys(i + u) + t, used, s);
      }
      write_row(a.dq, place(a.dq, b, h, i + u), a.head_dim, s.dqueries + u * s.padded, 1.0f);
    }
  }
}

// The sums lie in the gradient itself where its rows are dense float32.
inline float* sums_of(const Array& gradient, int64_t b, int64_t h, const AttentionBackward& a, int64_t padded, float* buffer) {
  float* sums = is_ready(gradient, a.head_dim, padded)
                    ? static_cast<float*>(gradient.data) + place(gradient, b, h, 0)
                    : buffer;
  for (int64_t c = 0; c < a.num_keys * padded; ++c) sums[c] = 0;
  return sums;
}

inline void keep_sums(const Array& gradient, int64_t b, int64_t h, const AttentionBackward& a, int64_t padded, const float* sums) {
  if (is_ready(gradient, a.head_dim, padded)) return;
  for (int64_t j = 0; j < a.num_keys; ++j) {
    write_row(gradient, place(gradient, b, h, j), a.head_dim, sums + j * padded, 1.0f);
  }
}

// Queries whose lists one thread keeps: even, and all of a window unless that is much memory.
inline int64_t queries_kept(const AttentionBackward& a) {
  constexpr int64_t kMostBytes = 1 << 22;
  const int64_t most = kMostBytes / (4 * round_up(a.slots, kWidth));
  return a.num_queries <= most ? a.num_queries : round_up(most, 2);
}

void attention_backward(const AttentionBackward& a, int64_t begin, int64_t end) {
  const int64_t padded = round_up(a.head_dim, kWidth), all_bytes = 4 * padded * a.num_keys;
  const auto bytes = [&](const Array& x) { return is_ready(x, a.head_dim, padded) ? 0 : all_bytes; };
  const Buffer keys(bytes(a.k)), values(bytes(a.v)), dkeys(bytes(a.dk)), dvalues(bytes(a.dv));
  const Buffer rows(5 * 2 * 4 * padded);
  const int64_t kept = queries_kept(a);
  PairedLists lists(a.slots, a.num_keys, kept, true);
  BackwardScratch s;
  s.padded = padded;
  s.queries = rows.floats(), s.scaled = s.queries + 2 * padded, s.dout = s.scaled + 2 * padded;
  s.dqueries = s.dout + 2 * padded, s.out = s.dqueries + 2 * padded;
  const auto run = padded == kWidth       ? differentiate_rows<1>
                   : padded == 2 * kWidth ? differentiate_rows<2>
                   : padded == 4 * kWidth ? differentiate_rows<4>
                   : padded == 8 * kWidth ? differentiate_rows<8>
                                          : differentiate_rows<0>;
  int64_t current_window = -1, current_first = -1;
  for (int64_t task = begin; task < end; ++task) {
    // with a gradient of the bias a task is one head, and its windows follow each other
    const int64_t first = a.dbias ? 0 : task / a.heads, last = a.dbias ? a.num_windows : first + 1;
    const int64_t h = a.dbias ? task : task % a.heads;
    for (int64_t b = first; b < last; ++b) {
      s.keys = dense_rows(a.k, b, h, a.num_keys, a.head_dim, padded, keys.floats());
      s.values = dense_rows(a.v, b, h, a.num_keys, a.head_dim, padded, values.floats());
      s.dkeys = sums_of(a.dk, b, h, a, padded, dkeys.floats());
      s.dvalues = sums_of(a.dv, b, h, a, padded, dvalues.floats());
      for (int64_t i = 0; i < a.num_queries; i += kept) {
        const int64_t stop = least(a.num_queries, i + kept);
        if (b != current_window || i != current_first) {
          lists.read(a.index + b * a.num_queries * a.slots, i, stop);  // the forward has checked them
          current_window = b, current_first = i;
        }
        run(a, b, h, i, stop, lists, s);
      }
      keep_sums(a.dk, b, h, a, padded, s.dkeys);
      keep_sums(a.dv, b, h, a, padded, s.dvalues);
    }
  }
}

}  // namespace
