# Rules of the house, one file at a time: awk -v path=<from the root> -f check.awk FILE
# Prints "path:line: what is wrong" for each violation; the caller counts them.

function complain(line, text)
{
    print path ":" line ": " text
}

# The line without comments and without the insides of strings and character constants.
function strip(text,    out, i, c, two)
{
    out = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        two = substr(text, i, 2)
        if (in_comment) {
            if (two == "*/") {
                in_comment = 0
                i++
            }
        } else if (two == "/*") {
            in_comment = 1
            i++
        } else if (two == "//") {
            break
        } else if (c == "\"" || c == "'") {
            out = out c
            for (i++; i <= length(text) && substr(text, i, 1) != c; i++) {
                if (substr(text, i, 1) == "\\") {
                    i++
                }
            }
            out = out c
        } else {
            out = out c
        }
    }
    return out
}

# Whether one of the functions in `names` (a|b|c) is called; members (x.open, x->open) are not meant.
function calls(code, names)
{
    return match(code, "(^|[^A-Za-z0-9_>.])(" names ")[ \t]*\\(")
}

function called(code)
{
    code = substr(code, RSTART, RLENGTH)
    gsub(/[^A-Za-z0-9_]/, "", code)
    return code
}

# Position of an engine room in the order of the arrows; 0: not a room.
function room_order(name,    rooms, count, i)
{
    count = split("base memory comm data model optimizer activation method recipe train run", rooms, " ")
    for (i = 1; i <= count; i++) {
        if (rooms[i] == name) {
            return i
        }
    }
    return 0
}

function check_include(line, text,    target, parts, other, mine)
{
    if (text ~ /[<"](ncurses|curses|ncursesw\/|panel|menu|term)(\.h|[a-z_]*\.h)/ && path != "app/term.c" &&
        text ~ /curses|panel|menu|<term\.h/) {
        complain(line, "ncurses belongs to app/term.c alone")
    }
    if (text !~ /"/) {
        return
    }
    target = text
    sub(/^[^"]*"/, "", target)
    sub(/".*$/, "", target)
    split(target, parts, "/")
    if (layer != "app" && layer != "tests" && parts[1] == "app") {
        complain(line, layer " may not include app: " target)
    }
    if (layer == "app" && parts[1] == "engine" && parts[3] != "" && parts[2] != "base") {
        complain(line, "the rooms of the engine are private; app includes engine/*.h: " target)
    }
    if ((layer == "kernels" || layer == "tokenizer") && parts[1] != layer && parts[1] != "app") {
        complain(line, layer " may include only itself and its libraries: " target)
    }
    if (layer == "engine" && parts[1] == "engine") {
        mine = room_order(room)
        other = room_order(parts[2])
        if (mine > 0 && other > mine) {
            complain(line, "engine/" room " may not include a room below it: " target)
        }
    }
}

BEGIN {
    split(path, place, "/")
    layer = place[1]
    room = place[2]
    clock_free = layer == "tests" || path == "engine/base/clock.c" ||
                 path == "kernels/call.c" || # times operations; kernels include nothing of the engine
                 path == "engine/run/server.c" # deadlines that the C library compares with its own clock
    file_free = layer == "tests" || path == "engine/base/file.c" || path == "app/term.c" ||
                path ~ /^engine\/run\/(control|socket|server)/ || # sockets are no files
                path == "engine/run/telemetry.c" # /proc is not worth failing
}

{
    # Quoted names of includes are needed whole, so they are looked at before strings are emptied.
    if (!in_comment && $0 ~ /^[ \t]*#[ \t]*include/) {
        check_include(FNR, $0)
    }
    code = strip($0)
    if (calls(code, "strcpy|strcat|sprintf|vsprintf|strtok|gets|atoi|atol|atof")) {
        complain(FNR, "banned function " called(code))
    }
    if (!clock_free && calls(code, "time|clock_gettime|gettimeofday")) {
        complain(FNR, called(code) ": clocks are read through engine/base/clock.h")
    }
    if (!file_free && calls(code, "open|openat|creat|fopen|rename|fsync|fdatasync")) {
        complain(FNR, called(code) ": files are touched through engine/base/file.h")
    }
    # A function's braces stand alone in the first column.
    if (code ~ /^\{[ \t]*$/) {
        function_start = FNR
    } else if (code ~ /^\}[ \t]*$/ && function_start > 0) {
        if (FNR - function_start + 1 > 100) {
            complain(function_start, "function of " FNR - function_start + 1 " lines (at most 100)")
        }
        function_start = 0
    }
}

END {
    if (FNR > 600) {
        complain(FNR, "file of " FNR " lines (at most 600)")
    }
}
