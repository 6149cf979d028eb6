// SPDX-License-Identifier: Apache-2.0
// The lists of queries, two by two: neighbours list much the same keys, and a row that is read serves both.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace {

// The lists of queries [first, last) of one window, first even. Query i and i + 1 for even i make a pair, and
// the lists of both begin with the keys that they have in common. Every list is filled up to the register width
// with one of its keys.
class PairedLists {
 public:
  PairedLists(int64_t slots, int64_t num_keys, int64_t most_queries, bool shares)
      : shares_(shares), slots_(slots), num_keys_(num_keys), stride_(round_up(slots, kWidth)),
        lists_(4 * stride_ * most_queries), counts_(4 * 2 * most_queries), marks_(4 * num_keys),
        spare_(4 * 2 * (slots + 1)) {
    clear_marks();
  }

  // Return whether every key is in range; a list with one that is not counts as empty.
  bool read(const int32_t* index, int64_t first, int64_t last) {
    first_ = first;
    bool is_fine = true;
    for (int64_t i = first; i < last; i += 2) {
      const int64_t members = least(last - i, 2);
      const int32_t* used[2];
      int64_t n[2];
      for (int64_t u = 0; u < members; ++u) {
        n[u] = find_used(index + (i + u) * slots_, spare_.ints() + u * (slots_ + 1), used[u]);
        is_fine &= n[u] >= 0;
        n[u] = n[u] < 0 ? 0 : n[u];
      }
      int64_t common = 0;
      if (members == 2 && shares_) {
        common = share(used[0], n[0], list(i), used[1], n[1], list(i + 1));
      } else {
        for (int64_t u = 0; u < members; ++u) copy(used[u], n[u], list(i + u));
      }
      for (int64_t u = 0; u < members; ++u) {
        int32_t* keys = list(i + u);
        for (int64_t t = n[u]; n[u] && t % kWidth; ++t) keys[t] = keys[0];
        count(i + u)[0] = static_cast<int32_t>(n[u]);
        count(i + u)[1] = static_cast<int32_t>(common);
      }
    }
    return is_fine;
  }

  const int32_t* keys(int64_t i) const { return lists_.ints() + (i - first_) * stride_; }
  int64_t length(int64_t i) const { return counts_.ints()[2 * (i - first_)]; }
  int64_t common(int64_t i) const { return counts_.ints()[2 * (i - first_) + 1]; }

 private:
  int32_t* list(int64_t i) { return lists_.ints() + (i - first_) * stride_; }
  int32_t* count(int64_t i) { return counts_.ints() + 2 * (i - first_); }

  static void copy(const int32_t* source, int64_t n, int32_t* target) {
    __builtin_memcpy(target, source, static_cast<size_t>(4 * n));
  }

  void clear_marks() {
    for (int64_t j = 0; j < num_keys_; ++j) marks_.ints()[j] = 0;
    stamp_ = 0;
  }

  // Point to the used slots of a list, copied where others lie between. Return their number, or -1 where a key
  // is out of range.
  int64_t find_used(const int32_t* slots, int32_t* room, const int32_t*& used) const {
    int32_t signs = 0, most = -1;
    for (int64_t t = 0; t < slots_; ++t) {
      signs |= slots[t];
      most = slots[t] > most ? slots[t] : most;
    }
    used = slots;
    if (most >= num_keys_) return -1;
    if (signs >= 0) return slots_;
    used = room;
    int64_t n = 0;
    for (int64_t t = 0; t < slots_; ++t) {
      room[n] = slots[t];
      n += slots[t] >= 0;
    }
    return n;
  }

  // Write two lists with their common keys first; return the number of these. No branch depends on a key: what
  // is written to the wrong end of a list is written over later.
  int64_t share(
      const int32_t* a, int64_t num_a, int32_t* list_a, const int32_t* b, int64_t num_b, int32_t* list_b) {
    if (stamp_ > INT32_MAX - 4) clear_marks();
    int32_t* marks = marks_.ints();
    const int32_t listed = stamp_ += 2;
    for (int64_t t = 0; t < num_a; ++t) marks[a[t]] = listed;
    int64_t front = 0, back = num_b - 1;
    for (int64_t t = 0; t < num_b; ++t) {
      const int32_t key = b[t], is_common = marks[key] == listed;
      marks[key] += is_common;
      list_b[front] = key, list_b[back] = key;
      front += is_common, back -= 1 - is_common;
    }
    int64_t place = num_a;
    for (int64_t t = 0; t < num_a && place > 0; ++t) {
      const int32_t key = a[t];
      list_a[place - 1] = key;
      place -= marks[key] == listed;
    }
    if (place != front) {  // a key stands twice in a, which the dictionary rules out: keep the lists apart
      copy(a, num_a, list_a);
      return 0;
    }
    copy(list_b, front, list_a);
    return front;
  }

  bool shares_;
  int64_t slots_, num_keys_, stride_, first_ = 0;
  int32_t stamp_ = 0;
  Buffer lists_, counts_, marks_, spare_;
};

}  // namespace
