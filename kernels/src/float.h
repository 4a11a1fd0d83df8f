/* FP32 on vectors of any width: a word is one channel. */
#include <string.h>

#define PACKED 1

typedef floats stored;
typedef floats total;
typedef floats activation;
typedef floats weight;

FN stored load(const void *at) { return load_floats(at); }
FN void store(void *at, stored v) { store_floats(at, v); }
FN total start(int32_t v) { return set_floats((float)v); }
FN activation as_activation(stored v) { return v; }
FN total most(total a, total b) { return greater(a, b); }
FN total least(total a, total b) { return lesser(a, b); }
FN stored most_stored(stored a, stored b) { return greater(a, b); }
FN floats to_floats(total v) { return v; }
FN total dot(total sum, activation a, weight w) { return add_product(sum, a, w); }

FN weight as_weight(const int32_t *w)
{
    float value;
    memcpy(&value, w, sizeof value);
    return set_floats(value);
}

FN floats channel_floats(const void *at, int channel)
{
    (void)channel;
    return load(at);
}

FN void keep_pixels(void *at, ptrdiff_t vector_step, const uint32_t *from)
{
    integers pixels = load_integers(from);
    for (int channel = 0; channel < 3; channel++)
        store((char *)at + channel * vector_step, word_bytes(pixels, channel));
}

FN void keep(void *at, ptrdiff_t vector_step, const floats *y, float zero)
{
    (void)zero;
    for (int n = 0; n < 4; n++)
        store((char *)at + n * vector_step, y[n]);
}
