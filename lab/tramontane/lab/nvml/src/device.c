/* What NVML says of one GPU: a function per question, each answered from the GPU's part of the
 * state. Structs are laid out as pynvml (nvidia-ml-py) lays them out.
 */
#define _GNU_SOURCE
#include "nvmlsim.h"

#include <stdio.h>
#include <string.h>

/* --- what it is --- */

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned size) {
    GPU_CALL(text(name, size, gpu->product));
}
API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned size) {
    GPU_CALL(text(uuid, size, gpu->uuid));
}
API nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned size) {
    GPU_CALL_IF(gpu->serial[0], text(serial, size, gpu->serial));
}
API nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned size) {
    GPU_CALL(text(version, size, gpu->vbios));
}

API nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version) {
    enum { SIZE = 64 };
    GPU_CALL_IF(gpu->gsp[0], text(version, SIZE, gpu->gsp));
}

struct pci_info {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, struct pci_info *info) {
    GPU_CALL({
        memset(info, 0, sizeof *info);
        sscanf(gpu->bus_id, "%x:%x:%x", &info->domain, &info->bus, &info->device);
        snprintf(info->legacy, sizeof info->legacy, "%04X:%02X:%02X.0", info->domain & 0xffff,
                 info->bus & 0xff, info->device & 0xff);
        snprintf(info->bus_id, sizeof info->bus_id, "%.31s", gpu->bus_id);
        info->device_id = 0x233510DE;
    });
}

struct memory {
    unsigned long long total, free, used;
};

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, struct memory *memory) {
    GPU_CALL(*memory = ((struct memory){gpu->memory, gpu->memory - gpu->memory_used,
                                        gpu->memory_used}));
}

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, struct memory_v2 *memory) {
    if (memory->version != 0x02000028) return ARGUMENT_VERSION_MISMATCH;
    GPU_CALL(*memory = ((struct memory_v2){memory->version, gpu->memory, 0,
                                           gpu->memory - gpu->memory_used, gpu->memory_used}));
}

/* --- memory errors --- */

API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, int *current, int *pending) {
    GPU_CALL(*current = (int)gpu->ecc_current; *pending = (int)gpu->ecc_pending);
}

static uint64_t ecc_total(const struct gpu *gpu, int uncorrected, int aggregate) {
    if (aggregate) return uncorrected ? gpu->ecc_agg_unc : gpu->ecc_agg_corr;
    return uncorrected ? gpu->ecc_vol_unc : gpu->ecc_vol_corr;
}

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int type, int counter,
                                             unsigned long long *count) {
    if (type < 0 || type > 1 || counter < 0 || counter > 1) return INVALID_ARGUMENT;
    GPU_CALL_IF(gpu->ecc_current, *count = ecc_total(gpu, type, counter));
}

API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, int type, int counter,
                                                 int location, unsigned long long *count) {
    enum { DRAM = 2, SRAM = 7 };
    if (type < 0 || type > 1 || counter < 0 || counter > 1) return INVALID_ARGUMENT;
    uint64_t sram = 0;
    GPU_CALL_IF(gpu->ecc_current && (location == DRAM || location == SRAM), {
        sram = type == 1 ? gpu->ecc_sram_unc : 0;
        uint64_t total = ecc_total(gpu, type, counter);
        *count = location == SRAM ? sram : total > sram ? total - sram : 0;
    });
}

struct sram_status {
    unsigned version;
    unsigned long long agg_unc_parity, agg_unc_secded, agg_corr;
    unsigned long long vol_unc_parity, vol_unc_secded, vol_corr;
    unsigned long long l2, sm, pcie, mcu, other;
    unsigned threshold_exceeded;
};

API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, struct sram_status *status) {
    if (status->version != 0x01000068) return ARGUMENT_VERSION_MISMATCH;
    GPU_CALL_IF(gpu->ecc_current, {
        *status = (struct sram_status){.version = status->version};
        status->agg_unc_secded = status->vol_unc_secded = status->sm = gpu->ecc_sram_unc;
        status->threshold_exceeded = gpu->ecc_sram_threshold != 0;
    });
}

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected,
                                           unsigned *uncorrected, unsigned *pending,
                                           unsigned *failure) {
    GPU_CALL(*corrected = (unsigned)gpu->remap_corr; *uncorrected = (unsigned)gpu->remap_unc;
             *pending = gpu->remap_pending != 0; *failure = gpu->remap_failure != 0);
}

struct histogram {
    unsigned max, high, partial, low, none;
};

API nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, struct histogram *banks) {
    GPU_CALL({
        unsigned used = (unsigned)(gpu->remap_corr + gpu->remap_unc);
        unsigned none = (unsigned)gpu->banks_without_spares;
        *banks = (struct histogram){640 - used - none, used, 0, 0, none};
    });
}

/* GPUs retire pages, or since Ampere remap rows instead; none does both. */
API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, int cause, unsigned *count,
                                           unsigned long long *pages) {
    if (cause < 0 || cause > 1) return INVALID_ARGUMENT;
    const struct gpu *gpu;
    nvmlReturn_t code = enter_gpu(__func__, device, &gpu);
    if (code != SUCCESS) return code;
    unsigned retired = (unsigned)(cause == 0 ? gpu->retired_single : gpu->retired_double);
    if (!gpu->retires_pages) {
        code = NOT_SUPPORTED;
    } else if (*count < retired) {
        code = INSUFFICIENT_SIZE;
    } else {
        for (unsigned i = 0; i < retired; i++) pages[i] = 0x1000ull * (i + 1);
    }
    *count = retired;
    state_unlock();
    return code;
}

API nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, int *pending) {
    GPU_CALL_IF(gpu->retires_pages, *pending = gpu->retired_pending != 0);
}

struct bank_status {
    unsigned active, inactive, pending, max_spare_groups, no_spare_groups;
};

API nvmlReturn_t nvmlDeviceGetBankRemapperStatus_v1(nvmlDevice_t device,
                                                    struct bank_status *status) {
    GPU_CALL(*status = ((struct bank_status){(unsigned)gpu->bank_active, 0, gpu->bank_pending != 0,
                                             96 - (unsigned)gpu->bank_exhausted,
                                             (unsigned)gpu->bank_exhausted}));
}

struct repair_status {
    unsigned version, channel_pending, tpc_pending;
};

API nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t device, struct repair_status *status) {
    if (status->version != 0x0100000C) return ARGUMENT_VERSION_MISMATCH;
    GPU_CALL(status->channel_pending = gpu->repair_channel != 0;
             status->tpc_pending = gpu->repair_tpc != 0);
}

/* --- field values --- */

struct field_value {
    unsigned field, scope;
    long long timestamp, latency_us;
    int type, code;
    union {
        unsigned number;
        unsigned long long large;
    } value;
};

enum { AS_UINT = 1, AS_ULL = 3 };

static nvmlReturn_t field(const struct gpu *gpu, struct field_value *item) {
    uint64_t value;
    item->type = AS_UINT;
    switch (item->field) {
    case 1: value = gpu->ecc_current; break;
    case 2: value = gpu->ecc_pending; break;
    case 3: item->type = AS_ULL, value = gpu->ecc_vol_corr; break;
    case 4: item->type = AS_ULL, value = gpu->ecc_vol_unc; break;
    case 5: item->type = AS_ULL, value = gpu->ecc_agg_corr; break;
    case 6: item->type = AS_ULL, value = gpu->ecc_agg_unc; break;
    case 82: value = gpu->memory_temperature; break;
    case 94: value = gpu->pcie_replays; break;
    case 142: value = gpu->remap_corr; break;
    case 143: value = gpu->remap_unc; break;
    case 144: value = gpu->remap_pending != 0; break;
    case 145: value = gpu->remap_failure != 0; break;
    case 186: value = gpu->power_mw; break;
    case 230: value = gpu->recovery_action; break;
    default: {
        nvmlReturn_t code = link_field(gpu, item->field, item->scope, &value);
        if (code != SUCCESS) return code;
        if (item->field != LINK_STATE) item->type = AS_ULL;
    }
    }
    item->value.large = value;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count,
                                          struct field_value *values) {
    if (count <= 0 || values == NULL) return INVALID_ARGUMENT;
    GPU_CALL(for (int i = 0; i < count; i++) {
        /* "fail field-230 3": one field fails, the call does not. */
        char name[TEXT];
        snprintf(name, sizeof name, "field-%u", values[i].field);
        values[i].code = failing(gpu->fail, gpu->fails, name);
        if (values[i].code == SUCCESS) values[i].code = field(gpu, &values[i]);
    });
}

/* --- running conditions --- */

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius) {
    if (sensor != 0) return INVALID_ARGUMENT;
    GPU_CALL(*celsius = (unsigned)gpu->temperature);
}
API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, int which,
                                                   unsigned *celsius) {
    static const unsigned LIMITS[] = {92, 89, 95, 87}; /* shutdown, slowdown, memory max, GPU max */
    if (which < 0 || which > 3) return INVALID_ARGUMENT;
    GPU_CALL(*celsius = LIMITS[which]);
}

struct margin {
    unsigned version;
    int celsius;
};

API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, struct margin *margin) {
    if (margin->version != 0x01000008) return ARGUMENT_VERSION_MISMATCH;
    GPU_CALL(margin->celsius = (int)gpu->margin);
}
API nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *mw) {
    GPU_CALL(*mw = (unsigned)gpu->power_mw);
}
API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device,
                                                     unsigned long long *mj) {
    GPU_CALL(*mj = energy_mj(index_of(device)));
}
API nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *mw) {
    GPU_CALL(*mw = (unsigned)gpu->power_limit_mw);
}
API nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned *mw) {
    GPU_CALL(*mw = (unsigned)gpu->power_default_mw);
}
API nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device,
                                                        unsigned long long *reasons) {
    GPU_CALL(*reasons = gpu->clock_reasons);
}
API nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device,
                                                           unsigned long long *reasons) {
    GPU_CALL(*reasons = gpu->clock_reasons);
}
API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, int type, unsigned *mhz) {
    static const unsigned CLOCKS[] = {1980, 1980, 3201, 1545}; /* graphics, SM, memory, video */
    if (type < 0 || type > 3) return INVALID_ARGUMENT;
    GPU_CALL(*mhz = CLOCKS[type]);
}
API nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, int *mode) {
    GPU_CALL(*mode = gpu->persistence != 0);
}
API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *now, unsigned *pending) {
    GPU_CALL(*now = gpu->mig_current != 0; *pending = gpu->mig_pending != 0);
}
API nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device) {
    const struct gpu *gpu;
    nvmlReturn_t code = enter_gpu(__func__, device, &gpu);
    if (code != SUCCESS) return code;
    if (gpu->inforom_corrupt) code = CORRUPTED_INFOROM;
    state_unlock();
    return code;
}

struct process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                         struct process *processes) {
    const struct gpu *gpu;
    nvmlReturn_t code = enter_gpu(__func__, device, &gpu);
    if (code != SUCCESS) return code;
    unsigned running = (unsigned)gpu->processes;
    if (*count < running) {
        code = INSUFFICIENT_SIZE;
    } else {
        for (unsigned i = 0; i < running; i++)
            processes[i] = (struct process){4000 + i, gpu->memory_used / running, ~0u, ~0u};
    }
    *count = running;
    state_unlock();
    return code;
}

struct utilization {
    unsigned gpu, memory;
};

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, struct utilization *percent) {
    GPU_CALL(*percent = ((struct utilization){(unsigned)gpu->utilization,
                                              (unsigned)gpu->utilization / 2}));
}
