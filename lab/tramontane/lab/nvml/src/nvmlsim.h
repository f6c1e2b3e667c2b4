/* What the parts of the simulated NVML share: state.c reads the state file, nvml.c has the
 * library, the handles and the events, device.c what is asked of one GPU, links.c of its links.
 *
 * The state file is named by TRAMONTANE_NVML_STATE. It is lines of "key value"; state.c lists the
 * keys. It is read again whenever its inode, size or modification time (ns) has changed, so a
 * writer that replaces it atomically changes the machine between two calls. No file: no driver.
 */
#ifndef TRAMONTANE_NVMLSIM_H
#define TRAMONTANE_NVMLSIM_H

#include <stdint.h>

#define MAX_GPUS 64
#define MAX_LINKS 36
#define MAX_EVENTS 256
#define MAX_FAILS 32
#define TEXT 96

/* Return codes, as NVML numbers them. */
enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    CORRUPTED_INFOROM = 14,
    GPU_IS_LOST = 15,
    RESET_REQUIRED = 16,
    LIB_RM_VERSION_MISMATCH = 18,
    MEMORY = 20,
    ARGUMENT_VERSION_MISMATCH = 25,
};

/* One function that does not answer as it should: "missing" is FUNCTION_NOT_FOUND (13). */
struct fail {
    char function[TEXT];
    int code;
};

struct event {
    uint64_t seq;
    uint64_t gpu;
    uint64_t type;
    uint64_t data;
};

/* What is counted per link; a GPU with `nvlink5` counts other things than one without. */
enum { REPLAYS, RECOVERIES, CRC, FAILED, LINK_COUNTS };

struct gpu {
    char product[TEXT], uuid[TEXT], serial[TEXT], bus_id[TEXT], vbios[TEXT], gsp[TEXT];
    uint64_t memory, memory_used;
    uint64_t ecc_current, ecc_pending;
    uint64_t ecc_vol_corr, ecc_vol_unc, ecc_agg_corr, ecc_agg_unc;
    uint64_t ecc_sram_unc, ecc_sram_threshold;
    uint64_t remap_corr, remap_unc, remap_pending, remap_failure;
    uint64_t recovery_action;
    uint64_t banks_without_spares, bank_active, bank_pending, bank_exhausted;
    uint64_t retires_pages, retired_single, retired_double, retired_pending;
    uint64_t repair_channel, repair_tpc;
    uint64_t temperature, memory_temperature, margin;
    uint64_t power_mw, power_limit_mw, power_default_mw, clock_reasons, utilization;
    uint64_t persistence, mig_current, mig_pending, processes;
    uint64_t pcie_width, pcie_max_width, pcie_gen, pcie_max_gen, pcie_replays;
    uint64_t fabric_state, fabric_status, fabric_mask, fabric_summary, fabric_clique;
    uint64_t inforom_corrupt, lost, reset_required, hang;
    uint64_t nvlinks, nvlink[MAX_LINKS], nvlink5, link_counts[LINK_COUNTS][MAX_LINKS];
    int fails;
    struct fail fail[MAX_FAILS];
};

struct state {
    char driver[TEXT];
    uint64_t cuda, hang, init_error;
    int fails;
    struct fail fail[MAX_FAILS];
    int gpus;
    struct gpu gpu[MAX_GPUS];
    int events; /* a ring: event[i % MAX_EVENTS], the newest at events - 1 */
    struct event event[MAX_EVENTS];
};

/* Lock the state and return it, read again if the file changed; NULL without a file.
 * Every call must be paired with state_unlock(), also after NULL. */
const struct state *state_lock(void);
void state_unlock(void);

/* Return what a GPU has drawn since the library was loaded (mJ): its power over time, of which
 * the file says the present value. Only while the state is locked. */
uint64_t energy_mj(unsigned index);

void sleep_ms(unsigned ms);
uint64_t now_ms(void);

/* --- entering a call (nvml.c) --- */

#define API __attribute__((visibility("default")))
#define POLL_MS 5 /* how soon a waiting call sees that the state file changed */

typedef int nvmlReturn_t;
typedef struct gpu_handle *nvmlDevice_t;

/* Return the code that a list of fail lines asks for, SUCCESS if none names the function. */
nvmlReturn_t failing(const struct fail *list, int count, const char *function);
/* Enter a call about the whole machine; on SUCCESS the state is locked and *state is set. */
nvmlReturn_t enter(const char *function, const struct state **state);
/* Enter a call about one GPU; on SUCCESS the state is locked and *gpu is set. */
nvmlReturn_t enter_gpu(const char *function, nvmlDevice_t device, const struct gpu **gpu);
unsigned index_of(nvmlDevice_t device);
void text(char *to, unsigned size, const char *from);

/* A field of one link (links.c): LINK_STATE, or one of its counts. */
enum { LINK_STATE = 165 };
nvmlReturn_t link_field(const struct gpu *gpu, unsigned field, unsigned link, uint64_t *value);

/* Run the statements with `gpu` in scope and the state locked, then return SUCCESS. */
#define GPU_CALL(...)                                               \
    do {                                                            \
        const struct gpu *gpu;                                      \
        nvmlReturn_t code = enter_gpu(__func__, device, &gpu);      \
        if (code != SUCCESS) return code;                           \
        __VA_ARGS__;                                                \
        state_unlock();                                             \
        return SUCCESS;                                             \
    } while (0)

/* The same, for a value that may not be there: `when` false is NOT_SUPPORTED. */
#define GPU_CALL_IF(when, ...)                                      \
    do {                                                            \
        const struct gpu *gpu;                                      \
        nvmlReturn_t code = enter_gpu(__func__, device, &gpu);      \
        if (code != SUCCESS) return code;                           \
        if (when) {                                                 \
            __VA_ARGS__;                                            \
        } else {                                                    \
            code = NOT_SUPPORTED;                                   \
        }                                                           \
        state_unlock();                                             \
        return code;                                                \
    } while (0)

#endif
