#!/bin/sh
# Makes the passwords that compose.yaml gives to its services, where there are none yet: files of variables, for the
# user who starts the containers alone.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
password() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
if [ ! -s secrets/postgres.env ]; then
    made=$(password)
    echo "PGPASSWORD=$made" > secrets/recsys.env
    echo "POSTGRES_PASSWORD=$made" > secrets/postgres.env
fi
[ -s secrets/grafana.env ] || echo "GF_SECURITY_ADMIN_PASSWORD=$(password)" > secrets/grafana.env
