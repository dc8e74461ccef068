// Instance maps are long runs of equal ids, so ids are looked up once a run. Where the ids of an image span a small
// range, they are counted in a table of that range. Otherwise each chunk of the image numbers the ids it meets by a
// hash table of its own; the few distinct ids of all chunks are then sorted, and a second pass turns the chunks'
// numbers into rows.
#include <cstring>

#include "cpu.h"

namespace hd::cpu {
namespace {

constexpr int64_t kChunk = 32768;  // pixels

// One image, and where its part of the results is written.
template <typename T>
struct Image {
  const T* ids;
  int64_t pixels;
  int32_t* rows;
  int32_t base;  // its first row
  T* unique;
  int64_t* counts;
};

template <typename T>
void find_range(const T* ids, int64_t n, T& low, T& high) {
  T least = ids[0], most = ids[0];
#pragma omp simd reduction(min : least) reduction(max : most)
  for (int64_t i = 0; i < n; ++i) {
    least = ids[i] < least ? ids[i] : least;
    most = ids[i] > most ? ids[i] : most;
  }
  low = least, high = most;
}

// Count the ids, all in [low, low + span), in a table; returns how many there are.
template <typename T>
int64_t by_table(const Image<T>& image, T low, int64_t span, int threads) {
  const int64_t pixels = image.pixels, chunks = (pixels + kChunk - 1) / kChunk;
  // Every worker has a table of its own; all of them together stay small beside the image.
  const int64_t workers = larger(1, smaller(smaller(threads, chunks), 2 * pixels / span));
  const int64_t share = (pixels + workers - 1) / workers;
  Scratch<uint32_t> tables(workers * span);
  const auto at = [low](T id) { return static_cast<uint64_t>(id) - static_cast<uint64_t>(low); };
  parallel_for(workers, threads, [&](int64_t worker) {
    uint32_t* table = tables + worker * span;
    memset(table, 0, span * sizeof(uint32_t));
    const int64_t end = smaller((worker + 1) * share, pixels);
    for (int64_t i = worker * share; i < end;) {
      const int64_t stop = end_of_run(image.ids, i, end);
      table[at(image.ids[i])] += static_cast<uint32_t>(stop - i);
      i = stop;
    }
  });
  uint32_t* HD_RESTRICT sum = tables;
  for (int64_t worker = 1; worker < workers; ++worker) {
    const uint32_t* HD_RESTRICT table = tables + worker * span;
#pragma omp simd
    for (int64_t k = 0; k < span; ++k) sum[k] += table[k];
  }
  int64_t n = 0;
  for (int64_t k = 0; k < span; ++k) {
    if (sum[k] == 0) continue;
    image.unique[n] = static_cast<T>(static_cast<uint64_t>(low) + k);
    image.counts[n] = sum[k];
    sum[k] = static_cast<uint32_t>(image.base + n++);
  }
  parallel_for(chunks, threads, [&](int64_t chunk) {
    const int64_t begin = chunk * kChunk, end = smaller(begin + kChunk, pixels);
    const T* HD_RESTRICT id = image.ids;
    int32_t* HD_RESTRICT row = image.rows;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) row[i] = static_cast<int32_t>(sum[at(id[i])]);
  });
  return n;
}

constexpr uint64_t kSign = uint64_t{1} << 63;

// Ids as unsigned keys of the same order, and back.
template <typename T>
uint64_t to_key(T id) {
  return T(-1) < T(0) ? static_cast<uint64_t>(static_cast<int64_t>(id)) ^ kSign : static_cast<uint64_t>(id);
}
template <typename T>
T from_key(uint64_t key) {
  return static_cast<T>(T(-1) < T(0) ? key ^ kSign : key);
}

// Numbers distinct keys as they come, up to `most` of them. The keys and their pixel counts are the caller's arrays.
class Numbering {
 public:
  Numbering(uint64_t* keys, int64_t* counts, int64_t most) : keys_(keys), counts_(counts), slots_(4 * most + kFirst) {
    clear(kFirst);
  }

  int32_t operator[](uint64_t key) {
    uint64_t at = first(key);
    for (; slots_[at] >= 0; at = (at + 1) & mask_)
      if (keys_[slots_[at]] == key) return slots_[at];
    const int32_t number = static_cast<int32_t>(size++);
    slots_[at] = number;
    keys_[number] = key;
    counts_[number] = 0;
    if (2 * size > mask_) grow();
    return number;
  }

  int64_t size = 0;

 private:
  static constexpr int64_t kFirst = 256;

  uint64_t first(uint64_t key) const { return (key * 0x9e3779b97f4a7c15u) >> 32 & mask_; }
  void clear(int64_t capacity) {
    mask_ = capacity - 1;
    memset(slots_, 0xff, capacity * sizeof(int32_t));  // -1: free
  }
  void grow() {
    clear(2 * (mask_ + 1));
    for (int32_t number = 0; number < size; ++number) {
      uint64_t at = first(keys_[number]);
      while (slots_[at] >= 0) at = (at + 1) & mask_;
      slots_[at] = number;
    }
  }

  uint64_t* keys_;
  int64_t* counts_;
  Scratch<int32_t> slots_;
  int64_t mask_;
};

// Number the ids of one chunk of n pixels; returns how many there are.
template <typename T>
int64_t number_chunk(const T* ids, int64_t n, int32_t* rows, uint64_t* keys, int64_t* counts) {
  Numbering numbering(keys, counts, n);
  for (int64_t i = 0; i < n;) {
    const int64_t end = end_of_run(ids, i, n);
    const int32_t number = numbering[to_key(ids[i])];
    counts[number] += end - i;
    for (; i < end; ++i) rows[i] = number;
  }
  return numbering.size;
}

struct Entry {
  uint64_t key;
  int64_t at;  // where the chunk's number is in the image's arrays
};

// Sort by key, stably, one byte at a time. Bytes that are equal in all keys cost nothing. The result is in `entries`.
void sort(Entry* entries, int64_t n) {
  Scratch<Entry> other(n);
  Entry *from = entries, *to = other;
  uint64_t all = ~uint64_t{0}, any = 0;
  for (int64_t i = 0; i < n; ++i) all &= entries[i].key, any |= entries[i].key;
  for (int shift = 0; shift < 64; shift += 8) {
    if (((all ^ any) >> shift & 0xff) == 0) continue;
    int64_t begin[257] = {};
    for (int64_t i = 0; i < n; ++i) ++begin[(from[i].key >> shift & 0xff) + 1];
    for (int k = 0; k < 256; ++k) begin[k + 1] += begin[k];
    for (int64_t i = 0; i < n; ++i) to[begin[from[i].key >> shift & 0xff]++] = from[i];
    Entry* const swapped = from;
    from = to, to = swapped;
  }
  if (from != entries) memcpy(entries, from, n * sizeof(Entry));
}

// Number the ids, whatever they are; returns how many there are.
template <typename T>
int64_t by_hash(const Image<T>& image, int threads) {
  const int64_t pixels = image.pixels, chunks = (pixels + kChunk - 1) / kChunk;
  Scratch<uint64_t> keys(pixels);  // a chunk's numbers begin where its pixels do; most of this is never touched
  Scratch<int64_t> counts(pixels), found(chunks);
  Scratch<int32_t> final_rows(pixels);
  parallel_for(chunks, threads, [&](int64_t chunk) {
    const int64_t at = chunk * kChunk;
    found[chunk] = number_chunk(image.ids + at, smaller(kChunk, pixels - at), image.rows + at, keys + at, counts + at);
  });
  int64_t total = 0, n = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) total += found[chunk];
  Scratch<Entry> entries(total);
  for (int64_t chunk = 0, i = 0; chunk < chunks; ++chunk)
    for (int64_t at = chunk * kChunk; at < chunk * kChunk + found[chunk]; ++at) entries[i++] = {keys[at], at};
  sort(entries, total);
  for (int64_t i = 0; i < total; ++i) {
    const Entry entry = entries[i];
    if (i == 0 || entry.key != entries[i - 1].key) {
      image.unique[n] = from_key<T>(entry.key);
      image.counts[n++] = 0;
    }
    image.counts[n - 1] += counts[entry.at];
    final_rows[entry.at] = static_cast<int32_t>(image.base + n - 1);
  }
  parallel_for(chunks, threads, [&](int64_t chunk) {
    const int64_t at = chunk * kChunk, size = smaller(kChunk, pixels - at);
    const int32_t* HD_RESTRICT final_row = final_rows + at;
    int32_t* HD_RESTRICT row = image.rows + at;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) row[i] = final_row[row[i]];
  });
  return n;
}

template <typename T>
int64_t index_image(const Image<T>& image, int threads) {
  const int64_t chunks = (image.pixels + kChunk - 1) / kChunk;
  Scratch<T> lows(chunks), highs(chunks);
  parallel_for(chunks, threads, [&](int64_t chunk) {
    const int64_t at = chunk * kChunk;
    find_range(image.ids + at, smaller(kChunk, image.pixels - at), lows[chunk], highs[chunk]);
  });
  T low, high, unused;
  find_range<T>(lows, chunks, low, unused);
  find_range<T>(highs, chunks, unused, high);
  const uint64_t width = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  if (width < static_cast<uint64_t>(larger(65536, image.pixels)) && image.pixels < int64_t{1} << 31)
    return by_table(image, low, static_cast<int64_t>(width) + 1, threads);
  return by_hash(image, threads);
}

}  // namespace

void instance_index_fwd(Tensor ids, Tensor rows, Tensor offsets, Tensor unique, Tensor counts, Tensor, Tensor, Tensor,
                        int64_t, int threads) {
  const int64_t pixels = ids.shape[1] * ids.shape[2];
  int64_t* const offset = offsets.as<int64_t>();
  offset[0] = 0;
  with_integer(ids.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t b = 0; b < ids.shape[0]; ++b) {
      const int64_t base = offset[b];
      const Image<T> image = {ids.as<T>() + b * pixels,        pixels,
                              rows.as<int32_t>() + b * pixels, static_cast<int32_t>(base),
                              unique.as<T>() + base,           counts.as<int64_t>() + base};
      offset[b + 1] = base + index_image(image, threads);
    }
  });
}

}  // namespace hd::cpu
