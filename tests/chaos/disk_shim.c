/* A disk that fails, for one process: preloaded into the broker, it stands between that and the C
 * library, and touches files whose path begins with that of the journal, and their folder.
 *
 *     LD_PRELOAD=.../disk_shim.so CHAOS_DISK=/path/journal CHAOS_DISK_STATE=/path/state
 *
 * The state folder, on the same disk, has: `control`, shared memory in which the run says what shall
 * fail, and reads what did; `log`, everything written that no completed sync covers yet, with what
 * stood there before; `graves/`, removed files by another name. With the log the run can make of
 * the files, after the process was killed, what a power cut might have left (tests/chaos/disk.py).
 *
 * Rules of this file: a record goes to the log before its change is made, and a sync is logged when
 * it is over, so that a kill in between only makes the disk worse than it was. What it does not
 * model ends the process loudly. The file -shm is left alone: it is memory, and nobody syncs it.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 4096
#define INODES 64
#define SECTOR 512
#define LOG_MAX (512LL << 20)

/* The same as `_CONTROL` in disk.py. */
struct control {
    uint32_t write_error, sync_error, read_error, names_error; /* errno, or 0 */
    uint32_t one_in;        /* how many of those fail: one in so many; 0 and 1: all */
    uint32_t torn;          /* a write that fails may have written its first half */
    uint32_t delay_ms;      /* of each sync, half of it before and half behind the real one */
    uint32_t seed;
    uint32_t settle;        /* forget the log at the next sync: the disk has it all by now */
    uint32_t lies;          /* syncs do nothing, and say that they did */
    uint64_t sequence;
    uint64_t writes, syncs, failed, slowed;
};

enum kind { WRITE = 1, TRUNCATE, SYNC, SYNC_FAILED, CREATE, UNLINK, LINK, FOLDER_SYNC };

/* The same as `_RECORD` in disk.py; followed by two names, what stood there, and what is new. */
struct record {
    uint32_t magic, kind;
    uint64_t sequence, inode, offset, size; /* `size`: of the file, before */
    uint32_t name, other, old, new; /* lengths */
};

enum tracked { NOTHING, FILE_OF_OURS, FOLDER };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct control *control;
static const char *prefix;
static char folder[PATH_MAX], graves[PATH_MAX];
static int log_fd = -1;
static char tracked[FDS];
static struct { uint64_t inode; int dirty; int gone; } inodes[INODES];
static int dirty_names, failed_syncs;

static void die(const char *what)
{
    dprintf(2, "disk_shim: %s (%s)\n", what, strerror(errno));
    _exit(99);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL && (real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)) == NULL) \
        die("no " #name)

__attribute__((constructor)) static void begin(void)
{
    char path[PATH_MAX];
    const char *state = getenv("CHAOS_DISK_STATE");
    prefix = getenv("CHAOS_DISK");
    if (prefix == NULL || state == NULL) {
        prefix = NULL;
        return;
    }
    snprintf(path, sizeof path, "%s", prefix);
    snprintf(folder, sizeof folder, "%s", dirname(path));
    snprintf(graves, sizeof graves, "%s/graves", state);
    snprintf(path, sizeof path, "%s/log", state);
    /* prefix is not yet known to `which`, so that these are real */
    const char *watched = prefix;
    prefix = NULL;
    log_fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    snprintf(path, sizeof path, "%s/control", state);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || log_fd < 0)
        die("no state");
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (control == MAP_FAILED)
        die("no control");
    close(fd);
    failed_syncs = lseek(log_fd, 0, SEEK_END) > 0; /* somebody left what only the run may forget */
    prefix = watched;
}

static enum tracked which(const char *path)
{
    size_t length;
    if (prefix == NULL || path == NULL)
        return NOTHING;
    if (strcmp(path, folder) == 0)
        return FOLDER;
    length = strlen(path);
    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return NOTHING;
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0)
        return NOTHING;
    return FILE_OF_OURS;
}

static enum tracked what(int fd)
{
    return prefix != NULL && fd >= 0 && fd < FDS ? tracked[fd] : NOTHING;
}

/* Whether this shall fail; then errno is set. */
static int fails(uint32_t error)
{
    if (error == 0)
        return 0;
    if (control->one_in > 1) {
        control->seed = control->seed * 1664525u + 1013904223u;
        if ((control->seed >> 8) % control->one_in != 0)
            return 0;
    }
    control->failed++;
    errno = (int)error;
    return 1;
}

/* --- The log --- */

static int *dirty(uint64_t inode)
{
    for (int n = 0; n < INODES; n++)
        if (inodes[n].inode == inode)
            return &inodes[n].dirty;
    for (int n = 0; n < INODES; n++)
        if (inodes[n].dirty == 0) {
            inodes[n].inode = inode;
            inodes[n].gone = 0;
            return &inodes[n].dirty;
        }
    die("too many files");
    return NULL;
}

static void note(enum kind kind, uint64_t inode, uint64_t offset, uint64_t size,
                 const char *name, const char *other, const void *old, size_t old_bytes,
                 const void *new, size_t new_bytes)
{
    REAL(writev);
    struct record record = {
        0x64736b31, kind, ++control->sequence, inode, offset, size,
        name ? strlen(name) : 0, other ? strlen(other) : 0, old_bytes, new_bytes,
    };
    struct iovec parts[] = {
        {&record, sizeof record}, {(void *)name, record.name}, {(void *)other, record.other},
        {(void *)old, old_bytes}, {(void *)new, new_bytes},
    };
    ssize_t all = sizeof record + record.name + record.other + old_bytes + new_bytes;
    if (real(log_fd, parts, 5) != all)
        die("half a record");
}

/* Empties the log if nothing in it matters any more. */
static void tidy(void)
{
    REAL(ftruncate64);
    int waiting = dirty_names + failed_syncs;
    for (int n = 0; n < INODES; n++)
        waiting += inodes[n].dirty;
    if (waiting == 0 || control->settle || lseek(log_fd, 0, SEEK_END) > LOG_MAX) {
        control->settle = 0;
        memset(inodes, 0, sizeof inodes);
        dirty_names = failed_syncs = 0;
        if (real(log_fd, 0) != 0)
            die("log");
    }
}

static struct stat facts(int fd)
{
    struct stat found;
    if (fstat(fd, &found) != 0)
        die("fstat");
    return found;
}

/* What stands between two places of a file now; the caller frees it. */
static char *before(int fd, off_t from, off_t to, size_t *length)
{
    REAL(pread64);
    char *old = malloc(to > from ? to - from : 1);
    ssize_t got = 0, more;
    if (old == NULL)
        die("memory");
    while (from + got < to && (more = real(fd, old + got, to - from - got, from + got)) > 0)
        got += more;
    if (from + got < to)
        die("cannot read what a write replaces");
    *length = got;
    return old;
}

static void note_write(int fd, const void *data, size_t bytes, off_t offset)
{
    struct stat found = facts(fd);
    off_t first = offset / SECTOR * SECTOR;
    off_t last = (offset + (off_t)bytes + SECTOR - 1) / SECTOR * SECTOR;
    if (first > found.st_size)
        first = found.st_size / SECTOR * SECTOR; /* the hole begins here */
    size_t length = 0;
    char *old = before(fd, first, last < found.st_size ? last : found.st_size, &length);
    /* The old bytes begin at `first`, which the reader computes in the same way. */
    note(WRITE, found.st_ino, offset, found.st_size, NULL, NULL, old, length, data, bytes);
    free(old);
    *dirty(found.st_ino) += 1;
}

/* --- Writes --- */

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
    REAL(pwrite64);
    if (what(fd) != FILE_OF_OURS)
        return real(fd, data, bytes, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    int failed = fails(control->write_error);
    control->writes++;
    if (!failed || (control->torn && bytes > 1 && control->sequence % 2)) {
        if (failed)
            bytes /= 2; /* a short write; who goes on, hears of the error */
        note_write(fd, data, bytes, offset);
        done = real(fd, data, bytes, offset);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    return pwrite64(fd, data, bytes, offset);
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    REAL(write);
    if (what(fd) != FILE_OF_OURS)
        return real(fd, data, bytes);
    off_t at = fcntl(fd, F_GETFL) & O_APPEND ? facts(fd).st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t done = pwrite64(fd, data, bytes, at);
    if (done > 0)
        lseek(fd, at + done, SEEK_SET);
    return done;
}

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);
    if (what(fd) != FILE_OF_OURS)
        return real(fd, size);
    pthread_mutex_lock(&lock);
    int done = -1;
    control->writes++;
    if (!fails(control->write_error)) {
        struct stat found = facts(fd);
        size_t length = 0;
        off_t first = (size < found.st_size ? size : found.st_size) / SECTOR * SECTOR;
        char *old = before(fd, first, found.st_size, &length);
        note(TRUNCATE, found.st_ino, size, found.st_size, NULL, NULL, old, length, NULL, 0);
        free(old);
        *dirty(found.st_ino) += 1;
        done = real(fd, size);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

/* --- Syncs --- */

static void wait_ms(uint32_t ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
    while (ms && nanosleep(&left, &left) != 0)
        continue;
}

static int synced(int fd, int (*real)(int))
{
    uint32_t delay_ms = control->delay_ms;
    if (control->lies)
        return 0;
    pthread_mutex_lock(&lock);
    uint64_t inode = facts(fd).st_ino, until = control->sequence;
    enum tracked kind = what(fd);
    int failed = fails(control->sync_error), error = errno;
    control->syncs++;
    control->slowed += delay_ms != 0;
    pthread_mutex_unlock(&lock);
    wait_ms(delay_ms / 2);
    int done = failed ? -1 : real(fd);
    if (done != 0 && !failed)
        error = errno;
    pthread_mutex_lock(&lock);
    if (done != 0) {
        /* As Linux does it: the pages count as written, and are not. */
        note(SYNC_FAILED, inode, until, 0, NULL, NULL, NULL, 0, NULL, 0);
        failed_syncs++;
    } else if (kind == FOLDER) {
        note(FOLDER_SYNC, inode, until, 0, NULL, NULL, NULL, 0, NULL, 0);
        dirty_names = 0;
        for (int n = 0; n < INODES; n++)
            if (inodes[n].gone)
                inodes[n].dirty = 0;
    } else {
        note(SYNC, inode, until, 0, NULL, NULL, NULL, 0, NULL, 0);
        *dirty(inode) = 0;
    }
    if (done == 0)
        tidy();
    pthread_mutex_unlock(&lock);
    wait_ms(delay_ms - delay_ms / 2);
    errno = error;
    return done;
}

int fsync(int fd)
{
    REAL(fsync);
    return what(fd) == NOTHING ? real(fd) : synced(fd, real);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return what(fd) == NOTHING ? real(fd) : synced(fd, real);
}

/* --- Reads --- */

ssize_t pread64(int fd, void *data, size_t bytes, off64_t offset)
{
    REAL(pread64);
    if (what(fd) == FILE_OF_OURS && fails(control->read_error))
        return -1;
    return real(fd, data, bytes, offset);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
    return pread64(fd, data, bytes, offset);
}

ssize_t read(int fd, void *data, size_t bytes)
{
    REAL(read);
    if (what(fd) == FILE_OF_OURS && fails(control->read_error))
        return -1;
    return real(fd, data, bytes);
}

/* --- Names --- */

static int opened(int place, const char *path, int flags, mode_t mode)
{
    REAL(openat64);
    enum tracked kind = which(path);
    if (kind == NOTHING)
        return real(place, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = -1, writes = (flags & O_ACCMODE) != O_RDONLY;
    if (kind == FOLDER || !writes || !fails(control->names_error)) {
        if (writes && flags & O_TRUNC)
            die("O_TRUNC is not modelled");
        int fresh = flags & O_CREAT && access(path, F_OK) != 0;
        if (fresh) {
            note(CREATE, 0, 0, 0, path, NULL, NULL, 0, NULL, 0);
            dirty_names++;
        }
        fd = real(place, path, flags, mode);
        if (fd >= FDS)
            die("too many descriptors");
        if (fd >= 0)
            tracked[fd] = kind;
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, last); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open64(const char *path, int flags, ...)
{
    MODE(flags, flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    MODE(flags, flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat64(int place, const char *path, int flags, ...)
{
    MODE(flags, flags)
    return opened(place, path, flags, mode);
}

int openat(int place, const char *path, int flags, ...)
{
    MODE(flags, flags)
    return opened(place, path, flags, mode);
}

int close(int fd)
{
    REAL(close);
    if (fd >= 0 && fd < FDS)
        tracked[fd] = NOTHING;
    return real(fd);
}

int unlink(const char *path)
{
    REAL(unlink);
    static int count;
    struct stat found;
    if (which(path) != FILE_OF_OURS || lstat(path, &found) != 0)
        return real(path);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (!fails(control->names_error)) {
        char grave[PATH_MAX + 64];
        snprintf(grave, sizeof grave, "%s/%d.%d", graves, getpid(), ++count);
        if (found.st_nlink == 1)
            for (int n = 0; n < INODES; n++)
                if (inodes[n].inode == found.st_ino)
                    inodes[n].gone = 1;
        if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0) != 0)
            die("no grave");
        note(UNLINK, found.st_ino, 0, 0, path, grave, NULL, 0, NULL, 0);
        dirty_names++;
        done = real(path);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int link(const char *path, const char *other)
{
    REAL(link);
    if (which(path) != FILE_OF_OURS && which(other) != FILE_OF_OURS)
        return real(path, other);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (!fails(control->names_error)) {
        note(LINK, 0, 0, 0, path, other, NULL, 0, NULL, 0);
        dirty_names++;
        done = real(path, other);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

/* --- What is not modelled --- */

int rename(const char *path, const char *other)
{
    REAL(rename);
    if (which(path) != NOTHING || which(other) != NOTHING)
        die("rename is not modelled");
    return real(path, other);
}

int unlinkat(int place, const char *path, int flags)
{
    REAL(unlinkat);
    if (which(path) != NOTHING)
        die("unlinkat is not modelled");
    return real(place, path, flags);
}

int linkat(int place, const char *path, int to, const char *other, int flags)
{
    REAL(linkat);
    if (which(path) != NOTHING || which(other) != NOTHING)
        die("linkat is not modelled");
    return real(place, path, to, other, flags);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    if (what(fd) != NOTHING)
        die("writev is not modelled");
    return real(fd, parts, count);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    REAL(pwritev64);
    if (what(fd) != NOTHING)
        die("pwritev is not modelled");
    return real(fd, parts, count, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    REAL(mmap64);
    if (what(fd) == FILE_OF_OURS && flags & MAP_SHARED && protection & PROT_WRITE)
        die("writing through mmap is not modelled");
    return real(address, length, protection, flags, fd, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    REAL(fallocate64);
    if (what(fd) != NOTHING)
        die("fallocate is not modelled");
    return real(fd, mode, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    REAL(posix_fallocate64);
    if (what(fd) != NOTHING)
        die("posix_fallocate is not modelled");
    return real(fd, offset, length);
}
