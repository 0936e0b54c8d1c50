// Splits work over threads. OpenMP because torch, always imported first, has loaded a libgomp under
// the same name: both then share one pool of threads. Every part writes its own outputs in a fixed
// order, so results do not depend on the number of parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tenfold {

// Below this many multiply-adds for each thread, waking it costs more than it saves.
constexpr int64_t least_work = 16384;

inline int parts_for(int64_t work, int64_t tasks, int threads) {
    return int(std::max<int64_t>(1, std::min({int64_t(threads), tasks, work / least_work})));
}

template <class Function>
void in_parallel(int parts, Function &&function) {
    if (parts == 1) {
        function(0);
        return;
    }
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int part = 0; part < parts; ++part) function(part);
}

// Bounds of `parts` even ranges of [0, size).
inline std::vector<int64_t> even_bounds(int64_t size, int parts) {
    std::vector<int64_t> bounds(parts + 1);
    for (int part = 0; part <= parts; ++part) bounds[part] = size * part / parts;
    return bounds;
}

// Bounds of ranges of rows that hold about the same number of entries.
template <class Index>
std::vector<int64_t> balanced_bounds(const Index *crow, int64_t rows, int parts) {
    std::vector<int64_t> bounds(parts + 1);
    for (int part = 0; part <= parts; ++part) {
        const int64_t entries = int64_t(crow[rows]) * part / parts;
        bounds[part] = std::lower_bound(crow, crow + rows, Index(entries)) - crow;
    }
    bounds[0] = 0;
    bounds[parts] = rows;
    return bounds;
}

}  // namespace tenfold
