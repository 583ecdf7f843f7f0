# What the journeys share: a tmux server of their own, keys in, screens out. Every wait is for a
# state of the screen, never for an amount of time. Source it; $1 is the program, $2 the presets.
set -u
command -v tmux >/dev/null 2>&1 || exit 77
program=$1
# A build that goes on beside replaces the file; the journey stays with the one it began with.
pinned=$(dirname "$1")/.journey-$$
if ln "$1" "$pinned" 2>/dev/null; then
    program=$pinned
fi
export WINDROW_PRESETS="$2"
work=$(mktemp -d)
export TMUX_TMPDIR="$work" XDG_STATE_HOME="$work/state" XDG_CONFIG_HOME="$work/config"
export XDG_CACHE_HOME="$work/cache" XDG_RUNTIME_DIR="$work" HOME="$work" LC_ALL=C.UTF-8
export OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0
unset TMUX NO_COLOR WINDROW_TORTURE
printf '%s\n' 'set -g status off' 'set -g escape-time 0' 'set -g remain-on-exit on' \
    'set -g default-terminal screen-256color' >"$work/tmux.conf"
cd "$work" || exit 1

t() { tmux -L journey -f "$work/tmux.conf" "$@"; }
screen() { t capture-pane -p -t journey; }

stop_all() {
    for run in "$XDG_STATE_HOME"/windrow/runs/*; do
        "$program" stop "$run" >/dev/null 2>&1
    done
}

leave() {
    stop_all
    t kill-server 2>/dev/null
    rm -rf "$work" "$pinned"
}
trap leave EXIT
trap 'exit 1' INT TERM

# begin COLUMNS LINES WORDS: the program with these words on a screen of that size.
begin() {
    columns=$1 lines=$2
    shift 2
    t kill-server 2>/dev/null
    rm -f "$work/code"
    # The shell keeps the exit code: tmux does not always know it.
    t new-session -d -s journey -x "$columns" -y "$lines" "$program $*; echo \$? >$work/code"
}

die() {
    echo "journey: $1; the screen is:"
    screen
    exit 1
}

# see TEXT [TRIES]: waits for it, two minutes at most (sanitizers are slow, and builds beside them).
see() {
    tries=${2:-1200}
    until screen | grep -qF -- "$1"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "never saw \"$1\""
        sleep .1
    done
}

press() { t send-keys -t journey "$@"; }
# say TEXT: types it as it is.
say() { t send-keys -t journey -l -- "$1"; }

# told TEXT: waits until a run has written an event with it. Where events follow each other quickly
# a line of the log may have scrolled away before anybody looks.
told() {
    tries=1200
    until grep -qF -- "$1" "$XDG_STATE_HOME"/windrow/runs/*/events.jsonl 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "no event tells $1"
        sleep .1
    done
}

# ended CODE: the program is gone with that exit code.
ended() {
    tries=1200
    until [ -s "$work/code" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "it did not end"
        sleep .1
    done
    code=$(cat "$work/code")
    [ "$code" = "$1" ] || die "it ended with $code instead of $1"
}

# A model of a few thousand weights on short rows: steps of milliseconds.
small="model.preset=llama-micro data.sequence_length=16 batch.micro=1 method.rank=8 \
method.interval=5 train.eval_every=0 train.sample_every=0 train.save_every=0 train.export=false"

# train NAME WORDS: trains that without a screen.
train() {
    name=$1
    shift
    # shellcheck disable=SC2086
    "$program" train stories $small --run-dir "$XDG_STATE_HOME/windrow/runs/$name" "$@" \
        >"$work/$name.out" 2>&1 || {
        cat "$work/$name.out"
        exit 1
    }
}
