#!/bin/sh
# Starts PostgreSQL on a volume, and makes the database there first where there is none. Arguments go to the server.
#
# PGDATA is where the database is; PASSWORD_FILE holds the password of the superuser `kappa`, set again at every start: the Secret is right,
# whatever the volume remembers. The server is reachable by TCP with that password only; inside the container, over its socket, without.
# A start that was killed half-way through leaves no half database: it is made under another name and moved.
set -eu

# One statement in a server of its own that nobody can reach.
alone() {
    echo "$2" | postgres --single -j -D "$1" postgres >/dev/null
}

umask 077
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    rm -rf "$PGDATA.new"
    initdb --pgdata "$PGDATA.new" --username kappa --encoding UTF8 --locale C.UTF-8 --data-checksums \
        --auth-local trust --auth-host scram-sha-256 >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA.new/pg_hba.conf"
    alone "$PGDATA.new" "CREATE DATABASE kappa"
    sync
    mv "$PGDATA.new" "$PGDATA"
fi
rm -f "$PGDATA/postmaster.pid" # of a server that was killed: this container is the volume's only user
alone "$PGDATA" "ALTER ROLE kappa PASSWORD '$(sed "s/'/''/g" "$PASSWORD_FILE")'"
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql "$@"
