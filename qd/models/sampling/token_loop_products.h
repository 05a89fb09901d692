// Products of packed rows with packed weights.

#pragma once

#include <cstdint>

#include "token_loop_arithmetic.h"

// Inputs of a product per pass: the rows and weights of a few blocks fit into the fastest cache.
constexpr int64_t DEPTH = 128;

// Packs the rows into blocks of TILE, then one block each of TILE / 2, TILE / 4, … for the remaining rows. Within a
// block, the values of one input for all rows are adjacent.
template <int ROWS>
static void pack_rows(const float* x, int64_t stride, int64_t rows, int64_t inputs, float* packed) {
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * stride, packed += ROWS * inputs)
        for (int64_t i = 0; i < inputs; ++i)
            for (int row = 0; row < ROWS; ++row) packed[i * ROWS + row] = x[row * stride + i];
    if constexpr (ROWS > 1) pack_rows<ROWS / 2>(x, stride, rows, inputs, packed);
}

// Computes a block of results, ROWS x (PANELS * LANES), in registers: each loaded weight serves all rows. The weights
// of a model do not fit into the near caches, so the next block's weights are prefetched, if there are enough rows to
// hide that.
template <bool ADD, int ROWS, int PANELS>
static void multiply_block(const float* x, const float* weight, int64_t inputs, int64_t depth, float* result,
                           int64_t stride) {
    Lanes sum[ROWS][PANELS] = {};
    for (int64_t i = 0; i < depth; ++i) {
        Lanes column[PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; ++p) {
            column[p] = at(weight + (p * inputs + i) * LANES);
            if (ROWS >= 8) __builtin_prefetch(weight + ((PANELS + p) * inputs + i) * LANES, 0, 2);
        }
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; ++p) sum[row][p] += x[i * ROWS + row] * column[p];
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; ++p) {
            Lanes& target = at(result + row * stride + p * LANES);
            target = ADD ? target + sum[row][p] : sum[row][p];
        }
}

// Multiplies a few panels of the weight with all rows: panels loaded for the first block are cached for the next.
template <bool ADD, int ROWS>
static void multiply_panels(const float* x, int64_t rows, const float* weight, int64_t panels, int64_t inputs,
                            int64_t depth, float* result, int64_t stride) {
    constexpr int PANELS = ROWS >= 16 ? 1 : ROWS == 8 ? 2 : 4;  // enough independent sums to keep the units busy
    for (; rows >= ROWS; rows -= ROWS, x += ROWS * depth, result += ROWS * stride) {
        int64_t p = 0;
        for (; p + PANELS <= panels; p += PANELS)
            multiply_block<ADD, ROWS, PANELS>(x, weight + p * inputs * LANES, inputs, depth, result + p * LANES,
                                              stride);
        for (; p < panels; ++p)
            multiply_block<ADD, ROWS, 1>(x, weight + p * inputs * LANES, inputs, depth, result + p * LANES, stride);
    }
    if constexpr (ROWS > 1) multiply_panels<ADD, ROWS / 2>(x, rows, weight, panels, inputs, depth, result, stride);
}
