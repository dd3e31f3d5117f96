"""MQTT 5.0 as gmqtt speaks it, against a broker on the loopback: gmqtt_client.py PORT."""

import asyncio
import sys

import gmqtt

PORT = int(sys.argv[1])
WAIT = 20


async def connect(name, clean=True, **options):
    client = gmqtt.Client(name, clean_session=clean, **options)
    client.queue = asyncio.Queue()
    client.on_message = lambda c, topic, payload, qos, props: c.queue.put_nowait((topic, payload, qos, props)) or 0
    client.subscribed = asyncio.Queue()
    client.on_subscribe = lambda c, mid, qos, props: c.subscribed.put_nowait(qos)
    await client.connect("127.0.0.1", PORT, version=gmqtt.constants.MQTTv50)
    return client


async def message(client):
    return await asyncio.wait_for(client.queue.get(), WAIT)


async def main():
    sub = await connect("gmqtt-sub", session_expiry_interval=60, receive_maximum=10, topic_alias_maximum=4)
    sub.subscribe("g/+", qos=2, subscription_identifier=9)
    assert tuple(await asyncio.wait_for(sub.subscribed.get(), WAIT)) == (2,)
    pub = await connect("gmqtt-pub")
    for number in range(40):
        pub.publish(
            "g/%d" % (number % 2), "m%d" % number, qos=number % 3, content_type="json", response_topic="back",
            correlation_data=b"id", message_expiry_interval=50, user_property=[("k", "v"), ("k", "w")])
    seen = [await message(sub) for _ in range(40)]
    assert sorted(int(payload[1:]) for _, payload, _, _ in seen) == list(range(40))
    for topic, payload, qos, props in seen:
        assert qos == int(payload[1:]) % 3 and topic == "g/%d" % (int(payload[1:]) % 2), (topic, payload, qos)
        assert props["content_type"] == ["json"] and props["response_topic"] == ["back"]
        assert props["correlation_data"] == [b"id"] and props["subscription_identifier"] == [9]
        assert props["user_property"] == [("k", "v"), ("k", "w")]
    print("ok: properties of every QoS, with topic aliases to the client", flush=True)

    # On one connection, so that the broker has it before the subscription.
    sub.publish("keep", "retained", qos=1, retain=True)
    sub.subscribe("keep", qos=1)
    topic, payload, _, props = await message(sub)
    assert (topic, payload, props["retain"]) == ("keep", b"retained", 1)
    print("ok: retained", flush=True)
    await sub.disconnect()
    await pub.disconnect()
    print("all done", flush=True)


asyncio.run(asyncio.wait_for(main(), 3 * WAIT))
