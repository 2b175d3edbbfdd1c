# SPDX-License-Identifier: Apache-2.0
"""Authorities, certificates and revocation lists for the tests, made with the openssl program.

    authority = pki.Authority(directory, "authority")
    alice = authority.issue("alice")                  # alice.cert, alice.key: paths of PEM files
    authority.revoke(alice); authority.write_list(path)

KEYWAY_TLS=1 turns every cluster of a test run to TLS: session() then makes one authority for the run and
tells the clients of the suites, ours and others', by environment variables.
"""

import atexit
import dataclasses
import datetime
import functools
import os
import pathlib
import shutil
import ssl
import subprocess

from harness import paths

CONFIG = """
[ca]
default_ca = this
[this]
database = {directory}/index.txt
serial = {directory}/serial
crlnumber = {directory}/crlnumber
new_certs_dir = {directory}
certificate = {directory}/{name}.pem
private_key = {directory}/{name}-key.pem
default_md = sha256
default_crl_days = 30
policy = any
unique_subject = no
[any]
commonName = optional
"""


@dataclasses.dataclass
class Certificate:
    """Paths of PEM files."""

    cert: pathlib.Path
    key: pathlib.Path


@dataclasses.dataclass
class ClientFiles:
    """What a client needs: the roots of the servers, and a certificate of its own unless None."""

    ca: pathlib.Path
    own: Certificate

    def loadgen_arguments(self):
        return ["--cacert", self.ca, "--cert", self.own.cert, "--key", self.own.key]

    def ctl_arguments(self):
        own = [f"--cert={self.own.cert}", f"--key={self.own.key}"] if self.own else []
        return [f"--cacert={self.ca}", *own]

    def context(self):
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.own:
            context.load_cert_chain(self.own.cert, self.own.key)
        return context


def replace_file(path, text):
    """Changes a file as an operator should: at once."""
    path = pathlib.Path(path)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.chmod(0o600)
    os.replace(new, path)


def _openssl(*arguments):
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def _stamp(offset_s):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=offset_s)
    return at.strftime("%Y%m%d%H%M%SZ")


class Authority:
    def __init__(self, directory, name):
        self.directory = pathlib.Path(directory) / name
        self.directory.mkdir(parents=True)
        self.name = name
        self.cert = self.directory / f"{name}.pem"
        key = self.directory / f"{name}-key.pem"
        self._config = self.directory / "openssl.cnf"
        self._config.write_text(CONFIG.format(directory=self.directory, name=name))
        (self.directory / "index.txt").touch()
        (self.directory / "serial").write_text("1000\n")
        (self.directory / "crlnumber").write_text("01\n")
        self._count = 0
        _new_key(key)
        _openssl(
            *["req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}", "-days", "30"],
            *["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.cert],
        )

    def issue(self, cn, names=("IP:127.0.0.1", "DNS:localhost"), starts_s=-3600, ends_s=86400 * 20):
        """A certificate usable on both ends; `starts_s` and `ends_s` are seconds from now."""
        self._count += 1
        stem = self.directory / f"{self._count:03}-{''.join(c for c in cn if c.isalnum())}"
        made = Certificate(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        lines = ["basicConstraints = CA:FALSE", "extendedKeyUsage = serverAuth, clientAuth"]
        if names:
            lines.append(f"subjectAltName = {','.join(names)}")
        extensions.write_text("\n".join(lines) + "\n")
        _new_key(made.key)
        _openssl("req", "-new", "-key", made.key, "-subj", f"/CN={cn}", "-out", request)
        _openssl(
            *["ca", "-batch", "-notext", "-config", self._config, "-in", request],
            *["-out", made.cert, "-extfile", extensions],
            *["-startdate", _stamp(starts_s), "-enddate", _stamp(ends_s)],
        )
        return made

    def revoke(self, certificate):
        _openssl("ca", "-config", self._config, "-revoke", certificate.cert)

    def list_text(self):
        """The current revocation list as PEM."""
        path = self.directory / "list.pem"
        _openssl("ca", "-config", self._config, "-gencrl", "-out", path)
        return path.read_text()


def _new_key(path):
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    path.chmod(0o600)


class Pki:
    """One authority for both ports, and certificates by name, each made once."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.authority = Authority(self.directory, "authority")
        self._issued = {}

    def issue(self, cn, names=("IP:127.0.0.1", "DNS:localhost")):
        key = (cn, tuple(names))
        if key not in self._issued:
            self._issued[key] = self.authority.issue(cn, names)
        return self._issued[key]

    def client_files(self, cn="root"):
        return ClientFiles(self.authority.cert, self.issue(cn))


def is_on():
    return os.environ.get("KEYWAY_TLS", "") not in ("", "0")


@functools.cache
def session():
    """The authority of this test run. With KEYWAY_TLS=1 its client is that of every program started."""
    made = Pki(paths.WORK / f"pki-{os.getpid()}")
    atexit.register(shutil.rmtree, made.directory, ignore_errors=True)
    if is_on():
        files = made.client_files()
        for name in ("KEYWAY_TEST", "ETCDCTL", "KEYWAYCTL"):
            os.environ[f"{name}_CACERT"] = str(files.ca)
            os.environ[f"{name}_CERT"] = str(files.own.cert)
            os.environ[f"{name}_KEY"] = str(files.own.key)
    return made


def from_environment():
    """The ClientFiles of a run with KEYWAY_TLS=1, else None. For processes that a suite started, too."""
    if not is_on():
        return None
    if "KEYWAY_TEST_CACERT" not in os.environ:
        session()
    own = Certificate(
        pathlib.Path(os.environ["KEYWAY_TEST_CERT"]), pathlib.Path(os.environ["KEYWAY_TEST_KEY"])
    )
    return ClientFiles(pathlib.Path(os.environ["KEYWAY_TEST_CACERT"]), own)
