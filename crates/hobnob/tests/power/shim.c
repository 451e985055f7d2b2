/* Writes down what a process does to the files of a log: loaded before the C library (LD_PRELOAD), it appends a record to
 * $POWER_JOURNAL for each write, each cut and each sync of a file named log.db or log.db-wal, in the order they happen.
 *
 *   record: kind 'W' | 'T' | 'S', file 0 (log.db) | 1 (log.db-wal), offset or length (8 bytes), bytes (8 bytes), data
 *
 * A write is noted before it is done, and a sync once it has returned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;

static int ends_with(const char *text, const char *end) {
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* 0 or 1; -1 for another file. */
static int which(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return -1;
    path[length] = 0;
    return ends_with(path, "/log.db") ? 0 : ends_with(path, "/log.db-wal") ? 1 : -1;
}

static void note(char kind, int file, uint64_t at, const void *data, uint64_t bytes) {
    char head[18] = {kind, (char)file};
    memcpy(head + 2, &at, 8);
    memcpy(head + 10, &bytes, 8);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, data ? bytes : 0}};
    pthread_mutex_lock(&lock);
    if (journal < 0) {
        const char *path = getenv("POWER_JOURNAL");
        if (path) journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    if (journal < 0 || syscall(SYS_writev, journal, parts, 2) != (long)(18 + parts[1].iov_len)) abort();
    pthread_mutex_unlock(&lock);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    int file = which(fd);
    if (file >= 0) note('W', file, (uint64_t)lseek(fd, 0, SEEK_CUR), data, bytes);
    return syscall(SYS_write, fd, data, bytes);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) {
    int file = which(fd);
    if (file >= 0) note('W', file, (uint64_t)at, data, bytes);
    return syscall(SYS_pwrite64, fd, data, bytes, at);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at) {
    return pwrite(fd, data, bytes, (off_t)at);
}

int ftruncate(int fd, off_t length) {
    int file = which(fd);
    if (file >= 0) note('T', file, (uint64_t)length, NULL, 0);
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length) {
    return ftruncate(fd, (off_t)length);
}

int fsync(int fd) {
    int done = (int)syscall(SYS_fsync, fd), file = which(fd);
    if (done == 0 && file >= 0) note('S', file, 0, NULL, 0);
    return done;
}

int fdatasync(int fd) {
    int done = (int)syscall(SYS_fdatasync, fd), file = which(fd);
    if (done == 0 && file >= 0) note('S', file, 0, NULL, 0);
    return done;
}
