#!/usr/bin/env python3
"""Loads that a broker must survive, from one thread and with nothing but Python's own library.

    flood.py publishers --port P --pid PID     many publishers at full speed against queues that nobody empties
    flood.py connections --port P --pid PID    many idle connections: resident memory of each
    flood.py subscriptions --port P --pid PID  many subscriptions: resident memory of each
    flood.py retained --port P --pid PID       one wildcard over many retained messages
    flood.py crowd --port P --pid PID          many kept subscribers that read nothing, of one topic

Prints `key value` lines. Exit code 1 if something was lost or refused that should not have been.
"""

import argparse
import collections
import select
import socket
import struct
import sys
import time


def length(count):
    out = bytearray()
    while True:
        count, low = divmod(count, 128)
        out.append(low | (128 if count else 0))
        if not count:
            return bytes(out)


def text(value):
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(first, body):
    return bytes([first]) + length(len(body)) + body


def connect(client, version=4, clean=True, expiry=0):
    properties = b""
    if version == 5:
        properties = b"\x05\x11" + struct.pack(">I", expiry)
    return packet(0x10, text("MQTT") + bytes([version, 2 if clean else 0]) + b"\0\0" + properties + text(client))


def subscribe(identifier, filters, qos, version=4):
    body = struct.pack(">H", identifier) + (b"\0" if version == 5 else b"")
    return packet(0x82, body + b"".join(text(name) + bytes([qos]) for name in filters))


def publish(topic, payload, qos=0, identifier=0, retain=False, version=4):
    body = text(topic) + (struct.pack(">H", identifier) if qos else b"") + (b"\0" if version == 5 else b"")
    return packet(0x30 | qos << 1 | retain, body + payload)


def resident(pid, kind="VmRSS"):
    """RssAnon is what is the process's own: without the pages of its program."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(kind + ":"):
                return int(line.split()[1]) * 1024
    sys.exit("flood: the broker is gone")


class Client:
    """One non-blocking connection: bytes to send, and packets cut out of what comes."""

    def __init__(self, port, index=0):
        # More addresses of the loopback interface, since each has some 28,000 ports only.
        self.socket = socket.socket()
        self.socket.bind((f"127.0.{1 + index // 8000}.1", 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.output = bytearray()
        self.input = bytearray()
        self.kept = []
        self.is_open = True

    def flush(self):
        while self.output:
            try:
                del self.output[: self.socket.send(self.output[:65536])]
            except BlockingIOError:
                return
            except OSError:
                self.is_open = False
                return

    def packets(self):
        """What has come; sets is_open to false at the end."""
        while True:
            try:
                data = self.socket.recv(262144)
            except BlockingIOError:
                break
            except OSError:
                self.is_open = False
                break
            if not data:
                self.is_open = False
                break
            self.input += data
            if len(data) < 262144:
                break
        view, start, found = self.input, 0, self.kept
        self.kept = []
        while len(view) - start >= 2:
            size, shift, place = 0, 0, start + 1
            while place < len(view):
                byte = view[place]
                size |= (byte & 127) << shift
                shift += 7
                place += 1
                if byte < 128:
                    break
            else:
                break
            if len(view) < place + size:
                break
            found.append((view[start], bytes(view[place : place + size])))
            start = place + size
        del self.input[:start]
        return found

    def wait(self, kind, seconds=60):
        """Blocks until a packet of this kind has come."""
        deadline = time.monotonic() + seconds
        # Not select(), which takes descriptors below 1024 only.
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while time.monotonic() < deadline:
            self.flush()
            poll.modify(self.socket, select.POLLIN | (select.POLLOUT if self.output else 0))
            poll.poll(500)
            found = self.packets()
            for place, (first, body) in enumerate(found):
                if first >> 4 == kind:
                    # What came behind it is for whoever asks next.
                    self.kept = found[place + 1 :]
                    return body
            if not self.is_open:
                return None
        return None

    def close(self):
        self.is_open = False
        self.socket.close()


def session(port, name, filters):
    """A kept session that subscribes with QoS 1 and goes."""
    client = Client(port)
    client.output += connect(name, clean=False)
    client.wait(2)
    client.output += subscribe(1, filters, 1)
    client.wait(9)
    client.output += packet(0xE0, b"")
    client.flush()
    client.close()


class Publisher:
    WINDOW = 256

    def __init__(self, number, version, payload):
        self.number, self.version = number, version
        self.filler = b"x" * max(0, payload - 8)
        self.client, self.waiting, self.sequence = None, collections.deque(), 0
        self.is_ready, self.retry_at = False, 0.0

    def open(self, port):
        self.client = Client(port)
        self.client.output += connect(f"publisher-{self.number}", self.version)
        self.waiting.clear()
        self.is_ready = False

    def fill(self):
        while self.is_ready and len(self.waiting) < self.WINDOW and len(self.client.output) < 65536:
            self.sequence += 1
            self.waiting.append(self.sequence)
            self.client.output += publish(
                f"load/{self.number}", struct.pack(">II", self.number, self.sequence) + self.filler, 1,
                self.sequence % 65535 + 1, version=self.version)


def publishers(options):
    for index in range(options.queues):
        session(options.port, f"away-{index}", ["load/#"])
    live = Client(options.port)
    live.output += connect("live", clean=False)
    live.wait(2)
    live.output += subscribe(1, ["load/#"], 1)
    live.wait(9)

    poll = select.epoll()
    crowd, by_descriptor = [], {live.socket.fileno(): None}
    poll.register(live.socket, select.EPOLLIN)

    def start(publisher):
        publisher.open(options.port)
        by_descriptor[publisher.client.socket.fileno()] = publisher
        poll.register(publisher.client.socket, select.EPOLLIN | select.EPOLLOUT)

    for number in range(options.clients):
        crowd.append(Publisher(number, 5 if number % 2 else 4, options.payload))
        start(crowd[-1])
    accepted, delivered = set(), 0
    counts = collections.Counter()
    most, next_sample = 0, 0.0
    end = time.monotonic() + options.seconds
    while (now := time.monotonic()) < end:
        if now >= next_sample:
            most, next_sample = max(most, resident(options.pid)), now + 0.1
        for descriptor, events in poll.poll(0.05):
            publisher = by_descriptor.get(descriptor)
            if publisher is None:
                for first, body in live.packets():
                    if first >> 4 == 3:
                        delivered += 1
                        size = struct.unpack_from(">H", body)[0]
                        live.output += packet(0x40, body[2 + size : 4 + size])
                live.flush()
                poll.modify(live.socket, select.EPOLLIN | (select.EPOLLOUT if live.output else 0))
                continue
            client = publisher.client
            for first, body in client.packets():
                if first >> 4 == 2:
                    code = body[1]
                    publisher.is_ready = code == 0
                    counts["connects refused" if code else "connects accepted"] += 1
                elif first >> 4 == 4:
                    sequence = publisher.waiting.popleft()
                    code = body[2] if len(body) > 2 else 0
                    if code >= 0x80:
                        counts[f"puback 0x{code:02x}"] += 1
                    else:
                        counts["acknowledged"] += 1
                        accepted.add(publisher.number << 32 | sequence)
                elif first >> 4 == 14:
                    counts[f"disconnect 0x{body[0]:02x}"] += 1
            if client.is_open:
                publisher.fill()
                client.flush()
                # With its window full there is nothing to send until an acknowledgement comes.
                poll.modify(client.socket, select.EPOLLIN | (select.EPOLLOUT if client.output else 0))
            if not client.is_open:
                counts["connections ended"] += 1
                poll.unregister(descriptor)
                del by_descriptor[descriptor]
                client.close()
                publisher.retry_at = now + 0.5
        for publisher in crowd:
            if not publisher.client.is_open and publisher.retry_at <= now:
                start(publisher)
    for publisher in crowd:
        publisher.client.close()
    live.close()

    # Everybody is gone: those with a queue fetch it, and nothing that was acknowledged may be missing.
    lost = 0
    drained_most = 0
    for index in range(options.queues):
        missing = set(accepted)
        client = Client(options.port)
        client.output += connect(f"away-{index}", clean=False)
        if client.wait(2) is None:
            sys.exit("flood: a client with a queue was not let in")
        client.output += packet(0xC0, b"")
        quiet = time.monotonic() + 10
        while time.monotonic() < quiet and missing:
            select.select([client.socket], [client.socket] if client.output else [], [], 1)
            for first, body in client.packets():
                if first >> 4 != 3:
                    continue
                quiet = time.monotonic() + 10
                size = struct.unpack_from(">H", body)[0]
                number, sequence = struct.unpack_from(">II", body, 4 + size)
                missing.discard(number << 32 | sequence)
                client.output += packet(0x40, body[2 + size : 4 + size])
            client.flush()
            drained_most = max(drained_most, resident(options.pid))
        lost += len(missing)
        client.close()
    # Service as before: somebody new is let in.
    deadline, refused = time.monotonic() + 30, True
    while refused and time.monotonic() < deadline:
        client = Client(options.port)
        client.output += connect("new")
        body = client.wait(2)
        refused = body is None or body[1] != 0
        client.close()
        time.sleep(0.2)
    print(f"seconds {options.seconds}\nclients {options.clients}\npayload {options.payload}")
    for name, count in sorted(counts.items()):
        print(f"{name} {count}")
    print(f"delivered to the consumer that stays {delivered}")
    print(f"resident at most {max(most, drained_most)}")
    print(f"acknowledged and lost {lost}\nserved afterwards {'no' if refused else 'yes'}")
    return 1 if lost or refused else 0


def go_at_once(clients, options):
    """Whether another one is answered meanwhile."""
    started = time.monotonic()
    for client in clients:
        client.close()
    probe = Client(options.port)
    probe.output += connect("probe")
    alive = probe.wait(2) is not None
    print(f"answer while all go, ms {(time.monotonic() - started) * 1000:.0f}")
    return alive


def connections(options):
    before = resident(options.pid)
    clients = []
    started = time.monotonic()
    for index in range(options.count):
        client = Client(options.port, index)
        client.output += connect(f"idle-{index}")
        client.flush()
        clients.append(client)
    refused = sum(1 for client in clients if (client.wait(2) or b"\0\xff")[1] != 0)
    print(f"connections {options.count}\nseconds {time.monotonic() - started:.2f}")
    time.sleep(3)
    after = resident(options.pid)
    print(f"refused {refused}\nresident per connection {(after - before) // options.count}")
    alive = go_at_once(clients, options)
    time.sleep(3)
    print(f"resident afterwards {resident(options.pid)}, before {before}")
    return 1 if refused or not alive else 0


def subscriptions(options):
    before = resident(options.pid)
    clients, refused = [], 0
    each = 10_000
    started = time.monotonic()
    for index in range(options.count // each):
        client = Client(options.port)
        client.output += connect(f"subscriber-{index}")
        client.wait(2)
        for block in range(0, each, 1000):
            client.output += subscribe(
                1, [f"site/{index}/device/{number}/state" for number in range(block, block + 1000)], 1)
            body = client.wait(9) or b"\0\0" + b"\x80" * 1000
            refused += sum(1 for code in body[2:] if code >= 0x80)
        clients.append(client)
    took = time.monotonic() - started
    time.sleep(2)
    after = resident(options.pid)
    print(f"subscriptions {options.count}\nseconds {took:.2f}\nrefused {refused}")
    print(f"resident per subscription {(after - before) // options.count}")
    return 1 if refused or not go_at_once(clients, options) else 0


def retained(options):
    keeper = Client(options.port)
    keeper.output += connect("keeper")
    keeper.wait(2)
    for number in range(options.count):
        keeper.output += publish(f"fleet/{number % 1000}/device/{number}", b"x" * options.payload, retain=True)
    keeper.output += packet(0xC0, b"")
    keeper.wait(13)
    before = resident(options.pid)
    client = Client(options.port)
    client.output += connect("late")
    client.wait(2)
    started = time.monotonic()
    client.output += subscribe(1, ["#"], 0)
    client.flush()
    time.sleep(2)
    unread = resident(options.pid)
    topics, quiet = set(), time.monotonic() + 10
    while len(topics) < options.count and time.monotonic() < quiet:
        select.select([client.socket], [], [], 1)
        for first, body in client.packets():
            if first >> 4 == 3:
                quiet = time.monotonic() + 10
                topics.add(body[2 : 2 + struct.unpack_from(">H", body)[0]])
    print(f"retained {options.count}\nreceived {len(topics)}\nseconds {time.monotonic() - started - 2:.2f}")
    print(f"more resident while nothing is read {unread - before}")
    return 0 if len(topics) == options.count else 1


def crowd(options):
    """Subscribers that keep their sessions and read nothing, all of one topic, and publishers at full speed."""
    members, refused = [], 0
    for index in range(options.count):
        client = Client(options.port, index)
        client.output += connect(f"member-{index}", version=5, clean=False, expiry=3600)
        body = client.wait(2)
        if body is None or body[1] != 0:
            refused += 1
            client.close()
            continue
        client.output += subscribe(1, ["load/#"], options.qos, version=5)
        if client.wait(9) is None:
            sys.exit("flood: no SUBACK")
        members.append(client)
    print(f"subscribers {len(members)}\nrefused {refused}")
    print(f"own memory before {resident(options.pid, 'RssAnon')}", flush=True)
    crowd = [Publisher(number, 5, options.payload) for number in range(options.clients)]
    counts = collections.Counter()
    most, next_sample = 0, 0.0
    end = time.monotonic() + options.seconds
    while (now := time.monotonic()) < end:
        if now >= next_sample:
            most, next_sample = max(most, resident(options.pid, "RssAnon")), now + 0.02
        for publisher in crowd:
            client = publisher.client
            if client is None or not client.is_open:
                if publisher.retry_at <= now:
                    publisher.open(options.port)
                    publisher.retry_at = now + 1
                continue
            for first, body in client.packets():
                if first >> 4 == 2:
                    publisher.is_ready = body[1] == 0
                elif first >> 4 == 4:
                    publisher.waiting.popleft()
                    counts["refused" if len(body) > 2 and body[2] >= 0x80 else "acknowledged"] += 1
            publisher.fill()
            client.flush()
        time.sleep(0.001)
    for publisher in crowd:
        if publisher.client is not None:
            publisher.client.close()
    for name, count in sorted(counts.items()):
        print(f"publishes {name} {count}")
    print(f"own memory at most {most}")
    # Pings are answered still.
    client = Client(options.port)
    client.output += connect("member-0", version=5, clean=False, expiry=3600)
    served = client.wait(2) is not None
    print(f"served afterwards {'yes' if served else 'no'}")
    return 0 if served else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in [
        ("publishers", publishers), ("connections", connections), ("subscriptions", subscriptions),
        ("retained", retained), ("crowd", crowd),
    ]:
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--port", type=int, required=True)
        command.add_argument("--pid", type=int, required=True)
        command.add_argument("--payload", type=int, default=1024)
        command.add_argument("--qos", type=int, default=1)
        command.add_argument("--clients", type=int, default=1000)
        command.add_argument("--queues", type=int, default=2)
        command.add_argument("--seconds", type=int, default=60)
        command.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    sys.exit(options.function(options))


if __name__ == "__main__":
    main()
