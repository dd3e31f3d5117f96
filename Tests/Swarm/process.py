"""The broker under test: its directory, its process, and what it is asked all the while."""

import asyncio
import base64
import hashlib
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import time

from model import Finding

USERS = ("anna", "ben", "root")
TOKEN = "swarm-token-0123456789"
LISTENERS = ("tcp", "tls", "ws", "wss", "proxy")


def password_line(user):
    salt = user.encode().ljust(12, b".")
    digest = hashlib.pbkdf2_hmac("sha512", user.encode(), salt, 101)
    return "%s:$7$101$%s$%s\n" % (user, base64.b64encode(salt).decode(), base64.b64encode(digest).decode())


def certificate(directory):
    """Self-signed, made once for all rounds."""
    key, cert = os.path.join(directory, "key.pem"), os.path.join(directory, "cert.pem")
    if not os.path.exists(cert):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def acl_text(rules):
    lines = []
    for user, mine in rules.items():
        if user:
            lines.append("user " + user)
        lines += ["topic %s %s" % tuple(rule) for rule in mine]
    return "\n".join(lines) + "\n"


class Broker:
    """One broker process on free loopback ports; may be killed and started again."""

    def __init__(self, directory, shared, options, program, environment=None):
        self.directory, self.options, self.program, self.environment = directory, options, program, environment
        self.child, self.lines, self.changed = None, [], asyncio.Event()
        self.ports, self.http = {}, None
        self.log = open(os.path.join(directory, "broker.log"), "ab")
        self.reading = None
        self._expects_end, self.ends_from = False, None
        # How often it was started: who asked the one before gets no answer.
        self.starts = 0
        self.arguments = []
        self.data = os.path.join(directory, options.get("data", "data"))
        os.makedirs(os.path.join(directory, "dumps"), exist_ok=True)
        cert, key = certificate(shared)
        text = [
            'memoryLimit = "%dMiB"' % options["limit"], "threads = %d" % options["loops"], 'dumpDirectory = "dumps"',
            'logLevel = "info"']
        if options["store"]:
            text.append('dataDirectory = "%s"' % self.data)
        text += ["[dumps]", "loopWaitMilliseconds = 60000"]
        text += ["[http]", "port = 0", 'tokenFile = "tokens"', "[access]"]
        if options["acl"]:
            text += ["anonymous = true", 'passwordFile = "passwords"', 'aclFile = "acl"',
                     "failedLoginDelayMilliseconds = 0"]
        else:
            text += ["anonymous = true"]
        text += ["[limits]"] + ["%s = %s" % pair for pair in {
            "maxQueuedMessages": 100000, "maxQueuedBytes": 1 << 30, "maxBacklogMessages": 100000,
            "maxBacklogBytes": 1 << 28, "connectTimeoutSeconds": 60, "maxInflight": options["inflight"],
            "receiversPerPiece": options.get("piece", 1024)}.items()]
        if options.get("drill"):
            text += ["[faults]", "rpcResponseLeakPercent = 100.0"]
        for name in LISTENERS:
            text += ["[[listeners]]", 'name = "%s"' % name, "port = 0"]
            if name in ("tls", "wss"):
                text += ['certificateFile = "%s"' % cert, 'keyFile = "%s"' % key]
            if name in ("ws", "wss"):
                text.append("webSocket = true")
            if name == "proxy":
                text.append("proxyProtocol = true")
        self.write("broker.toml", "\n".join(text) + "\n")
        self.write("tokens", TOKEN + "\n")
        self.write("passwords", "".join(password_line(user) for user in USERS))
        os.chmod(os.path.join(directory, "tokens"), 0o600)
        if options["acl"]:
            self.write("acl", acl_text(options["rules"]))

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w") as file:
            file.write(text)

    @property
    def pid(self):
        return self.child.pid

    @property
    def is_running(self):
        return self.child is not None and self.child.returncode is None

    async def start(self, within=120):
        self.starts += 1
        self.ports, self.http = {}, None
        environment = dict(os.environ, **(self.environment or {}))
        self.child = await asyncio.create_subprocess_exec(
            self.program, "--config", "broker.toml", *self.arguments, cwd=self.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, limit=1 << 22)
        self.expects_end = False
        begin = len(self.lines)
        self.reading = asyncio.ensure_future(self.read(self.child))
        await self.line(r"listening on http://127\.0\.0\.1:(\d+)|listening on 127\.0\.0\.1:(\d+) protocol=http\b", begin, within)
        for line in self.lines[begin:]:
            found = re.search(r"listening on (?:\w+://)?127\.0\.0\.1:(\d+)(?:/\S*)?(.*)", line)
            if not found:
                continue
            name = re.search(r"listener=(\w+)", found[2])
            if name:
                self.ports[name[1]] = int(found[1])
            else:
                self.http = int(found[1])
        if set(self.ports) != set(LISTENERS) or self.http is None:
            raise Finding("the broker listens on %s, HTTP %s" % (self.ports, self.http))

    async def read(self, child):
        async for line in child.stderr:
            self.log.write(line)
            self.log.flush()
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
            self.changed.set()
        await child.wait()
        self.changed.set()

    async def line(self, pattern, begin, within):
        """The first line from the `begin`th on that matches."""
        loop = asyncio.get_running_loop()
        deadline, at = loop.time() + within, begin
        while True:
            while at < len(self.lines):
                found = re.search(pattern, self.lines[at])
                if found:
                    return found
                at += 1
            if not self.is_running and self.reading.done():
                raise Finding("the broker ended with %s; its last lines: %s" % (
                    self.child.returncode, "\n".join(self.lines[-15:])))
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(0.01, min(1.0, deadline - loop.time())))
            except asyncio.TimeoutError:
                if loop.time() >= deadline:
                    raise Finding("no line %r within %d s; the last: %s" % (pattern, within, "\n".join(self.lines[-8:])))

    async def gone(self, within=180):
        """Waits for the end, and for what is still written: of a crash that is a backtrace, which takes its time."""
        try:
            await asyncio.wait_for(asyncio.gather(self.child.wait(), asyncio.shield(self.reading)), within)
        except asyncio.TimeoutError:
            raise Finding("the broker is not gone after %d s; its last lines: %s" % (
                within, "\n".join(self.lines[-15:]))) from None

    @property
    def expects_end(self):
        """Whether it is being ended, since `ends_from`."""
        return self._expects_end

    @expects_end.setter
    def expects_end(self, value):
        if value and not self._expects_end:
            self.ends_from = time.monotonic()
        self._expects_end = value

    async def kill(self):
        self.expects_end = True
        self.child.kill()
        await self.gone()

    async def end(self, within=30):
        """SIGTERM. The exit code, None if it has to be killed."""
        self.expects_end = True
        if not self.is_running:
            return self.child.returncode
        self.child.terminate()
        try:
            await asyncio.wait_for(self.child.wait(), within)
        except asyncio.TimeoutError:
            self.child.kill()
            await self.gone()
            return None
        await self.gone()
        return self.child.returncode

    def give_up(self):
        if self.is_running:
            self.expects_end = True
            self.child.kill()

    # MARK: - What happens to it

    async def reload(self, rules):
        self.write("acl", acl_text(rules))
        begin = len(self.lines)
        self.child.send_signal(signal.SIGHUP)
        await self.line(r"configuration reloaded", begin, 60)

    def limit_files(self, is_full):
        """A disk without room: no file may grow."""
        limit = 1 if is_full else resource.RLIM_INFINITY
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def lock_store(self):
        """A disk that writes nothing until the connection that this returns is closed."""
        database = sqlite3.connect(
            os.path.join(self.data, "arena-broker.sqlite"), timeout=2, isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        return database

    # MARK: - What it is asked

    async def request(self, path, method="GET", within=60, body=b""):
        """Status and body over HTTP."""
        async def ask():
            reader, writer = await asyncio.open_connection("127.0.0.1", self.http)
            try:
                writer.write(("%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"
                              "Content-Length: %d\r\n\r\n" % (method, path, TOKEN, len(body))).encode() + body)
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await reader.read()
                if b"chunked" in head.lower():
                    answer = unchunked(answer)
                return int(head.split()[1]), answer
            finally:
                writer.close()
        return await asyncio.wait_for(ask(), within)

    async def memory(self):
        status, body = await self.request("/v1/memory")
        if status != 200:
            raise Finding("GET /v1/memory: %d %r" % (status, body[:200]))
        return json.loads(body)

    async def metrics(self):
        """{name with its labels: value}"""
        status, body = await self.request("/metrics")
        if status != 200:
            raise Finding("GET /metrics: %d %r" % (status, body[:200]))
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                for line in body.decode().splitlines() if line and not line.startswith("#")}

    async def dump(self):
        """SIGUSR1; the path of the dump, None where there was no room for it."""
        begin = len(self.lines)
        self.child.send_signal(signal.SIGUSR1)
        found = await self.line(r'dump written.* path="?([^" ]+)"?.*reason="?signal|dump failed.*File too large', begin, 120)
        return os.path.join(self.directory, found[1]) if found[1] else None

    def resident(self):
        """Bytes of memory that are not pages of files."""
        total = 0
        try:
            with open("/proc/%d/status" % self.pid) as file:
                for line in file:
                    if line.startswith(("RssAnon:", "RssShmem:")):
                        total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            # It has just been killed.
            return 0
        return total


def unchunked(body):
    out = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        out += rest[:length]
        body = rest[length + 2:]
        if not length:
            break
    return bytes(out)


async def analyze(program, *arguments, within=120):
    """Exit code and output of arena-analyze."""
    child = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = await asyncio.wait_for(child.communicate(), within)
    except asyncio.TimeoutError:
        child.kill()
        await child.wait()
        raise Finding("arena-analyze %s: no end within %d s" % (" ".join(arguments), within))
    return child.returncode, output.decode(errors="replace")
