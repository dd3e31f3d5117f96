"""What no client should send: each attack is a transport and bytes, in pieces, from a seed."""

import random
import struct

import wire
from transport import frame


def session(name, version=5, clean=True, **props):
    return wire.connect(version, name, clean, **props)


def garbage(r):
    return "tcp", [bytes(r.randrange(256) for _ in range(r.randrange(1, 2000)))]


def garbage_after_connect(r):
    return r.choice(("tcp", "tls", "proxy")), [
        session("hostile-garbage"), bytes(r.randrange(256) for _ in range(r.randrange(1, 2000)))]


def flipped(r):
    """Good packets with some bytes of another value."""
    good = bytearray(
        session("hostile-flipped") + wire.subscribe(5, 1, [("hostile/+", 1, 0, 0, 0)], 7)
        + wire.publish(5, "hostile/a", b"x" * r.randrange(300), 1, True, False, 9, alias=1, user=("a", "b")) + wire.ping())
    for _ in range(r.randrange(1, 6)):
        good[r.randrange(len(good))] = r.randrange(256)
    return "tcp", [bytes(good)]


def cut(r):
    """Good packets that end too early, or whose length says more than comes."""
    good = session("hostile-cut") + wire.publish(5, "hostile/" + "c" * r.randrange(3000), b"y" * 500, 2, False, False, 3)
    return r.choice(("tcp", "tls")), [good[:r.randrange(1, len(good))]]


def one_byte_at_a_time(r):
    good = session("hostile-slow") + wire.publish(5, "hostile/slow", b"z" * 40)
    return "tcp", [bytes([byte]) for byte in good]


def bridge_topic(r):
    """Topics that the bridge makes longer."""
    name = "x"
    rest = "i" * r.choice((65_510, 65_509, 60_000, 1))
    return "tcp", [
        session(name) + wire.subscribe(5, 1, [("v1/devices/me/rpc/request/+", 1, 0, 0, 0)]),
        wire.publish(5, "v1/devices/%s/rpc/request/%s" % (name, rest), b"", 1, False, False, 2)]


def bridge_name(r):
    name = r.choice(("+", "#", "me", "a/b", "$SYS", "n" * 65_000))
    return "tcp", [
        session(name) + wire.subscribe(5, 1, [("v1/devices/me/rpc/request/+", 1, 0, 0, 0)]),
        wire.publish(5, "v1/devices/me/rpc/response/" + r.choice(("1", "i" * 65_000)), b"r", 1, False, False, 2)]


def system_will(r):
    topic = r.choice(("$SYS/broker/version", "$SYS", "$SYS/x"))
    return "tcp", [wire.connect(r.choice((4, 5)), "$SYS", True, will=(topic, b"forged", 1, True, 0))]


def many_filters(r):
    count = r.choice((200, 1_000, 10_000))
    shape = r.choice(("hostile/%d", "+/+/%d", "$share/%d/hostile-shared", "$share/g%d/hostile/%d/#"))
    filters = [(shape.replace("%d", str(index)), 1, 0, 0, 0) for index in range(count)]
    return "tcp", [session("hostile-filters") + wire.subscribe(5, 1, filters), wire.ping()]


def deep_topics(r):
    deep = "/".join("d" for _ in range(r.choice((199, 200, 201, 30_000))))
    return "tcp", [
        session("hostile-deep") + wire.subscribe(5, 1, [(deep, 1, 0, 0, 0), ("+/" * 100 + "#", 0, 0, 0, 0)]),
        wire.publish(5, deep, b"deep", 1, False, False, 2), wire.publish(5, "/" * 190, b"deep", 1, False, False, 3)]


def pings(r):
    """Thousands, whose answers nobody reads."""
    return "tcp", [session("hostile-pings")] + [wire.ping() * 5_000] * r.randrange(1, 8)


def web_pings(r):
    ping = frame(b"p" * 125, 9)
    return "ws", [("raw", ping * 500)] * r.choice((1, 5, 20, 150))


def web_frames(r):
    """Fragments, control frames between them, reserved bits, no mask, more than may be."""
    one = r.choice((
        frame(b"\x10", 2, False) + frame(b"", 9) + frame(b"\x00", 0, True), frame(b"x" * 200, 9), frame(b"x", 3),
        frame(b"abc", 1), frame(b"abc", 2, masked=False), b"\xf2\x81\0\0\0\0x", frame(b"", 8), frame(b"\x03", 8),
        b"\x82\xff" + struct.pack(">Q", 1 << 62) + b"\0\0\0\0", b"\x82\xfe\xff\xff\0\0\0\0" + b"y" * 100,
        frame(b"", 0), frame(b"", 2) * 2_000))
    return "ws", [("raw", one)]


def no_upgrade(r):
    return "raw-ws", [r.choice((
        b"GET / HTTP/1.1\r\n\r\n", b"GET /mqtt HTTP/1.1\r\n" + b"A: b\r\n" * 5_000, b"\0" * 3_000,
        b"POST /mqtt HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"GET /mqtt HTTP/1.1\r\nHost: x"))]


def proxy_headers(r):
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    return "raw-proxy", [r.choice((
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", signature + b"\x21\x11\xff\xff" + b"z" * 1_000, signature + b"\x21\x11\0\0",
        signature + b"\x20\0\0\0", signature + b"\x31\x11\0\x0c" + b"\0" * 12, signature[:7],
        signature + b"\x21\x31\0\xd8" + b"u" * 216 + session("hostile-proxy")))]


def tls_hello(r):
    return "raw-tls", [r.choice((
        b"\x16\x03\x01\x02\x00\x01\x00", b"\x16\x03\x01\xff\xff" + b"h" * 20_000, session("hostile-tls"), b"\x80" * 100))]


def http(r):
    return "http", [r.choice((
        b"GET /v1/memory HTTP/1.1\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n", b"\0\1\2", b"A" * 20_000,
        b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nbody",
        b"POST /v1/devices/a/commands HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"))]


def twice(r):
    return "tcp", [session("hostile-twice") + session("hostile-twice")]


def versions(r):
    return "tcp", [wire.packet(1, 0, wire.text(r.choice(("MQTT", "MQIsdp", "mqtt", ""))) + bytes([
        r.choice((0, 3, 6, 255)), 2, 0, 0]) + wire.text("v"))]


def bad_login(r):
    return "tcp", [wire.connect(r.choice((4, 5)), "hostile-login", True, user=("anna", "wrong"))]


def wrong_packets(r):
    one = r.choice((
        wire.packet(3, 6, b"\0\1a\0\1"), wire.packet(3, 2, b"\0\1a\0\0\0"), wire.packet(8, 0, b"\0\1\0\0\1a\0"),
        wire.packet(8, 2, b"\0\1\0"), wire.packet(6, 0, b"\0\1"), wire.packet(15, 0, b"\x18\0"), wire.packet(0, 0, b""),
        wire.publish(5, "a", b"", 0, alias=0), wire.publish(5, "", b"", 0, alias=17), wire.publish(5, "", b""),
        wire.publish(5, "a/+", b""), wire.publish(5, "a", b"", 0, subscription_id=[1]), b"\x30\xff\xff\xff\xff\x7f",
        b"\x30\xff\xff\xff\x7f", wire.packet(2, 0, b"\0\0\0"), wire.packet(13, 0, b""), wire.acknowledge(4, 77),
        wire.acknowledge(7, 77), wire.acknowledge(5, 77), wire.subscribe(5, 1, [("", 0, 0, 0, 0)]),
        wire.subscribe(5, 1, [("$share//a", 0, 0, 0, 0)]), wire.subscribe(5, 1, [("a/#/b", 0, 0, 0, 0)]),
        wire.unsubscribe(5, 1, [])))
    return r.choice(("tcp", "tls", "proxy")), [session("hostile-wrong") + one]


ATTACKS = {attack.__name__: attack for attack in (
    garbage, garbage_after_connect, flipped, cut, one_byte_at_a_time, bridge_topic, bridge_name, system_will, many_filters,
    deep_topics, pings, web_pings, web_frames, no_upgrade, proxy_headers, tls_hello, http, twice, versions, bad_login,
    wrong_packets)}


def attack(kind, seed):
    """(transport, pieces)"""
    return ATTACKS[kind](random.Random(seed))
