"""MQTT 5.0 as paho-mqtt speaks it, against a broker on the loopback: paho_client.py PORT.

Prints one line for each thing that was seen to work, and fails with an assertion.
"""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
WAIT = 20


def properties(kind, **values):
    result = Properties(kind)
    for name, value in values.items():
        setattr(result, name, value)
    return result


class Client:
    """A client with its events in queues, so that waiting is for an event."""

    def __init__(self, name, clean=True, will=None, **connect):
        self.messages, self.disconnects = queue.Queue(), queue.Queue()
        self.acks = {"subscribe": queue.Queue(), "unsubscribe": queue.Queue(), "publish": queue.Queue()}
        connected = queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        self.client.on_connect = lambda c, u, flags, code, props: connected.put((flags, code, props))
        self.client.on_disconnect = lambda c, u, flags, code, props: self.disconnects.put((flags, code))
        self.client.on_subscribe = lambda c, u, mid, codes, props: self.acks["subscribe"].put(codes)
        self.client.on_unsubscribe = lambda c, u, mid, codes, props: self.acks["unsubscribe"].put(codes)
        self.client.on_publish = lambda c, u, mid, code, props: self.acks["publish"].put(code)
        if will:
            topic, payload, delay = will
            self.client.will_set(
                topic, payload, qos=1, properties=properties(PacketTypes.WILLMESSAGE, WillDelayInterval=delay))
        self.client.connect(
            "127.0.0.1", PORT, clean_start=clean, properties=properties(PacketTypes.CONNECT, **connect))
        self.client.loop_start()
        self.flags, self.code, self.properties = connected.get(timeout=WAIT)

    def subscribe(self, *arguments, **named):
        self.client.subscribe(*arguments, **named)
        return [code.value for code in self.acks["subscribe"].get(timeout=WAIT)]

    def publish(self, topic, payload, qos=0, retain=False, **values):
        self.client.publish(topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **values))
        return self.acks["publish"].get(timeout=WAIT)

    def message(self):
        return self.messages.get(timeout=WAIT)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        self.client.loop_stop()
        self.client.socket().close()


def done(what):
    print("ok:", what, flush=True)


sub = Client("paho-sub", SessionExpiryInterval=600, ReceiveMaximum=5)
assert sub.code.value == 0 and not sub.flags.session_present
assert sub.properties.MaximumPacketSize == 1048576 and sub.properties.TopicAliasMaximum == 16
pub = Client("paho-pub")
done("connect")

assert sub.subscribe(
    "a/#", options=SubscribeOptions(qos=2, retainAsPublished=True),
    properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=7)) == [2]
for number in range(30):
    pub.publish(
        "a/long/topic/%d" % (number % 5), b"x%d" % number, qos=number % 3, ResponseTopic="answers",
        CorrelationData=b"\x00\xff", ContentType="text/plain", PayloadFormatIndicator=1, MessageExpiryInterval=100,
        UserProperty=[("b", "1"), ("a", "2"), ("b", "3")])
seen = [sub.message() for _ in range(30)]
for number in range(30):
    message = next(m for m in seen if m.payload == b"x%d" % number)
    assert (message.topic, message.qos) == ("a/long/topic/%d" % (number % 5), number % 3), (message.topic, message.qos, number)
    list_ = message.properties
    assert list_.ResponseTopic == "answers" and list_.CorrelationData == b"\x00\xff"
    assert list_.ContentType == "text/plain" and list_.PayloadFormatIndicator == 1
    assert 90 <= list_.MessageExpiryInterval <= 100 and list_.SubscriptionIdentifier == [7]
    assert list_.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")]
done("properties, of every QoS and a small receive maximum")

assert pub.publish("nobody/here", b"", qos=1).value == 0x10
done("reason codes")

alias = [("a/aliased", 2), ("", 2)]
for topic, number in alias:
    assert pub.publish(topic, b"alias", qos=1, TopicAlias=number).value == 0
assert [sub.message().topic for _ in alias] == ["a/aliased", "a/aliased"]
done("topic aliases from the client")

pub.publish("r/1", b"kept", qos=1, retain=True)
for handling, expected in [(2, 0), (1, 0), (0, 1), (0, 1)]:
    sub.subscribe("r/1", options=SubscribeOptions(qos=1, retainHandling=handling))
    if expected:
        message = sub.message()
        assert message.payload == b"kept" and message.retain
sub.subscribe("own/#", options=SubscribeOptions(qos=1, noLocal=True))
sub.publish("own/1", b"not for me", qos=1)
pub.publish("own/1", b"for you", qos=1)
assert sub.message().payload == b"for you"
done("subscription options")

sub.client.unsubscribe(["a/#", "never/was"])
assert [code.value for code in sub.acks["unsubscribe"].get(timeout=WAIT)] == [0, 0x11]
done("unsubscribe")

workers = [Client("paho-worker-%d" % index) for index in range(3)]
for worker in workers:
    assert worker.subscribe("$share/crew/work/+", 1) == [1]
for number in range(30):
    pub.publish("work/%d" % number, b"%d" % number, qos=1)
jobs = [int(worker.message().payload) for worker in workers for _ in range(10)]
assert sorted(jobs) == list(range(30))
done("shared subscriptions")

testator = Client("paho-testator", will=("wills/1", b"later", 1), SessionExpiryInterval=600)
sub.subscribe("wills/#", 1)
testator.vanish()
assert sub.message().payload == b"later"
done("a delayed will")

sub.close()
pub.publish("own/2", b"while away", qos=1, MessageExpiryInterval=600)
sub = Client("paho-sub", clean=False, SessionExpiryInterval=0)
assert sub.flags.session_present
message = sub.message()
assert message.payload == b"while away" and 0 < message.properties.MessageExpiryInterval <= 600
done("a session that is kept")

again = Client("paho-sub", clean=True)
assert sub.disconnects.get(timeout=WAIT)[1].value == 0x8E
sub.client.loop_stop()
assert not again.flags.session_present
done("DISCONNECT from the server")

assert again.subscribe("$SYS/broker/version") == [0]
message = again.message()
assert message.payload.startswith(b"arena-broker version") and message.retain
done("$SYS")

for client in [again, pub, *workers]:
    client.close()
print("all done", flush=True)
