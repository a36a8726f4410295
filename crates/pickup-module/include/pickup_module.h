/* The contract between pickup and the modules it loads.
 * Made from crates/pickup-module/src/contract.rs: UPDATE_HEADER=1 cargo test -p pickup-module
 *
 * A module defines two symbols: `const pickup_descriptor pickup_module_descriptor_v1`, which is read from the file before
 * any code runs, and `pickup_module_entry_v1`, which gives its table of functions. PICKUP_MODULE_DESCRIPTOR writes the
 * first one. Each side frees what it allocated; whatever a module returns it writes to a sink. Nothing is ever unloaded.
 */
#ifndef PICKUP_MODULE_H
#define PICKUP_MODULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__x86_64__)
#define PICKUP_MODULE_ARCH "x86_64"
#elif defined(__aarch64__)
#define PICKUP_MODULE_ARCH "aarch64"
#elif defined(__riscv) && __riscv_xlen == 64
#define PICKUP_MODULE_ARCH "riscv64"
#else
#error "pickup_module.h does not know this architecture"
#endif
#if defined(__linux__)
#define PICKUP_MODULE_TARGET PICKUP_MODULE_ARCH "-linux"
#else
#error "pickup_module.h does not know this system"
#endif
#define PICKUP_MODULE_EXPORT __attribute__((visibility("default")))

#define PICKUP_MODULE_MAGIC UINT64_C(0x316d70756b636970)
#define PICKUP_MODULE_ABI_MAJOR UINT32_C(1)
#define PICKUP_MODULE_ABI_MINOR UINT32_C(0)
/* The module runs threads of its own between activate and drain. */
#define PICKUP_MODULE_FLAG_THREADS UINT32_C(1)

/* What a call came to. */
typedef enum pickup_status {
    /* Done. */
    PICKUP_OK = 0,
    /* Of health: not healthy yet, ask again. */
    PICKUP_NOT_YET = 1,
    /* Failed; the reason is in the sink for errors. */
    PICKUP_FAILED = 2,
    /* The module's code panicked, and the panic was caught. */
    PICKUP_PANICKED = 3,
    /* Of handle: there is no such operation. */
    PICKUP_UNKNOWN_OPERATION = 4,
} pickup_status;

/* What a module says about itself without being run. It lies in the file as it is in memory: constant, and without
 * pointers. */
typedef struct pickup_descriptor {
    /* PICKUP_MODULE_MAGIC. */
    uint64_t magic;
    /* sizeof(pickup_descriptor). */
    uint32_t size;
    /* PICKUP_MODULE_ABI_MAJOR. */
    uint32_t abi_major;
    /* PICKUP_MODULE_ABI_MINOR. */
    uint32_t abi_minor;
    /* PICKUP_MODULE_FLAG_... or 0. A host refuses a module with a flag that it does not know. */
    uint32_t flags;
    /* The form of the state that export_state writes; 0 if there is none. */
    uint32_t state_schema;
    /* Zero. */
    uint32_t reserved[9];
    /* The module's name, filled up with zeros. */
    char name[64];
    /* The module's version, filled up with zeros. */
    char version[32];
    /* PICKUP_MODULE_TARGET: architecture and system, such as x86_64-linux. */
    char target[48];
} pickup_descriptor;

/* Bytes that belong to the caller and are valid during the call. */
typedef struct pickup_slice {
    /* The first byte; may be NULL if there is none. */
    const uint8_t *bytes;
    /* How many there are. */
    size_t length;
} pickup_slice;

/* Takes what a call returns: an answer, a state or the reason of a failure. Valid during the call, on its thread. */
typedef struct pickup_sink {
    /* sizeof(pickup_sink). */
    uint32_t size;
    /* To be given to write. */
    void *context;
    /* Appends bytes. Once too much was written, or memory ran out, the rest is dropped and the call fails. */
    void (*write)(void *context, const uint8_t *bytes, size_t length);
} pickup_sink;

/* What a module may ask of its host: from any thread, until deactivate returns. */
typedef struct pickup_host {
    /* sizeof(pickup_host) of the host. */
    uint32_t size;
    /* The highest abi_minor that the host knows. */
    uint32_t abi_minor;
    /* To be given to the functions. */
    void *context;
    /* Logs a line of UTF-8. Level: 1 error, 2 warning, 3 info, 4 debug, 5 trace. */
    void (*log)(void *context, uint32_t level, const uint8_t *text, size_t length);
    /* Whether this generation is to end, so that its threads may stop: 1 if so, else 0. */
    int32_t (*is_stopping)(void *context);
} pickup_host;

/* The state of the generation before, for the one that replaces it. Valid during the call. */
typedef struct pickup_handoff {
    /* sizeof(pickup_handoff) of the host. */
    uint32_t size;
    /* The state_schema of the generation that wrote it. */
    uint32_t state_schema;
    /* What its export_state wrote. */
    pickup_slice state;
} pickup_handoff;

/* What every table of an interface begins with. */
typedef struct pickup_interface {
    /* sizeof the whole table. */
    uint32_t size;
    /* Must be the one the host asks for. */
    uint32_t version;
} pickup_interface;

/* A module's functions. Each returns a pickup_status. Those marked optional may be NULL. */
typedef struct pickup_module_table {
    /* sizeof(pickup_module_table) of the module. */
    uint32_t size;
    /* Zero. */
    uint32_t reserved;
    /* Makes an instance beside those that run; it serves once this returns. handoff is NULL where there is no state. */
    int32_t (*activate)(const pickup_host *host, pickup_slice config, const pickup_handoff *handoff, void **instance, const pickup_sink *error);
    /* Ends an instance: no call is in flight, none will come, and its threads have ended when this returns. */
    int32_t (*deactivate)(void *instance);
    /* Optional. Carries out one operation, from any thread, many at once. A failure's reason goes into reply. */
    int32_t (*handle)(void *instance, uint32_t operation, pickup_slice request, const pickup_sink *reply);
    /* Optional. Says whether the instance works. */
    int32_t (*health)(void *instance, const pickup_sink *error);
    /* Optional. Takes no new work of its own and joins its threads, within deadline_ms. */
    int32_t (*drain)(void *instance, uint64_t deadline_ms, const pickup_sink *error);
    /* Optional. Writes the state for the next generation: bytes that mean something to it, never pointers. */
    int32_t (*export_state)(void *instance, const pickup_sink *state);
    /* Optional. Called in the probe process, before the module is loaded into any host. */
    int32_t (*self_test)(const pickup_sink *error);
    /* Optional. A table of functions that the embedder and the module agreed on, by name; it begins with its size
     * and its version, and lives as long as the process. NULL if there is none of that name. */
    const pickup_interface *(*interface)(pickup_slice name);
} pickup_module_table;

/* Gives the module's functions, or NULL if it cannot serve a host that knows only this abi_minor. */
PICKUP_MODULE_EXPORT const pickup_module_table *pickup_module_entry_v1(uint32_t host_abi_minor);

/* Defines what the module says about itself; flags are PICKUP_MODULE_FLAG_... or 0, schema is 0 if it exports no state. */
#define PICKUP_MODULE_DESCRIPTOR(module_name, module_version, module_flags, schema) \
    extern PICKUP_MODULE_EXPORT const pickup_descriptor pickup_module_descriptor_v1; \
    const pickup_descriptor pickup_module_descriptor_v1 = { \
        PICKUP_MODULE_MAGIC, (uint32_t)sizeof(pickup_descriptor), PICKUP_MODULE_ABI_MAJOR, PICKUP_MODULE_ABI_MINOR, \
        (module_flags), (schema), { 0 }, module_name, module_version, PICKUP_MODULE_TARGET \
    }

#ifdef __cplusplus
}
#endif

#endif
