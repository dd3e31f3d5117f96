"""Plays a script against a broker of its own and says what was wrong. One round."""

import asyncio
import collections
import os
import random
import shutil

import hostile
import script as scripts
import wire
from client import Client, PATIENCE
from model import FOREVER, Finding, History, Rules
from process import Broker, analyze
from sabotage import Sabotage
from transport import Link

MIB = 1 << 20
WATCHER = "watcher"
# Seconds: sessions that expire sooner do so while a round ends.
SOON = 10


def whereabouts(task):
    """What a task that does not end is waiting for: its name, and the lines from its beginning inwards."""
    lines, work = [], task.get_coro()
    while work is not None and getattr(work, "cr_frame", None) is not None:
        lines.append("%s:%d" % (work.cr_code.co_name, work.cr_frame.f_lineno))
        work = work.cr_await
    return "%s %s" % (task.get_name(), " > ".join(lines))


class Swarm:
    def __init__(self, script, directory, shared, programs, environment=None, is_instrumented=False, sabotaged=None):
        self.script, self.options, self.directory = script, script["options"], directory
        self.programs, self.is_instrumented = programs, is_instrumented
        rules = self.options.get("rules") if self.options["acl"] else None
        self.history = History(Rules(rules), self.options["store"], not self.options.get("tight"))
        self.broker = Broker(directory, shared, self.options, programs["broker"], environment)
        self.clients, self.locks = {}, collections.defaultdict(asyncio.Lock)
        self.tasks = set()
        self.is_ending = False
        self.store_fails, self.store_failed_until = 0, 0.0
        self.sabotage = Sabotage(sabotaged, self) if sabotaged else None
        self.pongs, self.slowest = 0, 0.0
        self.notes = collections.Counter()
        self.is_over = False
        self.beats, self.devices, self.muted = [], {}, []
        self.figures = collections.Counter()
        self.peak = 0

    @property
    def now(self):
        return asyncio.get_running_loop().time()

    @property
    def ports(self):
        return self.broker.ports

    def note(self, text):
        self.notes[text.split(":")[-1]] += 1

    def pong(self, seconds):
        self.pongs += 1
        self.slowest = max(self.slowest, seconds)

    # MARK: - What the broker may refuse

    def may_close(self, one):
        """Whether the broker may end a connection by itself."""
        if self.is_ending or not self.broker.is_running or self.broker.expects_end:
            return True
        if self.store_is_bad(one) or self.options.get("tight"):
            return True
        # An older CONNECT that nobody waited for may be read later.
        return any(other.connack is None and other.connect_sent > one.connect_sent - 30
                   for other in one.client.session.connections if other is not one)

    def store_is_bad(self, one=None):
        return self.store_fails > 0 or self.now < self.store_failed_until

    def may_refuse(self, one, code):
        if code in (0x88, 0x89, 0x97, 3) and (self.store_is_bad() or self.options.get("tight")):
            return True
        # A session is for the user that made it.
        session = one.client.session
        return code in (0x85, 2) and session.may_exist and session.owners != {one.user}

    def may_refuse_publish(self, message, code):
        if code == 0x87:
            return not self.history.rules.surely(message.user, "write", message.topic, message.sent, self.now)
        return code == 0x97 and (self.store_is_bad() or self.options.get("tight"))

    def may_refuse_subscription(self, one, new, code):
        if code in (0x80, 0x87) and self.options["acl"]:
            # Granted for sure is what may be read in any case; a wider filter is granted for a part of it.
            return not any(
                self.history.rules.surely(one.user, "read", topic, new.may[0], self.now)
                for area in scripts.TOPICS.values() for topic in area if wire.matches(new.filter, topic))
        return self.store_is_bad() or self.options.get("tight")

    # MARK: - The round

    def client(self, name):
        if name not in self.clients:
            self.clients[name] = Client(name, self)
        return self.clients[name]

    def spawn(self, work, name=None):
        task = asyncio.ensure_future(self.guard(work))
        task.set_name(str(name))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def guard(self, work):
        try:
            return await work
        except Finding as error:
            self.history.find(str(error))
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
            self.history.find("%s: %r" % (getattr(work, "__qualname__", work), error))

    async def ask(self, question):
        """A broker that is killed meanwhile owes no answer."""
        starts = self.broker.starts
        try:
            return await question
        except (Finding, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            if not self.broker.expects_end and self.broker.starts == starts:
                raise

    async def play(self):
        """The findings, as text."""
        try:
            await self.guard(self.begin())
            if not self.history.findings:
                await self.guard(self.run())
            await self.guard(self.close())
        finally:
            self.broker.give_up()
            for task in list(self.tasks):
                task.cancel()
        return self.history.findings

    async def begin(self):
        await self.broker.start()

    async def run(self):
        watcher = self.client(WATCHER)
        await self.open(watcher, self.plain(WATCHER))
        watcher.subscribe({"filters": [["#", 2, 0, 0, 0]]})
        await self.settle(watcher)
        observers = [self.spawn(self.observe()), self.spawn(self.beat())]
        for action in self.script["actions"]:
            work = self.spawn(self.act(action), action)
            if action.get("wait"):
                await work
            if action.get("pause"):
                await asyncio.sleep(action["pause"] / 1000)
            if self.history.findings:
                break
        # A cancellation can get lost in what they wait for (asyncio.wait_for), so they are told as well.
        self.is_over = True
        for task in observers:
            task.cancel()
        if not self.history.findings:
            await self.drain()

    def plain(self, name):
        """How a client comes back at the end for what it is owed."""
        part = self.script["cast"].get(name) or {
            "expiry": 3600, "user": "root" if self.options["acl"] else None, "versions": [5]}
        return {"client": name, "version": part["versions"][-1], "transport": "tcp", "clean": False,
                "expiry": part["expiry"], "user": part["user"]}

    def again(self, client):
        """As the user whose session it is."""
        last = client.session.last
        return dict(self.plain(client.name), user=last.user) if last else self.plain(client.name)

    async def open(self, client, action, rash=None):
        async with self.locks[client.name]:
            for _ in range(20):
                one = await client.open(action, rash)
                if one is not None or rash or self.broker.expects_end:
                    return one
                await asyncio.sleep(0.1)

    async def settle(self, client, is_end=False):
        """Until a ping is answered and nothing is under way. Where memory is short, who publishes is not read before
        others have taken what they are owed: that is waited for at the end only."""
        if not client.is_up:
            return
        may_wait = self.options.get("tight") and not is_end
        within = 2.0 if may_wait else PATIENCE
        waiter = asyncio.get_running_loop().create_future()
        client.ping(waiter)
        try:
            await asyncio.wait_for(waiter, within)
            await asyncio.wait_for(client.idle.wait(), within)
        except asyncio.TimeoutError:
            one = client.connection
            if one.is_up and not one.was_paused and not may_wait and not self.store_is_bad() and not self.broker.expects_end:
                self.history.find("%s: %s within %d s" % (
                    one, "no PINGRESP" if not waiter.done() or waiter.cancelled() else "not all acknowledged: %s" % [
                        out.message for out in list(client.outgoing.values())[:5]], within))

    async def act(self, action):
        await getattr(self, "do_" + action["do"].replace("-", "_"))(action)

    async def do_connect(self, action):
        await self.open(self.client(action["client"]), action)

    async def do_rash(self, action):
        await self.open(self.client(action["client"]), action, (action["after"] / 1000, action["how"]))

    async def do_drop(self, action):
        client = self.client(action["client"])
        one = client.connection
        if client.is_up:
            client.drop(one, action["how"])
            if action.get("wait"):
                await asyncio.wait_for(asyncio.shield(one.closed), PATIENCE + 5)

    async def do_publish(self, action):
        client = self.client(action["client"])
        client.publish(action)
        if action.get("wait") and client.is_up and not self.store_is_bad() and client.connection.withheld is None \
                and not client.connection.was_paused:
            await self.settle(client)

    async def do_subscribe(self, action):
        client = self.client(action["client"])
        client.subscribe(action)
        await self.maybe_settle(client, action)

    async def do_unsubscribe(self, action):
        client = self.client(action["client"])
        client.unsubscribe(action)
        await self.maybe_settle(client, action)

    async def maybe_settle(self, client, action):
        if action.get("wait") and client.is_up and not self.store_is_bad() and not client.connection.was_paused:
            await self.settle(client)

    async def do_ping(self, action):
        client = self.client(action["client"])
        if client.is_up and not client.connection.was_paused:
            await self.settle(client) if action.get("wait") else client.ping()

    async def do_pause(self, action):
        client = self.client(action["client"])
        if client.is_up:
            client.connection.was_paused = True
            client.connection.link.pause()

    async def do_resume(self, action):
        client = self.client(action["client"])
        if client.is_up:
            client.connection.link.resume()

    async def do_withhold(self, action):
        client = self.client(action["client"])
        if client.is_up and client.connection.withheld is None:
            client.connection.withheld = []

    async def do_release(self, action):
        client = self.client(action["client"])
        if client.is_up:
            client.release(client.connection)

    async def do_hostile(self, action):
        crowd = asyncio.gather(*(self.attack(action) for _ in range(action.get("times", 1))))
        try:
            await self.ask(asyncio.wait_for(crowd, PATIENCE))
        except asyncio.TimeoutError:
            # Whether attackers get in is nobody's concern.
            self.note("an attack that did not end: %s" % action["kind"])

    async def attack(self, action):
        kind, pieces = hostile.attack(action["kind"], action["seed"])
        self.figures["hostile"] += 1
        if kind.startswith("raw-") or kind == "http":
            port = self.broker.http if kind == "http" else self.ports[kind[4:]]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return None
            writer.write(b"".join(pieces))
            await asyncio.sleep(action["hold"] / 1000)
            return writer.transport.abort()
        try:
            link = await Link.open(kind, self.ports, lambda data: None, lambda: None, 4_096)
        except (OSError, asyncio.TimeoutError):
            return None
        if not action["reads"]:
            link.pause()
        for piece in pieces:
            link.raw(piece[1]) if isinstance(piece, tuple) else link.send(piece)
            await asyncio.sleep(0)
        await asyncio.sleep(action["hold"] / 1000)
        link.reset()

    async def do_rules(self, action):
        if not self.options["acl"] or self.broker.expects_end:
            return
        rules = scripts.rules_of(action["changes"])
        self.history.rules.change(rules, self.now)
        await self.broker.reload(rules)
        self.history.rules.changed(self.now)
        # What is read after these pings were answered was written under the new rules.
        for client in self.clients.values():
            client.ping()

    async def do_observe(self, action):
        await self.ask(
            {"memory": self.look_at_memory, "metrics": self.look_at_metrics, "health": self.look_at_health,
             "dump": self.look_at_dump, "top": self.look_at_top}[action["what"]]())

    async def do_device(self, action):
        """A device goes, or says nothing any more."""
        device = self.devices.pop(action["device"], None)
        if device is not None and not device.ended:
            if action["how"] == "mute":
                device.is_mute = True
                self.muted.append(device)
            else:
                device.reset()

    async def device(self, number):
        """A client that answers commands with what they hold, turned round."""
        # One at a time: of two that connect at once the one that stays would be forgotten.
        async with self.locks["device%d" % number]:
            if number not in self.devices or self.devices[number].ended:
                await self.open_device(number)

    async def open_device(self, number):
        reader, ready = wire.Reader(4), asyncio.get_running_loop().create_future()

        def came(data):
            for packet in reader.feed(data):
                if packet.kind == wire.SUBACK and not ready.done():
                    ready.set_result(None)
                if packet.kind == wire.PUBLISH and not link.is_mute:
                    if packet.qos:
                        link.send(wire.acknowledge(wire.PUBACK, packet.number))
                    link.send(wire.publish(
                        4, packet.topic.replace("/request/", "/response/"), packet.payload[::-1], 0))
        link = await Link.open("tcp", self.ports, came, lambda: ready.done() or ready.set_result(None))
        link.is_mute = False
        user = ("root", "root") if self.options["acl"] else None
        link.send(wire.connect(4, "device%d" % number, True, user=user))
        link.send(wire.subscribe(4, 1, [("v1/devices/me/rpc/request/+", 1, 0, 0, 0)]))
        await asyncio.wait_for(ready, PATIENCE)
        self.devices[number] = link

    async def do_command(self, action):
        await self.ask(self.command(action))

    async def command(self, action):
        """Commands over HTTP: each is answered by the device, or says that it is not there."""
        number = action["device"]
        if not self.options.get("tight"):
            await self.device(number)
        body = b"%d.%d." % (number, action["size"]) + b"c" * action["size"]
        answers = await asyncio.gather(*(
            self.broker.request("/v1/devices/device%d/commands?timeout=20" % number, "POST", body=body)
            for _ in range(action["count"])))
        for status, answer in answers:
            self.figures["commands"] += 1
            if status == 200:
                if answer != body[::-1]:
                    raise Finding("a command of %d bytes was answered with %d others" % (len(body), len(answer)))
            elif self.options.get("drill") and status in (500, 413):
                pass
            elif status not in (404, 409, 429, 502, 503, 504):
                raise Finding("a command was answered with %d %r" % (status, answer[:200]))

    async def do_full(self, action):
        if not self.options["store"]:
            return
        self.store_fails += 1
        outage = [self.now, FOREVER]
        self.history.outages.append(outage)
        self.broker.limit_files(True)
        try:
            await asyncio.sleep(action["for"] / 1000)
        finally:
            if self.broker.is_running:
                self.broker.limit_files(False)
            self.store_fails -= 1
            outage[1] = self.store_failed_until = self.now + 10

    async def do_lock(self, action):
        if not self.options["store"]:
            return
        try:
            database = self.broker.lock_store()
        except Exception as error:
            return self.note("lock: %s" % error)
        outage = [self.now, FOREVER]
        self.history.outages.append(outage)
        await asyncio.sleep(action["for"] / 1000)
        database.close()
        outage[1] = self.now + 2

    async def do_kill(self, action):
        self.figures["kills"] += 1
        await self.broker.kill()
        self.note_kill()
        await self.broker.start()
        # The watcher is there before anything else happens.
        watcher = self.client(WATCHER)
        await self.open(watcher, self.plain(WATCHER))
        if not self.options["store"]:
            watcher.subscribe({"filters": [["#", 2, 0, 0, 0]]})
        await self.settle(watcher)

    def note_kill(self):
        now = self.now
        # Its connections ended in between: a large process takes its time to be gone.
        self.history.kills += [min(self.broker.ends_from, now), now]
        for session in self.history.sessions.values():
            for one in session.connections:
                if one.ended_from == FOREVER:
                    one.ended_from, one.how = now, "kill"
            session.killed(now, self.options["store"])
        for one in [*self.beats, *self.devices.values(), *self.muted]:
            one.reset()
        self.beats, self.devices, self.muted = [], {}, []

    # MARK: - Observers

    async def observe(self):
        r = random.Random(len(self.script["actions"]))
        await asyncio.sleep(0.2)
        while not self.is_over:
            if not self.broker.expects_end and self.broker.http:
                look = r.choice((self.look_at_memory, self.look_at_metrics, self.look_at_health))
                await self.guard(self.ask(look()))
            await asyncio.sleep(r.choice((0.1, 0.3, 0.6)))

    def check_resident(self):
        resident = self.broker.resident()
        self.peak = max(self.peak, resident)
        limit = self.options["limit"] * MIB
        if resident > limit * 1.1 and not self.is_instrumented:
            raise Finding("resident: %d bytes, with a limit of %d" % (resident, limit))

    async def look_at_memory(self):
        report = await self.broker.memory()
        self.figures["memory"] += 1
        self.check_resident()
        if report["counter_bytes"] > report["limit_bytes"]:
            raise Finding("/v1/memory: counter %(counter_bytes)d over the limit %(limit_bytes)d" % report)
        unreachable = [one for one in report["referrers"] if "unreachable" in str(one)]
        if not self.options.get("drill") and any(isinstance(one, dict) and one.get("bytes", one.get("buffers", 0)) for one in unreachable):
            raise Finding("/v1/memory: unreachable: %s" % unreachable)

    async def look_at_metrics(self):
        await self.broker.metrics()
        self.figures["metrics"] += 1

    async def look_at_health(self):
        status, body = await self.broker.request("/health")
        self.figures["health"] += 1
        if status != 200:
            raise Finding("GET /health: %d %r" % (status, body[:200]))

    async def look_at_top(self):
        was_bad = self.store_is_bad()
        code, output = await analyze(
            self.programs["analyze"], "top", str(self.broker.pid), "--count", "1", "--interval", "1")
        self.figures["top"] += 1
        if code and not was_bad and not self.store_is_bad():
            raise Finding("arena-analyze top: exit %d: %s" % (code, output[-1_500:]))

    async def look_at_dump(self):
        path = await self.broker.dump()
        if path is None:
            return
        self.figures["dumps"] += 1
        kept = os.path.join(self.directory, "looked-at-%d.zst" % self.figures["dumps"])
        os.link(path, kept)
        questions = [["verify"], ["leaks"]]
        if not self.options.get("drill"):
            questions.append(["summary", "--fail-on", "unreachable > 0"])
        for arguments in questions:
            code, output = await analyze(self.programs["analyze"], arguments[0], kept, *arguments[1:])
            if code:
                raise Finding("arena-analyze %s: exit %d: %s" % (arguments[0], code, output[-1_500:]))
        os.unlink(kept)

    async def beat(self):
        """Pings on every loop: none may be silent."""
        while not self.is_over:
            if self.broker.expects_end:
                await asyncio.sleep(0.1)
                continue
            if not self.broker.is_running:
                # The last lines of its log are said when the round ends.
                raise Finding("the broker ended by itself")
            self.beats = [one for one in self.beats if not one.ended]
            while len(self.beats) < 2 * self.options["loops"]:
                await self.guard(self.ask(self.add_beat()))
                if self.broker.expects_end:
                    break
            for one in self.beats:
                if one.asked is not None and self.now - one.asked > PATIENCE and not one.ended:
                    raise Finding("no PINGRESP for %d s on connection %s" % (PATIENCE, one.name))
                if one.asked is None:
                    one.asked = self.now
                    one.send(wire.ping())
            await asyncio.sleep(0.1)

    async def add_beat(self):
        name = "beat%d" % random.randrange(1 << 40)
        reader = wire.Reader(4)

        def came(data):
            for packet in reader.feed(data):
                if packet.kind == wire.PINGRESP and link.asked is not None:
                    self.pong(self.now - link.asked)
                    link.asked = None
        link = await Link.open("tcp", self.ports, came, lambda: None)
        link.asked, link.name = None, name
        user = ("root", "root") if self.options["acl"] else None
        link.send(wire.connect(4, name, True, user=user))
        self.beats.append(link)

    # MARK: - The end

    async def drain(self):
        """Everybody comes back, takes what it is owed, and what it must have it has."""
        await self.wait_for_tasks()
        if self.options.get("drill"):
            # What was forgotten does not come back: it lives, says so, and says where its memory is.
            await self.look_at_health()
            await self.look_at_memory()
            return await self.look_at_dump()
        for one in [*self.devices.values(), *self.muted]:
            one.finish()
        for client in list(self.clients.values()):
            if client.is_up:
                client.release(client.connection)
                client.connection.link.resume()
            if client.is_up and client.connection.link.half_closed:
                await asyncio.wait_for(asyncio.shield(client.connection.closed), PATIENCE)
        await self.bring_back()
        # A store that failed is tried again each second.
        self.store_failed_until = max(self.store_failed_until, self.now + 0.1) if self.store_failed_until else 0.0
        if await self.all_have_theirs():
            await self.look_at_memory()
            await self.look_at_dump()
            await self.await_figure("broker_sessions", self.sessions_left())
            await self.leave_nothing()

    async def all_have_theirs(self):
        """All take what they are owed. Whether nothing was found."""
        await asyncio.gather(*(self.settle(client, is_end=True) for client in self.clients.values()))
        if self.history.findings:
            return False
        await self.wait_for_obligations()
        await asyncio.gather(*(self.settle(client, is_end=True) for client in self.clients.values()))
        await self.look_at_retained()
        self.history.check(self.now)
        return not self.history.findings

    def sessions_left(self):
        """How many sessions there can be once those that are to expire have."""
        return len(self.beats) + sum(
            client.is_up or (client.session.may_exist and client.session.lasts() > SOON)
            for client in self.clients.values())

    async def await_figure(self, name, most):
        deadline = self.now + PATIENCE
        while True:
            value = (await self.broker.metrics())[name]
            if value <= most:
                return
            if self.now > deadline:
                raise Finding("%s is %d, %d can be there" % (name, value, most))
            await asyncio.sleep(0.2)

    async def leave_nothing(self):
        """All sessions end, all that is retained goes: then no buffer may be left."""
        for one in self.beats:
            one.finish()
        # The reader is the last of them: a session that ends may leave a retained will.
        for client in list(self.clients.values()):
            if client.session.may_exist and not client.is_up or client is not self.client("reader"):
                await self.open(client, dict(self.again(client), clean=True, expiry=0))
            if client is self.client("reader"):
                for topic in {one.topic for one in self.history.messages if one.retain} | client.foreign:
                    client.publish({"topic": topic, "qos": 1, "retain": True, "size": 0, "empty": True})
                await self.settle(client)
            if client.is_up:
                client.drop(client.connection, "disconnect")
                await asyncio.wait_for(asyncio.shield(client.connection.closed), PATIENCE)
        await self.await_figure("broker_sessions", 0)
        deadline = self.now + PATIENCE
        while True:
            report = await self.broker.memory()
            if report["live_bytes"] == 0:
                return
            if self.now > deadline:
                raise Finding("%d bytes are live when nothing is left: %s, referrers %s" % (
                    report["live_bytes"], report["owners"], report["referrers"]))
            await asyncio.sleep(0.2)

    async def bring_back(self):
        """A CONNECT of before that nobody waited for may still take a session from its client."""
        for client in list(self.clients.values()):
            # Sessions that are to expire soon are left to that.
            if not client.is_up and client.session.may_exist and client.session.lasts() > SOON:
                await self.open(client, self.again(client))

    async def wait_for_tasks(self):
        """What is still being done: connections that open, attacks that hold."""
        deadline = self.now + 2 * PATIENCE
        mine = asyncio.current_task()
        while True:
            left = [task for task in self.tasks if task is not mine and not task.done()]
            if not left:
                return
            await asyncio.wait(left, timeout=1)
            if self.now > deadline:
                raise Finding("not done after %d s: %s" % (2 * PATIENCE, [whereabouts(task) for task in left[:3]]))

    async def wait_for_obligations(self):
        # Of a busy machine no more is asked than that something comes.
        last = self.now + 5 * PATIENCE
        fewest, deadline = None, 0.0
        while True:
            owed = self.history.obligations(self.now)
            self.figures["must"] = sum(map(len, owed))
            missing = self.history.missing(*owed)
            if not missing or self.history.findings:
                return
            if fewest is None or len(missing) < fewest:
                fewest, deadline = len(missing), min(self.now + PATIENCE, last)
            if self.now > deadline:
                for who, message in missing[:5]:
                    self.history.find("%s never got %r (of %d that are missing)" % (who, message, len(missing)))
                who, session = missing[0][0], self.history.sessions.get(missing[0][0])
                if session is not None:
                    self.history.find("%s: message sent %.3f, done %.3f; %s" % (
                        who, missing[0][1].sent, missing[0][1].done, session))
                return
            await asyncio.sleep(0.2)
            await self.bring_back()

    async def look_at_retained(self):
        reader = self.client("reader")
        await self.open(reader, dict(self.plain("reader"), clean=True, expiry=0))
        if not reader.is_up and self.options.get("tight"):
            return
        begun = self.now
        reader.subscribe({"filters": [["#", 2, 0, 0, 0]]})
        await self.settle(reader)
        # They come a few at a time: until nothing more comes and it is what there should be, or nothing has come for long.
        count, deadline = None, self.now + PATIENCE
        while self.now < deadline:
            if count != len(reader.session.deliveries):
                count, deadline = len(reader.session.deliveries), self.now + PATIENCE
            elif self.now >= begun + 0.3 and not self.history.wrong_retained(self.retained_of(reader), begun):
                break
            await asyncio.sleep(0.15)
            await self.settle(reader)
            if not reader.is_up:
                break
        found = {}
        for one in reader.session.deliveries:
            if one.retain:
                if one.topic in found and not one.dup:
                    self.history.find("retained on %s twice: %r and %r" % (one.topic, found[one.topic], one.message))
                found[one.topic] = one.message
        self.history.check_retained(found, begun)

    @staticmethod
    def retained_of(client):
        return {one.topic: one.message for one in client.session.deliveries if one.retain}

    async def close(self):
        """SIGTERM with all connections open: exit code 0, in time."""
        self.is_ending = True
        if self.broker.child is None:
            return
        if not self.broker.is_running:
            if not self.broker.expects_end:
                self.history.find("the broker ended with %s; its last lines: %s" % (
                    self.broker.child.returncode, "\n".join(self.broker.lines[-25:])))
            return
        code = await self.broker.end(within=PATIENCE)
        if code != 0:
            self.history.find("SIGTERM: exit code %s; the last lines: %s" % (code, "\n".join(self.broker.lines[-25:])))


def clean(directory):
    shutil.rmtree(directory, ignore_errors=True)
