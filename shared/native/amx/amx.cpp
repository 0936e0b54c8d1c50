// AVX-512 with VNNI and AMX: one instruction multiplies tiles of 16 x 64 and 64 x 16 bytes.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../types.hpp"

namespace tenfold {
namespace {

#include "../avx512/simd.hpp"

// What the tile registers hold: 16 rows of 64 bytes in all of them. A library that shares the thread may
// rely on its own settings, and gets them back.
class Tiles {
public:
    Tiles() {
        _tile_storeconfig(before);
        alignas(64) uint8_t settings[64] = {};
        settings[0] = 1;
        for (int tile = 0; tile < 8; ++tile) {
            settings[16 + 2 * tile] = 64;
            settings[48 + tile] = 16;
        }
        _tile_loadconfig(settings);
    }
    ~Tiles() { _tile_loadconfig(before); }

private:
    alignas(64) uint8_t before[64];
};

struct Simd : Avx512 {
    using Operand = int8_t;
    static constexpr int group = 4;
    static constexpr int tile_rows = 32;
    static constexpr int tile_vectors = 2;
    static constexpr int step_unit = 16;
    static constexpr int block_terms = 2048;
    static constexpr bool has_tiles = true;
    using TileSettings = Tiles;

    // Two tiles of rows by one or two of columns.
    template <int vectors>
    static void multiply_tile(const int8_t *rows, int64_t row_stride, const int8_t *columns, int64_t steps,
                              int32_t *sums) {
        constexpr int column_stride = tile_vectors * width * group;
        constexpr int sum_stride = tile_vectors * width * sizeof(int32_t);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t step = 0; step < steps; step += step_unit) {
            _tile_loadd(4, rows, row_stride);
            _tile_loadd(5, rows + 16 * row_stride, row_stride);
            _tile_loadd(6, columns, column_stride);
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 5, 6);
            if constexpr (vectors == 2) {
                _tile_loadd(7, columns + 64, column_stride);
                _tile_dpbssd(2, 4, 7);
                _tile_dpbssd(3, 5, 7);
            }
            rows += step_unit * group;
            columns += step_unit * column_stride;
        }
        _tile_stored(0, sums, sum_stride);
        _tile_stored(1, sums + 16 * tile_vectors * width, sum_stride);
        if constexpr (vectors == 2) {
            _tile_stored(2, sums + width, sum_stride);
            _tile_stored(3, sums + 16 * tile_vectors * width + width, sum_stride);
        }
    }
};

// A process must ask Linux for the tile registers, since they enlarge what a signal handler finds on its stack.
bool may_use_tiles() {
    constexpr int request = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("amx-tile") &&
           __builtin_cpu_supports("amx-int8") && may_use_tiles();
}

#include "../generic/instruction_set.hpp"

}  // namespace

extern const InstructionSet amx = instruction_set("amx", supported);

}  // namespace tenfold
