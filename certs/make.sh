#!/bin/sh
# Makes the certificates of the sample configuration.
#
# NOT FOR PRODUCTION. The keys that this makes lie in a public repository: whoever can read this can
# pretend to be them. They are valid for twenty years, so that a fresh clone works for long.
#
#   ca.pem                     a certificate authority for trying things out; its key is thrown away
#   relay.pem, relay.key       what the sample relay shows (relay.example.com, mx.example.com, localhost)
#   partner.pem, partner.key   what the sample partner domain-c.com shows (mail.domain-c.com)
#
# Running it again replaces them all. Needs openssl 3.
set -eu
umask 077
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

days=7305
new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

new_key "$work/ca.key"
openssl req -x509 -new -key "$work/ca.key" -days "$days" -out ca.pem \
    -subj "/O=Gatepost/CN=Gatepost development CA, not for production" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"

# new_leaf FILE COMMON-NAME SUBJECT-ALTERNATIVE-NAMES
new_leaf() {
    new_key "$1.key"
    cat > "$work/extensions" <<END
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
subjectAltName = $3
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END
    openssl req -new -key "$1.key" -subj "/O=Gatepost, not for production/CN=$2" -out "$work/request"
    openssl x509 -req -in "$work/request" -CA ca.pem -CAkey "$work/ca.key" -days "$days" \
        -extfile "$work/extensions" -out "$1.pem" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
    openssl verify -CAfile ca.pem "$1.pem"
}

new_leaf relay relay.example.com "DNS:relay.example.com,DNS:mx.example.com,DNS:localhost"
new_leaf partner mail.domain-c.com "DNS:mail.domain-c.com"
chmod 644 ./*.pem
chmod 600 ./*.key
