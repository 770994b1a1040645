#!/bin/sh
# Doubles whole numbers: one JSON message per line, in plain POSIX sh. Start it with `run.py sh`.
# An answer without "id" is the answer to the oldest item, so nothing but the value is looked for.
echo '{"kind":"ready"}'
while read -r line; do
  case $line in
    *'"kind":"item"'*'"value":'*) ;;
    *) continue ;;
  esac
  value=${line##*\"value\":}
  value=${value%\}}
  echo "doubling $value" >&2 # stderr: it appears in the parent's terminal
  case ${value#-} in
    '' | *[!0-9]*) echo '{"kind":"error","type":"TypeError","message":"no whole number"}' ;;
    *) echo "{\"kind\":\"result\",\"value\":$((value * 2))}" ;;
  esac
done
