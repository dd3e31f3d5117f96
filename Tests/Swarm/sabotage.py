"""A broker that does wrong, for the model to notice: what comes from a good one is spoilt before the model hears of it."""

import os
import signal

KINDS = ("lose", "lose-will", "repeat", "swap", "alter", "stranger", "forget", "die")
# One in so many deliveries is spoilt.
RATE = 40


class Sabotage:
    def __init__(self, kind, swarm):
        self.kind, self.swarm, self.count, self.held = kind, swarm, 0, None

    def is_due(self, rate=RATE):
        self.count += 1
        return self.count % rate == 0

    def payload(self, payload):
        """A byte that another message has there."""
        if self.kind == "alter" and len(payload) > 20 and self.is_due():
            return payload[:-1] + b"?"
        return payload

    def present(self, present):
        """A session that was there is said to be lost."""
        return present and not (self.kind == "forget" and self.is_due(3))

    def receivers(self, client, delivery):
        """The sessions that are said to have got a delivery."""
        own, message = client.session, delivery.message
        if self.kind == "die" and self.is_due(200):
            os.kill(self.swarm.broker.pid, signal.SIGKILL)
        if message is None or message.retain:
            return [own]
        if self.kind == "lose" and delivery.qos and self.is_due():
            return []
        if self.kind == "lose-will" and message.will and self.is_due(2):
            return []
        if self.kind == "repeat" and delivery.qos and not delivery.dup and self.is_due():
            return [own, own]
        if self.kind == "stranger" and self.is_due():
            others = [one for one in self.swarm.history.sessions.values() if not one.subscriptions]
            return [own, *others[:1]]
        if self.kind == "swap" and self.is_due(2):
            # The one before comes after.
            if own.deliveries:
                last = own.deliveries.pop()
                own.deliveries.append(delivery)
                self.swarm.history.deliver(own, last)
                return []
        return [own]
