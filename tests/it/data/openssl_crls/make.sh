#!/bin/sh
# Makes the authority, the certificate and the CRLs in this folder anew, with OpenSSL 3.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/ca.cnf" <<END
[ca]
default_ca = own
[own]
database = $work/index.txt
crlnumber = $work/crlnumber
serial = $work/serial
new_certs_dir = $work
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:mail.partner.example
authorityKeyIdentifier = keyid
crlDistributionPoints = ldap_point, http_point
[ldap_point]
fullname = URI:ldap:///CN=Partner%20CA?certificateRevocationList
[http_point]
fullname = URI:http://crl.partner.example/ca.crl
[plain]
authorityKeyIdentifier = keyid
[own_point]
authorityKeyIdentifier = keyid
issuingDistributionPoint = critical, @own_point_names
[own_point_names]
fullname = URI:http://crl.partner.example/ca.crl
onlyuser = TRUE
[delta]
authorityKeyIdentifier = keyid
2.5.29.27 = critical, DER:02:01:01
[indirect]
authorityKeyIdentifier = keyid
issuingDistributionPoint = critical, @indirect_names
[indirect_names]
indirectCRL = TRUE
[reasons]
authorityKeyIdentifier = keyid
issuingDistributionPoint = critical, @reasons_names
[reasons_names]
onlysomereasons = keyCompromise
END
: > "$work/index.txt"
echo 01 > "$work/crlnumber"
echo 4A01 > "$work/serial"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/ca.key" -out ca.pem -days 23000 \
    -subj "/CN=Partner CA" -config "$work/ca.cnf" -extensions root
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key \
    -out "$work/leaf.csr" -subj "/CN=mail.partner.example" -config "$work/ca.cnf"
openssl ca -batch -config "$work/ca.cnf" -keyfile "$work/ca.key" -cert ca.pem -in "$work/leaf.csr" \
    -out "$work/leaf.full" -startdate 20260101000000Z -enddate 20890101000000Z -extensions leaf
openssl x509 -in "$work/leaf.full" -out leaf.pem

# crl NAME SECTION LAST NEXT
crl() {
    openssl ca -gencrl -config "$work/ca.cnf" -keyfile "$work/ca.key" -cert ca.pem -out "$1" \
        ${2:+-crlexts "$2"} -crl_lastupdate "$3" -crl_nextupdate "$4"
}
crl none.crl plain 20260101000000Z 20890101000000Z
crl expired.crl plain 20260101000000Z 20260201000000Z
crl own_point.crl own_point 20260101000000Z 20890101000000Z
crl delta.crl delta 20260101000000Z 20890101000000Z
crl indirect.crl indirect 20260101000000Z 20890101000000Z
crl reasons.crl reasons 20260101000000Z 20890101000000Z
grep -v '^crlnumber' "$work/ca.cnf" > "$work/v1.cnf"
openssl ca -gencrl -config "$work/v1.cnf" -keyfile "$work/ca.key" -cert ca.pem -out v1.crl \
    -crl_lastupdate 20260101000000Z -crl_nextupdate 20890101000000Z
openssl ca -config "$work/ca.cnf" -keyfile "$work/ca.key" -cert ca.pem -revoke leaf.pem \
    -crl_reason keyCompromise
# The time of revocation is that of the command.
sed -i 's/^\(R\t[^\t]*\t\)[^,]*/\1260301000000Z/' "$work/index.txt"
# Others that are revoked, for some reasons.
for number in $(seq 1 200); do
    printf 'R\t890101000000Z\t260201000000Z,cessationOfOperation\t%06X\tunknown\t/CN=%s\n' "$number" "$number"
done >> "$work/index.txt"
crl revoked.crl plain 20260401000000Z 20890101000000Z
crl revoked_expired.crl plain 20260401000000Z 20260501000000Z
openssl crl -in revoked.crl -outform DER -out revoked.der
