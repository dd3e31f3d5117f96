#!/usr/bin/env python3
"""A store at scale, beside traffic: filled, killed, held to what it promised, started again and emptied.

    store_scale.py --bin DIR [--sessions 20000] [--messages 100000]

Prints what each took. Exit code 1 if a message is missing, `check` finds anything, or the broker does not end in order. For a
broker under a sanitizer, scripts/swarm.sh has the environment.
"""

import argparse
import asyncio
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time

import scale
import wire
from model import Finding
from process import Broker

QUEUES = 200
PATIENCE = 120


class Traffic(threading.Thread):
    """Publishes with QoS 1, one message at a time, and gets each back."""

    def __init__(self, port):
        super().__init__()
        self.port, self.is_over = port, threading.Event()
        self.count, self.slowest = 0, 0.0

    def run(self):
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as one:
            one.sendall(wire.connect(4, "traffic", True) + wire.subscribe(4, 1, [("live", 1, 0, 0, 0)]))
            reader, number, owed, sent = wire.Reader(4), 1, set(), 0.0
            while not self.is_over.is_set():
                if not owed:
                    number, owed, sent = number % 60_000 + 2, {wire.PUBACK, wire.PUBLISH}, time.monotonic()
                    one.sendall(wire.publish(4, "live", scale.PAYLOAD, 1, False, False, number))
                try:
                    data = one.recv(1 << 16)
                except ConnectionResetError:
                    return
                if not data:
                    return
                for packet in reader.feed(data):
                    owed.discard(packet.kind)
                    if packet.kind == wire.PUBLISH:
                        one.sendall(wire.acknowledge(wire.PUBACK, packet.number))
                if not owed:
                    self.count, self.slowest = self.count + 1, max(self.slowest, time.monotonic() - sent)

    def end(self):
        self.is_over.set()
        self.join(PATIENCE)
        return "%d messages beside, the slowest %.0f ms" % (self.count, self.slowest * 1000)


def empty(port, messages):
    """Each session comes back for all it is owed."""
    for index in range(QUEUES):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as one:
            one.sendall(wire.connect(4, "session-%d" % index, False))
            reader, left = wire.Reader(4), messages // QUEUES
            while left:
                data = one.recv(1 << 16)
                if not data:
                    raise Finding("session %d: closed, %d messages are missing" % (index, left))
                for packet in reader.feed(data):
                    if packet.kind == wire.PUBLISH:
                        if packet.payload != scale.PAYLOAD:
                            raise Finding("session %d: another payload: %r" % (index, packet.payload[:60]))
                        left -= 1
                        one.sendall(wire.acknowledge(wire.PUBACK, packet.number))
            one.sendall(wire.disconnect(4, 0))


async def run(options, directory):
    program = os.path.join(os.path.abspath(options.bin), "arena-broker")
    settings = {"limit": scale.LIMIT_MIB, "loops": 2, "store": True, "acl": False, "inflight": 256}
    broker, begun = Broker(directory, directory, settings, program), time.monotonic()

    def say(what):
        print("%6.1f s  %s" % (time.monotonic() - begun, what), flush=True)
    await broker.start()
    loader, traffic = scale.Loader(broker.ports["tcp"]), Traffic(broker.ports["tcp"])
    traffic.start()
    await asyncio.to_thread(loader.sessions, options.sessions, QUEUES)
    say("%d sessions" % options.sessions)
    await asyncio.to_thread(loader.messages, options.messages, QUEUES)
    say("%d messages; counter %d bytes" % (options.messages, (await broker.memory())["counter_bytes"]))
    await broker.kill()
    say("killed; " + traffic.end())
    check = subprocess.run([program, "check", "--data-directory", broker.data], capture_output=True, text=True, timeout=600)
    say("check: %s" % " ".join((check.stdout + check.stderr).split()))
    if check.returncode:
        raise Finding("check: exit code %d" % check.returncode)
    await broker.start()
    say("started")
    traffic = Traffic(broker.ports["tcp"])
    traffic.start()
    await asyncio.to_thread(empty, broker.ports["tcp"], options.messages)
    say("%d messages came back; %s" % (options.messages, traffic.end()))
    code = await broker.end(within=PATIENCE)
    if code != 0:
        raise Finding("SIGTERM: exit code %s; the last lines: %s" % (code, "\n".join(broker.lines[-25:])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="where arena-broker is")
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--messages", type=int, default=100_000, help="in %d of the sessions" % QUEUES)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        try:
            asyncio.run(run(options, directory))
        except Finding as finding:
            sys.exit("store_scale: %s" % finding)


if __name__ == "__main__":
    main()
