# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that can lose its connections, to put between members."""

import socket
import threading


class CuttingProxy:
    """Forwards `port` to `target_port` on 127.0.0.1. The first `cuts` connections are reset after
    `cut_after` bytes towards the target; `cut_count` counts them."""

    def __init__(self, port, target_port, cut_after, cuts):
        self.target_port = target_port
        self.cut_after = cut_after
        self.cuts_left = cuts
        self.cut_count = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            try:
                target = socket.create_connection(("127.0.0.1", self.target_port), 5)
            except OSError:
                source.close()
                continue
            for pair in ((source, target, True), (target, source, False)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, target, counts):
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                with self.lock:
                    cut = counts and self.cuts_left > 0 and passed >= self.cut_after
                    if cut:
                        self.cuts_left -= 1
                        self.cut_count += 1
                if cut:
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
