/* INT8 on vectors of any width: a word is four channels. */
#define PACKED 4

typedef integers stored;
typedef integers total;

FN stored load(const void *at) { return load_integers(at); }
FN void store(void *at, stored v) { store_integers(at, v); }
FN floats channel_floats(const void *at, int channel) { return word_bytes(load(at), channel); }

/* Pixels come as words R, G, B, 0: as they are wanted. */
FN void keep_pixels(void *at, ptrdiff_t vector_step, const uint32_t *from)
{
    (void)vector_step;
    store(at, load(from));
}
