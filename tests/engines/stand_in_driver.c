/* A stand-in for CUDA's driver: two GPUs whose memory is the process's own.

   As much of libcuda.so.1 as numba-cuda and numinit call. A launch goes to a function of the
   test's. What is called is recorded, with its stream, and contexts are kept as the driver keeps
   them, a stack for each thread: what belongs to one of them is refused in another. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK, INVALID_VALUE, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, IN_CAPTURE = 900 };
enum { GPUS = 2, DEPTH = 64 };

typedef struct { int device, retained; } Context;
typedef struct { Context *context; } Stream;
typedef struct { const char *name; Context *context; } Kernel;
enum Type { HOST = 1, DEVICE = 2, MANAGED = 4 };
typedef struct Block {
    uint64_t at;
    size_t size;
    enum Type type;
    Context *owner;
    int device;
    struct Block *next;
} Block;
typedef void (*Launched)(const char *kernel, int device, unsigned blocks, unsigned threads,
                         Stream *stream, void *arguments, size_t size);

static Context primary[GPUS] = {{0, 0}, {1, 0}}, foreign = {0, 1};
static __thread Context *stack[DEPTH];
static __thread int depth;
static Block *blocks;
static Launched launched;
static char record[1 << 16];
static int failure;
static Stream *captured; /* what launches on it would go into a graph */
static __thread int mode;  /* GLOBAL, THREAD_LOCAL, RELAXED: of what a thread may do meanwhile */
enum { RELAXED = 2 };

#define CURRENT (depth ? stack[depth - 1] : NULL)
#define RECORD note(__func__)
#define NEEDS_CONTEXT do { RECORD; if (!depth) return INVALID_CONTEXT; } while (0)
#define ON(stream) do { note_on(__func__, stream); if (!fits(stream)) return INVALID_HANDLE; } while (0)

static void note_on(const char *name, const void *stream)
{
    size_t used = strlen(record);
    const char *format = stream ? "%s:%zu " : "%s ";
    snprintf(record + used, sizeof record - used, format, name, (size_t)stream);
}

static void note(const char *name) { note_on(name, NULL); }

static int fits(const Stream *stream)
{
    return depth && ((size_t)stream <= 2 || stream->context == CURRENT);
}

/* What the test asks and sets. */

char *stand_in_record(void) { return record; }
void stand_in_forget(void) { *record = 0; }
void stand_in_launched(Launched function) { launched = function; }
void *stand_in_foreign_context(void) { return &foreign; }
void stand_in_captures(Stream *stream) { captured = stream; }
void stand_in_fails(int error) { failure = error; } /* until it is called with 0 */

static Block *block_of(uint64_t at)
{
    Block *b = blocks;
    while (b && !(at >= b->at && at < b->at + b->size)) b = b->next;
    return b;
}

int stand_in_device(uint64_t at)
{
    Block *b = block_of(at);
    return b ? b->device : -1;
}

/* Devices */

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { return *version = 13000, OK; }
int cuDeviceGetCount(int *count) { return *count = GPUS, OK; }
int cuDeviceGet(int *device, int i) { return *device = i, i < GPUS ? OK : INVALID_VALUE; }
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "stand-in"), OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { return memset(uuid, device + 1, 16), OK; }

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    enum { MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76 };
    *value = attribute == MULTIPROCESSORS ? 3 : attribute == MAJOR ? 9 - device : attribute != MINOR;
    return OK;
}

/* Contexts */

int cuDevicePrimaryCtxRetain(Context **context, int device)
{
    primary[device].retained = 1;
    return *context = &primary[device], OK;
}

int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxGetCurrent(Context **context) { return *context = CURRENT, OK; }
int cuCtxGetApiVersion(Context *context, unsigned *version) { return *version = 13000, OK; }

int cuCtxSetCurrent(Context *context)
{
    RECORD;
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return OK;
}

int cuCtxPushCurrent_v2(Context *context)
{
    if (depth == DEPTH) abort();
    if (!context->retained) return INVALID_CONTEXT;
    return stack[depth++] = context, OK;
}

int cuCtxPopCurrent_v2(Context **context)
{
    if (!depth) return INVALID_CONTEXT;
    return *context = stack[--depth], OK;
}

int cuCtxGetDevice(int *device)
{
    if (!depth) return INVALID_CONTEXT;
    return *device = CURRENT->device, OK;
}

int cuCtxSynchronize(void) { NEEDS_CONTEXT; return OK; }

/* Streams */

int cuStreamCreate(Stream **stream, unsigned flags)
{
    NEEDS_CONTEXT;
    *stream = malloc(sizeof **stream);
    return (*stream)->context = CURRENT, OK;
}

int cuStreamDestroy_v2(Stream *stream) { return free(stream), OK; }
int cuStreamSynchronize(Stream *stream) { ON(stream); return stream && stream == captured ? IN_CAPTURE : OK; }

int cuStreamIsCapturing(Stream *stream, int *status)
{
    if (!fits(stream)) return INVALID_HANDLE;
    return *status = stream && stream == captured, OK;
}

int cuThreadExchangeStreamCaptureMode(int *other)
{
    int before = mode;
    return mode = *other, *other = before, OK;
}

int cuStreamGetCtx(Stream *stream, Context **context)
{
    *context = (uintptr_t)stream > 2 ? stream->context : CURRENT;
    return OK;
}

/* Memory */

static uint64_t allocated(size_t size, enum Type type, Context *owner)
{
    Block *b = malloc(sizeof *b);
    uint64_t at = (uint64_t)aligned_alloc(256, (size + 255) / 256 * 256);
    *b = (Block){at, size, type, owner, CURRENT->device, blocks};
    blocks = b;
    return at;
}

int cuMemAlloc_v2(uint64_t *at, size_t size)
{
    NEEDS_CONTEXT;
    return *at = allocated(size, DEVICE, CURRENT), OK;
}

int cuMemAllocAsync(uint64_t *at, size_t size, Stream *stream) /* of a pool, which has no owner */
{
    NEEDS_CONTEXT;
    return *at = allocated(size, DEVICE, NULL), OK;
}

int cuMemAllocManaged(uint64_t *at, size_t size, unsigned flags)
{
    NEEDS_CONTEXT;
    return *at = allocated(size, MANAGED, CURRENT), OK;
}

int cuMemHostAlloc(void **at, size_t size, unsigned flags)
{
    NEEDS_CONTEXT;
    return *at = (void *)allocated(size, HOST, CURRENT), OK;
}

int cuMemFree_v2(uint64_t at)
{
    RECORD;
    Block *b = block_of(at);
    if (!b) return INVALID_VALUE;
    b->size = 0;
    return free((void *)at), OK;
}

int cuMemGetInfo_v2(size_t *available, size_t *total) { return *available = *total = 1ull << 36, OK; }

int cuPointerGetAttribute(void *value, int attribute, uint64_t at)
{
    enum { CONTEXT = 1, MEMORY_TYPE = 2, IS_MANAGED = 8, ORDINAL = 9 };
    Block *b = block_of(at);
    if (failure || !b) return failure ? failure : INVALID_VALUE;
    if (attribute == CONTEXT) *(Context **)value = b->owner;
    else if (attribute == MEMORY_TYPE) *(unsigned *)value = b->type == DEVICE ? DEVICE : HOST;
    else if (attribute == IS_MANAGED) *(unsigned *)value = b->type == MANAGED;
    else if (attribute == ORDINAL) *(int *)value = b->device;
    else return INVALID_VALUE;
    return OK;
}

int cuPointerGetAttributes(unsigned count, const int *attributes, void **values, uint64_t at)
{
    /* Of memory that it does not know it says 0, and no error. */
    if (failure) return failure;
    for (unsigned i = 0; i < count; i++)
        if (cuPointerGetAttribute(values[i], attributes[i], at)) *(unsigned *)values[i] = 0;
    return OK;
}

int cuMemcpyHtoD_v2(uint64_t to, const void *at, size_t size)
{
    NEEDS_CONTEXT;
    return memcpy((void *)to, at, size), OK;
}

int cuMemcpyDtoH_v2(void *to, uint64_t at, size_t size)
{
    NEEDS_CONTEXT;
    return memcpy(to, (void *)at, size), OK;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *at, size_t size, Stream *stream)
{
    ON(stream);
    return memcpy((void *)to, at, size), OK;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t at, size_t size, Stream *stream)
{
    ON(stream);
    return memcpy(to, (void *)at, size), OK;
}

typedef struct {
    size_t x, y; unsigned type; const void *host; uint64_t device; void *array; size_t pitch;
} Side;
typedef struct { Side from, to; size_t width, height; } Copy;

int cuMemcpy2DAsync_v2(const Copy *copy, Stream *stream)
{
    enum { MOST_PITCH = 0x7FFFFFFF };
    ON(stream);
    const Side *from = &copy->from, *to = &copy->to;
    if (from->type != HOST || to->type != DEVICE || from->x || from->y || to->x || to->y ||
        from->pitch < copy->width || to->pitch < copy->width || to->pitch > MOST_PITCH)
        return INVALID_VALUE;
    for (size_t row = 0; row < copy->height; row++)
        memcpy((char *)to->device + row * to->pitch, (char *)from->host + row * from->pitch, copy->width);
    return OK;
}

/* Kernels: of the code only the kernels' names are kept. */

int cuModuleLoadData(Context **module, const void *code)
{
    NEEDS_CONTEXT;
    if (captured && mode != RELAXED) return IN_CAPTURE;
    return *module = CURRENT, memcmp(code, "\177ELF", 4) ? INVALID_VALUE : OK;
}

int cuModuleGetFunction(Kernel **kernel, Context *module, const char *name)
{
    NEEDS_CONTEXT;
    *kernel = malloc(sizeof **kernel);
    return **kernel = (Kernel){strdup(name), module}, OK;
}

int cuLaunchKernel(const Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, Stream *stream, void **arguments, void **extra)
{
    enum { END, POINTER, SIZE };
    ON(stream);
    if (kernel->context != CURRENT) return INVALID_HANDLE;
    if (gy != 1 || gz != 1 || by != 1 || bz != 1 || shared || arguments) return INVALID_VALUE;
    if ((size_t)extra[0] != POINTER || (size_t)extra[2] != SIZE || (size_t)extra[4] != END) return INVALID_VALUE;
    return launched(kernel->name, CURRENT->device, gx, bx, stream, extra[1], *(size_t *)extra[3]), OK;
}

/* Errors, and how all of this is found */

int cuGetErrorName(int error, const char **name) { return *name = "an error of the stand-in", OK; }
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status)
{
    static void *self;
    Dl_info info;
    char second[128];
    if (!self && dladdr((void *)cuInit, &info)) self = dlopen(info.dli_fname, RTLD_NOW);
    snprintf(second, sizeof second, "%s_v2", symbol);
    *function = dlsym(self, second);
    if (!*function) *function = dlsym(self, symbol);
    if (status) *status = !*function;
    return *function ? OK : NOT_FOUND;
}
