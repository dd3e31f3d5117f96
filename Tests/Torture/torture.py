#!/usr/bin/env python3
"""A broker whose machine fails, whose disk lies and whose clock is wrong; and clients that hold it to what it acknowledged.

    torture.py --bin DIR [--seed N] [--minutes M | --rounds N | --round N] [--kinds KIND,... | --terrors KIND,...]

In a round clients publish to sessions that are kept, retain messages and leave wills, while the broker is, in turns,

    kill           ended by SIGKILL, at some moment or exactly before one of its writes
    cut            cut from power: what was not synchronised is lost, kept or torn, sector by sector (platter.py)
    kill-and-cut   killed, started, and cut from power before it has written much
    clock          started with a clock that is a day behind, at 1970, before 1970, an hour or a year ahead
    jump           given such a clock while it runs
    full, lock     left without room on its disk, or with a disk that waits
    bad-sync       told by its disk that it could not write; mostly cut from power soon after
    away           robbed of its store for a while: moved, or another in its place
    damage         stopped and its files hurt: it must have everything, or say what is missing and not start
    accept         the same, then started with --accept-damaged-store
    deleted        robbed of its store for ever

and after each all come back. What was acknowledged must be there: QoS 2 once, nothing with more life than it was given, sessions
and wills on time. The clients and the model are the swarm's (Tests/Swarm).

Everything follows from the seed but the order in which a busy machine does things: a round that fails says how it is played
again, and may need more than one try. Its directory stays, with the broker's log. Exit code: 0 all is well, 1 something was found.
"""

import argparse
import argparse
import collections
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Swarm"))

import ordeal
import plan
import platter
import rounds


def words(text):
    known = (*plan.TERRORS, *plan.LAST)
    for word in text.split(","):
        if word not in known:
            raise argparse.ArgumentTypeError("%r is none of %s" % (word, ", ".join(known)))
    return text.split(",")


def arguments():
    parser = rounds.parser(__doc__)
    parser.add_argument("--kinds", type=words, help="only these terrors")
    parser.add_argument("--terrors", type=words, help="just these in each round, in this order")
    parser.add_argument("--self-test", action="store_true", help="with a disk that forgets what was synchronised: must be noticed")
    return parser.parse_args()


class Runner:
    def __init__(self, options):
        self.options = options
        self.out = rounds.prepare(options, "torture")
        self.library = platter.build(self.out)
        self.programs = {"broker": os.path.join(os.path.abspath(options.bin), "arena-broker")}
        self.figures = collections.Counter()

    def round(self, number):
        seed = self.options.seed
        script = plan.make(seed, number, self.options.kinds, self.options.terrors)
        directory = os.path.join(self.out, "round-%d" % number)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        begun = time.monotonic()

        async def run():
            one = ordeal.Ordeal(script, directory, self.out, self.programs, self.library)
            one.platter.is_lying = self.options.self_test
            return await one.play(), one

        findings, one = rounds.run(run())
        messages, subscriptions = one.acknowledged()
        deliveries = sum(len(session.deliveries) for session in one.history.sessions.values())
        self.figures.update(one.figures)
        self.figures.update({
            "rounds": 1, "acknowledged messages": messages, "acknowledged subscriptions": subscriptions, "deliveries": deliveries})
        print("seed %s round %d: %s; %d acknowledged, %d deliveries, %d owed, %.1f s%s" % (
            seed, number, ", ".join(terror["kind"] for terror in script["terrors"]), messages + subscriptions, deliveries,
            one.figures["must"], time.monotonic() - begun, "  FAILED" if findings else ""), flush=True)
        if findings:
            rounds.tell(findings)
            print("    what happened: %s; options %s" % (", ".join(one.happened), script["options"]))
            only = "".join(" --%s %s" % (name, ",".join(getattr(self.options, name)))
                           for name in ("kinds", "terrors") if getattr(self.options, name))
            print("    again: Tests/Torture/torture.py --bin %s --seed %s --round %d%s; log: %s/broker.log" % (
                self.options.bin, seed, number, only, directory), flush=True)
        else:
            shutil.rmtree(directory)
        return findings


def main():
    options = arguments()
    runner = Runner(options)
    if options.self_test:
        options.kinds = ["cut"]
        noticed = any(runner.round(number) for number in range(4))
        print("noticed" if noticed else "not noticed")
        return 0 if noticed else 1
    return rounds.play(options, runner.round, runner.figures)


if __name__ == "__main__":
    sys.exit(main())
