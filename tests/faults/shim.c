/* Faults for LD_PRELOAD: `cc -shared -fPIC -o shim.so shim.c -ldl`.
 *
 * FAULT_WRITES=N   the N-th write to a regular file (from 0) does half its work, and all after it find
 *                  the disk full
 * FAULT_READ=NAME  of files whose path ends in NAME, bytes from FAULT_FROM on cannot be read: EIO from
 *                  read and pread, SIGBUS from a map
 * FAULT_CLOCK=S    the wall clock goes back by S seconds each time that somebody looks at it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static atomic_long writes;
static atomic_long looks;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static int is_file(int fd)
{
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    long last = number("FAULT_WRITES", -1);
    if (last >= 0 && is_file(fd)) {
        long n = atomic_fetch_add(&writes, 1);
        if (n == last && count > 1)
            return next(fd, bytes, count / 2);
        if (n >= last) {
            errno = ENOSPC;
            return -1;
        }
    }
    return next(fd, bytes, count);
}

/* How many of `count` bytes at `from` may be read; -1: all. */
static long readable(int fd, off_t from, size_t count)
{
    const char *name = getenv("FAULT_READ");
    char link[64], path[4096];
    if (!name)
        return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)strlen(name) || strncmp(path + length - strlen(name), name, strlen(name)))
        return -1;
    off_t bad = number("FAULT_FROM", 0);
    if (from + (off_t)count <= bad)
        return -1;
    return from < bad ? bad - from : 0;
}

ssize_t read(int fd, void *bytes, size_t count)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    long good = readable(fd, lseek(fd, 0, SEEK_CUR), count);
    if (good == 0 && count > 0) {
        errno = EIO;
        return -1;
    }
    return next(fd, bytes, good < 0 ? count : (size_t)good);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t from)
{
    ssize_t (*next)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    long good = readable(fd, from, count);
    if (good == 0 && count > 0) {
        errno = EIO;
        return -1;
    }
    return next(fd, bytes, good < 0 ? count : (size_t)good, from);
}

static void *map(const char *name, void *at, size_t count, int rights, int flags, int fd, off_t from)
{
    void *(*next)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, name);
    char *found = next(at, count, rights, flags, fd, from);
    long good = fd < 0 ? -1 : readable(fd, from, count);
    if (found == MAP_FAILED || good < 0)
        return found;
    /* Pages of an empty file, which nobody can read. */
    size_t page = sysconf(_SC_PAGESIZE), start = good / page * page;
    int empty = memfd_create("empty", 0);
    next(found + start, count - start, rights, MAP_SHARED | MAP_FIXED, empty, 0);
    close(empty);
    return found;
}

void *mmap(void *at, size_t count, int rights, int flags, int fd, off_t from)
{
    return map("mmap", at, count, rights, flags, fd, from);
}

void *mmap64(void *at, size_t count, int rights, int flags, int fd, off64_t from)
{
    return map("mmap64", at, count, rights, flags, fd, from);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next(clock, time);
    long step = number("FAULT_CLOCK", 0);
    if (!failed && step && clock == CLOCK_REALTIME)
        time->tv_sec -= step * (atomic_fetch_add(&looks, 1) + 1);
    return failed;
}
