// SPDX-License-Identifier: Apache-2.0
// Rows of tensors as aligned float32, whatever their dtype and strides.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace {

using common_kernels::Array;
using common_kernels::Dtype;

inline float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

inline uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float widen_bfloat16(uint16_t x) { return from_bits(static_cast<uint32_t>(x) << 16); }

inline uint16_t to_bfloat16(float x) {
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

inline float widen_float16(uint16_t x) {
  // the exponent is rebased by a multiplication, which also makes subnormal numbers normal
  const float magnitude = from_bits(static_cast<uint32_t>(x & 0x7fffu) << 13) * from_bits(0x77800000u);
  const uint32_t special = (x & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return from_bits(to_bits(magnitude) | special | (static_cast<uint32_t>(x & 0x8000u) << 16));
}

inline uint16_t to_float16(float x) {
  const uint32_t bits = to_bits(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal: adding a number of fixed exponent rounds to its last place
    return static_cast<uint16_t>(sign | (to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}

template <float (*widen)(uint16_t)>
inline void widen_row(const uint16_t* source, int64_t stride, float* target, int64_t n) {
  if (stride == 1) {
    for (int64_t c = 0; c < n; ++c) target[c] = widen(source[c]);
  } else {
    for (int64_t c = 0; c < n; ++c) target[c] = widen(source[c * stride]);
  }
}

// Copy n elements from an offset to float32 and fill up with zeros.
inline void read_row(const Array& array, int64_t offset, int64_t n, float* target, int64_t padded) {
  const int64_t stride = array.strides[3];
  if (array.dtype == Dtype::float32) {
    const float* source = static_cast<const float*>(array.data) + offset;
    if (stride == 1) {
      for (int64_t c = 0; c < n; ++c) target[c] = source[c];
    } else {
      for (int64_t c = 0; c < n; ++c) target[c] = source[c * stride];
    }
  } else {
    const uint16_t* source = static_cast<const uint16_t*>(array.data) + offset;
    if (array.dtype == Dtype::bfloat16) {
      widen_row<widen_bfloat16>(source, stride, target, n);
    } else {
      widen_row<widen_float16>(source, stride, target, n);
    }
  }
  for (int64_t c = n; c < padded; ++c) target[c] = 0.0f;
}

// Write n elements at an offset of a tensor whose last stride is 1, times a factor.
inline void write_row(const Array& array, int64_t offset, int64_t n, const float* source, float factor) {
  if (array.dtype == Dtype::float32) {
    float* target = static_cast<float*>(array.data) + offset;
    for (int64_t c = 0; c < n; ++c) target[c] = source[c] * factor;
  } else {
    uint16_t* target = static_cast<uint16_t*>(array.data) + offset;
    if (array.dtype == Dtype::bfloat16) {
      for (int64_t c = 0; c < n; ++c) target[c] = to_bfloat16(source[c] * factor);
    } else {
      for (int64_t c = 0; c < n; ++c) target[c] = to_float16(source[c] * factor);
    }
  }
}

inline int64_t place(const Array& array, int64_t b, int64_t h, int64_t row) {
  return b * array.strides[0] + h * array.strides[1] + row * array.strides[2];
}

// Whether rows can be read where they lie: float32, dense, and a multiple of the register width.
inline bool is_ready(const Array& array, int64_t head_dim, int64_t padded) {
  return array.dtype == Dtype::float32 && array.strides[3] == 1 && array.strides[2] == head_dim &&
         head_dim == padded;
}

// Return all rows of one head as dense float32, in place or in the buffer.
inline const float* dense_rows(
    const Array& array, int64_t b, int64_t h, int64_t rows, int64_t head_dim, int64_t padded, float* buffer) {
  const int64_t start = place(array, b, h, 0);
  if (is_ready(array, head_dim, padded)) return static_cast<const float*>(array.data) + start;
  for (int64_t j = 0; j < rows; ++j) {
    read_row(array, start + j * array.strides[2], head_dim, buffer + j * padded, padded);
  }
  return buffer;
}

// Copy the used slots of a list and fill up to the register width with one of them. Return their number, or -1
// where a key is out of range.
inline int64_t read_list(const int32_t* slots, int64_t num_slots, int64_t num_keys, int32_t* keys) {
  int32_t signs = 0, most = -1;
  for (int64_t t = 0; t < num_slots; ++t) {
    signs |= slots[t];
    most = slots[t] > most ? slots[t] : most;
  }
  if (most >= num_keys) return -1;
  int64_t n = num_slots;
  if (signs >= 0) {
    __builtin_memcpy(keys, slots, static_cast<size_t>(4 * num_slots));
  } else {
    n = 0;
    for (int64_t t = 0; t < num_slots; ++t) {
      keys[n] = slots[t];
      n += slots[t] >= 0;
    }
  }
  for (int64_t t = n; n && t % kWidth; ++t) keys[t] = keys[0];
  return n;
}

// The same channels of kWidth keys against one query: element r is the dot product with key r.
template <int kRegisters>
inline Floats dot_each(const float* query, const float* rows, int64_t padded, const int32_t* keys) {
  Floats partial[kWidth];
  if constexpr (kRegisters > 0) {
    Floats q[kRegisters];
    for (int c = 0; c < kRegisters; ++c) q[c] = load(query + c * kWidth);
    for (int r = 0; r < kWidth; ++r) {
      const float* row = rows + keys[r] * padded;
      Floats total = q[0] * load(row);
      for (int c = 1; c < kRegisters; ++c) total += q[c] * load(row + c * kWidth);
      partial[r] = total;
    }
  } else {
    for (int r = 0; r < kWidth; ++r) {
      const float* row = rows + keys[r] * padded;
      Floats total = load(query) * load(row);
      for (int64_t c = kWidth; c < padded; c += kWidth) total += load(query + c) * load(row + c);
      partial[r] = total;
    }
  }
  return sum_each(partial);
}

constexpr float kLog2E = 1.4426950408889634f;

// Add the bias of the listed pairs to base-2 logits.
inline void add_bias(const Array& bias, int64_t h, int64_t i, const int32_t* keys, int64_t n, float* logits) {
  const float* row = static_cast<const float*>(bias.data) + h * bias.strides[0] + i * bias.strides[1];
  for (int64_t t = 0; t < n; ++t) logits[t] += kLog2E * row[keys[t] * bias.strides[2]];
}

}  // namespace
