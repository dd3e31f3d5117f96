"""MQTT 3.1.1 and 5.0 as bytes: what the swarm's clients send, and what they make of the answers.

Written from the specifications alone. Nothing here is the broker's code, so that both cannot be wrong in the same way.
"""

import struct

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = range(1, 12)
PINGREQ, PINGRESP, DISCONNECT, AUTH = range(12, 16)

# Properties by identifier: name and type.
PROPERTIES = {
    0x01: ("payload_format", "byte"), 0x02: ("expiry", "four"), 0x03: ("content_type", "text"),
    0x08: ("response_topic", "text"), 0x09: ("correlation", "binary"), 0x0B: ("subscription_id", "varint"),
    0x11: ("session_expiry", "four"), 0x12: ("assigned_id", "text"), 0x13: ("server_keep_alive", "two"),
    0x15: ("auth_method", "text"), 0x16: ("auth_data", "binary"), 0x17: ("request_problem", "byte"),
    0x18: ("will_delay", "four"), 0x19: ("request_response", "byte"), 0x1A: ("response_information", "text"),
    0x1C: ("server_reference", "text"), 0x1F: ("reason", "text"), 0x21: ("receive_maximum", "two"),
    0x22: ("alias_maximum", "two"), 0x23: ("alias", "two"), 0x24: ("maximum_qos", "byte"),
    0x25: ("retain_available", "byte"), 0x26: ("user", "pair"), 0x27: ("maximum_packet", "four"),
    0x28: ("wildcards", "byte"), 0x29: ("subscription_ids", "byte"), 0x2A: ("shared", "byte"),
}
IDENTIFIERS = {name: (number, kind) for number, (name, kind) in PROPERTIES.items()}


class Malformed(Exception):
    """The broker sent what is no MQTT."""


def varint(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def properties(**values):
    """Encoded properties with their length; `subscription_id` may be a list, `None` is left out."""
    out = bytearray()
    for name, value in values.items():
        if value is None:
            continue
        number, kind = IDENTIFIERS[name]
        for one in value if isinstance(value, list) else [value]:
            out.append(number)
            if kind == "pair":
                out += text(one[0]) + text(one[1])
            else:
                out += {"byte": lambda v: bytes([v]), "two": lambda v: struct.pack(">H", v),
                        "four": lambda v: struct.pack(">I", v), "varint": varint, "text": text, "binary": text}[kind](one)
    return varint(len(out)) + bytes(out)


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def connect(version, client, clean, keep_alive=0, will=None, user=None, **props):
    """`will`: (topic, payload, qos, retain, delay)."""
    flags = 2 if clean else 0
    tail = text(client)
    if will:
        topic, payload, qos, retain, delay = will
        flags |= 4 | qos << 3 | (32 if retain else 0)
        tail += properties(will_delay=delay or None) if version == 5 else b""
        tail += text(topic) + text(payload)
    if user:
        flags |= 128 | 64
        tail += text(user[0]) + text(user[1])
    head = text("MQTT") + bytes([version, flags]) + struct.pack(">H", keep_alive)
    return packet(CONNECT, 0, head + (properties(**props) if version == 5 else b"") + tail)


def publish(version, topic, payload, qos=0, retain=False, dup=False, number=0, **props):
    body = text(topic) + (struct.pack(">H", number) if qos else b"")
    return packet(PUBLISH, (8 if dup else 0) | qos << 1 | (1 if retain else 0),
                  body + (properties(**props) if version == 5 else b"") + payload)


def acknowledge(kind, number):
    return packet(kind, 2 if kind == PUBREL else 0, struct.pack(">H", number))


def subscribe(version, number, filters, subscription_id=None):
    """`filters`: (filter, qos, no local, retain as published, retain handling)."""
    body = struct.pack(">H", number)
    if version == 5:
        body += properties(subscription_id=subscription_id)
    for name, qos, no_local, as_published, handling in filters:
        options = qos | (no_local << 2 | as_published << 3 | handling << 4 if version == 5 else 0)
        body += text(name) + bytes([options])
    return packet(SUBSCRIBE, 2, body)


def unsubscribe(version, number, filters):
    body = struct.pack(">H", number) + (properties() if version == 5 else b"")
    return packet(UNSUBSCRIBE, 2, body + b"".join(text(name) for name in filters))


def ping():
    return packet(PINGREQ, 0, b"")


def disconnect(version, reason=0, **props):
    if version == 5 and (reason or props):
        return packet(DISCONNECT, 0, bytes([reason]) + properties(**props))
    return packet(DISCONNECT, 0, b"")


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Malformed("a field that is longer than its packet")
        self.at += count
        return self.data[self.at - count:self.at]

    def byte(self):
        return self.take(1)[0]

    def two(self):
        return struct.unpack(">H", self.take(2))[0]

    def four(self):
        return struct.unpack(">I", self.take(4))[0]

    def varint(self):
        value = 0
        for shift in range(0, 28, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise Malformed("a variable byte integer of five bytes")

    def binary(self):
        return self.take(self.two())

    def text(self):
        try:
            return self.binary().decode()
        except UnicodeDecodeError as error:
            raise Malformed("text that is not UTF-8") from error

    def pair(self):
        return self.text(), self.text()

    def rest(self):
        return self.take(len(self.data) - self.at)

    def properties(self):
        inner, found = Cursor(self.take(self.varint())), {}
        while inner.at < len(inner.data):
            number = inner.byte()
            if number not in PROPERTIES:
                raise Malformed("property 0x%02x" % number)
            name, kind = PROPERTIES[number]
            value = getattr(inner, kind)()
            if name in ("subscription_id", "user"):
                found.setdefault(name, []).append(value)
            elif name in found:
                raise Malformed("%s twice" % name)
            else:
                found[name] = value
        return found


class Packet:
    """One packet of the broker, taken apart."""

    __slots__ = ("kind", "flags", "number", "codes", "present", "props", "topic", "payload", "qos", "retain", "dup")

    def __init__(self, version, head, body):
        self.kind, self.flags = head >> 4, head & 15
        self.number, self.codes, self.props = 0, [], {}
        cursor = Cursor(body)
        if self.kind == PUBLISH:
            self.qos, self.retain, self.dup = self.flags >> 1 & 3, self.flags & 1, self.flags >> 3
            if self.qos == 3 or (self.dup and not self.qos):
                raise Malformed("PUBLISH with flags %d" % self.flags)
            self.topic = cursor.text()
            if self.qos:
                self.number = cursor.two()
                if not self.number:
                    raise Malformed("packet identifier 0")
            if version == 5:
                self.props = cursor.properties()
            if "+" in self.topic or "#" in self.topic or "\0" in self.topic:
                raise Malformed("the topic %r" % self.topic)
            self.payload = cursor.rest()
            return
        if self.flags != (2 if self.kind == PUBREL else 0):
            raise Malformed("packet %d with flags %d" % (self.kind, self.flags))
        if self.kind == CONNACK:
            present = cursor.byte()
            if present > 1:
                raise Malformed("CONNACK flags %d" % present)
            self.present = present == 1
            self.codes = [cursor.byte()]
            if version == 5 and cursor.at < len(body):
                self.props = cursor.properties()
        elif self.kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
            self.number = cursor.two()
            self.codes = [cursor.byte() if cursor.at < len(body) else 0]
            if cursor.at < len(body):
                self.props = cursor.properties()
        elif self.kind in (SUBACK, UNSUBACK):
            self.number = cursor.two()
            if version == 5:
                self.props = cursor.properties()
            self.codes = list(cursor.rest())
        elif self.kind in (DISCONNECT, AUTH) and version == 5:
            self.codes = [cursor.byte() if body else 0]
            if cursor.at < len(body):
                self.props = cursor.properties()
        elif self.kind != PINGRESP:
            raise Malformed("packet of type %d" % self.kind)
        if cursor.at != len(body):
            raise Malformed("bytes behind a packet of type %d" % self.kind)


class Reader:
    """Bytes as they come, cut into packets."""

    def __init__(self, version):
        self.version, self.buffer = version, bytearray()

    def feed(self, data):
        self.buffer += data
        while len(self.buffer) >= 2:
            length, at = 0, 1
            while True:
                if at >= len(self.buffer):
                    return
                byte = self.buffer[at]
                length |= (byte & 0x7F) << 7 * (at - 1)
                at += 1
                if not byte & 0x80:
                    break
                if at > 4:
                    raise Malformed("a remaining length of five bytes")
            if len(self.buffer) < at + length:
                return
            head, body = self.buffer[0], bytes(self.buffer[at:at + length])
            del self.buffer[:at + length]
            yield Packet(self.version, head, body)


def matches(filter_, topic):
    """[MQTT-4.7]: whether a topic filter matches a topic name."""
    if topic.startswith("$") and filter_[:1] in ("+", "#"):
        return False
    levels, names = filter_.split("/"), topic.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(names) or level not in ("+", names[index]):
            return False
    return len(levels) == len(names)
