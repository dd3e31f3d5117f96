#!/usr/bin/env python3
"""How long one client's packets keep another one waiting: hostile packets, and the longest PINGRESP of a bystander meanwhile.

    stall.py --port P [CASE...]

Each case is one client's, or a few clients', on a loop that it shares with the bystander. The bystander sends PINGREQ, waits
for PINGRESP, and begins again a millisecond later; it is alone first, which is the machine's own part. Prints a line for each
case. Exit code 1 if the longest wait of any case is 50 ms or more.
"""

import argparse
import os
import resource
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from flood import connect, packet, publish, subscribe, text  # noqa: E402

import struct  # noqa: E402

BOUND = 0.050
PING = b"\xc0\0"


def unsubscribe(identifier, filters):
    return packet(0xA2, struct.pack(">H", identifier) + b"".join(text(name) for name in filters))


class Peer:
    def __init__(self, port, name, clean=True):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(connect(name, clean=clean))
        self.read(4)

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the broker closed the connection")
            data += part
        return data

    def send(self, data):
        self.socket.sendall(data)

    def drain(self):
        """Reads all that comes until this client's ping is answered behind it: it has been served."""
        self.send(PING)
        self.read_to(b"\xd0\0")

    def read_to(self, end):
        """Reads all that comes until these bytes have come."""
        tail = b""
        while end not in tail:
            part = self.socket.recv(1 << 20)
            if not part:
                raise ConnectionError("the broker closed the connection")
            tail = tail[-len(end) :] + part


# Subscriptions of sessions that outlive their cases.
kept = 0


def settle(port):
    """Waits until no subscription is left of a client that is gone: what follows from the end of a connection takes its turn."""
    topic = b"$SYS/broker/subscriptions/count"
    count = None
    # Its own is one.
    while count is None or count > kept + 1:
        time.sleep(0.02)
        peer = Peer(port, "settle")
        peer.send(subscribe(1, [topic.decode()], 0))
        data = b""
        while topic not in data or len(data) < data.index(topic) - 2 + data[data.index(topic) - 3]:
            data += peer.read(1)
        count = int(data[data.index(topic) + len(topic) :])


class Bystander(threading.Thread):
    """Waits for PINGRESP again and again; in a process of its own, or the hostile side's Python would be what is measured."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.ready, ready = os.pipe()
        order, self.order = os.pipe()
        answer, self.answer = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            peer = Peer(port, "bystander")
            os.write(ready, b"x")
            os.set_blocking(order, False)
            waits = []
            while True:
                begin = time.monotonic()
                peer.send(b"\xc0\0")
                peer.read(2)
                waits.append(time.monotonic() - begin)
                try:
                    if os.read(order, 1):
                        waits.sort()
                        line = f"{waits[-1]:.6f} {waits[len(waits) * 99 // 100]:.6f} {len(waits)}\n"
                        os.write(self.answer, line.encode())
                        waits = []
                except BlockingIOError:
                    pass
                time.sleep(0.001)
        self.result = os.fdopen(answer)
        os.read(self.ready, 1)

    def take(self):
        os.write(self.order, b"x")
        longest, most, count = self.result.readline().split()
        return float(longest), float(most), int(count)


def case_alone(port):
    time.sleep(2)


def case_subscribe(port):
    peer = Peer(port, "subscriber")
    names = [f"f{index:04d}" for index in range(10_000)]
    for _ in range(5):
        peer.send(subscribe(1, names, 0))
        peer.drain()
        peer.send(unsubscribe(2, names))
        peer.drain()


def case_session_end(port):
    for _ in range(5):
        peer = Peer(port, "leaver")
        peer.send(subscribe(1, [f"f{index:04d}" for index in range(10_000)], 0))
        peer.drain()
        peer.socket.close()
        settle(port)


def case_session_discarded(port):
    for _ in range(5):
        peer = Peer(port, "kept", clean=False)
        peer.send(subscribe(1, [f"f{index:04d}" for index in range(10_000)], 0))
        peer.drain()
        peer.socket.close()
        Peer(port, "kept").drain()


def case_groups(port):
    members = [Peer(port, f"member-{index}") for index in range(10)]
    for member in members:
        member.send(subscribe(1, [f"$share/{member.socket.fileno()}-{index}/x" for index in range(1_000)], 0))
        member.drain()
    sender = Peer(port, "sender")
    readers = [threading.Thread(target=peer.read_to, args=(b"\xd0\0",), daemon=True) for peer in members]
    for reader in readers:
        reader.start()
    for _ in range(3):
        sender.send(publish("x", b"") * 100)
        sender.drain()
    for member in members:
        member.send(PING)
    for reader in readers:
        reader.join()


def case_retained(port):
    sender = Peer(port, "retainer")
    for begin in range(0, 50_000, 500):
        sender.send(b"".join(publish(f"a/{index}/b", b"x", retain=True) for index in range(begin, begin + 500)))
        sender.drain()
    peer = Peer(port, "searcher")
    # The last has something, which comes when all have been looked for.
    peer.send(subscribe(1, [f"+/+/{index}" for index in range(400)] + ["a/0/b"], 0))
    peer.read_to(b"a/0/bx")


def case_sys(port):
    peer = Peer(port, "figures")
    peer.send(subscribe(1, [f"$SYS/{index}" for index in range(400)], 0))
    peer.drain()


def case_wildcards(port):
    peer = Peer(port, "wild")
    for begin in range(0, 8_192, 1_024):
        names = [
            "/".join("a" if index >> level & 1 else "+" for level in range(13))
            for index in range(begin, begin + 1_024)
        ]
        peer.send(subscribe(1, names, 0))
        peer.drain()
    # Longer than what is remembered.
    topic = "/".join(["a"] * 13 + ["b" * 300])
    peer.send(publish(topic, b"") * 12)
    peer.drain()


def case_many(port):
    """Forty clients at once, each with packets of 4 kB."""
    peers = [Peer(port, f"many-{index}") for index in range(40)]
    for round_ in range(3):
        for peer in peers:
            peer.send(subscribe(1, [f"{peer.socket.fileno()}/{round_}/{index}" for index in range(330)], 0))
        for peer in peers:
            peer.drain()
    for peer in peers:
        peer.socket.close()
    settle(port)


def case_fan_out(port):
    """One message to ten thousand connections, twenty times."""
    members = [Peer(port, f"member-{index}") for index in range(10_000)]
    sender = Peer(port, "sender")
    for index, member in enumerate(members):
        member.send(subscribe(1, ["all"], 0))
        if index % 100 == 0:
            sender.drain()
    for _ in range(20):
        sender.send(publish("all", b"x" * 20))
        sender.drain()
    # A few at a time: all at once is another case.
    while members:
        for member in members[-100:]:
            member.socket.close()
        del members[-100:]
        sender.drain()


def case_crowd(port):
    """Ten thousand clients that send at the same moment, and hang up at the same moment: no one packet's doing, so the bound is
    not for it. It is what NIO takes to read, and to close, all sockets that are ready."""
    members = [Peer(port, f"member-{index}") for index in range(10_000)]
    sender = Peer(port, "sender")
    for member in members:
        member.send(b"\xc0\0")
    sender.drain()
    for member in members:
        member.socket.close()
    sender.drain()


def case_fan_out_kept(port):
    """One message to twenty thousand sessions whose clients are away, ten times."""
    for index in range(20_000):
        peer = Peer(port, f"away-{index}", clean=False)
        peer.send(subscribe(1, ["kept"], 1))
        peer.read(5)
        peer.socket.close()
    global kept
    kept += 20_000
    sender = Peer(port, "sender")
    for identifier in range(1, 11):
        sender.send(publish("kept", b"x" * 20, 1, identifier))
        sender.drain()


def case_groups_owed(port):
    """Messages of QoS 2, and wills, to ten thousand groups whose members are away: with a data directory, all is noted there."""
    for index in range(10):
        member = Peer(port, f"owed-{index}", clean=False)
        member.send(subscribe(1, [f"$share/{index}-{group}/owed" for group in range(1_000)], 2))
        member.drain()
        member.socket.close()
    sender = Peer(port, "sender", clean=False)
    for identifier in range(1, 6):
        sender.send(publish("owed", b"x" * 20, 2, identifier))
        sender.read_to(b"\x50\x02" + struct.pack(">H", identifier))
        sender.send(packet(0x62, struct.pack(">H", identifier)))
        sender.read_to(b"\x70\x02" + struct.pack(">H", identifier))
    for index in range(5):
        leaving = socket.create_connection(("127.0.0.1", port))
        # 3.1.1, a will of QoS 1, no keep alive.
        leaving.sendall(
            packet(0x10, text("MQTT") + b"\x04\x0c\0\0" + text(f"leaving-{index}") + text("owed") + text("gone")))
        leaving.recv(4)
        leaving.close()
    sender.drain()
    for index in range(10):
        Peer(port, f"owed-{index}").drain()


CASES = {name[5:]: function for name, function in list(globals().items()) if name.startswith("case_")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {unknown[0]}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bystander = Bystander(options.port)
    failed = False
    print(f"{'case':<20} {'longest ms':>10} {'99 % ms':>8} {'pings':>6} {'seconds':>8}")
    for name in options.cases or CASES:
        bystander.take()
        begin = time.monotonic()
        CASES[name](options.port)
        settle(options.port)
        longest, most, count = bystander.take()
        print(
            f"{name:<20} {longest * 1000:>10.1f} {most * 1000:>8.1f} {count:>6} {time.monotonic() - begin:>8.1f}",
            flush=True,
        )
        failed = failed or (longest >= BOUND and name != "crowd")
    os.kill(bystander.child, 9)
    sys.exit(failed)


if __name__ == "__main__":
    main()
