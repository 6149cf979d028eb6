// SPDX-License-Identifier: Apache-2.0
// Runs the kernels of one instruction set without torch: sizes and inputs from stdin, results to stdout.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels.h"

using namespace common_kernels;

namespace {

template <typename T>
std::vector<T> read(int64_t n) {
  std::vector<T> values(static_cast<size_t>(n));
  if (std::fread(values.data(), sizeof(T), values.size(), stdin) != values.size()) std::abort();
  return values;
}

template <typename T>
void write(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

Array array(std::vector<float>& values, int64_t heads, int64_t rows, int64_t columns) {
  Array a;
  a.data = values.data();
  a.strides[0] = heads * rows * columns, a.strides[1] = rows * columns, a.strides[2] = columns, a.strides[3] = 1;
  return a;
}

}  // namespace

int main() {
  const std::vector<int64_t> sizes = read<int64_t>(7);
  const int64_t B = sizes[0], H = sizes[1], N = sizes[2], M = sizes[3], D = sizes[4], K = sizes[5];
  const int64_t bins = sizes[6];
  auto q = read<float>(B * H * N * D), k = read<float>(B * H * M * D), v = read<float>(B * H * M * D);
  auto bias = read<float>(H * N * M), dout = read<float>(B * H * N * D);
  const auto index = read<int32_t>(B * N * K);
  const auto scores = read<float>(B * N * M), spectra = read<float>(4 * bins);

  std::vector<float> out(q.size()), lse(static_cast<size_t>(B * H * N));
  bool is_out_of_range = false;
  AttentionForward f{};
  f.num_windows = B, f.heads = H, f.num_queries = N, f.num_keys = M, f.head_dim = D, f.slots = K, f.scale = 0.5f;
  f.q = array(q, H, N, D), f.k = array(k, H, M, D), f.v = array(v, H, M, D), f.out = array(out, H, N, D);
  f.bias.data = bias.data(), f.bias.strides[0] = N * M, f.bias.strides[1] = M, f.bias.strides[2] = 1;
  f.index = index.data(), f.lse = lse.data(), f.is_out_of_range = &is_out_of_range;
  f.queries_per_task = N, f.tasks_per_head = 1;
  kernels_generic.attention_forward(f, 0, B * H);
  if (is_out_of_range) return 1;

  std::vector<float> dq(q.size()), dk(k.size()), dv(v.size()), dbias(bias.size());
  AttentionBackward b{};
  b.num_windows = B, b.heads = H, b.num_queries = N, b.num_keys = M, b.head_dim = D, b.slots = K, b.scale = 0.5f;
  b.q = f.q, b.k = f.k, b.v = f.v, b.out = f.out, b.bias = f.bias, b.dout = array(dout, H, N, D);
  b.dq = array(dq, H, N, D), b.dk = array(dk, H, M, D), b.dv = array(dv, H, M, D);
  b.index = index.data(), b.lse = lse.data(), b.dbias = dbias.data();
  kernels_generic.attention_backward(b, 0, H);

  std::vector<int32_t> chosen(static_cast<size_t>(B * N * K));
  Selection s{};
  s.num_windows = B, s.num_rows = N, s.num_keys = M, s.k = K, s.scores = scores.data(), s.num_groups = 1;
  s.index = chosen.data(), s.rows_per_task = N, s.tasks_per_window = 1;
  kernels_generic.select(s, 0, B);

  std::vector<float> mixed(static_cast<size_t>(2 * bins));
  PhaseMix p{};
  p.x = spectra.data(), p.guide = p.x + 2 * bins, p.out = mixed.data(), p.num_bins = p.bins_per_task = bins;
  p.weight = 0.5f, p.smallest_power = 1e-38f, p.smallest_mean = 1e-7f;
  kernels_generic.mix_phase(p, 0, 1);

  write(out), write(dq), write(dk), write(dv), write(dbias), write(chosen), write(mixed);
  return 0;
}
