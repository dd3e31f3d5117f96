#!/usr/bin/env python3
"""Every observer and every command of the analyzer, once, on a live broker at scale.

    scale.py --bin DIR [--share 1.0]    1,000,000 queued messages, 100,000 sessions, 15,000 connections, times that share

Prints what each took. Exit code 1 if one failed, found something unreachable, or the broker passed its limit by 10 %.
"""

import argparse
import asyncio
import glob
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time

import wire
from model import Finding
from process import Broker, analyze

MIB = 1 << 20
LIMIT_MIB = 2_048
# Sessions with a queue; the others are only there.
QUEUES = 1_000
PAYLOAD = b"x" * 100


class Loader:
    """Fills a broker over plain sockets, many at a time."""

    def __init__(self, port):
        self.port, self.opened = port, 0
        self.held = []

    def open(self):
        one = socket.socket()
        # Each address of the loopback interface has some 28,000 ports.
        one.bind(("127.0.%d.1" % (1 + self.opened // 8_000 % 200), 0))
        self.opened += 1
        one.connect(("127.0.0.1", self.port))
        one.settimeout(120)
        return one

    @staticmethod
    def receive(one, count):
        data = b""
        while len(data) < count:
            more = one.recv(count - len(data))
            if not more:
                raise Finding("the broker closed a connection after %r" % data)
            data += more
        return data

    def sessions(self, count, queues):
        """Kept sessions; the first ones subscribe to a topic of their own. Their connections are reset."""
        for begin in range(0, count, 200):
            batch = []
            for index in range(begin, min(count, begin + 200)):
                one = self.open()
                data = wire.connect(4, "session-%d" % index, False)
                if index < queues:
                    data += wire.subscribe(4, 1, [("q/%d" % index, 1, 0, 0, 0)])
                one.sendall(data)
                batch.append((one, index))
            for one, index in batch:
                answer = self.receive(one, 9 if index < queues else 4)
                if answer[3] != 0 or answer[8:] not in (b"", b"\x01"):
                    raise Finding("session %d was refused: %r" % (index, answer))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()

    def connections(self, count):
        for begin in range(0, count, 200):
            batch = []
            for index in range(begin, min(count, begin + 200)):
                one = self.open()
                one.sendall(wire.connect(4, "connection-%d" % index, True))
                batch.append(one)
            for one in batch:
                if self.receive(one, 4) != b"\x20\x02\0\0":
                    raise Finding("a connection was refused")
            self.held += batch

    def messages(self, count, queues):
        """QoS 1, each acknowledged."""
        one = self.open()
        one.sendall(wire.connect(4, "publisher", True))
        self.receive(one, 4)
        for begin in range(0, count, 1_000):
            number = min(1_000, count - begin)
            one.sendall(b"".join(
                wire.publish(4, "q/%d" % ((begin + index) % queues), PAYLOAD, 1, False, False, index + 1)
                for index in range(number)))
            self.receive(one, 4 * number)
        self.held.append(one)

    def ping(self, count):
        """The slowest of some pings, milliseconds."""
        slowest = 0.0
        for one in self.held[:count]:
            begun = time.monotonic()
            one.sendall(wire.ping())
            self.receive(one, 2)
            slowest = max(slowest, time.monotonic() - begun)
        return slowest * 1000


class Scale:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.failed = []
        programs = os.path.abspath(options.bin)
        self.analyzer = os.path.join(programs, "arena-analyze")
        settings = {"limit": LIMIT_MIB, "loops": options.loops, "store": False, "acl": False, "inflight": 256}
        self.broker = Broker(directory, directory, settings, os.path.join(programs, "arena-broker"))

    async def timed(self, what, work):
        begun = time.monotonic()
        try:
            result = await work
        except (Finding, OSError, asyncio.TimeoutError, subprocess.SubprocessError) as error:
            self.failed.append(what)
            print("%-34s FAILED: %s %s" % (what, type(error).__name__, str(error)[:800]), flush=True)
            return None
        print("%-34s %7.2f s%s" % (what, time.monotonic() - begun, "  " + result if isinstance(result, str) else ""), flush=True)
        return result

    async def command(self, *arguments):
        code, output = await analyze(self.analyzer, *arguments)
        if code:
            raise Finding("exit %d: %s" % (code, output[-600:]))
        if not output.strip() and "-o" not in arguments:
            raise Finding("no output")
        return "%d bytes" % len(output)

    async def memory(self):
        report = await self.broker.memory()
        for part in ("size_classes", "owners", "referrers"):
            total = sum(one["bytes"] for one in report[part])
            if total != report["live_bytes"]:
                raise Finding("%s add up to %d, live bytes are %d" % (part, total, report["live_bytes"]))
        unreachable = [one for one in report["referrers"] if "unreachable" in one.values()]
        if any(one["bytes"] for one in unreachable):
            raise Finding("unreachable: %s" % unreachable)
        return "%d MiB of %d, loops stood still for %.1f ms" % (
            report["counter_bytes"] // MIB, report["limit_bytes"] // MIB, report["pause_nanoseconds"] / 1e6)

    async def metrics(self):
        return "%d figures" % len(await self.broker.metrics())

    async def health(self):
        status, body = await self.broker.request("/health")
        if status != 200:
            raise Finding("%d %r" % (status, body))
        return body.decode()

    async def http_dump(self):
        status, body = await self.broker.request("/v1/dumps", "POST", within=120)
        if status != 201:
            raise Finding("%d %r" % (status, body))
        return body.decode().strip()

    async def system_topics(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.broker.ports["tcp"])
        writer.write(wire.connect(4, "reader", True) + wire.subscribe(4, 1, [("$SYS/#", 0, 0, 0, 0)]))
        packets, seen = wire.Reader(4), {}
        while "$SYS/broker/memory/report" not in seen:
            data = await asyncio.wait_for(reader.read(1 << 16), 60)
            for packet in packets.feed(data):
                if packet.kind == wire.PUBLISH:
                    seen[packet.topic] = packet.payload
        writer.close()
        return "%d topics, the report among them" % len(seen)

    def slots(self, dump):
        """The serial number of some buffer."""
        text = subprocess.run(
            [self.analyzer, "query", dump, "SELECT serial FROM buffers LIMIT 1", "--format", "csv"], check=True,
            capture_output=True, text=True, timeout=120).stdout
        return text.split()[1].strip('"')

    async def run(self):
        share = self.options.share
        messages, sessions, connections = (int(one * share) for one in (1_000_000, 100_000, 15_000))
        queues = max(1, int(QUEUES * share))
        await self.broker.start()
        loop, loader = asyncio.get_running_loop(), Loader(self.broker.ports["tcp"])

        def fill(work, *arguments):
            return loop.run_in_executor(None, work, *arguments)
        await self.timed("%d sessions" % sessions, fill(loader.sessions, sessions, queues))
        await self.timed("%d connections" % connections, fill(loader.connections, connections))
        first = await self.timed("dump before, by SIGUSR1", self.broker.dump())
        await self.timed("%d queued messages" % messages, fill(loader.messages, messages, queues))
        if self.failed:
            return
        await self.observe(first, loader, fill)
        resident = self.broker.resident()
        print("resident %d MiB of %d" % (resident // MIB, LIMIT_MIB))
        if resident > LIMIT_MIB * MIB * 1.1:
            self.failed.append("resident")
        slowest = await self.timed("pings", fill(loader.ping, 2_000))
        print("slowest of 2,000 pings %.1f ms" % (slowest or 0))
        code = await self.timed("SIGTERM", self.broker.end(within=60))
        if code != 0:
            self.failed.append("SIGTERM: %s" % code)
            print("\n".join(self.broker.lines[-10:]))

    async def observe(self, first, loader, fill):
        await self.timed("GET /health", self.health())
        await self.timed("GET /metrics", self.metrics())
        await self.timed("GET /v1/memory", self.memory())
        await self.timed("$SYS topics", self.system_topics())
        await self.timed("POST /v1/dumps", self.http_dump())
        dump = await self.timed("dump by SIGUSR1", self.broker.dump())
        if not dump or not first:
            return
        pid, out = str(self.broker.pid), os.path.join(self.directory, "out")
        await self.timed("capture", self.command("capture", pid))
        await self.timed("top", self.command("top", pid, "--count", "2", "--interval", "1"))
        serial = self.slots(dump)
        for arguments in (
            ["verify"], ["summary", "--fail-on", "unreachable > 0"], ["sites"], ["owners"], ["histogram"], ["buffers"],
            ["show", serial], ["path", serial], ["dominators"], ["leaks", "--fail-on", "suspects > 0"], ["chunks"],
            ["query", "SELECT * FROM leaks"], ["report", "-o", out + ".html"],
            ["export", "--to", "csv", "-o", out + ".csv"], ["export", "--to", "jsonl", "-o", out + ".jsonl"],
            ["export", "--to", "sqlite", "-o", out + ".sqlite"], ["export", "--to", "pprof", "-o", out + ".pb"],
            ["export", "--to", "folded", "-o", out + ".folded"], ["redact", "-o", out + ".redacted.zst"],
        ):
            name = " ".join(one for one in arguments if not one.startswith(("/", "SELECT", "-")))
            await self.timed(name, self.command(arguments[0], dump, *arguments[1:]))
            for path in glob.glob(out + "*"):
                os.unlink(path)
        await self.timed("diff", self.command("diff", first, dump))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="where arena-broker and arena-analyze are")
    parser.add_argument("--share", type=float, default=1.0, help="of the full load")
    parser.add_argument("--loops", type=int, default=2)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 15_500 * options.share:
        sys.exit("scale: %d file descriptors are too few; see ulimit -n" % hard)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scale-") as directory:
        async def run():
            scale = Scale(options, directory)
            try:
                await scale.run()
            finally:
                scale.broker.give_up()
            return scale.failed
        failed = asyncio.run(run())
    print("%s, %.0f s" % ("failed: " + ", ".join(failed) if failed else "all done", time.monotonic() - begun))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
