/* As much of NVIDIA's driver (libcuda.so.1) as unface asks for, over the simulator of `cuda_on_cpu.h`: the
 * real cuda-core and cuda-bindings call it, so that the code between them and the cascade runs without
 * a GPU. One device; everything is done at once; what a stream records runs when its graph is launched.
 *
 * `fail_after(n)` lets the n-th call from now on, and all after it, return `CUDA_ERROR_UNKNOWN`, as a
 * device that was lost does; `set_version` and `set_capability` make driver and card others. Functions that
 * nobody asked for yet are not there.
 *
 * `launches[]` (name, number of int arguments) is made from the kernels' source. */
#pragma once
#include <dlfcn.h>
#include <time.h>

#include <functional>

#define API extern "C" __attribute__((visibility("default"))) int

struct Launchable {
    const char *name;
    kernel function;
    int numbers; /* int arguments after the pointer */
};
extern Launchable launches[];
extern const int launchable;

namespace driver {

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_READY = 600, UNKNOWN = 999 };
typedef std::vector<std::function<void()>> Work;
struct Stream {
    int priority;
    Work *recording;
};
static long calls_left = -1, memory_left = 1L << 40, calls;
static int version = 13000, capability = 90;
static Stream default_stream;
static int context, hanging;

/* Counts a call; whether it is to fail. */
static int count()
{
    calls++;
    if (calls_left > 0)
        calls_left--;
    return calls_left == 0 ? UNKNOWN : SUCCESS;
}
#define CALL()                                                                                          \
    if (int failure = driver::count())                                                                  \
        return failure

static int run(Stream *stream, std::function<void()> work)
{
    stream = stream ? stream : &default_stream;
    if (stream->recording)
        stream->recording->push_back(work);
    else
        work();
    return SUCCESS;
}
} // namespace driver

using driver::SUCCESS;

API fail_after(long calls) { return driver::calls_left = calls, 0; }
API limit_memory(long bytes) { return driver::memory_left = bytes, 0; }
API set_version(int version) { return driver::version = version, 0; }
API set_capability(int tens) { return driver::capability = tens, 0; }
API count_calls() { return (int)driver::calls; }

API cuInit(unsigned) { CALL(); return SUCCESS; }
API cuDriverGetVersion(int *version) { CALL(); return *version = driver::version, SUCCESS; }
API cuDeviceGetCount(int *count) { CALL(); return *count = 1, SUCCESS; }
API cuDeviceGet(int *device, int) { CALL(); return *device = 0, SUCCESS; }
API cuDeviceGetName(char *name, int size, int)
{
    CALL();
    return snprintf(name, size, "Simulated GPU"), SUCCESS;
}
API cuDeviceGetAttribute(int *value, int attribute, int)
{
    CALL();
    switch (attribute) {
    case 16: *value = 2; break;  /* multiprocessors */
    case 75: *value = driver::capability / 10; break;
    case 76: *value = driver::capability % 10; break;
    default: *value = 1;
    }
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void **made, int) { CALL(); return *made = &driver::context, SUCCESS; }
API cuDevicePrimaryCtxReset_v2(int) { return driver::calls_left = -1, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void *) { CALL(); return SUCCESS; }
API cuCtxGetCurrent(void **current) { return *current = &driver::context, SUCCESS; }
API cuCtxGetDevice(int *device) { return *device = 0, SUCCESS; }
API cuCtxPushCurrent_v2(void *) { CALL(); return SUCCESS; }
API cuCtxPopCurrent_v2(void **popped) { return *popped = &driver::context, SUCCESS; }
API cuCtxSynchronize() { CALL(); return SUCCESS; }
API cuCtxGetStreamPriorityRange(int *lowest, int *highest)
{
    CALL();
    return *lowest = 0, *highest = -5, SUCCESS;
}

API cuMemAlloc_v2(void **memory, size_t size)
{
    CALL();
    if ((long)size > driver::memory_left)
        return driver::OUT_OF_MEMORY;
    *memory = malloc(size);
    memset(*memory, 0xff, size);
    return SUCCESS;
}
API cuMemFree_v2(void *memory) { CALL(); return free(memory), SUCCESS; }
API cuMemHostAlloc(void **memory, size_t size, unsigned)
{
    CALL();
    return *memory = malloc(size), memset(*memory, 0xff, size), SUCCESS;
}
API cuMemFreeHost(void *memory) { CALL(); return free(memory), SUCCESS; }
API cuMemcpyAsync(void *target, const void *source, size_t size, driver::Stream *stream)
{
    CALL();
    return driver::run(stream, [=] { memcpy(target, source, size); });
}
API cuMemsetD8Async(void *target, unsigned char value, size_t size, driver::Stream *stream)
{
    CALL();
    return driver::run(stream, [=] { memset(target, value, size); });
}

API cuPointerGetAttribute(void *value, int attribute, uint64_t pointer)
{
    switch (attribute) {
    case 2: *(unsigned *)value = 2; break; /* memory of a device */
    case 3: *(uint64_t *)value = pointer; break;
    case 9: *(int *)value = 0; break; /* which one */
    default: *(int *)value = 0;
    }
    return SUCCESS;
}
API cuPointerGetAttributes(unsigned count, const int *attributes, void **values, uint64_t pointer)
{
    for (unsigned n = 0; n < count; n++)
        cuPointerGetAttribute(values[n], attributes[n], pointer);
    return SUCCESS;
}

API cuStreamCreateWithPriority(driver::Stream **stream, unsigned, int priority)
{
    CALL();
    return *stream = new driver::Stream{priority, nullptr}, SUCCESS;
}
API cuStreamDestroy_v2(driver::Stream *stream) { return delete stream, SUCCESS; }
API cuStreamSynchronize(driver::Stream *) { CALL(); return SUCCESS; }
API cuStreamGetCtx(driver::Stream *, void **made) { return *made = &driver::context, SUCCESS; }
API cuStreamGetPriority(driver::Stream *s, int *priority) { return *priority = s->priority, SUCCESS; }
API cuStreamGetFlags(driver::Stream *, unsigned *flags) { return *flags = 1, SUCCESS; }
API cuStreamIsCapturing(driver::Stream *stream, int *state)
{
    return *state = stream->recording ? 1 : 0, SUCCESS;
}
API cuStreamGetCaptureInfo_v3(driver::Stream *stream, int *state, uint64_t *id, driver::Work **graph,
                              void **before, void **, size_t *count)
{
    *state = stream->recording ? 1 : 0;
    if (id)
        *id = 1;
    if (graph)
        *graph = stream->recording;
    if (before)
        *before = nullptr;
    if (count)
        *count = 0;
    return SUCCESS;
}
API cuStreamBeginCapture_v2(driver::Stream *stream, int)
{
    CALL();
    return stream->recording = new driver::Work, SUCCESS;
}
API cuStreamEndCapture(driver::Stream *stream, driver::Work **graph)
{
    CALL();
    *graph = stream->recording;
    return stream->recording = nullptr, SUCCESS;
}
API cuGraphInstantiateWithParams(driver::Work **made, driver::Work *graph, void *parameters)
{
    CALL();
    if (parameters) /* CUDA_GRAPH_INSTANTIATE_PARAMS: flags, stream, node, result */
        *(int *)((char *)parameters + 24) = 0;
    return *made = new driver::Work(*graph), SUCCESS;
}
API cuGraphInstantiateWithFlags(driver::Work **made, driver::Work *graph, uint64_t)
{
    return cuGraphInstantiateWithParams(made, graph, nullptr);
}
API cuGraphLaunch(driver::Work *graph, driver::Stream *)
{
    CALL();
    for (auto &step : *graph)
        step();
    return SUCCESS;
}
API cuGraphExecDestroy(driver::Work *graph) { return delete graph, SUCCESS; }
API cuGraphDestroy(driver::Work *graph) { return delete graph, SUCCESS; }

API cuGraphUpload(driver::Work *, driver::Stream *) { CALL(); return SUCCESS; }
API cuGraphGetNodes(driver::Work *, void **, size_t *count) { return *count = 0, SUCCESS; }
API cuGraphExecGetFlags(driver::Work *, uint64_t *flags) { return *flags = 0, SUCCESS; }
API cuUserObjectCreate(void **object, void *, void *, unsigned, unsigned)
{
    return *object = &driver::context, SUCCESS;
}
API cuUserObjectRelease(void *, unsigned) { return SUCCESS; }
API cuGraphRetainUserObject(driver::Work *, void *, unsigned, unsigned) { return SUCCESS; }
API cuGraphReleaseUserObject(driver::Work *, void *, unsigned) { return SUCCESS; }

API cuLibraryLoadData(void **library, const void *, void *, void *, unsigned, void *, void *, unsigned)
{
    CALL();
    return *library = &driver::context, SUCCESS;
}
API cuLibraryUnload(void *) { return SUCCESS; }
API cuLibraryGetKernel(const Launchable **found, void *, const char *name)
{
    CALL();
    for (int n = 0; n < launchable; n++)
        if (!strcmp(name, launches[n].name))
            return *found = launches + n, SUCCESS;
    return driver::NOT_FOUND;
}
API cuKernelGetLibrary(void **library, void *) { return *library = &driver::context, SUCCESS; }

struct Configuration { /* the beginning of CUlaunchConfig */
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    driver::Stream *stream;
};
API cuLaunchKernelEx(const Configuration *config, const Launchable *kernel, void **arguments, void **)
{
    CALL();
    int blocks = config->grid_x, threads = config->block_x;
    const void *lane = *(const void **)arguments[0];
    int a = kernel->numbers > 0 ? *(int *)arguments[1] : 0;
    int b = kernel->numbers > 1 ? *(int *)arguments[2] : 0;
    return driver::run(config->stream,
                       [=] { simulate(kernel->function, blocks, threads, lane, a, b, 0); });
}
API cuLaunchKernel(const Launchable *kernel, unsigned grid_x, unsigned, unsigned, unsigned block_x, unsigned,
                   unsigned, unsigned, driver::Stream *stream, void **arguments, void **)
{
    Configuration config = {grid_x, 1, 1, block_x, 1, 1, 0, stream};
    return cuLaunchKernelEx(&config, kernel, arguments, nullptr);
}

struct Event {
    timespec at;
};
API cuEventCreate(Event **event, unsigned) { CALL(); return *event = new Event{}, SUCCESS; }
API cuEventRecord(Event *event, driver::Stream *)
{
    CALL();
    return clock_gettime(CLOCK_MONOTONIC, &event->at), SUCCESS;
}
API cuEventElapsedTime(float *milliseconds, const Event *from, const Event *to)
{
    CALL();
    *milliseconds = (to->at.tv_sec - from->at.tv_sec) * 1e3 + (to->at.tv_nsec - from->at.tv_nsec) / 1e6;
    return SUCCESS;
}
API cuStreamWaitEvent(driver::Stream *, Event *, unsigned) { CALL(); return SUCCESS; }
/* `hang(1)`: no event is ever done. */
API hang(int wanted) { return driver::hanging = wanted, 0; }
API cuEventQuery(Event *) { CALL(); return driver::hanging ? driver::NOT_READY : SUCCESS; }
API cuEventDestroy_v2(Event *event) { return delete event, SUCCESS; }

API cuGetErrorName(int error, const char **name)
{
    return *name = error == driver::OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN",
           SUCCESS;
}
API cuGetErrorString(int, const char **text) { return *text = "simulated", SUCCESS; }

API cuGetProcAddress_v2(const char *symbol, void **function, int, uint64_t, int *status)
{
    std::string name = symbol;
    *function = nullptr;
    for (const char *version : {"_v3", "_v2", ""})
        if (!*function)
            *function = dlsym(RTLD_DEFAULT, (name + version).c_str());
    if (!*function && getenv("UNFACE_TRACE_DRIVER"))
        fprintf(stderr, "no %s\n", symbol);
    if (status)
        *status = *function ? 0 : 1;
    return SUCCESS;
}
