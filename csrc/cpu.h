// What the CPU kernels share. On x86 they are compiled for AVX2 (setup.py), and bindings.cpp says whether the processor
// has it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "half.h"
#include "kernels.h"

#define HD_RESTRICT __restrict__

namespace hd::cpu {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Where the run of equal ids that begins at `begin` ends.
template <typename T>
inline int64_t end_of_run(const T* ids, int64_t begin, int64_t end) {
  constexpr int64_t kStep = 64 / sizeof(T);
  const T id = ids[begin];
  int64_t i = begin + 1;
  if (i == end || ids[i] != id) return i;
  for (; i + kStep <= end; i += kStep) {
    T difference = 0;
    for (int64_t k = 0; k < kStep; ++k) difference |= static_cast<T>(ids[i + k] ^ id);
    if (difference != 0) break;
  }
  while (i < end && ids[i] == id) ++i;
  return i;
}

// Run fn(i) for i in [0, n) on `threads` threads, which take turns with `chunk` neighbours each: with 1, work that is
// heavier in some part of a picture is shared out evenly; by default, every thread gets one stretch. One thread opens
// no parallel region: after a fork, as in the workers of a data loader, OpenMP's other threads do not exist.
template <typename F>
inline void parallel_for(int64_t n, int threads, const F& fn, int64_t chunk = 0) {
  bool failed = false;  // an exception must not leave the parallel region
  if (chunk == 0) chunk = larger((n + threads - 1) / threads, 1);
#pragma omp parallel for schedule(static, chunk) num_threads(threads) if (threads > 1 && n > 1)
  for (int64_t i = 0; i < n; ++i) {
    try {
      fn(i);
    } catch (const std::bad_alloc&) {
      __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
    }
  }
  if (failed) throw std::bad_alloc();
}

// Uninitialised scratch memory for n T's, aligned to cache lines. It is on the stack if they are few.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t n) : data_(reinterpret_cast<T*>(few_)) {
    if (n * sizeof(T) <= sizeof(few_)) return;
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, n * sizeof(T)) != 0) throw std::bad_alloc();
    data_ = static_cast<T*>(memory);
  }
  ~Scratch() {
    if (data_ != reinterpret_cast<T*>(few_)) std::free(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
  alignas(64) unsigned char few_[10 * 1024];
};

// A growing array; new elements are zeros. std::vector will not do: its functions are shared by all files, and the
// linker might take those for AVX2 into bindings.cpp, which any processor runs.
template <typename T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t n) { resize(n); }
  Array(int64_t n, const T& value) { assign(n, value); }
  Array(Array&& other) noexcept { swap(other); }
  ~Array() { delete[] data_; }
  Array& operator=(Array&& other) noexcept {
    swap(other);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  T& back() { return data_[size_ - 1]; }

  void clear() { size_ = 0; }
  void resize(int64_t n) {
    reserve(n);
    for (; size_ < n; ++size_) data_[size_] = T{};
    size_ = n;
  }
  void assign(int64_t n, const T& value) {
    reserve(n);
    for (int64_t i = 0; i < n; ++i) data_[i] = value;
    size_ = n;
  }
  void push_back(const T& value) {
    const T copy = value;
    if (size_ == capacity_) reserve(larger(2 * capacity_, 16));
    data_[size_++] = copy;
  }

 private:
  void reserve(int64_t n) {
    if (n <= capacity_) return;
    T* grown = new T[n];
    for (int64_t i = 0; i < size_; ++i) grown[i] = static_cast<T&&>(data_[i]);
    delete[] data_;
    data_ = grown, capacity_ = n;
  }
  void swap(Array& other) noexcept {
    T* const data = data_;
    const int64_t size = size_, capacity = capacity_;
    data_ = other.data_, size_ = other.size_, capacity_ = other.capacity_;
    other.data_ = data, other.size_ = size, other.capacity_ = capacity;
  }

  T* data_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
};

inline int64_t elements_of(const Tensor& x) { return x ? x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3] : 0; }

// Whether a dense result of T's is written past the caches. A plain store reads its line from memory first. That is
// wasted on a result which, with what is read for it, is larger than the last cache: its beginning is gone when its end
// is written. Smaller results stay in the cache for whoever reads them next, and those of 16 bits are not bound by
// memory.
template <typename T>
inline bool is_streamed([[maybe_unused]] const Tensor& y) {
#ifdef __AVX2__
  return sizeof(T) == sizeof(float) && elements_of(y) >= 4 * 1024 * 1024;
#else
  return false;
#endif
}

// to[e] = value(e) for e in [0, n), past the caches but for the first and the last `edge` elements, and for cache lines
// that are not written whole. finish_streams() must follow before another thread reads them.
template <typename T, typename F>
inline __attribute__((always_inline)) void stream(T* HD_RESTRICT to, int64_t n, [[maybe_unused]] int64_t edge,
                                                  const F& value) {
  int64_t e = 0;
#ifdef __AVX2__
  if constexpr (sizeof(T) == sizeof(float)) {
    constexpr int64_t kLine = 64 / sizeof(T);
    const int64_t aligned = (-reinterpret_cast<intptr_t>(to + edge) & 63) / static_cast<int64_t>(sizeof(T));
    const int64_t first = smaller(edge + aligned, n);
#pragma omp simd
    for (int64_t k = 0; k < first; ++k) to[k] = value(k);
    for (e = first; e + kLine + edge <= n; e += kLine) {
      alignas(64) T line[kLine];
#pragma omp simd
      for (int64_t k = 0; k < kLine; ++k) line[k] = value(e + k);
      for (int64_t k = 0; k < kLine; k += 8) _mm256_stream_ps(to + e + k, _mm256_load_ps(line + k));
    }
  }
#endif
#pragma omp simd
  for (int64_t k = e; k < n; ++k) to[k] = value(k);
}

// The same for n elements that lie in the first-level cache. (The loop above would move a copy by halves of its
// vectors.)
template <typename T>
inline void stream_copy(T* HD_RESTRICT to, int64_t n, const T* HD_RESTRICT from) {
  int64_t e = 0;
#ifdef __AVX2__
  constexpr int64_t kLine = 64 / sizeof(T);
  e = smaller((-reinterpret_cast<intptr_t>(to) & 63) / static_cast<int64_t>(sizeof(T)), n);
  __builtin_memcpy(to, from, e * sizeof(T));
  for (; e + kLine <= n; e += kLine)
    for (int64_t k = 0; k < kLine; k += kLine / 2)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + e + k),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + e + k)));
#endif
  __builtin_memcpy(to + e, from + e, (n - e) * sizeof(T));
}

inline void finish_streams() {
#ifdef __AVX2__
  _mm_sfence();
#endif
}

// Ask for huge pages behind a dense result of T's that is about to be written. Large results are fresh memory, and its
// page faults, one for every 4 KiB, take longer than the kernels.
template <typename T>
inline void use_huge_pages([[maybe_unused]] const Tensor& y) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = 2 * 1024 * 1024;
  const uintptr_t address = reinterpret_cast<uintptr_t>(y.data);
  const uintptr_t bytes = elements_of(y) * sizeof(T);
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a hint, which may fail
#endif
}

// Call fn(T{}) with the type of an integer dtype.
template <typename F>
inline void with_integer(DType dtype, const F& fn) {
  if (dtype == DType::int8) return fn(int8_t{});
  if (dtype == DType::int16) return fn(int16_t{});
  if (dtype == DType::int32) return fn(int32_t{});
  if (dtype == DType::uint8) return fn(uint8_t{});
  if (dtype == DType::uint16) return fn(uint16_t{});
  if (dtype == DType::uint32) return fn(uint32_t{});
  if (dtype == DType::uint64) return fn(uint64_t{});
  return fn(int64_t{});
}

}  // namespace hd::cpu
