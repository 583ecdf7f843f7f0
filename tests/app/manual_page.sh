#!/bin/sh
# The manual page that a build leaves beside the program: the whole of what the program prints.
#
#   manual_page.sh WINDROW
set -u
windrow=$1
page=$(dirname "$windrow")/windrow.1
bad() {
    echo "FAILED: $*"
    exit 1
}
[ -e "$page" ] || bad "the build has left no $page (target: manual)"
[ -s "$page" ] || bad "$page is empty"
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT
"$windrow" help --man >"$printed" || bad "windrow help --man failed"
cmp "$printed" "$page" || bad "$page is not what windrow help --man prints"
grep -q '^\.TH WINDROW 1' "$page" || bad "$page is no manual page"
echo "ok: $(wc -l <"$page") lines"
