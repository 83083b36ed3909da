# A line worker: for each line on stdin, the name of a file, one line on stdout, how many lines it has.
#
#   procpool map --lines -- gawk -f examples/lines/count.awk ::: README.md go.mod
#
# mawk, which is awk on Debian and Ubuntu, waits until its input buffer is full, unless it is told: mawk -W interactive -f …
{
	n = 0
	while ((status = (getline line < $0)) > 0) n++
	if (status < 0) exit 1 # it cannot be read: the item fails, and the next one has another awk
	close($0)
	print n
	fflush()
}
