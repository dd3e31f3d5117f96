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
assert size == 8, "a 64-bit JVM's dump"
width = {2: 8, 4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}
roots = {0x01: 16, 0x02: 16, 0x03: 16, 0x04: 12, 0x05: 8, 0x06: 12, 0x07: 8, 0x08: 16, 0xFF: 8}
used = set()


def u8(at):
    return data[at]


def u16(at):
    return struct.unpack_from(">H", data, at)[0]


def u32(at):
    return struct.unpack_from(">I", data, at)[0]


def u64(at):
    return struct.unpack_from(">Q", data, at)[0]


def is_tree(text):
    """Whether it may be AdaptivePoolingAllocator.BuddyChunk.buddies: nothing, then log2 of sizes with two flags."""
    return len(text) & (len(text) - 1) == 0 and text[0] == 0 and all(byte & 0x3F < 16 for byte in text) and any(text)


def segment(at, end):
    while at < end:
        tag = u8(at)
        at += 1
        if tag in roots:
            at += roots[tag]
        elif tag == 0x20:
            at += 7 * 8 + 8
            for _ in range(u16(at)):
                at += 3 + width[u8(at + 4)]
            at += 2
            count = u16(at)
            at += 2
            for _ in range(count):
                used.add(u64(at))
                at += 9 + width[u8(at + 8)]
            count = u16(at)
            at += 2
            for _ in range(count):
                used.add(u64(at))
                at += 9
        elif tag == 0x21:
            at += 24 + u32(at + 20)
        elif tag == 0x22:
            at += 24 + 8 * u32(at + 12)
        elif tag == 0x23:
            count, kind = u32(at + 12), u8(at + 16)
            body, length = at + 17, count * width[kind]
            text = data[body:body + length]
            if kind in (5, 8) and count >= 16 and text[:6] != b"Ledger" and not (kind == 8 and is_tree(text)):
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
        used.add(u64(at + 9 + 16))
    at += 9 + length
slim = bytearray(data[:start])
for tag, begin, end in records:
    if tag == 0x01 and u64(begin + 9) not in used:
        continue
    if tag == 0x04:
        continue
    slim += data[begin:end]
open(path, "wb").write(slim)
