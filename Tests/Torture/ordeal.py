"""One round: clients publish to sessions that are kept, something terrible happens to the broker, and all come back."""

import asyncio
import glob
import os
import random
import re
import shutil
import subprocess
import time

import damage
import plan
import platter
import play
from client import PATIENCE
from model import FOREVER, Finding
from process import Broker

DAY = 86_400
# A clock that shows less was never set, and says nothing.
SET = time.mktime((2020, 1, 2, 0, 0, 0, 0, 0, 0))
# What a clock may show after the machine was started: seconds since 1970, from what it should show.
CLOCKS = {
    "right": lambda now: now, "a day behind": lambda now: now - DAY, "an hour ahead": lambda now: now + 3_600,
    "a year ahead": lambda now: now + 365 * DAY, "at 1970": lambda now: 3, "before 1970": lambda now: -10 * DAY + 0.5,
}


class Ordeal(play.Swarm):
    def __init__(self, script, directory, shared, programs, library):
        super().__init__(script, directory, shared, programs)
        if self.options["made"]:
            os.makedirs(self.broker.data)
        self.platter = platter.Platter(os.path.join(directory, "disk"), directory, library, self.figures)
        self.platter.has_journal = self.options["journal"]
        self.platter.set("sync_microseconds", self.options["sync"])
        self.broker.environment = dict(self.platter.environment, PLATTER_PAGES=str(self.options["pages"]))
        self.broker.limit_files = lambda is_full: self.platter.set("is_full", is_full)
        self.data, self.older = self.broker.data, os.path.join(directory, "older")
        self.is_loading = False
        # For whoever reads of what was found.
        self.happened = []
        # The clock was turned since the machine was started.
        self.was_turned = False

    async def begin(self):
        """The first start; in some rounds the power fails while there is not yet a whole store."""
        r = random.Random(self.options["birth"])
        if r.random() < 0.5:
            await self.start(r, most=80, odds=1.0)
        else:
            await super().begin()

    # MARK: - What clients do

    async def run(self):
        for name, _, _, filters in plan.KEPT:
            await self.subscribe(name, filters)
        for terror in self.script["terrors"]:
            await self.episode(terror)
            if self.history.findings:
                return
        await self.drain()

    @property
    def is_up(self):
        """Whether clients may come."""
        return self.broker.is_running and not self.broker.expects_end and self.broker.http is not None

    async def subscribe(self, name, filters):
        client = self.client(name)
        await self.open(client, self.again(client))
        client.subscribe({"filters": [[one, qos, 0, 0, 0] for one, qos in filters]})
        # SUBACK waits for the disk, PINGRESP does not.
        deadline = self.now + PATIENCE
        while client.requests and self.now < deadline:
            await asyncio.sleep(0.01)
        if client.requests:
            raise Finding("%s: no SUBACK within %d s" % (client.connection, PATIENCE))
        await self.leave(client, "disconnect")

    async def leave(self, client, how):
        one = client.connection
        if client.is_up:
            client.drop(one, how)
            await asyncio.wait_for(asyncio.shield(one.closed), PATIENCE + 5)

    async def episode(self, terror):
        r = random.Random(terror["seed"])
        self.is_loading = True
        for name, _ in plan.PUBLISHERS:
            self.spawn(self.load(name, random.Random(r.getrandbits(48))), name)
        for name in r.sample([one[0] for one in plan.AWAY + plan.SHORT] + ["watcher"], 3):
            self.spawn(self.visit(name, random.Random(r.getrandbits(48))), name)
        for name, version in plan.MORTALS:
            self.spawn(self.live(name, version, random.Random(r.getrandbits(48))), name)
        await asyncio.sleep(r.uniform(0.1, 0.6))
        self.figures[terror["kind"]] += 1
        self.happened.append(terror["kind"])
        try:
            await getattr(self, "do_" + terror["kind"].replace("-", "_"))(r)
            await asyncio.sleep(r.uniform(0.0, 0.3))
        finally:
            self.is_loading = False
        await self.wait_for_tasks()
        for name, _ in plan.PUBLISHERS:
            client = self.client(name)
            if not client.is_up:
                await self.open(client, self.again(client))
            await self.settle(client)

    async def load(self, name, r):
        """Publishes until the episode is over, and comes back if it has to."""
        client = self.client(name)
        for _ in range(r.choice((40, 120))):
            if not self.is_loading:
                return
            if not client.is_up and self.is_up:
                await self.open(client, self.again(client))
            retain = r.random() < 0.2
            client.publish({
                "topic": r.choice(plan.RETAINED if retain else plan.TOPICS), "qos": r.choice((0, 1, 1, 2, 2)), "retain": retain,
                "size": r.choice((0, 20, 200, 2_000, 6_000, 30_000)), "count": r.choice((1, 1, 1, 4)),
                "empty": retain and r.random() < 0.15, "expiry": r.choice((None, None, None, 2, 5, 3_600))})
            await asyncio.sleep(r.choice((0, 0.002, 0.01, 0.03)))

    async def visit(self, name, r):
        """A client that is mostly away takes a part of what it is owed, and may be slow to say so."""
        client = self.client(name)
        await asyncio.sleep(r.uniform(0.0, 0.5))
        if not self.is_up or not client.session.may_exist:
            return
        await self.open(client, self.again(client))
        if client.is_up and r.random() < 0.5:
            client.connection.withheld = []
        await asyncio.sleep(r.uniform(0.02, 0.4))
        if client.is_up:
            await self.leave(client, r.choice(("rst", "fin", "disconnect")))

    async def live(self, name, version, r):
        """A client that has a will; it may be there when the broker dies, or die before."""
        client = self.client(name)
        if self.is_up and not client.is_up:
            await self.open(client, dict(self.again(client), version=version, will={
                "topic": "will/" + name, "qos": r.choice((1, 2)), "retain": r.random() < 0.2, "size": r.choice((20, 3_000)),
                "delay": r.choice((0, 0, 1, 3))}))
        if r.random() < 0.5:
            await asyncio.sleep(r.uniform(0.0, 0.4))
            await self.leave(client, r.choice(("rst", "rst", "disconnect")))

    # MARK: - The end of a broker

    async def die(self, r, most=None):
        """SIGKILL: at some moment, or exactly before one of the next operations on its disk, perhaps while it ends."""
        self.broker.expects_end = True
        is_exact = most is not None or r.random() < 0.7
        if is_exact:
            self.platter.set("operations_left", r.randrange(most or r.choice((5, 40, 200))))
            if r.random() < 0.2:
                self.broker.child.terminate()
            try:
                await asyncio.wait_for(self.broker.child.wait(), 2)
            except asyncio.TimeoutError:
                is_exact = False
        await self.dead(is_exact)

    async def die_at_sync(self):
        """What was written last is there, and is not safe."""
        self.broker.expects_end = True
        self.platter.set("dies_at_sync", 1)
        try:
            await asyncio.wait_for(self.broker.child.wait(), 2)
        except asyncio.TimeoutError:
            return await self.dead(False)
        finally:
            self.platter.set("dies_at_sync", 0)
        await self.dead(True)

    async def dead(self, is_exact):
        self.broker.expects_end = True
        if self.broker.is_running:
            self.broker.child.kill()
        await self.broker.gone()
        self.platter.set("operations_left", -1)
        self.figures["kills"] += 1
        self.note_kill()
        if is_exact:
            self.platter.read()
            missed = self.platter.differences()
            if missed:
                raise Finding("platter.c did not see all that was done to %s" % missed)
        else:
            self.platter.adopt()
        self.keep_copy()

    def note_kill(self):
        super().note_kill()
        for session in self.history.sessions.values():
            # CONNACK does not wait for the disk. The store may have it that the client is still away, and for too long;
            # and a session that had ended may be there once more.
            last = session.last
            if last is not None and last.expiry < plan.NEVER and self.was_unsafe(last):
                session.surely_exists = False
                session.may_end(self.now)
                for one in session.subscriptions:
                    if one.may[1] >= last.connect_sent - 2.0:
                        one.may[1] = FOREVER

    def was_unsafe(self, one):
        return one.connack > self.now - 2.0 or any(
            begin <= one.connack + 2.0 and self.now - 12.0 <= end for begin, end in self.history.outages)

    async def stop(self, r):
        """SIGKILL, or SIGTERM."""
        if r.random() < 0.6:
            return await self.die(r)
        code = await self.broker.end(within=PATIENCE)
        if code != 0:
            raise Finding("SIGTERM: exit code %s; the last lines: %s" % (code, "\n".join(self.broker.lines[-25:])))
        self.note_kill()
        self.platter.adopt()
        self.keep_copy()

    def keep_copy(self):
        """An older state of the store, for later."""
        if random.Random(self.figures["kills"]).random() < 0.5:
            shutil.rmtree(self.older, ignore_errors=True)
            shutil.copytree(self.data, self.older)

    async def attempt(self, *arguments):
        """Starts the broker. (exit code or None if it runs, the lines that it wrote)"""
        begin, self.broker.arguments = len(self.broker.lines), list(arguments)
        try:
            await self.broker.start()
        except Finding:
            if self.broker.is_running:
                raise
            await self.broker.gone()
        return self.broker.child.returncode, self.broker.lines[begin:]

    async def command(self, name, environment=None):
        """A command of the broker's on its data directory: exit code and output."""
        child = await asyncio.create_subprocess_exec(
            self.programs["broker"], name, "--data-directory", self.data, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, **(environment or {})))
        output, _ = await asyncio.wait_for(child.communicate(), PATIENCE)
        return child.returncode, output.decode(errors="replace")

    async def check(self, expected):
        """`arena-broker check` says 0 of a store that is sound, 1 of one that is damaged, and changes nothing."""
        self.figures["checks"] += 1
        self.platter.adopt()
        code, output = await self.command("check")
        if code != expected or (code == 1 and "damaged" not in output):
            raise Finding("arena-broker check: exit code %d, not %d: %s" % (code, expected, output[-1_500:]))
        # SQLite makes an empty log where there is none.
        changed = [path for path in self.platter.differences()
                   if not (path.endswith("-wal") and os.path.exists(path) and os.path.getsize(path) == 0)]
        if changed:
            raise Finding("arena-broker check has changed %s" % changed)
        self.platter.adopt()

    async def start(self, r, most=12, odds=0.3):
        """It comes up; now and then it is killed once more while it does."""
        if odds < 1.0 and r.random() < 0.2:
            await self.check(0)
        if r.random() < odds:
            self.platter.set("operations_left", r.randrange(most))
            code, lines = await self.attempt()
            self.platter.set("operations_left", -1)
            if code is None:
                return
            if code != -9:
                raise Finding("exit code %d at the start: %s" % (code, "\n".join(lines[-15:])))
            self.figures["kills at the start"] += 1
            self.platter.adopt()
            if r.random() < 0.5:
                self.cut(r)
        await self.broker.start()

    def cut(self, r):
        """The power goes, with all that was not synchronised."""
        how = self.platter.cut(r)
        self.happened.append("cut: " + how)
        self.figures["cuts"] += 1
        self.figures["cuts: " + how] += 1
        self.boot(r)

    def boot(self, r):
        """The machine is another in the eyes of its processes. Where the clock was turned, nobody can know how long it was off."""
        self.platter.new_boot(r)
        if self.was_turned or self.platter.clock() < SET:
            self.note_lie()
        self.was_turned = False

    def note_lie(self):
        self.history.lies.append(self.now)
        for session in self.history.sessions.values():
            if session.lasts() < plan.NEVER and session.may_exist:
                session.surely_exists = False
                session.may_end(self.now)

    # MARK: - What befalls it

    async def do_kill(self, r):
        await self.die(r)
        await self.start(r)

    async def do_cut(self, r):
        await self.die(r)
        self.cut(r)
        await self.start(r)

    async def do_kill_and_cut(self, r):
        """What the first one read and did not write may not be safe: it must not be promised for that."""
        is_quiet = r.random() < 0.7
        if is_quiet:
            await self.die_at_sync()
            # What comes now is what was under way, and it is long until that is safe.
            self.is_loading = False
            self.platter.set("sync_microseconds", 400_000)
        else:
            await self.die(r)
        await self.broker.start()
        for name, _ in plan.PUBLISHERS:
            await self.open(self.client(name), self.again(self.client(name)))
        if is_quiet:
            await asyncio.sleep(r.uniform(0.0, 0.1))
            await self.dead(False)
            self.platter.set("sync_microseconds", self.options["sync"])
        else:
            await self.die(r, most=r.choice((2, 5, 15)))
        self.cut(r)
        await self.start(r)

    def turn(self, r):
        name = r.choice(list(CLOCKS))
        self.figures["clock " + name] += 1
        self.happened.append(name)
        self.platter.turn_clock(CLOCKS[name](time.time()))
        self.was_turned = True

    async def do_clock(self, r):
        await self.stop(r)
        self.turn(r)
        if r.random() < 0.5:
            self.boot(r)
        await self.start(r)

    async def do_jump(self, r):
        for _ in range(r.randrange(1, 4)):
            self.turn(r)
            await asyncio.sleep(r.uniform(0.05, 0.5))

    async def do_full(self, r):
        await super().do_full({"for": r.choice((100, 600, 1_500))})

    async def do_lock(self, r):
        await super().do_lock({"for": r.choice((100, 600, 1_500))})

    async def do_bad_sync(self, r):
        """The disk says that it could not; what it was to write may be lost, whatever it says later."""
        self.fail()
        self.platter.set("failing_syncs", r.randrange(1, 5))
        deadline = self.now + 4
        while self.platter.get("failing_syncs") and self.now < deadline:
            await asyncio.sleep(0.02)
        self.platter.set("failing_syncs", 0)
        self.recovered()
        if r.random() < 0.7:
            await asyncio.sleep(r.uniform(0.0, 1.5))
            await self.do_cut(r)

    def fail(self):
        """From now on the store takes nothing."""
        self.store_fails += 1
        self.history.outages.append([self.now, FOREVER])

    def recovered(self):
        self.store_fails -= 1
        self.history.outages[-1][1] = self.store_failed_until = self.now + 10

    def acknowledged_since(self, begin):
        return [one for one in self.history.messages
                if one.sent > begin and one.done < FOREVER and one.qos and not (one.refused or one.will)]

    async def do_away(self, r):
        """The store is somewhere else for a while, or another is in its place: nothing may be acknowledged."""
        aside = os.path.join(self.directory, "disk", "aside")
        kind = r.choice(("directory moved", "directory replaced", "database moved", "database replaced", "log moved"))
        self.figures[kind] += 1
        self.happened.append(kind)
        path = {"d": self.data, "l": os.path.join(self.data, damage.LOG)}["l" if kind[0] == "l" else "d"]
        if kind.startswith("database"):
            path = os.path.join(self.data, damage.DATABASE)
        self.fail()
        os.rename(path, aside)
        if kind.endswith("replaced"):
            shutil.copytree(aside, path) if os.path.isdir(aside) else shutil.copyfile(aside, path)
        begin = self.now
        await asyncio.sleep(r.uniform(0.2, 1.5))
        wrong = self.acknowledged_since(begin)
        if wrong:
            self.history.find("%s: %d messages were acknowledged after that, the first %r" % (kind, len(wrong), wrong[0]))
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)
        os.rename(aside, path)
        self.platter.adopt()
        self.recovered()

    async def do_damage(self, r):
        """The files are hurt while no broker runs: all must be there, or it says what is missing and does not start."""
        if await self.hurt(r):
            # The operator has a copy.
            shutil.rmtree(self.data)
            shutil.copytree(os.path.join(self.directory, "whole"), self.data)
            self.platter.look()
            await self.check(0)
            await self.start(r)

    async def hurt(self, r):
        """Damages the store and starts a broker on it. Whether that refused."""
        await self.stop(r)
        whole = os.path.join(self.directory, "whole")
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(self.data, whole)
        what = damage.inflict(r, self.data, self.older)
        self.figures[what.split(":")[0]] += 1
        self.happened.append(what)
        self.platter.look()
        code, lines = await self.attempt()
        if code is None:
            self.happened.append("it starts")
            return False
        text = "\n".join(lines[-15:])
        if code != 1 or "damaged" not in text or not re.search(r"\d", text):
            raise Finding("%s: exit code %d, and not a word of what is missing: %s" % (what, code, text))
        self.figures["refused"] += 1
        await self.check(1)
        return True

    async def do_accept(self, r):
        """The operator goes on with what there is. The broker says so, and keeps what was."""
        if not await self.hurt(r):
            return
        self.note_loss()
        way = r.choice(("recover", "--accept-damaged-store"))
        self.happened.append(way)
        said = []
        if r.random() < 0.5:
            # Cut from power in the midst of it.
            self.platter.set("operations_left", r.randrange(r.choice((10, 100, 1_000))))
            code, lines = await self.recover(way)
            self.platter.set("operations_left", -1)
            said += lines
            if code not in (None, 0, -9):
                raise Finding("%s: exit code %d: %s" % (way, code, "\n".join(lines[-15:])))
            if code is None:
                await self.dead(False)
            self.platter.adopt()
            self.cut(r)
            self.figures["recoveries cut"] += 1
        code, lines = await self.recover(way)
        said += lines
        if code not in (None, 0):
            raise Finding("%s: exit code %d: %s" % (way, code, "\n".join(lines[-15:])))
        if code == 0:
            self.platter.adopt()
            await self.check(0)
            await self.broker.start()
        lines = said
        self.figures[way] += 1
        if not any("damaged" in line for line in lines):
            raise Finding("%s: nothing is said of it: %s" % (way, "\n".join(lines[-15:])))
        if any("taken as they are" in line for line in lines):
            self.history.alterations.append(self.now)
        if not glob.glob(os.path.join(self.data, "*.damaged-*")):
            raise Finding("%s: nothing is kept of it: %s" % (way, os.listdir(self.data)))
        await self.begin_anew()

    async def recover(self, way):
        """(exit code, None for a broker that runs; lines)"""
        if way == "recover":
            code, output = await self.command(way, self.broker.environment)
            return code, output.splitlines()
        code, lines = await self.attempt(way)
        self.broker.arguments = []
        return code, lines

    async def do_deleted(self, r):
        """rm -rf while it runs. Nothing that comes after is acknowledged, and it says why."""
        self.fail()
        begin_lines = len(self.broker.lines)
        shutil.rmtree(self.data)
        begin = self.now
        await asyncio.sleep(r.uniform(0.5, 1.5))
        wrong = self.acknowledged_since(begin)
        if wrong:
            raise Finding("store deleted: %d messages were acknowledged after that, the first %r" % (len(wrong), wrong[0]))
        if not any("error" in line and self.data in line for line in self.broker.lines[begin_lines:]):
            raise Finding("store deleted: the broker says nothing of it: %s" % "\n".join(self.broker.lines[-5:]))
        code = await self.broker.end(within=PATIENCE)
        if code is None:
            raise Finding("store deleted: SIGTERM does not end the broker; the last lines: %s" % "\n".join(self.broker.lines[-5:]))
        self.note_kill()
        self.recovered()
        self.platter.look()
        self.note_loss()
        await self.broker.start()
        await self.begin_anew()

    def note_loss(self):
        """It is said that things are lost: whatever was before is not owed, and what was under way with QoS 2 may be forgotten."""
        self.history.losses.append(self.now)
        for session in self.history.sessions.values():
            session.surely_exists = False
            session.may_end(self.now)
        for client in self.clients.values():
            client.incoming.clear()

    async def begin_anew(self):
        self.note_loss()
        self.is_loading = False
        await self.wait_for_tasks()
        for name, _, _, filters in plan.KEPT:
            await self.subscribe(name, filters)

    # MARK: - The end

    async def drain(self):
        """All come back and take what they are owed."""
        await self.bring_back()
        if await self.all_have_theirs():
            await self.await_figure("broker_sessions", self.sessions_left())

    def sessions_left(self):
        return sum(client.is_up or (client.session.may_exist and client.session.lasts() > play.SOON)
                   for client in self.clients.values())

    def acknowledged(self):
        """What the broker has promised: messages of QoS 1 and 2, and subscriptions."""
        messages = sum(one.done < FOREVER and one.qos > 0 and not (one.refused or one.will) for one in self.history.messages)
        subscriptions = sum(one.sure[0] < FOREVER for session in self.history.sessions.values() for one in session.subscriptions)
        return messages, subscriptions
