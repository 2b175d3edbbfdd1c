# SPDX-License-Identifier: Apache-2.0
"""The tour with etcdctl: tour_etcdctl.py ETCDCTL ENDPOINT prints what every command printed."""

import base64
import json
import re
import subprocess
import sys
import threading

from tour_common import mask, mask_json

ETCDCTL, ENDPOINT = sys.argv[1:3]
leases = {}  # Lease ids differ; they are told apart by the order in which they appear.


def text(output):
    for lease, name in leases.items():
        output = output.replace(lease, name)
    return mask(output)


def run(*arguments, stdin=None, show=True):
    command = [ETCDCTL, f"--endpoints={ENDPOINT}", "--command-timeout=10s", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
    if show:
        print("$", text(" ".join(repr(a) if " " in a or a == "" else a for a in arguments)))
        if stdin:
            print("  <", repr(stdin))
        print("  exit", done.returncode)
        for line in (done.stdout + done.stderr).splitlines():
            if '"level"' in line and "environment" in line:
                continue  # etcdctl 3.7 does not know ETCDCTL_API, which 3.4 needs.
            if line.startswith(("{", "[")) and line.endswith(("}", "]")) and '"level"' not in line:
                try:
                    print("  ", json.dumps(mask_json(json.loads(line), leases), sort_keys=True))
                    continue
                except ValueError:
                    pass
            print("  ", text(line))
    return done.stdout


def grant(seconds):
    output = run("lease", "grant", str(seconds), show=False)
    lease = re.search(r"lease (\w+) granted", output)[1]
    leases[lease] = f"<lease{len(leases) + 1}>"
    print("$ lease grant", seconds)
    print("  ", text(output).strip())
    return lease


def watch(count, *arguments, during=None):
    """Runs a watch until `count` events came or it ended; events are shown one a line."""
    command = [ETCDCTL, f"--endpoints={ENDPOINT}", "watch", *arguments, "-w", "json"]
    print("$ watch", *arguments)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(15, process.kill)
    timer.start()
    if during:
        during()
    seen = 0
    for line in process.stdout:
        try:
            reply = json.loads(line)
        except ValueError:
            print("  ", text(line.rstrip()))
            continue
        for event in reply.get("Events") or []:
            print("  ", json.dumps(mask_json(event, leases), sort_keys=True))
            seen += 1
        if seen >= count:
            break
    process.kill()
    timer.cancel()
    errors = process.stderr.read() if seen < count else ""
    print("  events", seen, text(errors.strip()))
    process.wait()


def b64(value):
    return base64.b64encode(value.encode()).decode()


for name in "abcde":
    run("put", f"k/{name}", f"1{name}")
run("put", "k/b", "2b", "--prev-kv", "-w", "json")
run("put", "k/c", "--ignore-value")
run("put", "", "value of the empty key")
run("get", "k/a")
run("get", "k/a", "-w", "json")
run("get", "k/a", "-w", "fields")
run("get", "k/b", "--print-value-only")
run("get", "k/missing")
run("get", "--prefix", "k/", "-w", "json")
run("get", "--prefix", "k/", "--limit=2", "-w", "json")
run("get", "k/b", "--rev=3", "-w", "json")
run("get", "k/b", "--rev=1000")
run("get", "k/b", "k/d")
run("get", "--from-key", "k/d")
run("get", "--prefix", "", "--keys-only")
run("get", "--prefix", "k/", "--count-only", "-w", "json")
for target in ["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]:
    for order in ["ASCEND", "DESCEND"]:
        run("get", "--prefix", "k/", f"--sort-by={target}", f"--order={order}", "--limit=3")
run("get", "--prefix", "k/", "--consistency=s")

run("txn", stdin='value("k/a") = "1a"\n\nput k/a 2a\nget k/a\n\nput k/a no\n\n')
run("txn", stdin='value("k/a") = "1a"\n\nput k/a no\n\nget k/a\ndel k/e\n\n')
run("txn", "-w", "json", stdin='ver("k/a") > "1"\nc("k/a") < "3"\nmod("k/a") > "3"\n\nput t 1\n\nput t 2\n\n')
run("txn", stdin='create("t") = "0"\n\nput t 1\n\nget t\n\n')
run("txn", stdin="\nput same 1\nput same 2\n\n\n")

run("del", "k/d", "--prev-kv")
run("del", "k/d")
run("del", "k/d", "-w", "json")
run("put", "k/d", "again", "--prev-kv")
run("del", "k/c", "k/e", "--prev-kv", "-w", "json")

watch(9, "--prefix", "k/", "--rev=2", "--prev-kv")
watch(1, "k/b", "--rev=2")
run("put", "w/1", "a")
run("put", "w/1", "b")
run("del", "w/1")
watch(3, "--prefix", "w/", "--rev=4", "--prev-kv")

long = grant(300)
run("put", "l/a", "1", f"--lease={long}")
run("put", "l/b", "1", f"--lease={long}")
run("get", "--prefix", "l/", "-w", "json")
run("lease", "timetolive", long, "--keys")
run("lease", "keep-alive", long, "--once")
run("lease", "list")
run("lease", "revoke", long)
run("get", "--prefix", "l/")
run("lease", "revoke", long)
run("lease", "timetolive", long)
run("lease", "revoke", "1234")
run("put", "l/c", "1", "--lease=1234")
short = grant(1)
run("put", "s/a", "1", f"--lease={short}")
watch(2, "--prefix", "s/", "--rev=4", "--prev-kv")
run("get", "--prefix", "s/", "-w", "json")

run("member", "list", "-w", "json")
run("endpoint", "health")
run("endpoint", "status", "-w", "json")
run("endpoint", "hashkv", "-w", "json")
run("member", "remove", "1234")
run("alarm", "list")

run("compaction", "8")
run("compaction", "8")
run("compaction", "100000")
run("get", "k/b", "--rev=3")
run("get", "--prefix", "k/", "--rev=8", "-w", "json")
watch(1, "--prefix", "k/", "--rev=2")
run("compaction", "12", "--physical")
run("get", "--prefix", "", "-w", "json")
