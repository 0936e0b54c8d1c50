// Values of edges: of their ends' values, their sums and their softmax over the in-edges of each node.

// Heads whose sums are kept at once.
constexpr int64_t most_heads = 16;

// What sums of a type are kept in.
inline int64_t exact_sum(int8_t);
inline float exact_sum(float);

// Calls function<heads> for the usual numbers of heads, so that the compiler unrolls loops over them,
// and function<0> for any other.
#define TENFOLD_BY_HEADS(heads, function, ...)           \
    switch (heads) {                                     \
        case 1: return function<1>(__VA_ARGS__);         \
        case 2: return function<2>(__VA_ARGS__);         \
        case 4: return function<4>(__VA_ARGS__);         \
        case 8: return function<8>(__VA_ARGS__);         \
        default: return function<0>(__VA_ARGS__);        \
    }

// Calls function(first head, count) for heads whose sums are kept at once.
template <int fixed, class Function>
void by_heads(int64_t heads, Function function) {
    if (fixed) return function(0, fixed);
    for (int64_t first = 0; first < heads; first += most_heads)
        function(first, heads - first < most_heads ? heads - first : most_heads);
}

template <int fixed, class Index, class U, class V>
void u_add_v_of(Graph<Index> graph, const U *u, const V *v, int64_t any, int64_t begin, int64_t end, float u_scale,
                float v_scale, float *out) {
    const int64_t heads = fixed ? fixed : any;
    for (int64_t i = begin; i < end; ++i)
        for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) {
            const U *source = u + graph.indices[p] * heads;
            const V *destination = v + i * heads;
            float *target = out + edge_of(graph, p) * heads;
            for (int64_t h = 0; h < heads; ++h)
                target[h] = float(source[h]) * u_scale + float(destination[h]) * v_scale;
        }
}

template <class Index, class U, class V>
void u_add_v(Graph<Index> graph, const U *u, const V *v, int64_t heads, int64_t begin, int64_t end, float u_scale,
             float v_scale, float *out) {
    TENFOLD_BY_HEADS(heads, u_add_v_of, graph, u, v, heads, begin, end, u_scale, v_scale, out);
}

template <int fixed, class Index, class E>
void edge_sum_of(Graph<Index> graph, const E *e, int64_t any, int64_t begin, int64_t end, float scale, float *out) {
    const int64_t heads = fixed ? fixed : any;
    for (int64_t i = begin; i < end; ++i)
        by_heads<fixed>(heads, [&](int64_t first, int64_t count) {
            decltype(exact_sum(E())) sums[most_heads] = {};
            for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) {
                if (graph.edge_ids) __builtin_prefetch(e + edge_of(graph, entry_ahead(graph, p)) * heads + first);
                const E *values = e + edge_of(graph, p) * heads + first;
                for (int64_t h = 0; h < count; ++h) sums[h] += values[h];
            }
            for (int64_t h = 0; h < count; ++h) out[i * heads + first + h] = float(sums[h]) * scale;
        });
}

template <class Index, class E>
void edge_sum(Graph<Index> graph, const E *e, int64_t heads, int64_t begin, int64_t end, float scale, float *out) {
    TENFOLD_BY_HEADS(heads, edge_sum_of, graph, e, heads, begin, end, scale, out);
}

inline uint32_t bits_of(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

// All ones where `large` exceeds `small`, both below 2^31. Choices by masks, unlike those by comparisons,
// are never turned into branches, which would keep loops from becoming vectors.
inline uint32_t exceeds(uint32_t large, uint32_t small) { return int32_t(small - large) >> 31; }

// exp(x) for x <= 0 or NaN. With n the integer nearest to x / ln 2, exp(x) = 2^n exp(r): adding `shift`
// rounds to an integer and leaves n in the low bits, from where it goes to the exponent of a factor; r
// lies in +-(ln 2) / 2, where the polynomial is right to one ulp. Below -87 the factor is zero.
inline float exp_of_negative(float x) {
    constexpr float shift = 12582912.0f;
    const uint32_t key = magnitude_key(x), limit = bits_of(87.0f);
    const uint32_t below = exceeds(key, limit), nan = exceeds(key, 0x7f800000u);
    const float bounded = -float_of(key + ((limit - key) & below));
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
    return power * float_of((((bits_of(shifted) << 23) + bits_of(1.0f)) & ~below) | nan);
}

inline float leaky_relu(float z, float slope) {
    const uint32_t negative = int32_t(bits_of(z)) >> 31;
    return z * float_of((bits_of(slope) & negative) | (bits_of(1.0f) & ~negative));
}

// Entries of a row whose values lie side by side in a buffer, for loops that become whole vectors and,
// unlike one over a few heads, no branches, which would be mispredicted every other time.
constexpr int64_t buffered = 32;

// buffer = u + v for the entries from `begin`.
template <class Index>
void add_ends(Graph<Index> graph, const float *u, const float *v, int64_t heads, int64_t count, int64_t row,
              int64_t begin, int64_t members, float *buffer) {
    for (int64_t k = 0; k < members; ++k) {
        __builtin_prefetch(u + graph.indices[entry_ahead(graph, begin + k)] * heads);
        const float *source = u + graph.indices[begin + k] * heads;
        for (int64_t h = 0; h < count; ++h) buffer[k * count + h] = source[h] + v[row * heads + h];
    }
}

template <int fixed, class Index>
void attention_of(Graph<Index> graph, const float *u, const float *v, int64_t any, float slope, int64_t begin,
                  int64_t end, float *out) {
    const int64_t heads = fixed ? fixed : any;
    for (int64_t i = begin; i < end; ++i)
        by_heads<fixed>(heads, [&](int64_t first, int64_t count) {
            const int64_t last = graph.indptr[i + 1];
            float largest[most_heads], sums[most_heads] = {}, buffer[buffered * most_heads];
            for (int64_t h = 0; h < count; ++h) largest[h] = -__builtin_inff();
            for (int64_t p = graph.indptr[i]; p < last; p += buffered) {
                const int64_t members = last - p < buffered ? last - p : buffered;
                float *targets = out + p * heads + first;
                add_ends(graph, u + first, v + first, heads, count, i, p, members, buffer);
                for (int64_t k = 0; k < members * count; ++k) buffer[k] = leaky_relu(buffer[k], slope);
                for (int64_t k = 0; k < members; ++k)
                    for (int64_t h = 0; h < count; ++h) {
                        const float score = buffer[k * count + h];
                        largest[h] = score > largest[h] ? score : largest[h];
                        targets[k * heads + h] = score;
                    }
            }
            for (int64_t p = graph.indptr[i]; p < last; p += buffered) {
                const int64_t members = last - p < buffered ? last - p : buffered;
                float *targets = out + p * heads + first;
                for (int64_t k = 0; k < members; ++k)
                    for (int64_t h = 0; h < count; ++h) buffer[k * count + h] = targets[k * heads + h] - largest[h];
                for (int64_t k = 0; k < members * count; ++k) buffer[k] = exp_of_negative(buffer[k]);
                for (int64_t k = 0; k < members; ++k)
                    for (int64_t h = 0; h < count; ++h) {
                        sums[h] += buffer[k * count + h];
                        targets[k * heads + h] = buffer[k * count + h];
                    }
            }
            for (int64_t h = 0; h < count; ++h) sums[h] = 1.0f / sums[h];
            for (int64_t p = graph.indptr[i]; p < last; ++p)
                for (int64_t h = 0; h < count; ++h) out[p * heads + first + h] *= sums[h];
        });
}

template <class Index>
void attention(Graph<Index> graph, const float *u, const float *v, int64_t heads, float slope, int64_t begin,
               int64_t end, float *out) {
    TENFOLD_BY_HEADS(heads, attention_of, graph, u, v, heads, slope, begin, end, out);
}

template <int fixed, class Index>
void attention_backward_of(Graph<Index> graph, const float *u, const float *v, const float *attention,
                           const float *gradient, int64_t any, float slope, int64_t begin, int64_t end,
                           float *d_score, float *d_v) {
    const int64_t heads = fixed ? fixed : any;
    for (int64_t i = begin; i < end; ++i)
        by_heads<fixed>(heads, [&](int64_t first, int64_t count) {
            const int64_t last = graph.indptr[i + 1];
            float means[most_heads] = {}, sums[most_heads] = {}, buffer[buffered * most_heads];
            for (int64_t p = graph.indptr[i]; p < last; ++p)
                for (int64_t h = 0; h < count; ++h)
                    means[h] += attention[p * heads + first + h] * gradient[p * heads + first + h];
            for (int64_t p = graph.indptr[i]; p < last; p += buffered) {
                const int64_t members = last - p < buffered ? last - p : buffered;
                add_ends(graph, u + first, v + first, heads, count, i, p, members, buffer);
                for (int64_t k = 0; k < members * count; ++k) buffer[k] = buffer[k] > 0.0f ? 1.0f : slope;
                for (int64_t k = 0; k < members; ++k)
                    for (int64_t h = 0; h < count; ++h) {
                        const int64_t at = (p + k) * heads + first + h;
                        const float d_z = attention[at] * (gradient[at] - means[h]) * buffer[k * count + h];
                        d_score[at] = d_z;
                        sums[h] += d_z;
                    }
            }
            for (int64_t h = 0; h < count; ++h) d_v[i * heads + first + h] = sums[h];
        });
}

template <class Index>
void attention_backward(Graph<Index> graph, const float *u, const float *v, const float *attention,
                        const float *gradient, int64_t heads, float slope, int64_t begin, int64_t end,
                        float *d_score, float *d_v) {
    TENFOLD_BY_HEADS(heads, attention_backward_of, graph, u, v, attention, gradient, heads, slope, begin, end,
                     d_score, d_v);
}
