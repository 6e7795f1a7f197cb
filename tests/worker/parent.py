"""A sidecar reduced to its child: `python parent.py [--deadline SECONDS] -- COMMAND…`.

Prints the child's pid, the guard's and the mark. Then, if there is a deadline, moves it ahead by so many seconds every
tenth of that. Ends, without a word to the guard, when its standard input does, if that is a pipe.
"""

import argparse
import os
import select
import stat
import sys

from heartlane.worker.child import Child
from heartlane.worker.clock import boottime
from heartlane.worker.reader import Reader


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--deadline", type=float)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    child = Child.start(options.command, env=dict(os.environ), cwd="/")
    if options.deadline is not None:
        child.set_deadline(boottime() + options.deadline)
    Reader(child.stdout, child.stderr, lambda stream, lines: None).start()
    sys.stdout.write(f"{child.pid} {child.guard_pid} {child.mark}\n")
    sys.stdout.flush()
    watched = [sys.stdin] if stat.S_ISFIFO(os.fstat(0).st_mode) else []
    while not select.select(watched, [], [], options.deadline and options.deadline / 10)[0]:
        child.set_deadline(boottime() + options.deadline)
    os._exit(0)


main()
