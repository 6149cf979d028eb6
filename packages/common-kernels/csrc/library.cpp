// SPDX-License-Identifier: Apache-2.0
// The operators as torch's dispatcher calls them: unpack, allocate, cut into tasks, run on torch's threads.
//
// Their schemas are in Python, beside the shape functions and the derivatives. A tensor without elements stands
// for an argument that is left out.
#include <cstring>

#include "kernels.h"
#include "torch_abi.h"

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace common_kernels {

Torch torch;

namespace {

const Kernels* kernels = &kernels_generic;

template <typename Work>
void run_tasks(void (*kernel)(const Work&, int64_t, int64_t), const Work& work, int64_t tasks) {
  struct Context {
    void (*kernel)(const Work&, int64_t, int64_t);
    const Work* work;
  } context{kernel, &work};
  const Range run = [](int64_t begin, int64_t end, void* given) {
    const auto* c = static_cast<const Context*>(given);
    c->kernel(*c->work, begin, end);
  };
  if (tasks > 0) check(torch.torch_parallel_for(0, tasks, 1, run, &context), "out of memory in a kernel");
}

int64_t num_threads() {
  uint32_t threads = 1;
  check(torch.torch_get_num_threads(&threads), "torch does not tell its number of threads");
  return threads;
}

// Pieces of a loop: enough that threads that are done early find more, whole if there are many loops anyway.
int64_t split(int64_t length, int64_t loops, int64_t least) {
  const int64_t wanted = 4 * num_threads();
  const int64_t pieces = loops >= wanted ? 1 : (wanted + loops - 1) / (loops > 0 ? loops : 1);
  const int64_t piece = (length + pieces - 1) / pieces;
  return piece > least ? piece : least;
}

Dtype dtype_of(const Tensor& x) {
  const int32_t dtype = x.dtype();
  if (dtype == torch.aoti_torch_dtype_float32()) return Dtype::float32;
  if (dtype == torch.aoti_torch_dtype_bfloat16()) return Dtype::bfloat16;
  if (dtype == torch.aoti_torch_dtype_float16()) return Dtype::float16;
  throw std::runtime_error("a tensor is neither float32, bfloat16 nor float16");
}

Array array_of(const Tensor& x) {
  Array array;
  if (x.numel() == 0) return array;
  array.data = x.data();
  array.dtype = dtype_of(x);
  const int64_t* strides = x.strides();
  for (int64_t d = 0; d < x.dim(); ++d) array.strides[d] = strides[d];
  return array;
}

template <typename T>
T* pointer(const Tensor& x) {
  return x.numel() ? static_cast<T*>(x.data()) : nullptr;
}

// (q, k, v, bias, index, scale) -> (out, lse)
void attention_forward(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor q(stack[0]), k(stack[1]), v(stack[2]), bias(stack[3]), index(stack[4]);
  const int64_t* s = q.sizes();
  Tensor out = Tensor::empty(4, s, q.dtype()), lse = Tensor::empty(3, s, torch.aoti_torch_dtype_float32());
  AttentionForward a{};
  a.num_windows = s[0], a.heads = s[1], a.num_queries = s[2], a.head_dim = s[3];
  a.num_keys = k.sizes()[2], a.slots = index.sizes()[2];
  a.scale = static_cast<float>(as_double(stack[5]));
  a.q = array_of(q), a.k = array_of(k), a.v = array_of(v), a.bias = array_of(bias), a.out = array_of(out);
  a.index = pointer<const int32_t>(index), a.lse = pointer<float>(lse);
  bool is_out_of_range = false;
  a.is_out_of_range = &is_out_of_range;
  if (out.numel()) {
    // even, so that the same queries make a pair whatever the number of threads
    a.queries_per_task = (split(a.num_queries, a.num_windows * a.heads, 16) + 1) / 2 * 2;
    a.tasks_per_head = (a.num_queries + a.queries_per_task - 1) / a.queries_per_task;
    run_tasks(kernels->attention_forward, a, a.num_windows * a.heads * a.tasks_per_head);
  }
  if (is_out_of_range) throw std::runtime_error("the dictionary lists a key that is out of range");
  stack[0] = out.release(), stack[1] = lse.release();
}

// (dout, q, k, v, out, lse, bias, index, scale, need_dbias) -> (dq, dk, dv, dbias)
void attention_backward(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor dout(stack[0]), q(stack[1]), k(stack[2]), v(stack[3]), out(stack[4]), lse(stack[5]);
  const Tensor bias(stack[6]), index(stack[7]);
  const int64_t* s = q.sizes();
  Tensor dq = Tensor::empty(4, s, q.dtype());
  Tensor dk = Tensor::empty(4, k.sizes(), k.dtype()), dv = Tensor::empty(4, v.sizes(), v.dtype());
  const int64_t pairs[3] = {s[1], s[2], k.sizes()[2]}, none[1] = {0};
  const bool need_dbias = (stack[9] & 1) != 0;
  const int32_t float32 = torch.aoti_torch_dtype_float32();
  Tensor dbias = need_dbias ? Tensor::empty(3, pairs, float32) : Tensor::empty(1, none, float32);
  if (dbias.numel()) std::memset(dbias.data(), 0, static_cast<size_t>(4 * dbias.numel()));
  AttentionBackward a{};
  a.num_windows = s[0], a.heads = s[1], a.num_queries = s[2], a.head_dim = s[3];
  a.num_keys = k.sizes()[2], a.slots = index.sizes()[2];
  a.scale = static_cast<float>(as_double(stack[8]));
  a.dout = array_of(dout), a.q = array_of(q), a.k = array_of(k), a.v = array_of(v), a.out = array_of(out);
  a.bias = array_of(bias), a.dq = array_of(dq), a.dk = array_of(dk), a.dv = array_of(dv);
  a.index = pointer<const int32_t>(index), a.lse = pointer<const float>(lse), a.dbias = pointer<float>(dbias);
  if (dk.numel()) {
    run_tasks(kernels->attention_backward, a, a.dbias ? a.heads : a.num_windows * a.heads);
  }
  stack[0] = dq.release(), stack[1] = dk.release(), stack[2] = dv.release(), stack[3] = dbias.release();
}

// (scores, penalty, regions, k, first_window, first_row, force_self) -> index
void select(uint64_t* stack, uint64_t, uint64_t) {
  const Tensor scores(stack[0]), penalty(stack[1]), regions(stack[2]);
  const int64_t* s = scores.sizes();
  Selection a{};
  a.num_windows = s[0], a.num_rows = s[1], a.num_keys = s[2], a.k = static_cast<int64_t>(stack[3]);
  const int64_t sizes[3] = {s[0], s[1], a.k};
  Tensor index = Tensor::empty(3, sizes, torch.aoti_torch_dtype_int32());
  a.scores = pointer<const float>(scores), a.penalty = pointer<const float>(penalty);
  a.regions = pointer<const int64_t>(regions), a.num_groups = a.regions ? regions.sizes()[0] : 1;
  a.first_window = static_cast<int64_t>(stack[4]), a.first_row = static_cast<int64_t>(stack[5]);
  a.force_self = (stack[6] & 1) != 0;
  a.index = pointer<int32_t>(index);
  if (index.numel()) {
    a.rows_per_task = split(a.num_rows, a.num_windows, 8);
    a.tasks_per_window = (a.num_rows + a.rows_per_task - 1) / a.rows_per_task;
    run_tasks(kernels->select, a, a.num_windows * a.tasks_per_window);
  }
  stack[0] = index.release();
}

// (spectrum, guide, weight, smallest_power, smallest_mean) -> fused
void mix_phase(uint64_t* stack, uint64_t, uint64_t) {
  constexpr int64_t kMostBins = 1 << 13;  // of one task
  const Tensor spectrum(stack[0]), guide(stack[1]);  // contiguous, (images, H, W // 2 + 1)
  Tensor fused = Tensor::empty(3, spectrum.sizes(), torch.aoti_torch_dtype_complex64());
  PhaseMix a{};
  a.num_bins = fused.numel();
  a.x = pointer<const float>(spectrum), a.guide = pointer<const float>(guide), a.out = pointer<float>(fused);
  a.weight = static_cast<float>(as_double(stack[2]));
  a.smallest_power = static_cast<float>(as_double(stack[3]));
  a.smallest_mean = static_cast<float>(as_double(stack[4]));
  const int64_t tasks = (a.num_bins + kMostBins - 1) / kMostBins;
  a.bins_per_task = tasks > 0 ? (a.num_bins + tasks - 1) / tasks : 1;  // tasks of one length
  run_tasks(kernels->mix_phase, a, tasks);
  stack[0] = fused.release();
}

const struct {
  const char* name;
  Boxed run;
} kOperators[] = {
    {"knn_attention_native_fwd", attention_forward},
    {"knn_attention_native_bwd", attention_backward},
    {"select_native", select},
    {"mix_phase_native", mix_phase},
};

const char* const kImports[] = {
#define COMMON_KERNELS_NAME_OF(name, parameters) #name,
    COMMON_KERNELS_TORCH_FUNCTIONS(COMMON_KERNELS_NAME_OF)
#undef COMMON_KERNELS_NAME_OF
        nullptr};
static_assert(sizeof(Torch) == sizeof kImports - sizeof(void*), "a table of function addresses");

// The instruction sets that this machine has, the best first.
const Kernels* offered(int32_t number) {
  const Kernels* found[3];
  int32_t count = 0;
#ifdef COMMON_KERNELS_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found[count++] = &kernels_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found[count++] = &kernels_avx2;
#endif
  found[count++] = &kernels_generic;
  return number >= 0 && number < count ? found[number] : nullptr;
}

}  // namespace
}  // namespace common_kernels

using namespace common_kernels;

// Changes with the schemas: Python and library must have the same.
EXPORT int32_t common_kernels_interface() { return 2; }

// Name of the n-th function of torch to be handed to common_kernels_register, or null after the last.
EXPORT const char* common_kernels_import(int32_t n) { return kImports[n]; }

// Name of the n-th instruction set that can be used here, the fastest first, or null after the last.
EXPORT const char* common_kernels_instruction_set(int32_t n) {
  const Kernels* found = offered(n);
  return found ? found->name : nullptr;
}

// Compute with an instruction set from now on; 0 if there is no such one here.
EXPORT int32_t common_kernels_use(const char* name) {
  for (int32_t n = 0; const Kernels* found = offered(n); ++n) {
    if (std::strcmp(found->name, name) == 0) {
      kernels = found;
      return 1;
    }
  }
  return 0;
}

// Register the operators; takes the addresses in the order of common_kernels_import. Returns 0 for success.
EXPORT int32_t common_kernels_register(void* const* addresses) {
  std::memcpy(&torch, addresses, sizeof torch);
  kernels = offered(0);
  LibraryHandle library = nullptr;  // torch keeps what is registered as long as this lives: to the end
  if (torch.aoti_torch_library_init_impl("common_kernels", "CPU", "", 0, &library)) return 1;
  for (const auto& op : kOperators) {
    if (torch.torch_library_impl(library, op.name, op.run, kAbiVersion)) return 1;
  }
  return 0;
}
