// What a process does to a disk, written down; and a clock and a disk that misbehave when told. For LD_PRELOAD.
//
//     PLATTER_DISK     directory whose files are watched, an absolute path without links
//     PLATTER_LOG      file that each operation is appended to, see `struct record`; platter.py reads it
//     PLATTER_CONTROL  file of `struct control`, which is mapped: what is written there holds at once
//     PLATTER_BOOT_ID  what is opened in place of the kernel's boot_id
//     PLATTER_PAGES    after so many pages SQLite moves its log into the database, so that it is often doing that
//
// One operation is done at a time, and is in the log before the next begins. Nothing is really synchronised: as long as the
// machine runs, a process that is killed loses nothing that it wrote; what it would lose with the power platter.py knows.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t wall_offset;      // nanoseconds that CLOCK_REALTIME is ahead
    volatile int64_t boot_offset;      // the same of CLOCK_BOOTTIME
    volatile int64_t operations_left;  // at 0 the process is killed, before it does the next one; below 0: never
    volatile int64_t failing_syncs;    // so many fail with EIO
    volatile int64_t is_full;          // files do not grow: ENOSPC
    volatile int64_t sync_microseconds;
    volatile int64_t operations;       // so many were there
    volatile int64_t dies_at_sync;     // the process is killed before it synchronises: what it wrote is there, and is not safe
};

enum { OPENED = 1, WROTE, TRUNCATED, SYNCED, RENAMED, UNLINKED, MADE_DIRECTORY };

// Followed by the path (of RENAMED: both, with a zero byte between), then by `length` bytes if WROTE.
struct record {
    uint32_t what, path_length;
    uint64_t inode;
    uint64_t offset;  // of TRUNCATED: the size; of OPENED: 1 if it is new
    uint64_t length;  // of SYNCED: 1 if it succeeded
};

#define MOST_FILES 65536
static uint64_t inodes[MOST_FILES];  // of descriptors that are watched; 0: not watched
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct control unused = {.operations_left = -1}, *control = &unused;
static const char *disk, *boot_id;
static size_t disk_length;
static int log_file = -1;

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
#define DECLARE(name) static void *real_##name
DECLARE(openat64);
DECLARE(write);
DECLARE(pwrite64);
DECLARE(ftruncate64);
DECLARE(posix_fallocate64);
DECLARE(fsync);
DECLARE(fdatasync);
DECLARE(close);
DECLARE(renameat2);
DECLARE(unlinkat);
DECLARE(mkdirat);
DECLARE(mmap64);

static void *real(void **known, const char *name) {
    if (*known == NULL) *known = dlsym(RTLD_NEXT, name);
    return *known;
}

static void give_up(const char *text) {
    dprintf(2, "platter: %s: %s\n", text, strerror(errno));
    _exit(97);
}

__attribute__((constructor)) static void begin(void) {
    disk = getenv("PLATTER_DISK");
    if (disk == NULL) return;
    disk_length = strlen(disk);
    boot_id = getenv("PLATTER_BOOT_ID");
    int file = REAL(openat64)(AT_FDCWD, getenv("PLATTER_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    // Out of the way of those who count descriptors.
    log_file = fcntl(file, F_DUPFD_CLOEXEC, 900);
    if (log_file < 0) give_up(getenv("PLATTER_LOG"));
    REAL(close)(file);
    file = REAL(openat64)(AT_FDCWD, getenv("PLATTER_CONTROL"), O_RDWR | O_CLOEXEC);
    void *mapped = REAL(mmap64)(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) give_up(getenv("PLATTER_CONTROL"));
    REAL(close)(file);
    control = mapped;
}

// MARK: - Which files

static int is_watched(const char *path) {
    if (disk == NULL || strncmp(path, disk, disk_length) != 0 || (path[disk_length] != '/' && path[disk_length] != 0)) return 0;
    size_t length = strlen(path);
    // Shared memory of SQLite's: nothing of it outlives the power, and nobody says that it does.
    return length < 4 || strcmp(path + length - 4, "-shm") != 0;
}

static const char *path_of(int file, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static const char *absolute(int directory, const char *name, char *path) {
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        if (directory == AT_FDCWD) {
            if (getcwd(path, PATH_MAX) == NULL) path[0] = 0;
        } else {
            path_of(directory, path);
        }
        size_t length = strlen(path);
        snprintf(path + length, PATH_MAX - length, "/%s", name);
    }
    return path;
}

static uint64_t watched(int file) {
    return file >= 0 && file < MOST_FILES ? __atomic_load_n(&inodes[file], __ATOMIC_ACQUIRE) : 0;
}

// MARK: - The log

static void enter(void) { pthread_mutex_lock(&lock); }

static void leave(void) {
    int code = errno;
    pthread_mutex_unlock(&lock);
    errno = code;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

// To be called before an operation on a watched file, with the lock.
static void step(void) {
    control->operations += 1;
    if (control->operations_left >= 0 && control->operations_left-- == 0) die();
}

static void append(uint32_t what, const char *path, size_t path_length, uint64_t inode, uint64_t offset, uint64_t length,
                   const void *bytes, size_t count) {
    int code = errno;
    struct record record = {what, (uint32_t)path_length, inode, offset, length};
    struct iovec parts[3] = {{&record, sizeof record}, {(void *)path, path_length}, {(void *)bytes, count}};
    if (writev(log_file, parts, 3) != (ssize_t)(sizeof record + path_length + count)) give_up("the log");
    errno = code;
}

// MARK: - Files

static int open_at(int directory, const char *name, int flags, mode_t mode) {
    if (boot_id != NULL && strcmp(name, "/proc/sys/kernel/random/boot_id") == 0) name = boot_id;
    char path[PATH_MAX];
    if (disk == NULL) return REAL(openat64)(directory, name, flags, mode);
    enter();
    int may_be_new = (flags & O_CREAT) && is_watched(absolute(directory, name, path))
        && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    int truncates = (flags & O_TRUNC) && !may_be_new && is_watched(absolute(directory, name, path));
    if (may_be_new || truncates) step();
    int file = REAL(openat64)(directory, name, flags, mode);
    if (file >= 0 && file < MOST_FILES) {
        uint64_t inode = 0;
        if (is_watched(path_of(file, path))) {
            struct stat status;
            if (fstat(file, &status) == 0) inode = status.st_ino;
            append(OPENED, path, strlen(path), inode, may_be_new, 0, NULL, 0);
            if (truncates) append(TRUNCATED, NULL, 0, inode, 0, 0, NULL, 0);
        }
        __atomic_store_n(&inodes[file], inode, __ATOMIC_RELEASE);
    }
    leave();
    return file;
}

#define MODE(last)                                   \
    mode_t mode = 0;                                 \
    if (flags & (O_CREAT | O_TMPFILE)) {             \
        va_list list;                                \
        va_start(list, last);                        \
        mode = va_arg(list, mode_t);                 \
        va_end(list);                                \
    }

int open(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, name, flags, mode); }
int openat(int directory, const char *name, int flags, ...) { MODE(flags) return open_at(directory, name, flags, mode); }
int openat64(int directory, const char *name, int flags, ...) { MODE(flags) return open_at(directory, name, flags, mode); }
int __open_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
int __openat_2(int directory, const char *name, int flags) { return open_at(directory, name, flags, 0); }
int __openat64_2(int directory, const char *name, int flags) { return open_at(directory, name, flags, 0); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int file) {
    if (file >= 0 && file < MOST_FILES) __atomic_store_n(&inodes[file], 0, __ATOMIC_RELEASE);
    return REAL(close)(file);
}

// How much may be written at an offset.
static size_t room(int file, off64_t offset, size_t count) {
    struct stat status;
    if (!control->is_full || fstat(file, &status) != 0 || offset + (off64_t)count <= status.st_size) return count;
    return offset < status.st_size ? (size_t)(status.st_size - offset) : 0;
}

static ssize_t write_at(int file, const void *bytes, size_t count, off64_t offset, int moves) {
    uint64_t inode = watched(file);
    enter();
    step();
    if (moves) offset = fcntl(file, F_GETFL) & O_APPEND ? lseek64(file, 0, SEEK_END) : lseek64(file, 0, SEEK_CUR);
    ssize_t done = -1;
    size_t fits = room(file, offset, count);
    if (fits == 0 && count > 0) {
        errno = ENOSPC;
    } else {
        done = moves ? REAL(write)(file, bytes, fits) : REAL(pwrite64)(file, bytes, fits, offset);
    }
    if (done > 0) append(WROTE, NULL, 0, inode, (uint64_t)offset, (uint64_t)done, bytes, (size_t)done);
    leave();
    return done;
}

ssize_t write(int file, const void *bytes, size_t count) {
    return watched(file) ? write_at(file, bytes, count, 0, 1) : REAL(write)(file, bytes, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    return watched(file) ? write_at(file, bytes, count, offset, 0) : REAL(pwrite64)(file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) { return pwrite64(file, bytes, count, offset); }

int ftruncate64(int file, off64_t size) {
    uint64_t inode = watched(file);
    if (!inode) return REAL(ftruncate64)(file, size);
    enter();
    step();
    int result = REAL(ftruncate64)(file, size);
    if (result == 0) append(TRUNCATED, NULL, 0, inode, (uint64_t)size, 0, NULL, 0);
    leave();
    return result;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

int posix_fallocate64(int file, off64_t offset, off64_t length) {
    uint64_t inode = watched(file);
    if (!inode) return REAL(posix_fallocate64)(file, offset, length);
    struct stat status;
    if (fstat(file, &status) != 0) return errno;
    if (status.st_size >= offset + length) return 0;
    if (control->is_full) return ENOSPC;
    return ftruncate64(file, offset + length) == 0 ? 0 : errno;
}

int posix_fallocate(int file, off_t offset, off_t length) { return posix_fallocate64(file, offset, length); }

static int synchronise(int file, uint64_t inode) {
    int result = 0;
    enter();
    step();
    if (control->dies_at_sync) die();
    if (control->sync_microseconds > 0) usleep((useconds_t)control->sync_microseconds);
    if (control->failing_syncs > 0) {
        control->failing_syncs -= 1;
        result = -1;
    }
    char path[PATH_MAX];
    path_of(file, path);
    append(SYNCED, path, strlen(path), inode, 0, result == 0, NULL, 0);
    if (result != 0) errno = EIO;
    leave();
    return result;
}

int fsync(int file) {
    uint64_t inode = watched(file);
    return inode ? synchronise(file, inode) : REAL(fsync)(file);
}

int fdatasync(int file) {
    uint64_t inode = watched(file);
    return inode ? synchronise(file, inode) : REAL(fdatasync)(file);
}

// A write that this does not see would be thought lost, or kept.
void *mmap64(void *address, size_t length, int protection, int flags, int file, off64_t offset) {
    if (watched(file) && (protection & PROT_WRITE) && (flags & MAP_SHARED)) {
        errno = ENOTSUP;
        give_up("a watched file is mapped for writing");
    }
    return REAL(mmap64)(address, length, protection, flags, file, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    return mmap64(address, length, protection, flags, file, offset);
}

// MARK: - Names

int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    char paths[2 * PATH_MAX], other[PATH_MAX];
    absolute(from_directory, from, paths);
    absolute(to_directory, to, other);
    if (!is_watched(paths) && !is_watched(other)) return REAL(renameat2)(from_directory, from, to_directory, to, flags);
    enter();
    step();
    int result = REAL(renameat2)(from_directory, from, to_directory, to, flags);
    if (result == 0) {
        size_t length = strlen(paths) + 1;
        strcpy(paths + length, other);
        append(RENAMED, paths, length + strlen(other), 0, 0, 0, NULL, 0);
    }
    leave();
    return result;
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    return renameat2(from_directory, from, to_directory, to, 0);
}

int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int directory, const char *name, int flags) {
    char path[PATH_MAX];
    if (!is_watched(absolute(directory, name, path))) return REAL(unlinkat)(directory, name, flags);
    enter();
    step();
    int result = REAL(unlinkat)(directory, name, flags);
    if (result == 0) append(UNLINKED, path, strlen(path), 0, 0, 0, NULL, 0);
    leave();
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int directory, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!is_watched(absolute(directory, name, path))) return REAL(mkdirat)(directory, name, mode);
    enter();
    step();
    int result = REAL(mkdirat)(directory, name, mode);
    if (result == 0) append(MADE_DIRECTORY, path, strlen(path), 0, 0, 0, NULL, 0);
    leave();
    return result;
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

// MARK: - SQLite

int sqlite3_open_v2(const char *name, void **database, int flags, const char *vfs) {
    int (*open_v2)(const char *, void **, int, const char *) = dlsym(RTLD_NEXT, "sqlite3_open_v2");
    int (*checkpoint_after)(void *, int) = dlsym(RTLD_NEXT, "sqlite3_wal_autocheckpoint");
    int result = open_v2(name, database, flags, vfs);
    if (result == 0 && getenv("PLATTER_PAGES") != NULL) checkpoint_after(*database, atoi(getenv("PLATTER_PAGES")));
    return result;
}

// MARK: - The clock

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (syscall(SYS_clock_gettime, clock, time) != 0) return -1;
    int64_t ahead = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? control->wall_offset
        : clock == CLOCK_BOOTTIME ? control->boot_offset : 0;
    if (ahead != 0) {
        int64_t nanoseconds = time->tv_nsec + ahead % 1000000000;
        time->tv_sec += ahead / 1000000000;
        if (nanoseconds < 0) nanoseconds += 1000000000, time->tv_sec -= 1;
        if (nanoseconds >= 1000000000) nanoseconds -= 1000000000, time->tv_sec += 1;
        time->tv_nsec = nanoseconds;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where != NULL) *where = now.tv_sec;
    return now.tv_sec;
}
