// SPDX-License-Identifier: Apache-2.0
// The bins between the transforms of the phase fusion, in one pass. Plain loops: the compiler makes them vectors.
#pragma once

#include "rows.h"

namespace {

using common_kernels::PhaseMix;

void mix_bins(const float* __restrict x, const float* __restrict g, float* __restrict out, int64_t n, const PhaseMix& a) {
  const float weight = a.weight, rest = 1.0f - a.weight, tiny = a.smallest_power, limit = a.smallest_mean;
  for (int64_t i = 0; i < n; ++i) {
    const float x_re = x[2 * i], x_im = x[2 * i + 1], g_re = g[2 * i], g_im = g[2 * i + 1];
    const float power = x_re * x_re + x_im * x_im, guide_power = g_re * g_re + g_im * g_im;
    const float amplitude = __builtin_sqrtf(power);
    const float own = rest / (amplitude > 0 ? amplitude : 1.0f);
    const float other = weight / __builtin_sqrtf(guide_power > 0 ? guide_power : 1.0f);
    const float re = own * x_re + other * g_re, im = own * x_im + other * g_im;
    const float mean = re * re + im * im;
    const float factor = amplitude / __builtin_sqrtf(mean > limit ? mean : 1.0f);
    // `>=` and `>` are false for NaN, which then stays as it is
    const bool turns = power >= tiny && guide_power >= tiny && mean > limit;
    out[2 * i] = turns ? re * factor : x_re;
    out[2 * i + 1] = turns ? im * factor : x_im;
  }
}

void mix_phase(const PhaseMix& a, int64_t begin, int64_t end) {
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task * a.bins_per_task, n = least(a.bins_per_task, a.num_bins - first);
    mix_bins(a.x + 2 * first, a.guide + 2 * first, a.out + 2 * first, n, a);
  }
}

}  // namespace
