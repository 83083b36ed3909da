#!/bin/sh
# A line worker: for each line on stdin, the name of a file, one line on stdout, how many lines it has.
#
#   procpool map --lines -- sh examples/lines/count.sh ::: README.md go.mod
while IFS= read -r name; do
	wc -l <"$name" || exit
done
