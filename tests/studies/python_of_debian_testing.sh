#!/usr/bin/env bash
# Run the unit suite once with the Python of Debian's next release. Not part of CI.
#
#     tests/studies/python_of_debian_testing.sh [ARGUMENTS OF PYTEST]
#
# debootstrap installs that release into a temporary folder, which is removed at the end; the last
# commit of the checkout is tested there. Needs Linux, root, debootstrap, git, the network, and
# about 10 GB in TMPDIR. MIRROR is Debian's mirror, where it is not debootstrap's default; variables
# such as PIP_INDEX_URL are passed on, and the file of PIP_CERT or SSL_CERT_FILE is copied.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" = 0 ] || { echo "$0: only root may use chroot: run it as root" >&2; exit 2; }
for program in debootstrap git pkill unshare; do
    command -v "$program" >/dev/null || { echo "$0: no $program: install it" >&2; exit 2; }
done

inside() {
    debootstrap --variant=minbase --include=ca-certificates,git,python3-venv \
        testing "$root" ${MIRROR:+"$MIRROR"}
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev" # shared memory, for processes that read images
    for file in "${PIP_CERT-}" "${SSL_CERT_FILE-}"; do
        [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
    done
    git clone --quiet "$checkout" "$root/checkout"
    chroot "$root" env -u TMPDIR python3 -m venv /venv
    chroot "$root" env -u TMPDIR /venv/bin/pip install --quiet -e "/checkout[test]"
    chroot "$root" env -u TMPDIR --chdir /checkout /venv/bin/pytest -n 2 -m "not slow" "$@"
}

root=$(mktemp -d)
export root checkout
export -f inside
# mounts and processes of its own namespaces end with its first process: only files are left
unshare --mount --pid --fork bash -euo pipefail -c 'inside "$@"' inside "$@" &
job=$!
trap 'pkill -KILL --parent "$job" || true; wait "$job" || true; rm -rf --one-file-system "$root"' EXIT
wait "$job"
