/* A simulated libnvidia-ml.so.1: the functions that a health agent calls, under NVIDIA's names
 * and with NVML's calling conventions, answered from the state file (nvmlsim.h). Here: the
 * library itself, handles and events; device.c and links.c have the rest.
 *
 * Every entry point passes through enter(): it blocks while the state says "hang", and returns
 * the code that a `fail` line, a lost GPU or a pending reset asks for.
 */
#define _GNU_SOURCE
#include "nvmlsim.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct event_set *nvmlEventSet_t;

struct gpu_handle {
    char unused;
};

struct event_set {
    pthread_mutex_t mutex;
    uint64_t types[MAX_GPUS];
    uint64_t after; /* events up to this number are delivered, or older than the set */
};

static struct gpu_handle handles[MAX_GPUS]; /* a handle is an address in here */
static int users; /* nvmlInit minus nvmlShutdown */

unsigned index_of(nvmlDevice_t device) { return (unsigned)(device - handles); }

nvmlReturn_t failing(const struct fail *list, int count, const char *function) {
    for (int i = 0; i < count; i++)
        if (strcmp(list[i].function, function) == 0) return list[i].code;
    return SUCCESS;
}

nvmlReturn_t enter(const char *function, const struct state **state) {
    for (;;) {
        const struct state *found = state_lock();
        nvmlReturn_t code = found == NULL ? DRIVER_NOT_LOADED
                            : users == 0  ? UNINITIALIZED
                                          : failing(found->fail, found->fails, function);
        int hang = found != NULL && found->hang;
        if (!hang && code == SUCCESS) {
            *state = found;
            return SUCCESS;
        }
        state_unlock();
        if (!hang) return code;
        sleep_ms(POLL_MS);
    }
}

nvmlReturn_t enter_gpu(const char *function, nvmlDevice_t device, const struct gpu **gpu) {
    for (;;) {
        const struct state *state;
        nvmlReturn_t code = enter(function, &state);
        if (code != SUCCESS) return code;
        int hang = 0;
        if (device == NULL || device < handles || device >= handles + MAX_GPUS) {
            code = INVALID_ARGUMENT;
        } else if (index_of(device) >= (unsigned)state->gpus) {
            code = GPU_IS_LOST; /* a handle from before the GPU went away */
        } else {
            *gpu = &state->gpu[index_of(device)];
            hang = (*gpu)->hang != 0;
            code = (*gpu)->lost             ? GPU_IS_LOST
                   : (*gpu)->reset_required ? RESET_REQUIRED
                                            : failing((*gpu)->fail, (*gpu)->fails, function);
        }
        if (!hang && code == SUCCESS) return SUCCESS;
        state_unlock();
        if (!hang) return code;
        sleep_ms(POLL_MS);
    }
}

void text(char *to, unsigned size, const char *from) { snprintf(to, size, "%s", from); }

/* --- the library --- */

/* The library is of one version: it fits the first driver that a process meets, and no other. */
static nvmlReturn_t fitting(const struct state *state) {
    static char version[TEXT]; /* guarded by the state's mutex */
    if (version[0] == 0) text(version, sizeof version, state->driver);
    return strcmp(version, state->driver) == 0 ? SUCCESS : LIB_RM_VERSION_MISMATCH;
}

static nvmlReturn_t init(void) {
    for (;;) {
        const struct state *state = state_lock();
        nvmlReturn_t code = state == NULL       ? DRIVER_NOT_LOADED
                            : state->init_error ? (nvmlReturn_t)state->init_error
                                                : fitting(state);
        int hang = state != NULL && state->hang;
        if (!hang && code == SUCCESS) users++;
        state_unlock();
        if (!hang) return code;
        sleep_ms(POLL_MS);
    }
}

API nvmlReturn_t nvmlInit(void) { return init(); }
API nvmlReturn_t nvmlInit_v2(void) { return init(); }
API nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return init();
}

API nvmlReturn_t nvmlShutdown(void) {
    state_lock();
    nvmlReturn_t code = users > 0 ? SUCCESS : UNINITIALIZED;
    if (users > 0) users--;
    state_unlock();
    const char *log = getenv("TRAMONTANE_NVML_LOG"); /* lets a test see that a client left cleanly */
    FILE *file = code == SUCCESS && log != NULL ? fopen(log, "a") : NULL;
    if (file != NULL) {
        fputs("nvmlShutdown\n", file);
        fclose(file);
    }
    return code;
}

API const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMEOUT: return "Timeout";
    case CORRUPTED_INFOROM: return "Corrupted infoROM";
    case GPU_IS_LOST: return "GPU is lost";
    case RESET_REQUIRED: return "GPU requires reset";
    case LIB_RM_VERSION_MISMATCH: return "RM has detected an NVML/RM version mismatch.";
    default: return "Unknown Error";
    }
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    text(version, size, state->driver);
    state_unlock();
    return SUCCESS;
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned size) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    snprintf(version, size, "%u.%s", (unsigned)(state->cuda / 1000), state->driver);
    state_unlock();
    return SUCCESS;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    *version = (int)state->cuda;
    state_unlock();
    return SUCCESS;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

/* --- finding a GPU --- */

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    *count = (unsigned)state->gpus;
    state_unlock();
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *found) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    int gpus = state->gpus;
    state_unlock();
    if (index >= (unsigned)gpus) return INVALID_ARGUMENT;
    nvmlDevice_t device = &handles[index];
    *found = device;
    GPU_CALL();
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *found) {
    return nvmlDeviceGetHandleByIndex_v2(index, found);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *found) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    code = NOT_FOUND;
    for (int i = 0; i < state->gpus && code != SUCCESS; i++)
        if (strcmp(state->gpu[i].uuid, uuid) == 0) {
            *found = &handles[i];
            code = state->gpu[i].lost ? GPU_IS_LOST : SUCCESS;
        }
    state_unlock();
    return code;
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index) {
    GPU_CALL(*index = index_of(device));
}
API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *minor) {
    GPU_CALL(*minor = index_of(device));
}

/* --- events --- */

struct event_data {
    nvmlDevice_t device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

enum { XID = 0x8, RECOVERY_ACTION = 0x8000, KNOWN_EVENTS = 0xfe8b };

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    GPU_CALL(*types = KNOWN_EVENTS);
}

static uint64_t newest(const struct state *state) {
    return state->events ? state->event[(state->events - 1) % MAX_EVENTS].seq : 0;
}

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *created) {
    const struct state *state;
    nvmlReturn_t code = enter(__func__, &state);
    if (code != SUCCESS) return code;
    nvmlEventSet_t set = calloc(1, sizeof *set);
    if (set != NULL) {
        pthread_mutex_init(&set->mutex, NULL);
        set->after = newest(state);
        *created = set;
    }
    state_unlock();
    return set == NULL ? MEMORY : SUCCESS;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                          nvmlEventSet_t set) {
    if (set == NULL) return INVALID_ARGUMENT;
    GPU_CALL_IF((types & ~(unsigned long long)KNOWN_EVENTS) == 0, {
        pthread_mutex_lock(&set->mutex);
        set->types[index_of(device)] |= types;
        pthread_mutex_unlock(&set->mutex);
    });
}

/* Find the oldest event that the set has not delivered and is registered for. */
static int take(nvmlEventSet_t set, const struct state *state, struct event_data *data) {
    int first = state->events > MAX_EVENTS ? state->events - MAX_EVENTS : 0;
    for (int i = first; i < state->events; i++) {
        const struct event *event = &state->event[i % MAX_EVENTS];
        if (event->seq <= set->after) continue;
        set->after = event->seq;
        if (event->gpu >= MAX_GPUS || !(set->types[event->gpu] & event->type)) continue;
        *data = (struct event_data){&handles[event->gpu], event->type, event->data, ~0u, ~0u};
        return 1;
    }
    return 0;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, struct event_data *data, unsigned wait_ms) {
    if (set == NULL || data == NULL) return INVALID_ARGUMENT;
    for (uint64_t end = now_ms() + wait_ms;;) {
        const struct state *state;
        nvmlReturn_t code = enter(__func__, &state);
        if (code != SUCCESS) return code;
        pthread_mutex_lock(&set->mutex);
        int found = take(set, state, data);
        pthread_mutex_unlock(&set->mutex);
        state_unlock();
        if (found) return SUCCESS;
        uint64_t now = now_ms();
        if (now >= end) return TIMEOUT;
        sleep_ms(end - now < POLL_MS ? (unsigned)(end - now) : POLL_MS);
    }
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    if (set == NULL) return INVALID_ARGUMENT;
    pthread_mutex_destroy(&set->mutex);
    free(set);
    return SUCCESS;
}
