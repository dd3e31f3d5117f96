#!/usr/bin/env python3
"""examples.py BIN [--renew]: what docs/analyzing.md shows of the sample dumps is what arena-analyze prints.

Runs each `$ arena-analyze ...` of the page beside the sample dumps, in its order, and compares what follows it, if anything does. A
line with nothing but an ellipsis stands for what was left out. With --renew the page is changed in place of being complained about: read the
difference, and the sentences around it.
"""
import difflib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "analyzing.md"
COLUMNS = 100
ELLIPSIS = "    …"
# Commands that write files, and no tables.
FILES = ("report", "redact", "export")


def said(command, folder, path):
    """What a command prints in a window, as lines of the page."""
    environment = dict(os.environ, PATH=f"{path}:{os.environ['PATH']}", COLUMNS=str(COLUMNS), TZ="UTC")
    done = subprocess.run(
        ["bash", "-c", command + ("" if command.split()[1] in FILES else f" --width {COLUMNS}")], cwd=folder,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"examples: {command}: exit code {done.returncode}\n{done.stderr}")
    return [f"    {line}".rstrip() for line in done.stdout.rstrip("\n").split("\n")] if done.stdout else []


def renewed(shown, output):
    """`output`, cut where `shown` is; nothing where nothing is shown."""
    if not shown:
        return []
    lines = []
    for index, line in enumerate(shown):
        if line == ELLIPSIS:
            rest = len(shown) - index - 1
            return lines + [ELLIPSIS] + (output[-rest:] if rest else [])
        lines.append(output[index] if index < len(output) else None)
    return output


def main():
    arguments = [one for one in sys.argv[1:] if one != "--renew"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    path = pathlib.Path(arguments[0]).resolve()
    page = PAGE.read_text().split("\n")
    result, index, count = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for dump in (ROOT / "samples" / "incident").glob("*.dump.zst"):
            shutil.copy(dump, folder)
        while index < len(page):
            line = page[index]
            result.append(line)
            index += 1
            if not line.startswith("    $ arena-analyze "):
                continue
            end = index
            while end < len(page) and (page[end].startswith("    ") or page[end] == "") and not page[end].startswith("    $ "):
                end += 1
            while end > index and page[end - 1] == "":
                end -= 1
            output = said(line.strip()[2:], folder, path)
            result += renewed(page[index:end], output)
            index, count = end, count + 1
    if count == 0:
        sys.exit(f"examples: none in {PAGE}")
    if result == page:
        return print(f"examples: {count} of {PAGE.name} are what is printed")
    if "--renew" in sys.argv:
        PAGE.write_text("\n".join(result))
        return print(f"examples: {PAGE.name} is renewed")
    sys.stdout.writelines(f"{line}\n" for line in difflib.unified_diff(page, result, "the page", "what is printed", lineterm=""))
    sys.exit(f"examples: {PAGE.name} shows what is not printed; scripts/examples.py BIN --renew changes it")


if __name__ == "__main__":
    main()
