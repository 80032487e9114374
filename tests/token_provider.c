/* What ssh-keygen loads to sign with a FIDO token (OpenSSH's PROTOCOL.u2f, sk-api.h): the token is a program that
 * listens at $SOFT_TOKEN. It is told what to sign, and answers with flags, counter and signature. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define VERSION 0x000a0000
#define GENERAL_FAILURE -1
#define SIGNATURE 64
#define ANSWER (1 + 4 + SIGNATURE)

struct sk_sign_response {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r;
    size_t sig_r_len;
    uint8_t *sig_s;
    size_t sig_s_len;
};

uint32_t sk_api_version(void) {
    return VERSION;
}

static int ask(const uint8_t *data, size_t size, uint8_t *answer) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("SOFT_TOKEN");
    size_t got = 0;
    ssize_t more = -1;
    int token = socket(AF_UNIX, SOCK_STREAM, 0);

    if (token < 0 || !path || strlen(path) >= sizeof address.sun_path)
        return 0;
    strcpy(address.sun_path, path);
    if (connect(token, (struct sockaddr *)&address, sizeof address) == 0 &&
        write(token, data, size) == (ssize_t)size && shutdown(token, SHUT_WR) == 0)
        while (got < ANSWER && (more = read(token, answer + got, ANSWER - got)) > 0)
            got += more;
    close(token);
    return got == ANSWER;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t size, const char *application, const uint8_t *handle,
            size_t handle_size, uint8_t flags, const char *pin, void **options, struct sk_sign_response **response) {
    struct sk_sign_response *made;
    uint8_t answer[ANSWER];

    (void)alg, (void)application, (void)handle, (void)handle_size, (void)flags, (void)pin, (void)options;
    if (!ask(data, size, answer) || !(made = calloc(1, sizeof *made)) || !(made->sig_r = malloc(SIGNATURE)))
        return GENERAL_FAILURE;
    made->flags = answer[0];
    made->counter = (uint32_t)answer[1] << 24 | answer[2] << 16 | answer[3] << 8 | answer[4];
    memcpy(made->sig_r, answer + 5, made->sig_r_len = SIGNATURE);
    *response = made;
    return 0;
}

int sk_enroll(void) {
    return GENERAL_FAILURE;
}

int sk_load_resident_keys(void) {
    return GENERAL_FAILURE;
}
