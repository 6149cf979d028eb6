// SPDX-License-Identifier: Apache-2.0
// The part of libtorch's stable C interface (torch 2.10 and later) that this library calls.
//
// Python looks the functions up in the torch that is running and hands over their addresses, so that building
// needs neither headers nor libraries of torch, and one binary serves every later release.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace common_kernels {

using TensorHandle = struct OpaqueTensor*;
using LibraryHandle = struct OpaqueLibrary*;
using Boxed = void (*)(uint64_t* stack, uint64_t num_arguments, uint64_t num_results);
using Range = void (*)(int64_t begin, int64_t end, void* context);

// return type, name, parameters; functions of type int32_t except for those of dtypes and devices return 0 for success
#define COMMON_KERNELS_TORCH_FUNCTIONS(X)                                                                    \
  X(aoti_torch_dtype_float32, (void))                                                                        \
  X(aoti_torch_dtype_bfloat16, (void))                                                                       \
  X(aoti_torch_dtype_float16, (void))                                                                        \
  X(aoti_torch_dtype_complex64, (void))                                                                      \
  X(aoti_torch_dtype_int32, (void))                                                                          \
  X(aoti_torch_device_type_cpu, (void))                                                                      \
  X(aoti_torch_get_data_ptr, (TensorHandle, void**))                                                         \
  X(aoti_torch_get_dim, (TensorHandle, int64_t*))                                                            \
  X(aoti_torch_get_numel, (TensorHandle, int64_t*))                                                          \
  X(aoti_torch_get_sizes, (TensorHandle, int64_t**))                                                         \
  X(aoti_torch_get_strides, (TensorHandle, int64_t**))                                                       \
  X(aoti_torch_get_dtype, (TensorHandle, int32_t*))                                                          \
  X(aoti_torch_delete_tensor_object, (TensorHandle))                                                         \
  X(aoti_torch_empty_strided,                                                                                \
    (int64_t, const int64_t*, const int64_t*, int32_t, int32_t, int32_t, TensorHandle*))                     \
  X(aoti_torch_library_init_impl, (const char*, const char*, const char*, uint32_t, LibraryHandle*))         \
  X(torch_library_impl, (LibraryHandle, const char*, Boxed, uint64_t))                                       \
  X(torch_parallel_for, (int64_t, int64_t, int64_t, Range, void*))                                           \
  X(torch_get_num_threads, (uint32_t*))

struct Torch {
#define COMMON_KERNELS_MEMBER(name, parameters) int32_t(*name) parameters;
  COMMON_KERNELS_TORCH_FUNCTIONS(COMMON_KERNELS_MEMBER)
#undef COMMON_KERNELS_MEMBER
};

extern Torch torch;

constexpr uint64_t kAbiVersion = (2ULL << 56) | (10ULL << 48);  // of torch 2.10

inline void check(int32_t error, const char* what) {
  if (error) throw std::runtime_error(what);
}

// A tensor that this object owns, as the arguments of a boxed call are.
class Tensor {
 public:
  explicit Tensor(TensorHandle handle) : handle_(handle) {}
  explicit Tensor(uint64_t boxed) : handle_(reinterpret_cast<TensorHandle>(boxed)) {}
  Tensor(Tensor&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (handle_) torch.aoti_torch_delete_tensor_object(handle_);
  }

  // An uninitialised contiguous tensor on the CPU.
  static Tensor empty(int64_t dim, const int64_t* sizes, int32_t dtype) {
    int64_t strides[4], step = 1;
    for (int64_t d = dim - 1; d >= 0; --d) {
      strides[d] = step;
      step *= sizes[d] > 1 ? sizes[d] : 1;
    }
    TensorHandle handle = nullptr;
    const int32_t cpu = torch.aoti_torch_device_type_cpu();
    check(
        torch.aoti_torch_empty_strided(dim, sizes, strides, dtype, cpu, 0, &handle),
        "out of memory for a result");
    return Tensor(handle);
  }

  uint64_t release() {
    const auto boxed = reinterpret_cast<uint64_t>(handle_);
    handle_ = nullptr;
    return boxed;
  }
  void* data() const { return get<void*>(torch.aoti_torch_get_data_ptr); }
  int64_t dim() const { return get<int64_t>(torch.aoti_torch_get_dim); }
  int64_t numel() const { return get<int64_t>(torch.aoti_torch_get_numel); }
  const int64_t* sizes() const { return get<int64_t*>(torch.aoti_torch_get_sizes); }
  const int64_t* strides() const { return get<int64_t*>(torch.aoti_torch_get_strides); }
  int32_t dtype() const { return get<int32_t>(torch.aoti_torch_get_dtype); }

 private:
  template <typename T>
  T get(int32_t (*read)(TensorHandle, T*)) const {
    T value{};
    check(read(handle_, &value), "a tensor could not be read");
    return value;
  }

  TensorHandle handle_;
};

inline double as_double(uint64_t boxed) {
  double value;
  __builtin_memcpy(&value, &boxed, sizeof value);
  return value;
}

}  // namespace common_kernels
