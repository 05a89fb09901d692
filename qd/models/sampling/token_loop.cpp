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
// `head_size` of one attention head. `token_loop.py` declares the same structs, in the same order.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#include <sys/mman.h>

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

// Approximate number of sequences that a thread draws together: one block of the products. More would not make the
// products faster, and their key and value caches would no longer fit into a near cache.
constexpr int64_t AT_ONCE = 16;
// Inputs of a product per pass: the rows and weights of a few blocks fit into the fastest cache.
constexpr int64_t DEPTH = 128;
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

// ---- Products with the weights --------------------------------------------------------------------------------------

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

// ---- One thread: its sequences, from the first step to the last -------------------------------------------------------

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

class Worker {
   public:
    Worker(const Model& model, const Work& work, int64_t first, int64_t count)
        : m(model), w(work), first(first), count(count), rows(count * (work.guided ? 2 : 1)),
          width(padded(model.width)), head_size(model.width / model.heads), value_size(padded(head_size)),
          cached(model.layers * rows * padded(work.steps) * model.heads), keys(allocate(cached * head_size)),
          values(allocate(cached * value_size)), hidden(rows * width), normed(rows * width), attended(rows * width),
          wide(rows * padded(std::max({3 * model.width, model.ffn, model.codebooks * model.tokens}))),
          packed(rows * DEPTH), scores(model.heads * padded(std::max(work.steps, work.text_length))),
          mixed(model.heads * value_size), probs(model.tokens), order(model.tokens),
          tokens(count * model.codebooks, model.tokens) {}

    void run() {
        for (int64_t step = 0; step < w.steps; ++step) {
            embed(step);
            for (int64_t layer = 0; layer < m.layers; ++layer) advance(m.layer[layer], layer, step);
            normalize(m.norm);
            if (w.guided)
                for (int64_t i = 0; i < count * width; ++i)
                    normed[i] = w.scale * normed[i] + (1.0f - w.scale) * normed[count * width + i];
            multiply<false>(normed.data(), count, m.width, m.head, m.codebooks * m.tokens, wide.data());
            for (int64_t i = 0; i < count; ++i) draw(i, step);
        }
    }

   private:
    const Model& m;
    const Work& w;
    const int64_t first, count, rows, width, head_size, value_size;  // width, value_size: padded to registers
    const int64_t cached;                                            // steps over all layers, rows and heads
    const Memory keys, values;                                       // the caches; see Cache for the layout of a row
    std::vector<float> hidden, normed, attended, wide, packed, scores, mixed, probs;
    std::vector<int64_t> order, tokens;

    // result = x W^T, or result += x W^T; rows of `result` are padded to registers. One call processes DEPTH inputs
    // after the first `done` inputs, and calls itself for the rest.
    template <bool ADD>
    void multiply(const float* x, int64_t size, int64_t inputs, const float* weight, int64_t outputs, float* result,
                  int64_t done = 0) {
        const int64_t panels = padded(outputs) / LANES, depth = std::min(DEPTH, inputs - done);
        pack_rows<TILE>(x + done, padded(inputs), size, depth, packed.data());
        for (int64_t p = 0; p < panels; p += 4)
            multiply_panels<ADD, TILE>(packed.data(), size, weight + (p * inputs + done) * LANES,
                                       std::min<int64_t>(4, panels - p), inputs, depth, result + p * LANES,
                                       padded(outputs));
        if (done + depth < inputs) multiply<true>(x, size, inputs, weight, outputs, result, done + depth);
    }

    // Row of the condition for a row of this worker.
    int64_t condition_row(int64_t row) const { return row < count ? first + row : w.sequences + first + row - count; }

    void embed(int64_t step) {
        for (int64_t row = 0; row < rows; ++row) {
            float* sum = &hidden[row * width];
            std::copy_n(m.positions + step * m.width, m.width, sum);
            for (int64_t book = 0; book < m.codebooks; ++book) {
                const int64_t token = tokens[row % count * m.codebooks + book];
                const float* vector = m.embeddings + (book * (m.tokens + 1) + token) * m.width;
                for (int64_t i = 0; i < m.width; ++i) sum[i] += vector[i];
            }
        }
    }

    void advance(const Layer& layer, int64_t index, int64_t step) {
        normalize(layer.self_norm);
        multiply<false>(normed.data(), rows, m.width, layer.qkv, 3 * m.width, wide.data());
        for (int64_t row = 0; row < rows; ++row) {
            const float* qkv = &wide[row * padded(3 * m.width)];
            const Cache cache = store(index, row, step, qkv + m.width, qkv + 2 * m.width);
            attend(qkv, cache, step + 1, nullptr, &attended[row * width]);
        }
        multiply<true>(attended.data(), rows, m.width, layer.out, m.width, hidden.data());

        // Without a negative prompt, the text values of the negative rows are zeros, so attention would add zeros.
        const int64_t attending = w.guided && !w.negative_text ? count : rows;
        normalize(layer.text_norm);
        multiply<false>(normed.data(), attending, m.width, layer.text_query, m.width, wide.data());
        const int64_t length = padded(w.text_length);
        for (int64_t row = 0; row < attending; ++row) {
            const int64_t prompt = condition_row(row) / w.samples, before = prompt * m.heads * length;
            const Cache text{layer.text_keys + before * head_size, layer.text_values + before * value_size};
            attend(&wide[row * width], text, w.text_length, w.text_bias + prompt * length, &attended[row * width]);
        }
        multiply<true>(attended.data(), attending, m.width, layer.text_out, m.width, hidden.data());

        normalize(layer.ffn_norm);
        multiply<false>(normed.data(), rows, m.width, layer.fc1, m.ffn, wide.data());
        for (int64_t i = 0; i < rows * padded(m.ffn); ++i) wide[i] = gelu(wide[i]);
        multiply<true>(wide.data(), rows, m.ffn, layer.fc2, m.width, hidden.data());
    }

    // normed = (hidden - mean) / deviation * weight + bias
    void normalize(const Norm& norm) {
        for (int64_t row = 0; row < rows; ++row) {
            const float* x = &hidden[row * width];
            float* result = &normed[row * width];
            float mean = 0, variance = 0;
#pragma omp simd reduction(+ : mean)
            for (int64_t i = 0; i < m.width; ++i) mean += x[i];
            mean /= m.width;
#pragma omp simd reduction(+ : variance)
            for (int64_t i = 0; i < m.width; ++i) variance += (x[i] - mean) * (x[i] - mean);
            const float scale = 1.0f / std::sqrt(variance / m.width + m.epsilon);
            for (int64_t i = 0; i < m.width; ++i) result[i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i];
        }
    }

    // Stores the key and value of a row at a step, and returns the row's cache.
    Cache store(int64_t layer, int64_t row, int64_t step, const float* key, const float* value) {
        const int64_t before = (layer * rows + row) * padded(w.steps) * m.heads;
        float *keys = this->keys.get() + before * head_size, *values = this->values.get() + before * value_size;
        if (step % LANES == 0)  // values with weight 0 must not be NaN
            std::fill_n(values + step * m.heads * value_size, LANES * m.heads * value_size, 0.0f);
        for (int64_t head = 0; head < m.heads; ++head, key += head_size, value += head_size) {
            const int64_t block = (step / LANES * m.heads + head) * LANES, lane = step % LANES;
            for (int64_t i = 0; i < head_size; ++i) keys[block * head_size + i * LANES + lane] = key[i];
            std::copy_n(value, head_size, values + (block + lane) * value_size);
        }
        return {keys, values};
    }

    // softmax(query keys^T + bias) values for one row, with a pre-scaled query.
    void attend(const float* query, Cache cache, int64_t steps, const float* bias, float* result) {
        const int64_t size = padded(steps);
        for (int64_t t = 0; t < size; t += LANES)
            for (int64_t head = 0; head < m.heads; ++head) {
                const float *q = query + head * head_size, *keys = cache.keys + (t * m.heads + head * LANES) * head_size;
                Lanes sum[2] = {};  // two independent sums
                for (int64_t i = 0; i < head_size; ++i) sum[i % 2] += q[i] * at(keys + i * LANES);
                at(&scores[head * size + t]) = sum[0] + sum[1];
            }
        for (int64_t head = 0; head < m.heads; ++head) {
            float* x = &scores[head * size];
            if (bias)
                for (int64_t t = 0; t < steps; ++t) x[t] += bias[t];
            std::fill(x + steps, x + size, NEVER);
            const float scale = 1.0f / softmax(x, size);
            for (int64_t t = 0; t < size; ++t) x[t] *= scale;
        }
        std::fill(mixed.begin(), mixed.end(), 0.0f);
        for (int64_t t = 0; t < size; t += LANES)
            for (int64_t head = 0; head < m.heads; ++head) {
                const float* x = &scores[head * size + t];
                const float* values = cache.values + (t * m.heads + head * LANES) * value_size;
                for (int64_t i = 0; i < value_size; i += LANES) {
                    Lanes sum[2] = {};
                    for (int j = 0; j < LANES; ++j) sum[j % 2] += x[j] * at(values + j * value_size + i);
                    at(&mixed[head * value_size + i]) += sum[0] + sum[1];
                }
            }
        for (int64_t head = 0; head < m.heads; ++head)
            std::copy_n(&mixed[head * value_size], head_size, result + head * head_size);
    }

    // Turns scores into e^(score - largest), and returns their sum.
    static float softmax(float* x, int64_t size) {
        const float largest = greatest(x, size);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < size; ++i) sum += x[i] = exponential(x[i] - largest);
        return sum;
    }

    // Draws the tokens of a sequence at one step from its logits.
    void draw(int64_t index, int64_t step) {
        const int64_t sequence = first + index;
        for (int64_t book = 0; book < m.codebooks; ++book) {
            const int64_t place = (sequence * m.codebooks + book) * w.steps + step;
            int64_t& token = tokens[index * m.codebooks + book];
            if (!w.real[book * w.steps + step]) {
                w.delayed[place] = token = m.tokens;  // the pad
                continue;
            }
            float* logits = &wide[index * padded(m.codebooks * m.tokens) + book * m.tokens];
            const float inverse = w.inverse_temperature[sequence];
            float broken = 0;  // NaN if a logit is infinite or NaN, as after a diverged training
#pragma omp simd reduction(+ : broken)
            for (int64_t i = 0; i < m.tokens; ++i) broken += 0.0f * (logits[i] *= inverse);
            if (std::isnan(broken)) {  // NaN has no order, so neither sorting nor a running sum can select a token
                w.delayed[place] = token = 0;
                w.log_probs[place] = broken;
                w.entropy[sequence] += broken;
                continue;
            }
            truncate(logits);
            const float largest = greatest(logits, m.tokens);
            token = w.greedy ? std::find(logits, logits + m.tokens, largest) - logits : 0;
            probs.assign(logits, logits + m.tokens);
            const float total = softmax(probs.data(), m.tokens), log_total = std::log(total);
            if (!w.greedy) token = pick(w.uniforms[(step * w.sequences + sequence) * m.codebooks + book] * total);
            float mean = 0;
#pragma omp simd reduction(+ : mean)
            for (int64_t i = 0; i < m.tokens; ++i) mean += probs[i] * (logits[i] - largest);
            w.delayed[place] = token;
            w.log_probs[place] = logits[token] - largest - log_total;
            w.entropy[sequence] += log_total - mean / total;
        }
    }

    // The first token at which the running sum of probabilities reaches the threshold; never one of probability 0.
    int64_t pick(float threshold) const {
        float sum = 0;
        for (int64_t start = 0; start < m.tokens; start += LANES) {
            const int64_t end = std::min(start + LANES, m.tokens);
            const float whole = std::accumulate(&probs[start], &probs[end], 0.0f);
            float part = sum;
            if (sum + whole >= threshold)
                for (int64_t i = start; i < end; ++i) {
                    part += probs[i];
                    if (probs[i] > 0 && part >= threshold) return i;
                }
            sum += whole;
        }
        return std::find_if(probs.rbegin(), probs.rend(), [](float p) { return p > 0; }).base() - probs.begin() - 1;
    }

    // Excludes tokens outside the `top_k` likeliest, and then outside the top `top_p` of probability.
    void truncate(float* logits) {
        if (w.top_k < m.tokens) {
            probs.assign(logits, logits + m.tokens);
            std::nth_element(probs.begin(), probs.begin() + w.top_k - 1, probs.end(), std::greater<float>());
            for (int64_t i = 0; i < m.tokens; ++i)
                if (logits[i] < probs[w.top_k - 1]) logits[i] = NEVER;
        }
        if (w.top_p >= 1) return;
        probs.assign(logits, logits + m.tokens);
        const float total = softmax(probs.data(), m.tokens);
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
        float before = 0;
        for (const int64_t token : order) {
            const float reached = before;
            before += probs[token] / total;
            if (reached >= w.top_p) logits[token] = NEVER;
        }
    }
};

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
