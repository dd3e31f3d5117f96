"""A client: one identifier, connections that come and go, and what a client of MQTT has to remember between them."""

import asyncio
import collections
import itertools

import wire
from model import FOREVER, Delivery, Finding, Subscription
from transport import Link

# The first levels of the topics that the model knows; what is on others comes of attacks, or of the broker itself.
AREAS = {"a", "b", "job", "ret", "secret", "will"}
CONNECTIONS = itertools.count(1)
# What a client has under way at most; the broker takes 4,096 of QoS 2.
WINDOW = 300
PATIENCE = 60.0


class Connection:
    """One network connection of a client, from CONNECT on, and how it ended."""

    def __init__(self, client, action, now):
        self.client, self.id = client, next(CONNECTIONS)
        self.version, self.clean = action["version"], action["clean"]
        # 3.1.1: a session ends with its connection or never.
        self.expiry = action["expiry"] if self.version == 5 else (0 if self.clean else FOREVER)
        self.transport, self.user = action["transport"], action.get("user")
        self.receive_maximum = action.get("receive_maximum") if self.version == 5 else None
        self.alias_maximum = action.get("aliases", 0) if self.version == 5 else 0
        self.connect_sent, self.connack, self.refused = now, None, False
        self.ended_from = self.ended_by = FOREVER
        self.how = None
        self.will, self.will_delay = None, 0
        self.link = None
        self.floor, self.pings = now, collections.deque()
        self.reader = wire.Reader(self.version)
        self.aliases_in, self.aliases_out, self.server_aliases = {}, {}, 0
        self.unacknowledged, self.withheld = set(), None
        self.was_paused, self.is_dead = False, False
        self.answer = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()
        self.unflushed = []
        self.reason = None

    def __str__(self):
        return "%s (connection %d, %s, MQTT %s)" % (
            self.client.name, self.id, self.transport, "5.0" if self.version == 5 else "3.1.1")

    @property
    def is_up(self):
        return self.connack is not None and not self.refused and self.ended_from == FOREVER and not self.is_dead

    def send(self, data):
        # Nothing follows a DISCONNECT.
        if self.link and not self.link.ended and self.how is None:
            self.link.send(data)


class Out:
    """A message of QoS 1 or 2 on its way to the broker."""

    __slots__ = ("message", "released", "connection")

    def __init__(self, message, connection):
        self.message, self.released, self.connection = message, False, connection


class Client:
    def __init__(self, name, swarm):
        self.name, self.swarm, self.history = name, swarm, swarm.history
        self.session = swarm.history.session(name)
        self.connection = None
        self.next_number = 0
        self.outgoing, self.incoming = {}, {}
        self.requests = {}
        # Retained topics that are not the model's.
        self.foreign = set()
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def now(self):
        return asyncio.get_running_loop().time()

    @property
    def is_up(self):
        return self.connection is not None and self.connection.is_up

    def number(self):
        while True:
            self.next_number = self.next_number % 65535 + 1
            if self.next_number not in self.outgoing and self.next_number not in self.requests:
                return self.next_number

    # MARK: - Connections

    async def open(self, action, rash=None):
        """Opens a connection and sends CONNECT. `rash`: (seconds, how) after which it is gone, answered or not."""
        one = Connection(self, action, self.now)
        try:
            one.link = await Link.open(
                one.transport, self.swarm.ports, lambda data: self.bytes_came(one, data), lambda: self.end_came(one),
                action.get("buffer"))
        except (OSError, asyncio.TimeoutError) as error:
            # A busy listener may refuse; a broker that was killed does.
            self.swarm.note("%s: no connection: %s" % (self.name, error))
            return None
        one.connect_sent = one.floor = self.now
        will = None
        if action.get("will"):
            spec = action["will"]
            one.will_delay = spec["delay"] if one.version == 5 else 0
            one.will = self.history.message(
                spec["topic"], spec["qos"], spec["retain"], spec["size"], self.name, one, one.connect_sent, will=True)
            will = (spec["topic"], one.will.payload, spec["qos"], spec["retain"], one.will_delay)
        self.session.connecting(one)
        user = (one.user, one.user) if one.user else None
        one.send(wire.connect(
            one.version, self.name, one.clean, action.get("keep_alive", 0), will, user,
            session_expiry=one.expiry if one.version == 5 and one.expiry else None,
            receive_maximum=one.receive_maximum, alias_maximum=one.alias_maximum or None))
        if rash:
            await asyncio.sleep(rash[0])
            if one.answer.done():
                # It was quick enough to be answered: a connection like others, which ends now.
                self.drop(one, rash[1])
            else:
                one.is_dead, one.how = True, rash[1]
                one.ended_from = one.connect_sent
                self.session.unanswered(one)
                one.link.reset() if rash[1] == "rst" else one.link.finish()
                await asyncio.wait_for(one.closed, PATIENCE)
            return one
        try:
            await asyncio.wait_for(asyncio.shield(one.answer), PATIENCE)
        except asyncio.TimeoutError:
            if not self.swarm.is_ending:
                self.history.find("%s: no CONNACK within %d s" % (one, PATIENCE))
            self.vanish(one)
        return one

    def vanish(self, one):
        if one.connack is None and not one.is_dead:
            one.is_dead, one.how, one.ended_from = True, "rst", one.connect_sent
            self.session.unanswered(one)
        one.link.reset()

    def bytes_came(self, one, data):
        if one.is_dead:
            return
        try:
            for packet in one.reader.feed(data):
                self.packet_came(one, packet)
                if one.is_dead:
                    return
        except (Finding, wire.Malformed) as error:
            self.history.find("%s: %s" % (one, error))
            # Nobody need wait for what would be right.
            if not one.answer.done():
                one.answer.set_result(None)

    def end_came(self, one):
        one.ended_by = self.now
        if one.ended_from == FOREVER:
            one.ended_from = one.floor
            one.how = one.how or "server"
            self.ended_by_server(one)
        if one.connack is None and not one.refused and not one.is_dead:
            one.is_dead = True
            self.session.unanswered(one)
        if not one.answer.done():
            one.answer.set_result(None)
        if not one.closed.done():
            one.closed.set_result(None)
        if one is self.connection:
            self.idle.set()
            self.requests.clear()

    def ended_by_server(self, one):
        """The broker closes connections for reasons that the swarm knows, or it is a finding."""
        newer = any(other.connect_sent > one.connect_sent for other in self.session.connections)
        if newer or one.refused or self.swarm.may_close(one):
            return
        self.history.find("%s: the broker closed it, reason %s" % (one, one.reason and hex(one.reason)))

    def drop(self, one, how):
        """Ends a connection in one of the ways there are."""
        if one is None or one.ended_from < FOREVER or one.link is None:
            return
        if how == "disconnect-will" and one.version != 5:
            how = "disconnect"
        link = one.link
        if how in ("disconnect", "disconnect-will"):
            one.send(wire.disconnect(one.version, 4 if how == "disconnect-will" else 0))
        one.ended_from, one.how = self.now, how
        if how in ("disconnect", "disconnect-will"):
            # The broker closes: until then it may not have read it.
            link.resume()
            asyncio.get_running_loop().call_later(PATIENCE, lambda: None if link.ended else link.reset())
        elif how == "rst":
            one.is_dead = True
            link.reset()
        elif how == "half":
            link.resume()
            link.half_close()
        else:
            one.is_dead = True
            link.finish()

    # MARK: - What comes

    def packet_came(self, one, packet):
        kind = packet.kind
        if one.connack is None and kind not in (wire.CONNACK, wire.AUTH):
            if kind == wire.DISCONNECT:
                one.reason = packet.codes[0]
                return
            raise Finding("packet %d before CONNACK" % kind)
        if kind == wire.PUBLISH:
            self.publish_came(one, packet)
        elif kind == wire.CONNACK:
            self.connack_came(one, packet)
        elif kind == wire.PINGRESP:
            self.pong_came(one)
        elif kind == wire.DISCONNECT:
            one.reason = packet.codes[0]
        elif kind in (wire.SUBACK, wire.UNSUBACK):
            self.request_answered(one, packet)
        elif kind == wire.PUBREL:
            self.incoming.pop(packet.number, None)
            self.acknowledge(one, wire.PUBCOMP, packet.number)
        else:
            self.acknowledged(one, packet)

    def connack_came(self, one, packet):
        if one.connack is not None or one.refused:
            raise Finding("a second CONNACK")
        code = packet.codes[0]
        if code:
            one.refused = True
            if not self.swarm.may_refuse(one, code):
                self.history.find("%s: refused with %s" % (one, hex(code)))
            if not one.answer.done():
                one.answer.set_result(code)
            return
        older = self.connection
        if older is not None and older.id > one.id:
            # A younger one was quicker: this one is history already.
            one.is_dead = True
            self.session.unanswered(one)
            one.connack = None
            one.ended_from = min(one.ended_from, one.connect_sent)
            one.how = "taken"
            one.link.reset()
            if not one.answer.done():
                one.answer.set_result(None)
            return
        if self.swarm.sabotage:
            packet.present = self.swarm.sabotage.present(packet.present)
        one.connack = self.now
        one.server_aliases = packet.props.get("alias_maximum", 0)
        if older is not None and older.ended_from == FOREVER:
            older.ended_from, older.how = one.connect_sent, "taken"
        if older is not None and not older.is_dead:
            # What it still has to say nobody hears: it would come twice.
            older.is_dead = True
            older.link.reset()
        self.session.answered(one, packet.present, self.now)
        self.connection = one
        self.requests.clear()
        if packet.present:
            self.resend(one)
        else:
            self.outgoing.clear()
            self.incoming.clear()
            self.idle.set()
        if not one.answer.done():
            one.answer.set_result(0)

    def resend(self, one):
        """[MQTT-4.4.0-1] What was not completed, in its order."""
        if self.outgoing:
            self.idle.clear()
        for number, out in self.outgoing.items():
            out.connection = one
            if out.released:
                one.send(wire.acknowledge(wire.PUBREL, number))
            else:
                out.message.sends += 1
                message = out.message
                message.may_last = message.may_last or one.version == 4
                one.send(wire.publish(
                    one.version, message.topic, message.payload, message.qos, message.retain, True, number,
                    expiry=message.expiry))

    def publish_came(self, one, packet):
        topic = packet.topic
        alias = packet.props.get("alias")
        if alias is not None:
            if not 0 < alias <= one.alias_maximum:
                raise Finding("topic alias %d, %d are allowed" % (alias, one.alias_maximum))
            if topic:
                one.aliases_in[alias] = topic
            elif alias not in one.aliases_in:
                raise Finding("topic alias %d stands for nothing" % alias)
            else:
                topic = one.aliases_in[alias]
        elif not topic:
            raise Finding("a PUBLISH without a topic")
        delivery = Delivery()
        delivery.at, delivery.floor, delivery.connection, delivery.user = self.now, one.floor, one, one.user
        delivery.topic, delivery.qos, delivery.retain, delivery.dup = topic, packet.qos, packet.retain, packet.dup
        delivery.numbers, delivery.repeated = packet.props.get("subscription_id", []), False
        delivery.left = packet.props.get("expiry")
        foreign = topic.split("/", 1)[0] not in AREAS
        payload = self.swarm.sabotage.payload(packet.payload) if self.swarm.sabotage else packet.payload
        delivery.message = None if foreign else self.history.identify(payload, topic)
        if packet.qos:
            self.obligations(one, packet, delivery)
        if foreign and packet.retain:
            self.foreign.add(topic)
        elif not foreign:
            for session in self.swarm.sabotage.receivers(self, delivery) if self.swarm.sabotage else [self.session]:
                self.history.deliver(session, delivery)

    def obligations(self, one, packet, delivery):
        number = packet.number
        if packet.qos == 2 and number in self.incoming:
            delivery.repeated = True
            if self.incoming[number] is not delivery.message:
                raise Finding("%r under the identifier %d of %r" % (delivery.message, number, self.incoming[number]))
        one.unacknowledged.add(number)
        if one.receive_maximum and len(one.unacknowledged) > one.receive_maximum:
            raise Finding("%d messages at once, %d are allowed" % (len(one.unacknowledged), one.receive_maximum))
        if packet.qos == 2:
            self.incoming[number] = delivery.message
        self.acknowledge(one, wire.PUBREC if packet.qos == 2 else wire.PUBACK, number)

    def acknowledge(self, one, kind, number):
        """In the order in which they became due, and not before it is wanted."""
        if one.withheld is not None:
            one.withheld.append((kind, number))
            return
        if kind != wire.PUBREC:
            one.unacknowledged.discard(number)
        one.send(wire.acknowledge(kind, number))

    def release(self, one):
        held, one.withheld = one.withheld or [], None
        for kind, number in held:
            self.acknowledge(one, kind, number)

    def acknowledged(self, one, packet):
        number, kind, code = packet.number, packet.kind, packet.codes[0]
        out = self.outgoing.get(number)
        if out is None or out.connection is not one:
            raise Finding("an acknowledgement (%d) of nothing" % kind)
        if (kind == wire.PUBACK) != (out.message.qos == 1):
            raise Finding("acknowledgement %d for QoS %d" % (kind, out.message.qos))
        message = out.message
        if kind == wire.PUBREC:
            if code < 0x80:
                if not out.released:
                    out.released = True
                    message.done = min(message.done, self.now)
                one.send(wire.acknowledge(wire.PUBREL, number))
                return
        elif kind == wire.PUBCOMP:
            if not out.released:
                raise Finding("PUBCOMP before PUBREL")
        if code >= 0x80 and kind != wire.PUBCOMP:
            message.refused = True
            if not self.swarm.may_refuse_publish(message, code):
                self.history.find("%s: %r refused with %s" % (one, message, hex(code)))
        message.done = min(message.done, self.now)
        del self.outgoing[number]
        if not self.outgoing:
            self.idle.set()

    def pong_came(self, one):
        if not one.pings:
            raise Finding("a PINGRESP for nothing")
        sent, messages, waiter = one.pings.popleft()
        one.floor = max(one.floor, sent)
        # QoS 0 has no acknowledgement: what was before the ping is done.
        for message in messages:
            message.done = self.now
            message.is_weak = message.is_weak or self.swarm.store_is_bad()
        self.swarm.pong(self.now - sent)
        if waiter and not waiter.done():
            waiter.set_result(True)

    # MARK: - What is sent

    def ping(self, waiter=None):
        one = self.connection
        if not self.is_up or one.link.half_closed:
            if waiter:
                waiter.set_result(False)
            return
        one.pings.append((self.now, one.unflushed, waiter))
        one.unflushed = []
        one.send(wire.ping())
        one.closed.add_done_callback(lambda _: waiter and not waiter.done() and waiter.set_result(False))

    def publish(self, action):
        one = self.connection
        for _ in range(action.get("count", 1)):
            if not self.is_up or len(self.outgoing) >= WINDOW or one.link.half_closed:
                return
            qos, topic, expiry = action["qos"], action["topic"], action.get("expiry") if one.version == 5 else None
            message = self.history.message(
                topic, qos, action["retain"], action["size"], self.name, one, self.now, expiry=expiry,
                empty=action.get("empty", False))
            number, alias, name = 0, None, topic
            if one.server_aliases and action.get("alias"):
                alias = action["alias"] % one.server_aliases + 1
                if one.aliases_out.get(alias) == topic:
                    name = ""
                one.aliases_out[alias] = topic
            if qos:
                number = self.number()
                self.outgoing[number] = Out(message, one)
                self.idle.clear()
            else:
                message.is_weak = self.swarm.store_is_bad() or self.swarm.options.get("tight", False)
                one.unflushed.append(message)
            one.send(wire.publish(
                one.version, name, message.payload, qos, action["retain"], False, number, expiry=expiry, alias=alias))

    def subscribe(self, action):
        one = self.connection
        if not self.is_up or one.link.half_closed:
            return
        number, identifier = self.number(), action.get("id") if one.version == 5 else None
        wanted, made = [], []
        for name, qos, no_local, as_published, handling in action["filters"]:
            shared = name.startswith("$share/")
            if one.version != 5:
                no_local = as_published = handling = 0
            if shared:
                no_local = 0
            wanted.append((name, qos, no_local, as_published, handling))
            made.append(Subscription(name, qos, no_local, as_published, handling, identifier, self.now))
        for new in made:
            # One with the same filter is replaced, at a moment between now and SUBACK.
            for old in self.session.standing():
                if old.name == new.name:
                    old.sure[1] = min(old.sure[1], self.now)
            self.session.subscriptions.append(new)
        self.requests[number] = ("subscribe", made, one)
        one.send(wire.subscribe(one.version, number, wanted, identifier))

    def unsubscribe(self, action):
        one = self.connection
        if not self.is_up or one.link.half_closed:
            return
        number, gone = self.number(), []
        for old in self.session.standing():
            if old.name in action["filters"]:
                old.sure[1] = min(old.sure[1], self.now)
                gone.append(old)
        self.requests[number] = ("unsubscribe", gone, one)
        one.send(wire.unsubscribe(one.version, number, action["filters"]))

    def request_answered(self, one, packet):
        what, subscriptions, connection = self.requests.pop(packet.number, (None, None, None))
        if connection is not one or (what == "subscribe") != (packet.kind == wire.SUBACK):
            raise Finding("packet %d for nothing" % packet.kind)
        now = self.now
        if what == "unsubscribe":
            for old in subscriptions:
                old.may[1] = min(old.may[1], now)
                old.unsubscribed = True
            return
        if len(packet.codes) != len(subscriptions):
            raise Finding("SUBACK with %d codes for %d filters" % (len(packet.codes), len(subscriptions)))
        for code, new in zip(packet.codes, subscriptions):
            if code >= 0x80:
                new.may[1] = now
                if not self.swarm.may_refuse_subscription(one, new, code):
                    self.history.find("%s: subscription %s refused with %s" % (one, new.name, hex(code)))
                continue
            if code > new.qos:
                raise Finding("QoS %d granted for %d" % (code, new.qos))
            new.qos = code
            new.sure[0] = now
            for old in self.session.standing():
                if old.name == new.name and old is not new and old.may[0] <= new.may[0]:
                    old.may[1] = now
