// Sums and softmax over the in-edges of each node.

// Heads whose sums are kept at once.
constexpr int64_t most_heads = 16;

inline int64_t exact_sum(int8_t) { return 0; }
inline float exact_sum(float) { return 0.0f; }

template <class Index, class E>
void edge_sum(Graph<Index> graph, const E *e, int64_t heads, int64_t begin, int64_t end, float scale, float *out) {
    for (int64_t i = begin; i < end; ++i)
        for (int64_t first = 0; first < heads; first += most_heads) {
            const int64_t count = heads - first < most_heads ? heads - first : most_heads;
            decltype(exact_sum(E())) sums[most_heads] = {};
            for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) {
                const E *values = e + edge_of(graph, p) * heads + first;
                for (int64_t h = 0; h < count; ++h) sums[h] += values[h];
            }
            for (int64_t h = 0; h < count; ++h) out[i * heads + first + h] = float(sums[h]) * scale;
        }
}

// exp(x) for x <= 0 or NaN, without a branch, so that loops over it become vectors. With n the integer
// nearest to x / ln 2, exp(x) = 2^n exp(r): adding `shift` rounds to an integer and leaves n in the low
// bits, which go to the exponent; r lies in +-(ln 2) / 2, where the polynomial is right to one ulp.
inline float exp_of_negative(float x) {
    constexpr float shift = 12582912.0f, lowest = -87.0f;
    const float bounded = x < lowest ? lowest : x;
    const float shifted = bounded * 1.44269504f + shift;
    const float n = shifted - shift;
    // ln 2 in two parts, the first so short that n times it is exact.
    const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
    float power = 1.9875691e-4f;
    power = power * r + 1.3981999e-3f;
    power = power * r + 8.3334519e-3f;
    power = power * r + 4.1665796e-2f;
    power = power * r + 1.6666665e-1f;
    power = power * r + 5.0000001e-1f;
    power = power * r * r + r + 1.0f;
    uint32_t bits, exponent;
    __builtin_memcpy(&bits, &power, sizeof bits);
    __builtin_memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 23;
    __builtin_memcpy(&power, &bits, sizeof power);
    return x >= lowest ? power : x < lowest ? 0.0f : x;
}

template <class Index>
float score(Graph<Index> graph, const float *u, const float *v, int64_t heads, int64_t row, int64_t entry,
            int64_t h) {
    return u[graph.indices[entry] * heads + h] + v[row * heads + h];
}

template <class Index>
void attention(Graph<Index> graph, const float *u, const float *v, int64_t heads, float slope, int64_t begin,
               int64_t end, float *out) {
    constexpr int64_t buffered = 32;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t first = 0; first < heads; first += most_heads) {
            const int64_t count = heads - first < most_heads ? heads - first : most_heads;
            const int64_t entries_begin = graph.indptr[i], entries_end = graph.indptr[i + 1];
            float largest[most_heads], sums[most_heads] = {}, buffer[buffered * most_heads];
            for (int64_t h = 0; h < count; ++h) largest[h] = -__builtin_inff();
            for (int64_t p = entries_begin; p < entries_end; ++p)
                for (int64_t h = 0; h < count; ++h) {
                    const float z = score(graph, u, v, heads, i, p, first + h);
                    const float s = z > 0.0f ? z : slope * z;
                    largest[h] = s > largest[h] ? s : largest[h];
                    out[p * heads + first + h] = s;
                }
            for (int64_t p = entries_begin; p < entries_end; p += buffered) {
                const int64_t members = entries_end - p < buffered ? entries_end - p : buffered;
                for (int64_t k = 0; k < members; ++k)
                    for (int64_t h = 0; h < count; ++h)
                        buffer[k * count + h] = out[(p + k) * heads + first + h] - largest[h];
                for (int64_t k = 0; k < members * count; ++k) buffer[k] = exp_of_negative(buffer[k]);
                for (int64_t k = 0; k < members; ++k)
                    for (int64_t h = 0; h < count; ++h) {
                        sums[h] += buffer[k * count + h];
                        out[(p + k) * heads + first + h] = buffer[k * count + h];
                    }
            }
            for (int64_t h = 0; h < count; ++h) sums[h] = 1.0f / sums[h];
            for (int64_t p = entries_begin; p < entries_end; ++p)
                for (int64_t h = 0; h < count; ++h) out[p * heads + first + h] *= sums[h];
        }
}

template <class Index>
void attention_backward(Graph<Index> graph, const float *u, const float *v, const float *attention,
                        const float *gradient, int64_t heads, float slope, int64_t begin, int64_t end,
                        float *d_score, float *d_v) {
    for (int64_t i = begin; i < end; ++i)
        for (int64_t first = 0; first < heads; first += most_heads) {
            const int64_t count = heads - first < most_heads ? heads - first : most_heads;
            float means[most_heads] = {}, sums[most_heads] = {};
            for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p)
                for (int64_t h = 0; h < count; ++h)
                    means[h] += attention[p * heads + first + h] * gradient[p * heads + first + h];
            for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p)
                for (int64_t h = 0; h < count; ++h) {
                    const int64_t at = p * heads + first + h;
                    const float factor = score(graph, u, v, heads, i, p, first + h) > 0.0f ? 1.0f : slope;
                    d_score[at] = attention[at] * (gradient[at] - means[h]) * factor;
                    sums[h] += d_score[at];
                }
            for (int64_t h = 0; h < count; ++h) d_v[i * heads + first + h] = sums[h];
        }
}
