"""What a round does, from its seed alone: options of the broker, a cast of clients, and a list of actions.

A script is plain data, so that it can be written to a file, played again and made shorter. An action that makes no sense
where it stands (publishing without a connection) does nothing: any part of a script is a script.
"""

import random

import hostile
from transport import TRANSPORTS

TOPICS = {
    "a": ["a/%d" % index for index in range(6)], "b": ["b/%d/x" % index for index in range(4)],
    "job": ["job/%d" % index for index in range(3)], "ret": ["ret/%d" % index for index in range(5)],
    "secret": ["secret/0", "secret/1"],
}
FILTERS = [
    "a/+", "a/#", "a/1", "+/1", "b/#", "b/+/x", "ret/+", "ret/#", "ret/2", "will/#", "secret/#", "#", "+/+", "secret/1", "a/0",
    "a/2", "+/0/#"]
# What each user may do at first; it changes.
RULES = {
    "": [["readwrite", "a/#"], ["read", "job/#"], ["write", "will/#"]],
    "anna": [["readwrite", "#"]],
    "ben": [["readwrite", topic] for topic in ("a/#", "b/#", "ret/#", "will/#", "job/#")],
    "root": [["readwrite", "#"]],
}
CHANGES = [
    ("anna", ["deny", "secret/#"]), ("anna", ["deny", "a/1"]), ("anna", ["deny", "will/#"]), ("ben", ["read", "secret/#"]),
    ("ben", ["deny", "b/#"]), ("ben", ["deny", "ret/2"]), ("", ["read", "ret/#"]), ("", ["deny", "a/0"]), ("", ["write", "b/#"]),
]


def rules_of(changes):
    """The rules with some of the changes, by number."""
    rules = {user: [list(rule) for rule in mine] for user, mine in RULES.items()}
    for index in changes:
        user, rule = CHANGES[index]
        rules[user].append(list(rule))
    return rules


class Writer:
    def __init__(self, seed, number, length):
        self.r = r = random.Random("%s/%s" % (seed, number))
        acl, store = r.random() < 0.5, r.random() < 0.5
        self.options = {
            "loops": r.choice((1, 2, 2, 3, 4)), "store": store, "acl": acl, "limit": r.choice((192, 256, 384)),
            "inflight": r.choice((4, 32, 256)),
        }
        # Few receivers are many in some rounds: what is delivered and noted piece by piece.
        self.options["piece"] = random.Random("pieces of %s/%s" % (seed, number)).choice((1024, 1, 1, 2, 4))
        # Rounds in which more is sent than there is memory for.
        self.options["tight"] = r.random() < 0.2
        if self.options["tight"]:
            self.options.update(limit=128, loops=min(2, self.options["loops"]))
        # ... and those in which the handler of responses forgets its buffers, as in the drill: the broker has to live.
        self.options["drill"] = not store and r.random() < 0.1
        if self.options["drill"]:
            self.options.update(tight=True, limit=128, loops=min(2, self.options["loops"]))
        self.cast = {}
        for index in range(r.randrange(4, 9)):
            self.cast["c%d" % index] = {
                "role": "any", "expiry": r.choice((0, 0, 2, 3600, 3600, 3600)),
                "user": r.choice(("anna", "ben", None)) if acl else None,
                "versions": r.choice(([5], [5], [4], [4, 5]))}
        for index in range(r.randrange(0, 4)):
            self.cast["w%d" % index] = {
                "role": "worker", "expiry": r.choice((2, 3600, 3600)), "user": "root" if acl else None, "versions": [5]}
        for index in range(r.randrange(1, 4)):
            self.cast["p%d" % index] = {
                "role": "publisher", "expiry": r.choice((0, 3600)), "user": r.choice(("anna", "ben")) if acl else None,
                "versions": [4, 5]}
        self.changes = set()
        self.actions = []
        for name in self.cast:
            self.add(self.connect(name), wait=r.random() < 0.8)
            if self.cast[name]["role"] != "publisher":
                self.add(self.subscribe(name), wait=True)
        while len(self.actions) < length:
            self.step()

    def script(self):
        if self.options["acl"]:
            self.options["rules"] = rules_of([])
        return {"options": self.options, "cast": self.cast, "actions": self.actions}

    def add(self, action, wait=False):
        if action:
            action["wait"] = wait
            action["pause"] = self.r.choice((0, 0, 0, 0, 1, 5, 20, 60))
            self.actions.append(action)

    def connect(self, name, **named):
        r, part = self.r, self.cast[name]
        version = r.choice(part["versions"])
        expiry = part["expiry"]
        keeps = expiry > 0
        action = {
            "do": "connect", "client": name, "version": version, "transport": r.choice(TRANSPORTS), "expiry": expiry,
            "clean": r.random() < 0.15 if keeps else True, "user": part["user"],
            "receive_maximum": r.choice((None, None, 1, 3, 20)), "aliases": r.choice((0, 0, 2, 10))}
        if version == 4 and keeps:
            action["clean"] = False
        if not keeps and version == 5:
            action["clean"] = r.random() < 0.5
        if r.random() < 0.4:
            action["will"] = {
                "topic": "will/" + name, "qos": r.choice((0, 1, 1, 2, 2)), "retain": r.random() < 0.3,
                "size": r.choice((0, 20, 3_000)), "delay": r.choice((0, 0, 1, 2, 100))}
        if r.random() < 0.15:
            action["buffer"] = 4_096
        action.update(named)
        return action

    def rash(self, name):
        part = self.cast[name]
        if not part["expiry"]:
            return None
        action = self.connect(name, clean=False)
        action["do"] = "rash"
        action["after"] = self.r.choice((0, 0, 0, 1, 3, 10, 30))
        action["how"] = self.r.choice(("rst", "fin"))
        return action

    def subscribe(self, name):
        r = self.r
        if self.cast[name]["role"] == "worker":
            names = [r.choice(("$share/g/job/#", "$share/g/job/#", "$share/h/job/+"))]
        else:
            names = r.sample(FILTERS, r.choice((1, 1, 2, 3)))
        return {"do": "subscribe", "client": name, "id": r.choice((None, None, r.randrange(1, 1 << 20))), "filters": [
            [one, 1 if one.startswith("$") else r.choice((0, 1, 1, 2, 2)), int(r.random() < 0.15), int(r.random() < 0.2),
             r.choice((0, 0, 0, 1, 2))] for one in names]}

    def publish(self, name):
        r = self.r
        area = r.choice(("a", "a", "a", "b", "job", "job", "ret", "secret"))
        qos, retain = r.choice((0, 1, 1, 2, 2)), area == "ret"
        size = r.choice((0, 10, 10, 100, 100, 1_000, 5_000, 70_000)) if r.random() < 0.95 else 200_000
        count = r.choice((1, 1, 2, 5, 20, 60))
        if size > 5_000:
            count = min(count, 5)
        return {"do": "publish", "client": name, "topic": r.choice(TOPICS[area]), "qos": qos, "retain": retain,
                "size": size, "count": count, "alias": r.choice((None, r.randrange(1, 40))),
                "empty": retain and r.random() < 0.15, "expiry": r.choice((None,) * 6 + (1, 2, 60))}

    def burst(self, name):
        """Many small ones."""
        action = self.publish(name)
        action.update(size=self.r.choice((0, 50)), count=250, retain=False, empty=False)
        if action["topic"].startswith("ret"):
            action["topic"] = "a/0"
        return action

    def flood(self, name):
        """Large ones, for those that are away or read nothing."""
        return dict(self.publish(name), size=self.r.choice((70_000, 200_000)), count=40, retain=False, empty=False,
                    topic=self.r.choice(("a/0", "a/1", "b/0/x")), qos=1)

    def take_up(self, name):
        """Another user with somebody's client identifier."""
        if not self.options["acl"] or not self.cast[name]["expiry"]:
            return None
        users = [user for user in ("anna", "ben", None) if user != self.cast[name]["user"]]
        return self.connect(name, user=self.r.choice(users), clean=False, will=None)

    def step(self):
        r = self.r
        name = r.choice(list(self.cast))
        publisher = r.choice([one for one in self.cast if self.cast[one]["role"] != "worker"])
        steps = (
            (36, lambda: self.add(self.publish(publisher), wait=r.random() < 0.2)),
            (5, lambda: self.add(self.burst(publisher))),
            (16, lambda: self.add(self.connect(name), wait=r.random() < 0.6)),
            (8, lambda: self.add(
                {"do": "drop", "client": name, "how": r.choice(("disconnect", "disconnect-will", "rst", "rst", "fin", "half"))},
                wait=r.random() < 0.3)),
            (6, lambda: self.add(self.rash(name), wait=r.random() < 0.5)),
            (8, lambda: self.add(self.subscribe(name), wait=r.random() < 0.5)),
            (4, lambda: self.add({"do": "unsubscribe", "client": name, "filters": r.sample(FILTERS, 3)}, wait=r.random() < 0.5)),
            (2, lambda: self.add({"do": "pause", "client": name})),
            (3, lambda: self.add({"do": "resume", "client": name})),
            (2, lambda: self.add({"do": "withhold", "client": name})),
            (3, lambda: self.add({"do": "release", "client": name})),
            (2, lambda: self.add({"do": "ping", "client": name}, wait=r.random() < 0.5)),
            (5, lambda: self.add(
                {"do": "hostile", "kind": r.choice(list(hostile.ATTACKS)), "seed": r.randrange(1 << 30),
                 "hold": r.choice((0, 5, 100, 1_000)), "reads": r.random() < 0.7,
                 "times": r.choice((1,) * 20 + (20, 50))})),
            (2, self.change_rules),
            (1, lambda: self.add({"do": "observe", "what": r.choice(("memory", "metrics", "health", "dump", "top"))})),
            (1, self.hurt),
            (20 if self.options["drill"] else 3, lambda: self.add(
                {"do": "command", "device": r.randrange(3), "size": r.choice((0, 10, 1_000, 60_000)),
                 "count": r.choice((1, 1, 5))})),
            (1, lambda: self.add({"do": "device", "device": r.randrange(3), "how": r.choice(("rst", "mute"))})),
            (2, lambda: self.add(self.take_up(name), wait=r.random() < 0.5)),
            (8 if self.options["tight"] else 0, lambda: self.add(self.flood(publisher), wait=r.random() < 0.3)),
        )
        r.choices([step for _, step in steps], [share for share, _ in steps])[0]()

    def change_rules(self):
        if self.options["acl"]:
            self.changes ^= {self.r.randrange(len(CHANGES))}
            self.add({"do": "rules", "changes": sorted(self.changes)}, wait=True)

    def hurt(self):
        """Once or twice a round."""
        r = self.r
        if self.options["store"]:
            kind = r.choice(("kill", "kill", "full", "lock"))
        else:
            kind = r.choice(("kill", "none"))
        if kind == "kill":
            self.add({"do": "kill"}, wait=True)
            for name in self.cast:
                if r.random() < 0.7:
                    self.add(self.connect(name, clean=False if self.cast[name]["expiry"] else True), wait=r.random() < 0.5)
        elif kind != "none":
            self.add({"do": kind, "for": r.choice((50, 300, 1_000))})


def make(seed, number, length):
    return Writer(seed, number, length).script()
