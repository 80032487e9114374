# shellcheck shell=bash
# What the builders of images share: Debian's packages as this machine gets them, and the cache.
# To be sourced; expects `work`, a scratch folder in the cache, when a tree is made.

cache=${ETSCLONE_CACHE:-${XDG_CACHE_HOME:-/var/cache}/etsclone}
suite=bookworm

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() { say "$*"; exit 1; }

# Where this machine gets Debian's packages from, as one-line sources; whichever files say so.
sources() {
    # shellcheck disable=SC2016  # the $(...) are apt's own fields
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | grep -E " $suite(-updates|-security)? " | sort -u
}

# How this machine reaches them: proxies, certificates, mirrors with old signatures.
transport() {
    apt-config dump | grep -E '^Acquire::(https?|Check-|Retries|ForceIPv)' || true
}

# The first argument is the result (a tar file, or a folder), the second its format; the words on stdin are packages.
#
# No initramfs (INITRD=No): it belongs to the disk. Identity and the traces of this machine's apt go: the tree is the
# same for every system made from it.
make_tree() {
    local result=$1 format=$2
    [[ -n $(sources || true) ]] || apt-get -qq update >&2
    sources > "$work/sources.list" || die "this machine's apt has no packages of Debian $suite"
    transport > "$work/transport.conf"
    # shellcheck disable=SC2016  # "$1" is for the hooks' own shell
    INITRD=No mmdebstrap --quiet --mode=root --format="$format" --variant=minbase --architectures=amd64 \
        --aptopt="$work/transport.conf" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='force-unsafe-io' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --include="$(tr -s ' \n' ',,')" \
        --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf' \
        --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
        "$suite" "$result" "$work/sources.list" >&2
}

digest() { sha256sum | cut -c1-16; }

# Written aside, flushed, renamed: what has its name is whole.
finish() {
    sync "$1"
    mv "$1" "$2"
}
