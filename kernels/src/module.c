/* What Python calls (`unface.kernels.library`), and which instruction set answers. */
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#define X86 1
#else
#define X86 0
#endif

/* In order of speed; the numbers are those of `unface.kernels.library.ISAS`. */
enum { NONE, AVX2, AVXVNNI, AVX512 };

static int has_avx_vnni(void)
{
#if X86
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#else
    return 0;
#endif
}

/* The fastest instruction set of this machine. */
EXPORT int32_t unface_isa(void)
{
#if X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return NONE;
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    return has_avx_vnni() ? AVXVNNI : AVX2;
#else
    return NONE;
#endif
}

/* As `scan_...` and `classify_...` in network.h, with `isa` as unface_isa() numbers them. */
EXPORT int64_t unface_scan(int32_t isa, int32_t is_float, const pnet *net, const picture *source,
                    int32_t width, int32_t height, int32_t first_row, int32_t row_count,
                    float lowest, hit *hits)
{
#define SCAN(suffix) \
    scan_##suffix(net, source, width, height, first_row, row_count, lowest, hits)
#if X86
    if (is_float)
        return isa == AVX512 ? SCAN(float_avx512) : SCAN(float_avx2);
    return isa == AVX512    ? SCAN(int8_avx512)
           : isa == AVXVNNI ? SCAN(int8_avxvnni)
                            : SCAN(int8_avx2);
#else
    return NO_ISA;
#endif
}

EXPORT int32_t unface_classify(int32_t isa, int32_t is_float, const network *net, const picture *pictures,
                        const cut *cuts, int32_t count, float *outputs)
{
#define CLASSIFY(suffix) classify_##suffix(net, pictures, cuts, count, outputs)
#if X86
    if (is_float)
        return isa == AVX512 ? CLASSIFY(float_avx512) : CLASSIFY(float_avx2);
    return isa == AVX512    ? CLASSIFY(int8_avx512)
           : isa == AVXVNNI ? CLASSIFY(int8_avxvnni)
                            : CLASSIFY(int8_avx2);
#else
    return NO_ISA;
#endif
}

/* The library is reached through ctypes; Python only needs to find a module in the file. */
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernels", NULL, -1, NULL,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
