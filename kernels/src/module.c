/* What Python calls (`unface.kernels.library`), and which instruction set answers. */
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "kernels.h"

#if X86
#include <cpuid.h>
#endif

/* In order of speed; the numbers are those of `unface.kernels.library.ISAS`. */
enum { NONE, AVX2, AVXVNNI, AVX512 };

/* Whether this machine, and the compiler that built this, have an instruction set. */
static int has(int32_t isa)
{
#if X86
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    if (isa == AVX512)
        return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return isa == AVX2 ||
           (HAS_AVXVNNI && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1));
#else
    (void)isa;
    return 0;
#endif
}

/* The fastest instruction set of this machine, `best` or a slower one. */
EXPORT int32_t unface_isa(int32_t best)
{
    int32_t isa = best < AVX512 ? best : AVX512;
    while (isa > NONE && !has(isa))
        isa--;
    return isa;
}

#if X86

#if HAS_AVXVNNI
#define INT8_AVXVNNI(call) call(int8_avxvnni)
#else
#define INT8_AVXVNNI(call) NO_ISA
#endif

#define BY_ISA(call)                                                                               \
    switch (isa) {                                                                                 \
    case AVX512:                                                                                   \
        return is_float ? call(float_avx512) : call(int8_avx512);                                  \
    case AVXVNNI:                                                                                  \
        return is_float ? call(float_avx2) : INT8_AVXVNNI(call);                                   \
    case AVX2:                                                                                     \
        return is_float ? call(float_avx2) : call(int8_avx2);                                      \
    }                                                                                              \
    return NO_ISA

/* As `scan_...` and `classify_...` in scan.h and classify.h, with `isa` as unface_isa() numbers them. */
EXPORT int64_t unface_scan(int32_t isa, int32_t is_float, const pnet *net, const picture *source,
                           int32_t width, int32_t height, int32_t first_row, int32_t row_count,
                           float lowest, hit *hits)
{
#define SCAN(suffix)                                                                               \
    scan_##suffix(net, source, width, height, first_row, row_count, lowest, hits)
    BY_ISA(SCAN);
}

EXPORT int32_t unface_classify(int32_t isa, int32_t is_float, const network *net,
                               const picture *pictures, const cut *cuts, int32_t count,
                               float *outputs)
{
#define CLASSIFY(suffix) classify_##suffix(net, pictures, cuts, count, outputs)
    BY_ISA(CLASSIFY);
}

#else /* named, for Python looks for them, and never called */
EXPORT int64_t unface_scan(void) { return NO_ISA; }
EXPORT int32_t unface_classify(void) { return NO_ISA; }
EXPORT int32_t unface_resize(void) { return NO_ISA; }
EXPORT int32_t unface_crops(void) { return NO_ISA; }
#endif

/* The library is reached through ctypes; Python only needs to find a module in the file. */
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", NULL, -1, NULL,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
