#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program from outside: exit codes, messages, readiness, signals. Usage: keywayd_test.py KEYWAYD"""
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

KEYWAYD = sys.argv.pop(1)
READY = "ready to serve client requests"
# Generous: a loaded machine must not fail the test.
LIMIT_S = 60


def free_port():
    for _ in range(100):
        port = random.randrange(20000, 40000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port")


class Keywayd(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.client_port, self.peer_port = free_port(), free_port()

    def config(self, extra=""):
        path = self.folder / "keyway.toml"
        path.write_text(f'''[node]
name = "a"
data_dir = "{self.folder}/data"
[cluster.members]
a = "http://127.0.0.1:{self.peer_port}"
[raft]
heartbeat_interval = "20ms"
election_timeout = "200ms"
[[api]]
plugin = "api-etcd"
listen = ["http://127.0.0.1:{self.client_port}"]
{extra}''')
        return str(path)

    def run_to_end(self, *arguments):
        # An environment with nothing in it: plugins are found beside the program.
        return subprocess.run([KEYWAYD, *arguments], capture_output=True, text=True, timeout=LIMIT_S, env={})

    def start(self, *arguments):
        process = subprocess.Popen([KEYWAYD, "--config", self.config(), *arguments], stderr=subprocess.PIPE,
                                   text=True, env={}, cwd=self.folder)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if READY in line:
                return process
        process.wait(LIMIT_S)
        self.fail("".join(lines))

    def test_version(self):
        ended = self.run_to_end("--version")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertRegex(ended.stdout, r"^keyway \d+\.\d+\.\d+\nABI 1\.\d+\n$")

    def test_usage_errors_end_with_2(self):
        self.assertEqual(self.run_to_end().returncode, 2)
        self.assertEqual(self.run_to_end("--nonsense").returncode, 2)
        self.assertEqual(self.run_to_end("--config", self.config(), "--log-level", "loud").returncode, 2)
        ended = self.run_to_end("--config", "/nowhere/keyway.toml")
        self.assertEqual(ended.returncode, 2)
        self.assertEqual(ended.stderr, "/nowhere/keyway.toml: No such file or directory\n")

    def test_all_configuration_errors_are_told(self):
        path = self.config('listn = []\n[storage]\nmap_size = "huge"\n[[metrics]]\nplugin = "nothing"\n')
        ended = self.run_to_end("--config", path)
        self.assertEqual(ended.returncode, 2)
        lines = ended.stderr.splitlines()
        self.assertEqual(len(lines), 3, ended.stderr)
        self.assertTrue(lines[0].startswith(f'{path}:12:1: api.listn: unknown key, did you mean "listen"?'))
        self.assertTrue(lines[1].startswith(f"{path}:14:12: storage.map_size: expected a size from "))
        self.assertIn("nothing.so: No such file or directory", lines[2])
        self.assertFalse((self.folder / "data").exists())

    def test_check_config_prints_what_is_in_effect(self):
        ended = self.run_to_end("--check-config", "--config", self.config())
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertIn('[storage]\nplugin = "storage-lmdb"  # default\n', ended.stdout)
        again = self.folder / "again.toml"
        again.write_text(ended.stdout)
        self.assertEqual(self.run_to_end("--check-config", "--config", str(again)).returncode, 0)
        self.assertFalse((self.folder / "data").exists())

    def test_serves_and_ends_on_sigterm_twice_on_the_same_data(self):
        for _ in range(2):
            process = self.start("--log-format", "json")
            with socket.create_connection(("127.0.0.1", self.client_port), LIMIT_S):
                pass
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            self.assertEqual(process.wait(LIMIT_S), 0, rest)
            self.assertIn('"msg":"node_stopped"', rest)
        self.assertEqual(os.stat(self.folder / "data").st_mode & 0o777, 0o700)

    def test_sighup_is_told_and_ignored(self):
        process = self.start()
        process.send_signal(signal.SIGHUP)
        for line in process.stderr:
            if "signal_ignored" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        self.assertEqual(process.wait(LIMIT_S), 0)

    def test_taken_port_is_a_named_failure(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", self.client_port))
            other.listen()
            ended = self.run_to_end("--config", self.config())
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertIn("plugin api-etcd ([api], ", ended.stderr)
        self.assertIn(f"{self.client_port}", ended.stderr)


unittest.main()
