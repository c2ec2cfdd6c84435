#!/bin/sh
# Create the namespace and its search attributes, or bring them up to date. Safe to run again at any time: what is right
# already is left alone, and an attribute of another type is an error, because Temporal cannot change a type.
set -eu

: "${TEMPORAL_ADDRESS:?TEMPORAL_ADDRESS is not set: HOST:PORT of the Temporal frontend}"
: "${TEMPORAL_NAMESPACE:?TEMPORAL_NAMESPACE is not set: the namespace to prepare}"
: "${RETENTION:?RETENTION is not set: how long closed workflows are kept, such as 30d}"
: "${SEARCH_ATTRIBUTES:?SEARCH_ATTRIBUTES is not set: Name=Type, separated by spaces}"
tries=${TRIES:-60}
pause=${PAUSE:-2}

until_done() { # WHAT COMMAND...: tries a bounded number of times; shows the last error when it gives up
    what=$1
    shift
    try=1
    until error=$("$@" 2>&1); do
        if [ "$try" -ge "$tries" ]; then
            echo "namespace: gave up after $try tries to $what at $TEMPORAL_ADDRESS: $error" >&2
            exit 1
        fi
        try=$((try + 1))
        sleep "$pause"
    done
    echo "namespace: $what: done"
}

namespace() {
    if temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1; then
        temporal operator namespace update --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
    else
        temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION" \
            --description "NovaCron: live migration of virtual machines"
    fi
}

type_of() { # NAME: prints the registered type, or nothing
    temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE" | awk -v name="$1" '$1 == name { print $2 }'
}

attribute() { # NAME TYPE
    found=$(type_of "$1") || return 1
    [ "$found" = "$2" ] || temporal operator search-attribute create \
        --namespace "$TEMPORAL_NAMESPACE" --name "$1" --type "$2"
}

until_done "reach the server" temporal operator cluster health
until_done "prepare namespace $TEMPORAL_NAMESPACE with retention $RETENTION" namespace
# A new namespace reaches every cache of the server within about ten seconds; until then this answers "not found".
until_done "read the search attributes" temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE"
for pair in $SEARCH_ATTRIBUTES; do
    name=${pair%%=*}
    type=${pair#*=}
    found=$(type_of "$name")
    if [ -n "$found" ] && [ "$found" != "$type" ]; then
        echo "namespace: search attribute $name of $TEMPORAL_NAMESPACE has type $found, NovaCron needs $type." \
            "Remove it (temporal operator search-attribute remove --name $name) or use another namespace." >&2
        exit 1
    fi
    until_done "register search attribute $name as $type" attribute "$name" "$type"
done
