// The token loop of a MusicGen decoder on a CPU, in float32: one call draws every token of a batch.
//
// It computes the same as cached_decoder.py and stepwise_loop.py, which are the reference and run without a compiler.
// It is faster for three reasons:
// - Each thread draws a share of the sequences from the first token to the last, about sixteen at a time. The rows of a
//   batch are independent, so threads never wait for each other.
// - A step of a small model is about sixty operations of 10 to 100 microseconds; here they are function calls whose
//   intermediate results stay in the fastest cache.
// - The products with the weights keep a block of results in registers, read each weight once per step, and prefetch
//   the next weights.
//
// The order of every sum depends only on the model. So the tokens of a row are equal, to the bit, for any batch and any
// number of threads.
//
// Names of sizes: `rows` of the decoder (with guidance two per sequence, conditional rows first), `width` of the model,
// `head_size` of one attention head.

#include <atomic>
#include <thread>

#include "token_loop_worker.h"

// Approximate number of sequences that a thread draws together: one block of the products. More would not make the
// products faster, and their key and value caches would no longer fit into a near cache.
constexpr int64_t AT_ONCE = 16;

// Draws the sequences from `first` to before `end`, in pieces of about AT_ONCE. A remainder is spread over the other
// pieces; with guidance, which has two rows per sequence, only a remainder below one half.
static void draw_sequences(const Model& model, const Work& work, int64_t first, int64_t end) {
    const int64_t all = end - first;
    const int64_t pieces = std::max<int64_t>(1, (all + (work.guided ? AT_ONCE / 2 : 0)) / AT_ONCE);
    for (int64_t i = 0; i < pieces; ++i) {
        const int64_t start = first + all * i / pieces;
        Worker(model, work, start, first + all * (i + 1) / pieces - start).run();
    }
}

extern "C" {

int64_t lanes() { return LANES; }

// Returns whether there was enough memory.
int64_t draw_tokens(const Model* model, const Work* work, int64_t threads) {
    threads = std::min(threads, work->sequences);
    std::atomic<bool> enough_memory{true};
    std::vector<std::thread> pool;
    for (int64_t i = 0; i < threads; ++i)
        pool.emplace_back([=, &enough_memory] {
            try {
                draw_sequences(*model, *work, work->sequences * i / threads, work->sequences * (i + 1) / threads);
            } catch (const std::bad_alloc&) {
                enough_memory = false;
            }
        });
    for (std::thread& thread : pool) thread.join();
    return enough_memory;
}
}
