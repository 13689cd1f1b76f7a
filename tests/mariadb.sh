#!/usr/bin/env bash
# Runs the tests that need a Tango database against MariaDB and Debian's DataBaseds instead of PyTango's SQLite:
#
#     apt-get install --no-install-recommends mariadb-server tango-db dbconfig-no-thanks    # once
#     tests/mariadb.sh [arguments of pytest]
#
# MariaDB runs in a temporary folder, on a socket of its own and a port of this machine that nobody else sees; what the
# packages have set up system-wide is neither used nor changed. Nothing is left afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

DATABASEDS=/usr/lib/tango/DataBaseds
SCHEMA=/usr/share/dbconfig-common/data/tango-db/install/mysql
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
for need in "$DATABASEDS" "$SCHEMA" "$(command -v mariadb-install-db || true)" /usr/sbin/mariadbd; do
  [ -e "$need" ] || { echo "tests/mariadb.sh: found no ${need:-mariadb-install-db}; install the packages named at its top" >&2; exit 2; }
done

folder=$(mktemp -d)
chmod 711 "$folder"
mkdir "$folder/data"
owner=$(id -un)
[ "$(id -u)" != 0 ] || { owner=mysql; chown mysql "$folder/data"; }  # MariaDB does not run as root
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$folder"
}
trap finish EXIT

mariadb-install-db --no-defaults --user="$owner" --datadir="$folder/data" --auth-root-authentication-method=normal \
  --skip-test-db >"$folder/install.log" 2>&1 || { cat "$folder/install.log" >&2; exit 1; }
port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
/usr/sbin/mariadbd --no-defaults --user="$owner" --datadir="$folder/data" --socket="$folder/data/socket" \
  --bind-address=127.0.0.1 --port="$port" --pid-file="$folder/data/pid" >"$folder/mariadb.log" 2>&1 &
server=$!
client=(mariadb --no-defaults --socket="$folder/data/socket" --user=root)
for _ in $(seq 300); do
  "${client[@]}" -e 'SELECT 1' >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || { cat "$folder/mariadb.log" >&2; exit 1; }
  sleep 0.1
done
"${client[@]}" -e "CREATE DATABASE tango; CREATE USER tango@localhost IDENTIFIED BY 'tango';
  CREATE USER tango@127.0.0.1 IDENTIFIED BY 'tango';
  GRANT ALL ON tango.* TO tango@localhost; GRANT ALL ON tango.* TO tango@127.0.0.1;"
"${client[@]}" tango <"$SCHEMA"

"${client[@]}" -N -e 'SELECT CONCAT("MariaDB ", VERSION())'

export MYSQL_HOST=127.0.0.1:$port MYSQL_USER=tango MYSQL_PASSWORD=tango MYSQL_DATABASE=tango
export PETIF_TEST_DATABASEDS=$DATABASEDS HOME=${HOME:-$folder}
[ $# -gt 0 ] || set -- tests/system/test_database.py tests/system/test_server.py -k "test_database or database"
"$PYTHON" -m pytest "$@"

unset MYSQL_HOST
"${client[@]}" -N tango -e 'SELECT CONCAT(COUNT(*), " changes of properties went through MariaDB") FROM property_device_hist'
