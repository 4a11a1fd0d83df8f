/* All kernels, one unit of compilation. */
#include "crops.cu"
#include "pnet.cu"
#include "pyramid.cu"
#include "suppress.cu"
