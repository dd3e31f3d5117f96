// What keeps other programs from changing a flight recorder's file while it is mapped. Part of CArena.h.
#ifndef CARENA_RECORDER_FILE_H
#define CARENA_RECORDER_FILE_H

#include <stddef.h>
#include <stdint.h>

/// Has everybody wait who is about to open the file, or to change its length, until the lease is dropped or the descriptor closed (or
/// for as long as /proc/sys/fs/lease-break-time says). Returns 0 or the error number: EAGAIN where somebody has the file open.
int arena_lease_take(int descriptor);

typedef enum arena_lease_wish {
    arena_lease_nobody,
    arena_lease_reader,
    arena_lease_writer,
} arena_lease_wish;

/// Who waits for a lease that is held.
arena_lease_wish arena_lease_wanted(int descriptor);

void arena_lease_drop(int descriptor);

/// A part of the ledger's region, of whole pages. Together they are all of it.
typedef struct arena_file_part {
    void *_Nonnull start;
    uint64_t offset;  // in the region, and in a file
    size_t stored;    // so many bytes have something in them
    size_t moving;    // so many are the file's, those and others, which are zeros
    size_t room;      // all that it has
} arena_file_part;

/// Copies what is stored in the parts to another mapping of the whole region, while other threads store there. Only pages that
/// differ are written.
void arena_copy_ledger(const arena_file_part *_Nonnull parts, int count, void *_Nonnull copy);

/// Puts that other mapping in the place of what the parts are mapped to, with the same contents, while other threads read and store:
/// no store is lost, and none reaches what was there before. The crash notes' handler must be there (`arena_crash_note_add`), and
/// only one thread may do this at a time. `copy` is taken in any case; what of it does not come to be the ledger is unmapped.
///
/// Returns 0 or the error number; `moved` parts have been moved then.
int arena_move_ledger(const arena_file_part *_Nonnull parts, int count, void *_Nonnull copy, int *_Nonnull moved);

/// Waits while `arena_move_ledger` is at work. For the handler.
void arena_wait_for_move(void);

#endif
