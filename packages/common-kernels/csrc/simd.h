// SPDX-License-Identifier: Apache-2.0
// Vectors of the width that the compiler's flags allow, by the vector extensions of GCC and Clang.
//
// Everything is in an unnamed namespace and no template of the standard library is used: this file is compiled
// once per instruction set, and the linker must not merge the copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));

constexpr float kInfinity = __builtin_inff();

inline Floats load(const float* source) {
  Floats x;
  __builtin_memcpy(&x, source, sizeof x);
  return x;
}

inline Ints load(const int32_t* source) {
  Ints x;
  __builtin_memcpy(&x, source, sizeof x);
  return x;
}

inline void store(float* target, Floats x) { __builtin_memcpy(target, &x, sizeof x); }
inline void store(int32_t* target, Ints x) { __builtin_memcpy(target, &x, sizeof x); }
inline Floats splat(float x) { return x - Floats{}; }  // x + 0 would lose the sign of -0
inline Ints splat(int32_t x) { return x - Ints{}; }
inline Floats as_floats(Ints x) { return (Floats)x; }
inline Ints as_ints(Floats x) { return (Ints)x; }
inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

inline float sum(Floats x) {
  float total = 0;
  for (int i = 0; i < kWidth; ++i) total += x[i];
  return total;
}

inline float maximum(Floats x) {
  float most = x[0];
  for (int i = 1; i < kWidth; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// One step of the transposed sum below, within each quarter of 128 bits: two elements of a, then two of b.
inline Floats add_pairs(Floats a, Floats b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

inline Floats add_quads(const Floats* x) {
  return add_pairs(add_pairs(x[0], x[1]), add_pairs(x[2], x[3]));
}

// The last steps: x[g] holds, in each quarter of 128 bits, parts of the sums of vectors 4 g to 4 g + 3.
inline Floats join_quads(const Floats* x) {
#if defined(__AVX512F__)
  const Floats ab =
      __builtin_shufflevector(x[0], x[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
      __builtin_shufflevector(x[0], x[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  const Floats cd =
      __builtin_shufflevector(x[2], x[3], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
      __builtin_shufflevector(x[2], x[3], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  return __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(x[0], x[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(x[0], x[1], 4, 5, 6, 7, 12, 13, 14, 15);
#else
  return x[0];
#endif
}

// 2^x with a relative error of 1e-7; 0 below the normal numbers; NaN stays NaN. Coefficients: Cephes exp2f.
inline Floats exp2(Floats x) {
  const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x + magic;
  const Floats f = x - (shifted - magic);
  Floats y = splat(1.535336188319500e-4f);
  y = y * f + 1.339887440266574e-3f;
  y = y * f + 9.618437357674640e-3f;
  y = y * f + 5.550332471162809e-2f;
  y = y * f + 2.402264791363012e-1f;
  y = y * f + 6.931472028550421e-1f;
  y = y * f + 1.0f;
  const Floats power = as_floats((as_ints(shifted) - as_ints(magic) + 127) << 23);
  return x < -126.0f ? Floats{} : y * power;
}

// Memory of one thread, aligned for every width.
class Buffer {
 public:
  explicit Buffer(int64_t bytes)
      : data_(bytes ? ::operator new(static_cast<size_t>(bytes), std::align_val_t{64}) : nullptr) {}
  ~Buffer() {
    if (data_) ::operator delete(data_, std::align_val_t{64});
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* floats() const { return static_cast<float*>(data_); }
  int32_t* ints() const { return static_cast<int32_t*>(data_); }

 private:
  void* data_;
};

}  // namespace
