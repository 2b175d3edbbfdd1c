#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes an authority and the certificates of the cluster in this folder, into ./certs:
#
#   make-certs.sh [DIRECTORY]        ca.pem; node-a.pem, node-b.pem, node-c.pem; client-root.pem; crl.pem
#   make-certs.sh client NAME [DIRECTORY]    one more certificate for a client, client-NAME.pem
#   make-certs.sh node NAME HOST [DIRECTORY] one more for a member that is dialled as HOST
#   make-certs.sh revoke FILE.pem [DIRECTORY]  a new crl.pem, in which FILE.pem is revoked
#
# For real clusters: keep the authority's key (ca-key.pem) on another machine, and one set of files for
# each node. Nothing that exists is overwritten but crl.pem.
set -eu
umask 077
action=all
case "${1:-}" in client | node | revoke) action=$1; shift ;; esac
case $action in
  all) directory=${1:-certs} ;;
  client) name=$1; directory=${2:-certs} ;;
  node) name=$1; host=$2; directory=${3:-certs} ;;
  revoke) file=$1; directory=${2:-certs} ;;
esac
mkdir -p "$directory"
cd "$directory"

cat > openssl.cnf <<'CONFIG'
[ca]
default_ca = this
[this]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca-key.pem
default_md = sha256
default_days = 365
default_crl_days = 30
policy = any
unique_subject = no
[any]
commonName = optional
CONFIG

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2> /dev/null; }

# issue STEM CN NAMES: STEM.pem and STEM-key.pem, for both ends of a connection.
issue() {
  [ -e "$1.pem" ] && return
  new_key "$1-key.pem"
  openssl req -new -key "$1-key.pem" -subj "/CN=$2" -out "$1.csr"
  {
    echo "basicConstraints = CA:FALSE"
    echo "extendedKeyUsage = serverAuth, clientAuth"
    [ -z "$3" ] || echo "subjectAltName = $3"
  } > "$1.ext"
  openssl ca -batch -notext -config openssl.cnf -in "$1.csr" -out "$1.pem" -extfile "$1.ext" 2> /dev/null
  rm "$1.csr" "$1.ext"
  echo "$directory/$1.pem"
}

list() { openssl ca -config openssl.cnf -gencrl -out crl.pem.new 2> /dev/null && mv crl.pem.new crl.pem; }

names_of() {
  case "$1" in *[!0-9.:]*) echo "DNS:$1" ;; *) echo "IP:$1" ;; esac
}

if [ ! -e ca.pem ]; then
  new_key ca-key.pem
  openssl req -x509 -new -key ca-key.pem -subj "/CN=keyway authority $(date +%Y-%m-%d)" -days 3650 \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.pem
  : > index.txt
  echo 1000 > serial
  echo 01 > crlnumber
  list
  echo "$directory/ca.pem"
fi

case $action in
  all)
    # A member's certificate must be for the host of its URL in [cluster.members].
    issue node-a node-a "IP:127.0.0.1, DNS:localhost"
    issue node-b node-b "IP:127.0.0.1, DNS:localhost"
    issue node-c node-c "IP:127.0.0.1, DNS:localhost"
    issue client-root root ""
    ;;
  client) issue "client-$name" "$name" "" ;;
  node) issue "node-$name" "$name" "$(names_of "$host")" ;;
  revoke)
    openssl ca -config openssl.cnf -revoke "$file" 2> /dev/null
    list
    echo "$directory/crl.pem"
    ;;
esac
