#!/bin/sh
# Does check.sh find what it should? Each rule is broken once in a small tree of its own, and a tree
# that comes close to breaking them must pass.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
failures=0

# expect <found|clean> <file> <words of the complaint>: the text of the file comes from stdin
expect()
{
    rm -rf "$work/tree"
    mkdir -p "$work/tree/$(dirname "$2")"
    cat >"$work/tree/$2"
    output=$(sh "$here/check.sh" "$work/tree" 2>&1)
    status=$?
    if [ "$1" = clean ]; then
        [ $status -eq 0 ] && return
    else
        [ $status -eq 1 ] && printf '%s' "$output" | grep -q -- "$3" && return
    fi
    echo "expected $1 in $2 ($3), got status $status:"
    printf '%s\n' "$output"
    failures=$((failures + 1))
}

long_function()
{
    echo "static void f(void)"
    echo "{"
    awk "BEGIN { for (i = 0; i < $1; i++) print \"    g();\" }"
    echo "}"
}

awk 'BEGIN { for (i = 0; i < 601; i++) print "int x" i ";" }' | expect found app/a.c "file of 601"
awk 'BEGIN { for (i = 0; i < 600; i++) print "int x" i ";" }' | expect clean app/a.c ""
long_function 99 | expect found engine/base/a.c "function of 101"
long_function 98 | expect clean engine/base/a.c ""
for name in strcpy strcat sprintf strtok gets atoi atof; do
    echo "    x = $name(a);" | expect found kernels/a.c "banned function $name"
done
echo '#include <ncurses.h>' | expect found app/screen/a.c "app/term.c alone"
echo '#include <ncursesw/curses.h>' | expect found app/screen/a.c "app/term.c alone"
echo '#include <ncurses.h>' | expect clean app/term.c ""
echo '#include "app/term.h"' | expect clean app/screen/a.c ""
echo '#include "engine/base/error.h"' | expect found kernels/cpu/a.c "only itself"
echo '#include "app/term.h"' | expect found tokenizer/a.c "may not include app"
echo '#include "app/term.h"' | expect found engine/run/a.c "may not include app"
echo '#include "engine/train/trainer.h"' | expect found engine/model/a.c "room below"
echo '#include "engine/train/trainer.h"' | expect found app/a.c "rooms of the engine are private"
echo '#include "engine/plan.h"' | expect clean app/a.c ""
echo '#include "engine/model/model.h"' | expect clean engine/train/a.c ""
echo '    now = time(NULL);' | expect found app/a.c "engine/base/clock.h"
echo '    clock_gettime(CLOCK_REALTIME, &now);' | expect found engine/run/a.c "engine/base/clock.h"
echo '    clock_gettime(CLOCK_REALTIME, &now);' | expect clean engine/base/clock.c ""
echo '    fd = open(path, 0);' | expect found engine/run/a.c "engine/base/file.h"
echo '    rename(a, b);' | expect found app/a.c "engine/base/file.h"
echo '    fsync(fd);' | expect found engine/data/a.c "engine/base/file.h"
echo '    fd = file_ops()->open(path, 0, 0);' | expect clean engine/run/a.c ""
expect clean app/a.c "" <<'C'
/* strcpy(a, b) is banned, */ // and so is strcat(a, b)
const char *text = "time(NULL) /* and open(path) \" sprintf(";
    snprintf(a, sizeof a, "x");
    trainer_open(&options, err);
C

if [ $failures -ne 0 ]; then
    echo "$failures rules are not enforced"
    exit 1
fi
echo "every rule is enforced"
