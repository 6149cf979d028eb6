// SPDX-License-Identifier: Apache-2.0
// The k largest scores of a row, exactly, of equal ones those of lowest index.
//
// Scores become integers of the same order. The k-th largest is enclosed between two bounds: each pass counts
// the scores above a guess, first by interpolation, at times in the middle, which bounds the passes. A guess
// with exactly k above it ends the search.
#pragma once

#include "rows.h"

namespace {

using common_kernels::Selection;

constexpr int32_t kForbidden = INT32_MIN, kForced = INT32_MAX;
constexpr int32_t kLowest = static_cast<int32_t>(0x80800000u);  // the lowest finite number
constexpr int32_t kHighest = 0x7f7fffff;                        // the largest finite one

inline int32_t to_key(float x) {
  const int32_t bits = static_cast<int32_t>(to_bits(x));
  return bits < 0 ? bits ^ INT32_MAX : bits;
}

inline float from_key(int32_t key) { return from_bits(static_cast<uint32_t>(key < 0 ? key ^ INT32_MAX : key)); }

// Order-preserving integers: -0 as 0, NaN and minus infinity as the lowest number, infinity as the largest.
inline Ints to_keys(Floats x) {
  x = x + 0.0f;
  const Ints bits = as_ints(x);
  Ints keys = bits < 0 ? bits ^ INT32_MAX : bits;
  keys = keys < kLowest ? splat(kLowest) : keys;
  keys = keys > kHighest ? splat(kHighest) : keys;
  return x == x ? keys : splat(kLowest);
}

inline int64_t count_at_least(const int32_t* keys, int64_t n, int32_t bound) {
  Ints found[4] = {};
  int64_t j = 0;
  for (; j + 4 * kWidth <= n; j += 4 * kWidth) {
    for (int u = 0; u < 4; ++u) found[u] -= load(keys + j + u * kWidth) >= bound;
  }
  for (; j < n; j += kWidth) found[0] -= load(keys + j) >= bound;
  const Ints all = found[0] + found[1] + found[2] + found[3];
  int64_t total = 0;
  for (int i = 0; i < kWidth; ++i) total += all[i];
  return total;
}

// Return the largest bound that at least k keys reach, or a lower one that exactly k reach; `reached` is the
// number. The keys are filled up to the register width with kForbidden; more than k are above it.
inline int32_t find_bound(
    const int32_t* keys, int64_t n, int64_t k, int32_t low, int32_t high, int64_t allowed, int64_t& reached) {
  // count(low) = at_low >= k, count(past high) = at_high < k
  int64_t at_low = allowed, at_high = 0, past = static_cast<int64_t>(high) + 1, bound = low;
  for (int pass = 0; past - bound > 1 && at_low != k; ++pass) {
    int64_t guess = bound + (past - bound) / 2;
    if (pass % 4 != 3 && past <= kHighest) {
      const float from = from_key(static_cast<int32_t>(bound)), to = from_key(static_cast<int32_t>(past));
      const float share = (static_cast<float>(at_low - k) + 0.5f) / static_cast<float>(at_low - at_high + 1);
      const float between = from + (to - from) * share;
      const int64_t key = between == between ? to_key(between) : guess;
      guess = key <= bound ? bound + 1 : key >= past ? past - 1 : key;
    }
    const int64_t count = count_at_least(keys, n, static_cast<int32_t>(guess));
    if (count >= k) {
      bound = guess, at_low = count;
    } else {
      past = guess, at_high = count;
    }
  }
  reached = at_low;
  return static_cast<int32_t>(bound);
}

// Write the positions of the keys that reach the bound, ascending; the target has a register more than that.
inline int64_t write_positions(const int32_t* keys, int64_t n, int32_t bound, int32_t* target) {
  int64_t count = 0;
#ifdef __AVX512F__
  __m512i position = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i step = _mm512_set1_epi32(16), least_key = _mm512_set1_epi32(bound);
  for (int64_t j = 0; j < n; j += 16, position = _mm512_add_epi32(position, step)) {
    const __mmask16 hits = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + j), least_key);
    // compressing in a register and storing all of it is far faster than a compressing store on some processors
    _mm512_storeu_si512(target + count, _mm512_maskz_compress_epi32(hits, position));
    count += __builtin_popcount(hits);
  }
#else
  for (int64_t j = 0; j < n; ++j) {
    target[count] = static_cast<int32_t>(j);
    count += keys[j] >= bound;
  }
#endif
  return count;
}

// The same for a bound that more than k reach: those above it, and of those at it the first.
inline void write_first(const int32_t* keys, int64_t n, int64_t k, int32_t bound, int32_t* target) {
  int64_t above = 0;
  for (int64_t j = 0; j < n; ++j) above += keys[j] > bound;
  int64_t count = 0, equal = k - above;
  for (int64_t j = 0; j < n && count < k; ++j) {
    if (keys[j] > bound || (keys[j] == bound && equal-- > 0)) target[count++] = static_cast<int32_t>(j);
  }
}

inline void select_row(const Selection& a, int64_t b, int64_t i, int32_t* keys, int32_t* positions) {
  const int64_t n = a.num_keys, self = a.first_row + i;
  int32_t* target = a.index + (b * a.num_rows + i) * a.k;
  const float* scores = a.scores + (b * a.num_rows + i) * n;
  const float* penalty = a.penalty ? a.penalty + b * n : nullptr;
  const int64_t* labels = a.regions ? a.regions + (a.first_window + b) % a.num_groups * n : nullptr;
  int64_t j = 0;
  for (; j + kWidth <= n; j += kWidth) {
    Floats score = load(scores + j);
    if (penalty) score = score + score - load(penalty + j);
    store(keys + j, to_keys(score));
  }
  if (j < n) {
    float rest[kWidth] = {};
    for (int64_t t = j; t < n; ++t) rest[t - j] = penalty ? 2 * scores[t] - penalty[t] : scores[t];
    store(keys + j, to_keys(load(rest)));
    for (int64_t t = n; t < j + kWidth; ++t) keys[t] = kForbidden;
  }
  if (a.force_self) keys[self] = kForced;
  int64_t allowed = n;
  if (labels) {
    const int64_t own = labels[self];
    allowed = 0;
    for (int64_t t = 0; t < n; ++t) {
      const bool pairs = own >= 0 && labels[t] == own;
      keys[t] = pairs ? keys[t] : kForbidden;
      allowed += pairs;
    }
  }
  const int64_t padded = round_up(n, kWidth);
  int64_t count = least(allowed, a.k);
  if (allowed <= a.k) {
    write_positions(keys, padded, kForbidden + 1, positions);
  } else {
    Ints low = splat(kForced), high = splat(kForbidden);
    for (int64_t t = 0; t < padded; t += kWidth) {
      const Ints x = load(keys + t);
      const Ints lower = x == kForbidden ? splat(kForced) : x;
      low = lower < low ? lower : low;
      const Ints upper = x == kForced ? splat(kForbidden) : x;
      high = upper > high ? upper : high;
    }
    int32_t least_key = low[0], most_key = high[0];
    for (int r = 1; r < kWidth; ++r) {
      least_key = low[r] < least_key ? low[r] : least_key;
      most_key = high[r] > most_key ? high[r] : most_key;
    }
    // a forced self is above all: it takes one place and is left out of the search
    const bool forced = a.force_self && keys[self] == kForced;
    int64_t reached = 1;
    const int32_t bound = forced && a.k == 1
                              ? kForced
                              : find_bound(keys, padded, a.k, least_key, most_key, allowed, reached);
    if (reached == a.k) {
      write_positions(keys, padded, bound, positions);
    } else {
      write_first(keys, padded, a.k, bound, positions);
    }
  }
  __builtin_memcpy(target, positions, static_cast<size_t>(4 * count));
  for (int64_t t = count; t < a.k; ++t) target[t] = -1;
}

void select_rows(const Selection& a, int64_t begin, int64_t end) {
  const int64_t padded = round_up(a.num_keys, kWidth);
  const Buffer keys(4 * padded), positions(4 * (padded + kWidth));
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / a.tasks_per_window, first = task % a.tasks_per_window * a.rows_per_task;
    const int64_t last = least(a.num_rows, first + a.rows_per_task);
    for (int64_t i = first; i < last; ++i) select_row(a, b, i, keys.ints(), positions.ints());
  }
}

}  // namespace
