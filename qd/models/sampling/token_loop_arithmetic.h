// Vectors of floats, and elementary functions that a compiler can vectorise.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE = 16;  // floats per register; maximum rows of a block of results, one register per row
#elif defined(__AVX__)
constexpr int LANES = 8, TILE = 8;
#else
constexpr int LANES = 4, TILE = 8;
#endif
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));

static inline const Lanes& at(const float* x) { return *reinterpret_cast<const Lanes*>(x); }
static inline Lanes& at(float* x) { return *reinterpret_cast<Lanes*>(x); }

static int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

// e^x to 2 units in the last place, in operations that a compiler can vectorise (Cephes' polynomial).
static inline float exponential(float x) {
    const float clamped = std::max(x, -87.0f);
    const float whole = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23 rounds to an integer
    const float rest = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : sum * power;
}

// The largest number; vectorised by hand, because NaN rules keep a compiler from doing so.
static inline float greatest(const float* x, int64_t size) {
    if (size < LANES) return *std::max_element(x, x + size);
    Lanes most = at(x + size - LANES);
    for (int64_t i = 0; i + LANES <= size; i += LANES) most = at(x + i) > most ? at(x + i) : most;
    float result = most[0];
    for (int i = 1; i < LANES; ++i) result = std::max(result, most[i]);
    return result;
}

// x Φ(x), with the error function to 1.5e-7 (Abramowitz and Stegun 7.1.26).
static inline float gelu(float x) {
    const float z = std::fabs(x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    float tail = 1.061405429f;
    tail = tail * t - 1.453152027f;
    tail = tail * t + 1.421413741f;
    tail = tail * t - 0.284496736f;
    tail = tail * t + 0.254829592f;
    tail *= 0.5f * t * exponential(-z * z);
    return x * (x < 0 ? tail : 1.0f - tail);
}
