// Masks of the largest magnitudes, over threads, for any instruction set.
#pragma once

#include <array>

#include "parallel.hpp"
#include "types.hpp"

namespace tenfold {

// keep[i] is true for the `count` largest |x|, the lowest index first among equals. Returns false,
// with `keep` unset, when x holds a NaN.
//
// A radix selection from the highest digit down finds the key of the last element kept; one more
// pass marks what lies above it.
inline bool topk_mask(const InstructionSet &isa, const float *x, int64_t size, int64_t count, bool *keep,
                      int threads) {
    struct Digit {
        int shift, bits;
    };
    constexpr std::array<Digit, 3> digits{{{20, 11}, {10, 10}, {0, 10}}};
    constexpr int64_t most_digits = 1 << 11;

    const int parts = parts_for(size, size, threads);
    const auto bounds = even_bounds(size, parts);
    std::vector<int64_t> counts(parts * most_digits);
    std::vector<char> met_nan(parts);

    uint32_t prefix = 0;
    int prefix_shift = 32;
    int64_t wanted = count;
    for (const Digit digit : digits) {
        std::fill(counts.begin(), counts.end(), 0);
        in_parallel(parts, [&](int part) {
            met_nan[part] = isa.count_digits(x, bounds[part], bounds[part + 1], prefix, prefix_shift, digit.shift,
                                             (1u << digit.bits) - 1, counts.data() + part * most_digits);
        });
        for (const char nan : met_nan)
            if (nan) return false;
        int64_t value = (int64_t(1) << digit.bits) - 1;
        for (; value > 0; --value) {
            int64_t total = 0;
            for (int part = 0; part < parts; ++part) total += counts[part * most_digits + value];
            if (total >= wanted) break;
            wanted -= total;
        }
        prefix = prefix << digit.bits | uint32_t(value);
        prefix_shift = digit.shift;
    }

    std::vector<int64_t> ties(parts);
    in_parallel(parts, [&](int part) { ties[part] = isa.count_equal(x, bounds[part], bounds[part + 1], prefix); });
    for (int64_t &tie : ties) {
        tie = std::min(tie, wanted);
        wanted -= tie;
    }
    in_parallel(parts, [&](int part) {
        isa.keep_above(x, bounds[part], bounds[part + 1], prefix, ties[part], keep);
    });
    return true;
}

inline void group_norms(const InstructionSet &isa, const float *x, int64_t groups, int64_t columns, float *norms,
                        int threads) {
    const int parts = parts_for(groups * columns, groups, threads);
    const auto bounds = even_bounds(groups, parts);
    in_parallel(parts, [&](int part) { isa.group_norms(x, columns, bounds[part], bounds[part + 1], norms); });
}

}  // namespace tenfold
