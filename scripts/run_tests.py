#!/usr/bin/env python3
"""Builds the tests with cargo and runs their programs, as many at once as there are cores; the rest as `cargo test --no-fail-fast` does.

Many tests wait, for servers, time limits and pauses, and a program ends when its last test does: one program after another leaves cores idle
for half of the time. What a program says is printed whole when it has ended. The slowest begin first, by what they took the last time.

Usage: run_tests.py [arguments of cargo build, such as --features X]
"""

import json
import os
import subprocess
import sys
import threading
import time

# Programs that look at all processes of the machine, those of containers and of the other side of ssh: nothing runs beside them.
ALONE = ["compose_service", "reach_docker", "reach_ssh"]


def build(arguments):
    """The test programs: name → path."""
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", *arguments]
    built = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    programs, target = {}, None
    for line in built.stdout:
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable") and message["profile"]["test"]:
            kind = message["target"]["kind"][0]
            name = message["target"]["name"] if kind == "test" else f"{message['target']['name']} ({kind})"
            programs[name] = message["executable"]
            target = target or os.path.dirname(os.path.dirname(message["executable"]))
    if built.wait() != 0:
        sys.exit(built.returncode)
    if not programs:
        sys.exit("cargo built no test programs")
    return programs, target


def last_times(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.chdir(root)
    programs, target = build(sys.argv[1:])
    noted = os.path.join(target, "test-times.json")
    times = last_times(noted)
    # A program that was never timed may be slow.
    waiting = sorted((name for name in programs if name not in ALONE), key=lambda name: -times.get(name, 60.0))
    lock = threading.Lock()
    failed = []
    environment = {**os.environ, "CARGO_MANIFEST_DIR": root}

    def run(name):
        began = time.monotonic()
        ran = subprocess.run([programs[name]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        took = time.monotonic() - began
        with lock:
            times[name] = round(took, 1)
            if ran.returncode != 0:
                failed.append(name)
            sys.stdout.write(f"\n     Running {name}\n")
            sys.stdout.flush()
            sys.stdout.buffer.write(ran.stdout)
            sys.stdout.buffer.flush()

    def lane():
        while True:
            with lock:
                if not waiting:
                    return
                name = waiting.pop(0)
            run(name)

    for name in ALONE:
        if name in programs:
            run(name)
    lanes = [threading.Thread(target=lane) for _ in range(os.cpu_count() or 1)]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join()
    with open(noted, "w") as file:
        json.dump(times, file, indent=1, sort_keys=True)
    slowest = sorted(programs, key=lambda name: -times[name])[:8]
    print("\nslowest: " + ", ".join(f"{name} {times[name]:.0f} s" for name in slowest))
    if failed:
        print("failed: " + ", ".join(sorted(failed)))
        sys.exit(1)


main()
