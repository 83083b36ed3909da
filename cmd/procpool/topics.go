package main

import "github.com/spf13/cobra"

// newTopics are the pages of `procpool help` that are no commands.
func newTopics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "items", Short: "What map runs a command for, and how the command gets it", Long: itemsTopic},
		{Use: "map-output", Short: "What map writes, and its exit status", Long: outputTopic},
		{Use: "map-control", Short: "How many commands map runs, when, how often and how long", Long: controlTopic},
	}
}

const itemsTopic = `Items of procpool map follow ":::", or come from a file (-a) or stdin, one per line. Nothing is quoted or trimmed; empty lines are skipped. With -0
they end with NUL, with -d with a byte of your choice; then empty ones count. There is one list of items.

In the command

  {}  is the item             {/}  its last element      {#}  its number, from 1
  {.} without extension       {//} its directory         {%}  the slot that runs it, from 1
  {/.} its last element without extension                {1}  with -n: the first item of the command, and so on

Without any of these, the item is appended. No shell reads the command, and an item is one argument whatever it contains. If you want a shell, let it
read the script and not the item:  procpool map -- sh -c 'wc -m <"$1" | tr -d " "' _ {}

-n N gives a command up to N items: an argument for each where {} stands alone, else with spaces between them.

With --pipe, stdin (or -a) is cut into blocks, and each command reads one: as many whole records as fit into --block (1M), or the first one if none
does; or exactly -n records. A record ends with a newline, with NUL (-0) or with what --recend says, and begins with what --recstart says; with both, it
ends between them; with --recend '' anywhere. \n, \t, \r, \0 and \\ are understood. No byte is lost or added. Without --pipe
commands read nothing.

With --pool and --func, items that are valid JSON are passed as that, others as JSON strings, and each result is a line of JSON. A function with
another encoding gets and gives bytes as they are.`

const outputTopic = `What a command writes appears when it has ended, in one block that nothing mixes with: to stdout and stderr as it wrote it. Output that is long is
kept in a file without a name ($TMPDIR), not in memory.

  -k              in the order of the items
  --tag           each line after its item and a tab
  --line-buffer   line by line, as it comes; -u: as it comes
  --json          an object per item: index, item, outcome, exit_code, signal, stdout, stderr, seconds, worker, attempt
  --results DIR   not to stdout but to DIR/1/ITEM/stdout and stderr, the number in seq (with -n: DIR/1/ITEM/2/ITEM2). In a name \_ is
                  a slash, \t a tab, \\ a backslash. Items that are equal share a directory, as with GNU parallel. With --pipe: DIR/NUMBER
  --results FILE.csv (or .tsv)  a row per command, with output, in GNU parallel's columns. With --resume, rows are added to those in the file

--joblog FILE gets a line for each command that has ended, after its output has been written: number, ":", start (Unix seconds), run time, bytes
read and written, exit status, signal, command. An exit status of -1: ended by a timeout, or it never ran to its end. An existing joblog is begun anew,
or gone on with: --resume leaves out all items in it, --resume-failed those that succeeded. Command and items must be the same as before. A line that
was cut off when the power went or the disk was full is cut off, and its item runs again.

stderr ends with a line for each of the first ten items that failed, and how many did. A progress bar is there if stderr is a terminal and stdout is not,
or with --bar. Exit status:

  0          all succeeded (or --halt with success= was met)
  1 to 100   so many failed; 101: more
  128 + n    ended by signal n: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 141 nobody read the output any more
  255        procpool itself failed, or was called wrongly`

const controlTopic = `  -j N              N at a time. N% of the usable CPUs, +N or -N more or less than these; 0: as many as there are items, at most 250,
                    and 250 if that is not known before they have been read (from stdin or -a). Each runs in a worker process. Default: usable CPUs
  --timeout T       how long an item may take: seconds, or 1.5s, 2m, 1h. Then it gets SIGTERM, with all that it has started, and a second later SIGKILL
  --timeout N%      of the median of the last 999 that succeeded, from the third on; also for those that were running then
  --retries N       an item that fails, times out or loses its worker runs up to N times in all. Only the last time counts and is shown; with
                    --line-buffer, whole lines of the others too, and with -u everything
  --delay T         between the beginnings of two commands; a retry does not wait
  --memfree SIZE    no command begins while less memory is available (MemAvailable of the machine), as 500M or 2G. None is killed
  --halt WHEN,WHY   WHEN is soon (no more begin) or now (those that run are ended); WHY is fail=N, success=N or done=N, or a percentage of all items
                    (they are read to the end first)

Ctrl-C, SIGTERM and SIGHUP end everything: the commands get SIGTERM, a second later SIGKILL, and nothing is left running, whatever they have started.
A second one ends procpool at once, and the rest goes with it. Ctrl-Z stops procpool alone: the commands that run go on to their end, since each is in a
process group of its own. So none of them can read from the terminal (/dev/tty): a password must come from elsewhere.`
