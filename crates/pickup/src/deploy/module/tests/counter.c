/* A module for tests: it counts calls and hands the count over. What it does wrong is said when it is compiled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pickup_module.h"

#ifndef VERSION
#define VERSION "1"
#endif

#ifndef WITHOUT_DESCRIPTOR
PICKUP_MODULE_DESCRIPTOR("counter", VERSION, 0, 7);
#endif

typedef struct {
    int count;
} instance;

static const pickup_host *the_host;

static void say(const pickup_sink *sink, const char *text) {
    sink->write(sink->context, (const uint8_t *)text, strlen(text));
}

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void construct(void) { CONSTRUCTOR; }
#endif

#ifdef EXTRA
EXTRA
#endif

static int32_t activate(const pickup_host *host, pickup_slice config, const pickup_handoff *handoff, void **made,
                        const pickup_sink *error) {
    (void)config;
    the_host = host;
#ifdef ACTIVATE
    ACTIVATE;
#endif
    instance *it = calloc(1, sizeof *it);
    if (it == NULL) {
        say(error, "no memory");
        return PICKUP_FAILED;
    }
    if (handoff != NULL && handoff->state_schema == 7 && handoff->state.length == sizeof it->count) {
        memcpy(&it->count, handoff->state.bytes, sizeof it->count);
    }
    *made = it;
    host->log(host->context, 3, (const uint8_t *)"hello", 5);
    return PICKUP_OK;
}

static int32_t deactivate(void *made) {
    free(made);
    return PICKUP_OK;
}

static int32_t handle(void *made, uint32_t operation, pickup_slice request, const pickup_sink *reply) {
    instance *it = made;
    char text[64];
    switch (operation) {
    case 1:
        say(reply, VERSION);
        return PICKUP_OK;
    case 2:
        snprintf(text, sizeof text, "%d", __atomic_add_fetch(&it->count, 1, __ATOMIC_RELAXED));
        say(reply, text);
        return PICKUP_OK;
    case 3:
        reply->write(reply->context, request.bytes, request.length);
        return PICKUP_OK;
    case 4:
        say(reply, "no such luck");
        return PICKUP_FAILED;
    case 5: /* Returns once the generation is to end, or after a while. */
        for (int at = 0; at < 20000 && request.bytes[0] != 'x'; at++) usleep(100);
        return PICKUP_OK;
    default:
        return PICKUP_UNKNOWN_OPERATION;
    }
}

static int32_t health(void *made, const pickup_sink *error) {
    (void)made;
    (void)error;
#ifdef HEALTH
    HEALTH;
#endif
    return PICKUP_OK;
}

static int32_t export_state(void *made, const pickup_sink *state) {
    instance *it = made;
#ifdef EXPORT
    EXPORT;
#endif
    state->write(state->context, (const uint8_t *)&it->count, sizeof it->count);
    return PICKUP_OK;
}

static int32_t self_test(const pickup_sink *error) {
    (void)error;
#ifdef SELF_TEST
    SELF_TEST;
#endif
    return PICKUP_OK;
}

typedef struct {
    pickup_interface header;
    int64_t (*add)(void *made, int64_t a, int64_t b);
} adder;

static int64_t add(void *made, int64_t a, int64_t b) {
    return a + b + ((instance *)made)->count;
}

static const adder the_adder = {{sizeof(adder), 1}, add};

static const pickup_interface *interface(pickup_slice name) {
#ifndef WITHOUT_INTERFACE
    if (name.length == 5 && memcmp(name.bytes, "adder", 5) == 0) return &the_adder.header;
#endif
    (void)name;
    return NULL;
}

#ifndef WITHOUT_ENTRY
static const pickup_module_table the_table = {
    .size = sizeof(pickup_module_table),
    .activate = activate,
    .deactivate = deactivate,
    .handle = handle,
    .health = health,
    .export_state = export_state,
    .self_test = self_test,
    .interface = interface,
};

const pickup_module_table *pickup_module_entry_v1(uint32_t host_abi_minor) {
    (void)host_abi_minor;
    return &the_table;
}
#endif
