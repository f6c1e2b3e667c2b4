/* What NVML says of one GPU's links: NVLink, the fabric behind it, PCIe.
 *
 * Up to NVLink 4 a link counts replays, recoveries and CRC errors; NVLink 5 counts recoveries that
 * did and did not help, and errors that its coding could not mend.
 */
#include "nvmlsim.h"

#include <string.h>

nvmlReturn_t link_field(const struct gpu *gpu, unsigned field, unsigned link, uint64_t *value) {
    int kind;
    switch (field) {
    case LINK_STATE: kind = LINK_COUNTS; break;
    case 161: kind = REPLAYS; break;
    case 162: kind = RECOVERIES; break;
    case 163: kind = CRC; break;
    case 213: kind = RECOVERIES; break;
    case 214: kind = FAILED; break;
    case 219: kind = CRC; break;
    default: return NOT_SUPPORTED;
    }
    if (kind != LINK_COUNTS && (field > 200) != (gpu->nvlink5 != 0)) return NOT_SUPPORTED;
    if (link >= gpu->nvlinks) return INVALID_ARGUMENT;
    *value = kind == LINK_COUNTS ? gpu->nvlink[link] : gpu->link_counts[kind][link];
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned *width) {
    GPU_CALL(*width = (unsigned)gpu->pcie_width);
}
API nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned *width) {
    GPU_CALL(*width = (unsigned)gpu->pcie_max_width);
}
API nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned *generation) {
    GPU_CALL(*generation = (unsigned)gpu->pcie_gen);
}
API nvmlReturn_t nvmlDeviceGetGpuMaxPcieLinkGeneration(nvmlDevice_t device, unsigned *generation) {
    GPU_CALL(*generation = (unsigned)gpu->pcie_max_gen);
}
API nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned *generation) {
    GPU_CALL(*generation = (unsigned)gpu->pcie_max_gen);
}
API nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned *replays) {
    GPU_CALL(*replays = (unsigned)gpu->pcie_replays);
}
API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, unsigned *state) {
    if (link >= MAX_LINKS) return INVALID_ARGUMENT;
    GPU_CALL_IF(link < gpu->nvlinks, *state = (unsigned)gpu->nvlink[link]);
}
API nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned link, int counter,
                                                 unsigned long long *errors) {
    static const int KINDS[] = {REPLAYS, RECOVERIES, CRC, CRC}; /* flits and data alike */
    if (link >= MAX_LINKS || counter < 0 || counter > 3) return INVALID_ARGUMENT;
    GPU_CALL_IF(link < gpu->nvlinks && !gpu->nvlink5,
                *errors = gpu->link_counts[KINDS[counter]][link]);
}

struct fabric_info {
    unsigned version;
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
    unsigned mask;
    unsigned char summary; /* since version 3 */
};

API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, struct fabric_info *info) {
    enum { V2 = 0x02000024, V3 = 0x03000028 };
    unsigned version = info->version;
    if (version != V2 && version != V3) return ARGUMENT_VERSION_MISMATCH;
    GPU_CALL({
        memset(info->cluster, 0, sizeof info->cluster);
        info->status = (int)gpu->fabric_status;
        info->clique = (unsigned)gpu->fabric_clique;
        info->state = (unsigned char)gpu->fabric_state;
        info->mask = (unsigned)gpu->fabric_mask;
        if (version == V3) info->summary = (unsigned char)gpu->fabric_summary;
    });
}
