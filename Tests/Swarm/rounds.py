"""Rounds that follow from a seed: the options, and how rounds are played one after the other (swarm.py, Tests/Torture)."""

import argparse
import asyncio
import faulthandler
import os
import random
import resource
import tempfile
import time


def parser(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="where arena-broker is")
    parser.add_argument("--seed", help="any text; a new one each time without it")
    parser.add_argument("--minutes", type=float, help="new rounds until then")
    parser.add_argument("--rounds", type=int, help="so many rounds")
    parser.add_argument("--round", type=int, help="this one only")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument("--out", help="directory for what is found (a temporary one)")
    parser.add_argument("--keep-going", action="store_true", help="go on after a finding")
    return parser


def prepare(options, name):
    """As many open files as there may be, a seed, and the directory for what is found, which is returned."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options.seed = options.seed or str(random.SystemRandom().randrange(1 << 32))
    out = os.path.abspath(options.out or tempfile.mkdtemp(prefix=name + "-"))
    os.makedirs(out, exist_ok=True)
    return out


def run(round):
    """What a coroutine returns. One that hangs says where, and ends all."""
    faulthandler.dump_traceback_later(600, exit=True)
    result = asyncio.run(round)
    faulthandler.cancel_dump_traceback_later()
    return result


def tell(findings):
    for finding in findings[:10]:
        print("    " + finding.replace("\n", "\n        "))


def play(options, round, figures):
    """Plays the rounds that were asked for: `round` gets the number of one and returns what it found. The exit code."""
    begun, failed = time.monotonic(), 0
    if options.round is not None:
        numbers = [options.round]
    else:
        numbers = range(options.first, options.first + (options.rounds or (1 << 30 if options.minutes else 10)))
    for number in numbers:
        if options.minutes and time.monotonic() - begun > options.minutes * 60:
            break
        if round(number):
            failed += 1
            if not options.keep_going:
                break
    print("%s; %s" % ("%d failed" % failed if failed else "no finding", ", ".join(
        "%d %s" % (value, key) for key, value in sorted(figures.items()))))
    return 1 if failed else 0
