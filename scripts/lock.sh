#!/bin/sh
# Writes lock/: requirements with the SHA-256 of every file that may be installed. Versions are those of constraints.txt.
#
# client.txt and server.txt are what the client and a server need; torch.txt is torch, as the package index has it, with
# what its CUDA build brings along. Who takes a CPU build of torch from an index of its own leaves that one out.
set -eu
cd "$(dirname "$0")/.."

. scripts/tools.sh
tool uv uv==0.13.9
mkdir -p lock

# A file is asked for by its hash: where it comes from does not matter, so no index is written down.
compile() {
    "$tools/bin/uv" pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint constraints.txt pyproject.toml "$@"
}

# A requirement is a line and those below it that are indented.
keep() {
    out=$1
    shift
    echo "# Written by scripts/lock.sh: pip install --require-hashes --no-deps -r $out" >"$out"
    awk "$@" >>"$out"
    echo "$out: $(grep -c == "$out") packages"
}

family='^(torch|triton|nvidia-[^=]*|cuda-[^=]*)=='
compile >build/client.lock
compile --extra engine --extra serve --extra pg >build/server.lock
keep lock/client.txt '{ print }' build/client.lock
keep lock/server.txt -v "family=$family" '/^[^ ]/ { wanted = $0 !~ family } wanted' build/server.lock
keep lock/torch.txt -v "family=$family" '/^[^ ]/ { wanted = $0 ~ family } wanted' build/server.lock
