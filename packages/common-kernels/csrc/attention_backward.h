// SPDX-License-Identifier: Apache-2.0
// Gradients of attention over listed keys; the weights are computed again from the stored denominators.
#pragma once

#include "attention_forward.h"

namespace {

using common_kernels::AttentionBackward;

// What one thread needs for one head.
struct BackwardScratch {
  int64_t padded;
  const float *keys, *values;   // dense rows
  float *dkeys, *dvalues;       // sums, dense rows
  float *query, *scaled, *dout, *dquery, *out;
  int32_t* list;
};

template <int kRegisters>
inline void add_scaled(float* target, float factor, const float* row, int64_t padded) {
  const Floats weight = splat(factor);
  if constexpr (kRegisters > 0) {
    for (int c = 0; c < kRegisters; ++c) {
      store(target + c * kWidth, load(target + c * kWidth) + weight * load(row + c * kWidth));
    }
  } else {
    for (int64_t c = 0; c < padded; c += kWidth) store(target + c, load(target + c) + weight * load(row + c));
  }
}

template <int kRegisters>
void differentiate_rows(const AttentionBackward& a, int64_t b, int64_t h, const BackwardScratch& s) {
  const int64_t padded = s.padded;
  for (int64_t i = 0; i < a.num_queries; ++i) {
    const int64_t n = read_list(a.index + (b * a.num_queries + i) * a.slots, a.slots, a.num_keys, s.list);
    const float lse = a.lse[(b * a.heads + h) * a.num_queries + i];
    for (int64_t c = 0; c < padded; ++c) s.dquery[c] = 0;
    if (n > 0 && lse != -kInfinity) {
      read_row(a.q, place(a.q, b, h, i), a.head_dim, s.query, padded);
      read_row(a.dout, place(a.dout, b, h, i), a.head_dim, s.dout, padded);
      read_row(a.out, place(a.out, b, h, i), a.head_dim, s.out, padded);
      float delta = 0;
      for (int64_t c = 0; c < padded; ++c) {
        delta += s.out[c] * s.dout[c];
        s.scaled[c] = s.query[c] * (a.scale * kLog2E);
      }
      for (int64_t t = 0; t < n; t += kWidth) {
        const int32_t* keys = s.list + t;
        const int64_t used = least(n - t, kWidth);
        float logits[kWidth], weights[kWidth], dlogits[kWidth];
        store(logits, dot_each<kRegisters>(s.scaled, s.keys, padded, keys));
        if (a.bias.data) add_bias(a.bias, h, i, keys, used, logits);
        const Floats weight = exp2(load(logits) - lse);
        store(weights, weight);
        store(dlogits, weight * (dot_each<kRegisters>(s.dout, s.values, padded, keys) - delta));
        if (a.dbias) {
          float* row = a.dbias + (h * a.num_queries + i) * a.num_keys;
          for (int64_t r = 0; r < used; ++r) row[keys[r]] += dlogits[r];
        }
        for (int64_t r = 0; r < used; ++r) {
          const int64_t key = keys[r] * padded;
          const float slope = dlogits[r] * a.scale;
          add_scaled<kRegisters>(s.dquery, slope, s.keys + key, padded);
          add_scaled<kRegisters>(s.dkeys + key, slope, s.query, padded);
          add_scaled<kRegisters>(s.dvalues + key, weights[r], s.dout, padded);
        }
      }
    }
    write_row(a.dq, place(a.dq, b, h, i), a.head_dim, s.dquery, 1.0f);
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

void attention_backward(const AttentionBackward& a, int64_t begin, int64_t end) {
  const int64_t padded = round_up(a.head_dim, kWidth), all_bytes = 4 * padded * a.num_keys;
  const auto bytes = [&](const Array& x) { return is_ready(x, a.head_dim, padded) ? 0 : all_bytes; };
  const Buffer keys(bytes(a.k)), values(bytes(a.v)), dkeys(bytes(a.dk)), dvalues(bytes(a.dv));
  const Buffer rows(5 * 4 * padded), list(4 * round_up(a.slots, kWidth));
  float* row = rows.floats();
  const auto run = padded == kWidth       ? differentiate_rows<1>
                   : padded == 2 * kWidth ? differentiate_rows<2>
                   : padded == 4 * kWidth ? differentiate_rows<4>
                   : padded == 8 * kWidth ? differentiate_rows<8>
                                          : differentiate_rows<0>;
  for (int64_t task = begin; task < end; ++task) {
    // with a gradient of the bias a task is one head, and its windows follow each other
    const int64_t first = a.dbias ? 0 : task / a.heads, last = a.dbias ? a.num_windows : first + 1;
    const int64_t h = a.dbias ? task : task % a.heads;
    for (int64_t b = first; b < last; ++b) {
      BackwardScratch s;
      s.padded = padded;
      s.keys = dense_rows(a.k, b, h, a.num_keys, a.head_dim, padded, keys.floats());
      s.values = dense_rows(a.v, b, h, a.num_keys, a.head_dim, padded, values.floats());
      s.dkeys = sums_of(a.dk, b, h, a, padded, dkeys.floats());
      s.dvalues = sums_of(a.dv, b, h, a, padded, dvalues.floats());
      s.query = row, s.scaled = row + padded, s.dout = row + 2 * padded;
      s.dquery = row + 3 * padded, s.out = row + 4 * padded;
      s.list = list.ints();
      run(a, b, h, s);
      keep_sums(a.dk, b, h, a, padded, s.dkeys);
      keep_sums(a.dv, b, h, a, padded, s.dvalues);
    }
  }
}

}  // namespace
