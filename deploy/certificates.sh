#!/bin/sh
# The site's own certificate authority, and a certificate for each host (and for the door to Temporal) signed by it.
#
#   certificates.sh authority FOLDER             make FOLDER/authority.{pem,key}; refuses to replace one
#   certificates.sh host FOLDER NAME [ADDRESS]   make FOLDER/NAME/{host.pem,host.key,authority.pem}; renews an older one
#   certificates.sh check FOLDER NAME            verify that certificate: chain, name, key, days left
#
# NAME is the host's name in NovaCron and a DNS name: the peer checks it. ADDRESS adds an IP address for clients that dial
# one. Keys are EC P-256. DAYS (host, 397) and AUTHORITY_DAYS (3650) change the life times. Keep authority.key off the hosts.
set -eu
umask 077

usage() {
    sed -n '4,6s/^# *//p' "$0" >&2
    exit 2
}

fail() {
    echo "certificates: $*" >&2
    exit 1
}

authority() { # FOLDER
    [ ! -e "$1/authority.key" ] || fail "$1/authority.key exists: to start a new authority use another folder (see rotation)"
    mkdir -p "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256 -days "${AUTHORITY_DAYS:-3650}" \
        -subj "/O=NovaCron/CN=NovaCron authority $(date -u +%Y-%m-%d)" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$1/authority.key" -out "$1/authority.pem" 2>/dev/null || fail "openssl could not make the authority in $1"
    chmod 644 "$1/authority.pem"
    echo "certificates: authority in $1, until $(openssl x509 -in "$1/authority.pem" -noout -enddate | cut -d= -f2)"
}

host() { # FOLDER NAME [ADDRESS]
    case $2 in *[!A-Za-z0-9.-]* | -* | .*) fail "$2 is no DNS name: letters, digits, dots and dashes" ;; esac
    [ ${#2} -le 63 ] || fail "$2 is longer than 63 characters"
    [ -r "$1/authority.key" ] || fail "$1/authority.key cannot be read: make it with: $0 authority $1"
    new=$(mktemp -d "$1/.new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    {
        echo "basicConstraints=critical,CA:FALSE"
        echo "keyUsage=critical,digitalSignature"
        echo "extendedKeyUsage=serverAuth,clientAuth"
        echo "subjectKeyIdentifier=hash"
        echo "authorityKeyIdentifier=keyid"
        echo "subjectAltName=DNS:$2${3:+,IP:$3}"
    } >"$new/extensions"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/O=NovaCron/CN=$2" \
        -keyout "$new/host.key" -out "$new/request" 2>/dev/null || fail "openssl could not make a key for $2"
    openssl x509 -req -in "$new/request" -CA "$1/authority.pem" -CAkey "$1/authority.key" -sha256 \
        -set_serial "0x$(openssl rand -hex 16)" -days "${DAYS:-397}" -extfile "$new/extensions" -out "$new/host.pem" \
        2>/dev/null || fail "openssl could not sign the certificate of $2"
    cp "$1/authority.pem" "$new/authority.pem"
    chmod 644 "$new/host.pem" "$new/authority.pem"
    mkdir -p "$1/$2"
    mv "$new/host.key" "$new/host.pem" "$new/authority.pem" "$1/$2/"
    check "$1" "$2"
}

check() { # FOLDER NAME
    openssl verify -x509_strict -CAfile "$1/authority.pem" -verify_hostname "$2" "$1/$2/host.pem" >/dev/null ||
        fail "$1/$2/host.pem does not verify for the name $2: make it again with: $0 host $1 $2"
    [ "$(openssl x509 -in "$1/$2/host.pem" -noout -pubkey)" = "$(openssl pkey -in "$1/$2/host.key" -pubout)" ] ||
        fail "$1/$2/host.key is not the key of host.pem: make both again with: $0 host $1 $2"
    openssl x509 -in "$1/$2/host.pem" -noout -checkend 2592000 >/dev/null ||
        echo "certificates: $2 ends within 30 days: renew it with: $0 host $1 $2" >&2
    echo "certificates: $2 verifies, until $(openssl x509 -in "$1/$2/host.pem" -noout -enddate | cut -d= -f2)"
}

[ $# -ge 2 ] || usage
case $1:$# in
authority:2) authority "$2" ;;
host:3 | host:4) host "$2" "$3" "${4:-}" ;;
check:3) check "$2" "$3" ;;
*) usage ;;
esac
