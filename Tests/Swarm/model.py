"""What each client must, may and must not receive.

The broker runs many things at once, so the model knows no order of events but intervals: a message was routed some time
between its first byte and its acknowledgement; a subscription stood for *sure* from its SUBACK until UNSUBSCRIBE was sent,
and *may* have stood from SUBSCRIBE until UNSUBACK; rules held between the signal and the log line, or not yet. From these
follow

    must       the message was acknowledged while the subscription stood for sure, the session was kept, rights were there
    must not   there was no moment at which the subscription, the right or the session may have been there

and what lies between the two is allowed. Wills are messages that connections publish as they end.
"""

import bisect
import collections

import wire

FOREVER = float("inf")
# What timers and a machine that is busy may be late by, seconds. Only what would be wrong much later is a finding.
LATE = 20.0


# Whether a right is asked when a message is sent, as it has to be, or only when it is routed.
RIGHTS_WHEN_SENT = True


class Finding(Exception):
    """The broker did what it must not."""


class Message:
    __slots__ = ("id", "topic", "qos", "retain", "size", "publisher", "user", "connection", "sequence", "sent", "done",
                 "sends", "refused", "expiry", "will", "empty", "is_weak", "may_last")

    def __init__(self, id_, topic, qos, retain, size, publisher, connection, sent, expiry=None, will=False, empty=False):
        self.id, self.topic, self.qos, self.retain, self.size = id_, topic, qos, retain, size
        self.publisher, self.user, self.connection = publisher, connection.user, connection
        self.sent, self.done, self.sends, self.refused = sent, FOREVER, 1, False
        self.expiry, self.will, self.empty = expiry, will, empty
        # Sent while the disk failed, with QoS 0: not kept.
        self.is_weak = False
        # Sent again by 3.1.1, which knows no expiry.
        self.may_last = False

    @property
    def payload(self):
        """The number, then filler that follows from it, so that one byte out of place shows."""
        if self.empty:
            return b""
        head = b"%d|" % self.id
        filler = b"%d." % (self.id * 7919 + 13)
        return head + (filler * (self.size // len(filler) + 1))[:self.size]

    def __repr__(self):
        return "%s %d (%s, QoS %d%s, by %s)" % (
            "will" if self.will else "message", self.id, self.topic, self.qos, ", retained" if self.retain else "",
            self.publisher)


class Subscription:
    """One filter of one session, and when it stood."""

    def __init__(self, filter_, qos, no_local, as_published, handling, number, sent):
        self.name = filter_
        self.group, self.filter = None, filter_
        if filter_.startswith("$share/"):
            self.group, self.filter = filter_.split("/", 2)[1:]
        self.qos, self.no_local, self.as_published, self.handling = qos, no_local, as_published, handling
        self.number = number
        self.may = [sent, FOREVER]
        self.sure = [FOREVER, FOREVER]
        self.unsubscribed = False

    def may_have(self, message, until=FOREVER):
        return self.may[0] <= min(message.done, until) and message.sent <= self.may[1]

    def surely_has(self, message):
        return self.sure[0] <= message.sent and message.done <= self.sure[1]


class Delivery:
    __slots__ = ("at", "floor", "connection", "message", "topic", "qos", "retain", "dup", "repeated", "numbers", "user",
                 "left")

    def __repr__(self):
        return "%r with QoS %d%s%s on connection %d" % (
            self.message, self.qos, " DUP" if self.dup else "", " RETAIN" if self.retain else "", self.connection.id)


class Session:
    """All that is known of one client identifier, in all the lives of its session."""

    def __init__(self, client):
        self.client = client
        self.subscriptions = []
        # Moments at which a session may have ended, with all that it was owed.
        self.ends = []
        self.may_exist = self.surely_exists = False
        # When a CONNECT that nobody answered may have ended it.
        self.rash = None
        # The connection that answers for when it ends.
        self.last = None
        # Those after it that nobody answered.
        self.unsure = []
        self.expiries = set()
        # The users that may have made it, of whom one has: it is theirs.
        self.owners = set()
        self.deliveries = []
        self.connections = []

    def standing(self):
        return [one for one in self.subscriptions if one.may[1] == FOREVER]

    def may_end(self, at):
        self.ends.append(at)
        for one in self.standing():
            one.sure[1] = min(one.sure[1], at)

    def has_ended(self, earliest, latest):
        self.may_end(earliest)
        for one in self.standing():
            one.may[1] = latest
        self.may_exist = self.surely_exists = False
        self.rash = None
        self.expiries, self.owners = set(), set()

    # MARK: - What its client does

    def connecting(self, connection):
        self.connections.append(connection)

    def answered(self, connection, present, now):
        """CONNACK 0."""
        stranger = self.owners and connection.user not in self.owners
        if stranger and present:
            raise Finding("%s: the session of %s for %s" % (connection, self.owners, connection.user))
        if stranger and self.surely_exists and self.may_be_over_from() > now and None not in self.owners:
            raise Finding("%s: %s ended the session of %s" % (connection, connection.user, self.owners))
        if connection.clean or (stranger and None in self.owners):
            if present:
                raise Finding("%s: session present after a clean start" % connection)
            self.has_ended(connection.connect_sent, now)
        elif present:
            if not self.may_exist:
                raise Finding("%s: session present, but none can be there" % connection)
            if self.over_by() < connection.connect_sent:
                raise Finding("%s: session present, long after it was to expire" % connection)
            if self.rash is not None:
                self.may_end(self.rash)
                self.rash = None
            if self.last is not None:
                # Its time may have been over when one came that nobody answered: then this is the session which that began.
                over = self.last.ended_from + max(0.0, self.last.expiry - 1.0)
                if any(one.connect_sent >= over for one in self.unsure):
                    self.may_end(over)
        else:
            if self.surely_exists and self.may_be_over_from() > now:
                raise Finding("%s: the session is lost (it ends %.3f, now %.3f); its connections: %s" % (
                    connection, self.may_be_over_from(), now, "; ".join(map(self.life, self.connections[-5:]))))
            self.has_ended(min(connection.connect_sent, self.may_be_over_from()), now)
        self.may_exist = self.surely_exists = True
        self.owners = {connection.user}
        self.expiries.add(connection.expiry)
        self.last, self.unsure = connection, []

    def __str__(self):
        return "subscriptions %s; may have ended at %s; connections: %s" % (
            "; ".join("%s QoS %d may %.3f to %.3f, surely %.3f to %.3f" % (one.name, one.qos, *one.may, *one.sure)
                      for one in self.subscriptions[-8:]),
            ", ".join("%.3f" % at for at in self.ends[-5:]), "; ".join(map(self.life, self.connections[-6:])))

    @staticmethod
    def life(one):
        return "%d%s expiry %s, CONNECT %.3f, ended from %.3f by %.3f" % (
            one.id, " clean" if one.clean else "", one.expiry, one.connect_sent, one.ended_from, one.ended_by)

    def unanswered(self, connection):
        """A CONNECT of which nobody knows what became of it."""
        if connection.clean or connection.expiry == 0:
            if self.rash is None:
                self.rash = connection.connect_sent
            self.surely_exists = False
        # It may have begun a session.
        self.may_exist = True
        self.owners.add(connection.user)
        self.unsure.append(connection)

    def may_be_over_from(self):
        """The first moment at which its time may be over."""
        if self.last is None:
            return 0.0
        # One that nobody answered may have taken it over, and its client may not have seen that.
        begin = min([self.last.ended_from, *(one.connect_sent for one in self.unsure)])
        expiry = min(one.expiry for one in [self.last, *self.unsure])
        return FOREVER if begin == FOREVER else begin + max(0.0, expiry - 1.0)

    def over_by(self):
        """The last moment at which it may still be there."""
        return max((one.ended_by + one.expiry + LATE for one in [self.last, *self.unsure] if one), default=FOREVER)

    def lasts(self):
        """How long it may outlive its connection."""
        return max((one.expiry for one in [self.last, *self.unsure] if one), default=0)

    def killed(self, now, has_store):
        """The broker was ended by SIGKILL."""
        if not has_store:
            if self.may_exist:
                self.has_ended(now, now)
            return
        stored = any(one.sure[0] < FOREVER for one in self.standing())
        if not stored or len(self.expiries) > 1 or 0 in self.expiries:
            self.surely_exists = False
            self.may_end(now)
        # UNSUBACK does not wait for the disk.
        for one in self.subscriptions:
            if one.may[1] < FOREVER and one.may[1] > now - 10 and one.unsubscribed:
                one.may[1] = FOREVER

    # MARK: - What it is owed

    def effective(self, message, sure, until=FOREVER):
        """The QoS with which a message comes, or -1: of the subscriptions that stood for sure, or that may have."""
        best = -1
        for one in self.subscriptions:
            if one.group is None and not (one.no_local and message.publisher == self.client):
                if one.surely_has(message) if sure else one.may_have(message, until):
                    if wire.matches(one.filter, message.topic):
                        best = max(best, min(one.qos, message.qos))
        return best


class Rules:
    """The ACL of each moment: versions, each with the time from which it may hold, and from which it holds for sure."""

    def __init__(self, rules=None):
        self.versions = [(rules, 0.0, 0.0)]

    def change(self, rules, sent):
        self.versions.append((rules, sent, FOREVER))

    def changed(self, now):
        rules, sent, _ = self.versions[-1]
        self.versions[-1] = (rules, sent, now)

    def between(self, begin, end):
        for index, (rules, may, _) in enumerate(self.versions):
            until = self.versions[index + 1][2] if index + 1 < len(self.versions) else FOREVER
            if may <= end and begin <= until:
                yield rules

    @staticmethod
    def allow(rules, user, access, topic):
        if rules is None:
            return True
        if topic.startswith("$SYS"):
            return access == "read"
        mine = rules.get(user or "", [])
        if any(kind == "deny" and wire.matches(filter_, topic) for kind, filter_ in mine):
            return False
        return any(kind in (access, "readwrite") and wire.matches(filter_, topic) for kind, filter_ in mine)

    def surely(self, user, access, topic, begin, end):
        return all(self.allow(rules, user, access, topic) for rules in self.between(begin, end))

    def maybe(self, user, access, topic, begin, end):
        return any(self.allow(rules, user, access, topic) for rules in self.between(begin, end))


class History:
    """What happened, and what follows from it."""

    def __init__(self, rules, has_store, keeps_all=True):
        """`keeps_all`: there is memory for QoS 0 too."""
        self.rules, self.has_store, self.keeps_all = rules, has_store, keeps_all
        self.messages, self.sessions = [], {}
        self.kills = []
        # [begin, end] of each time in which the disk took nothing, and a while after.
        self.outages = []
        # When the broker came up with a clock that was wrong, and nothing to tell it so.
        self.lies = []
        # When the broker said that it had lost what was before.
        self.losses = []
        # When it said that some of that may not be as it was written.
        self.alterations = []
        self.findings = []

    def session(self, client):
        if client not in self.sessions:
            self.sessions[client] = Session(client)
        return self.sessions[client]

    def message(self, *arguments, **named):
        one = Message(len(self.messages), *arguments, **named)
        self.messages.append(one)
        return one

    def find(self, text):
        if text not in self.findings:
            self.findings.append(text)

    def was_killed(self, begin, end):
        return any(begin <= at <= end for at in self.kills)

    def was_lied_to(self, begin, end):
        return any(begin <= at <= end for at in self.lies)

    def may_have_expired(self, message, now):
        if message.expiry is None:
            return False
        return now >= message.sent + message.expiry - 1.0 or self.was_lied_to(message.sent, now)

    # MARK: - Deliveries as they come

    def identify(self, payload, topic):
        """The message that a payload is, byte for byte; None for an empty one."""
        if not payload:
            return None
        head, bar, _ = payload[:12].partition(b"|")
        known = bar and head.isdigit() and int(head) < len(self.messages)
        if self.alterations and not (known and payload == self.messages[int(head)].payload):
            return None
        if not bar or not head.isdigit() or int(head) >= len(self.messages):
            raise Finding("a payload that nobody sent, on %s: %r" % (topic, payload[:60]))
        message = self.messages[int(head)]
        if payload != message.payload:
            raise Finding("%r came with another payload: %d bytes, %r" % (message, len(payload), payload[:60]))
        if topic != message.topic:
            raise Finding("%r came on the topic %s" % (message, topic))
        return message

    def deliver(self, session, delivery):
        session.deliveries.append(delivery)

    # MARK: - Wills

    def settle_wills(self, now):
        """Says of each will whether it was to come: `sure`, `may`, `never`, or `open` while its connection is."""
        verdicts = {}
        for session in self.sessions.values():
            order = session.connections
            for index, one in enumerate(order):
                if one.will is not None:
                    verdicts[one.will.id] = self.will_verdict(one, order[index + 1:], now)
        return verdicts

    def will_sets(self):
        """Wills of which at least one was to come: of a connection, and of those after it that nobody answered, when its
        session then had no other."""
        for session in self.sessions.values():
            order = session.connections
            for index, one in enumerate(order):
                later = order[index + 1:]
                if (one.will is None or one.connack is None or one.refused or one.how == "disconnect"
                        or one.ended_from == FOREVER or self.kills or not later):
                    continue
                if all(other.connack is None and not other.refused and other.will is not None for other in later):
                    yield [one.will] + [other.will for other in later]

    def will_verdict(self, one, later, now):
        if one.connack is None or one.refused:
            return "never" if one.refused else "may"
        if self.kills and any(one.connect_sent <= kill for kill in self.kills if kill <= one.ended_by + 1):
            # A will of a session that ends with its connection is not in the store; nor is any without a store.
            if not self.has_store or one.expiry == 0:
                return "may"
        if one.ended_from == FOREVER:
            return "open"
        if any(begin <= one.ended_by + min(one.will_delay, one.expiry) + 2 and one.ended_from <= end
               and self.was_killed(begin, end + 15) for begin, end in self.outages):
            # It waited in memory for a disk that took nothing until the kill.
            return "may"
        following = [other for other in later if not other.refused]
        if one.how == "disconnect":
            clean_end = not self.was_killed(one.ended_from, one.ended_by + 1)
            overlapped = any(other.connect_sent <= one.ended_by for other in following)
            # Closed before its DISCONNECT was read, for a publish that the disk would not take.
            shut_out = any(begin <= one.ended_by and one.ended_from <= end + 2 for begin, end in self.outages)
            return "never" if clean_end and not overlapped and not shut_out else "may"
        if self.was_killed(one.connect_sent, one.connack + 2):
            # CONNACK need not wait for the disk.
            return "may"
        delay = min(one.will_delay, one.expiry)
        if delay == 0:
            return "sure"
        for other in following:
            if other.connect_sent >= one.ended_by + delay + LATE:
                return "sure"
            if other.connack is None:
                return "may"
            if other.clean or other.user != one.user:
                # The session ends: the will comes at once.
                return "sure"
            if other.connack < one.ended_from + delay - 1.0:
                killed = self.was_killed(one.connect_sent, other.connack + 2)
                return "may" if killed else "never"
            return "may"
        return "sure"

    # MARK: - At the end

    def obligations(self, now):
        """(session, message) of all that must have come; (group, message); and (session, messages) of which one must have."""
        verdicts = self.settle_wills(now)
        for session in self.sessions.values():
            if session.may_be_over_from() <= now:
                session.may_end(session.may_be_over_from())
        single, shared = [], []
        for message in self.messages:
            if message.refused or message.empty or self.may_have_expired(message, now):
                continue
            if message.will:
                if verdicts.get(message.id) != "sure":
                    continue
            elif message.done == FOREVER:
                continue
            if message.done < FOREVER and message.qos == 0 and self.was_killed(message.sent, now):
                continue
            if not self.rules.surely(message.user, "write", message.topic, message.sent, min(message.done, now)):
                continue
            for session in self.sessions.values():
                if self.must(session, message, now):
                    single.append((session, message))
            shared += [(group, message) for group in self.must_groups(message, now)]
        sets = [(session, wills) for wills in self.will_sets() for session in self.sessions.values() if all(
            self.rules.surely(will.user, "write", will.topic, will.sent, now)
            and self.must(session, will, now) and session.effective(will, sure=True) > 0 for will in wills)]
        return single, shared, sets

    def must(self, session, message, now):
        quality = session.effective(message, sure=True)
        if quality < 0 or any(end >= message.sent for end in session.ends):
            return False
        users = {one.user for one in session.connections if one.ended_by >= message.sent and not one.refused}
        if not all(self.rules.surely(user, "read", message.topic, message.sent, now) for user in users):
            return False
        if quality > 0:
            return True
        if not self.keeps_all:
            return False
        last = session.connections[-1]
        return (message.done < FOREVER and last.connack is not None and last.connack <= message.sent
                and last.ended_from == FOREVER and not last.was_paused)

    def groups(self):
        found = collections.defaultdict(list)
        for session in self.sessions.values():
            for one in session.subscriptions:
                if one.group is not None:
                    found[one.group, one.filter].append((session, one))
        return found

    def must_groups(self, message, now):
        for group, members in self.groups().items():
            if not wire.matches(group[1], message.topic):
                continue
            sure = [session for session, one in members if one.surely_has(message) and one.sure[1] == FOREVER
                    and min(one.qos, message.qos) > 0 and not any(end >= message.sent for end in session.ends)]
            # What was sent with QoS 2 to a member whose session ended is given up (MQTT-4.8.2-5).
            lost = message.qos == 2 and any(
                end >= message.sent for session, _ in members for end in session.ends)
            weak = any(one.qos == 0 and one.may_have(message) for _, one in members)
            readable = all(
                self.rules.surely(one.user, "read", message.topic, message.sent, now)
                for session, _ in members for one in session.connections if not one.refused)
            if sure and not lost and not weak and readable:
                yield group

    def received(self):
        """{(session's client, message's id)}"""
        return {(client, one.message.id) for client, session in self.sessions.items()
                for one in session.deliveries if one.message is not None}

    def missing(self, single, shared, sets):
        have = self.received()
        absent = [(session.client, message) for session, message in single if (session.client, message.id) not in have]
        absent += [(session.client, messages) for session, messages in sets
                   if not any((session.client, one.id) in have for one in messages)]
        members = collections.defaultdict(set)
        for group, found in self.groups().items():
            members[group] = {session.client for session, _ in found}
        for group, message in shared:
            if not any((client, message.id) in have for client in members[group]):
                absent.append(("group %s/%s" % group, message))
        return absent

    def check(self, now):
        """All that must not be. Adds to `findings`."""
        verdicts = self.settle_wills(now)
        for session in self.sessions.values():
            for one in session.deliveries:
                self.check_delivery(session, one, verdicts)
            self.check_counts(session)
            # An older store that was accepted has things again that were delivered before.
            if not self.losses:
                self.check_order(session)
        self.check_groups()

    def check_delivery(self, session, one, verdicts):
        message, where = one.message, "%s got %r" % (session.client, one)
        asked_from = one.floor if RIGHTS_WHEN_SENT or message is None else min(message.sent, one.floor)
        if not self.rules.maybe(one.user, "read", one.topic, asked_from, one.at):
            return self.find("%s: %s may not read it" % (where, one.user))
        if message is None:
            return None
        if message.will and verdicts.get(message.id) == "never":
            return self.find(where + ": its client took it back, or was back in time")
        if not self.rules.maybe(message.user, "write", message.topic, message.sent, min(message.done, one.at)):
            return self.find("%s: %s may not write it" % (where, message.user))
        # Against the clock of the last acknowledged ping: what was written before it may be old.
        # What was sent before it expired is sent again until it is acknowledged.
        if message.expiry is not None and not message.may_last and not one.dup and one.floor > message.done + message.expiry + LATE:
            return self.find(where + ": it has expired")
        self.check_life(where, message, one)
        matching = [sub for sub in session.subscriptions if wire.matches(sub.filter, message.topic) and sub.may[0] <= one.at]
        if message.retain and (one.retain or not matching):
            # Out of the retained store, to whoever subscribed.
            if not matching:
                return self.find(where + ": it has never subscribed to that")
            return None
        # What a member of a group leaves behind another gets, whenever it joined.
        live = [sub for sub in matching if sub.may_have(message, one.at) or sub.group is not None]
        if not live:
            return self.find(where + ": no subscription stood when it was published")
        if all(sub.no_local and message.publisher == session.client for sub in live):
            return self.find(where + ": No Local")
        highest = max(min(sub.qos, message.qos) for sub in live)
        lowest = session.effective(message, sure=True)
        if one.qos > highest or (one.qos < lowest and not any(sub.group for sub in live)):
            return self.find("%s: with QoS %d to %d" % (where, lowest, highest))
        allowed = {sub.number for sub in live}
        if any(number not in allowed for number in one.numbers):
            return self.find("%s: with subscription identifiers %s of %s" % (where, one.numbers, sorted(map(str, allowed))))
        if one.retain and not (message.retain and any(sub.as_published for sub in live)):
            return self.find(where + ": RETAIN is set")
        return None

    def check_life(self, where, message, one):
        """[MQTT-3.3.2-6] What is left of its time is what the publisher set, less the time that it waited."""
        if one.left is None:
            return
        if message.expiry is None or one.left > message.expiry:
            self.find("%s: %s s are left of %s" % (where, one.left, message.expiry))
        elif message.sends == 1 and not one.dup and not self.was_lied_to(message.sent, one.at):
            # It was written after the ping that `floor` is of.
            waited = one.floor - message.done
            if one.left > message.expiry - waited + 2.0:
                self.find("%s: %d s are left of %d after %.1f s" % (where, one.left, message.expiry, waited))

    def check_counts(self, session):
        """Once for each time it was published; more only as MQTT has it: QoS 1, with DUP."""
        fresh = collections.Counter()
        exactly = collections.Counter()
        for one in session.deliveries:
            if one.message is None or one.retain or one.message.retain:
                continue
            if not one.dup and one.qos:
                fresh[one.message] += 1
            if one.qos == 2 and not one.repeated:
                exactly[one.message] += 1
        for message, count in fresh.items():
            # By each group of its, and once for all other subscriptions.
            ways = {sub.group for sub in session.subscriptions if wire.matches(sub.filter, message.topic)}
            if count > message.sends * len(ways) and not self.kills:
                self.find("%s got %r %d times without DUP, it was sent %d times" % (
                    session.client, message, count, message.sends))
        if any(end for end in session.ends if end):
            return
        for message, count in exactly.items():
            ways = {sub.group for sub in session.subscriptions if wire.matches(sub.filter, message.topic)}
            if count > len(ways) and message.qos == 2:
                self.find("%s got %r %d times, with QoS 2" % (session.client, message, count))

    def check_order(self, session):
        """[MQTT-4.6.0-6] What one connection sent to one topic arrives in that order, but for what was sent again."""
        seen, last = set(), {}
        for one in session.deliveries:
            message = one.message
            if message is None or message.id in seen or message.will or one.retain or message.retain:
                continue
            seen.add(message.id)
            # What had expired may be there once more, when nobody knows what time it is.
            if message.expiry is not None and self.lies:
                continue
            if message.sends > 1 or any(
                    sub.group and wire.matches(sub.filter, message.topic) for sub in session.subscriptions):
                continue
            key = (message.connection.id, message.topic, min(one.qos, 1), message.qos)
            if last.get(key, -1) > message.id:
                self.find("%s got %r after %r" % (session.client, one, self.messages[last[key]]))
            last[key] = max(last.get(key, -1), message.id)

    def check_groups(self):
        """A message goes to one member of a group."""
        for group, members in self.groups().items():
            sessions = {session.client: session for session, _ in members}
            if self.kills or any(session.ends and max(session.ends) > 0 for session in sessions.values()):
                continue
            # Who also has it by another subscription says nothing about the group.
            count = collections.Counter()
            for session in sessions.values():
                for one in session.deliveries:
                    message = one.message
                    if message is None or message.retain or one.dup or one.repeated:
                        continue
                    if not wire.matches(group[1], message.topic):
                        continue
                    if sum(wire.matches(sub.filter, message.topic) for sub in session.subscriptions) == 1:
                        count[message] += 1
            for message, times in count.items():
                if times > message.sends:
                    self.find("group %s/%s got %r %d times" % (*group, message, times))

    # MARK: - Retained

    def check_retained(self, found, begun):
        """`found`: {topic: message or None} that a new subscription got which began at `begun`."""
        for text in self.wrong_retained(found, begun):
            self.find(text)

    def wrong_retained(self, found, begun):
        """What is wrong with that: a list of sentences."""
        wrong = []
        kept = collections.defaultdict(list)
        for message in self.messages:
            if message.retain:
                kept[message.topic].append(message)
        verdicts = self.settle_wills(begun)
        # Without a store a kill leaves nothing.
        since = max(self.kills, default=0.0) if not self.has_store else 0.0
        lost = max(self.losses, default=0.0)
        for topic, messages in kept.items():
            messages = [one for one in messages if one.done >= since]
            sure = [one for one in messages if max(since, lost) < one.sent and one.done < begun and not (one.refused or one.will or one.is_weak)
                    and self.rules.surely(one.user, "write", topic, one.sent, one.done)
                    and not (one.qos == 0 and self.was_killed(one.sent, begun))]
            latest = max((one.sent for one in sure), default=-1.0)
            # What was surely over before another began was surely replaced.
            candidates = [one for one in messages
                          if one.done >= latest and not (one.will and verdicts.get(one.id) == "never")]
            got = found.get(topic)
            if topic in found and got not in candidates:
                wrong.append("retained on %s is %r, and should be one of %s" % (topic, got, candidates))
            if topic not in found and sure and not any(
                    one.empty or self.may_have_expired(one, begun + LATE) for one in candidates):
                wrong.append("nothing is retained on %s, and should be one of %s" % (topic, candidates))
        return wrong
