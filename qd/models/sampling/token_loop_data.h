// The arguments of the token loop, and the memory of its caches. `token_loop.py` declares the same structs as
// Norm, Layer, Model and Work, in the same order.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include <sys/mman.h>

constexpr float NEVER = -1e30f;  // a score whose probability is 0

struct Norm {
    const float *weight, *bias;
};

// Weights in the layout of `_pack` in token_loop.py: (outputs / LANES, inputs, LANES), the last panel zero-padded.
struct Layer {
    Norm self_norm, text_norm, ffn_norm;
    const float *qkv, *out, *text_query, *text_out, *fc1, *fc2;
    const float *text_keys, *text_values;  // of each prompt, in the layout of a row's cache
};

struct Model {
    int64_t layers, width, heads, ffn, codebooks, tokens;
    float epsilon;
    const Layer* layer;
    Norm norm;
    const float *embeddings, *positions, *head;  // (codebooks * (tokens + 1), width), (steps, width), packed
};

struct Work {
    int64_t sequences, steps, samples, text_length, guided, negative_text, greedy, top_k;
    float top_p, scale;
    const float* text_bias;            // (prompts, text_length padded to registers): 0 or NEVER
    const float* inverse_temperature;  // (sequences)
    const float* uniforms;             // (steps, sequences, codebooks)
    const uint8_t* real;               // (codebooks, steps)
    int64_t* delayed;                  // (sequences, codebooks, steps)
    float* log_probs;                  // (sequences, codebooks, steps)
    double* entropy;                   // (sequences), summed over the real tokens
};

struct Free {
    void operator()(float* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<float[], Free>;

// Uninitialised memory; the system provides pages at the first write, large ones if it supports them.
static Memory allocate(int64_t floats) {
    constexpr size_t PAGE = 2 << 20;
    const size_t bytes = (floats * sizeof(float) + PAGE - 1) / PAGE * PAGE;
    void* memory = std::aligned_alloc(PAGE, bytes);
    if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return Memory(static_cast<float*>(memory));
}

// The data that attention reads of a row, in blocks of LANES steps, so that memory is read sequentially: keys
// (steps / LANES, heads, head_size, LANES), whose products give LANES scores at once; values (steps / LANES, heads,
// LANES, head_size padded to registers).
struct Cache {
    const float *keys, *values;
};
