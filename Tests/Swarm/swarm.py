#!/usr/bin/env python3
"""A swarm of clients against a real broker, and a model that says what each must, may and must not receive.

    swarm.py --bin DIR [--seed N] [--minutes M | --rounds N | --round N]    rounds from a seed
    swarm.py --bin DIR --replay FILE                                       one script again

A round that fails leaves its script, its log and what was found in the output directory, and is shortened: as many
actions as can be are left out as long as it still fails. Exit code: 0 all is well, 1 something was found, 2 usage.
"""

import json
import os
import sys
import time

import client
import play
import rounds
import sabotage
import script as scripts


def arguments():
    parser = rounds.parser(__doc__)
    parser.add_argument("--analyzer", help="arena-analyze, where it is not beside the broker")
    parser.add_argument("--length", type=int, default=250, help="actions of a round")
    parser.add_argument("--loops", type=int, help="event loops, whatever the seed says")
    parser.add_argument("--replay", help="a script that was written before")
    parser.add_argument(
        "--shrink", type=float, default=5.0, help="minutes to spend on a shorter script (0, or --keep-going: none)")
    parser.add_argument("--sanitizer", action="store_true", help="the broker is built with one: memory is not compared with the limit")
    parser.add_argument("--sabotage", choices=sabotage.KINDS, help="spoil what the broker does: the model has to notice")
    parser.add_argument("--self-test", action="store_true", help="each kind of sabotage, until it is noticed")
    return parser.parse_args()


class Runner:
    def __init__(self, options):
        self.options = options
        self.out = rounds.prepare(options, "swarm")
        programs = os.path.abspath(options.bin)
        self.programs = {
            "broker": os.path.join(programs, "arena-broker"),
            "analyze": os.path.abspath(options.analyzer) if options.analyzer else os.path.join(programs, "arena-analyze")}
        self.count = 0
        self.figures = {}

    def once(self, script):
        """Plays one script. (findings, the swarm)"""
        self.count += 1
        directory = os.path.join(self.out, "round-%d" % self.count)
        play.clean(directory)
        os.makedirs(directory)

        async def run():
            swarm = play.Swarm(
                script, directory, self.out, self.programs, is_instrumented=self.options.sanitizer,
                sabotaged=self.options.sabotage)
            return await swarm.play(), swarm

        findings, swarm = rounds.run(run())
        if not findings:
            play.clean(directory)
        return findings, swarm

    def round(self, name, script):
        begun = time.monotonic()
        if self.options.loops:
            script["options"]["loops"] = self.options.loops
        findings, swarm = self.once(script)
        history = swarm.history
        deliveries = sum(len(one.deliveries) for one in history.sessions.values())
        for key, value in {"rounds": 1, "messages": len(history.messages), "deliveries": deliveries, "pongs": swarm.pongs,
                           **swarm.figures}.items():
            self.figures[key] = self.figures.get(key, 0) + value
        options = script["options"]
        print("%s: %d loops%s%s, %d messages, %d deliveries, %d owed, slowest pong %.0f ms, resident %d MiB, %.1f s%s" % (
            name, options["loops"], ", store" if options["store"] else "", ", ACL" if options["acl"] else "",
            len(history.messages), deliveries, swarm.figures["must"], swarm.slowest * 1000, swarm.peak >> 20,
            time.monotonic() - begun, "" if not findings else "  FAILED"), flush=True)
        if findings:
            self.report(name, script, findings)
        return findings

    def report(self, name, script, findings):
        rounds.tell(findings)
        path = os.path.join(self.out, name.replace(" ", "-").replace("/", "-") + ".json")
        with open(path, "w") as file:
            json.dump(script, file, indent=1)
        print("    script: %s, log: %s/round-%d/broker.log" % (path, self.out, self.count), flush=True)
        if self.options.shrink and not self.options.keep_going:
            shorter = self.shrink(script)
            with open(path, "w") as file:
                json.dump(shorter, file, indent=1)
            print("    shortened to %d actions; again: swarm.py --bin %s --replay %s" % (
                len(shorter["actions"]), self.options.bin, path), flush=True)

    def shrink(self, script):
        """Delta debugging: leaves out parts, half of it at first, as long as the rest fails."""
        deadline = time.monotonic() + self.options.shrink * 60
        actions, parts = script["actions"], 2
        while len(actions) > 1 and time.monotonic() < deadline:
            size = -(-len(actions) // parts)
            for begin in range(0, len(actions), size):
                if time.monotonic() > deadline:
                    break
                rest = actions[:begin] + actions[begin + size:]
                if rest and self.once(dict(script, actions=rest))[0]:
                    actions, parts = rest, max(2, parts - 1)
                    break
            else:
                if size == 1:
                    break
                parts = min(len(actions), parts * 2)
        return dict(script, actions=actions)


def self_test(runner, options):
    """A model that notices nothing would find nothing."""
    play.PATIENCE = client.PATIENCE = 5.0
    unnoticed = []
    for kind in sabotage.KINDS:
        options.sabotage = kind
        for number in range(8):
            findings, _ = runner.once(scripts.make("self-test", number, 100))
            if findings:
                print("%s: noticed in round %d: %s" % (kind, number, findings[0].splitlines()[0][:150]), flush=True)
                break
        else:
            unnoticed.append(kind)
    print("not noticed: " + ", ".join(unnoticed) if unnoticed else "all noticed")
    return 1 if unnoticed else 0


def main():
    options = arguments()
    runner = Runner(options)
    if options.replay:
        with open(options.replay) as file:
            return 1 if runner.round("replay", json.load(file)) else 0
    if options.self_test:
        return self_test(runner, options)
    return rounds.play(options, lambda number: runner.round(
        "seed %s round %d" % (options.seed, number), scripts.make(options.seed, number, options.length)), runner.figures)


if __name__ == "__main__":
    sys.exit(main())
