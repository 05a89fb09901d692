// One thread of the token loop: its sequences, from the first step to the last.

#pragma once

#include <functional>
#include <numeric>
#include <vector>

#include "token_loop_data.h"
#include "token_loop_products.h"

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
                const float* q = query + head * head_size;
                const float* keys = cache.keys + (t * m.heads + head * LANES) * head_size;
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
