"""A disk under a process: what its files hold, what of it would be there after a power cut, and a clock to turn.

platter.c, which is preloaded into the process, writes down what it does to the files of a directory. From this follows

    sure       what was written before a successful fsync or fdatasync began, and names as below
    pending    everything else: at a power cut each of its sectors of 512 bytes is there, is not, or is half there

Names (made, renamed, unlinked) become sure in their order: with the next fsync of anything if the disk has a journal, as ext4
and XFS do; if not, with an fsync of the directory that they are in, and with nothing else. What was pending at an fsync that failed is
never sure, whatever fsync says afterwards: so does Linux.
"""

import mmap
import os
import random
import shutil
import struct
import subprocess
import time

SECTOR = 512
OPENED, WROTE, TRUNCATED, SYNCED, RENAMED, UNLINKED, MADE_DIRECTORY = range(1, 8)
RECORD = struct.Struct("<IIQQQ")
# The order of `struct control`.
CONTROL = ("wall_offset", "boot_offset", "operations_left", "failing_syncs", "is_full", "sync_microseconds", "operations",
           "dies_at_sync")
SECOND = 1_000_000_000
# How what is pending may come out of a power cut.
CUTS = ("nothing", "everything", "prefix", "random", "torn", "lengths")


def build(directory):
    """The library."""
    library = os.path.join(directory, "platter.so")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "platter.c")
    subprocess.run(["cc", "-std=gnu17", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class Change:
    """A write, or with `data` None a truncation to `offset`, that is not sure yet; or is, behind one that is not."""

    __slots__ = ("number", "offset", "data", "state")

    def __init__(self, number, offset, data):
        self.number, self.offset, self.data, self.state = number, offset, data, "new"

    def apply(self, content):
        if self.data is None:
            del content[self.offset:]
            content.extend(bytes(self.offset - len(content)))
        else:
            put(content, self.offset, self.data)

    def sectors(self):
        """(offset, bytes) within each sector."""
        at = 0
        while at < len(self.data):
            size = min(SECTOR - (self.offset + at) % SECTOR, len(self.data) - at)
            yield self.offset + at, self.data[at:at + size]
            at += size


def put(content, offset, data):
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset:offset + len(data)] = data


class File:
    def __init__(self, content=b""):
        self.sure, self.pending = bytearray(content), []

    def content(self):
        content = bytearray(self.sure)
        for change in self.pending:
            change.apply(content)
        return content

    def synced(self, succeeded):
        for change in self.pending:
            if change.state == "new":
                change.state = "sure" if succeeded else "doomed"
        done = 0
        while done < len(self.pending) and self.pending[done].state == "sure":
            self.pending[done].apply(self.sure)
            done += 1
        del self.pending[:done]

    def after_cut(self, r, how, last, figures):
        """What is there then; `last`: the number of the last change that a prefix has."""
        content = bytearray(self.sure)
        for change in self.pending:
            if change.state == "sure" or how == "everything" or (how == "prefix" and change.number <= last):
                change.apply(content)
            elif how in ("nothing", "prefix"):
                figures["sectors lost"] += 1 if change.data is None else len(list(change.sectors()))
            elif change.data is None:
                if r.random() < 0.5:
                    change.apply(content)
            elif how == "lengths":
                # A length reached the disk, what is in the file did not.
                figures["sectors lost"] += len(list(change.sectors()))
                content.extend(bytes(max(0, change.offset + len(change.data) - len(content))))
            else:
                for offset, data in change.sectors():
                    fate = r.random()
                    if fate < 0.45:
                        put(content, offset, data)
                    elif fate < 0.55 or how == "torn":
                        figures["sectors torn"] += 1
                        piece = r.randrange(len(data) + 1)
                        if r.random() < 0.5:
                            put(content, offset, data[:piece])
                        else:
                            put(content, offset + piece, data[piece:])
                    else:
                        figures["sectors lost"] += 1
        return content


class Platter:
    """One directory, and what is known of it. `log`, `control` and `boot` are files beside it."""

    def __init__(self, disk, beside, library, figures):
        self.disk, self.figures = os.path.realpath(disk), figures
        self.log = os.path.join(beside, "platter.log")
        self.boot = os.path.join(beside, "boot_id")
        self.number = 0
        os.makedirs(self.disk, exist_ok=True)
        control = os.path.join(beside, "platter.control")
        with open(control, "wb") as file:
            file.write(bytes(4096))
        with open(control, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), 4096)
        self.environment = {
            "LD_PRELOAD": library, "PLATTER_DISK": self.disk, "PLATTER_LOG": self.log, "PLATTER_CONTROL": control,
            "PLATTER_BOOT_ID": self.boot}
        # A library that says that it synchronised what it did not: for the self-test.
        self.is_lying = False
        self.set("operations_left", -1)
        self.new_boot(random.Random(disk))
        self.look()

    def set(self, name, value):
        struct.pack_into("<q", self.control, CONTROL.index(name) * 8, value)

    def get(self, name):
        return struct.unpack_from("<q", self.control, CONTROL.index(name) * 8)[0]

    # MARK: - The clock

    def turn_clock(self, to):
        """Sets the wall clock of the process: seconds since 1970."""
        self.set("wall_offset", int((to - time.time()) * SECOND))

    def clock(self):
        return time.time() + self.get("wall_offset") / SECOND

    def new_boot(self, r):
        """The machine is started anew: its identifier of that is another."""
        text = "%032x" % r.getrandbits(128)
        with open(self.boot, "w") as file:
            file.write("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])) + "\n")

    # MARK: - What is known

    def look(self):
        """What is there now is sure."""
        # Files by inode, of which another file may have the number later; and by path.
        self.files, self.names, self.directories = {}, {}, {self.disk}
        for place, _, names in os.walk(self.disk):
            self.directories.add(place)
            for name in names:
                path = os.path.join(place, name)
                if not name.endswith("-shm"):
                    with open(path, "rb") as file:
                        self.names[path] = self.files[os.stat(path).st_ino] = File(file.read())
        self.sure_names, self.sure_directories, self.moves = dict(self.names), set(self.directories), []
        self.read_up_to = 0
        open(self.log, "wb").close()

    def read(self):
        """Takes in what was logged since."""
        with open(self.log, "rb") as file:
            file.seek(self.read_up_to)
            data = file.read()
        at = 0
        while at + RECORD.size <= len(data):
            what, path_length, inode, offset, length = RECORD.unpack_from(data, at)
            end = at + RECORD.size + path_length
            path = data[at + RECORD.size:end].decode()
            content = None
            if what == WROTE:
                content, end = data[end:end + length], end + length
            if end > len(data):
                break
            at = end
            self.take(what, path, inode, offset, length, content)
        self.read_up_to += at
        # What a process that was killed began to say.
        os.truncate(self.log, self.read_up_to)

    def take(self, what, path, inode, offset, length, content):
        self.number += 1
        if what == OPENED:
            if os.path.isdir(path):
                return
            if offset:
                self.files[inode] = File()
                self.move("made", path, self.files[inode])
        elif what == WROTE:
            self.files[inode].pending.append(Change(self.number, offset, content))
        elif what == TRUNCATED:
            self.files[inode].pending.append(Change(self.number, offset, None))
        elif what == SYNCED:
            self.figures["syncs"] += 1
            if self.is_lying:
                return
            if inode in self.files:
                self.files[inode].synced(length == 1)
            if length == 1:
                self.names_synced(path)
        elif what == RENAMED:
            self.move("renamed", *path.split("\0"))
        elif what == UNLINKED:
            self.move("unlinked", path, None)
        elif what == MADE_DIRECTORY:
            self.move("directory", path, None)

    def move(self, *move):
        self.moves.append((self.number, *move))
        self.apply_move(self.names, self.directories, *move)

    @staticmethod
    def apply_move(names, directories, what, path, other):
        if what == "made":
            names[path] = other
        elif what == "directory":
            directories.add(path)
        elif what == "unlinked":
            names.pop(path, None)
            directories.discard(path)
        elif path in names:
            names[other] = names.pop(path)
        else:
            for table in (names, directories):
                for old in [one for one in table if one == path or one.startswith(path + "/")]:
                    new = other + old[len(path):]
                    if table is names:
                        names[new] = names.pop(old)
                    else:
                        directories.discard(old)
                        directories.add(new)

    def names_synced(self, path):
        kept = []
        for number, *move in self.moves:
            if self.has_journal or os.path.dirname(move[1]) == path or (
                    move[0] == "renamed" and os.path.dirname(move[2]) == path):
                self.apply_move(self.sure_names, self.sure_directories, *move)
            else:
                kept.append((number, *move))
        self.moves = kept

    # MARK: - What happens

    # Whether an fsync of anything makes names sure.
    has_journal = True

    def differences(self):
        """Between the directory and what was logged: paths."""
        found = []
        there = set()
        for place, _, names in os.walk(self.disk):
            for name in names:
                path = os.path.join(place, name)
                if name.endswith("-shm"):
                    continue
                there.add(path)
                with open(path, "rb") as file:
                    content = file.read()
                known = self.names.get(path)
                if known is None or known.content() != content:
                    found.append(path)
        return found + [path for path in self.names if path not in there]

    def adopt(self):
        """After SIGKILL from outside: the last operation may be done, and not in the log. It is pending."""
        self.read()
        for path in self.differences():
            self.number += 1
            if not os.path.exists(path):
                self.move("unlinked", path, None)
                continue
            inode = os.stat(path).st_ino
            if path not in self.names or self.names[path] is not self.files.get(inode):
                self.files.setdefault(inode, File())
                self.move("made", path, self.files[inode])
            with open(path, "rb") as file:
                content = file.read()
            self.files[inode].pending.append(Change(self.number, 0, content))
            self.files[inode].pending.append(Change(self.number, len(content), None))

    def cut(self, r, how=None):
        """The power fails: the directory is what the platter has, more or less. Says how much less."""
        self.read()
        how = how or r.choice(CUTS)
        files = {id(file): file for file in (*self.names.values(), *self.sure_names.values())}.values()
        changes = sorted([change.number for file in files for change in file.pending] + [move[0] for move in self.moves])
        last = r.choice(changes) if changes else 0
        names, directories = dict(self.sure_names), set(self.sure_directories)
        for number, *move in self.moves:
            if how == "nothing" or (how == "prefix" and number > last):
                break
            if how not in ("everything", "prefix") and r.random() < 0.4:
                break
            self.apply_move(names, directories, *move)
        contents = {path: names[path].after_cut(r, how, last, self.figures) for path in sorted(names)}
        for name in os.listdir(self.disk):
            path = os.path.join(self.disk, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        for path in sorted(directories):
            if all(parent in directories for parent in parents(path, self.disk)):
                os.makedirs(path, mode=0o700, exist_ok=True)
        for path, content in contents.items():
            # One whose directory is not there is not there.
            if os.path.isdir(os.path.dirname(path)):
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
        self.look()
        return how


def parents(path, root):
    while path != root:
        path = os.path.dirname(path)
        yield path
