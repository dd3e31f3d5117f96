"""What can be done to the files of a store while no broker runs. Each kind says what it did, or None where it cannot be done."""

import os
import shutil
import sqlite3
import tempfile

PAGE = 4096
DATABASE = "arena-broker.sqlite"
LOG = DATABASE + "-wal"


def size_of(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(r, path):
    """One bit, somewhere."""
    size = size_of(path)
    if not size:
        return None
    at, bit = r.randrange(size), r.randrange(8)
    with open(path, "rb") as file:
        file.seek(at)
        old = file.read(1)[0]
    overwrite(path, at, bytes([old ^ 1 << bit]))
    return "bit %d of byte %d of %d flipped" % (bit, at, size)


def truncate(r, path):
    size = size_of(path)
    if not size:
        return None
    left = r.choice((0, r.randrange(size), size // 2 // PAGE * PAGE))
    os.truncate(path, left)
    return "%d of %d bytes left" % (left, size)


def delete(r, path):
    if not os.path.exists(path):
        return None
    os.unlink(path)
    return "deleted"


def zero(r, path):
    """One page of zeros."""
    pages = size_of(path) // PAGE
    if not pages:
        return None
    page = r.randrange(pages)
    overwrite(path, page * PAGE, bytes(PAGE))
    return "page %d of %d zeroed" % (page, pages)


# What rows have a checksum over, and what else they have.
NAMES = {
    "session": ("client", "user", "listener"), "subscription": ("filter",), "message": ("topic", "properties", "payload"),
    "will": ("topic", "properties", "payload"), "retained": ("topic", "properties", "payload"),
}


def rows(path):
    """All rows of a database, as (names and contents, numbers); None if they cannot all be read."""
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    database.text_factory = bytes
    found = ([], [])
    try:
        for table in ("session", "subscription", "message", "entry", "receipt", "will", "retained", "state"):
            for row in database.execute("SELECT * FROM " + table):
                for key in row.keys():
                    found[key not in NAMES.get(table, ())].append(row[key])
        return found
    except sqlite3.DatabaseError:
        return None
    finally:
        database.close()


def change_database(r, data, change):
    """A change that somebody can notice: not of a page that is free or that the log has anew, nor only of numbers."""
    with tempfile.TemporaryDirectory() as copy:
        def again():
            shutil.rmtree(copy)
            shutil.copytree(data, copy)
            return os.path.join(copy, DATABASE)
        before = rows(again())
        for _ in range(60):
            path = again()
            done = change(r, path)
            after = rows(path)
            if done and (not is_whole(path) or before and after and after[0] != before[0] and after[1] == before[1]):
                shutil.copyfile(path, os.path.join(data, DATABASE))
                return done
    return None


def is_whole(path):
    database = sqlite3.connect(path)
    try:
        return database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError:
        return False
    finally:
        database.close()


KINDS = {
    "flip the log": lambda r, data, older: flip(r, os.path.join(data, LOG)),
    "truncate the log": lambda r, data, older: truncate(r, os.path.join(data, LOG)),
    "delete the log": lambda r, data, older: delete(r, os.path.join(data, LOG)),
    "zero in the log": lambda r, data, older: zero(r, os.path.join(data, LOG)),
    "truncate the database": lambda r, data, older: truncate(r, os.path.join(data, DATABASE)),
    "delete the database": lambda r, data, older: delete(r, os.path.join(data, DATABASE)),
    "zero in the database": lambda r, data, older: change_database(r, data, zero),
    "flip the database": lambda r, data, older: change_database(r, data, flip),
    "an older log": lambda r, data, older: put_back(data, older, (LOG,)),
    "an older database": lambda r, data, older: put_back(data, older, (DATABASE,)),
    "an older store": lambda r, data, older: put_back(data, older, (DATABASE, LOG)),
}


def put_back(data, older, names):
    """Files of an older copy in place of these."""
    if not os.path.exists(os.path.join(older, DATABASE)):
        return None
    for name in names:
        path, old = os.path.join(data, name), os.path.join(older, name)
        if os.path.exists(path):
            os.unlink(path)
        if os.path.exists(old):
            shutil.copyfile(old, path)
    return "put back"


def inflict(r, data, older):
    """Does something that can be done."""
    kinds = list(KINDS)
    r.shuffle(kinds)
    for kind in kinds:
        done = KINDS[kind](r, data, older)
        # Shared memory tells of a log that is no more; its like does not outlive a copy either.
        if done:
            shm = os.path.join(data, DATABASE + "-shm")
            if os.path.exists(shm):
                os.unlink(shm)
            return "%s: %s" % (kind, done)
    return None
