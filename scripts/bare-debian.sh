#!/bin/sh
# Proves that a newcomer's two commands work on a Debian 12 that has nothing but python3.
#
#   scripts/bare-debian.sh                     ./run quickstart and ./run test, timed
#   scripts/bare-debian.sh setup quickstart    other commands of ./run, in this order
#
# Needs root, a Debian-like host and about 5 GB under TMPDIR. The committed tree is tried, not the working one. How the
# caller reaches the network is passed on: PIP_* and proxy variables, pip's configuration, certificates, and local
# directories that pip is told to look in (read-only). DEBIAN_MIRROR names another mirror than debootstrap's own.
#
# All mounts live in a mount namespace of their own and vanish with it; the outer shell never sees them, so what it
# deletes in the end is only what it made.
set -eu
cd "$(dirname "$0")/.."

outside() {
    [ "$(id -u)" = 0 ] || { echo "$0 needs root: it makes a chroot" >&2; exit 3; }
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -qq -y debootstrap >/dev/null; }
    work=$(mktemp -d)
    trap 'rm -rf --one-file-system "$work"' EXIT
    trap 'exit 130' INT TERM
    echo "== a bare Debian 12 in $work"
    debootstrap --variant=minbase --include=python3,ca-certificates bookworm "$work/root" ${DEBIAN_MIRROR:-} >"$work/log" ||
        { tail -n 20 "$work/log" >&2; exit 4; }
    mkdir "$work/root/longrec"
    git archive HEAD | tar -x -C "$work/root/longrec"
    pass_on_network "$work/root"
    unshare --mount --propagation private "$0" --inside "$work/root" "$@"
}

# --- how the caller reaches the network ----------------------------------------------------------------------------

pass_on_network() {
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
    grep -hs '^Acquire::.*;$' /etc/apt/apt.conf.d/* /etc/apt/apt.conf >"$1/etc/apt/apt.conf.d/99caller" || true
    for file in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" "${PIP_CONFIG_FILE:-}" $(certificates); do
        [ -f "$file" ] || continue
        mkdir -p "$1$(dirname "$file")"
        cp -L "$file" "$1$file"
    done
}

certificates() {
    echo /etc/ssl/certs/ca-certificates.crt "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}"
}

# Directories on this machine that pip takes packages from: --find-links, or an index behind file://. An index page
# may point to files beside the index, so its parent comes along.
pip_directories() {
    words="${PIP_FIND_LINKS:-} ${PIP_INDEX_URL:-} ${PIP_EXTRA_INDEX_URL:-} ${LONGREC_TORCH_INDEX:-}"
    words="$words $(cat /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" 2>/dev/null | tr '=' ' ')"
    for word in $words; do
        case $word in
            file:///*) directory=$(dirname "${word#file://}") ;;
            /*) directory=$word ;;
            *) continue ;;
        esac
        [ ! -d "$directory" ] || [ "$(dirname "$directory")" = "$directory" ] || echo "$directory"
    done | sort -u
}

# --- inside the namespace ------------------------------------------------------------------------------------------

inside() {
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    for directory in $(pip_directories); do
        mkdir -p "$root$directory"
        mount --bind "$directory" "$root$directory"
        mount -o remount,ro,bind "$root$directory"
    done
    for command in "$@"; do
        echo "== ./run $command"
        start_s=$(date +%s)
        env -i HOME="$HOME" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 $(settings) \
            chroot "$root" sh -c 'cd /longrec && exec ./run "$1"' sh "$command"
        echo "== ./run $command took $(($(date +%s) - start_s)) s"
    done
}

# Variables without blanks in their values: what follows is split into words.
settings() {
    env | grep -E '^(PIP_|LONGREC_|SSL_CERT_|REQUESTS_CA_BUNDLE=|[a-zA-Z]+_(proxy|PROXY)=)[^ ]*$' || true
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
else
    [ $# -gt 0 ] || set -- quickstart test
    outside "$@"
fi
