#!/usr/bin/env python3
"""slim.py DUMP: makes a heap dump small enough to be kept beside the tests, in place.

Symbols that no class of the dump uses are left out (the JVM writes all it has), and so are stack frames; byte and
character arrays of 16 elements or more become zeros (paths, properties, jar directories), except the command line and the
adaptive allocator's trees of buddies.
Objects, classes, references, fields and roots stay as the JVM wrote them.
"""
import struct
import sys

path = sys.argv[1]
data = bytearray(open(path, "rb").read())
start = data.index(0) + 13
size = struct.unpack_from(">I", data, start - 12)[0]
assert size in (4, 8), "identifiers as JVMs have them"
width = {2: size, 4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}
# What follows a root's identifier.
roots = {0x01: size, 0x02: 8, 0x03: 8, 0x04: 4, 0x05: 0, 0x06: 4, 0x07: 0, 0x08: 8, 0xFF: 0}
used = set()


def u8(at):
    return data[at]


def u16(at):
    return struct.unpack_from(">H", data, at)[0]


def u32(at):
    return struct.unpack_from(">I", data, at)[0]


def ident(at):
    return struct.unpack_from(">Q" if size == 8 else ">I", data, at)[0]


def is_tree(text):
    """Whether it may be AdaptivePoolingAllocator.BuddyChunk.buddies: nothing, then log2 of sizes with two flags."""
    return len(text) & (len(text) - 1) == 0 and text[0] == 0 and all(byte & 0x3F < 16 for byte in text) and any(text)


def is_command(text):
    """Whether it is `sun.java.command`, which begins with the program's class."""
    return any(text.replace(b"\0", b"").startswith(name) for name in (b"Ledger ", b"Field ", b"Pair ", b"Columns "))


def segment(at, end):
    while at < end:
        tag = u8(at)
        at += 1
        if tag in roots:
            at += size + roots[tag]
        elif tag == 0x20:
            at += 7 * size + 8
            for _ in range(u16(at)):
                at += 3 + width[u8(at + 4)]
            at += 2
            count = u16(at)
            at += 2
            for _ in range(count):
                used.add(ident(at))
                at += size + 1 + width[u8(at + size)]
            count = u16(at)
            at += 2
            for _ in range(count):
                used.add(ident(at))
                at += size + 1
        elif tag == 0x21:
            at += 2 * size + 8 + u32(at + 2 * size + 4)
        elif tag == 0x22:
            at += 2 * size + 8 + size * u32(at + size + 4)
        elif tag == 0x23:
            count, kind = u32(at + size + 4), u8(at + size + 8)
            body, length = at + size + 9, count * width[kind]
            text = data[body:body + length]
            if kind in (5, 8) and count >= 16 and not is_command(text) and not (kind == 8 and is_tree(text)):
                data[body:body + length] = bytes(length)
            at = body + length
        else:
            raise SystemExit(f"sub-record 0x{tag:x} at {at - 1}")


records = []
at = start
while at < len(data):
    tag, length = u8(at), u32(at + 5)
    records.append((tag, at, at + 9 + length))
    if tag in (0x0C, 0x1C):
        segment(at + 9, at + 9 + length)
    elif tag == 0x02:
        used.add(ident(at + 9 + 8 + size))
    at += 9 + length
slim = bytearray(data[:start])
for tag, begin, end in records:
    if tag == 0x01 and ident(begin + 9) not in used:
        continue
    if tag == 0x04:
        continue
    slim += data[begin:end]
open(path, "wb").write(slim)
