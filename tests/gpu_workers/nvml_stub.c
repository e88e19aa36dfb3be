/* A libnvidia-ml.so.1 without GPUs behind it: the functions that gpu_workers/gpus.py calls through pynvml, told what to say by
 *
 *   NVML_STUB_GPUS  one record a GPU, "uuid|name|total bytes|used bytes|percent busy|degrees C", separated by ";"
 *   NVML_STUB_FAIL  "function=error" or "function/index=error", separated by ","
 *
 * both read at every call, so that a GPU can fall sick while a process runs. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7 };

typedef struct { char uuid[96], name[96]; unsigned long long total, used; unsigned busy, degrees; } Gpu;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;

static int users;

static const char *told(const char *variable) {
    const char *value = getenv(variable);
    return value ? value : "";
}

/* The error that NVML_STUB_FAIL wants of `function` for GPU `index` (-1: of no GPU), or SUCCESS. */
static int fails(const char *function, int index) {
    char key[128];
    if (index < 0) snprintf(key, sizeof key, "%s=", function);
    else snprintf(key, sizeof key, "%s/%d=", function, index);
    const char *found = strstr(told("NVML_STUB_FAIL"), key);
    return found ? atoi(found + strlen(key)) : SUCCESS;
}

static int record(unsigned index, Gpu *gpu) {
    const char *at = told("NVML_STUB_GPUS");
    for (; *at && index; index--) {
        at += strcspn(at, ";");
        at += *at == ';';
    }
    return sscanf(at, "%95[^|]|%95[^|]|%llu|%llu|%u|%u", gpu->uuid, gpu->name, &gpu->total, &gpu->used, &gpu->busy, &gpu->degrees) == 6;
}

/* A device is the address of nothing: its index plus one. */
static int answer(const char *function, void *device, Gpu *gpu) {
    int index = (int)(size_t)device - 1;
    if (!users) return UNINITIALIZED;
    if (index < 0 || !record((unsigned)index, gpu)) return INVALID_ARGUMENT;
    return fails(function, index);
}

static int copy(const char *text, char *to, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int error = fails(__func__, -1);
    users += error == SUCCESS;
    return error;
}

int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

const char *nvmlErrorString(int error) {
    static char text[64];
    snprintf(text, sizeof text, "Stub error %d", error);
    return text;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    Gpu gpu;
    if (!users) return UNINITIALIZED;
    for (*count = 0; record(*count, &gpu); ++*count);
    return fails(__func__, -1);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    Gpu gpu;
    *device = (void *)(size_t)(index + 1);
    return answer(__func__, *device, &gpu);
}

int nvmlDeviceGetUUID(void *device, char *to, unsigned length) {
    Gpu gpu;
    int error = answer(__func__, device, &gpu);
    return error ? error : copy(gpu.uuid, to, length);
}

int nvmlDeviceGetName(void *device, char *to, unsigned length) {
    Gpu gpu;
    int error = answer(__func__, device, &gpu);
    return error ? error : copy(gpu.name, to, length);
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    Gpu gpu;
    int error = answer(__func__, device, &gpu);
    if (!error) *memory = (Memory){gpu.total, gpu.total - gpu.used, gpu.used};
    return error;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *utilization) {
    Gpu gpu;
    int error = answer(__func__, device, &gpu);
    if (!error) *utilization = (Utilization){gpu.busy, 100 - gpu.busy};
    return error;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) {
    Gpu gpu;
    int error = answer(__func__, device, &gpu);
    if (!error && sensor != 0) error = INVALID_ARGUMENT;
    if (!error) *degrees = gpu.degrees;
    return error;
}
