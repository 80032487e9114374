/* The limit that a disk cloner is measured against: copy known extents and do nothing else.
 *
 *   clone-limit [--verify] [--huge] [--workers N] [--block BYTES] SOURCE TARGET EXTENTS
 *   clone-limit --read     [--huge] [--workers N] [--block BYTES] SOURCE EXTENTS
 *
 * EXTENTS is a text file with one `START SIZE` in bytes a line. The extents are cut at multiples of the block size, as
 * etsclone cuts them; N threads take the blocks in order, read each with O_DIRECT into a page-aligned buffer and write
 * it with O_DIRECT. Then the target is made durable. --verify also flushes the target's page cache and reads the copied
 * extents of it once: nothing is compared or hashed, so this is a limit and no verification. --read only reads SOURCE.
 * --huge asks for buffers in huge pages.
 *
 * Build: cc -O2 -pthread -o clone-limit clone-limit.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_WORKERS = 256, HUGE_PAGE = 2 << 20 };

struct block {
    off_t start;
    size_t size;
};

/* One pass over all blocks: each is read from one descriptor, and written to the other unless that is -1. */
struct pass {
    const struct block *blocks;
    size_t count;
    size_t block_size;
    int huge;
    int from;
    int to;
    atomic_size_t next;
};

struct options {
    int verify;
    int read_only;
    int huge;
    size_t workers;
    size_t block_size;
};

static void die(const char *format, ...)
{
    int error = errno;
    va_list arguments;

    va_start(arguments, format);
    fputs("clone-limit: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (error)
        fprintf(stderr, ": %s", strerror(error));
    fputc('\n', stderr);
    exit(1);
}

static void append(struct block **blocks, size_t *count, size_t *room, off_t start, size_t size)
{
    if (*count == *room) {
        *room = *room ? 2 * *room : 4096;
        *blocks = realloc(*blocks, *room * sizeof **blocks);
        if (!*blocks)
            die("no memory for %zu blocks", *room);
    }
    (*blocks)[(*count)++] = (struct block){start, size};
}

static struct block *read_blocks(const char *path, size_t block_size, size_t *count)
{
    struct block *blocks = NULL;
    size_t room = 0;
    unsigned long long start, size, end, cut;
    FILE *file = fopen(path, "r");
    int fields;

    if (!file)
        die("%s", path);
    *count = 0;
    while ((fields = fscanf(file, "%llu %llu", &start, &size)) == 2) {
        for (end = start + size; start < end; start = cut) {
            cut = start - start % block_size + block_size;
            if (cut > end)
                cut = end;
            append(&blocks, count, &room, (off_t)start, cut - start);
        }
    }
    if (fields != EOF) {
        errno = 0;
        die("%s is no list of START SIZE", path);
    }
    fclose(file);
    return blocks;
}

static void read_block(int descriptor, struct block block, char *buffer)
{
    for (size_t done = 0; done < block.size;) {
        ssize_t got = pread(descriptor, buffer + done, block.size - done, block.start + (off_t)done);
        if (got <= 0)
            die("cannot read at byte %lld", (long long)block.start + (long long)done);
        done += (size_t)got;
    }
}

static void write_block(int descriptor, struct block block, const char *buffer)
{
    for (size_t done = 0; done < block.size;) {
        ssize_t put = pwrite(descriptor, buffer + done, block.size - done, block.start + (off_t)done);
        if (put <= 0)
            die("cannot write at byte %lld", (long long)block.start + (long long)done);
        done += (size_t)put;
    }
}

static void *work(void *argument)
{
    struct pass *pass = argument;
    size_t number;
    size_t page = pass->huge ? HUGE_PAGE : 4096;
    size_t room = (pass->block_size + page - 1) / page * page;
    char *buffer = aligned_alloc(page, room);

    if (!buffer || (pass->huge && madvise(buffer, room, MADV_HUGEPAGE) < 0))
        die("no memory for a buffer");
    while ((number = atomic_fetch_add(&pass->next, 1)) < pass->count) {
        read_block(pass->from, pass->blocks[number], buffer);
        if (pass->to >= 0)
            write_block(pass->to, pass->blocks[number], buffer);
    }
    free(buffer);
    return NULL;
}

static void run_pass(const struct block *blocks, size_t count, const struct options *options, int from, int to)
{
    pthread_t threads[MAX_WORKERS];
    struct pass pass = {blocks, count, options->block_size, options->huge, from, to, 0};

    for (size_t i = 0; i < options->workers; i++) {
        errno = pthread_create(&threads[i], NULL, work, &pass);
        if (errno)
            die("no thread");
    }
    for (size_t i = 0; i < options->workers; i++)
        pthread_join(threads[i], NULL);
}

static int open_direct(const char *path, int flags)
{
    int descriptor = open(path, flags | O_DIRECT | O_CLOEXEC);

    if (descriptor < 0)
        die("%s", path);
    return descriptor;
}

static void make_durable(int descriptor)
{
    if (fsync(descriptor) < 0)
        die("fsync");
}

static void drop_cache(int descriptor)
{
    struct stat status;

    if (fstat(descriptor, &status) < 0)
        die("fstat");
    if (S_ISBLK(status.st_mode) && ioctl(descriptor, BLKFLSBUF, 0) < 0)
        die("BLKFLSBUF");
}

static void usage(void)
{
    fputs("usage: clone-limit [--verify] [--huge] [--workers N] [--block BYTES] SOURCE TARGET EXTENTS\n"
          "       clone-limit --read     [--huge] [--workers N] [--block BYTES] SOURCE EXTENTS\n",
          stderr);
    exit(2);
}

static size_t number(const char *text, size_t most)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;

    if (!value || *end || value > most)
        usage();
    return value;
}

/* Returns the index of the first word that is no option. */
static int parse(char **words, struct options *options)
{
    int i = 1;

    for (; words[i] && words[i][0] == '-'; i++) {
        if (!strcmp(words[i], "--verify"))
            options->verify = 1;
        else if (!strcmp(words[i], "--huge"))
            options->huge = 1;
        else if (!strcmp(words[i], "--read"))
            options->read_only = 1;
        else if (!strcmp(words[i], "--workers"))
            options->workers = number(words[++i], MAX_WORKERS);
        else if (!strcmp(words[i], "--block"))
            options->block_size = number(words[++i], 1UL << 30);
        else
            usage();
    }
    return i;
}

int main(int count, char **words)
{
    struct options options = {.workers = 4, .block_size = 1 << 20};
    int first = parse(words, &options), source, target;
    struct block *blocks;
    size_t blocks_count;

    if (count - first != (options.read_only ? 2 : 3) || (options.read_only && options.verify))
        usage();
    if (options.block_size % 4096)
        usage();
    blocks = read_blocks(words[count - 1], options.block_size, &blocks_count);
    source = open_direct(words[first], O_RDONLY);
    if (options.read_only) {
        run_pass(blocks, blocks_count, &options, source, -1);
        return 0;
    }
    target = open_direct(words[first + 1], O_RDWR);
    run_pass(blocks, blocks_count, &options, source, target);
    make_durable(target);
    if (options.verify) {
        drop_cache(target);
        run_pass(blocks, blocks_count, &options, target, -1);
    }
    return 0;
}
