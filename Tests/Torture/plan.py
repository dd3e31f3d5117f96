"""What a round does, from its seed alone: options of the broker, a cast of clients, and what befalls the broker.

What clients do between two terrors follows from the terror's seed, but not in which order the broker hears of it.
"""

import random

NEVER = 0xFFFFFFFF
TOPICS = ["a/%d" % index for index in range(4)] + ["b/0", "b/1", "job/0", "job/1"]
RETAINED = ["ret/%d" % index for index in range(5)]
# Clients that are mostly away, and what they are owed: (name, version, expiry, filters with their QoS).
AWAY = (
    ("away1", 4, NEVER, [("a/#", 2)]), ("away2", 5, NEVER, [("a/+", 1), ("will/#", 1)]), ("away3", 5, NEVER, [("b/#", 2), ("ret/#", 1)]),
    ("away4", 4, NEVER, [("will/#", 2), ("a/1", 1)]), ("worker1", 5, NEVER, [("$share/g/job/#", 1)]),
    ("worker2", 5, NEVER, [("$share/g/job/#", 1)]),
)
# Those whose session ends soon after they have gone.
SHORT = (("short1", 5, 2, [("a/#", 1)]), ("short2", 5, 4, [("b/#", 2)]))
PUBLISHERS = (("pub1", 5), ("pub2", 4), ("pub3", 5))
MORTALS = (("mortal1", 5), ("mortal2", 4), ("mortal3", 5))
# All of them: a session without a subscription is not in the store.
KEPT = AWAY + SHORT + tuple((name, version, NEVER, [("b/none", 1)]) for name, version in PUBLISHERS + MORTALS) + (
    ("watcher", 5, NEVER, [("#", 2)]),)

# What can befall it, and how often.
TERRORS = {
    "kill": 3, "cut": 6, "kill-and-cut": 2, "clock": 3, "jump": 2, "full": 2, "bad-sync": 2, "lock": 1, "away": 3, "damage": 4,
}
# After these nothing is owed any more.
LAST = ("accept", "deleted")


def make(seed, number, kinds=None, terrors=None):
    """`kinds`: of which the round may have some; `terrors`: those that it has, in that order."""
    r = random.Random("%s/%s" % (seed, number))
    options = {
        "loops": r.choice((1, 2, 3)), "store": True, "acl": False, "limit": 256, "inflight": r.choice((4, 32, 256)),
        "piece": r.choice((1, 4, 1024)), "data": "disk/data", "journal": r.random() < 0.5,
        "sync": r.choice((0, 0, 500, 5_000)), "pages": r.choice((10, 100, 1_000)),
        # Whether the data directory is there before the broker is.
        "made": r.random() < 0.5, "birth": r.getrandbits(48)}
    cast = {name: {"expiry": expiry, "user": None, "versions": [version]} for name, version, expiry, _ in AWAY + SHORT}
    for name, version in PUBLISHERS + MORTALS:
        cast[name] = {"expiry": NEVER, "user": None, "versions": [version]}
    cast["watcher"] = cast["reader"] = {"expiry": NEVER, "user": None, "versions": [5]}
    known = {kind: share for kind, share in TERRORS.items() if not kinds or kind in kinds}
    count = r.randrange(3, 7)
    names = r.choices(list(known), list(known.values()), k=count) if known else []
    last = [kind for kind in LAST if not kinds or kind in kinds]
    if last and (not known or r.random() < 0.3):
        names.append(r.choice(last))
    return {"options": options, "cast": cast,
            "terrors": [{"kind": kind, "seed": r.getrandbits(48)} for kind in terrors or names]}
