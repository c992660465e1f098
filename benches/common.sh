# What the scripts beside it share; sourced, not run.

# The value of a key in a pretty-printed JSON file: FILE, KEY, which of several.
field() {
    sed -nE "s/^ *\"$2\": *\"?([^\"\[{]*[^\"\[{,])\"?,?\$/\1/p" "$1" | sed -n "${3:-1}p"
}

# Sets `models` to all shipped models. BINARY
all_models() {
    local listing
    listing=$("$1" models --json -)
    mapfile -t models < <(sed -nE 's/^ *"name": *"(.*)",?$/\1/p' <<<"$listing")
}
