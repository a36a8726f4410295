/* The same module as examples/greeter.rs, in C. It can take over from the other and back, with its state.
 *
 *     cc -shared -fPIC -O2 -I crates/pickup-module/include -o plugins/greeter.so examples/modules/greeter.c
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pickup_module.h"

enum { GREET = 1, COUNT = 2, STATE_SCHEMA = 1 };

PICKUP_MODULE_DESCRIPTOR("greeter", "1.0", 0, STATE_SCHEMA);

typedef struct {
    char greeting[64];
    /* How many were greeted, by this generation and those before it. */
    _Atomic uint64_t count;
} greeter;

static void write_text(const pickup_sink *sink, const char *text) {
    sink->write(sink->context, (const uint8_t *)text, strlen(text));
}

static int32_t activate(const pickup_host *host, pickup_slice config, const pickup_handoff *handoff, void **instance,
                        const pickup_sink *error) {
    greeter *it = calloc(1, sizeof *it);
    if (it == NULL || config.length >= sizeof it->greeting) {
        free(it);
        write_text(error, it == NULL ? "find memory" : "greet at such length");
        return PICKUP_FAILED;
    }
    if (config.length > 0) {
        memcpy(it->greeting, config.bytes, config.length);
    } else {
        strcpy(it->greeting, "hello");
    }
    uint64_t count = 0;
    if (handoff != NULL && handoff->state_schema == STATE_SCHEMA && handoff->state.length == sizeof count) {
        memcpy(&count, handoff->state.bytes, sizeof count);
    }
    atomic_init(&it->count, count);
    static const char line[] = "in C";
    host->log(host->context, 3, (const uint8_t *)line, sizeof line - 1);
    *instance = it;
    return PICKUP_OK;
}

static int32_t deactivate(void *instance) {
    free(instance);
    return PICKUP_OK;
}

static int32_t handle(void *instance, uint32_t operation, pickup_slice request, const pickup_sink *reply) {
    greeter *it = instance;
    char count[32];
    switch (operation) {
    case GREET:
        atomic_fetch_add_explicit(&it->count, 1, memory_order_relaxed);
        write_text(reply, it->greeting);
        write_text(reply, ", ");
        reply->write(reply->context, request.bytes, request.length);
        return PICKUP_OK;
    case COUNT:
        snprintf(count, sizeof count, "%llu", (unsigned long long)atomic_load(&it->count));
        write_text(reply, count);
        return PICKUP_OK;
    default:
        return PICKUP_UNKNOWN_OPERATION;
    }
}

static int32_t export_state(void *instance, const pickup_sink *state) {
    uint64_t count = atomic_load(&((greeter *)instance)->count);
    state->write(state->context, (const uint8_t *)&count, sizeof count);
    return PICKUP_OK;
}

static const pickup_module_table table = {
    .size = sizeof(pickup_module_table),
    .activate = activate,
    .deactivate = deactivate,
    .handle = handle,
    .export_state = export_state,
};

const pickup_module_table *pickup_module_entry_v1(uint32_t host_abi_minor) {
    /* Any host of this major version will do: nothing is used that was added later. */
    (void)host_abi_minor;
    return &table;
}
