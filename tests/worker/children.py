"""A zoo of bad children. `python children.py KIND [ARGUMENTS]`, run by the tests' own interpreter.

Imports nothing of Heartlane's and little at all: many of these are started in a test. Where one writes to a file, it
does so with one write to a file opened for appending, so that several may share it.
"""

import os
import signal
import sys
import time


def note(path: str, text: str) -> None:
    """Add a line to a file that several processes may write to."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, text.encode() + b"\n")
    os.close(descriptor)


def until_noted(path: str) -> None:
    """Wait until another process has added a line; what is left behind might be killed before it did."""
    while not os.path.exists(path):  # noqa: PTH110
        time.sleep(0.005)


def forever() -> None:
    """Go on until somebody ends it, but not for ever, should a test forget it."""
    time.sleep(600)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def waits() -> None:
    """Prints nothing and does nothing."""
    forever()


def ignores_term() -> None:
    """Has to be killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("ready")
    while True:
        forever()


def slow_on_term(seconds: str, path: str) -> None:
    """Ends well, but takes its time; notes both the signal and the end."""

    def end(number: int, frame: object) -> None:
        note(path, "asked")
        time.sleep(float(seconds))
        note(path, "ended well")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    say("ready")
    while True:
        forever()


def setsid_grandchild(path: str) -> None:
    """Leaves a grandchild in a session of its own that keeps the output pipe open, and waits."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(path, str(os.getpid()))
        forever()
    forever()


def daemon(path: str, stays: str = "") -> None:
    """Double-forks as daemons do; the command ends at once unless it is told to stay."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            note(path, str(os.getpid()))
            forever()
        os._exit(0)
    os.wait()
    until_noted(path)
    if stays:
        forever()


def unmarked_daemon(path: str) -> None:
    """Double-forks into a session of its own and throws its environment away, so that nothing tells whose it was."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            arguments = [sys.executable, "-I", "-S", __file__, "notes_itself", path]
            os.execve(arguments[0], arguments, {})  # noqa: S606
        os._exit(0)
    os.wait()
    forever()


def notes_itself(path: str) -> None:
    """Notes its pid, and can only be killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path, str(os.getpid()))
    forever()


def becomes_nobody(path: str) -> None:
    """Root's, until it becomes another user's, as with sudo; ticks."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.setuid(65_534)
    while True:
        os.write(descriptor, b"tick\n")
        time.sleep(0.01)


def holds_stdout(path: str) -> None:
    """Ends at once with code 7, leaving a grandchild that holds standard output."""
    if os.fork() == 0:
        note(path, str(os.getpid()))
        forever()
    until_noted(path)
    os._exit(7)


def breeds(path: str, most: str = "200") -> None:
    """A gentle fork bomb: each process leaves its parent, notes its birth, has a child and ends, on and on."""
    for number in range(int(most)):
        if number % 5 == 0:
            note(path, f"{number} {time.clock_gettime(time.CLOCK_MONOTONIC)}")
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        time.sleep(0.004)
    forever()


def ticks(path: str, every: str = "0.01") -> None:
    """Notes the time again and again: silence in the file is proof that it stood still."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    say("ready")
    while True:
        note(path, str(time.clock_gettime(time.CLOCK_MONOTONIC)))
        time.sleep(float(every))


def tick_family(path: str) -> None:
    """Three generations that tick, the youngest in a session of its own."""
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            ticks(path)
        ticks(path)
    ticks(path)


def floods(megabytes: str, per_second: str = "0") -> None:
    """Prints lines of 200 bytes, as many megabytes as asked, evenly over the time where a rate is given."""
    block = (b"x" * 199 + b"\n") * 5_000
    started = time.monotonic()
    for number in range(int(megabytes)):
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        if float(per_second):
            time.sleep(max(0.0, started + (number + 1) / float(per_second) - time.monotonic()))


def both_streams(lines: str) -> None:
    """Prints as much on standard error as on standard output, in turns, so that neither pipe may be forgotten."""
    for number in range(int(lines)):
        os.write(1, b"out %d %s\n" % (number, b"o" * 1000))
        os.write(2, b"err %d %s\n" % (number, b"e" * 1000))


def long_line(megabytes: str) -> None:
    """One line of many megabytes, without a newline."""
    for _ in range(int(megabytes)):
        os.write(1, b"y" * 1_000_000)


def binary() -> None:
    """Bytes that are no text."""
    os.write(1, bytes(range(256)) * 40 + b"\nafter\n")


def closes_stdout() -> None:
    """Closes its output and goes on."""
    say("closing")
    os.close(1)
    os.close(2)
    forever()


def hangs_after_result(path: str) -> None:
    """Says that it is done, and isn't."""
    say('{"type":"result","subtype":"success"}')
    note(path, "said")
    forever()


def stops_itself() -> None:
    """Stops as by Ctrl-Z."""
    say("stopping")
    os.kill(os.getpid(), signal.SIGSTOP)
    say("continued")
    forever()


def tells() -> None:
    """What a command sees of its world: its folder, standard input, descriptors, and whether it leads its group."""
    say(repr(os.getcwd()))  # noqa: PTH109
    say(repr(sys.stdin.read()))
    say(repr(sorted(int(name) for name in os.listdir("/dev/fd") if _is_open(int(name)))))  # noqa: PTH208
    say(repr(os.getpgid(0) == os.getpid()))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def exits(code: str) -> None:
    """Ends with this code."""
    os._exit(int(code))


def dies(name: str) -> None:
    """Ends by this signal."""
    os.kill(os.getpid(), getattr(signal, name))
    forever()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
