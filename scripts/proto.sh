#!/bin/sh
# Regenerates recsys/v1 from proto/, formats and checks the API.
#
#   scripts/proto.sh            format, lint, generate, check against the released baseline
#   scripts/proto.sh baseline   the same, then freeze the present API as the new baseline (at a release)
#
# The generator lives in an environment of its own: generated code demands at least the protobuf and grpcio it was made
# with, so an old generator keeps it usable for everybody, while it would hold back the project's own protobuf.
set -eu
cd "$(dirname "$0")/.."

python="${PYTHON:-.venv/bin/python}"
buf="${BUF:-.venv/bin/buf}"
generator=build/proto-venv
baseline=proto/recsys.v1.binpb

if [ ! -f "$generator/.ready-1.76.0-5.1.0" ]; then
    "$python" -m venv --clear "$generator"
    "$generator/bin/python" -m pip install --quiet --disable-pip-version-check \
        grpcio-tools==1.76.0 mypy-protobuf==5.1.0
    touch "$generator/.ready-1.76.0-5.1.0"
fi

"$buf" format -w proto
"$buf" lint proto

rm -f recsys/v1/*_pb2*.py recsys/v1/*_pb2*.pyi
PATH="$PWD/$generator/bin:$PATH" "$generator/bin/python" -m grpc_tools.protoc -I proto -I third_party \
    --python_out=. --pyi_out=. --grpc_python_out=. --mypy_grpc_out=. proto/recsys/v1/*.proto
[ -f recsys/v1/__init__.py ] || : > recsys/v1/__init__.py

# What Envoy reads to translate JSON; the details of errors are part of it.
common=$("$python" -c 'import google.rpc, pathlib; print(pathlib.Path(list(google.rpc.__path__)[0]).parents[1])')
"$generator/bin/python" -m grpc_tools.protoc -I proto -I third_party -I "$common" --include_imports \
    --descriptor_set_out=deploy/recsys.v1.pb proto/recsys/v1/*.proto \
    google/rpc/error_details.proto google/rpc/status.proto

# An API change that breaks clients of v1 fails here.
if [ "${1:-}" = baseline ] || [ ! -f "$baseline" ]; then
    [ ! -f "$baseline" ] || "$buf" breaking proto --against "$baseline"
    "$buf" build proto --exclude-source-info -o "$baseline"
else
    "$buf" breaking proto --against "$baseline"
fi
