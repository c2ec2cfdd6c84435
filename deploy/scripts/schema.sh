#!/bin/sh
# Create or bring up to date both databases of Temporal. Runs before every start and changes nothing when there is nothing
# to do: create ignores an existing database, setup-schema keeps a version above 0.0, update-schema applies what is missing.
# Connection settings reach temporal-sql-tool by its own variables, so that no password stands in a process list.
set -eu

: "${SQL_PLUGIN:?SQL_PLUGIN is not set: the plugin name, postgres12}"
: "${SQL_HOST:?SQL_HOST is not set: the host name of PostgreSQL}"
: "${SQL_USER:?SQL_USER is not set: the role that owns the databases}"
: "${SQL_PASSWORD:?SQL_PASSWORD is not set: the password of that role}"
schema=${SCHEMA_DIR:-/etc/temporal/schema/postgresql/v12}

prepare() { # DATABASE FOLDER
    echo "schema: $1: create if absent, then apply every version that is missing"
    SQL_DATABASE=$1
    export SQL_DATABASE
    temporal-sql-tool create
    temporal-sql-tool setup-schema -v 0.0
    temporal-sql-tool update-schema -d "$schema/$2/versioned"
}

prepare temporal temporal
prepare temporal_visibility visibility
echo "schema: both databases are current"
