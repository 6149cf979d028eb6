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

// kWidth keys against kQueries queries that list them all: element r of logits[u] is the dot product of query u
// with key r. A row that is loaded serves every query.
template <int kQueries, int kRegisters>
inline void dot_each(
    const float* queries, const float* rows, int64_t padded, const int32_t* keys, Floats* logits) {
  constexpr int kQuads = kWidth / 4;
  Floats quads[kQueries][kQuads];
  for (int g = 0; g < kQuads; ++g) {
    Floats partial[kQueries][4];
    for (int r = 0; r < 4; ++r) {
      const float* row = rows + keys[4 * g + r] * padded;
      const int64_t width = kRegisters > 0 ? kRegisters * kWidth : padded;
      const Floats first = load(row);
      for (int u = 0; u < kQueries; ++u) partial[u][r] = load(queries + u * padded) * first;
      for (int64_t c = kWidth; c < width; c += kWidth) {
        const Floats x = load(row + c);
        for (int u = 0; u < kQueries; ++u) partial[u][r] += load(queries + u * padded + c) * x;
      }
    }
    for (int u = 0; u < kQueries; ++u) quads[u][g] = add_quads(partial[u]);
  }
  for (int u = 0; u < kQueries; ++u) logits[u] = join_quads(quads[u]);
}

constexpr float kLog2E = 1.4426950408889634f;

// Add the bias of the listed pairs to base-2 logits.
inline void add_bias(const Array& bias, int64_t h, int64_t i, const int32_t* keys, int64_t n, float* logits) {
  const float* row = static_cast<const float*>(bias.data) + h * bias.strides[0] + i * bias.strides[1];
  for (int64_t t = 0; t < n; ++t) logits[t] += kLog2E * row[keys[t] * bias.strides[2]];
}

}  // namespace
