/* Reads the state file. One mutex guards the model; a call holds it only while it copies values
 * out, never while it blocks.
 *
 *   driver 580.95.05            cuda 13000             hang 0|1          init-error CODE
 *   fail FUNCTION CODE          (before the first gpu: for all GPUs; after: for that one)
 *   gpu INDEX                   starts a GPU; its keys are in the two tables below
 *   nvlink STATE STATE ...      one state per link; nvlink_replays, nvlink_recoveries, nvlink_crc
 *                               and nvlink_failed COUNT COUNT ... likewise
 *   event SEQ GPU TYPE DATA     delivered to event sets that were registered before it
 */
#define _GNU_SOURCE
#include "nvmlsim.h"

#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct key {
    const char *name;
    size_t offset;
};

#define TEXT_KEY(name) {#name, offsetof(struct gpu, name)}
static const struct key TEXT_KEYS[] = {
    TEXT_KEY(product), TEXT_KEY(uuid), TEXT_KEY(serial), TEXT_KEY(bus_id), TEXT_KEY(vbios),
    TEXT_KEY(gsp),
};

#define NUMBER_KEY(name) {#name, offsetof(struct gpu, name)}
static const struct key NUMBER_KEYS[] = {
    NUMBER_KEY(memory), NUMBER_KEY(memory_used), NUMBER_KEY(ecc_current), NUMBER_KEY(ecc_pending),
    NUMBER_KEY(ecc_vol_corr), NUMBER_KEY(ecc_vol_unc), NUMBER_KEY(ecc_agg_corr),
    NUMBER_KEY(ecc_agg_unc), NUMBER_KEY(ecc_sram_unc), NUMBER_KEY(ecc_sram_threshold),
    NUMBER_KEY(remap_corr), NUMBER_KEY(remap_unc), NUMBER_KEY(remap_pending),
    NUMBER_KEY(remap_failure), NUMBER_KEY(banks_without_spares), NUMBER_KEY(bank_active),
    NUMBER_KEY(bank_pending), NUMBER_KEY(bank_exhausted), NUMBER_KEY(retires_pages),
    NUMBER_KEY(retired_single), NUMBER_KEY(retired_double), NUMBER_KEY(retired_pending),
    NUMBER_KEY(repair_channel), NUMBER_KEY(repair_tpc), NUMBER_KEY(recovery_action),
    NUMBER_KEY(temperature), NUMBER_KEY(memory_temperature), NUMBER_KEY(margin),
    NUMBER_KEY(power_mw), NUMBER_KEY(power_limit_mw), NUMBER_KEY(power_default_mw),
    NUMBER_KEY(clock_reasons), NUMBER_KEY(utilization), NUMBER_KEY(persistence),
    NUMBER_KEY(mig_current), NUMBER_KEY(mig_pending), NUMBER_KEY(processes),
    NUMBER_KEY(pcie_width), NUMBER_KEY(pcie_max_width), NUMBER_KEY(pcie_gen),
    NUMBER_KEY(pcie_max_gen), NUMBER_KEY(pcie_replays), NUMBER_KEY(fabric_state),
    NUMBER_KEY(fabric_status), NUMBER_KEY(fabric_mask), NUMBER_KEY(fabric_summary),
    NUMBER_KEY(fabric_clique), NUMBER_KEY(inforom_corrupt), NUMBER_KEY(nvlink5), NUMBER_KEY(lost),
    NUMBER_KEY(reset_required), NUMBER_KEY(hang),
};

#define COUNT_KEY(name, kind) {#name, offsetof(struct gpu, link_counts[kind])}
static const struct key COUNT_KEYS[] = {
    COUNT_KEY(nvlink_replays, REPLAYS), COUNT_KEY(nvlink_recoveries, RECOVERIES),
    COUNT_KEY(nvlink_crc, CRC), COUNT_KEY(nvlink_failed, FAILED),
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct state current;
static struct stat seen;
static int loaded;
static double drawn_mj[MAX_GPUS];
static uint64_t metered_ms;

static void copy_text(char *to, const char *from) {
    snprintf(to, TEXT, "%.*s", TEXT - 1, from);
}

static void add_fail(struct fail *list, int *count, const char *value) {
    if (*count < MAX_FAILS && sscanf(value, "%95s %d", list[*count].function, &list[*count].code) == 2)
        (*count)++;
}

/* Read one number per link and return how many there are. */
static unsigned per_link(uint64_t *to, const char *value) {
    char *end;
    for (unsigned link = 0; link < MAX_LINKS; link++, value = end) {
        to[link] = strtoull(value, &end, 0);
        if (end == value) return link;
    }
    return MAX_LINKS;
}

static void set_gpu(struct gpu *gpu, const char *key, const char *value) {
    if (strcmp(key, "nvlink") == 0) {
        gpu->nvlinks = per_link(gpu->nvlink, value);
        return;
    }
    if (strcmp(key, "fail") == 0) return add_fail(gpu->fail, &gpu->fails, value);
    for (size_t i = 0; i < sizeof TEXT_KEYS / sizeof *TEXT_KEYS; i++)
        if (strcmp(key, TEXT_KEYS[i].name) == 0)
            return copy_text((char *)gpu + TEXT_KEYS[i].offset, value);
    for (size_t i = 0; i < sizeof COUNT_KEYS / sizeof *COUNT_KEYS; i++)
        if (strcmp(key, COUNT_KEYS[i].name) == 0) {
            per_link((uint64_t *)((char *)gpu + COUNT_KEYS[i].offset), value);
            return;
        }
    for (size_t i = 0; i < sizeof NUMBER_KEYS / sizeof *NUMBER_KEYS; i++)
        if (strcmp(key, NUMBER_KEYS[i].name) == 0) {
            *(uint64_t *)((char *)gpu + NUMBER_KEYS[i].offset) = strtoull(value, NULL, 0);
            return;
        }
}

static void set_line(struct state *state, struct gpu **gpu, char *line) {
    line[strcspn(line, "\n")] = 0;
    char *value = strchr(line, ' ');
    if (value == NULL) return;
    *value++ = 0;
    if (strcmp(line, "gpu") == 0) {
        unsigned long index = strtoul(value, NULL, 10);
        if (index >= MAX_GPUS) return;
        *gpu = &state->gpu[index];
        if ((int)index >= state->gpus) state->gpus = (int)index + 1;
    } else if (strcmp(line, "event") == 0) {
        struct event *event = &state->event[state->events % MAX_EVENTS];
        if (sscanf(value, "%" SCNu64 " %" SCNu64 " %" SCNi64 " %" SCNu64, &event->seq, &event->gpu,
                   (int64_t *)&event->type, &event->data) == 4)
            state->events++;
    } else if (*gpu != NULL) {
        set_gpu(*gpu, line, value);
    } else if (strcmp(line, "driver") == 0) {
        copy_text(state->driver, value);
    } else if (strcmp(line, "cuda") == 0) {
        state->cuda = strtoull(value, NULL, 0);
    } else if (strcmp(line, "hang") == 0) {
        state->hang = strtoull(value, NULL, 0);
    } else if (strcmp(line, "init-error") == 0) {
        state->init_error = strtoull(value, NULL, 0);
    } else if (strcmp(line, "fail") == 0) {
        add_fail(state->fail, &state->fails, value);
    }
}

static int same(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Let the meters run up to now, at the power that was drawn until now. */
static void meter(void) {
    uint64_t now = now_ms();
    for (int i = 0; metered_ms != 0 && i < current.gpus; i++)
        drawn_mj[i] += (double)current.gpu[i].power_mw * (double)(now - metered_ms) / 1000;
    metered_ms = now;
}

uint64_t energy_mj(unsigned index) {
    meter();
    return (uint64_t)drawn_mj[index];
}

const struct state *state_lock(void) {
    static struct state fresh; /* too large for a thread's stack; guarded by the mutex */
    pthread_mutex_lock(&mutex);
    const char *path = getenv("TRAMONTANE_NVML_STATE");
    struct stat now;
    if (path == NULL || stat(path, &now) != 0) return NULL;
    if (loaded && same(&now, &seen)) return &current;
    FILE *file = fopen(path, "r");
    if (file == NULL || fstat(fileno(file), &now) != 0) {
        if (file != NULL) fclose(file);
        return NULL;
    }
    memset(&fresh, 0, sizeof fresh);
    struct gpu *gpu = NULL;
    char line[1024];
    while (fgets(line, sizeof line, file) != NULL) set_line(&fresh, &gpu, line);
    fclose(file);
    meter();
    current = fresh;
    seen = now;
    loaded = 1;
    return &current;
}

void state_unlock(void) { pthread_mutex_unlock(&mutex); }

void sleep_ms(unsigned ms) {
    struct timespec span = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&span, NULL);
}

uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
