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
import asyncio
import collections
import faulthandler
import os
import random
import resource
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Swarm"))

import ordeal
import plan
import platter


def words(text):
    known = (*plan.TERRORS, *plan.LAST)
    for word in text.split(","):
        if word not in known:
            raise argparse.ArgumentTypeError("%r is none of %s" % (word, ", ".join(known)))
    return text.split(",")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="where arena-broker is")
    parser.add_argument("--seed", help="any text; a new one each time without it")
    parser.add_argument("--minutes", type=float, help="new rounds until then")
    parser.add_argument("--rounds", type=int, help="so many rounds")
    parser.add_argument("--round", type=int, help="this one only")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--kinds", type=words, help="only these terrors")
    parser.add_argument("--terrors", type=words, help="just these in each round, in this order")
    parser.add_argument("--out", help="directory for what is found (a temporary one)")
    parser.add_argument("--keep-going", action="store_true", help="go on after a finding")
    parser.add_argument("--self-test", action="store_true", help="with a disk that forgets what was synchronised: must be noticed")
    return parser.parse_args()


class Runner:
    def __init__(self, options):
        self.options = options
        self.out = os.path.abspath(options.out or tempfile.mkdtemp(prefix="torture-"))
        os.makedirs(self.out, exist_ok=True)
        self.library = platter.build(self.out)
        self.programs = {"broker": os.path.join(os.path.abspath(options.bin), "arena-broker")}
        self.figures = collections.Counter()

    def round(self, seed, number):
        script = plan.make(seed, number, self.options.kinds, self.options.terrors)
        directory = os.path.join(self.out, "round-%d" % number)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        # A round that hangs says where, and ends all.
        faulthandler.dump_traceback_later(600, exit=True)
        begun = time.monotonic()

        async def run():
            one = ordeal.Ordeal(script, directory, self.out, self.programs, self.library)
            one.platter.is_lying = self.options.self_test
            return await one.play(), one

        findings, one = asyncio.run(run())
        faulthandler.cancel_dump_traceback_later()
        messages, subscriptions = one.acknowledged()
        deliveries = sum(len(session.deliveries) for session in one.history.sessions.values())
        self.figures.update(one.figures)
        self.figures.update({
            "rounds": 1, "acknowledged messages": messages, "acknowledged subscriptions": subscriptions, "deliveries": deliveries})
        print("seed %s round %d: %s; %d acknowledged, %d deliveries, %d owed, %.1f s%s" % (
            seed, number, ", ".join(terror["kind"] for terror in script["terrors"]), messages + subscriptions, deliveries,
            one.figures["must"], time.monotonic() - begun, "  FAILED" if findings else ""), flush=True)
        if findings:
            for finding in findings[:10]:
                print("    " + finding.replace("\n", "\n        "))
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
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runner = Runner(options)
    seed = options.seed or str(random.SystemRandom().randrange(1 << 32))
    if options.self_test:
        options.kinds = ["cut"]
        noticed = any(runner.round(seed, number) for number in range(4))
        print("noticed" if noticed else "not noticed")
        return 0 if noticed else 1
    begun, failed = time.monotonic(), 0
    if options.round is not None:
        numbers = [options.round]
    else:
        numbers = range(options.first, options.first + (options.rounds or (1 << 30 if options.minutes else 10)))
    for number in numbers:
        if options.minutes and time.monotonic() - begun > options.minutes * 60:
            break
        if runner.round(seed, number):
            failed += 1
            if not options.keep_going:
                break
    print("%s; %s" % ("%d failed" % failed if failed else "no finding", ", ".join(
        "%d %s" % (value, key) for key, value in sorted(runner.figures.items()))))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
