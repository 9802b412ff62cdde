/* Makes the Nth open for writing, write, rename, fsync or mkdir below a folder fail, as SQLite's tests do.

   cc -shared -fPIC -O1 -o libfaults.so faults.c -ldl; LD_PRELOAD=libfaults.so python …
   `attack_arm` chooses kind, number and errno; `attack_fired` says what failed. Whoever writes, Python or a library of C++ or Rust,
   goes through here. A write that fails has written half of its bytes before, as on a disk that fills up. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, RENAME, FSYNC, MKDIR };
static char root[PATH_MAX], fired[PATH_MAX];
static int armed_kind = -1, armed_errno;
static long armed_number, count;

void attack_arm(const char *folder, int kind, long number, int error) {
    snprintf(root, sizeof root, "%s", folder);
    fired[0] = 0;
    count = 0;
    armed_number = number;
    armed_errno = error;
    armed_kind = kind;
}
void attack_disarm(void) { armed_kind = -1; }
const char *attack_fired(void) { return fired; }
long attack_count(void) { return count; }

static int fails(int kind, const char *path) {
    if (kind != armed_kind || path == NULL || strncmp(path, root, strlen(root)) != 0) return 0;
    if (__sync_add_and_fetch(&count, 1) != armed_number) return 0;
    snprintf(fired, sizeof fired, "%s", path);
    errno = armed_errno;
    return 1;
}
static int fails_of(int kind, int descriptor) {
    char link[64], path[PATH_MAX];
    ssize_t length;
    if (kind != armed_kind) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}
#define REAL(type, name, ...)                                      \
    static type (*real)(__VA_ARGS__);                              \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define MODE_OF(flags)                                             \
    mode_t mode = 0;                                               \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                       \
        va_list more;                                              \
        va_start(more, flags);                                     \
        mode = va_arg(more, mode_t);                               \
        va_end(more);                                              \
    }
#define FOR_WRITING(flags) (((flags) & O_ACCMODE) != O_RDONLY)

int open(const char *path, int flags, ...) {
    REAL(int, "open", const char *, int, ...);
    MODE_OF(flags)
    return FOR_WRITING(flags) && fails(OPEN, path) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    MODE_OF(flags)
    return FOR_WRITING(flags) && fails(OPEN, path) ? -1 : real(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    REAL(int, "openat", int, const char *, int, ...);
    MODE_OF(flags)
    return FOR_WRITING(flags) && fails(OPEN, path) ? -1 : real(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    REAL(int, "openat64", int, const char *, int, ...);
    MODE_OF(flags)
    return FOR_WRITING(flags) && fails(OPEN, path) ? -1 : real(folder, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode) {
    REAL(FILE *, "fopen", const char *, const char *);
    return strpbrk(mode, "wa+") != NULL && fails(OPEN, path) ? NULL : real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    REAL(FILE *, "fopen64", const char *, const char *);
    return strpbrk(mode, "wa+") != NULL && fails(OPEN, path) ? NULL : real(path, mode);
}
ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!fails_of(WRITE, descriptor)) return real(descriptor, data, size);
    if (real(descriptor, data, size / 2) < 0) return -1;
    errno = armed_errno;
    return -1;
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return fails_of(WRITE, descriptor) ? -1 : real(descriptor, data, size, offset);
}
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return fails_of(WRITE, descriptor) ? -1 : real(descriptor, parts, number);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *into, size_t size, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    return fails_of(WRITE, to) ? -1 : real(from, at, to, into, size, flags);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    return fails_of(WRITE, to) ? -1 : real(to, from, at, size);
}
int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fails(RENAME, to) ? -1 : real(from, to);
}
int fsync(int descriptor) {
    REAL(int, "fsync", int);
    return fails_of(FSYNC, descriptor) ? -1 : real(descriptor);
}
int fdatasync(int descriptor) {
    REAL(int, "fdatasync", int);
    return fails_of(FSYNC, descriptor) ? -1 : real(descriptor);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return fails(MKDIR, path) ? -1 : real(path, mode);
}
