/* All kernels, one unit of compilation. */
#include "crops.cu"
#include "masks.cu"
#include "engines.cu"
#include "pnet.cu"
#include "pyramid.cu"
#include "suppress.cu"
