/* A libnvidia-ml of two GPUs: a busy one, and one that has fallen off the bus unless it is asked
   as a part of a GPU (PARTS), which has memory but no utilisation. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_DRIVER = 9, GPU_IS_LOST = 15 };

typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned long long total, free, used; } memory_t;

static int devices[2];

int nvmlInitWithFlags(unsigned flags) { (void)flags; return getenv("NO_DRIVER") ? NO_DRIVER : OK; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
const char *nvmlErrorString(int code) { (void)code; return "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **device)
{
    if (index == 1 && !getenv("PARTS"))
        return GPU_IS_LOST;
    *device = &devices[index];
    return OK;
}

int nvmlDeviceGetName(int *device, char *name, unsigned length)
{
    strncpy(name, device == devices ? "NVIDIA H200" : "NVIDIA H200 MIG 1g.18gb", length);
    return OK;
}

int nvmlDeviceGetUtilizationRates(int *device, utilization_t *rates)
{
    if (device != devices)
        return NOT_SUPPORTED;
    rates->gpu = 37;
    rates->memory = 12;
    return OK;
}

int nvmlDeviceGetMemoryInfo(int *device, memory_t *memory)
{
    memory->total = device == devices ? 150000000000ULL : 18000000000ULL;
    memory->used = 5000000000ULL;
    memory->free = memory->total - memory->used;
    return OK;
}
